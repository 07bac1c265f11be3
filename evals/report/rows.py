"""From what a user names to the table that is printed: run folders, lm-evaluation-harness' result
files, published rows.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from evals.cards.card import Card, PublishedRow
from evals.cards.published import card_of_run, row_of_short_name, shipped, shipped_rows
from evals.errors import InputError, nearest
from evals.registry import card_to_ask
from evals.report.formats import by_size, with_best
from evals.report.lm_eval_results import read_row
from evals.report.run_row import row_from_summary
from evals.report.table import (
    LIMITED,
    Table,
    TableCell,
    TableRow,
    delta_table,
    make_table,
    percent,
    rows_from_published,
)
from evals.runs.rescore import so_far
from evals.storage.run_folder import RunFolder


@dataclass(frozen=True, slots=True)
class Layout:
    """How to print. delta_to: "published", or the short name of the published row to subtract from
    every row.  card: whose columns and published rows, as --card names it; None: the runs' own.
    """

    with_ci: bool = False
    bold: bool = False
    by_size: bool = False
    delta_to: str | None = None
    card: str | None = None


def report_table(
    runs: Sequence[Path], published: bool, layout: Layout, data: Path | None = None
) -> Table:
    """The table of these runs, after the published rows where asked for; a file among `runs` is one
    of lm-evaluation-harness. A run that is not finished stands apart, with what there is so far.

    data: folder of the public data files, by which unfinished runs are graded.
    Raises InputError for what is no run, and where no published row is of a run's model.
    """
    named = card_to_ask(layout.card) if layout.card else None
    if layout.delta_to is not None:
        return _dressed(_differences(runs, layout, named, data), layout)
    own = [_row(path, data, named) for path in runs]
    cards = [named] if named else [row.card for row in own if row.card] or [shipped()]
    printed = rows_from_published(cards[0]) if published else ()
    rows = [*printed, *own]
    return _dressed(make_table(by_size(rows) if layout.by_size else rows), layout)


def _dressed(table: Table, layout: Layout) -> Table:
    table = replace(table, with_ci=layout.with_ci)
    return with_best(table) if layout.bold else table


def _row(path: Path, data: Path | None, card: Card | None = None) -> TableRow:
    if os.path.isfile(path):
        return read_row(path)
    if _is_unfinished(path):
        row = row_from_summary(so_far(path, data), card=card)
        return replace(row, name=f"{row.name} (unfinished)", group=LIMITED)
    return row_from_summary(RunFolder(path).read_json("summary.json"), card=card)


def _is_unfinished(path: Path) -> bool:
    return os.path.exists(path / "run.json") and not os.path.exists(path / "summary.json")


def _head(path: Path) -> Mapping[str, Any]:
    """What a run is, without its numbers."""
    if _is_unfinished(path):
        head: Mapping[str, Any] = RunFolder(path).read_json("run.json")["summary_header"]
        return head
    return RunFolder(path).read_json("summary.json")


def _differences(
    runs: Sequence[Path], layout: Layout, card: Card | None, data: Path | None
) -> Table:
    pairs = [(_row(path, data, card), _base(path, layout.delta_to or "", card)) for path in runs]
    if layout.by_size:
        # by_size gives each row a group and so makes it another object; its cells remain the same.
        bases = {id(row.cells): base for row, base in pairs}
        pairs = [(row, bases[id(row.cells)]) for row in by_size([row for row, _ in pairs])]
    return delta_table([row for row, _ in pairs], [base for _, base in pairs])


def _base(path: Path, to: str, card: Card | None) -> TableRow:
    """The published row that a run is held against."""
    if to == "published":
        found = None if os.path.isfile(path) else published_row_of(_head(path), card)
        if found is None:
            raise InputError(
                f"The card has no row of {path}'s model. Name one: --delta-to"
                f" {shipped().rows[3].short_name}"
            )
    else:
        found = row_of_short_name(to)
        if found is None:
            raise InputError(
                f"The card has no row {to!r}."
                f" {nearest(to, [row.short_name for row in shipped_rows()])}"
            )
    rows = rows_from_published(card if card and found in card.rows else shipped(found.card))
    return next(row for row in rows if row.name == found.name)


def published_row_of(summary: Mapping[str, Any], card: Card | None = None) -> PublishedRow | None:
    """The row of the model that a run measured, on a card (default: the run's own); None where it
    has none.
    """
    model = summary.get("model")
    names = (
        {str(model.get(key)).casefold() for key in ("id", "name")}
        if isinstance(model, Mapping)
        else set()
    )
    return next(
        (
            row
            for row in (card or card_of_run(summary)).rows or shipped().rows
            if names & {n.casefold() for n in (row.hub_id, row.short_name, row.name)}
        ),
        None,
    )


class Estimated(Protocol):
    """What a column of estimates prints of one run: see evals.fidelity.estimates."""

    @property
    def heading(self) -> str:
        """Of the column."""

    def mark(self) -> str:
        """What must be known of it."""

    @property
    def printed(self) -> tuple[float | None, float, float] | None:
        """The value, None where none can be named, and its interval's ends; None where there is no
        estimate.
        """

    @property
    def reason(self) -> str:
        """Why there is none."""


def is_limited(run: Path) -> bool:
    """Whether a run was: its row then stands last."""
    return RunFolder(run).read_json("summary.json").get("limit") is not None


def with_estimates(table: Table, found: Sequence[Sequence[Estimated]]) -> Table:
    """The table with estimates in columns of their own, never without their intervals; where there
    is none, the reason among the notes. found: of our own rows, in the order of the runs.

    Raises InputError where a row is no run's of ours, or two rows are called the same.
    """
    names = [row.name for row in table.rows if row.group in ("ours", LIMITED)]
    if len(names) != len(found) or len(set(names)) != len(names):
        raise InputError("--estimate goes with run folders only, each row with a name of its own.")
    of_row = dict(zip(names, found, strict=True))
    rows = []
    for row in table.rows:
        cells, notes = dict(row.cells), dict(row.notes)
        for one in of_row.get(row.name, ()):
            if one.printed is None:
                cells[one.heading] = TableCell()
                notes[one.heading] = one.reason
            else:
                value, *ends = one.printed
                low, high = map(percent, ends)
                named = "" if value is None else f"{percent(value)} "
                cells[one.heading] = TableCell(f"{named}({low} to {high})", (one.mark(),))
        rows.append(replace(row, cells=cells, notes=notes))
    return replace(make_table(rows), caption=table.caption, with_ci=table.with_ci)
