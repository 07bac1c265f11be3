"""`evals judge calibrate`: a candidate judge asked about recorded answers, and how far it agrees
with those who judged them then.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import date
from pathlib import Path
from typing import Any

from evals.cards.published import shipped
from evals.errors import Incomplete, InputError
from evals.fidelity.agreement import Pair, agreement, shift
from evals.fidelity.calibration_data import Answer, Verdicts, read_verdicts
from evals.fidelity.estimates import measurement_of
from evals.models.resolve import public_name
from evals.plan.cost import Cost, Priced, prices_of, spent
from evals.plan.items import spread
from evals.plan.judges import CALIBRATIONS, calibration_file
from evals.plan.naming_judges import gone, judges_of, prompts_of_judges, refusal
from evals.plan.questions import Question, prepare, question
from evals.plan.settings import RunSettings, check_settings
from evals.records import Completion, Finding, ItemId, Program
from evals.registry import BENCHMARKS, benchmark_class
from evals.runs.asking import Asker
from evals.runs.judging import judge_all
from evals.runs.progress import Progress
from evals.runs.provenance import git_commit, versions
from evals.storage.run_folder import RunFolder
from evals.storage.store import Store

Found = dict[tuple[ItemId, str], Finding]
Record = dict[str, Any]
_NOTHING_ASKED: Record = {"dtype": None, "cost": None, "time": None, "n_too_long": 0}


def calibrate(
    settings: RunSettings, replay: Path | None, prices: Sequence[str], progress: Progress
) -> list[str]:
    """Ask the judges of the settings, write one file a role into its `out` (default: CALIBRATIONS),
    and say in words what each holds.

    Raises InputError for what is wrong before any judge is asked, Incomplete where verdicts are
    missing; those that came are kept.
    """
    check_settings(settings)
    classes = [benchmark_class(name) for name in BENCHMARKS]
    judges = judges_of(settings.judges, classes)
    if lost := gone(judges, date.today()):
        raise InputError(refusal(lost, classes, date.today()))
    price_of = prices_of(prices, judges)
    out, found, questions = settings.out or CALIBRATIONS, Found(), dict[str, list[Question]]()
    settings = replace(settings, out=out)  # copies of a judge keep their logs there
    sets = {role: read_verdicts(role, settings.data, replay) for role in judges}
    chosen = {role: _spread(sets[role].answers, settings.limit) for role in judges}
    for role, judge in judges.items():
        benchmark = sets[role].benchmark
        benchmark.take_prompts(prompts_of_judges(judges, [role]))
        for one in chosen[role]:
            asks = [
                check.ask for check in benchmark.checks(one.item, one.answer) if check.name == role
            ]
            if judge.is_rule:
                found[one.item.id, role] = Finding(
                    by=judge.model, text=benchmark.rules[judge.model](one.answer.text)
                )
            else:
                questions.setdefault(judge.model, []).extend(
                    question(judge, one.item.id, a) for a in asks if not isinstance(a, Program)
                )
    measured = (
        _ask(settings, settings.store or out / "store.sqlite", questions, found, progress)
        if questions
        else {}
    )
    said = []
    for role, judge in judges.items():
        took = measured.get(role, {"fingerprint": judge.rule_fingerprint, **_NOTHING_ASKED})
        record = (
            took
            | {"role": role, "judge": public_name(judge.model), "limit": settings.limit}
            | judge.record()
            | _against_recorded(sets[role], chosen[role], role, found)
        )
        name = calibration_file(judge)
        RunFolder(out).write_json(name, record)
        said += [*describe(record, price_of.get(role)), f"written: {out / name}"]
    return said


def _spread(answers: Sequence[Answer], limit: int | None) -> Sequence[Answer]:
    kept = {item.id for item in spread([one.item for one in answers], limit or len(answers))}
    return [one for one in answers if one.item.id in kept]


def _ask(
    settings: RunSettings,
    store_path: Path,
    questions: Mapping[str, Sequence[Question]],
    found: Found,
    progress: Progress,
) -> dict[str, Record]:
    """Ask every judge by the road of a live run; by role, who it is and what it took."""
    prepared = [prepare(settings, name, asked) for name, asked in questions.items()]
    store = Store(store_path)
    asker = Asker(store, "calibration", progress)
    measured: dict[str, Record] = {}
    try:
        judge_all(
            asker,
            settings,
            questions,
            lambda item_id, role, finding: found.update({(item_id, role): finding}),
        )
        for judge in prepared:
            for role in {one.role for one in questions[judge.name]}:
                asked = {key: request for key, request in judge.keyed if request.check == role}
                answered = [
                    (request, answer)
                    for key, request in asked.items()
                    if isinstance(answer := store.get(key), Completion)
                ]
                measured[role] = {
                    "fingerprint": judge.fingerprint,
                    "dtype": settings.engine.dtype,
                    "cost": asdict(spent(answered)),
                }
                measured[role] |= {
                    "time": progress.phases[f"judge {judge.name}"],
                    "n_too_long": len({r.item_id for r in judge.too_long if r.check == role}),
                }
    finally:
        asker.close()
        progress.stop()
        store.close()
    lacking = [
        key
        for asked in questions.values()
        for one in asked
        if (key := (one.item_id, one.role)) not in found
    ]
    if lacking:
        why = next(iter(asker.lost.values()), asker.failures.get(lacking[0], "no answer"))
        raise Incomplete(
            f"{len(lacking)} verdicts are missing ({why}). The same command asks for them again;"
            " the rest is kept."
        )
    return measured


def _against_recorded(
    verdicts: Verdicts, chosen: Sequence[Answer], role: str, found: Found
) -> Record:
    """The candidate's verdicts held against every recorded judge's. An answer equal to the
    reference is a draw by rule.
    """
    benchmark, against = verdicts.benchmark, dict[str, Record]()
    measured: Record = {}
    judged = [(one.item.id, role) in found for one in chosen]
    if not any(judged):
        raise InputError(
            f"{role}: all {len(chosen)} recorded answers equal the reference: nobody is asked. Give"
            " a larger --limit."
        )
    # All answers of a set have the same judges.
    for who in verdicts.answers[0].by:
        pairs = []
        for one in chosen:
            # The other roles keep their recorded verdicts: a column may need two (truth, info).
            now = {**one.by[who]} | (
                {role: found[key]} if (key := (one.item.id, role)) in found else {}
            )
            grades = [
                benchmark.grade(one.item, one.answer, findings) for findings in (one.by[who], now)
            ]
            pairs.append(Pair(one.question, one.author, *grades))
        # The first is the card's judge: its scale is what an estimate is wanted on.
        measured = measured or measurement_of(benchmark, role, pairs)
        on_card = [one.metric for one in shipped().columns if one.benchmark == benchmark.name]
        columns = [role, *(name for name in on_card if name != role)]
        # Draws by rule count in the column; nobody was asked about them, so they are no agreement.
        held = agreement(
            [pair for pair, is_judged in zip(pairs, judged, strict=True) if is_judged], role
        )
        against[who] = held | {
            "shifts": {column: shifts for column in columns if (shifts := _shifts(pairs, column))}
        }
    recorded = {"files": verdicts.files, "sha256": verdicts.sha256, "n": sum(judged)}
    made_by = {
        "protocol": shipped().protocol,
        "version": versions().get("model-card-evals"),
        "git_commit": git_commit(),
    }
    return {
        "schema": 1,
        "recorded": recorded,
        "against": against,
        "measurement": {"card": next(iter(against)), "columns": measured},
        "line": _sentence_beside_cell(role, sum(judged), against),
        "made_by": made_by,
    }


def _shifts(pairs: Sequence[Pair], column: str) -> Record:
    """The column's shift over the answers that have it, and by author; empty where none has."""
    pairs = [
        pair for pair in pairs if column in pair.recorded.scores or column in pair.candidate.scores
    ]
    authors = sorted({pair.author for pair in pairs if pair.author})
    by_author = {
        author: shift([pair for pair in pairs if pair.author == author], column)
        for author in authors
    }
    return shift(pairs, column) | {"by_author": by_author} if pairs else {}


def _sentence_beside_cell(role: str, n: int, against: Mapping[str, Record]) -> str:
    """What is said beside a cell: agreement with each who judged these answers, and how the column
    moves from the first, the card's.
    """
    agreed = [
        f"with {who} in {held['agreement']['value']:.1%}, kappa {_range(held['kappa'])}"
        for who, held in against.items()
    ]
    first, shifts = next((who, held["shifts"]) for who, held in against.items())
    moved = [
        f"{column} by {_points(moved)}{_spread_of(moved['by_author'])}"
        for column, moved in shifts.items()
    ]
    said = (
        f"on {n:,} recorded answers this judge agrees {' and '.join(agreed)}; against {first} it"
        f" moves {' and '.join(moved)}"
    )
    return f"{role}: {said} (in brackets 95 % intervals)"


def _spread_of(by_author: Mapping[str, Record]) -> str:
    """The least and the greatest shift of one author's answers: what the mean over authors may
    hide.
    """
    values = [100 * one["value"] for one in by_author.values() if one["value"] is not None]
    return (
        f", one model's answers by {min(values):+.1f} to {max(values):+.1f},"
        if len(values) > 1
        else ""
    )


def _range(estimate: Record, style: str = "z.2f") -> str:
    """A value and its 95 % interval."""
    if estimate["value"] is None:
        return "undefined"
    interval = (
        f" ({estimate['ci95'][0]:{style}} to {estimate['ci95'][1]:{style}})"
        if estimate["ci95"]
        else ""
    )
    return f"{estimate['value']:{style}}{interval}"


def _points(estimate: Record) -> str:
    """A shift in percentage points."""
    # `and` below: None stays None, and 0 is 0 in points, too.
    value, ci95 = estimate["value"], estimate["ci95"]
    return (
        _range(
            {"value": value and 100 * value, "ci95": ci95 and [100 * end for end in ci95]}, "+z.1f"
        )
        + " points"
    )


def describe(record: Record, priced: Priced | None) -> Iterator[str]:
    """A calibration in words, line by line."""
    yield (
        f"{record['role']} judged by {record['judge']}: {record['recorded']['n']:,} recorded"
        " answers; 95 % intervals in brackets"
    )
    for who, held in record["against"].items():
        yield (
            f"against {who}: agreement {_range(held['agreement'], '.1%')}; kappa"
            f" {_range(held['kappa'])}"
        )
        width = max(map(len, [*held["labels"], "recorded"])) + 2
        yield (
            "".join(f"{text:>{width}}" for text in ["recorded", *held["labels"]])
            + "   (columns: this judge)"
        )
        for label, counts in zip(held["labels"], held["table"], strict=True):
            yield "".join(f"{text:>{width}}" for text in [label, *counts])
        unread = held["n_unreadable"]
        yield (
            f"unreadable: {unread['candidate']} of this judge's verdicts, {unread['recorded']} of"
            " the recorded ones"
        )
        for column, moved in held["shifts"].items():
            was, now = (
                f"{moved[name]:.1%}" if moved[name] is not None else "-"
                for name in ("recorded", "candidate")
            )
            yield (
                f"{column}: {was} recorded, {now} by this judge, n {moved['n']:,}, shift"
                f" {_points(moved)}"
            )
            yield from (
                f"  {author}: shift {_points(one)}" for author, one in moved["by_author"].items()
            )
    if record["cost"] is None:
        yield "cost: none, a rule asks no model"
        return
    took = record["time"]
    yield (
        f"cost: {Cost(**record['cost']).text(priced)}; {record['n_too_long']} answers were too long"
        " for it and count as unreadable"
    )
    yield (
        f"time: {took['wall_s']:,.1f} s for {took.get('requests', 0):,.0f} verdicts asked for now,"
        " the rest were in the store"
    )
