"""A checkpoint as vLLM takes it: context, precision, ends and idle sampling defaults, of folders as
trainers leave them, before any weight is loaded.
"""

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from evals.errors import InputError
from evals.generators import EngineSettings
from evals.generators.checkpoint import Checkpoint, take
from evals.generators.engine_args import _OURS, SAFE, check_engine_args, engine_args_of
from evals.models.embedded import embedded_folder
from evals.models.prompts import load_tokenizer
from evals.models.resolve import resolve
from evals.plan.engine import fingerprint_of
from tests.toydata import failure

FILES = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")
NEW = {"rope_theta": 1e4}
Edits = Mapping[str, Any]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in FILES:
        shutil.copy(embedded_folder() / name, tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    return tmp_path


def edit(folder: Path, file: str, edits: Edits) -> None:
    """Set values of a JSON file, or drop those that are None."""
    content = json.loads((folder / file).read_text()) | edits
    kept = {name: value for name, value in content.items() if value is not None}
    (folder / file).write_text(json.dumps(kept))


@cache
def tokenizer() -> Any:
    return load_tokenizer(str(embedded_folder()))


def taken(folder: Path, **settings: Any) -> Checkpoint:
    found = take(resolve(str(folder)), EngineSettings(**settings), tokenizer())
    assert found is not None
    return found


def rope(kind: str, own: int = 2048, **more: Any) -> Edits:
    """A context of 2,048 or `own`, with rope scaling in its old words."""
    scaling = {"type": kind, "factor": 4.0} | more
    return {"max_position_embeddings": own, "rope_parameters": None, "rope_scaling": scaling}


def rope_new(kind: str, **more: Any) -> Edits:
    return {
        "max_position_embeddings": 2048,
        "rope_parameters": {"rope_type": kind, "factor": 4.0} | NEW | more,
    }


LLAMA3 = {
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 512,
}
NO_NAME: Edits = {"max_position_embeddings": None}
# What vLLM's documentation of the names says: scaling that names the length before it multiplies,
# scaling that names the length after it (yarn, llama3) does not; of several names the least counts.
CONTEXTS: Mapping[str, tuple[Edits, int]] = {
    "its own": ({}, 8192),
    "linear": (rope("linear"), 8192),
    "linear, new words": (rope_new("linear"), 8192),
    "dynamic": (rope("dynamic"), 8192),
    "yarn": (rope("yarn", original_max_position_embeddings=512), 2048),
    "yarn, new words": (rope_new("yarn", original_max_position_embeddings=512), 2048),
    "llama3": (rope_new("llama3", **LLAMA3), 2048),
    "llama3, old words": (rope("llama3", **LLAMA3), 2048),
    "n_positions": ({**NO_NAME, "n_positions": 1024}, 1024),
    "seq_length": ({"seq_length": 1000}, 1000),
    "max_seq_len": ({"max_seq_len": 1001}, 1001),
    "max_sequence_length": ({"max_sequence_length": 1002}, 1002),
    "model_max_length above the others": ({"model_max_length": 16384}, 16384),
    "a sliding window is no limit": ({"sliding_window": 512}, 8192),
}


@pytest.mark.parametrize(("edits", "tokens"), CONTEXTS.values(), ids=CONTEXTS.keys())
def test_the_context_is_vllms(folder: Path, edits: Edits, tokens: int) -> None:
    edit(folder, "config.json", edits)
    found = taken(folder)
    assert (found.max_len, found.own_max_len, found.dtype) == (tokens, tokens, "bfloat16")
    assert taken(folder, max_model_len=99).max_len == 99
    said = failure(lambda: taken(folder, max_model_len=tokens + 1))
    assert said.startswith(
        f"--max-model-len {tokens + 1:,} is more than {folder} takes ({tokens:,}"
    )


def test_the_tokenizers_own_limit_is_not_the_models(folder: Path) -> None:
    edit(folder, "tokenizer_config.json", {"model_max_length": 77})
    assert taken(folder).max_len == 8192


def test_vllms_variable_allows_more_and_the_cells_say_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_ALLOW_LONG_MAX_MODEL_LEN", "1")
    found = taken(folder, max_model_len=9000)
    assert (found.max_len, found.own_max_len) == (9000, 8192)
    assert found.marks() == ["context stretched to 9,000 tokens; the checkpoint's own is 8,192"]


REFUSED: Mapping[str, tuple[Edits, str]] = {
    "architecture": ({"architectures": ["NoSuchForCausalLM"]}, "NoSuchForCausalLM"),
    "model type": ({"model_type": "no_such", "architectures": ["NoSuch"]}, "no_such"),
}


@pytest.mark.parametrize("ends", ["2", ["2", 2], [[2]], {"id": 2}])
def test_end_tokens_that_are_no_ids_are_one_sentence(folder: Path, ends: Any) -> None:
    edit(folder, "generation_config.json", {"eos_token_id": ends})
    said = failure(lambda: taken(folder))
    assert said.startswith(f"{folder}: eos_token_id in generation_config.json is {ends!r}")


@pytest.mark.parametrize("text", ["", "{no json", "[2]"])
def test_a_damaged_generation_config_is_not_taken_for_none(folder: Path, text: str) -> None:
    (folder / "generation_config.json").write_text(text)
    assert "generation_config.json" in failure(lambda: resolve(str(folder)))


def test_a_fault_of_the_config_is_not_called_a_missing_tokenizer(folder: Path) -> None:
    edit(folder, "config.json", {"max_position_embeddings": "2048"})
    said = failure(lambda: load_tokenizer(str(folder)))
    assert "'max_position_embeddings'" in said
    assert "int" in said
    assert "beside the weights" not in said


@pytest.mark.parametrize(("edits", "says"), REFUSED.values(), ids=REFUSED.keys())
def test_what_vllm_cannot_take_is_one_sentence(folder: Path, edits: Edits, says: str) -> None:
    edit(folder, "config.json", edits)
    said = failure(lambda: taken(folder))
    assert said.startswith(f"vLLM cannot take {folder}: ")
    assert says in said
    assert "\n" not in said
    assert "goes on" not in said


PRECISION: Mapping[str, tuple[Edits, str, str | None]] = {
    "bfloat16": ({"dtype": "bfloat16"}, "bfloat16", None),
    "in its old name": ({"dtype": None, "torch_dtype": "float16"}, "float16", None),
    "float32 is halved": ({"dtype": "float32"}, "bfloat16", None),
}


@pytest.mark.parametrize(("edits", "dtype", "cache"), PRECISION.values(), ids=PRECISION.keys())
def test_auto_comes_to_a_precision_that_is_kept_and_marked(
    folder: Path, edits: Edits, dtype: str, cache: str | None
) -> None:
    edit(folder, "config.json", edits)
    found = taken(folder)
    assert (found.dtype, found.cache_dtype) == (dtype, cache)
    assert bool(found.marks()) == (dtype != "bfloat16")
    model, engine = resolve(str(folder)), EngineSettings()
    # The stores and baselines of all runs in the card's precision know them by this.
    is_as_before = fingerprint_of(model, engine, found) == model.fingerprint()
    assert is_as_before == (dtype == "bfloat16")
    asked = replace(engine, dtype="float32")
    assert fingerprint_of(model, asked, taken(folder, dtype="float32")) == model.fingerprint(
        "float32"
    )


def test_another_precision_is_said_beside_the_cells(folder: Path) -> None:
    found = taken(folder, dtype="float32")
    assert found.marks() == ["computed in float32; the card's rows in bfloat16"]
    cached = replace(taken(folder), cache_dtype="fp8")
    assert cached.marks() == ["KV cache in fp8; the card's was in bfloat16"]
    assert cached.came_to("auto") == ("cache fp8",)
    assert cached.record()["kv_cache_dtype"] == "fp8"


def test_defaults_that_would_move_a_greedy_answer_are_told_and_others_recorded(
    folder: Path,
) -> None:
    own = {"temperature": 0.6, "top_p": 0.9, "do_sample": True, "eos_token_id": [2, 0]}
    edit(folder, "generation_config.json", own)
    plain = taken(folder)
    assert plain.notes() == []
    assert plain.defaults == {"temperature": 0.6, "top_p": 0.9}
    assert plain.end_ids == (0, 2)
    moving = {"repetition_penalty": 1.3, "suppress_tokens": [5], "length_penalty": 1.0}
    edit(folder, "generation_config.json", moving)
    found = taken(folder)
    assert set(found.defaults) == {*plain.defaults, "repetition_penalty", "suppress_tokens"}
    (note,) = found.notes()
    assert "repetition_penalty 1.3, suppress_tokens [5]: not used" in note


def test_a_folder_without_a_config_is_not_asked_about(folder: Path) -> None:
    (folder / "config.json").unlink()
    model = resolve(str(folder))
    assert take(model, EngineSettings(), tokenizer()) is None


def serve_lines() -> list[str]:
    """Commands of vLLM's server in scripts/README.md, and the one of scripts/slurm."""
    root = Path(__file__).resolve().parents[3]
    lines = (root / "scripts" / "README.md").read_text().splitlines()
    found = [line.removeprefix("vllm serve ") for line in lines if line.startswith("vllm serve ")]
    job = (root / "scripts" / "slurm").read_text().replace("\\\n", " ")
    (command,) = re.findall(r"api_server (.*?) > ", job)
    served = '${EVALS_SERVER:---data-parallel-size "${SLURM_GPUS_ON_NODE:-1}"}'
    for variable, value in {
        '"$model"': "m",
        '"$name"': "n",
        '"$port"': "8000",
        served: "--data-parallel-size 8",
    }.items():
        assert variable in command
        command = command.replace(variable, value)
    return [*found, command]


def test_vllms_own_parser_takes_the_commands_that_documents_and_jobs_give() -> None:
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    lines = serve_lines()
    assert len(lines) == 3
    parser = make_arg_parser(FlexibleArgumentParser())
    for line in lines:
        taken = parser.parse_args(line.split())
        assert taken.data_parallel_size in (2, 8, 16)
        assert taken.data_parallel_backend == ("ray" if "ray" in line else "mp")


# --- arguments of vLLM's own names ----------------------------------------------------------------


def test_the_names_that_may_be_given_and_those_that_are_ours_are_vllms() -> None:
    from vllm.engine.arg_utils import EngineArgs

    known = {field.name for field in fields(EngineArgs)}
    assert known > SAFE
    assert known > _OURS.keys()
    assert not SAFE & _OURS.keys()


@pytest.mark.parametrize(
    ("given", "becomes"),
    [
        (["max-num-batched-tokens=8192"], {"max_num_batched_tokens": 8192}),
        (["--enable-prefix-caching=false", "load_format=runai_streamer"],
         {"enable_prefix_caching": False, "load_format": "runai_streamer"}),
        (['{"compilation_config": {"cudagraph_mode": "NONE"}, "cudagraph_capture_sizes": [1, 2]}'],
         {"compilation_config": {"cudagraph_mode": "NONE"}, "cudagraph_capture_sizes": [1, 2]}),
    ],
)  # fmt: skip
def test_arguments_of_vllms_names_reach_its_engine(
    given: list[str], becomes: dict[str, object]
) -> None:
    settings = EngineSettings(engine_args=engine_args_of(given))
    check_engine_args(settings)
    assert settings.arguments() == EngineSettings().arguments() | becomes
    assert engine_args_of([settings.engine_args]) == settings.engine_args


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["max_num_batched_token=8"], "no such argument. Did you mean max_num_batched_tokens"),
        (["kv_cache_dtype=fp8"], "kv_cache_dtype=fp8: it could change what is answered"),
        (["speculative_config={}"], "could change what is answered"),
        (["load_format=dummy"], "could change what is answered"),
        (["load_format=Dummy"], "could change what is answered"),  # vLLM puts it in small letters
        (["load_format=tensorizer"], "could change what is answered"),
        (["load_format=sharded_state"], "could change what is answered"),  # of other files
        (["load_format=a-plugins"], "could change what is answered"),
        (['{"attention_config": {"use_non_causal": true}}'], "could change what is answered"),
        (['{"model_loader_extra_config": {"key": "s"}}'], "could change what is answered"),
        (["ignore_patterns=model-2*"], "could change what is answered"),
        (['{"watermark":' * 100_000], "is no JSON"),
        (["tensor_parallel_size=2"], "give --tensor-parallel-size instead"),
        (['{"hf_token": "secret"}'], "give HF_TOKEN in the environment instead"),
        (["max_num_batched_tokens=many"], "invalid human_readable_int value: 'many'"),
        (["max_num_batched_tokens=8k"], "vLLM takes that for 8000; give it"),
        (["enable_prefix_caching=maybe"], "--engine-args, by vLLM's own parser: "),
        (["compilation_config={\"nonsense\": 1}"], "Unexpected keyword argument"),
        (["watermark"], "give NAME=VALUE, or a JSON object"),
        (["{"], "is no JSON"),
        (["watermark=0.1", '{"watermark": 0.2}'], "gives watermark twice"),
    ],
)  # fmt: skip
def test_arguments_that_are_wrong_or_could_change_answers_are_refused(
    given: list[str], says: str
) -> None:
    with pytest.raises(InputError, match=re.escape(says)):
        check_engine_args(EngineSettings(engine_args=engine_args_of(given)))
