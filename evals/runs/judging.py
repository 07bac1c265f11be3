"""Letting judges decide: each judge's model is loaded once and asked all it has to decide."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from evals.errors import EvalsError, Incomplete
from evals.generators import Failure, Generator
from evals.models.prompts import Rendered, Renderer
from evals.plan.judges import COUNTED_AS_UNREADABLE, Judge, calibration_notes, finding_of
from evals.plan.questions import Prepared, Question, prepare
from evals.plan.settings import RunSettings
from evals.records import Completion, Finding, Generate, ItemId
from evals.runs import engines
from evals.runs.asking import Asker, Land, Waiting, work

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
    for name in sorted(questions, key=lambda name: (name != asker.loaded, name)):
        left = _left(asker, settings, questions[name], found)
        prepared = prepare(settings, name, left)
        try:
            how = _judge(asker, settings, prepared, left, found)
        except Incomplete as error:
            asker.progress.stop()
            asker.lost[name] = str(error)
            roles = {question.role for question in questions[name]}
            # Why each of them has none is said once, for all.
            asker.failures = {k: v for k, v in asker.failures.items() if k[1] not in roles}
            continue
        for role in dict.fromkeys(question.role for question in questions[name]):
            n = sum(request.check == role for request in prepared.too_long)
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
            judges = [one.judge for one in questions[name] if one.role == role and one.judge]
            judge = judges[0] if judges else Judge(role, name)
            notes[role] = [*said, *calibration_notes(judge, prepared.fingerprint)]
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


def _judge(
    asker: Asker,
    settings: RunSettings,
    prepared: Prepared,
    questions: Sequence[Question],
    found: Found,
) -> "_Answered":
    """Ask one judge."""
    for request in prepared.too_long:
        found(request.item_id, request.check, Finding(by=prepared.name, text=""))
    asks = {(question.item_id, question.role): question.ask for question in questions}

    how = _Answered()

    def land(request: Rendered, answer: Completion) -> None:
        how.unasked[request.check].update(answer.unasked)
        ask = asks[request.item_id, request.check]
        finding = finding_of(ask, prepared.reader.read(ask, answer), prepared.name)
        how.reasoned[request.check] += finding.reasoning is not None
        wants = isinstance(ask, Generate) and ask.sampling.n_logprobs
        how.by_word[request.check] += bool(wants and finding.text and not finding.top_logprobs)
        found(request.item_id, request.check, finding)

    phase = f"judge {prepared.name}"
    asker.progress.start(phase)
    waiting = asker.ask(prepared.name, prepared.keyed, land)
    if waiting:
        model, own = prepared.model, prepared.engine_settings(settings)
        asker.load(model.argument, lambda: _Mortal(engines.start_engine(model, own)))
        asker.progress.start(phase, len(waiting), work(waiting))
        within_budget(asker, waiting, land, prepared.renderer)
    asker.progress.stop()
    return how


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
