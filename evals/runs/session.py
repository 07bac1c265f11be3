"""One run, from its settings to its folder: everything is asked, checked, judged, graded and
written.

Each answer is committed before it is counted. Kill it anywhere: the same command asks only for what
the store lacks.
"""

import contextlib
import gc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from evals.errors import EvalsError, Incomplete
from evals.generators import Generator
from evals.models.bases import adapter_notes
from evals.plan.bounds import known_answers, said_of
from evals.plan.cost import prices_of
from evals.plan.earlier import earlier_run
from evals.plan.items import lacking
from evals.plan.make import Plan, make_plan
from evals.plan.reasoning import notes as notes_on_reasoning
from evals.plan.settings import RunSettings
from evals.plan.tuning import Tuning
from evals.runs.answering import Answering
from evals.runs.asking import Asker
from evals.runs.budget import Budget
from evals.runs.early import EarlyJudges
from evals.runs.engines import generator_for
from evals.runs.judging import how_to_go_on, judge_all
from evals.runs.known import Known
from evals.runs.landing import Landing
from evals.runs.programs import Programs
from evals.runs.progress import Progress, heard
from evals.runs.provenance import software
from evals.runs.servers import about_servers, require_servers, tokenizer_hint
from evals.runs.writing import RunResult, Writing
from evals.storage.run_folder import RunFolder
from evals.storage.store import Store


def run(
    settings: RunSettings,
    progress: Progress | None = None,
    make_generator: Callable[[Plan], Generator] | None = None,
) -> RunResult:
    """Evaluate a model and write its run folder.

    make_generator: how to start the evaluated model's engine (tests give a fake one).
    Raises EvalsError with one sentence for everything a user can meet.
    """
    progress = progress or Progress(quiet=True)
    with heard(progress):
        plan = make_plan(settings)
    return execute(plan, progress, make_generator)


def execute(
    plan: Plan,
    progress: Progress,
    make_generator: Callable[[Plan], Generator] | None = None,
    notes: Sequence[str] = (),
) -> RunResult:
    """The same for a plan that is made; see run.

    notes: what else to say once the folder is ours.
    """
    folder = RunFolder(plan.out)
    with folder.locked(), heard(progress), _kept_objects():
        lacks = lacking(plan.tasks, plan.judges, plan.settings.suite)
        said = (*earlier_run(plan), *adapter_notes(plan.model), *notes, *lacks, *_bounds(plan))
        said = (*(f"warning: left out: {one}" for one in plan.faults), *said)
        for note in said:
            progress.note(note)
        servers = about_servers(plan, with_model=make_generator is None)
        for note in (
            *tokenizer_hint(plan, servers),
            *plan.view.notes(),
            *notes_on_reasoning(plan.reader, plan.tasks),
        ):
            progress.note(note)
        # Now, not at the end: by then a long run's own files may be others.
        made_with = software() | ({"servers": servers} if servers else {})
        previous = folder.read_json("run.json") if (folder.path / "run.json").exists() else {}
        with _opened(plan, folder, progress) as (asker, early, programs):
            known = Known()
            landing = Landing(plan, known, programs)
            writing = Writing(plan, folder, asker, known, programs, made_with, previous)

            def chose(tuning: Tuning) -> None:
                if not tuning.is_usual:
                    progress.note(tuning.line())
                made_with["tuning"] = tuning.record()
                writing.record(finished=False)

            start = make_generator or generator_for
            ahead = writing.write_ahead
            answering = Answering(plan, asker, landing, early, start, previous, chose, ahead)
            try:
                own = (lambda: generator_for(plan)) if make_generator is None else None
                require_servers(plan, asker.store, own, progress.note)
                # Killed, the run goes on at its time; meanwhile `evals report` reads what is there.
                writing.record(finished=False)
                answering.answer_all()
                early.finish()
                programs.collect(known.found)
                settings = replace(plan.settings, out=plan.out)
                known.judge_notes = judge_all(asker, settings, known.questions, known.found)
                result = writing.grade_and_write()
            except BaseException:
                early.close()
                with contextlib.suppress(EvalsError):
                    writing.record(finished=False)
                raise
            if not asker.store.is_there:
                progress.note(
                    f"warning: {asker.store.path} was removed while the run was at work: its"
                    " results are whole, but the prompts and answers in it are lost. The same"
                    " command would ask everything again."
                )
            if asker.lost:
                raise Incomplete(how_to_go_on(asker, known.questions))
            return result


@contextlib.contextmanager
def _kept_objects() -> Iterator[None]:
    """Spare the search for garbage the plan's objects, of which a large one has millions, and what
    is imported, which vLLM has walked several times as it loads, until the run ends.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextlib.contextmanager
def _opened(
    plan: Plan, folder: RunFolder, progress: Progress
) -> Iterator[tuple[Asker, EarlyJudges, Programs]]:
    """The store's, the early judges' and the sandbox's doors, closed however the run ends."""
    with contextlib.ExitStack() as closing:
        store = Store(plan.settings.store or folder.store_path)
        closing.callback(store.close)
        asker = Asker(store, plan.run_key, progress, budget=_budget(plan))
        programs = Programs(store, plan.run_key, progress, plan.settings.sandbox)
        early = EarlyJudges(asker, plan.settings, plan.judges)
        # From the last to the first: engines free their memory before anything waits for a
        # program or a disk.
        for close in (progress.stop, programs.close, early.close, asker.close):
            closing.callback(close)
        yield asker, early, programs


def _budget(plan: Plan) -> Budget:
    """What this command may spend on judges."""
    prices = prices_of(plan.settings.prices, plan.judges)
    return Budget(plan.settings.max_cost, {role: one.price for role, one in prices.items()})


def _bounds(plan: Plan) -> Iterator[str]:
    """What the judges that cost money will take at most: said before the first of them is asked."""
    paid = {
        role: priced
        for role, priced in prices_of(plan.settings.prices, plan.judges).items()
        if plan.judges[role].model.startswith("openai:")
    }
    with contextlib.ExitStack() as closing:
        known = known_answers(plan) if paid else None
        if known is not None:
            closing.callback(known.close)
        for role, priced in paid.items():
            judge = plan.judges[role]
            yield f"judge {role}: {judge.model}, {said_of(plan, judge, known, priced)}"
