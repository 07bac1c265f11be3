"""Judges behind HTTP, asked while the evaluated model still generates.

What they answer goes into the store, where `evals.judging` finds it; whatever goes wrong here is left to it, which asks again and says why.
"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Thread

from evals.asking import counts, whole
from evals.errors import EvalsError
from evals.generators import Generator
from evals.judging import Question, prepare
from evals.models import Model, resolve
from evals.plan import RunSettings
from evals.progress import Progress
from evals.prompts import Rendered
from evals.records import Completion
from evals.store import Store

_BATCH = 64
"""Questions handed to a judge at a time: as many as may be under way when the model has finished."""

Answered = list[tuple[str, Completion]]


@dataclass
class _Early:
    """One judge. n_taken: of its questions.  is_busy: its thread asks.  error: why it is asked no more."""

    name: str
    generator: Generator | None
    n_taken: int = 0
    is_busy: bool = False
    error: EvalsError | None = None


class EarlyJudges:
    """Asks those judges of a run that are servers. All methods are the main thread's; only it touches the store.

    start: how to reach a judge's server.
    """

    def __init__(self, store: Store, settings: RunSettings, progress: Progress, start: Callable[[Model, RunSettings], Generator]) -> None:
        self.store, self.settings, self.progress, self.start = store, settings, progress, start
        self._judges: dict[str, _Early] = {}
        self._is_closed = False
        self._arrived: SimpleQueue[tuple[_Early, Answered | EvalsError | None]] = SimpleQueue()

    def ask(self, questions: Mapping[str, Sequence[Question]]) -> None:
        """Commit what has arrived, and hand each judge that waits its next questions, given by judge's model. Never blocks."""
        while not self._arrived.empty():
            self._take()
        for name, asked in questions.items():
            if name not in self._judges:
                self._judges[name] = self._begin(name)
            judge = self._judges[name]
            batch = asked[judge.n_taken : judge.n_taken + _BATCH]
            if batch and judge.generator is not None and not judge.is_busy and judge.error is None:
                judge.n_taken += len(batch)
                self._hand_over(judge, batch)

    def finish(self) -> None:
        """Wait for what is under way; what was not asked by then is left."""
        while busy := [judge for judge in self._judges.values() if judge.is_busy]:
            self.progress.start(f"judge {busy[0].name}")
            self._take()
        self.progress.stop()

    def close(self) -> None:
        """Commit what has arrived and ask nothing more; nobody waits for what is under way."""
        self._is_closed = True
        with contextlib.suppress(EvalsError):
            while not self._arrived.empty():
                self._take()
        for judge in self._judges.values():
            if judge.generator is not None and not judge.is_busy:
                judge.generator.close()
        self._judges.clear()

    def _begin(self, name: str) -> _Early:
        model = resolve(name, offline=self.settings.offline)
        return _Early(name, self.start(model, self.settings) if model.kind == "server" else None)

    def _hand_over(self, judge: _Early, batch: Sequence[Question]) -> None:
        prepared = prepare(self.settings, judge.name, batch)
        there = self.store.known(key for key, _ in prepared.keyed)
        waiting = {key: request for key, request in prepared.keyed if key not in there}
        if waiting:
            judge.is_busy = True
            Thread(target=self._work, args=(judge, waiting, prepared.renderer.cut), daemon=True).start()

    def _work(self, judge: _Early, waiting: Mapping[str, Rendered], cut: Callable[[Rendered, Completion], Completion]) -> None:
        """In a thread of its own: ask, and pass on what comes; None at the end."""
        assert judge.generator is not None
        of = {id(request): key for key, request in waiting.items()}
        try:
            for done in judge.generator.stream(list(waiting.values())):
                answered = [(of[id(request)], whole(cut(request, found))) for request, found in done if isinstance(found, Completion)]
                self._arrived.put((judge, answered))
                if self._is_closed:
                    return
        except EvalsError as error:
            self._arrived.put((judge, error))
        finally:
            self._arrived.put((judge, None))

    def _take(self) -> None:
        """Commit the next that arrives."""
        judge, found = self._arrived.get()
        if isinstance(found, EvalsError):
            judge.error = found
            self.progress.note(f"warning: judge {judge.name}: {found} It is asked again when the model has finished.")
        elif found is None:
            judge.is_busy = False
        else:
            self.store.put(found)
            self.progress.credit(f"judge {judge.name}", len(found), **counts(answer for _, answer in found))
