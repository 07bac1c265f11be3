"""The steps of a training run as one page: each column over the runs with its intervals, beside it
the differences; of a watch the gate's verdicts in their place, drawn again every minute. Opened
from disk; nothing is fetched and no script runs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from evals.compare import series
from evals.compare.series import Series, Steps
from evals.compare.steps import Step, watched
from evals.records import Column
from evals.report import html
from evals.report.table import compared, sense, table_columns
from evals.storage.run_folder import RunFolder

_HERE = Path(__file__).parent
_WIDTH, _HEIGHT, _LEFT, _TOP, _FOOT = 520, 220, 44, 10, 22
"""Of a plot, in px; what its scale and its run numbers take."""
_DIGIT = 7
"""What a digit of a label takes, in px."""
_ROOM = 0.08
"""Above and below what a plot shows, as a share of it."""


@dataclass(frozen=True, slots=True)
class Point:
    """One run in a plot: places in px; low and high are the interval's ends. tip: in words.
    label: below the plot; "" where there is no room.
    """

    x: float
    y: float
    low: float
    high: float
    tip: str
    label: str
    is_best: bool


def write_page(
    file: Path, folders: Sequence[Path], data: Path | None = None, card: str | None = None
) -> Series:
    """Write the page of these runs in their order, and return what is on it. data, card: as in
    `series`.

    Equal runs give equal bytes. Raises InputError as `series` does, EnvironmentFault when the file
    cannot be written.
    """
    found = series.series(folders, data, card)
    # backslashreplace: a name may hold half of a surrogate pair, which UTF-8 has no bytes for.
    content = page(found).encode("utf-8", "backslashreplace")
    RunFolder(file.parent).write_bytes(file.name, content)
    return found


def watch_page(name: str, steps: Sequence[Step]) -> str:
    """The page of a watch so called, by its steps in their order. Raises InputError where a folder
    is no run.
    """
    found, rows = watched(steps)
    keys = table_columns(rows)
    table = {
        "heads": ["Step", "Run", "Gate", *(_head(one) for one in keys)],
        "rows": [
            {
                "step": f"{step:,}",
                "run": run.name,
                "cells": [row.cell(one.key) for one in keys],
                "gate": f"{verdict} against {against}" if against else verdict,
                "is_worse": verdict == "regressed",
            }
            for (step, run, verdict, against), row in zip(steps, rows, strict=True)
        ],
    }
    return page(found, name, [step for step, *_ in steps], table)


def _head(column: Column) -> str:
    return column.heading if column.is_share else column.heading + sense(column)


def page(
    found: Series, title: str = "", steps: Sequence[int] = (), table: object | None = None
) -> str:
    """The runs as HTML, everything in it escaped.

    steps: where each stands in the plots; in their order where there are none.  table: of a watch.
    """
    from markupsafe import Markup

    places = steps or range(1, len(found.names) + 1)
    return html.template(_HERE / "steps.html.j2").render(
        found=found,
        title=title or f"{len(found.names)} runs in their order",
        table=table,
        notes=series.notes(found),
        columns=[
            {
                "heading": one.column.heading,
                "is_share": one.column.is_share,
                "better": "lower" if one.column.lower_is_better else "higher",
                "points": list(_points(one, found.names, places)),
                "ticks": list(_ticks(one)),
                "rows": [] if table else list(series.rows(one, found.names)),
                "scatter": series.scatter(one),
            }
            for one in found.columns
        ],
        heads=series.HEADS[1:],
        size={"width": _WIDTH, "height": _HEIGHT, "left": _LEFT, "foot": _HEIGHT - _FOOT},
        style=Markup((Path(html.__file__).parent / "report.css").read_text("utf-8")),
    )


def _range(steps: Steps) -> tuple[float, float]:
    """What the plot's scale begins and ends with: zoomed in on what there is."""
    shown = [end for cell in steps.cells for end in series.ends(cell) or ()]
    low, high = min(shown), max(shown)
    room = max(_ROOM * (high - low), 0.005)
    if not steps.column.is_share:
        return low - room, high + room
    return max(0.0, low - room), min(1.0, high + room)


def _place(value: float, scale: tuple[float, float]) -> float:
    low, high = scale
    return round(_TOP + (high - value) / (high - low) * (_HEIGHT - _TOP - _FOOT), 1)


def _points(steps: Steps, names: Sequence[str], places: Sequence[int]) -> Iterator[Point]:
    scale, n = _range(steps), len(steps.cells)
    first, last = min(places), max(places)
    free = 0.0
    for at in range(n):
        if (ends := series.ends(steps.cells[at])) is None:
            continue
        y, low, high = (_place(one, scale) for one in ends)
        along = (places[at] - first) / (last - first) if last > first else 0.5
        x = round(_LEFT + (0.5 + along * (n - 1)) * (_WIDTH - _LEFT) / n, 1)
        tip = f"{names[at]}: {series.value(steps.cells[at], steps.column)}"
        label = str(places[at]) if x >= free else ""
        free = x + _DIGIT * len(label) + _DIGIT if label else free
        yield Point(x, y, low, high, tip, label, at == steps.best)


def _ticks(steps: Steps) -> Iterator[tuple[float, str]]:
    """Four lines across the plot, in the column's unit."""
    low, high = _range(steps)
    for part in range(4):
        value = low + (high - low) * part / 3
        yield _place(value, (low, high)), compared(value, steps.column)
