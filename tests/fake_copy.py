"""A copy of an engine for tests, with the real process, keeper and connection, and no weights: what
its model is called says how it behaves.
"""

import json
import os
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from multiprocessing import shared_memory
from pathlib import Path
from typing import Any, cast

from evals.errors import EnvironmentFault, InputError
from evals.generators import Failure
from evals.generators.copy_process import Start, connection_of, main
from evals.generators.vllm import VllmGenerator
from evals.models.prompts import Rendered
from evals.models.scoring import pairs_of
from evals.records import Completion, Output, Scored

ROOT = Path(__file__).resolve().parents[1]
COMMAND = (
    sys.executable,
    "-c",
    f"import sys; sys.path.insert(0, {str(ROOT)!r}); from tests import fake_copy; fake_copy.run()",
)


def weight(before: Sequence[int], token: int) -> float:
    """A log-probability that hangs on the token and on what stands before it."""
    return -1 - (zlib.crc32(repr((tuple(before[-9:]), token)).encode()) % 997) / 100


def likeliest(before: Sequence[int]) -> float:
    """The greatest there, but for a token that is asked for and is more."""
    return -1 - (zlib.crc32(repr(tuple(before[-9:])).encode()) % 700) / 100


def scored(request: Rendered) -> Completion:
    """What an engine of these log-probabilities says of a request."""
    found = []
    for context, rest in pairs_of(request.scored):
        whole = context + rest
        places = range(len(context), len(whole))
        each = [weight(whole[:at], whole[at]) for at in places]
        is_greedy = all(one >= likeliest(whole[:at]) for one, at in zip(each, places, strict=True))
        found.append(Scored(sum(each), is_greedy, len(rest)))
    return Completion(scores=tuple(found))


class FakeEngine:
    """how, as JSON in place of the model: load: fails, ends, waits.  dies_at: the number of its
    answer at which copies die, each so many times as `deaths` says.  lasting: it starts processes
    that nobody but a keeper ends, and takes shared memory.  log: a folder for marks.
    """

    batch = 4

    def __init__(self, start: Start) -> None:
        self.how: dict[str, Any] = json.loads(start.model)
        self.seed = start.settings.seed
        self.place = os.environ.get("FAKE_DEVICES", "")
        self.adapter = ""
        self.n = 0
        self.pids = [os.getpid()]
        print("OMP_PLACES is", os.environ.get("OMP_PLACES"), flush=True)
        print("INFO Starting to load model", flush=True)
        load = self.how.get("load") if self.how.get("at", self.place) == self.place else None
        if load == "fails":
            print("the root of it", flush=True)
            raise InputError("vLLM cannot load it.")
        if load == "ends":
            os._exit(3)
        if load == "waits":
            time.sleep(600)
        if self.how.get("lasting"):
            hidden = "import subprocess, time; subprocess.Popen(['sleep', '600']); time.sleep(600)"
            child = subprocess.Popen([sys.executable, "-c", hidden], start_new_session=True)
            self.pids.append(child.pid)
            self.memory = shared_memory.SharedMemory(create=True, size=64)

    def serve(self, adapter: str) -> None:
        """See VllmGenerator."""
        if adapter == "broken":
            raise InputError("vLLM cannot serve it.")
        self.adapter = adapter

    def stream(
        self, requests: Iterable[Rendered | None]
    ) -> Iterator[list[tuple[Rendered, Completion | Failure]]]:
        """See VllmGenerator: two answers a step."""
        waiting = iter(requests)
        running: list[Rendered] = []
        while True:
            while len(running) < 2 * self.batch and (one := next(waiting, None)) is not None:
                running.append(one)
            if not running:
                return
            time.sleep(self.how.get("step_s", 0.002))
            done, running = running[:2], running[2:]
            self.n += len(done)
            if self.n >= self.how.get("dies_at", 1 << 30) and self._may_die():
                if self.how.get("deaths_say"):
                    raise EnvironmentFault(self.how["deaths_say"])
                os.kill(os.getpid(), signal.SIGKILL)
            said = f"{self.place}/{self.seed}/{self.adapter}"
            memory = self.memory.name if self.how.get("lasting") else ""
            text = f"{said}/{','.join(map(str, self.pids))}/{memory}/{self.n}"
            yield [
                (one, scored(one) if one.scored else Completion((Output(text),))) for one in done
            ]

    def _may_die(self) -> bool:
        marks = Path(self.how["log"])
        if len(list(marks.glob(f"{self.place}-*"))) >= self.how.get("deaths", 1):
            return False
        (marks / f"{self.place}-{self.seed}").touch()
        return True

    def close(self) -> None:
        """See VllmGenerator."""
        print("closed in order", flush=True)


def run() -> None:
    """A copy's process."""
    main(connection_of(sys.argv), lambda start: cast(VllmGenerator, FakeEngine(start)))
