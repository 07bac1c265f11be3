"""Letting judges decide: each judge's model is loaded once and asked all it has to decide."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from evals.errors import EvalsError, Incomplete
from evals.generators import Failure, Generator
from evals.generators.placing import places
from evals.models.prompts import Rendered, Renderer
from evals.plan.judges import COUNTED_AS_UNREADABLE, Judge, calibration_notes, finding_of
from evals.plan.parallel import bytes_in_memory, side_by_side
from evals.plan.questions import Prepared, Question, prepare
from evals.plan.settings import RunSettings
from evals.records import Completion, Finding, Generate, ItemId
from evals.runs import engines
from evals.runs.ahead import Ahead
from evals.runs.asking import Asker, Land, Waiting, work
from evals.runs.beside import Beside

Found = Callable[[ItemId, str, Finding], None]
"""Takes what a judge said of an item in a role."""


def judge_all(
    asker: Asker, settings: RunSettings, questions: Mapping[str, Sequence[Question]], found: Found
) -> dict[str, list[str]]:
    """Ask every judge its questions, given by judge's model; the model already loaded goes first.

    Returns, by role, what must be said beside the cells. A judge that cannot be asked any more is
    in `asker.lost`; what it said before is kept, and the others are asked.
    """
    notes: dict[str, list[str]] = {}
    names = sorted(questions, key=lambda name: (name != asker.loaded, name))
    each = [_looked_up(asker, settings, name, questions[name], found) for name in names]
    beside = Beside()
    try:
        for at, one in enumerate(each):
            try:
                _judge(asker, settings, one, each[at:], beside)
            except Incomplete as error:
                asker.progress.stop()
                asker.lost[one.prepared.name] = str(error)
                # Why each of them has none is said once, for all.
                asker.failures = {k: v for k, v in asker.failures.items() if k[1] not in one.roles}
                continue
            notes |= _notes(one)
    finally:
        beside.close()
    return notes


def _notes(one: "_Asked") -> dict[str, list[str]]:
    """What must be said beside the cells, by role."""
    notes = {}
    name, how = one.prepared.name, one.how
    for role in one.roles:
        n = sum(request.check == role for request in one.prepared.too_long)
        too_long = f"{n} answers too long for {name} to judge, {COUNTED_AS_UNREADABLE}"
        said = [f"{role}: {too_long}"] if n else []
        if own := sorted(how.unasked[role]):
            said.append(f"{role}: {name} takes no {' or '.join(own)}; its own decided")
        if n := how.reasoned[role]:
            said.append(f"{role}: {name} reasoned before {n:,} verdicts, which was read past")
        if n := how.by_word[role]:
            said.append(
                f"{role}: {name} gave no log-probabilities for {n:,} verdicts, which were read"
                " by their word alone"
            )
        judges = [asked.judge for asked in one.questions if asked.role == role and asked.judge]
        judge = judges[0] if judges else Judge(role, name)
        notes[role] = [*said, *calibration_notes(judge, one.prepared.fingerprint)]
    return notes


def _left(
    asker: Asker, settings: RunSettings, questions: Sequence[Question], found: Found
) -> list[Question]:
    """The questions that no earlier judge has answered whose verdicts stand."""
    asks = {(one.item_id, one.role): one for one in questions}
    before: dict[str, list[Question]] = {}
    for one in questions:
        if one.judge is not None and one.judge.after:
            before.setdefault(one.judge.after, []).append(one)

    for name, asked in before.items():
        prepared = prepare(settings, name, asked, is_asked=False)
        asker.ask(name, prepared.keyed, partial(_stands, prepared, asks, found))
    return list(asks.values())


def _stands(
    prepared: Prepared,
    asks: dict[tuple[ItemId, str], Question],
    found: Found,
    request: Rendered,
    answer: Completion,
) -> None:
    """An earlier judge's verdict is found, and its question asked no more."""
    one = asks.pop((request.item_id, request.check))
    finding = finding_of(one.ask, prepared.reader.read(one.ask, answer), prepared.name)
    found(one.item_id, one.role, finding)


def _looked_up(
    asker: Asker,
    settings: RunSettings,
    name: str,
    questions: Sequence[Question],
    found: Found,
) -> "_Asked":
    """A judge's questions, of which those that the store answers are answered."""
    left = _left(asker, settings, questions, found)
    prepared = prepare(settings, name, left)
    for request in prepared.too_long:
        found(request.item_id, request.check, Finding(by=prepared.name, text=""))
    asks = {(question.item_id, question.role): question.ask for question in left}
    how = _Answered()

    def land(request: Rendered, answer: Completion) -> None:
        how.unasked[request.check].update(answer.unasked)
        ask = asks[request.item_id, request.check]
        finding = finding_of(ask, prepared.reader.read(ask, answer), prepared.name)
        how.reasoned[request.check] += finding.reasoning is not None
        wants = isinstance(ask, Generate) and ask.sampling.n_logprobs
        how.by_word[request.check] += bool(wants and finding.text and not finding.top_logprobs)
        found(request.item_id, request.check, finding)

    asker.progress.start(f"judge {prepared.name}")
    waiting = asker.ask(prepared.name, prepared.keyed, land)
    asker.progress.stop()
    return _Asked(prepared, questions, how, land, waiting)


def _judge(
    asker: Asker, settings: RunSettings, one: "_Asked", rest: Sequence["_Asked"], beside: Beside
) -> None:
    """Ask one judge what waits. rest: it and those that come after it."""
    if one.waiting:
        asker.load(
            one.prepared.model.argument,
            lambda: _Mortal(_engine(settings, rest, beside, asker.progress.note)),
        )
        asker.progress.start(
            f"judge {one.prepared.name}", len(one.waiting), Ahead(work(one.waiting))
        )
        within_budget(asker, one.waiting, one.land, one.prepared.renderer)
    asker.progress.stop()


def _engine(
    settings: RunSettings, rest: Sequence["_Asked"], beside: Beside, note: Callable[[str], None]
) -> Generator:
    """The first one's engine; those of the next are loaded with it where the memory holds them. No
    other is loaded now.
    """
    first = rest[0].prepared
    if first.name not in beside:
        beside.begin(_together(settings, rest))
        if first.name in beside:
            note("judges that load at the same time: " + ", ".join(beside.names))
    if first.name in beside:
        engine, why = beside.take(first.name)
        if engine is not None:
            return engine
        beside.close(is_patient=True)
        note(f"judges are loaded one after the other, since at the same time: {why}")
    return engines.start_engine(first.model, first.engine_settings(settings))


def _together(
    settings: RunSettings, rest: Sequence["_Asked"]
) -> dict[str, Callable[[], Generator]]:
    """How to start those that load at the same time, by name."""
    local = [one.prepared for one in rest if one.waiting and one.prepared.model.kind == "weights"]
    if len(local) < 2 or local[0] is not rest[0].prepared:
        return {}
    engine = settings.engine
    where = places(engine)
    sizes = [
        bytes_in_memory(one.model.files, engine.dtype, engine.quantization)
        if one.model.files and not one.model.adapter else 0
        for one in local
    ]  # fmt: skip
    found: dict[str, Callable[[], Generator]] = {}
    for one, (place, own) in zip(local, side_by_side(sizes, engine, where), strict=False):
        length = one.engine_settings(settings).engine.max_model_len
        started = replace(settings, engine=replace(own, max_model_len=length))
        found[one.name] = partial(engines.start_engine, one.model, started, where=place)
    return found


@dataclass
class _Asked:
    """One judge. questions: all that it decides.  land: takes an answer.  waiting: what the store
    lacks.
    """

    prepared: Prepared
    questions: Sequence[Question]
    how: "_Answered"
    land: Land
    waiting: Waiting

    @property
    def roles(self) -> list[str]:
        return list(dict.fromkeys(question.role for question in self.questions))


@dataclass
class _Answered:
    """How a judge answered, by role. unasked: the parameters that it refused.  reasoned: verdicts
    that it reasoned before.  by_word: verdicts that lack the log-probabilities they are read from.
    """

    unasked: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    reasoned: Counter[str] = field(default_factory=Counter)
    by_word: Counter[str] = field(default_factory=Counter)


def within_budget(asker: Asker, waiting: Waiting, land: Land, renderer: Renderer) -> None:
    """Ask what waits, as much at a time as may be under way; the rest fails where no more may."""
    answers: dict[int, Completion | Failure] = {}

    def settled(request: Rendered, answer: Completion) -> None:
        answers[id(request)] = answer
        land(request, answer)

    while waiting:
        n = asker.budget.take([requests[0] for _, requests in waiting])
        if not n:
            for _, requests in waiting:
                asker.fail(requests, asker.budget.reason)
            return
        try:
            asker.stream(waiting[:n], settled, renderer)
        finally:  # What a judge that died was not asked leaves its money to the others.
            for _, (request, *_others) in waiting[:n]:
                if why := asker.failures.get((request.item_id, request.check)):
                    answers.setdefault(id(request), Failure(why))
                asker.budget.settle(request, answers.get(id(request)))
        waiting = waiting[n:]


@dataclass(frozen=True, slots=True)
class _Mortal:
    """A judge's engine, whose own end is told apart from a full disk's: it raises Incomplete."""

    engine: Generator

    def stream(
        self, requests: Sequence[Rendered]
    ) -> Iterator[list[tuple[Rendered, Completion | Failure]]]:
        """See Generator."""
        stream = self.engine.stream(requests)
        while True:
            try:
                done = next(stream)
            except StopIteration:
                return
            except EvalsError as error:
                raise Incomplete(str(error)) from error
            yield done

    def close(self) -> None:
        """Free the engine."""
        self.engine.close()


def how_to_go_on(asker: Asker, questions: Mapping[str, Sequence[Question]]) -> str:
    """What to say where judges cannot be asked any more."""
    lines = []
    for name, why in asker.lost.items():
        roles = list(dict.fromkeys(question.role for question in questions[name]))
        flags = " ".join(f"--judge {role}=MODEL" for role in roles)
        lines.append(
            f"Judge {name} of {', '.join(roles)} cannot be asked any more: {why} All answers, and"
            " the verdicts that came, are kept, and the model is asked nothing again. The same"
            f" command goes on with it; with {flags.replace('=', '+=')} added, another judge"
            f" decides what is left; with {flags} in its place, all (evals judge list)."
        )
    return "\n".join(lines)
