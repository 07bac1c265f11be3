"""Letting judges decide: each judge's model is loaded once and asked everything it has
to decide.
"""

from collections.abc import Callable, Mapping, Sequence

from evals.generators import Generator
from evals.models.prompts import Rendered
from evals.models.resolve import Model
from evals.plan.judges import calibration_notes, finding_of
from evals.plan.questions import Prepared, Question, prepare
from evals.plan.settings import RunSettings
from evals.records import Completion, Finding, ItemId
from evals.runs.asking import Asker, work

StartEngine = Callable[[Model, RunSettings], Generator]


def judge_all(
    asker: Asker,
    settings: RunSettings,
    questions: Mapping[str, Sequence[Question]],
    found: Callable[[Question, Finding], None],
    start: StartEngine,
) -> dict[str, list[str]]:
    """Ask every judge its questions, given by judge's model; the model already loaded goes first.

    found: called with each finding.  Returns, by role, what must be said beside the cells.
    """
    notes: dict[str, list[str]] = {}
    for name in sorted(questions, key=lambda name: (name != asker.loaded, name)):
        prepared = prepare(settings, name, questions[name])
        by_check = {(question.item_id, question.role): question for question in questions[name]}
        _judge(asker, prepared, by_check, found, lambda model: start(model, settings))
        for role in dict.fromkeys(question.role for question in questions[name]):
            n = sum(request.check == role for request in prepared.too_long)
            said = (
                [
                    f"{role}: {n} answers too long for {name} to judge, counted as unreadable"
                    " verdicts"
                ]
                if n
                else []
            )
            notes[role] = [*said, *calibration_notes(role, name, prepared.fingerprint)]
    return notes


def _judge(
    asker: Asker,
    prepared: Prepared,
    by_check: Mapping[tuple[ItemId, str], Question],
    found: Callable[[Question, Finding], None],
    start: Callable[[Model], Generator],
) -> None:
    for request in prepared.too_long:
        found(by_check[request.item_id, request.check], Finding(by=prepared.name, text=""))

    def land(request: Rendered, answer: Completion) -> None:
        question = by_check[request.item_id, request.check]
        found(question, finding_of(question.ask, answer, prepared.name))

    phase = f"judge {prepared.name}"
    asker.progress.start(phase)
    waiting = asker.ask(prepared.name, prepared.keyed, land)
    if waiting:
        asker.load(prepared.model.argument, lambda: start(prepared.model))
        asker.progress.start(phase, len(waiting), work(waiting))
        asker.stream(waiting, land, prepared.renderer)
    asker.progress.stop()
