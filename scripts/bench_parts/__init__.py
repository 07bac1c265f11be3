"""The parts of scripts/bench. Each is a module with `measure(options) -> figures`, run in a process
of its own.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from evals.generators import EngineSettings
from evals.generators.vllm import VllmGenerator
from evals.plan.make import Plan, make_plan
from evals.plan.settings import RunSettings
from evals.runs.asking import longest_first
from evals.runs.progress import Progress
from evals.runs.session import execute

Figures = dict[str, Any]
SUBJECTS = ("abstract_algebra", "anatomy", "astronomy")
"""Three MMLU subjects, 387 questions."""
COMMITTED_RUN = Path("results/smollm2-135m-instruct-card")
_LOAD_S = 1.0
"""Stands for the loading of an engine, which takes longer: what a run starts beside it is there by
the first request.
"""


@dataclass(frozen=True)
class Options:
    """data: the benchmarks' public files.  work: a folder to write in.  quick: small enough to see
    that it works; no figures.
    scale: so many times the items and the batch of a CPU's queue, for a machine so much faster."""

    data: Path
    work: Path
    model: str = "smollm2"
    dtype: str = "auto"
    quick: bool = False
    scale: int = 1


def plan_of(
    options: Options,
    out: str,
    take: Mapping[str, Callable[[Sequence[Any]], Sequence[Any]]],
    max_new: int | None = None,
) -> Plan:
    """A run of some benchmarks, each with the items that `take` keeps of all of them.  max_new:
    limit on new tokens.
    """
    engine = EngineSettings(dtype=options.dtype)
    # A rule: a judge's model would have to be loaded, and timed.
    judges = ("xstest=strmatch",) if "xstest" in take else ()
    settings = RunSettings(
        options.model,
        suite="full",
        tasks=(",".join(take),),
        data=options.data,
        out=options.work / out,
        judges=judges,
        engine=engine,
    )
    plan = make_plan(settings)
    tasks = {name: replace(task, items=take[name](task.items)) for name, task in plan.tasks.items()}
    plan.renderer.max_new = max_new
    return replace(plan, tasks=tasks)


def first(n: int) -> Callable[[Sequence[Any]], Sequence[Any]]:
    """The first n items."""
    return lambda items: items[:n]


def spread(n: int, groups: int) -> Callable[[Sequence[Any]], Sequence[Any]]:
    """n items of each of the first few subjects or tasks, in their order."""

    def take(items: Sequence[Any]) -> Sequence[Any]:
        names = list(dict.fromkeys(item.group for item in items))[:groups]
        return [
            item for name in names for item in [item for item in items if item.group == name][:n]
        ]

    return take


def subjects(items: Sequence[Any]) -> Sequence[Any]:
    """MMLU's questions on the three subjects."""
    return [item for item in items if item.group in SUBJECTS]


def in_our_order(requests: Sequence[Any]) -> list[Any]:
    """As a run hands them to its engine."""
    return [entry[1][0] for entry in longest_first([("", [request]) for request in requests])]


class Lent:
    """An engine that outlives a run: `close` leaves it, `begun` is when the first request was
    handed over.
    """

    def __init__(self, engine: VllmGenerator) -> None:
        self.engine = engine
        self.begun = 0.0

    def stream(self, requests: Sequence[Any]) -> Any:
        """See Generator."""
        self.begun = time.monotonic()
        return self.engine.stream(requests)

    def close(self) -> None:
        """Nothing: it was lent."""


def timed_run(plan: Plan, engine: VllmGenerator) -> float:
    """Seconds from the first request to the last grade written, on an engine that is loaded and
    whose prefix cache is empty.
    """
    engine._llm.reset_prefix_cache()
    lent = Lent(engine)

    def load(_: Plan) -> Lent:
        time.sleep(_LOAD_S)
        return lent

    execute(plan, Progress(quiet=True), load)
    return time.monotonic() - lent.begun


def averaged(ratios: Sequence[float]) -> Figures:
    """Their mean as a row's value, with its 95 % interval."""
    from scipy.stats import ttest_1samp

    return {
        "value": statistics.mean(ratios),
        # The interval does not depend on the 1 that the test is against.
        "interval": [*map(float, ttest_1samp(ratios, 1).confidence_interval())],
    }


def start_engine(plan: Plan, **more: Any) -> VllmGenerator:
    """The engine of a plan, with other settings."""
    return VllmGenerator(plan.model.source, replace(plan.settings.engine, **more))


def child(module: str, options: Options, *arguments: str) -> Figures:
    """Run a part in a process of its own and take its last line."""
    done = subprocess.run(
        [sys.executable, "-m", module, spec_of(options), *arguments],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def spec_of(options: Options) -> str:
    """Options as an argument of another process."""
    return json.dumps(
        {
            name: str(value) if isinstance(value, Path) else value
            for name, value in asdict(options).items()
        }
    )


def options_of(spec: str) -> Options:
    """What `spec_of` handed over."""
    given = json.loads(spec)
    return Options(**{**given, "data": Path(given["data"]), "work": Path(given["work"])})


def peak_mb() -> float:
    """The most memory this process has held. (getrusage would count its parent's
    before the exec.)
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def all_cores() -> dict[str, str]:
    """The environment in which vLLM uses every core of a CPU machine."""
    cores = ",".join(map(str, sorted(os.sched_getaffinity(0))))
    return {
        # vLLM would keep one core back and put its engine, slower to start, into another process.
        "VLLM_CPU_OMP_THREADS_BIND": cores,
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_LOGGING_LEVEL": "ERROR",
    }
