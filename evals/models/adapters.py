"""LoRA adapters as peft saves them: what a folder says of itself, what of it the engine serves
exactly, and whether it fits its base. Nothing is loaded: configs, and the headers of weight files.

What vLLM ignores without a word (a peft type, an initialisation that rewrote the base, a tensor of
no module) would be another model's number; what it refuses it would refuse after the load.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evals.errors import InputError

CONFIG = "adapter_config.json"
WEIGHTS, PICKLED = "adapter_model.safetensors", "adapter_model.bin"
"""The first that is there is the one that vLLM reads."""
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The ranks for which vLLM keeps room (vllm.config.lora.MaxLoRARanks)."""
MERGE = "Merge it into its base (peft's merge_and_unload) and evaluate the merged folder."
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")
_BESIDE_TOKENIZERS = (
    "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt",
    "chat_template.jinja",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter's folder and its config. has_tokenizer: a tokenizer or template lies in it
    that is not its base's.  hub_id, revision: where on the hub it is from.
    """

    folder: Path
    config: Mapping[str, Any]
    has_tokenizer: bool = False
    hub_id: str | None = None
    revision: str | None = None

    @property
    def base_name(self) -> str | None:
        """The base model as the config names it: a hub id, or a path where it was trained."""
        return self.config.get("base_model_name_or_path") or None

    @property
    def base_revision(self) -> str | None:
        """The base's revision on the hub, where the config names one."""
        return self.config.get("revision") or None

    @property
    def rank(self) -> int:
        """The largest of its matrices' ranks."""
        ranks = [self.config["r"], *(self.config.get("rank_pattern") or {}).values()]
        return max(map(int, ranks))

    @property
    def weights(self) -> Path | None:
        """Its file of weights; None where there is none."""
        return self.folder / WEIGHTS if (self.folder / WEIGHTS).is_file() else None

    @property
    def holds_model(self) -> bool:
        """Whether whole weights lie beside the adapter's."""
        names = ("model*.safetensors", "pytorch_model*.bin")
        return any(any(self.folder.glob(name)) for name in names)

    @property
    def identity(self) -> list[Path]:
        """The files that make its answers, beside its base's."""
        tokenizer = self.tokenizer if self.has_tokenizer else []
        return [self.folder / CONFIG, *([self.weights] if self.weights else []), *tokenizer]

    @property
    def tokenizer(self) -> list[Path]:
        """The files of a tokenizer and its template in the folder, whosever they are."""
        names = (*_TOKENIZERS, *_BESIDE_TOKENIZERS)
        return [self.folder / name for name in names if (self.folder / name).is_file()]

    def record(self) -> dict[str, Any]:
        """What a run says of it."""
        targets = self.config.get("target_modules")
        return {
            "rank": self.rank,
            "alpha": self.config["lora_alpha"],
            "targets": sorted(targets) if isinstance(targets, list) else targets,
            "rslora": bool(self.config.get("use_rslora")),
            "tokenizer": "adapter" if self.has_tokenizer else "base",
        }


def vllm_rank(rank: int) -> int:
    """The smallest rank that vLLM keeps room for and that holds this one."""
    return next(room for room in RANKS if room >= rank)


def read_adapter(argument: str, folder: Path, config: Mapping[str, Any]) -> Adapter:
    """The adapter, if its config says nothing that the engine would not do.

    Raises InputError, naming each thing that the engine cannot serve exactly.
    """
    kind = str(config.get("peft_type") or "")
    if not kind:
        raise InputError(
            f"{argument}/{CONFIG} is no config of peft's: it names no peft_type. Copy the folder"
            " again, or merge the adapter into its base where it was trained."
        )
    if kind in _UNMERGEABLE:
        raise InputError(
            f"{argument} is an adapter of kind {kind}, which neither vLLM serves nor peft merges:"
            " serve it elsewhere and evaluate openai:NAME@URL."
        )
    if kind != "LORA":
        raise InputError(f"{argument} is an adapter of kind {kind}; vLLM serves LORA. {MERGE}")
    r, alpha = config.get("r"), config.get("lora_alpha")
    ranks = [r, *_dictionary(config, "rank_pattern").values()]
    alphas = [alpha, *_dictionary(config, "alpha_pattern").values()]
    if not all(_is_number(one, int) and one > 0 for one in ranks) or not all(
        _is_number(one, int | float) and abs(one) < math.inf for one in alphas
    ):
        raise InputError(
            f"{argument}/{CONFIG} is damaged: its ranks (r, rank_pattern) must be positive integers"
            f" and its alphas (lora_alpha, alpha_pattern) finite numbers, not {r!r} and {alpha!r}."
        )
    for name in ("base_model_name_or_path", "revision", "target_modules"):
        found = config.get(name)
        several = found if name == "target_modules" and isinstance(found, list) else [found]
        if not all(isinstance(one, str | None) for one in several):
            raise InputError(
                f"{argument}/{CONFIG} is damaged: its {name} is no text, but {found!r}. Copy the"
                " folder again."
            )
    refuse(argument, [*_unserved(config), *_too_large(max(ranks))])
    return Adapter(folder, config)


_UNMERGEABLE = (
    "PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "ADAPTION_PROMPT",
    "CPT", "CARTRIDGE", "XLORA",
)  # fmt: skip
_PLAIN_STARTS = ("gaussian", "eva", "orthogonal", "mica", "lora_ga")
"""Values of init_lora_weights that leave the base what it was. The others (pissa, olora, corda,
loftq) take out of its weights what they put into the adapter's."""
_UNSERVED = {
    "use_dora": "it is DoRA (use_dora)",
    "modules_to_save": "it holds whole modules beside its matrices (modules_to_save {})",
    "trainable_token_indices": "it holds tokens' embeddings (trainable_token_indices)",
    "lora_bias": "its matrices have biases (lora_bias)",
    "fan_in_fan_out": "its weights are stored transposed (fan_in_fan_out)",
    "layer_replication": "it repeats layers of the base (layer_replication)",
    "alora_invocation_tokens": "it acts from certain tokens on (alora_invocation_tokens)",
    "target_parameters": "it is for parameters, not modules (target_parameters {})",
    "use_qalora": "it is QA-LoRA (use_qalora)",
    "use_bdlora": "it is block-diagonal (use_bdlora)",
    "arrow_config": "it routes between adapters (arrow_config)",
    "kasa_config": "it is KaSA (kasa_config)",
}
_SERVED = {
    "base_model_name_or_path", "revision", "peft_type", "task_type", "inference_mode",
    "auto_mapping", "peft_version", "r", "lora_alpha", "target_modules", "exclude_modules",
    "lora_dropout", "bias", "use_rslora", "layers_to_transform", "layers_pattern", "rank_pattern",
    "alpha_pattern", "megatron_config", "megatron_core", "init_lora_weights", "loftq_config",
    "eva_config", "corda_config", "lora_ga_config", "qalora_group_size", "ensure_weight_tying",
    "runtime_config", "lora_dtype", "lorap_lr_ratio", "lorap_emb_lr", "velora_config",
}  # fmt: skip
"""What peft's LoraConfig holds that decides nothing here, or that is read above. Anything else that
is set is of a peft not known here, and may change what the matrices mean."""


def _unserved(config: Mapping[str, Any]) -> list[str]:
    """Why an adapter's config is not served exactly."""
    why = [text.format(config[name]) for name, text in _UNSERVED.items() if config.get(name)]
    if config.get("bias") not in (None, "none"):
        why.append(f"it trained the base's biases (bias {config['bias']!r})")
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.lower() not in _PLAIN_STARTS:
        why.append(
            f"it was started from the base's own weights (init_lora_weights {start!r}), which it"
            " left changed"
        )
    if config.get("task_type") not in (None, "CAUSAL_LM"):
        why.append(f"it was trained for {config['task_type']}, not for writing text")
    unknown = sorted(
        name
        for name, value in config.items()
        if value and name not in _SERVED and name not in _UNSERVED
    )
    if unknown:
        why.append(f"its config sets {', '.join(unknown)}, which are not known here")
    return why


def _too_large(rank: int) -> list[str]:
    return [f"its rank is {rank}, vLLM's most {RANKS[-1]}"] if rank > RANKS[-1] else []


def refuse(argument: str, why: Sequence[str]) -> None:
    """Raise InputError where there is a reason to."""
    if why:
        raise InputError(f"{argument} cannot be served as an adapter: {'; '.join(why)}. {MERGE}")


def _dictionary(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = config.get(name) or {}
    return found if isinstance(found, dict) else {"": found}


def _is_number(value: object, kind: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def some(names: Sequence[str]) -> str:
    """The first, and how many more."""
    more = f" and {len(names) - 1:,} more" if len(names) > 1 else ""
    return f"{names[0]}{more}"


# --- tokenizers -----------------------------------------------------------------------------------


def brings_tokenizer(argument: str, adapter: Adapter, base_files: Path) -> bool:
    """Whether a tokenizer or a template lies in the folder that is not its base's.

    Raises InputError for a template or settings without the tokenizer that they belong to.
    """
    files = adapter.tokenizer
    others = [file.name for file in files if not _same(file, base_files / file.name)]
    if others and not any(file.name in _TOKENIZERS for file in files):
        raise InputError(
            f"{argument} holds {', '.join(others)}, other than its base's, but no tokenizer: copy"
            " the base's tokenizer files beside it, or take it away to use the base's."
        )
    return bool(others)


def _same(one: Path, other: Path) -> bool:
    return other.is_file() and one.read_bytes() == other.read_bytes()


def check_vocabulary(argument: str, own: Any, base: Any) -> None:
    """Raise InputError where the adapter's tokenizer writes ids that mean something else to its
    base, or nothing. own, base: Hugging Face tokenizers.
    """
    ours, theirs = own.get_vocab(), base.get_vocab()
    known = set(theirs.values())
    added = sorted((i, token) for token, i in ours.items() if i not in known)
    moved = [token for token, i in theirs.items() if ours.get(token, i) != i]
    if moved:
        raise InputError(
            f"{argument} holds another tokenizer than its base's ({some(sorted(moved))} has"
            " another id): give its own base with --base MODEL."
        )
    if added:
        raise InputError(
            f"{argument}: its tokenizer adds {some([token for _, token in added])}, whose"
            f" embeddings are neither its own nor its base's. {MERGE} Where they are never"
            " written, take its tokenizer's files away: the base's are then used."
        )
