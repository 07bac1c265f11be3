"""One run, from its settings to its folder: everything is asked, checked, judged, graded and
written.

Each answer is committed before it is counted. Kill it anywhere: the same command asks only for what
the store lacks.
"""

import contextlib
from collections.abc import Callable, Sequence

from evals.errors import EvalsError
from evals.generators import Generator
from evals.plan.earlier import earlier_run
from evals.plan.make import Plan, make_plan
from evals.plan.settings import RunSettings
from evals.runs.answering import Answering
from evals.runs.asking import Asker
from evals.runs.early import EarlyJudges
from evals.runs.engines import generator_for, start_engine
from evals.runs.judging import judge_all
from evals.runs.known import Known
from evals.runs.landing import Landing
from evals.runs.programs import Programs
from evals.runs.progress import Progress
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
    return execute(make_plan(settings), progress or Progress(quiet=True), make_generator)


def execute(
    plan: Plan,
    progress: Progress,
    make_generator: Callable[[Plan], Generator] | None = None,
    notes: Sequence[str] = (),
) -> RunResult:
    """The same for a plan that is made; see run. notes:
    what else to say once the folder is ours.
    """
    folder = RunFolder(plan.out)
    with folder.locked(), contextlib.ExitStack() as closing:
        for note in (*earlier_run(plan), *notes):
            progress.note(note)
        store = Store(plan.settings.store or folder.store_path)
        asker = Asker(store, plan.run_key, progress)
        programs = Programs(store, plan.run_key, progress, plan.settings.sandbox)
        early = EarlyJudges(asker, plan.settings, progress, start_engine)
        # Closed from the last to the first: engines free their memory before anything waits for a
        # program or a disk.
        for close in (store.close, progress.stop, programs.close, early.close, asker.close):
            closing.callback(close)
        known = Known()
        answering = Answering(
            plan, asker, Landing(plan, known, programs), early, make_generator or generator_for
        )
        writing = Writing(plan, folder, asker, known, programs)
        try:
            answering.answer_all()
            programs.collect(known.found)
            known.judge_notes = judge_all(
                asker, plan.settings, known.questions, known.answered, start_engine
            )
            return writing.finish()
        except BaseException:
            # Before the record, which counts what judges have answered by now.
            early.close()
            # What ended the run is to be told, not what kept it from being recorded.
            with contextlib.suppress(EvalsError):
                writing.record(finished=False)
            raise
