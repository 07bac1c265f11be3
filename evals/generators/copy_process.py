"""One copy of an engine in a process of its own: vLLM as it is in a run's own process, asked over
a connection.

It gets one Start, and then messages, pairs of a word and what goes with it: ("ask", numbered
requests), ("serve", an adapter's folder), ("drop", None) for what is under way, ("close", None).
It answers ("ready", its batch), ("done", numbered answers), ("moved", unfinished ones),
("served", None), ("refused", error) where it goes on, ("failed", error) where it ends.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

from evals.errors import EnvironmentFault, EvalsError
from evals.generators import EngineSettings, Moved
from evals.generators.vllm import VllmGenerator
from evals.models.prompts import Rendered

Message = tuple[str, Any]


@dataclass(frozen=True, slots=True)
class Start:
    """What VllmGenerator takes."""

    model: str
    settings: EngineSettings
    revision: str | None = None
    lora_rank: int = 0
    tokenizer: str | None = None
    n_beside: int = 1


def load(start: Start) -> VllmGenerator:
    """The engine. Raises as VllmGenerator does."""
    return VllmGenerator(
        start.model,
        start.settings,
        revision=start.revision,
        lora_rank=start.lora_rank,
        tokenizer=start.tokenizer,
        n_beside=start.n_beside,
    )


class _Dropped(BaseException):
    """What is under way is nobody's any more."""


class _Inbox:
    """What arrives, read by a thread of its own: whoever writes never waits for the engine's step.

    As an iterator: the requests that have arrived, None where there is none now.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._messages = SimpleQueue[Message]()
        self._requests: Iterator[tuple[int, Rendered]] = iter(())
        self.numbers: dict[int, int] = {}
        """Of the requests under way, by identity."""
        self.then: Message | None = None
        Thread(target=self._read, name="inbox", daemon=True).start()

    def _read(self) -> None:
        try:
            while True:
                self._messages.put(self._connection.recv())
        except (EOFError, OSError):
            # The run is gone. Not in order: the engine may be inside a call that takes minutes, and
            # the keeper ends whatever this leaves.
            os._exit(1)

    def wait(self) -> Message:
        """The next message."""
        if self.then is not None:
            found, self.then = self.then, None
            return found
        return self._messages.get()

    def take(self, numbered: list[tuple[int, Rendered]]) -> None:
        """These are the next requests."""
        self._requests = iter(numbered)

    def __iter__(self) -> "_Inbox":
        return self

    def __next__(self) -> Rendered | None:
        while (entry := next(self._requests, None)) is None:
            try:
                word, what = self._messages.get_nowait()
            except Empty:
                return None
            if word != "ask":
                self.then = (word, what)
                raise _Dropped
            self.take(what)
        number, request = entry
        self.numbers[id(request)] = number
        return request


def connection_of(arguments: Sequence[str]) -> Connection:
    """To the run, by the descriptor that the last argument names."""
    return Connection(int(arguments[-1]))


def main(connection: Connection, load: Callable[[Start], VllmGenerator] = load) -> None:
    """Load, answer, and end when told to, or when nobody is there any more."""
    start: Start = connection.recv()
    inbox = _Inbox(connection)
    try:
        engine = load(start)
        connection.send(("ready", engine.batch))
        try:
            _work(engine, inbox, connection)
        finally:
            engine.close()
    except EvalsError as error:
        connection.send(("failed", error))
    except BrokenPipeError:
        return
    except Exception as error:
        connection.send(("failed", EnvironmentFault(f"{type(error).__name__}: {error}")))
        raise


def _work(engine: VllmGenerator, inbox: _Inbox, connection: Connection) -> None:
    while True:
        word, what = inbox.wait()
        if word == "close":
            return
        if word == "serve":
            try:
                engine.serve(what)
            except EvalsError as error:
                connection.send(("refused", error))
            else:
                connection.send(("served", None))
        if word == "ask":
            inbox.take(what)
            try:
                for done in engine.stream(inbox):
                    if isinstance(done, Moved):
                        connection.send(("moved", done.texts))
                        continue
                    of = inbox.numbers
                    connection.send(("done", [(of.pop(id(one)), answer) for one, answer in done]))
            except _Dropped:
                inbox.numbers.clear()
