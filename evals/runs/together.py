"""Runs of several adapters, one after the other on one engine; each is what it is on its own."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from evals.generators import Failure, Generator
from evals.models.fingerprint import files_fingerprint
from evals.models.prompts import Rendered
from evals.plan.make import Plan
from evals.records import Completion
from evals.runs.engines import local_engine
from evals.runs.progress import Progress
from evals.runs.session import execute
from evals.runs.writing import RunResult

if TYPE_CHECKING:
    from evals.generators.copies import CopiesGenerator
    from evals.generators.vllm import VllmGenerator


def execute_all(
    plans: Sequence[Plan], progress: Callable[[], Progress], notes: Sequence[Sequence[str]] = ()
) -> list[RunResult]:
    """Carry out runs of adapters of one base. Raises as execute does, at the first run that cannot
    go on; the runs before it are finished, and the same command goes on.

    progress: makes each run's own.  notes: what else to say, by run.
    """
    notes = notes or [()] * len(plans)
    engine = _Shared(max(plan.model.adapter.rank for plan in plans if plan.model.adapter))
    try:
        results = [
            execute(_answering(plan), progress(), engine.start, said)
            for plan, said in zip(plans, notes, strict=True)
        ]
    finally:
        engine.close()
    # A judge's engine needs the memory, so that it comes when all have answered.
    return [
        result if plan.judges == _answering(plan).judges else execute(plan, progress())
        for plan, result in zip(plans, results, strict=True)
    ]


def _answering(plan: Plan) -> Plan:
    """The plan with those judges only that need no engine in this process."""
    judges = {
        role: judge
        for role, judge in plan.judges.items()
        if judge.is_rule or judge.model.startswith("openai:")
    }
    return replace(plan, judges=judges)


class _Shared:
    """The engine, loaded when the first run asks something. rank: the largest of the adapters'."""

    def __init__(self, rank: int) -> None:
        self._rank = rank
        self._engine: VllmGenerator | CopiesGenerator | None = None
        self._tokenizer = ""

    def start(self, plan: Plan) -> Generator:
        """The engine, answering with the plan's adapter."""
        adapter = plan.model.adapter
        assert adapter is not None
        # It also ends answers and writes their text: another tokenizer, another engine.
        tokenizer = files_fingerprint(adapter.tokenizer) if adapter.has_tokenizer else ""
        if self._engine is None or tokenizer != self._tokenizer:
            self.close()
            settings = replace(plan.settings, out=plan.out)
            self._engine = local_engine(plan.model, settings, self._rank)
            self._tokenizer = tokenizer
        self._engine.serve(str(adapter.folder))
        return _Lent(self._engine)

    def close(self) -> None:
        """Free the engine."""
        if self._engine is not None:
            self._engine.close()
        self._engine = None


class _Lent:
    """The engine in one run's hands, which the run does not end."""

    def __init__(self, engine: Generator) -> None:
        self._engine = engine

    def stream(
        self, requests: Sequence[Rendered]
    ) -> Iterator[list[tuple[Rendered, Completion | Failure]]]:
        """See Generator."""
        return self._engine.stream(requests)

    def close(self) -> None:
        """Nothing: the next run goes on with it."""
