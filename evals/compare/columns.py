"""The columns of two run folders, paired item by item; what cannot be paired says why."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, variance
from typing import Any

from evals.benchmark import Benchmark, roles_of
from evals.cards.card import AVERAGE, Average, Card
from evals.cards.published import card_of_run
from evals.compare.paired import (
    PairedDifference,
    Pairs,
    average_difference,
    bootstrapped_difference,
    paired_difference,
)
from evals.compare.pooled import covariances
from evals.errors import InputError
from evals.generators.replay import RECORDED
from evals.models.resolve import public_name
from evals.records import Column, Grade, ItemId
from evals.registry import Variant, card_to_ask, draw_name, n_draws, off_card, variants
from evals.report.run_row import cells_under
from evals.storage.run_folder import RunFolder

JUDGED_BY = "judged by"
"""How the reason begins why a column that other judges decided is not compared."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An item's rows of samples, one a draw. scores: their means by column key, None where a
    verdict could not be read.  noise: by column key, the variance of such a mean for the answers
    drawn; empty where there is one.
    """

    rows: tuple[Mapping[str, Any], ...]
    scores: Mapping[str, float | None]
    noise: Mapping[str, float] = field(default_factory=dict)

    @property
    def row(self) -> Mapping[str, Any]:
        """The first draw's."""
        return self.rows[0]

    def says_the_same(self, other: "Answer") -> bool:
        """Whether both answers are equal: the texts, or the choice; its log-probabilities differ in
        the last digits between processors.
        """
        said = [[r.get("outputs") or r.get("extracted") for r in one.rows] for one in (self, other)]
        return said[0] == said[1]


Answers = Mapping[ItemId, Answer]
Sides = tuple[Mapping[str, Any], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Columns:
    """Two runs' columns. differences: by key, in the table's order, the Average last.  pairs: the
    items behind those that could be paired.  rule: the Average's.
    """

    differences: Mapping[str, PairedDifference]
    pairs: Mapping[str, Pairs]
    rule: Average

    @property
    def covariance(self) -> Mapping[tuple[str, str], float]:
        """As `pooled.covariances` gives it."""
        return covariances(
            {key: one for key, one in self.pairs.items() if not self.differences[key].reason}
        )


@dataclass(frozen=True, slots=True)
class Asked:
    """What runs are held against each other in. shown: the card.  variants: by task.  cells: each
    run's, under the card's keys.  asked: the tasks that each has results of.
    """

    shown: Card
    variants: Mapping[str, Variant]
    cells: tuple[Mapping[str, Any], ...]
    asked: tuple[frozenset[str], ...] = ()

    def draws(self, task: str) -> list[int]:
        """How many draws of a task each run has."""
        return [n_draws(tasks, task) for tasks in self.asked]


def asked(runs: Sequence[RunFolder], card: str | None = None) -> Asked:
    """card: as --card names it; None: the first run's own. Raises InputError where a folder is no
    run.
    """
    summaries = [run.read_json("summary.json") for run in runs]
    shown = card_to_ask(card) if card else card_of_run(summaries[0])
    besides = [off_card(summary) for summary in summaries]
    more = [name for name in besides[0] if all(name in names for names in besides)]
    cells = tuple(cells_under(shown, summary) for summary in summaries)
    tasks = tuple(frozenset(summary["tasks"]) for summary in summaries)
    return Asked(shown, variants(shown, more), cells, tasks)


def paired_columns(
    baseline: Path, candidate: Path, data: Path | None = None, card: str | None = None
) -> dict[str, PairedDifference]:
    """The differences of `read_columns`."""
    return dict(read_columns(baseline, candidate, data, card).differences)


def read_columns(
    baseline: Path, candidate: Path, data: Path | None = None, card: str | None = None
) -> Columns:
    """Every column of two runs, the Average last; one that cannot be paired has a `reason`.

    data: folder of the public data files, for what samples do not hold (length control).  card:
    whose columns, as --card names it; None: the baseline's own.  Raises InputError where a folder
    is no run.
    """
    runs = RunFolder(baseline), RunFolder(candidate)
    about = asked(runs, card)
    found: dict[str, PairedDifference] = {}
    items: dict[str, Pairs] = {}
    for variant in about.variants.values():
        benchmark = variant.make(chat=True)
        columns = columns_of(variant, about.cells)
        # Samples are large: they are read only where a column needs them.
        can = any(_why_not(key, about.cells) is None for key in columns)
        sides = [
            Side(run, its, read_answers(run, benchmark, draws) if can else {})
            for run, its, draws in zip(runs, about.cells, about.draws(variant.name), strict=True)
        ]
        for key, (one, pairs) in task_columns(benchmark, columns, sides[0], sides[1], data).items():
            found[key] = one
            if pairs is not None:
                items[key] = pairs
    rule = about.shown.average
    return Columns(found | {AVERAGE.key: average_difference(found, rule)}, items, rule)


@dataclass(frozen=True, slots=True)
class Side:
    """One run's part in a comparison: its folder, its cells, and a task's answers."""

    run: RunFolder
    cells: Mapping[str, Any]
    answers: Answers


def columns_of(variant: Variant, cells: Sequence[Mapping[str, Any]]) -> dict[str, Column]:
    """The task's columns, by key, of which a run has a cell."""
    return {one.key: one for one in variant.columns if any(one.key in side for side in cells)}


def task_columns(
    benchmark: Benchmark[Any],
    columns: Mapping[str, Column],
    baseline: Side,
    candidate: Side,
    data: Path | None = None,
) -> dict[str, tuple[PairedDifference, Pairs | None]]:
    """A task's columns by key: the difference, and the items behind it where they were paired."""
    cells, answers = (baseline.cells, candidate.cells), (baseline.answers, candidate.answers)
    found: dict[str, tuple[PairedDifference, Pairs | None]] = {}
    for key, column in columns.items():
        why = _why_not(key, cells)
        why = why or _why_unlike(benchmark, column, answers, (cells[0][key], cells[1][key]))
        if why:
            found[key] = PairedDifference(column, 0, reason=why), None
            continue
        sides = (cells[0][key], cells[1][key])
        # A summary says how a mean was made by its estimator's name alone.
        macro = str(sides[0]["estimator"]).startswith("macro")
        pairs = pairs_of(column, *answers, macro=macro)
        if str(sides[0]["estimator"]).startswith("bootstrap"):
            values = (sides[0]["value"], sides[1]["value"])
            draws = [
                _replicates(side.run, benchmark.name, column, data)
                for side in (baseline, candidate)
            ]
            found[key] = bootstrapped_difference(pairs, values, draws), pairs
        else:
            found[key] = _agreeing(paired_difference(pairs), sides), pairs
    return found


def read_answers(run: RunFolder, benchmark: Benchmark[Any], draws: int = 1) -> dict[ItemId, Answer]:
    """A task's items in their order, under the ids of the first draw; none of no draws.

    Raises InputError naming a file whose rows lack id or score, or that lacks an item.
    """
    read = [_read(run, benchmark, draw_name(benchmark.name, 1 + at)) for at in range(draws)]
    if not read:
        return {}
    first, *others = read
    for at, other in enumerate(others):
        if first.keys() != other.keys():
            path = run.samples_path(draw_name(benchmark.name, 2 + at))
            raise InputError(
                f"{path} has other items than the first draw. Make it again with: evals score"
                f" {run.path}"
            )
    return {key: _together([one[key] for one in read]) for key in first} if others else first


def _read(run: RunFolder, benchmark: Benchmark[Any], task: str) -> dict[ItemId, Answer]:
    """One draw's answers, by the ids of the first."""
    found = {}
    for row in run.samples(task):
        try:
            own = str(row["id"]).removeprefix(f"{task}/")
            key = ItemId(row["id"] if own == row["id"] else f"{benchmark.name}/{own}")
            found[key] = Answer((row,), benchmark.column_scores(row))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            path = run.samples_path(task)
            raise InputError(
                f"{path}: a row lacks its id or score ({error!r}). Make it again with: evals score"
                f" {run.path}"
            ) from error
    return found


def _together(draws: Sequence[Answer]) -> Answer:
    """All answers to one item. One whose verdict could not be read leaves the column without."""
    scores: dict[str, float | None] = {}
    noise = {}
    for key in draws[0].scores:
        own = [score for one in draws if (score := one.scores.get(key)) is not None]
        scores[key] = fmean(own) if len(own) == len(draws) else None
        noise[key] = variance(own) / len(own) if len(own) == len(draws) else 0.0
    return Answer(tuple(row for one in draws for row in one.rows), scores, noise)


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
    sides = (baseline, candidate)
    noise = tuple(math.fsum(side[i].noise.get(column.key, 0.0) for side in sides) for i in ids)
    return Pairs(
        column,
        ids,
        tuple(before[i] for i in ids),
        tuple(after[i] for i in ids),
        strata,
        macro,
        n_same,
        noise if any(side[i].noise for side in sides for i in ids[:1]) else (),
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
                for row in answer.rows
                for role in roles
                if (found := row.get("findings", {}).get(role))
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
