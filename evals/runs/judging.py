"""Letting judges decide: each judge's model is loaded once and asked all it has to decide."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence

from evals.models.prompts import Rendered
from evals.plan.judges import COUNTED_AS_UNREADABLE, calibration_notes, finding_of
from evals.plan.questions import Prepared, Question, prepare
from evals.plan.settings import RunSettings
from evals.records import Completion, Finding, ItemId
from evals.runs import engines
from evals.runs.asking import Asker, work

Found = Callable[[ItemId, str, Finding], None]
"""Takes what a judge said of an item in a role."""


def judge_all(
    asker: Asker, settings: RunSettings, questions: Mapping[str, Sequence[Question]], found: Found
) -> dict[str, list[str]]:
    """Ask every judge its questions, given by judge's model; the model already loaded goes first.

    Returns, by role, what must be said beside the cells.
    """
    notes: dict[str, list[str]] = {}
    for name in sorted(questions, key=lambda name: (name != asker.loaded, name)):
        prepared = prepare(settings, name, questions[name])
        unasked, reasoned = _judge(asker, settings, prepared, questions[name], found)
        for role in dict.fromkeys(question.role for question in questions[name]):
            n = sum(request.check == role for request in prepared.too_long)
            too_long = f"{n} answers too long for {name} to judge, {COUNTED_AS_UNREADABLE}"
            said = [f"{role}: {too_long}"] if n else []
            if own := sorted(unasked[role]):
                said.append(f"{role}: {name} takes no {' or '.join(own)}; its own decided")
            if n := reasoned[role]:
                said.append(f"{role}: {name} reasoned before {n:,} verdicts, which was read past")
            notes[role] = [*said, *calibration_notes(role, name, prepared.fingerprint)]
    return notes


def _judge(
    asker: Asker,
    settings: RunSettings,
    prepared: Prepared,
    questions: Sequence[Question],
    found: Found,
) -> tuple[Mapping[str, set[str]], Counter[str]]:
    """Returns, by role, the parameters that the judge refused, and how many verdicts it reasoned
    before.
    """
    for request in prepared.too_long:
        found(request.item_id, request.check, Finding(by=prepared.name, text=""))
    asks = {(question.item_id, question.role): question.ask for question in questions}

    unasked: defaultdict[str, set[str]] = defaultdict(set)
    reasoned = Counter[str]()

    def land(request: Rendered, answer: Completion) -> None:
        unasked[request.check].update(answer.unasked)
        ask = asks[request.item_id, request.check]
        finding = finding_of(ask, prepared.reader.read(ask, answer), prepared.name)
        reasoned[request.check] += finding.reasoning is not None
        found(request.item_id, request.check, finding)

    phase = f"judge {prepared.name}"
    asker.progress.start(phase)
    waiting = asker.ask(prepared.name, prepared.keyed, land)
    if waiting:
        model, own = prepared.model, prepared.engine_settings(settings)
        asker.load(model.argument, lambda: engines.start_engine(model, own))
        asker.progress.start(phase, len(waiting), work(waiting))
        asker.stream(waiting, land, prepared.renderer)
    asker.progress.stop()
    return unasked, reasoned
