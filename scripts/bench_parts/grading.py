"""Graders on a real model's answers, the store's writes, and recorded answers from
file to table.
"""

import json
import sys
import time

from evals.data.load import load_card_data
from evals.generators.replay import recorded_row
from evals.plan.settings import RunSettings
from evals.records import Completion, Output
from evals.registry import benchmark_class
from evals.runs.progress import Progress
from evals.runs.session import run
from evals.storage.run_folder import RunFolder
from evals.storage.store import Store
from scripts.bench_parts import COMMITTED_RUN, Figures, Options, child, options_of, peak_mb, toy

_ENGINE_RATE = 100.0
"""Answers a second from a fast engine: an 8B model that decodes 15,000 tokens a second, 150 an
answer.
"""
_STEP = 16
_N_TIMES = 10


def measure(options: Options) -> Figures:
    """How many times faster than the engine each is;
    what a hundred thousand replayed items take.
    """
    rates = {f"{task} grader": grader_rate(options, task) for task in ("ifeval", "bbh", "gsm8k")}
    rates[f"store, {_STEP} answers a commit"] = write_rate(
        options, 1_000 if options.quick else 50_000
    )
    sizes = (100, 1_000) if options.quick else (10_000, 100_000)
    asked = {"few": (sizes[0], 1), "many": (sizes[1], 1), "many, long": (sizes[1], _N_TIMES)}
    found = {
        name: child("scripts.bench_parts.grading", options, str(n), str(times))
        for name, (n, times) in asked.items()
    }
    peaks = {name: one["peak_mb"] for name, one in found.items()}
    rates[f"{sizes[1]:,} replayed items, file to table"] = sizes[1] / found["many"]["wall_s"]
    rows = [
        {
            "what": f"{name}: items/s over an engine's 100",
            "value": rate / _ENGINE_RATE,
            "target": "> 1",
        }
        for name, rate in rates.items()
    ]
    about = f"peak memory, {sizes[1]:,} / {sizes[0]:,} replayed items"
    rows.append({"what": about, "value": peaks["many"] / peaks["few"], "target": "<= 1.05"})
    about = (
        f"peak memory, {sizes[1]:,} replayed items, answers {_N_TIMES} times as long / as they are"
    )
    rows.append({"what": about, "value": peaks["many, long"] / peaks["many"], "target": "<= 1.05"})
    return {"rows": rows, "raw": {"items_per_s": rates, "replayed": found}}


def grader_rate(options: Options, task: str) -> float:
    """Items graded per second, on the answers of the committed run."""
    cls = benchmark_class(task)
    benchmark = cls(chat=True)
    items = {
        item.id: item
        for item in benchmark.items(load_card_data([cls.dataset], options.data)[cls.dataset.name])
    }
    answers = [
        (items[row["id"]], recorded_row(row).completion)
        for row in RunFolder(COMMITTED_RUN).samples(task)
    ]
    if not answers:
        raise RuntimeError(f"{COMMITTED_RUN} has no answers to {task}")
    benchmark.grade(*answers[0], {})  # imports
    start = time.monotonic()
    for item, answer in answers:
        benchmark.grade(item, answer, {})
    return len(answers) / (time.monotonic() - start)


def write_rate(options: Options, n: int) -> float:
    """Answers committed per second, a few at a time, as an engine's steps hand them over."""
    store = Store(options.work / "store.sqlite")
    start = time.monotonic()
    for first in range(0, n, _STEP):
        store.put(
            (
                f"{index:064x}",
                Completion(
                    (Output(f"{toy.WORDS}{index}", "stop", tuple(range(100))),), n_prompt_tokens=9
                ),
            )
            for index in range(first, first + _STEP)
        )
    wall_s = time.monotonic() - start
    store.close()
    return n / wall_s


def replayed(options: Options, n: int, times: int) -> Figures:
    """Recorded answers to n items, so many times as long, from the file to the summary."""
    toy.register()
    data = toy.write_data(options.work / f"data-{n}", n)
    recording = toy.write_recording(options.work / f"recorded-{n}-{times}.jsonl", n, times)
    start = time.monotonic()
    settings = RunSettings(
        f"replay:{recording}",
        suite="full",
        tasks=("toy",),
        data=data,
        out=options.work / f"run-{n}-{times}",
    )
    result = run(settings, Progress(quiet=True))
    if not result.is_complete:
        raise RuntimeError("the run is not complete")
    return {"wall_s": time.monotonic() - start, "peak_mb": peak_mb()}


if __name__ == "__main__":
    print("\n" + json.dumps(replayed(options_of(sys.argv[1]), *map(int, sys.argv[2:]))))
