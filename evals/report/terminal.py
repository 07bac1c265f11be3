"""The table for a terminal, with rich: as many tables one below the other as its width asks for, so
that no number is cut.
"""

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from evals.records import Column
from evals.report.table import MISSING, Table, interval_text
from evals.storage.files import one_line

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

_NAME_SHARE = 0.4
"""The most of the width that names take; longer ones are folded."""
_NAME_GIVES = 6
"""Characters the names' column gives up where that saves a table."""
_GAP = 2
"""Characters between two columns."""


def renderables(table: Table, width: int) -> "Iterator[RenderableType]":
    """What to print on a terminal of `width` columns. Texts are never read as markup; controls in
    them become spaces.
    """
    from rich.padding import Padding
    from rich.text import Text

    footnotes = table.marks()
    cells = [
        [_cell(table, footnotes, at, column) for column in table.columns]
        for at in range(len(table.rows))
    ]
    if table.caption:
        yield Text(one_line(table.caption))
    name, blocks = _arrange(table, cells, width)
    for columns in blocks:
        yield _block(table, cells, columns, name)
    for note in table.notes():
        words = f"{', '.join(note.headings)} of {note.row}: {note.text}"
        yield Padding(Text(one_line(words), style="dim"), (0, 0, 0, 2))
    for mark, number in footnotes.items():
        yield Padding(Text(one_line(f"[{number}] {mark}"), style="dim"), (0, 0, 0, 2))


def _block(
    table: Table, cells: "Sequence[Sequence[Text]]", columns: Sequence[int], name: int
) -> "RenderableType":
    from rich import box
    from rich.table import Table as Grid
    from rich.text import Text

    grid = Grid(
        box=box.SIMPLE_HEAD, padding=(0, 1), collapse_padding=True, pad_edge=False, show_edge=False
    )
    grid.add_column("Model", overflow="fold", vertical="bottom", width=name)
    for at in columns:
        grid.add_column(
            Text("\n".join(_pieces(table.columns[at].heading))), justify="right", no_wrap=True
        )
    for at, row in enumerate(table.rows):
        ends = at + 1 < len(table.rows) and table.rows[at + 1].group != row.group
        grid.add_row(
            Text(one_line(row.name)), *(cells[at][column] for column in columns), end_section=ends
        )
    return grid


def _cell(table: Table, footnotes: dict[str, int], at: int, column: Column) -> "Text":
    from rich.text import Text

    cell = table.rows[at].cell(column.key)
    if cell.text == MISSING:
        return Text(MISSING, style="dim")
    text = Text(cell.text, style="bold" if (at, column.key) in table.best else "")
    text.append(
        "".join(f"[{number}]" for number in sorted(footnotes[mark] for mark in cell.marks)),
        style="not bold dim",
    )
    if table.with_ci and cell.ci95:
        text.append(f"\n{interval_text(cell.ci95)}", style="not bold dim")
    return text


def _pieces(heading: str) -> list[str]:
    """A heading's words, each for a line of its own."""
    return re.split(r"\s+|(?<=\+)", one_line(heading))


def _arrange(
    table: Table, cells: "Sequence[Sequence[Text]]", width: int
) -> tuple[int, list[list[int]]]:
    """The name's width and the columns by block: as few blocks as can be, then the name as wide as
    it can be.
    """
    needs = []
    for at, column in enumerate(table.columns):
        lines = [line for row in cells for line in row[at].plain.split("\n")]
        needs.append(max(map(len, [*_pieces(column.heading), *lines])) + _GAP)
    full = min(
        max((len(one_line(row.name)) for row in table.rows), default=5),
        max(8, int(width * _NAME_SHARE)),
    )
    found = {
        name: _blocks(needs, width - name)
        for name in range(full, max(5, full - _NAME_GIVES) - 1, -1)
    }
    name = min(found, key=lambda name: (len(found[name]), -name))
    return name, found[name]


def _blocks(needs: Sequence[int], room: int) -> list[list[int]]:
    """Columns by block, filled one after the other."""
    blocks: list[list[int]] = [[]]
    used = 0
    for at, need in enumerate(needs):
        if blocks[-1] and used + need > room:
            blocks.append([])
            used = 0
        blocks[-1].append(at)
        used += need
    return blocks
