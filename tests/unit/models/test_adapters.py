"""LoRA adapters: what vLLM would serve otherwise than peft, or not at all, is refused by config and
headers; the rest is a model of its own.
"""

import json
import shutil
import typing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from evals.errors import InputError
from evals.models.adapters import RANKS, check_vocabulary, vllm_rank
from evals.models.bases import adapter_marks, adapter_notes, adapter_record
from evals.models.embedded import embedded_folder
from evals.models.prompts import load_tokenizer
from evals.models.resolve import Model, require_weights, resolve
from tests.adapters import random_pair, write_adapter

HIDDEN, VOCABULARY = 8, 16
Q = [f"model.layers.{i}.self_attn.q_proj" for i in (0, 1)]
MERGE = "Merge it into its base (peft's merge_and_unload) and evaluate the merged folder."


def zeros(*shape: int) -> np.ndarray[Any, Any]:
    return np.zeros(shape, np.float32)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A folder of two layers, queries and gates only."""
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "config.json").write_text('{"max_position_embeddings": 2048}')
    (folder / "tokenizer.json").write_text("{}")
    (folder / "tokenizer_config.json").write_text("{}")
    tensors = {f"{name}.weight": zeros(HIDDEN, HIDDEN) for name in Q}
    tensors["model.layers.0.mlp.gate_proj.weight"] = zeros(2 * HIDDEN, HIDDEN)
    tensors["model.embed_tokens.weight"] = zeros(VOCABULARY, HIDDEN)
    save_file(tensors, folder / "model.safetensors")
    return folder


@pytest.fixture
def lora(tmp_path: Path, base: Path) -> Path:
    """An adapter of its queries."""
    random = np.random.default_rng(0)
    tensors = {k: v for q in Q for k, v in random_pair(q, (HIDDEN, HIDDEN), 4, random).items()}
    return write_adapter(tmp_path / "lora", tensors, base_model_name_or_path=str(base))


def served(lora: Path, **settings: Any) -> Model:
    model = resolve(str(lora), **settings)
    require_weights(model)
    return model


def refused(lora: Path, **settings: Any) -> str:
    with pytest.raises(InputError) as caught:
        served(lora, **settings)
    message = str(caught.value)
    assert "\n" not in message
    return message


def configure(lora: Path, **config: Any) -> None:
    file = lora / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | config))


# --- what is served -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"use_rslora": True},
        {"init_lora_weights": "gaussian"},
        {"init_lora_weights": False, "layers_to_transform": [0, 1], "layers_pattern": "layers"},
        {"target_modules": "all-linear", "task_type": None},
        {"eva_config": {"rho": 2.0}, "init_lora_weights": "eva"},
        {"auto_mapping": {"unsloth_fixed": True}},
        {"alpha_pattern": {"layers.1.self_attn.q_proj": 2.5}},
        {"a_setting_of_tomorrow": False},
    ],
)
def test_an_adapter_is_a_model_on_its_base(lora: Path, base: Path, config: Any) -> None:
    configure(lora, **config)
    model = served(lora)
    assert (model.name, model.public_id, model.own_revision) == ("lora", "lora", None)
    assert (model.source, model.files, model.tokenizer_files) == (str(base), base, base)
    assert model.base == resolve(str(base))


def test_ranks_by_pattern_are_those_of_the_matrices(lora: Path) -> None:
    """The scale is alpha / rank, by the config: where that is not the matrices', no number."""
    random = np.random.default_rng(0)
    tensors = random_pair(Q[0], (HIDDEN, HIDDEN), 4, random)
    write_adapter(lora, tensors | random_pair(Q[1], (HIDDEN, HIDDEN), 24, random), r=4)
    configure(lora, base_model_name_or_path=str(lora.parent / "base"))
    assert f"other ranks than its config says: {Q[1]} (24, not 4)" in refused(lora)
    for pattern in ("layers.1.self_attn.q_proj", r"model\.layers\.[1-9]\.self_attn\.q_proj"):
        configure(lora, rank_pattern={pattern: 24})
        model = served(lora)
        assert model.adapter is not None
        assert (model.adapter.rank, vllm_rank(model.adapter.rank)) == (24, 32)
    # peft's keys are ends of names at a dot.
    configure(lora, rank_pattern={"1.self_attn.q_pro": 24})
    assert "other ranks" in refused(lora)


def test_ranks_and_starts_are_those_of_the_engine_that_is_installed() -> None:
    lora_config = pytest.importorskip("vllm.config.lora")
    from vllm.lora.peft_helper import PEFTHelper

    assert typing.get_args(lora_config.MaxLoRARanks) == RANKS
    assert [vllm_rank(rank) for rank in (1, 2, 8, 9, 320, 321, 512)] == [
        1, 8, 8, 16, 320, 512, 512
    ]  # fmt: skip
    for start in (True, False, *("gaussian", "eva", "orthogonal", "mica", "lora_ga")):
        helper = PEFTHelper(r=1, lora_alpha=1, target_modules=["q"], init_lora_weights=start)
        assert not helper._validate_features()


# --- what is refused by its config ----------------------------------------------------------------

UNSERVED = [
    ({"use_dora": True}, "it is DoRA"),
    ({"modules_to_save": ["lm_head", "embed_tokens"]}, "modules_to_save ['lm_head', 'embed_toke"),
    ({"trainable_token_indices": [5]}, "trainable_token_indices"),
    ({"bias": "lora_only"}, "it trained the base's biases (bias 'lora_only')"),
    ({"lora_bias": True}, "lora_bias"),
    ({"fan_in_fan_out": True}, "stored transposed"),
    ({"layer_replication": [[0, 4], [2, 5]]}, "repeats layers"),
    ({"alora_invocation_tokens": [7]}, "alora_invocation_tokens"),
    ({"target_parameters": ["mlp.experts.gate_up_proj"]}, "for parameters, not modules"),
    ({"use_qalora": True}, "QA-LoRA"),
    ({"use_bdlora": {"nblocks": 2}}, "block-diagonal"),
    ({"arrow_config": {"top_k": 3}}, "routes between adapters"),
    *(
        ({"init_lora_weights": start}, f"the base's own weights (init_lora_weights '{start}'")
        for start in ("pissa", "pissa_niter_16", "olora", "corda", "loftq", "of_tomorrow")
    ),
    ({"task_type": "SEQ_CLS"}, "trained for SEQ_CLS, not for writing text"),
    ({"a_setting_of_tomorrow": 3}, "its config sets a_setting_of_tomorrow, which are not known"),
    ({"r": 513}, "its rank is 513, vLLM's most 512"),
    ({"rank_pattern": {"q_proj": 600}}, "its rank is 600, vLLM's most 512"),
]  # fmt: skip


@pytest.mark.parametrize(("config", "says"), UNSERVED, ids=lambda one: str(one)[:40])
def test_what_the_engine_would_not_compute_is_refused_with_the_way_out(
    lora: Path, config: Any, says: str
) -> None:
    configure(lora, **config)
    message = refused(lora)
    assert message.startswith(f"{lora} cannot be served as an adapter: ")
    assert says in message
    assert message.endswith(MERGE)


def test_several_reasons_are_told_at_once(lora: Path) -> None:
    configure(lora, use_dora=True, bias="all", init_lora_weights="pissa")
    message = refused(lora)
    assert message.count(";") == 2
    assert message.count(MERGE) == 1


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"peft_type": "IA3"}, f"of kind IA3; vLLM serves LORA. {MERGE}"),
        ({"peft_type": "ADALORA"}, "of kind ADALORA; vLLM serves LORA"),
        ({"peft_type": "PROMPT_TUNING"}, "neither vLLM serves nor peft merges"),
        ({"peft_type": None}, "names no peft_type"),
        ({"r": "8"}, "must be positive integers"),
        ({"r": 0}, "must be positive integers"),
        ({"r": True}, "must be positive integers"),
        ({"lora_alpha": None}, "its alphas"),
        ({"rank_pattern": ["q_proj"]}, "must be positive integers"),
        ({"alpha_pattern": {"q_proj": "x"}}, "its alphas"),
        ({"lora_alpha": float("nan")}, "finite numbers"),
        ({"alpha_pattern": {"q_proj": float("inf")}}, "finite numbers"),
        ({"base_model_name_or_path": 5}, "its base_model_name_or_path is no text, but 5"),
        ({"revision": ["main"]}, "its revision is no text"),
        ({"target_modules": ["q_proj", 1]}, "its target_modules is no text"),
        ({"target_modules": {"q_proj": 1}}, "its target_modules is no text"),
    ],
)
def test_other_kinds_and_damaged_configs_have_their_sentence(
    lora: Path, config: Any, says: str
) -> None:
    configure(lora, **config)
    assert says in refused(lora)


# --- what is refused by its weights ---------------------------------------------------------------


def changed(lora: Path, **tensors: Any) -> None:
    """The adapter's matrices with others in place; None takes one out."""
    file = lora / "adapter_model.safetensors"
    held = load_file(file) | {
        f"base_model.model.{k}": v for k, v in tensors.items() if v is not None
    }
    gone = {f"base_model.model.{k}" for k, v in tensors.items() if v is None}
    save_file({k: v for k, v in held.items() if k not in gone}, file)
    modules = {name.split(".lora_")[0].split(".")[-1] for name in held}
    configure(lora, target_modules=sorted(modules))


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"target_modules": ["k_proj"]}, f"{Q[0]} and 1 more"),
        ({"target_modules": ["proj"]}, f"{Q[0]} and 1 more"),
        ({"target_modules": r".*\.1\.self_attn\.q_proj"}, Q[0]),
        ({"layers_to_transform": [1]}, Q[0]),
        ({"layers_to_transform": 0}, Q[1]),
        ({"exclude_modules": ["q_proj"]}, f"{Q[0]} and 1 more"),
    ],
)
def test_matrices_that_the_config_leaves_out_are_refused_for_peft_would_leave_them_out(
    lora: Path, config: Any, named: str
) -> None:
    configure(lora, **config)
    says = f"its weights hold {named}, which its config leaves out and peft would, too"
    assert says in refused(lora)


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        ({"lm_head.weight": zeros(VOCABULARY, HIDDEN)}, "hold base_model.model.lm_head.weight, no"),
        ({f"{Q[0]}.lora_magnitude_vector": zeros(HIDDEN)}, "lora_magnitude_vector, no LoRA matrix"),
        ({f"{Q[0]}.lora_B.bias": zeros(HIDDEN)}, "lora_B.bias, no LoRA matrix"),
        ({f"{Q[0]}.lora_A.default.weight": zeros(4, HIDDEN)}, "no LoRA matrix"),
        (
            {"model.embed_tokens.base_layer.weight": zeros(VOCABULARY, HIDDEN)},
            "base_layer.weight, no LoRA matrix",
        ),
        ({f"{Q[1]}.lora_B.weight": None}, f"of {Q[1]} one of the two matrices is missing"),
        ({f"{q}.lora_{k}.weight": None for q in Q for k in "AB"}, "hold no LoRA matrices"),
        (
            {f"{Q[1]}.lora_B.weight": zeros(HIDDEN, 2)},
            f"other ranks than its config says: {Q[1]} (2 and 4, not 4)",
        ),
        # Of more layers, or of another size: what vLLM has no module for it leaves out silently.
        (
            {
                "model.layers.2.self_attn.q_proj.lora_A.weight": zeros(4, HIDDEN),
                "model.layers.2.self_attn.q_proj.lora_B.weight": zeros(HIDDEN, 4),
            },
            "its base has no module model.layers.2.self_attn.q_proj",
        ),
        (
            {
                "model.layers.0.mlp.gate_proj.lora_A.weight": zeros(4, HIDDEN),
                "model.layers.0.mlp.gate_proj.lora_B.weight": zeros(HIDDEN, 4),
            },
            "other shapes than its base: model.layers.0.mlp.gate_proj (8 × 8, the base's 16 × 8)",
        ),
        (
            {
                "model.embed_tokens.lora_embedding_A": zeros(4, VOCABULARY),
                "model.embed_tokens.lora_embedding_B": zeros(HIDDEN, 4),
            },
            "changes embeddings that its base uses for the output too",
        ),
    ],
)
def test_weights_that_are_not_the_configs_or_not_the_bases_are_refused(
    lora: Path, tensors: Any, says: str
) -> None:
    served(lora)
    changed(lora, **tensors)
    message = refused(lora)
    assert says in message
    assert message.endswith(MERGE)


def test_weights_that_cannot_be_read_or_are_not_there(lora: Path) -> None:
    file = lora / "adapter_model.safetensors"
    for damage in (b"", b"\xff" * 40, b"\x08" + b"\0" * 7 + b"[1,2,3] "):
        file.write_bytes(damage)
        assert "adapter_model.safetensors cannot be read" in refused(lora)
    file.unlink()
    assert "holds no adapter_model.safetensors" in refused(lora)


def test_weights_that_are_a_pickle_are_refused_unread(lora: Path) -> None:
    (lora / "adapter_model.safetensors").unlink()
    (lora / "adapter_model.bin").write_bytes(b"whatever")
    assert "adapter_model.bin is a pickle, which could run a program" in refused(lora)


def test_a_base_in_a_form_of_its_own_is_held_to_its_names_only(lora: Path, base: Path) -> None:
    """Quantized weights have other shapes; a wrapper puts its own names before the layers'."""
    packed = {
        f"language_model.{q}.{what}": np.zeros((2, 3), np.int32)
        for q in Q
        for what in ("qweight", "scales")
    }
    save_file(packed, base / "model.safetensors")
    config = {"quantization_config": {"quant_method": "awq"}}
    (base / "config.json").write_text(json.dumps(config))
    assert any("is quantized (awq), as for QLoRA" in note for note in adapter_notes(served(lora)))
    save_file({k: v for k, v in packed.items() if "layers.1." not in k}, base / "model.safetensors")
    assert f"its base has no module {Q[1]}" in refused(lora)


# --- the base -------------------------------------------------------------------------------------


def test_the_base_is_the_configs_or_the_users(lora: Path, base: Path, tmp_path: Path) -> None:
    configure(lora, base_model_name_or_path="/where/it/was/trained/base")
    message = refused(lora)
    assert message.startswith(f"{lora}, an adapter of /where/it/was/trained/base: Unknown model")
    assert message.endswith("Name it with --base MODEL if it is elsewhere.")
    model = served(lora, base=str(base))
    assert adapter_marks(model) == []
    assert adapter_record(model) == {
        "base": "base", "base_revision": None, "rank": 4, "alpha": 12, "targets": ["q_proj"],
        "rslora": False, "tokenizer": "base",
    }  # fmt: skip
    configure(lora, base_model_name_or_path=None)
    assert "names no base: name it with --base MODEL" in refused(lora)
    # Another model of the same shapes: nothing but its name tells.
    configure(lora, base_model_name_or_path="me/instruct")
    assert adapter_marks(served(lora, base=str(base))) == [
        "an adapter of instruct, by its config, run on base"
    ]


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ("lora", "its base must be a folder of weights or a hub id, and"),
        ("openai:m@http://localhost:1/v1", "is none. Name another with --base MODEL."),
        ("", "names no base"),
    ],
)
def test_what_cannot_be_a_base(lora: Path, other: str, says: str) -> None:
    name = str(lora) if other == "lora" else other
    configure(lora, base_model_name_or_path=name)
    assert says in refused(lora)


def test_a_base_for_what_is_no_adapter_is_refused(base: Path) -> None:
    assert "is no adapter (it holds no adapter_config.json)" in refused(base, base="smollm2")


def test_a_whole_model_beside_an_adapter_is_said_not_to_be_evaluated(
    lora: Path, base: Path
) -> None:
    shutil.copy(base / "model.safetensors", lora)
    assert any("holds a whole model, too" in note for note in adapter_notes(served(lora)))
    (lora / "model.safetensors").unlink()
    (lora / "training_args.bin").write_bytes(b"")
    (lora / "optimizer.pt").write_bytes(b"")
    assert not any("whole model" in note for note in adapter_notes(served(lora)))


def test_the_fingerprint_is_of_adapter_and_base(lora: Path, base: Path) -> None:
    """A zero adapter is a model of its own; what a trainer leaves beside it is none of it."""
    seen = {resolve(str(base)).fingerprint(), (first := served(lora).fingerprint())}
    assert len(seen) == 2
    (lora / "trainer_state.json").write_text("{}")
    (lora / "README.md").write_text("hello")
    assert served(lora).fingerprint() == first
    assert served(lora).fingerprint("float32") not in seen
    changed(lora, **{f"{Q[0]}.lora_A.weight": zeros(4, HIDDEN)})
    seen.add(served(lora).fingerprint())
    configure(lora, lora_alpha=13)
    seen.add(served(lora).fingerprint())
    (base / "config.json").write_text('{"max_position_embeddings": 4096}')
    seen.add(served(lora).fingerprint())
    (lora / "tokenizer.json").write_text('{"x": 1}')
    seen.add(served(lora).fingerprint())
    assert len(seen) == 6


# --- the tokenizer --------------------------------------------------------------------------------


def test_a_tokenizer_that_differs_from_the_bases_is_the_adapters(lora: Path, base: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(base / name, lora)
    assert served(lora).tokenizer_files == base
    (lora / "chat_template.jinja").write_text("{{ messages }}")
    model = served(lora)
    assert model.tokenizer_files == lora
    assert any("its own tokenizer and template are used" in one for one in adapter_notes(model))
    record = adapter_record(model)
    assert record is not None
    assert record["tokenizer"] == "adapter"
    (lora / "tokenizer.json").unlink()
    assert "holds chat_template.jinja, other than its base's, but no tokenizer" in refused(lora)


def test_ids_that_the_base_has_no_embedding_for_are_refused() -> None:
    files = str(embedded_folder())
    base, own = load_tokenizer(files), load_tokenizer(files)
    check_vocabulary("lora", own, base)
    own.add_tokens(["<call>", "<result>"])
    with pytest.raises(InputError, match="its tokenizer adds <call> and 1 more, whose embeddings"):
        check_vocabulary("lora", own, base)
    with pytest.raises(InputError, match="another tokenizer than its base's"):
        check_vocabulary("lora", _Renumbered(own), base)


class _Renumbered:
    """A tokenizer with its first two tokens changed about."""

    def __init__(self, tokenizer: Any) -> None:
        self._vocabulary = dict(tokenizer.get_vocab())

    def get_vocab(self) -> dict[str, int]:
        swap = {0: 1, 1: 0}
        return {token: swap.get(i, i) for token, i in self._vocabulary.items()}
