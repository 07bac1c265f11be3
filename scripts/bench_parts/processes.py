"""One process per benchmark against one for all: how often the model is loaded."""

import os
import subprocess
import sys
import time
from dataclasses import replace

from evals.runs.progress import Progress
from evals.runs.session import execute
from scripts.bench_parts import Figures, Options, all_cores, options_of, plan_of, spec_of
from scripts.bench_parts.order import queue_of


def measure(options: Options) -> Figures:
    """Wall times of whole processes, summed over the benchmarks, over that of one."""
    walls = {task: wall(options, task) for task in (*queue_of(options), "all")}
    together = walls.pop("all")
    rows = [
        {
            "what": "one process per benchmark / one for all",
            "value": sum(walls.values()) / together,
            "target": "> 1",
        }
    ]
    return {"rows": rows, "raw": {"processes_s": walls, "together_s": together}}


def wall(options: Options, task: str) -> float:
    """Seconds of a whole process that evaluates one benchmark, or all."""
    start = time.monotonic()
    environment = os.environ | all_cores()
    command = [
        sys.executable,
        "-m",
        "scripts.bench_parts.processes",
        spec_of(replace(options, work=options.work / task)),
        task,
    ]
    subprocess.run(
        command, check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    return time.monotonic() - start


if __name__ == "__main__":
    given = options_of(sys.argv[1])
    kept = {name: take for name, take in queue_of(given).items() if sys.argv[2] in (name, "all")}
    execute(plan_of(given, "run", kept, max_new=8 if given.quick else 256), Progress(quiet=True))
