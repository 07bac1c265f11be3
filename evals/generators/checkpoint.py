"""A checkpoint as vLLM takes it, by vLLM's own configuration code, before any weight is loaded: its
context, its precision, where its answers end. No GPU is needed.
"""

import logging
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from evals.errors import InputError
from evals.generators import EngineSettings
from evals.generators.engine_errors import one_line
from evals.models.resolve import Model

CARD_DTYPE = "bfloat16"
"""What the card's rows were computed in."""
_MOVE_GREEDY: Mapping[str, object] = {
    "repetition_penalty": 1, "encoder_repetition_penalty": 1, "presence_penalty": 0,
    "frequency_penalty": 0, "no_repeat_ngram_size": 0, "encoder_no_repeat_ngram_size": 0,
    "bad_words_ids": None, "sequence_bias": None, "suppress_tokens": None,
    "begin_suppress_tokens": None, "forced_bos_token_id": None, "forced_eos_token_id": None,
    "min_length": 0, "min_new_tokens": 0, "max_new_tokens": None, "num_beams": 1,
    "length_penalty": 1, "exponential_decay_length_penalty": None, "guidance_scale": 1,
    "penalty_alpha": None, "stop_strings": None,
}  # fmt: skip
"""What of a generation config could change an answer at temperature 0, with the value that does
not; of transformers' own, vLLM knows the first penalties only.
"""
_SAMPLE: Mapping[str, object] = {
    "temperature": 1, "top_p": 1, "top_k": 0, "min_p": 0, "typical_p": 1, "epsilon_cutoff": 0,
    "eta_cutoff": 0,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """max_len: context in tokens, prompt and answer together.  own_max_len: the same where nobody
    asks for another.
    dtype: of weights and activations.  cache_dtype: the KV cache's, None where it is the same.
    end_ids: tokens that end an answer.  defaults: how its generation config would have it sample;
    nothing of that is used.
    """

    max_len: int
    own_max_len: int
    dtype: str
    cache_dtype: str | None
    end_ids: tuple[int, ...]
    defaults: Mapping[str, Any]

    def came_to(self, dtype: str) -> tuple[str, ...]:
        """What a fingerprint must hold beside the dtype asked for: a precision that the checkpoint
        or the machine chose. Nothing where it is the card's.
        """
        own = (self.dtype,) if dtype == "auto" and self.dtype != CARD_DTYPE else ()
        return own + ((f"cache {self.cache_dtype}",) if self.cache_dtype else ())

    def marks(self) -> list[str]:
        """What a cell must say of the engine's precision and context."""
        found = []
        if self.dtype != CARD_DTYPE:
            found.append(f"computed in {self.dtype}; the card's rows in {CARD_DTYPE}")
        if self.cache_dtype:
            found.append(f"KV cache in {self.cache_dtype}; the card's was in {CARD_DTYPE}")
        if self.max_len > self.own_max_len and _is_long_allowed():
            found.append(
                f"context stretched to {self.max_len:,} tokens; the checkpoint's own is"
                f" {self.own_max_len:,}"
            )
        return found

    def notes(self) -> list[str]:
        """What to say at a run's start: defaults that would have moved even a greedy answer."""
        moved = [f"{name} {self.defaults[name]}" for name in _MOVE_GREEDY if name in self.defaults]
        if not moved:
            return []
        return [
            f"the checkpoint's generation config sets {', '.join(moved)}: not used, the protocol's"
            " own sampling is."
        ]

    def record(self) -> dict[str, Any]:
        """For run.json."""
        return {
            "max_model_len": self.max_len,
            "dtype": self.dtype,
            "kv_cache_dtype": self.cache_dtype or self.dtype,
            "end_ids": list(self.end_ids),
            "defaults_not_used": dict(self.defaults),
        }


def take(model: Model, settings: EngineSettings, tokenizer: Any) -> Checkpoint | None:
    """The model as vLLM will take it under these settings; None where it has no config.json here,
    or where vLLM is not installed (evaluating a server needs none).

    Raises InputError for a checkpoint, or a --max-model-len, that vLLM refuses.
    """
    if model.files is None or not (model.files / "config.json").is_file():
        return None
    prepare_import(settings)
    try:
        import vllm  # noqa: F401
    except ImportError:
        return None
    # Of a server's model only the files with its tokenizer are here.
    source = model.source if model.kind == "weights" else str(model.files)
    own = _config(source, model, replace(settings, max_model_len=None))
    asked = settings.max_model_len
    config = own if asked is None else _longer(source, model, settings, own.max_model_len)
    _check_split(config, model, settings)
    held = config.try_get_generation_config()
    named = held.get("eos_token_id")
    listed = named if isinstance(named, list) else [named]
    if not all(isinstance(one, int | None) for one in listed):
        raise InputError(
            f"{model.argument}: eos_token_id in generation_config.json is {named!r}; it must be a"
            " token's id, or a list of ids."
        )
    ends = {tokenizer.eos_token_id, *listed} - {None}
    return Checkpoint(
        config.max_model_len, own.max_model_len, str(config.dtype).removeprefix("torch."),
        _cache_dtype(config), tuple(sorted(ends)), _defaults(held),
    )  # fmt: skip


def is_installed() -> bool:
    """Whether vLLM is there, which this does not import."""
    from importlib.util import find_spec

    return find_spec("vllm") is not None


def _config(source: str, model: Model, settings: EngineSettings) -> Any:
    """vLLM's ModelConfig."""
    from vllm.engine.arg_utils import EngineArgs

    try:
        return EngineArgs(
            model=source, revision=model.revision, **settings.arguments()
        ).create_model_config()
    except Exception as error:
        raise InputError(f"vLLM cannot take {model.argument}: {one_line(error)}.") from error


def _check_split(config: Any, model: Model, settings: EngineSettings) -> None:
    """Raise InputError where the model cannot be split over so many GPUs, by vLLM's own rules."""
    from vllm.config import ParallelConfig

    tensor, stages = settings.tensor_parallel_size or 1, settings.pipeline_parallel_size or 1
    if tensor * stages == 1:
        return
    try:
        # With a backend named it does not look for the GPUs, of which this machine may have none.
        config.verify_with_parallel_config(
            ParallelConfig(
                tensor_parallel_size=tensor,
                pipeline_parallel_size=stages,
                distributed_executor_backend="mp",
            )
        )
    except Exception as error:
        raise InputError(
            f"{model.argument} cannot be split over {tensor * stages} GPUs as asked:"
            f" {one_line(error)}."
        ) from error


def _longer(source: str, model: Model, settings: EngineSettings, own: int) -> Any:
    """The same with the context asked for. Raises InputError where vLLM refuses that."""
    try:
        return _config(source, model, settings)
    except InputError:
        raise InputError(
            f"--max-model-len {settings.max_model_len:,} is more than {model.argument} takes"
            f" ({own:,}, by vLLM's own rule). VLLM_ALLOW_LONG_MAX_MODEL_LEN=1 has vLLM take it all"
            " the same."
        ) from None


def _cache_dtype(config: Any) -> str | None:
    """What a quantized checkpoint asks of the KV cache (fp8 …), None where it asks nothing."""
    from vllm.utils.torch_utils import resolve_kv_cache_dtype_string

    found = str(resolve_kv_cache_dtype_string("auto", config))
    if found != "auto":
        return found
    # llm-compressor's scheme, which vLLM reads no sooner than when it makes the layers.
    quantized = config.model_arch_config.quantization_config or {}
    return "fp8" if quantized.get("kv_cache_scheme") else None


def _defaults(held: Mapping[str, Any]) -> dict[str, Any]:
    """What of a generation config would act on a sampling that left it open."""
    known = {**_MOVE_GREEDY, **_SAMPLE}
    found = {name: held.get(name) for name in known}
    return {name: value for name, value in found.items() if value not in (None, [], known[name])}


def _is_long_allowed() -> bool:
    return os.environ.get("VLLM_ALLOW_LONG_MAX_MODEL_LEN", "0").strip().lower() in ("1", "true")


def prepare_import(settings: EngineSettings) -> None:
    """What vLLM reads of the environment while it is imported. Errors only: what it and torch say
    while loading buries what a user must read.
    """
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    warnings.filterwarnings("ignore", category=FutureWarning, module="vllm")
    logging.getLogger("torch").setLevel(logging.ERROR)
    if settings.batch_invariant:
        os.environ["VLLM_BATCH_INVARIANT"] = "1"  # where its kernels are chosen
