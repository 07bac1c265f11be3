"""Judges behind HTTP, asked while the evaluated model still generates.

What they answer goes into the store, where `evals.runs.judging` finds it. A question that a judge
refuses is not asked again in this run; a judge that fails altogether is left to
`evals.runs.judging`, which asks it again and says why.
"""

import contextlib
import queue
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Thread

from evals.errors import EvalsError
from evals.generators import Failure, Generator
from evals.models.prompts import Rendered
from evals.models.resolve import resolve
from evals.plan.judges import Judge
from evals.plan.questions import Question, prepare
from evals.plan.settings import RunSettings
from evals.records import Completion
from evals.runs import engines
from evals.runs.asking import Asker, counts, whole

_BATCH = 64
"""Questions handed to a judge at a time: as many as may be under way when the model has finished.
"""
_PATIENCE_S = 30.0
"""What is under way is waited for so long after the last answer; a judge that is slower is asked
again by `evals.runs.judging`.
"""

Answered = list[tuple[str, Completion | Failure]]


@dataclass
class _EarlyJudge:
    """One judge. asked: what is under way, by key.  n_taken: of its questions.  since: when its
    thread began to ask, None while it does not.  is_out: it is asked no more.
    """

    name: str
    generator: Generator
    asked: dict[str, Rendered] = field(default_factory=dict)
    n_taken: int = 0
    since: float | None = None
    is_out: bool = False


class EarlyJudges:
    """Asks those judges of a run that are servers. All methods are the main thread's; only it
    touches the store.
    """

    def __init__(self, asker: Asker, settings: RunSettings, judges: Mapping[str, Judge]) -> None:
        self.asker, self.settings = asker, settings
        self._services = Counter(_service(name) for name in {one.model for one in judges.values()})
        self._judges: dict[str, _EarlyJudge] = {}
        self._arrived: queue.SimpleQueue[tuple[_EarlyJudge, Answered | Exception | None]] = (
            queue.SimpleQueue()
        )

    def ask(self, questions: Mapping[str, Sequence[Question]]) -> None:
        """Commit what has arrived, and hand each judge that waits its next questions, given by
        judge's model. Waits for no answer.
        """
        self._take_all()
        for name, asked in questions.items():
            # What an earlier judge said is looked up when all questions are there.
            is_second = any(one.judge and one.judge.after for one in asked)
            if is_second or not name.startswith("openai:"):
                continue
            if name not in self._judges:
                model = resolve(name, offline=self.settings.offline)
                # Judges of one service share the connections that it is given.
                n_beside = max(1, self._services[_service(name)])
                engine = engines.start_engine(model, self.settings, n_beside)
                self._judges[name] = _EarlyJudge(name, engine)
            judge = self._judges[name]
            batch = asked[judge.n_taken : judge.n_taken + _BATCH]
            if batch and judge.since is None and not judge.is_out:
                judge.n_taken += len(batch)
                self._hand_over(judge, batch)

    def finish(self) -> None:
        """Wait for what is under way, then stop; what was not asked or answered by then is left."""
        with contextlib.suppress(queue.Empty):
            while any(judge.since is not None for judge in self._judges.values()):
                self._take(_PATIENCE_S)
        self.close()

    def close(self) -> None:
        """Commit what has arrived and ask nothing more; nobody waits for what is under way."""
        judges, self._judges = self._judges, {}
        for judge in judges.values():
            # Before its connections close: see `_take`.
            judge.is_out = True
            judge.generator.close()
        with contextlib.suppress(EvalsError):
            self._take_all()

    def _hand_over(self, judge: _EarlyJudge, batch: Sequence[Question]) -> None:
        prepared = prepare(self.settings, judge.name, batch)
        there = self.asker.store.known(key for key, _ in prepared.keyed)
        waiting = {
            key: request
            for key, request in prepared.keyed
            if key not in there and key not in self.asker.refused
        }
        n = self.asker.budget.take(list(waiting.values()))
        waiting = dict(list(waiting.items())[:n])
        judge.asked = dict(waiting)
        if waiting:
            judge.since = time.monotonic()
            Thread(
                target=self._work, args=(judge, waiting, prepared.renderer.cut), daemon=True
            ).start()

    def _work(
        self,
        judge: _EarlyJudge,
        waiting: Mapping[str, Rendered],
        cut: Callable[[Rendered, Completion], Completion],
    ) -> None:
        """In a thread of its own: ask, and pass on what comes; None at the end."""
        of = {id(request): key for key, request in waiting.items()}
        try:
            for done in judge.generator.stream(list(waiting.values())):
                self._arrived.put(
                    (
                        judge,
                        [(of[id(request)], _kept(request, found, cut)) for request, found in done],
                    )
                )
        except (EvalsError, OSError, RuntimeError) as error:
            self._arrived.put((judge, error))
        finally:
            self._arrived.put((judge, None))

    def _take_all(self) -> None:
        while not self._arrived.empty():  # nobody else takes from it
            self._take(0)

    def _take(self, patience_s: float) -> None:
        """Commit the next that arrives. Raises queue.Empty when nothing does for so long."""
        judge, found = self._arrived.get(block=patience_s > 0, timeout=patience_s or None)
        phase = f"judge {judge.name}"
        if isinstance(found, Exception):
            if not judge.is_out:
                self.asker.progress.note(
                    f"warning: {phase}: {found} It is asked again when the model has finished."
                )
            judge.is_out = True
        elif found is None:
            if judge.since is not None:
                self.asker.progress.credit(phase, wall_s=time.monotonic() - judge.since)
            judge.since = None
            for request in judge.asked.values():
                self.asker.budget.settle(request, None)
        else:
            for key, answer in found:
                was_asked = isinstance(answer, Completion) or not judge.is_out
                if key in judge.asked:
                    self.asker.budget.settle(judge.asked[key], answer if was_asked else None)
            answered = [(key, answer) for key, answer in found if isinstance(answer, Completion)]
            self.asker.store.put(answered)
            if not judge.is_out:  # what a closed connection answers is no refusal
                self.asker.refused.update(
                    {key: answer.reason for key, answer in found if isinstance(answer, Failure)}
                )
            self.asker.progress.credit(
                phase, requests=len(found), **counts(answer for _, answer in answered)
            )


def _service(judge: str) -> str:
    """Where a judge's server is: its address, "" for the service itself."""
    return judge.partition("@")[2] if judge.startswith("openai:") else judge


def _kept(
    request: Rendered,
    found: Completion | Failure,
    cut: Callable[[Rendered, Completion], Completion],
) -> Completion | Failure:
    """An answer as the store keeps it."""
    return whole(cut(request, found)) if isinstance(found, Completion) else found
