"""What the card's judge would have said of a run's answers: from a calibration's recorded pairs and
the labels that people gave, through evals.fidelity.measurement.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evals.benchmark import Benchmark, roles_of
from evals.cards.published import shipped
from evals.fidelity import measurement
from evals.fidelity.agreement import Pair
from evals.fidelity.labels import labels_of
from evals.fidelity.measurement import Confusion, Estimate, Preferences
from evals.plan.judges import Judge, calibration_of, judge_of_record
from evals.records import Column, Grade
from evals.registry import BENCHMARKS, benchmark_class
from evals.storage.run_folder import RunFolder

WIDEST = 0.6
"""In an interval wider than this, on a scale of 0 to 1, no value is named."""
WIN_RATE = "{role} win rate"
"""A length-controlled column is a fit over preferences; what is estimated is their mean."""


def measurement_of(benchmark: Benchmark[Any], role: str, pairs: Sequence[Pair]) -> dict[str, Any]:
    """What an estimate needs of recorded pairs, by column and by the model that wrote the answers:
    counts of Confusion for verdicts of yes and no, Moments for preferences.
    """
    found: dict[str, Any] = {}
    authors = sorted({pair.author for pair in pairs if pair.author})
    for author in authors:
        own = [pair for pair in pairs if pair.author == author]
        if any("n_chars" in pair.recorded.details for pair in own):
            both = [pair for pair in own if _is_judged(pair, role)]
            lengths = [_length(pair.recorded.details, role) for pair in both]
            standin, card = (
                [getattr(pair, who).scores[role] for pair in both]
                for who in ("candidate", "recorded")
            )
            kept = measurement.moments(Preferences(standin, lengths, card))
            found.setdefault(role, {})[author] = kept
            continue
        for metric in (one.metric for one in shipped().columns if one.benchmark == benchmark.name):
            both = [pair for pair in own if _is_judged(pair, metric)]
            counts = {(y, f): 0 for y in (1, 0) for f in (1, 0)}
            for pair in both:
                counts[_yes(pair.recorded, metric), _yes(pair.candidate, metric)] += 1
            if both:
                found.setdefault(metric, {})[author] = [
                    counts[1, 1], counts[1, 0], counts[0, 1], counts[0, 0]
                ]  # fmt: skip
    return found


def _is_judged(pair: Pair, key: str) -> bool:
    return key in pair.recorded.scores and key in pair.candidate.scores


def _yes(grade: Grade, key: str) -> int:
    return int(grade.scores[key] > 0.5)


def _length(details: Mapping[str, Any], role: str) -> float:
    """The logarithm of the answer's length over the reference's."""
    return math.log((details["n_chars"] + 1) / (details["n_chars_reference"][role] + 1))


# --- estimates of a run ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ColumnEstimate:
    """What the report prints beside a column. heading: of its own column.  prior: without labels.
    of: whose scale it is on.
    """

    heading: str
    estimate: Estimate
    prior: Estimate
    of: str

    @property
    def printed(self) -> tuple[float | None, float, float] | None:
        """Value and interval; no estimate is printed without, and no value in one that is too wide
        for any.
        """
        value, ci95 = self.estimate.value, self.estimate.ci95
        if ci95 is None:
            return None
        return (None if self._is_wide else value, *ci95)

    @property
    def _is_wide(self) -> bool:
        return (self.estimate.width or 0.0) > WIDEST

    @property
    def reason(self) -> str:
        """Why there is no estimate."""
        return self.estimate.reason or "no estimate"

    def mark(self) -> str:
        """What must be known of it."""
        own = f"an estimate of what {self.of} would have said of these answers, 95 % interval"
        if self.estimate.n_labels:
            without = (
                f"{_points(self.prior.width)} wide"
                if self.prior.width is not None
                else f"not to be had ({self.prior.reason})"
            )
            return (
                f"{own}; from {self.estimate.n_labels} labels that people gave:"
                f" {_points(self.estimate.width)} wide; without them {without}"
            )
        wide = ", whose errors differ too much to name a value" if self._is_wide else ""
        return f"{own}; from recorded verdicts on {self.estimate.n_models} models{wide}"


def _points(width: float | None) -> str:
    return f"{100 * (width or 0):.1f} points"


def estimates(folder: Path) -> Iterator[ColumnEstimate]:
    """One for each judged column of a run that a stand-in decided. Raises InputError where the
    folder is no run.
    """
    run = RunFolder(folder)
    summary = run.read_json("summary.json")
    for name in (name for name in summary["metrics"] if name in BENCHMARKS):
        cls = benchmark_class(name)
        benchmark = cls(chat=True)
        own = [one for one in shipped().columns if one.benchmark == name]
        for column in (one for one in own if one.key in summary["cells"]):
            roles = roles_of(cls, column.metric)
            entries = {r: summary["judges"][r] for r in roles if r in summary["judges"]}
            if len(roles) != 1 or not entries or entries[roles[0]]["card"]:
                continue
            judge = judge_of_record(roles[0], entries[roles[0]])
            yield _column(run, benchmark, column, judge, summary)


def _column(
    run: RunFolder, benchmark: Benchmark[Any], column: Column, judge: Judge, summary: Any
) -> ColumnEstimate:
    if "draws" in summary["cells"][column.key]:
        why = "of the mean of several draws there is none: ask it without --repeats"
        nothing = Estimate(None, reason=why)
        return ColumnEstimate(f"{column.heading} (estimate)", nothing, nothing, "")
    rows = [row for row in run.samples(benchmark.name) if _score(benchmark, row, column)]
    is_preference = any("n_chars" in row for row in rows)
    prior, of = _prior(benchmark, judge, column, rows, summary)
    labels = labels_of(run, judge.role)
    estimate = prior
    if labels is not None:
        own = {row["id"]: _score(benchmark, row, column)[0] for row in rows}
        gold = [(own[i], y) for i, (key, y) in labels.items() if i in own and key == column.key]
        estimate = measurement.with_labels(list(own.values()), gold, prior)
        of = "the people who labelled a sample"
    heading = WIN_RATE.format(role=judge.role) if is_preference else column.heading
    return ColumnEstimate(f"{heading} (estimate)", estimate, prior, of)


def _score(benchmark: Benchmark[Any], row: Mapping[str, Any], column: Column) -> list[float]:
    """The row's score in a column, alone in a list; none where it has none there."""
    found = benchmark.row_scores(row).get(column.metric)
    return [] if found is None else [float(found)]


def _prior(
    benchmark: Benchmark[Any],
    judge: Judge,
    column: Column,
    rows: Sequence[Mapping[str, Any]],
    summary: Any,
) -> tuple[Estimate, str]:
    """From the calibration alone, and whose scale it is on."""
    of = "the card's judge"
    try:
        kept = calibration_of(judge, None)
    except (OSError, ValueError, LookupError, TypeError) as error:
        return Estimate(None, reason=f"its calibration cannot be read ({error})"), of
    command = f"evals judge calibrate --judge {judge.role}=MODEL"
    if kept is None:
        return Estimate(None, reason=f"this stand-in was never calibrated: {command}"), of
    if "measurement" not in kept:
        why = f"its calibration is of an older version, without pairs by model: {command}"
        return Estimate(None, reason=why), of
    if kept["line"] not in summary["judges"][judge.role]["notes"]:
        why = (
            "the run knows nothing of the stand-in's calibration: the command of the run takes it"
            " in, and asks nothing again"
        )
        return Estimate(None, reason=why), of
    of = kept["measurement"]["card"]
    columns = kept["measurement"]["columns"]
    if column.key in columns:
        recorded = [Confusion(*counts) for counts in columns[column.key].values()]
        n_yes = sum(_score(benchmark, row, column)[0] > 0.5 for row in rows)
        return measurement.yes_no(n_yes, len(rows), recorded), of
    if judge.role in columns:
        standin = [_score(benchmark, row, column)[0] for row in rows]
        lengths = [_length(row, judge.role) for row in rows]
        own = Preferences(standin, lengths)
        return measurement.preference(own, list(columns[judge.role].values())), of
    return Estimate(None, reason="the recorded answers do not say which model wrote them"), of
