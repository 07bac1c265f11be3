"""Runs whose engine is a fake that counts what it is asked; also the program that test_resume.py kills.

    python -m tests.resilience.fake_runs OUT LOG SECONDS
runs the tasks KILLED into the folder OUT, appends every key it asks for to LOG, and takes SECONDS for each answer.
"""

import gzip
import hashlib
import os
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evals.generators import Failure
from evals.generators.fake import FakeGenerator
from evals.plan import Plan, RunSettings
from evals.prompts import Rendered
from evals.records import Completion, Output
from evals.runner import RunResult, run

QUICK = ("mmlu", "gsm8k", "bbh", "xstest")
KILLED = (*QUICK, "humaneval")
STRMATCH = ("xstest=strmatch",)
SERVER = "openai:fake@http://127.0.0.1:9/v1"
"""A model without a tokenizer, so that nothing heavy is imported; its server is never called."""

Answer = Callable[[Rendered], Completion | Failure]


def reply(request: Rendered) -> Completion:
    """An answer that depends on nothing but the prompt."""
    prompt = (request.text or repr(request.messages)).encode("utf-8", "replace")
    draw = hashlib.sha256(prompt).digest()
    if request.labels:
        return Completion(choice_logprobs={label: -(1 + draw[n]) / 7 for n, (label, _) in enumerate(request.labels)}, n_prompt_tokens=9)
    body = f"    return {draw[1] % 3}\n"
    texts = [f"Sorry, {draw[0] % 5}. So the answer is {draw[1] % 30 + n}." if draw[2] % 2 else body for n in range(request.sampling.n)]
    outputs = (Output(text, "length" if draw[3] < 60 else "stop", tuple(range(len(text) % 11))) for text in texts)
    return Completion(tuple(outputs), n_prompt_tokens=len(prompt), n_cached_tokens=3)


@dataclass
class Engines:
    """Starts fake engines and keeps count: what was asked, and how often an engine was started.

    answer: request -> answer.  fails_after: how many answers come before `error` is raised, counted over all engines.
    """

    answer: Answer = reply
    fails_after: int | None = None
    error: BaseException = field(default_factory=KeyboardInterrupt)
    batch: int = 1
    asked: list[str] = field(default_factory=list)
    n_started: int = 0

    def __call__(self, plan: Plan) -> FakeGenerator:
        """See evals.runner.run, make_generator."""
        self.n_started += 1

        def count(request: Rendered) -> Completion | Failure:
            if self.fails_after is not None and len(self.asked) >= self.fails_after:
                raise self.error
            self.asked.append(plan.key(request))
            return self.answer(request)

        return FakeGenerator(count, self.batch)


def settings(out: Path, *, model: str = SERVER, **changes: Any) -> RunSettings:
    """The smoke suite of the quick tasks."""
    return RunSettings(**{"model": model, "suite": "smoke", "tasks": QUICK, "out": out, "judges": STRMATCH, **changes})


def results(out: Path) -> dict[str, bytes]:
    """Everything two equal runs have in common, byte for byte: the summary, and the samples unpacked."""
    samples = {path.name: gzip.decompress(path.read_bytes()) for path in sorted((out / "samples").glob("*.gz"))}
    return {"summary.json": (out / "summary.json").read_bytes(), **samples}


def stored(out: Path) -> set[str]:
    """The keys a run's store holds an answer to."""
    path = out / "store.sqlite"
    if not path.exists():
        return set()
    with sqlite3.connect(path) as store:
        tables = {name for (name,) in store.execute("SELECT name FROM sqlite_master")}
        found = {key for (key,) in store.execute("SELECT key FROM answers")} if "answers" in tables else set()
    store.close()
    return found


class LoggedEngine:
    """A fake engine of the program that is killed: says what it is asked before it answers, and takes its time."""

    def __init__(self, plan: Plan, log: Path, wait_s: float) -> None:
        self.plan, self.wait_s = plan, wait_s
        self.log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def stream(self, requests: Sequence[Rendered]) -> Iterator[list[tuple[Rendered, Completion | Failure]]]:
        """See Generator."""
        for start in range(0, len(requests), 3):
            part = requests[start : start + 3]
            os.write(self.log, "".join(f"{self.plan.key(request)}\n" for request in part).encode())
            time.sleep(self.wait_s)
            yield [(request, reply(request)) for request in part]

    def close(self) -> None:
        """Close the log."""
        os.close(self.log)


def run_logged(out: Path, log: Path, wait_s: float) -> RunResult:
    """One session of the program that is killed."""
    return run(settings(out, tasks=KILLED), make_generator=lambda plan: LoggedEngine(plan, log, wait_s))


if __name__ == "__main__":
    run_logged(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]))
