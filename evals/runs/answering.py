"""What a run asks: the requests of all its tasks as one queue, through the store to the engine."""

import gc
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from evals.generators import Generator
from evals.generators.waiting import said_of
from evals.models.prompts import Rendered
from evals.plan.make import Plan
from evals.plan.parallel import expected
from evals.plan.tuning import Tuning, tuned
from evals.plan.work import Work
from evals.records import Completion
from evals.runs.ahead import Ahead
from evals.runs.asking import Asker, Waiting, work
from evals.runs.early import EarlyJudges
from evals.runs.landing import Landing

_REPLAYED_AT_ONCE = 250
"""Recorded answers that share a commit."""


@dataclass(frozen=True, slots=True)
class Answering:
    """Has the evaluated model answer a plan's requests.

    early: judges that are asked while the model still answers.  start: how to start the model's
    engine.  before: the run.json that it goes on from.  chose: told what is set of the engine for
    these requests.  write_ahead: what is graded may be written.
    """

    plan: Plan
    asker: Asker
    landing: Landing
    early: EarlyJudges
    start: Callable[[Plan], Generator]
    before: Mapping[str, Any]
    chose: Callable[[Tuning], None]
    write_ahead: Callable[[], None]

    def answer_all(self) -> None:
        """Land what the store has, and have the engine answer the rest."""
        if self.plan.model.kind == "replay":
            self._replay()
        else:
            self._generate()
        self.asker.progress.stop()

    def _generate(self) -> None:
        """All requests as one queue."""
        progress = self.asker.progress
        progress.start("tokenize")
        keyed: list[tuple[str, Rendered]] = []
        for name, task in self.plan.tasks.items():
            of_task = self._keyed(name, range(len(task.items)))
            self.landing.known.capped[name] = _n_capped(of_task)
            keyed += of_task
        gc.freeze()  # they are kept to the end: no search for garbage goes through them
        progress.start("generate")
        waiting = self.asker.ask("", keyed, self.landing.land)
        # Of equal requests one is asked.
        n_kept = len(keyed) - sum(len(requests) for _, requests in waiting)
        if 0 < n_kept < len(keyed):
            progress.note(f"{n_kept:,} of {len(keyed):,} answers are kept; the others are asked")
        if waiting:
            # The sandbox takes a second to start, the engine half a minute: beside it, it costs
            # nothing.
            if self._has_programs(waiting):
                self.landing.programs.prepare()
            asked = work(waiting)
            plan, begun = self._tuned(_seeded(self.plan, waiting), asked), time.monotonic()
            self.asker.load(self.plan.model.argument, lambda: self.start(plan))
            progress.start("generate", len(waiting), Ahead(asked))
            self.asker.stream(waiting, self._land_and_judge, self.plan.renderer)
            self._compare(asked, time.monotonic() - begun)

    def _tuned(self, plan: Plan, asked: Work) -> Plan:
        """The plan with what is set of its engine for what waits."""
        engine = plan.settings.engine
        tuning = tuned(plan.model, engine, plan.places, asked, self.before)
        if tuning is None:
            return plan
        self.chose(tuning)
        return replace(plan, settings=replace(plan.settings, engine=tuning.apply(engine)))

    def _compare(self, asked: Work, took_s: float) -> None:
        """Say what a dry run would have estimated beside what it took, where the GPU is known."""
        plan = self.plan
        found = expected(plan.model, plan.settings.engine, plan.places, asked)
        if found is not None:
            about, took = said_of(found.wall_s), said_of(took_s)
            self.asker.progress.note(f"estimated {about} on {found.where}, took {took}")

    def _replay(self) -> None:
        """What was recorded, a few items at a time, so that all texts are never in
        memory together.
        """
        progress = self.asker.progress
        self.asker.load(self.plan.model.argument, lambda: self.start(self.plan))
        progress.start("generate", sum(len(task.items) for task in self.plan.tasks.values()))
        # With a tokenizer there are prompts that may be too long, which are told all at once.
        at_once = _REPLAYED_AT_ONCE if self.plan.renderer.tokenizer is None else sys.maxsize
        for name, task in self.plan.tasks.items():
            capped = 0
            for first in range(0, len(task.items), at_once):
                keyed = self._keyed(name, range(first, min(len(task.items), first + at_once)))
                capped += _n_capped(keyed)
                waiting = self.asker.ask("", keyed, self.landing.land)
                progress.spare(len(keyed) - len(waiting))
                self.asker.stream(waiting, self._land_and_judge, self.plan.renderer)
            self.landing.known.capped[name] = capped

    def _keyed(self, task: str, places: range) -> list[tuple[str, Rendered]]:
        """Requests of neighbouring items of a task, in their order, each with its store key."""
        known = self.landing.known
        rendered = self.plan.render(task, places)
        keyed = [(self.plan.key(request), request) for request in rendered]
        if known.n_bos is None and rendered and rendered[0].token_ids:
            known.n_bos = self.plan.renderer.n_bos(rendered[0].token_ids)
        known.expect(task, places, keyed)
        return keyed

    def _has_programs(self, waiting: Waiting) -> bool:
        places = self.landing.known.places
        tasks = {places[request.item_id][0] for _, requests in waiting for request in requests}
        return any(self.plan.tasks[name].benchmark.runs_programs for name in tasks)

    def _land_and_judge(self, request: Rendered, answer: Completion) -> None:
        self.landing.land(request, answer)
        self.early.ask(self.landing.known.questions)
        self.write_ahead()


def _seeded(plan: Plan, waiting: Waiting) -> Plan:
    """The plan with the seed of the first draw that is to be made: an engine that began again with
    the seed of the draws that are there would make the same ones.
    """
    seeds = (requests[0].sampling.seed for _, requests in waiting)
    engine = plan.settings.engine
    seed = min((one for one in seeds if one is not None), default=engine.seed)
    if seed == engine.seed:
        return plan
    return replace(plan, settings=replace(plan.settings, engine=replace(engine, seed=seed)))


def _n_capped(keyed: Sequence[tuple[str, Rendered]]) -> int:
    """How many of the requests are cut to the room left in the model's context."""
    return sum(request.is_capped for _, request in keyed)
