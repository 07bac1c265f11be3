"""The columns of two run folders, paired item by item; what cannot be paired says why."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, variance
from typing import Any

from evals.benchmark import Benchmark, roles_of
from evals.cards.card import AVERAGE, Card
from evals.cards.published import card_of_run
from evals.compare.answers import Answers, Side, read_answers
from evals.compare.finer import NOT_KEPT, finer_differences
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
from evals.records import Column, Grade
from evals.registry import Variant, card_to_ask, n_draws, off_card, variants
from evals.report.run_row import cells_under
from evals.storage.run_folder import RunFolder

Sides = tuple[Mapping[str, Any], Mapping[str, Any]]
JUDGED_BY = "judged by"
"""How the reason begins why a column that other judges decided is not compared."""


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


@dataclass(frozen=True, slots=True)
class Columns:
    """Two runs' columns. differences: by key, in the table's order, the Average last.  pairs: the
    items behind those that could be paired.  finer: by key, as in `finer_differences`.
    """

    about: Asked
    differences: Mapping[str, PairedDifference]
    pairs: Mapping[str, Pairs]
    finer: Mapping[str, PairedDifference]

    @property
    def shown(self) -> dict[str, PairedDifference]:
        """The finer measures, less those that no answer could have (a judge that says words)."""
        return {key: one for key, one in self.finer.items() if one.reason != NOT_KEPT}

    @property
    def covariance(self) -> Mapping[tuple[str, str], float]:
        """As `pooled.covariances` gives it."""
        return covariances(
            {key: one for key, one in self.pairs.items() if not self.differences[key].reason}
        )


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


def read_columns(
    baseline: Path, candidate: Path, data: Path | None = None, card: str | None = None
) -> Columns:
    """Every column of two runs, the Average last; one that cannot be paired has a `reason`.

    data: folder of the public data files, for what samples do not hold: right answers, and what
    length control takes.  card: whose columns, as --card names it; None: the baseline's own.
    Raises InputError where a folder is no run.
    """
    runs = RunFolder(baseline), RunFolder(candidate)
    about = asked(runs, card)
    found: dict[str, PairedDifference] = {}
    items: dict[str, Pairs] = {}
    finer: dict[str, PairedDifference] = {}
    for variant in about.variants.values():
        benchmark = variant.make(chat=True)
        columns = columns_of(variant, about.cells)
        # Samples are large: they are read only where a column needs them.
        can = any(_why_not(key, about.cells) is None for key in columns)
        one, other = (
            Side(run, its, read_answers(run, benchmark, draws) if can else {})
            for run, its, draws in zip(runs, about.cells, about.draws(variant.name), strict=True)
        )
        own = task_columns(benchmark, columns, one, other, data)
        found |= {key: difference for key, (difference, _) in own.items()}
        items |= {key: pairs for key, (_, pairs) in own.items() if pairs is not None}
        finer |= finer_differences(
            benchmark, [difference for difference, pairs in own.values() if pairs], one, other, data
        )
    found[AVERAGE.key] = average_difference(found, about.shown.average)
    return Columns(about, found, items, finer)


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
    sides = baseline, candidate
    found: dict[str, tuple[PairedDifference, Pairs | None]] = {}
    for key, column in columns.items():
        if why := _why_not(key, [side.cells for side in sides]) or _why_unlike(
            benchmark, column, sides
        ):
            found[key] = PairedDifference(column, 0, reason=why), None
            continue
        cells = baseline.cells[key], candidate.cells[key]
        # A summary says how a mean was made by its estimator's name alone.
        macro = str(cells[0]["estimator"]).startswith("macro")
        pairs = pairs_of(column, baseline.answers, candidate.answers, macro=macro)
        if str(cells[0]["estimator"]).startswith("bootstrap"):
            values = cells[0]["value"], cells[1]["value"]
            draws = [_replicates(benchmark.name, column, side, data) for side in sides]
            found[key] = bootstrapped_difference(pairs, values, draws, _noise(cells)), pairs
        else:
            found[key] = _agreeing(paired_difference(pairs), cells), pairs
    return found


def pairs_of(column: Column, baseline: Answers, candidate: Answers, *, macro: bool) -> Pairs:
    """The items of a column that both runs scored; their groups are the strata."""
    before, after = (
        {i: v for i, answer in side.items() if (v := answer.scores.get(column.key)) is not None}
        for side in (baseline, candidate)
    )
    both = [(i, baseline[i], candidate[i]) for i in before if i in after]
    noise = [
        math.fsum(one.noise.get(column.key, 0.0) for one in (a, b)) if a.noise or b.noise else None
        for _, a, b in both
    ]
    return Pairs(
        column,
        tuple(i for i, _, _ in both),
        tuple(before[i] for i, _, _ in both),
        tuple(after[i] for i, _, _ in both),
        tuple(one.group for _, one, _ in both),
        macro,
        sum(a.says_the_same(b) for _, a, b in both),
        tuple(one for one in noise if one is not None),
    )


def _why_not(key: str, cells: Sequence[Mapping[str, Any]]) -> str | None:
    for side, which in zip(cells, ("baseline", "candidate"), strict=True):
        if side.get(key, {}).get("value") is None:
            return f"{which}: {side[key].get('reason') or 'no value' if key in side else 'not run'}"
    return None


def _why_unlike(benchmark: Benchmark[Any], column: Column, sides: tuple[Side, Side]) -> str | None:
    """Why samples cannot be held against each other: they lack items that their cell counts, or
    other judges decided them.
    """
    cells = [side.cells[column.key] for side in sides]
    if not any(column.key in answer.scores for one in sides for answer in one.answers.values()):
        return "it is no mean of its items' own scores, so its items cannot be paired"
    for side, cell in zip(sides, cells, strict=True):
        n = sum(answer.scores.get(column.key) is not None for answer in side.answers.values())
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
                for answer in side.answers.values()
                for row in answer.rows
                for role in roles
                if (found := row.get("findings", {}).get(role))
            }
        )
        for side in sides
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


def _replicates(task: str, column: Column, side: Side, data: Path | None) -> Sequence[float]:
    """The bootstrap's, of the mean over all draws: an item is drawn with all its answers, so their
    spread holds that of the items and that of the answers. None where the data is not here.
    """
    from evals.runs.rescore import run_items

    try:
        benchmark, _ = run_items(side.run.read_json("run.json"), task, data)
    except InputError:
        return ()
    draws = zip(*(answer.rows for answer in side.answers.values()), strict=True)
    own = [benchmark.replicates(list(map(_grade, rows))).get(column.metric, ()) for rows in draws]
    return list(map(fmean, zip(*own, strict=True)))


def _grade(row: Mapping[str, Any]) -> Grade:
    """What a row can stand for: it holds its grade's details beside its scores."""
    scores = {k: v for k, v in row.get("scores", {}).items() if v is not None}
    return Grade(row["id"], "", scores, row.get("extracted"), details=row)


def _noise(cells: Sides) -> float | None:
    """Of a difference's variance the part for the answers drawn, from how the draws' own values
    spread; None where neither run drew more than one.
    """
    values = [cell["draws"]["values"] for cell in cells if "draws" in cell]
    return math.fsum(variance(own) / len(own) for own in values) if values else None
