"""What the user asked for, and what in it is wrong on the face of it."""

import os
import sys
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal

from evals.errors import InputError
from evals.generators import EngineSettings
from evals.generators.engine_args import check_engine_args
from evals.generators.placing import devices_of_a_copy
from evals.generators.waiting import seconds
from evals.models.prompting import AS_IT_IS, PromptSettings, template_arguments
from evals.models.reasoning import AS_IT_COMES, ReasoningSettings, check_reasoning

Suite = Literal["card", "full", "smoke"]
DTYPES = ("auto", "bfloat16", "float16", "half", "float32", "float")
"""vLLM's names."""
BACKENDS = ("mp", "uni", "ray")
SUITES: tuple[Suite, ...] = ("card", "full", "smoke")
MOST_REPEATS = 1000


@dataclass(frozen=True, slots=True)
class RunSettings:
    """What the user asked for; see `evals run --help` for each.

    base, base_revision: what an adapter (the model) is served on, where its config is not to say.
    """

    model: str
    name: str | None = None
    suite: str = "card"
    tasks: tuple[str, ...] = ()
    data: Path | None = None
    out: Path | None = None
    limit: int | None = None
    chat_format: str = "auto"
    revision: str | None = None
    base: str | None = None
    base_revision: str | None = None
    tokenizer: str | None = None
    judges: tuple[str, ...] = ()
    sandbox: Literal["auto", "require"] = "auto"
    store: Path | None = None
    offline: bool = False
    engine: EngineSettings = field(default_factory=EngineSettings)
    prompts: PromptSettings = AS_IT_IS
    reading: ReasoningSettings = AS_IT_COMES
    card: str | None = None
    """One of our cards by its name, or a file; None: the model's own, else the default one."""
    prices: tuple[str, ...] = ()
    max_cost: float | None = None
    repeats: int = 1
    """Answers to each item of the benchmarks that are sampled."""
    temperature: float | None = None
    """In place of 0, of the benchmarks whose answers are generated greedily."""
    wait: str = ""
    """How long to wait for servers that are not up yet, or all lost: 90s, 15m; "" for not at
    all."""
    clock: datetime | None = None
    """What a template that asks the time is told; a plan sets it, once for model and judges."""


def check_settings(settings: RunSettings) -> None:
    """Raise InputError for the first setting that no model, data or judge could make right."""
    if settings.suite not in SUITES:
        raise InputError(f"Unknown suite {settings.suite!r}. Known: {', '.join(SUITES)}.")
    if settings.limit is not None and settings.limit < 1:
        raise InputError(
            f"--limit {settings.limit}: give the number of items of each benchmark, 1 or more."
        )
    if not 1 <= settings.repeats <= MOST_REPEATS:
        raise InputError(
            f"--repeats {settings.repeats}: give a number of answers to an item, 1 to"
            f" {MOST_REPEATS}."
        )
    if settings.temperature is not None and not 0 < settings.temperature <= 2:
        raise InputError(
            f"--temperature {settings.temperature:g}: give one above 0, at most 2. Without it"
            " answers are greedy, as the card's."
        )
    _check_engine(settings.engine)
    if settings.wait:
        seconds(settings.wait)
    template_arguments(settings.prompts.chat_template_kwargs)
    check_reasoning(settings.reading)


def _check_engine(engine: EngineSettings) -> None:
    """What can be seen to be wrong before the engine is asked."""
    if engine.dtype not in DTYPES:
        raise InputError(f"--dtype {engine.dtype}: known are {', '.join(DTYPES)}.")
    backend = engine.distributed_executor_backend
    if backend is not None and backend not in BACKENDS:
        raise InputError(
            f"--distributed-executor-backend {backend}: known are {', '.join(BACKENDS)}."
        )
    if backend == "uni" and devices_of_a_copy(engine) > 1:
        raise InputError(
            "--distributed-executor-backend uni is one process, which splits no weights: leave it"
            " out, or the sizes."
        )
    for name in (
        "tensor_parallel_size",
        "pipeline_parallel_size",
        "data_parallel_size",
        "max_num_seqs",
        "max_model_len",
    ):
        value = getattr(engine, name)
        if value is not None and value < 1:
            raise InputError(f"--{name.replace('_', '-')} {value}: give 1 or more.")
    check_engine_args(engine)
    share = engine.gpu_memory_utilization
    if share is not None and not 0 < share <= 1:
        raise InputError(
            f"--gpu-memory-utilization {share}: give a share of the memory above 0, at most 1."
        )


OFFLINE_VARIABLES = (
    "HF_HUB_OFFLINE",
    "HF_DATASETS_OFFLINE",
    "TRANSFORMERS_OFFLINE",
    "VLLM_NO_USAGE_STATS",
    "DO_NOT_TRACK",
)
HUB_MODULES = ("huggingface_hub.constants", "datasets.config")
"""What keeps HF_HUB_OFFLINE as it was when they were imported."""


def go_offline() -> None:
    """Have every library of this process keep to what is on this machine."""
    # Variables, not arguments: libraries below us open connections of their own, and read these
    # when they are imported or called.
    os.environ.update(dict.fromkeys(OFFLINE_VARIABLES, "1"))
    # A trainer's process has imported them before: they would ask the hub again and again.
    for module in filter(None, map(sys.modules.get, HUB_MODULES)):
        vars(module)["HF_HUB_OFFLINE"] = True
