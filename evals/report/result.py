"""A run's outcome as `evals.run` and `evals.score` give it to a program."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evals.report.run_row import row_from_summary
from evals.report.table import markdown


@dataclass(frozen=True, slots=True)
class Cell:
    """One column's value for one model.

    fraction: 0 to 1 (what is no share, such as a perplexity, as it is), None where the table prints
    `-`; reason then says why.  ci95: its 95 %
    interval as fractions, None where there is none.  n: items it was computed from.  marks: what in
    it is not the card's protocol.  is_share: its column's numbers lie from 0 to 1.
    """

    fraction: float | None
    ci95: tuple[float, float] | None
    n: int
    marks: tuple[str, ...]
    reason: str | None
    is_share: bool = True

    @property
    def percent(self) -> float | None:
        """The fraction as a table prints it, unrounded; None for what is no share."""
        return 100 * self.fraction if self.fraction is not None and self.is_share else None

    @property
    def ci95_percent(self) -> tuple[float, float] | None:
        """The interval in percent."""
        if self.ci95 is None or self.percent is None:
            return None
        return 100 * self.ci95[0], 100 * self.ci95[1]


@dataclass(frozen=True, slots=True)
class Result:
    """A run that is done: its folder, all of summary.json, and how many answers and verdicts are
    still to be had (the same call asks for them again).
    """

    folder: Path
    summary: Mapping[str, Any]
    n_missing: int

    @property
    def is_complete(self) -> bool:
        """True when every item that was to be asked has its answer and its verdicts."""
        return self.n_missing == 0

    @property
    def cells(self) -> Mapping[str, Cell]:
        """The row, by the card's column keys, `average` among them."""
        row = row_from_summary(self.summary)
        columns = row.off if row.card is None else (*row.card.columns, *row.off)
        own = {column.key for column in columns if not column.is_share}
        return {
            key: Cell(
                cell["value"],
                cell["ci95"] and (cell["ci95"][0], cell["ci95"][1]),
                cell["n"],
                tuple(cell["marks"]),
                cell["reason"],
                key not in own,
            )
            for key, cell in self.summary["cells"].items()
        }

    @property
    def warnings(self) -> tuple[str, ...]:
        """What `evals run` warns of at its end: answers cut off, empty, unreadable."""
        return tuple(line for task in self.summary["tasks"].values() for line in task["warnings"])

    def table(self) -> str:
        """The card's table with this row, in Markdown."""
        return markdown([row_from_summary(self.summary)])
