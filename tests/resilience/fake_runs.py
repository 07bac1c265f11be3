"""Runs whose engine is a fake that counts what it is asked; also the program whose sessions
test_kills.py kills.

    python -m tests.resilience.fake_runs
stays warm: for each line "OUT LOG SECONDS" on its standard input it forks a session that runs the
tasks KILLED into the folder OUT, appends every key it asks for to LOG and takes SECONDS for each
three answers. It says "pid N", what the session begins ("phase …"), and how it ended ("ended
STATUS").
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
from unittest import mock

from evals.generators import Failure
from evals.generators.fake import FakeGenerator
from evals.models.prompts import Rendered
from evals.models.resolve import Model
from evals.plan.make import Plan
from evals.plan.settings import RunSettings
from evals.records import Completion, Output
from evals.runs.progress import Progress
from evals.runs.session import run
from evals.runs.writing import RunResult
from evals.storage.run_folder import RunFolder

QUICK = ("mmlu", "gsm8k", "bbh", "xstest")
KILLED = ("mmlu", "gsm8k", "humaneval", "truthfulqa", "xstest")
STRMATCH = ("xstest=strmatch",)
SERVER = "openai:fake@http://127.0.0.1:9/v1"
"""A model without a tokenizer, so that nothing heavy is imported; its server is never called."""

Answer = Callable[[Rendered], Completion | Failure]


def reply(request: Rendered) -> Completion:
    """An answer that depends on nothing but the prompt."""
    prompt = (request.text or repr(request.messages)).encode("utf-8", "replace")
    draw = hashlib.sha256(prompt).digest()
    if request.labels:
        return Completion(
            choice_logprobs={
                label: -(1 + draw[n]) / 7 for n, (label, _) in enumerate(request.labels)
            },
            n_prompt_tokens=9,
        )
    body = f"    return {draw[1] % 3}\n"
    texts = [
        f"Sorry, {draw[0] % 5}. So the answer is {draw[1] % 30 + n}." if draw[2] % 2 else body
        for n in range(request.sampling.n)
    ]
    outputs = (
        Output(text, "length" if draw[3] < 60 else "stop", tuple(range(len(text) % 11)))
        for text in texts
    )
    return Completion(tuple(outputs), n_prompt_tokens=len(prompt), n_cached_tokens=3)


@dataclass
class Engines:
    """Starts fake engines and keeps count: what was asked, and how often an engine was started.

    answer: request -> answer.  fails_after: how many answers come before `error` is raised, counted
    over all engines.
    """

    answer: Answer = reply
    fails_after: int | None = None
    error: BaseException = field(default_factory=KeyboardInterrupt)
    batch: int = 1
    asked: list[str] = field(default_factory=list)
    n_started: int = 0

    def __call__(self, plan: Plan) -> FakeGenerator:
        """See evals.runs.session.run, make_generator."""
        self.n_started += 1

        def count(request: Rendered) -> Completion | Failure:
            if self.fails_after is not None and len(self.asked) >= self.fails_after:
                raise self.error
            self.asked.append(plan.key(request))
            return self.answer(request)

        return FakeGenerator(count, self.batch)


def settings(out: Path, *, model: str = SERVER, **changes: Any) -> RunSettings:
    """The smoke suite of the quick tasks."""
    return RunSettings(
        **{
            "model": model,
            "suite": "smoke",
            "tasks": QUICK,
            "out": out,
            "judges": STRMATCH,
            **changes,
        }
    )


def results(out: Path) -> dict[str, bytes]:
    """Everything two equal runs have in common, byte for byte: the summary, and the samples
    unpacked.
    """
    samples = {
        path.name: gzip.decompress(path.read_bytes())
        for path in sorted((out / "samples").glob("*.gz"))
    }
    return {"summary.json": (out / "summary.json").read_bytes(), **samples}


def stored(out: Path) -> set[str]:
    """The keys a run's store holds an answer to."""
    path = out / "store.sqlite"
    if not path.exists():
        return set()
    with sqlite3.connect(path) as store:
        tables = {name for (name,) in store.execute("SELECT name FROM sqlite_master")}
        found = (
            {key for (key,) in store.execute("SELECT key FROM answers")}
            if "answers" in tables
            else set()
        )
    store.close()
    return found


class LoggedEngine:
    """A fake engine or judge of the program that is killed: says what it is asked before it
    answers, and takes its time.
    """

    def __init__(
        self, key: Callable[[Rendered], str], log: Path, wait_s: float, answer: Answer = reply
    ) -> None:
        self.key, self.wait_s, self.answer = key, wait_s, answer
        self.log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        time.sleep(wait_s)

    def stream(
        self, requests: Sequence[Rendered]
    ) -> Iterator[list[tuple[Rendered, Completion | Failure]]]:
        """See Generator."""
        for start in range(0, len(requests), 3):
            part = requests[start : start + 3]
            os.write(self.log, "".join(f"{self.key(request)}\n" for request in part).encode())
            time.sleep(self.wait_s)
            yield [(request, self.answer(request)) for request in part]

    def close(self) -> None:
        """Close the log."""
        os.close(self.log)


def judged(request: Rendered) -> Completion:
    """A judge's verdict, decided by the prompt alone: a probability, or a label in words."""
    answer = reply(request)
    if request.labels:
        return answer
    return Completion((Output("refusal" if len(answer.text) % 2 else "following"),))


def run_logged(out: Path, log: Path, wait_s: float, progress: Progress | None = None) -> RunResult:
    """One session of the program that is killed; its judge is a fake, too."""

    def start_judge(model: Model, asked: RunSettings, n_beside: int = 1) -> LoggedEngine:
        return LoggedEngine(lambda request: request.key(model.fingerprint()), log, wait_s, judged)

    # Its server is never there; asking it would load a client in every session.
    silent = mock.patch("evals.runs.servers.about", return_value={})
    with mock.patch("evals.runs.engines.start_engine", start_judge), silent:
        asked = settings(out, tasks=KILLED, judges=(f"all={SERVER.replace('fake', 'judge')}",))
        return run(asked, progress, make_generator=lambda plan: LoggedEngine(plan.key, log, wait_s))


class Loud(Progress):
    """Says on standard output what begins, in one write each."""

    def start(self, phase: str, total: int = 0, work: float = 0.0) -> None:
        """See Progress."""
        say(f"phase {phase.split()[0]}")
        super().start(phase, total, work)


def say(line: str) -> None:
    """A line to whoever kills."""
    os.write(1, f"{line}\n".encode())


def serve() -> None:
    """Fork a session for each line read."""
    write = RunFolder._write

    def loud_write(self: RunFolder, path: Path, content: bytes) -> None:
        say("phase write")
        write(self, path, content)

    RunFolder._write = loud_write  # type: ignore[method-assign]
    for line in sys.stdin:
        out, log, wait_s = line.split()
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                status = (
                    0
                    if run_logged(Path(out), Path(log), float(wait_s), Loud(quiet=True)).is_complete
                    else 3
                )
            finally:
                os._exit(status)
        say(f"pid {pid}")
        # Reaped only after its end was told, so that its id names nothing else while somebody may
        # signal it.
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        say(f"ended {os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}")


if __name__ == "__main__":
    serve()
