"""What an answer sets off: its programs are started, what judges must decide is noted, and what
waits for nothing is graded.
"""

from dataclasses import dataclass, replace
from typing import Any

from evals.benchmark import Benchmark
from evals.generators.replay import RECORDED
from evals.models.prompts import Rendered
from evals.plan.judges import Judge
from evals.plan.make import Plan
from evals.plan.questions import question
from evals.records import Check, Completion, Finding, ItemId, Program, Request
from evals.runs import ends
from evals.runs.grading import Graded
from evals.runs.known import Known
from evals.runs.programs import Programs


@dataclass(frozen=True, slots=True)
class Landing:
    """Where a run's answers land, one after another."""

    plan: Plan
    known: Known
    programs: Programs

    def land(self, request: Rendered, answer: Completion) -> None:
        """An answer is here and in the store."""
        task, place = self.known.places.pop(request.item_id)
        benchmark, item = self.plan.tasks[task].benchmark, self.plan.tasks[task].items[place]
        answer = self.plan.read(task, item, answer)
        recorded = self.plan.recorded.get(item.id)
        found = dict(recorded.findings) if recorded else {}
        # A list, not a generator in any(): every check must be started.
        if any(
            [
                self._start(item.id, check, benchmark, answer, found)
                for check in ends.checks(benchmark, item, answer)
            ]
        ):
            self.known.findings[item.id] = found
        else:
            self.known.grade(task, place, Graded(*ends.grade(benchmark, item, answer, found)))
        self.programs.collect(self.known.found, wait=False)

    def _start(
        self,
        item_id: ItemId,
        check: Check,
        benchmark: Benchmark[Any],
        answer: Completion,
        found: dict[str, Finding],
    ) -> bool:
        """Have a check decided, where that needs nobody at once; True where the item must wait for
        it.
        """
        if isinstance(check.ask, Program):
            return self._run(item_id, check.name, check.ask, found)
        judge = self.plan.judges.get(check.name)
        if judge is None:
            return False
        if judge.is_rule:
            found[check.name] = Finding(
                by=judge.model, text=benchmark.rules[judge.model](answer.text)
            )
            return False
        return self._put_to(judge, item_id, check.ask, found)

    def _run(
        self, item_id: ItemId, check: str, program: Program, found: dict[str, Finding]
    ) -> bool:
        # What was run here before, under --sandbox require, stays what it is.
        is_recorded = check in found and self.plan.settings.sandbox != "require"
        if is_recorded and not self.programs.has_run(program):
            found[check] = replace(found[check], by=RECORDED)
            return False
        found.pop(check, None)
        self.programs.submit(item_id, check, program)
        return True

    def _put_to(
        self, judge: Judge, item_id: ItemId, ask: Request, found: dict[str, Finding]
    ) -> bool:
        # What another judge was recorded to say is no answer of this one.
        found.pop(judge.role, None)
        asked = self.known.questions.setdefault(judge.model, [])
        asked.append(question(judge, item_id, ask))
        return True
