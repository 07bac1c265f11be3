"""The columns of two run folders, paired item by item; what cannot be paired says why."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evals.benchmark import Benchmark, roles_of
from evals.cards.card import AVERAGE
from evals.cards.published import card_named, card_of_run
from evals.compare.paired import (
    PairedDifference,
    Pairs,
    average_difference,
    bootstrapped_difference,
    paired_difference,
)
from evals.errors import InputError
from evals.generators.replay import RECORDED
from evals.models.resolve import public_name
from evals.records import Column, Grade, ItemId
from evals.registry import bound, off_card, variants
from evals.report.table import cells_under
from evals.storage.run_folder import RunFolder

JUDGED_BY = "judged by"
"""How the reason begins why a column that other judges decided is not compared."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One row of samples. scores: by column key, None where a verdict could not be read."""

    row: Mapping[str, Any]
    scores: Mapping[str, float | None]

    def says_the_same(self, other: "Answer") -> bool:
        """Whether both answers are equal: the texts, or the choice; its log-probabilities differ in
        the last digits between processors.
        """
        return bool(
            (self.row.get("outputs") or self.row.get("extracted"))
            == (other.row.get("outputs") or other.row.get("extracted"))
        )


Answers = Mapping[ItemId, Answer]
Sides = tuple[Mapping[str, Any], Mapping[str, Any]]


def paired_columns(
    baseline: Path, candidate: Path, data: Path | None = None, card: str | None = None
) -> dict[str, PairedDifference]:
    """Every column of two runs by key, in the table's order, the Average last; a column that cannot
    be paired has a `reason`.

    data: folder of the public data files, for what samples do not hold (length control).  card:
    whose columns, as --card names it; None: the baseline's own.  Raises InputError where a folder
    is no run.
    """
    runs = RunFolder(baseline), RunFolder(candidate)
    summaries = tuple(run.read_json("summary.json") for run in runs)
    shown = bound(card_named(card)) if card else card_of_run(summaries[0])
    cells = tuple(cells_under(shown, summary) for summary in summaries)
    found: dict[str, PairedDifference] = {}
    more = [name for name in off_card(summaries[0]) if name in off_card(summaries[1])]
    for name, variant in variants(shown, more).items():
        benchmark = variant.make(chat=True)
        columns = [one for one in variant.columns if any(one.key in side for side in cells)]
        lacking = {column.key: why for column in columns if (why := _why_not(column.key, cells))}
        # Samples are large: they are read only where a column needs them.
        answers = (
            [read_answers(run, benchmark) for run in runs] if len(lacking) < len(columns) else []
        )
        for column in columns:
            if column.key in lacking:
                found[column.key] = PairedDifference(column, 0, reason=lacking[column.key])
                continue
            sides = (cells[0][column.key], cells[1][column.key])
            if why := _why_unlike(benchmark, column, answers, sides):
                found[column.key] = PairedDifference(column, 0, reason=why)
                continue
            # A summary says how a mean was made by its estimator's name alone.
            pairs = pairs_of(
                column, answers[0], answers[1], macro=str(sides[0]["estimator"]).startswith("macro")
            )
            if sides[0]["estimator"] == "bootstrap":
                values = (sides[0]["value"], sides[1]["value"])
                found[column.key] = bootstrapped_difference(
                    pairs, values, [_replicates(run, name, column, data) for run in runs]
                )
            else:
                found[column.key] = _agreeing(paired_difference(pairs), sides)
    return found | {AVERAGE.key: average_difference(found, shown.average)}


def read_answers(run: RunFolder, benchmark: Benchmark[Any]) -> dict[ItemId, Answer]:
    """A task's items in their order. Raises InputError naming a file whose rows lack
    id or score.
    """
    found = {}
    for row in run.samples(benchmark.name):
        try:
            found[ItemId(row["id"])] = Answer(row, benchmark.column_scores(row))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            path = run.samples_path(benchmark.name)
            raise InputError(
                f"{path}: a row lacks its id or score ({error!r}). Make it again with: evals score"
                f" {run.path}"
            ) from error
    return found


def pairs_of(column: Column, baseline: Answers, candidate: Answers, *, macro: bool) -> Pairs:
    """The items of a column that both runs scored; the stratum is what stands between an id's task
    and its number.
    """
    before = {
        i: score
        for i, answer in baseline.items()
        if (score := answer.scores.get(column.key)) is not None
    }
    after = {
        i: score
        for i, answer in candidate.items()
        if (score := answer.scores.get(column.key)) is not None
    }
    ids = tuple(i for i in before if i in after)
    n_same = sum(baseline[i].says_the_same(candidate[i]) for i in ids)
    strata = tuple(i.partition("/")[2].rpartition("/")[0] for i in ids)
    return Pairs(
        column,
        ids,
        tuple(before[i] for i in ids),
        tuple(after[i] for i in ids),
        strata,
        macro,
        n_same,
    )


def _why_not(key: str, cells: Sequence[Mapping[str, Any]]) -> str | None:
    for side, which in zip(cells, ("baseline", "candidate"), strict=True):
        if side.get(key, {}).get("value") is None:
            return f"{which}: {side[key].get('reason') or 'no value' if key in side else 'not run'}"
    return None


def _why_unlike(
    benchmark: Benchmark[Any], column: Column, answers: Sequence[Answers], cells: Sides
) -> str | None:
    """Why samples cannot be held against each other: they lack items that their cell counts, or
    other judges decided them.
    """
    if not any(column.key in answer.scores for side in answers for answer in side.values()):
        return "it is no mean of its items' own scores, so its items cannot be paired"
    for side, cell in zip(answers, cells, strict=True):
        n = sum(answer.scores.get(column.key) is not None for answer in side.values())
        if n != cell["n"]:
            return (
                f"samples have {n:,} scored items where summary.json has {cell['n']:,}; make them"
                " again with evals score"
            )
    roles = roles_of(benchmark, column.metric)
    judges = [
        sorted(
            {
                _judge_name(found["by"])
                for answer in side.values()
                for role in roles
                if (found := answer.row.get("findings", {}).get(role))
            }
        )
        for side in answers
    ]
    # A recording may not say who judged; nothing is then known to differ.
    if judges[0] == judges[1] or not all(judges):
        return None
    return (
        f"{JUDGED_BY} {' and '.join(judges[0])} in the baseline, by {' and '.join(judges[1])} in"
        " the candidate"
    )


def _judge_name(by: str) -> str:
    return "an unknown judge" if by == RECORDED else public_name(by)


def _agreeing(found: PairedDifference, cells: Sides) -> PairedDifference:
    """The difference, unless cells over the same items have other values: the run's files are then
    not of one scoring.
    """
    for value, cell in zip((found.baseline, found.candidate), cells, strict=True):
        # Far more than sums in another order differ by, far less than one item moves a cell.
        if value is not None and cell["n"] == found.n and abs(value - cell["value"]) > 1e-6:
            why = (
                f"samples give {value:.6f} where summary.json has {cell['value']:.6f}; make them"
                " again with evals score"
            )
            return PairedDifference(found.column, 0, reason=why)
    return found


def _replicates(run: RunFolder, task: str, column: Column, data: Path | None) -> Sequence[float]:
    from evals.runs.rescore import run_items

    try:
        benchmark, _ = run_items(run.read_json("run.json"), task, data)
    # `bootstrapped_difference` then says that the data is not here.
    except InputError:
        return ()
    rows = list(run.samples(task))
    # A row holds its grade's details beside its scores, so it can stand for them.
    grades = [
        Grade(
            row["id"],
            "",
            {k: v for k, v in row.get("scores", {}).items() if v is not None},
            row.get("extracted"),
            details=row,
        )
        for row in rows
    ]
    return benchmark.replicates(grades).get(column.metric, ())
