"""`evals compare A B C …`: several runs in their order, the steps of a training run.

Each column over the runs, and of each run its difference to the one before and to the best. The
best is the one with the best value, so it looks better than it is: Holm's correction is over every
pair of runs in every column, which holds for whichever of them is the best.

The scatter of a column over the last runs tells what a checkpoint more or less changes, beside the
error of drawing other items (arXiv 2508.13144).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from statistics import stdev
from typing import Any

from evals.cards.card import AVERAGE
from evals.compare.answers import Side, read_answers
from evals.compare.columns import asked, columns_of, task_columns
from evals.compare.paired import PairedDifference, average_difference
from evals.compare.runs import comparability
from evals.compare.words import by_remark, change, p_value, unit
from evals.errors import InputError
from evals.records import Column
from evals.report.run_row import row_from_summary
from evals.report.table import MISSING, compared, escape, points, sense
from evals.stats import holm
from evals.storage.run_folder import RunFolder

LAST = 5
"""How many of the last runs the scatter is of, at most."""

Pair = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Steps:
    """One column over the runs. cells: each run's own.  differences: of the later run less the
    earlier one, by their places.  best: the place of the run with the best value.

    scatter: standard deviation of the values of the last runs, where at least three have one.
    reason: why no two runs could be paired, "" where some could.
    """

    column: Column
    cells: tuple[Mapping[str, Any], ...]
    differences: Mapping[Pair, PairedDifference]
    p_holm: Mapping[Pair, float | None]
    best: int
    scatter: float | None
    reason: str = ""

    def less(self, run: int, other: int) -> tuple[PairedDifference | None, int, float | None]:
        """The difference of two runs, its sign as run less other, and p after Holm's correction."""
        pair = (min(run, other), max(run, other))
        return self.differences.get(pair), 1 if run > other else -1, self.p_holm.get(pair)


@dataclass(frozen=True, slots=True)
class Series:
    """Several runs. names: the rows'.  columns: those with a value in two runs or more, in the
    table's order.  lacking: headings of the others.  notes: what else differs between the runs.
    """

    names: tuple[str, ...]
    columns: tuple[Steps, ...]
    lacking: tuple[str, ...]
    notes: tuple[str, ...]


def series(folders: Sequence[Path], data: Path | None = None, card: str | None = None) -> Series:
    """The runs in the order given. data, card: as in `read_columns`.

    Raises InputError where a folder is no run, a run cannot be compared with the first, or there
    are fewer than two.
    """
    if len(folders) < 2:
        raise InputError("A series takes two runs or more. Give their folders, in their order.")
    runs = [RunFolder(folder) for folder in folders]
    summaries = [run.read_json("summary.json") for run in runs]
    notes: list[str] = []
    for folder, summary in zip(folders[1:], summaries[1:], strict=True):
        found = comparability(summaries[0], summary)
        if found.reason is not None:
            raise InputError(
                f"{folder} cannot be compared with {folders[0]}: {found.reason}. Give runs that"
                " were made alike."
            )
        notes += [f"{folder}: {note}" for note in found.notes]
    about = asked(runs, card)
    cells = about.cells
    pairs: dict[Pair, dict[str, PairedDifference]] = {
        pair: {} for pair in combinations(range(len(runs)), 2)
    }
    for task, variant in about.variants.items():
        columns, benchmark = columns_of(variant, cells), variant.make(chat=True)
        if not columns:
            continue
        # A task at a time: the answers of all runs at once would fill the memory.
        sides = [
            Side(
                run, its, read_answers(run, benchmark, n if run.samples_path(task).exists() else 0)
            )
            for run, its, n in zip(runs, cells, about.draws(task), strict=True)
        ]
        for (a, b), by_key in pairs.items():
            by_key |= {
                k: one
                for k, (one, _) in task_columns(
                    benchmark, columns, sides[a], sides[b], data
                ).items()
            }
    for by_key in pairs.values():
        by_key[AVERAGE.key] = average_difference(by_key, about.shown.average)
    names = tuple(row_from_summary(summary).name for summary in summaries)
    return Series(names, *_columns(pairs, cells), tuple(notes))


def _columns(
    pairs: Mapping[Pair, Mapping[str, PairedDifference]], cells: Sequence[Mapping[str, Any]]
) -> tuple[tuple[Steps, ...], tuple[str, ...]]:
    columns = {key: one.column for by_key in pairs.values() for key, one in by_key.items()}
    # The Average last, wherever a pair had it.
    columns[AVERAGE.key] = columns.pop(AVERAGE.key)
    p_values = {
        f"{key} {pair}": by_key[key].p
        for pair, by_key in pairs.items()
        for key in columns
        if key in by_key and by_key[key].difference is not None
    }
    adjusted = holm(p_values)
    found, lacking = [], []
    for key, column in columns.items():
        steps = steps_of(column, [side.get(key) or {} for side in cells])
        if steps is None:
            lacking.append(column.heading)
            continue
        own = {p: by_key[key] for p, by_key in pairs.items() if f"{key} {p}" in p_values}
        p_holm = {pair: adjusted[f"{key} {pair}"] for pair in own}
        why = "" if own else next(one[key].reason for one in pairs.values() if key in one) or ""
        found.append(replace(steps, differences=own, p_holm=p_holm, reason=why))
    return tuple(found), tuple(lacking)


def steps_of(column: Column, cells: Sequence[Mapping[str, Any]]) -> Steps | None:
    """A column over runs with these cells, without differences; None where fewer than two have a
    value.
    """
    valued = {at: cell["value"] for at, cell in enumerate(cells) if cell.get("value") is not None}
    if len(valued) < 2:
        return None
    sign = -1 if column.lower_is_better else 1
    # Of equal ones the first.
    best = max(valued, key=lambda at: (sign * valued[at], -at))
    last = list(valued.values())[-LAST:]
    return Steps(column, tuple(cells), {}, {}, best, stdev(last) if len(last) > 2 else None)


# --- as text --------------------------------------------------------------------------------------

HEADS = (
    "Column", "Run", "Value [95 %]", "to the one before [95 %]", "p (Holm)", "to the best [95 %]",
    "p (Holm)",
)  # fmt: skip


def markdown(found: Series) -> str:
    """The runs as Markdown, differences in points; ends in a newline."""
    lines = [
        f"{len(found.names)} runs in their order: "
        + ", ".join(f"**{escape(name)}**" for name in found.names)
    ]
    shown = [row for steps in found.columns for row in rows(steps, found.names)]
    named = ((escape(head), escape(name), *row) for head, name, *row in shown)
    table = (HEADS, ("---", "---", *["---:"] * 5), *named)
    lines += ["", *(f"| {' | '.join(row)} |" for row in table)]
    said = [*filter(None, map(scatter, found.columns)), *notes(found)]
    lines += ["", *(f"- {escape(note)}" for note in said)] if said else []
    return "\n".join(lines) + "\n"


def notes(found: Series) -> list[str]:
    """What else is to be known of the runs, but for their scatter."""
    lacking = [f"not in two runs: {', '.join(found.lacking)}"] if found.lacking else []
    apart = by_remark((one.reason, one.column) for one in found.columns if one.reason)
    return [*found.notes, *(f"without differences: {line}" for line in apart), *lacking]


def rows(steps: Steps, names: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """A line a run under HEADS, as plain text."""
    lower = sense(steps.column)
    for at, cell in enumerate(steps.cells):
        head = steps.column.heading + lower if at == 0 else ""
        name = names[at] + (" (best)" if at == steps.best else "")
        before = _less(steps, at, at - 1) if at else (MISSING, MISSING)
        best = _less(steps, at, steps.best) if at != steps.best else (MISSING, MISSING)
        yield head, name, value(cell, steps.column), *before, *best


def ends(cell: Mapping[str, Any]) -> tuple[float, float, float] | None:
    """A run's number and its interval's ends, itself where it has none; None without a value."""
    found = cell.get("value")
    return None if found is None else (found, *(cell.get("ci95") or (found, found)))


def value(cell: Mapping[str, Any], column: Column) -> str:
    """A run's own number with its interval, in the column's unit."""
    if (found := ends(cell)) is None:
        return MISSING
    own, low, high = (compared(one, column) for one in found)
    return f"{own} [{low}, {high}]" if cell.get("ci95") else own


def _less(steps: Steps, run: int, other: int) -> tuple[str, str]:
    one, sign, p = steps.less(run, other)
    return change(one, sign), p_value(p)


def scatter(steps: Steps) -> str | None:
    """The scatter of the last runs beside the sampling error, where both are known."""
    valued = [cell for cell in steps.cells if cell.get("value") is not None]
    error = valued[-1].get("stderr")
    if steps.scatter is None or error is None:
        return None
    return (
        f"{steps.column.heading}: the last {min(LAST, len(valued))} runs scatter by"
        f" {points(steps.scatter, steps.column, '')}{unit(steps.column)} (one standard deviation);"
        f" the sampling error of drawing other items is {points(error, steps.column, '')}"
    )
