"""Arguments of vLLM's own names (`--engine-args`): those that a run may set, known by a table, and
their values, held to vLLM's own parser before anything loads.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import cache
from typing import Any

from evals.errors import InputError, nearest
from evals.generators import EngineSettings
from evals.generators.checkpoint import prepare_import

_OURS: Mapping[str, str] = {
    "model": "MODEL", "model_weights": "MODEL", "tokenizer": "a MODEL with that tokenizer",
    "revision": "--revision", "code_revision": "--revision", "tokenizer_revision": "--revision",
    "dtype": "--dtype", "quantization": "--quantization", "max_model_len": "--max-model-len",
    "seed": "--seed", "trust_remote_code": "--trust-remote-code",
    "tensor_parallel_size": "--tensor-parallel-size",
    "pipeline_parallel_size": "--pipeline-parallel-size",
    "data_parallel_size": "--data-parallel-size",
    "distributed_executor_backend": "--distributed-executor-backend",
    "gpu_memory_utilization": "--gpu-memory-utilization", "max_num_seqs": "--max-num-seqs",
    "enforce_eager": "--eager or --compile", "reasoning_parser": "--reasoning-parser",
    "enable_lora": "--adapter", "max_lora_rank": "--adapter", "max_loras": "--adapter",
    "hf_token": "HF_TOKEN in the environment",
}  # fmt: skip
"""What says the same here."""
_SAFE: Mapping[str, str] = {
    "batch": (
        "max_num_batched_tokens max_num_scheduled_tokens long_prefill_token_threshold"
        " long_prefill_token_threshold_adaptive enable_chunked_prefill prefill_schedule_interval"
        " scheduler_reserve_full_isl watermark async_scheduling performance_mode"
    ),
    "memory": (
        "kv_cache_memory_bytes num_gpu_blocks_override block_size enable_prefix_caching"
        " prefix_caching_hash_algo kv_offloading_size kv_offloading_backend cpu_offload_gb"
        " cpu_offload_params offload_backend offload_group_size offload_num_in_group"
        " offload_prefetch_step offload_params disable_hybrid_kv_cache_manager max_cpu_loras"
        " fully_sharded_loras enable_sleep_mode enable_cumem_allocator"
        # Of a model that sees, what texts do not need.
        " language_model_only limit_mm_per_prompt skip_mm_profiling mm_processor_cache_gb"
    ),
    "loading": (
        "load_format safetensors_load_strategy safetensors_prefetch_num_threads"
        " safetensors_prefetch_block_size max_parallel_loading_workers"
    ),
    "graphs": (
        "compilation_config optimization_level cudagraph_capture_sizes max_cudagraph_capture_size"
    ),
    "kernels": (
        "attention_backend kernel_config linear_backend moe_backend enable_flashinfer_autotune"
        " disable_cascade_attn"
    ),
    "how devices talk": (
        "disable_custom_all_reduce enable_expert_parallel all2all_backend enable_eplb eplb_config"
        " expert_placement_strategy numa_bind numa_bind_nodes numa_bind_cpus"
        " distributed_timeout_seconds cpu_distributed_timeout_seconds"
    ),
}
SAFE = frozenset(name for names in _SAFE.values() for name in names.split())
"""Names whose every value asks for the same answers, to the rounding that another batch or kernel
brings as well. All others are refused: of what they change a row would say nothing."""
_ONLY = {"load_format": ("auto", "safetensors", "fastsafetensors", "pt", "npcache",
                         "runai_streamer", "instanttensor")}  # fmt: skip
"""The only values of theirs that do, in small letters, as vLLM reads them: these read the very
weights that lie in MODEL's folder."""


def engine_args_of(given: Sequence[str]) -> str:
    """`--engine-args` as one JSON object, "" without any; each is such an object or NAME=VALUE.

    Raises InputError for what is neither, and for a name given twice.
    """
    found: dict[str, Any] = {}
    for text in given:
        for name, value in _pairs(text):
            key = name.strip().lstrip("-").replace("-", "_")
            if key in found:
                raise InputError(f"--engine-args gives {key} twice: leave one out.")
            found[key] = value
    return json.dumps(found, sort_keys=True) if found else ""


def _pairs(text: str) -> list[tuple[str, Any]]:
    if text.lstrip().startswith("{"):
        try:
            return list(json.loads(text).items())
        except (ValueError, RecursionError) as error:
            raise InputError(f"--engine-args is no JSON ({error}): {text[:200]}") from None
    name, sign, value = text.partition("=")
    if not sign or not name.strip():
        raise InputError(
            f"--engine-args {text}: give NAME=VALUE, or a JSON object, with vLLM's own names."
        )
    try:
        return [(name, json.loads(value))]
    except (ValueError, RecursionError):
        return [(name, value)]  # a word


def check_engine_args(settings: EngineSettings) -> None:
    """Raise InputError for a name of theirs that vLLM's engine has not, one that is set otherwise
    here or could change answers, and a value that vLLM's own parser does not take.
    """
    given: Mapping[str, Any] = json.loads(settings.engine_args or "{}")
    if not given:
        return
    prepare_import(settings)
    try:
        from vllm.engine.arg_utils import EngineArgs
    except ImportError as error:
        raise InputError(f"--engine-args is vLLM's, which is not installed ({error}).") from None
    known = {field.name for field in fields(EngineArgs)}
    for name, value in given.items():
        if name in _OURS:
            raise InputError(f"--engine-args {name}: give {_OURS[name]} instead.")
        if name not in known:
            hint = nearest(name, sorted(SAFE & known | _OURS.keys()))
            raise InputError(f"--engine-args {name}: vLLM's engine has no such argument. {hint}")
        word = str(value).lower()
        if name not in SAFE or word not in _ONLY.get(name, (word,)):
            raise InputError(
                f"--engine-args {name}={value}: it could change what is answered, and the row would"
                f" not say so. Only what leaves answers as they are may be set: {', '.join(_SAFE)}."
            )
    for name, value in given.items():
        taken = getattr(_parser().parse_args(_words(name, value)), name)
        # A mapping becomes a configuration there.
        if isinstance(value, str | int | float) and taken != value:
            raise InputError(f"--engine-args {name}={value}: vLLM takes that for {taken}; give it.")


@cache
def _parser() -> Any:
    """vLLM's, of its engine's arguments; a second or two to make."""
    from vllm.engine.arg_utils import EngineArgs
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser = EngineArgs.add_cli_args(FlexibleArgumentParser(add_help=False))
    parser.error = _refuse
    return parser


def _words(name: str, value: Any) -> list[str]:
    """As on vLLM's own command line."""
    option = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{option}" if value else f"--no-{option}"]
    if isinstance(value, list):
        return [f"--{option}", *map(str, value)]
    return [f"--{option}", value if isinstance(value, str) else json.dumps(value)]


def _refuse(message: str) -> None:
    first = " ".join(message.splitlines()[:3])
    raise InputError(f"--engine-args, by vLLM's own parser: {first}")
