"""Copies of a model, each a vLLM in a process of its own, on its own devices, fed from one queue.

One that ends does not end the others: what it left is theirs, and it is started again, once. A
keeper stands beside each, so that none of its processes outlives the run.
"""

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any

from evals.errors import EnvironmentFault, EvalsError, InputError
from evals.generators import Failure, Moved, Text, keeper
from evals.generators.copy_process import Message, Start
from evals.generators.engine_log import last_lines, phase
from evals.generators.placing import Places, threads
from evals.generators.spread import Spread
from evals.generators.vllm import WINDOW
from evals.models.prompts import Rendered
from evals.records import Completion

_AT_ONCE = 32
"""Requests handed over at a time: neighbours share a prefix."""
_LOOK_S = 0.5
_SAY_S = 30.0
_SILENT_S = 1800.0
"""A copy that starts and writes nothing to its log for so long is given up: shards of weights come
one in minutes even from a slow disk."""
_CLOSING_S = 15.0
_STARTS = 2
_SEEDS_APART, _SEEDS = 1_000_003, 1 << 32
"""Further than repeated draws are, whose seeds follow each other; and as many as there are."""

_log = logging.getLogger(__name__)

Done = list[tuple[Rendered, Completion | Failure]]


@dataclass(eq=False)
class _Copy:
    """One copy. place: what its devices are, for people.  window: requests it may hold; 0 until it
    is ready.  is_silent: it was ended because it did not become so.
    under_way: what it was asked, by number.  written: of it so far, as Moved has it.
    """

    number: int
    place: str
    log: Path
    process: "subprocess.Popen[bytes]"
    connection: Connection
    n_starts: int = 1
    window: int = 0
    is_out: bool = False
    is_silent: bool = False
    own: deque[Rendered] = field(default_factory=deque)
    under_way: dict[int, Rendered] = field(default_factory=dict)
    written: Mapping[Text, int] = field(default_factory=dict)


class CopiesGenerator:
    """Answers requests through several engines, as VllmGenerator does through one.

    start: what each is.  logs: the folder for what they print.  command: what is started for each;
    a descriptor's number follows it.
    Raises InputError or EnvironmentFault as the first that cannot start does, with the end of its
    log; EnvironmentFault when all have ended.
    """

    def __init__(
        self,
        start: Start,
        places: Places,
        logs: Path,
        *,
        silent_s: float = _SILENT_S,
        command: Sequence[str] = (),
    ) -> None:
        self._start, self._places, self._logs = start, places, logs
        self._silent_s, self._command = silent_s, command or _own_command()
        self._n_started = self._n_asked = 0
        self._adapter: str | None = None
        self._pump: Thread | None = None
        self._closed = Event()
        self._copies: list[_Copy] = []
        try:
            for number in range(len(places.each)):
                self._copies.append(self._started(number))
            self._wait_until_ready()
        except BaseException:
            self.close()
            raise

    def _started(self, number: int, n_starts: int = 1) -> _Copy:
        """A copy that loads. Raises EnvironmentFault where no process can be started."""
        log = self._logs / f"copy-{number + 1}.log"
        settings = replace(
            self._start.settings,
            data_parallel_size=None,
            # Or the copies would draw the same samples' randomness, and one that is started again
            # what it drew before.
            seed=(self._start.settings.seed + _SEEDS_APART * self._n_started) % _SEEDS,
        )
        start = replace(self._start, settings=settings, n_beside=len(self._places.each))
        self._n_started += 1
        ours, its = socket.socketpair()
        try:
            self._logs.mkdir(parents=True, exist_ok=True)
            with log.open("ab" if n_starts > 1 else "wb") as written:
                process = subprocess.Popen(
                    [
                        sys.executable, "-I", "-S", str(keeper.__file__), str(os.getpid()),
                        str(its.fileno()), *self._command, str(its.fileno()),
                    ],
                    env=self._environment(number),
                    pass_fds=(its.fileno(),),
                    stdin=subprocess.DEVNULL,
                    stdout=written,
                    stderr=written,
                    start_new_session=True,  # Ctrl-C is the run's to hear
                )  # fmt: skip
        except OSError as error:
            ours.close()
            raise EnvironmentFault(f"An engine's process cannot be started: {error}.") from error
        finally:
            its.close()
        connection = Connection(ours.detach())
        place = f"{self._places.kind} {self._places.each[number]}"
        found = _Copy(number, place, log, process, connection, n_starts)
        self._tell(found, start)
        if self._adapter is not None:
            self._tell(found, ("serve", self._adapter))
        return found

    def _environment(self, number: int) -> dict[str, str]:
        more = {"VLLM_LOGGING_LEVEL": "INFO"}  # into its log, by which its phases are known
        place = self._places.each[number]
        if place:
            more[self._places.variable] = place
        # Whoever sets OpenMP's variables knows better.
        bound = threads(place) if self._places.kind == "core" else {}
        return bound | os.environ | more

    @staticmethod
    def _tell(copy: _Copy, message: object) -> None:
        """Send; one that has ended is noticed where it is read."""
        with contextlib.suppress(OSError):
            copy.connection.send(message)

    def _wait_until_ready(self) -> None:
        """Raises EvalsError for the first copy that does not start."""
        begun = said_at = time.monotonic()
        said = ""
        while starting := [copy for copy in self._copies if not copy.window]:
            for copy in _readable(starting, _LOOK_S):
                self._hear_at_start(copy)
            now = time.monotonic()
            text = self._phases()
            if text != said or now - said_at >= _SAY_S:
                _log.info("%s, %.0f s", text, now - begun)
                said, said_at = text, now
            self._end_silent(starting)

    def _hear_at_start(self, copy: _Copy) -> None:
        word, what = self._heard(copy)
        if word == "ready":
            copy.window = WINDOW * what
        elif word == "failed":
            which = f"{self._named(copy)}: " if self._places.is_split else ""
            raise type(what)(f"{which}{what} {last_lines(copy.log)}") from what

    def _heard(self, copy: _Copy) -> Message:
        """Its next message; "failed" where its process ended."""
        try:
            found: Message = copy.connection.recv()
        except (EOFError, OSError):
            why = f"nothing in its log for {self._silent_s / 60:.0f} min while it started"
            return "failed", EnvironmentFault(f"{why if copy.is_silent else 'its process ended'}.")
        return found

    def _end_silent(self, copies: Iterable[_Copy]) -> None:
        """Those that load and say nothing any more; their end is noticed as any other's."""
        for copy in copies:
            with contextlib.suppress(OSError):
                silent_s = time.time() - copy.log.stat().st_mtime
                if not copy.window and not copy.is_silent and silent_s > self._silent_s:
                    copy.is_silent = True
                    copy.process.send_signal(signal.SIGTERM)

    def _phases(self) -> str:
        """Where the copies are."""
        where = Counter("ready" if copy.window else phase(copy.log) for copy in self._copies)
        told = ", ".join(f"{n} {what}" for what, n in where.items())
        return f"{self._places.line()}: {told}"

    def _named(self, copy: _Copy) -> str:
        return f"Copy {copy.number + 1} of {len(self._copies)} ({copy.place})"

    def serve(self, adapter: str) -> None:
        """See VllmGenerator; all copies answer with it."""
        self._adapter = adapter
        asked = [copy for copy in self._copies if not copy.is_out and copy.window]
        for copy in asked:
            self._tell(copy, ("serve", adapter))
        for copy in asked:
            # Of what it was asked before, a last word may still be on its way.
            while (said := self._heard(copy))[0] not in ("served", "refused", "failed"):
                pass
            word, what = said
            if word == "refused":
                raise what
            if word == "failed":
                raise EnvironmentFault(f"{self._named(copy)}: {what} {last_lines(copy.log)}")

    def stream(self, requests: Sequence[Rendered]) -> Iterator[Done]:
        """See Generator. Copies are fed by a thread of their own, so that whoever takes the answers
        may take his time.
        """
        spread = Spread(requests, self._copies)
        done: SimpleQueue[Done | Exception | None] = SimpleQueue()
        self._pump = Thread(target=self._feed, args=(spread, done), name="copies", daemon=True)
        self._pump.start()
        try:
            while (entry := done.get()) is not None:
                if isinstance(entry, Exception):
                    raise entry
                answered = entry
                # What has arrived meanwhile shares a commit.
                while not done.empty() and isinstance(entry := done.get(), list):
                    answered = answered + entry
                yield answered
                if entry is None:
                    return
                if isinstance(entry, Exception):
                    raise entry
        finally:
            spread.stop()
            self._join()
            for copy in self._copies:
                if copy.under_way:
                    self._tell(copy, ("drop", None))
                    copy.under_way.clear()

    def _join(self) -> None:
        if self._pump is not None:
            self._pump.join()
            self._pump = None

    # --- in the thread that feeds -----------------------------------------------------------------

    def _feed(self, spread: Spread, done: SimpleQueue[Done | Exception | None]) -> None:
        try:
            while not (spread.is_done or self._closed.is_set()):
                self._hand_out(spread)
                there = [one for one in self._copies if not one.is_out]
                for copy in _readable(there, _LOOK_S):
                    self._take_in(copy, spread, done)
                self._end_silent(there)
            done.put(None)
        except Exception as error:  # noqa: BLE001 - raised where the answers are read
            done.put(error)

    def _hand_out(self, spread: Spread) -> None:
        """To whoever has least, so that all end together."""
        while ready := [one for one in self._copies if one.window and not one.is_out]:
            copy = min(ready, key=lambda one: len(one.under_way))
            room = min(_AT_ONCE, copy.window - len(copy.under_way))
            batch: list[tuple[int, Rendered]] = []
            while len(batch) < room and (request := spread.take_now(copy)) is not None:
                batch.append((self._n_asked, request))
                self._n_asked += 1
            if not batch:
                return
            copy.under_way.update(batch)
            self._tell(copy, ("ask", batch))

    def _take_in(
        self, copy: _Copy, spread: Spread, done: SimpleQueue[Done | Exception | None]
    ) -> None:
        word, what = self._heard(copy)
        if word == "ready":
            copy.window = WINDOW * what
            _log.info("%s is ready again", self._named(copy))
        elif word == "moved":
            copy.written = what
            done.put(Moved(sum((Counter(one.written) for one in self._copies), Counter())))
        elif word == "done":
            # An answer that nobody waits for any more has no request.
            answered = [
                (request, answer)
                for number, answer in what
                if (request := copy.under_way.pop(number, None)) is not None
            ]
            for _ in answered:
                spread.finish()
            if answered:
                done.put(answered)
        elif word == "failed":
            self._lose(copy, spread, what)
        elif word == "refused":
            raise what

    def _lose(self, copy: _Copy, spread: Spread, why: EvalsError) -> None:
        """Its requests go to the others, and it is started again. Raises EvalsError where that
        would not help, or none is left.
        """
        if isinstance(why, InputError):
            raise why
        n_left = len(copy.under_way)
        spread.lose(copy, *copy.under_way.values())
        copy.under_way.clear()
        copy.written = {}
        _end([copy])
        others = [one for one in self._copies if not one.is_out]
        said = f"{self._named(copy)} is lost: {why}"
        if copy.n_starts < _STARTS:
            again = self._started(copy.number, copy.n_starts + 1)
            # In its own place: the queue knows it.
            copy.process, copy.connection, copy.n_starts = again.process, again.connection, _STARTS
            copy.window, copy.is_out = 0, False
            who = f"; the {n_left:,} requests it had go to the others" if others else ""
            _log.warning("%s It is started again%s.", said, who)
        elif others:
            _log.warning("%s The others go on without it.", said)
        else:
            raise EnvironmentFault(
                f"{said} No copy is left. Nothing is lost; the same command goes on."
                f" {last_lines(copy.log)}"
            )

    def close(self) -> None:
        """End the copies, and every process of theirs."""
        self._closed.set()
        self._join()
        for copy in self._copies:
            if copy.window:
                self._tell(copy, ("close", None))
        _end(self._copies, _CLOSING_S if all(copy.window for copy in self._copies) else 0.0)


def _own_command() -> list[str]:
    """Where this process found its modules, the copies find theirs."""
    paths = [path or os.getcwd() for path in sys.path]
    code = (
        f"import sys; sys.path[:] = {paths!r}; from evals.generators import copy_process;"
        " copy_process.main(copy_process.connection_of(sys.argv))"
    )
    return [sys.executable, "-P", "-c", code]


def _readable(copies: Iterable[_Copy], wait_s: float) -> list[_Copy]:
    """Those that have said something, or ended, after waiting for the first of them."""
    of: Mapping[Any, _Copy] = {copy.connection: copy for copy in copies}
    return [of[connection] for connection in wait(list(of), wait_s)]


def _end(copies: Sequence[_Copy], patience_s: float = 0.0) -> None:
    """Have their keepers end them: those that have not ended by themselves in time."""
    deadline = time.monotonic() + patience_s
    for copy in copies:
        with contextlib.suppress(subprocess.TimeoutExpired):
            copy.process.wait(max(0.0, deadline - time.monotonic()))
    for copy in copies:
        copy.connection.close()
        if copy.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                copy.process.send_signal(signal.SIGTERM)
    for copy in copies:
        copy.process.wait()
