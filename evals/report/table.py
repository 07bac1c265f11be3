"""The card's table: rows of ours, which run_row.py makes, and published ones, in its columns.

The only place where fractions become percent. A published row is printed exactly as on the card; a
row of ours carries its marks, so that no number is taken for more than it is. Pure functions; same
rows, same bytes.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import ROUND_HALF_UP, Decimal

from evals.benchmark import apart
from evals.cards.card import Card, PublishedRow
from evals.cards.published import shipped
from evals.records import Column
from evals.registry import variants
from evals.storage.files import one_line

MISSING = "-"
LIMITED = "limited"
"""The group of our runs with a limit: they stand apart."""


@dataclass(frozen=True, slots=True)
class TableCell:
    """What is printed: percent with one decimal or "-", what the reader must know about it, and its
    95 % interval's ends.
    """

    text: str = MISSING
    marks: tuple[str, ...] = ()
    ci95: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class TableRow:
    """One printed row.

    cells: cell key -> cell; a key left out prints "-".  group: a published row's size ("8b"),
    "ours" or "limited" for our own.
    notes: cell key -> remark listed under the table (why there is no number, why a published one is
    to be distrusted).
    card: whose keys these are; None: the default one's.  off: the columns of cells off the card,
    as far as they are known.
    """

    name: str
    cells: Mapping[str, TableCell]
    group: str = ""
    notes: Mapping[str, str] = field(default_factory=dict)
    card: Card | None = None
    off: tuple[Column, ...] = ()

    def cell(self, key: str) -> TableCell:
        """The cell under `key`; an empty one where the row has none."""
        return self.cells.get(key, TableCell())


# --- printing numbers -----------------------------------------------------------------------------

_LARGE = 10**9
"""From which a number's power of ten says more than its digits: a broken model's perplexity."""


def percent(fraction: float, decimals: int = 1) -> str:
    """A fraction as percent with one decimal, halves away from zero.

    The number rounded is the shortest decimal that reads back as this float, so 0.3125 prints 31.3
    and k/N ties are decided by the fraction meant, not by its binary neighbour. No published cell
    is a tie; all six published Averages come out of this rule.
    """
    return _rounded(Decimal(repr(float(fraction))) * 100, decimals)


def _rounded(number: Decimal, decimals: int) -> str:
    if abs(number) >= _LARGE:
        return f"{number:.3e}"
    return str(number.quantize(Decimal(1).scaleb(-decimals), ROUND_HALF_UP))


def in_unit(fraction: float, column: Column) -> str:
    """A number as the card prints the column, halves away from zero."""
    if column.unit != "percent":
        return _rounded(Decimal(repr(float(fraction))), column.decimals)
    return percent(fraction, column.decimals)


def compared(value: float, column: Column) -> str:
    """A run's number beside a difference: in percent, of what is no share in its own unit."""
    return percent(value) if column.is_share else in_unit(value, column)


def sense(column: Column) -> str:
    """What stands behind a heading that is not as usual."""
    said = ["lower is better"] if column.lower_is_better else []
    said += [] if column.is_share else ["in its own unit"]
    return f" ({', '.join(said)})" if said else ""


def points(change: float, column: Column, sign: str = "+") -> str:
    """A column's difference: in points, of what is no share in its own unit.

    sign: "" for one that has none.  A change that rounds to zero gets no minus sign.
    """
    if column.is_share:
        return f"{change * 100:{sign}z.2f}"
    if abs(change) >= _LARGE:
        return f"{change:{sign}.3e}"
    return f"{change:{sign}z.{column.decimals + 1}f}"


def _difference(ours: str, published: str) -> str:
    """Difference of two printed cells, signed; "-" where either is missing."""
    if MISSING in (ours, published):
        return MISSING
    return f"{Decimal(ours) - Decimal(published):+}"


# --- rows -----------------------------------------------------------------------------------------


def rows_from_published(card: Card | None = None) -> tuple[TableRow, ...]:
    """The rows of a card (default: the default one), as printed there."""
    return tuple(_published(row, card) for row in (card or shipped()).rows)


def _published(row: PublishedRow, card: Card | None) -> TableRow:
    cells = {key: TableCell(text) for key, text in row.cells.items()}
    return TableRow(row.name, cells, row.size, row.notes, card)


# --- the table and its Markdown -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Note:
    """A remark listed under the table: the headings it is about, the row, the words."""

    headings: tuple[str, ...]
    row: str
    text: str


@dataclass(frozen=True, slots=True)
class Table:
    """What every format prints. All of it is plain text; each format escapes it in its own way.

    caption: what the numbers are, "" for percent.  best: (row number, cell key) of the values to be
    set in bold.
    with_ci: print intervals.  bases: rows that the numbers are differences to.
    label: put before footnote numbers, where a document has others.
    """

    rows: tuple[TableRow, ...]
    columns: tuple[Column, ...]
    caption: str = ""
    best: frozenset[tuple[int, str]] = frozenset()
    with_ci: bool = False
    bases: tuple[TableRow, ...] = ()
    label: str = ""

    def marks(self) -> dict[str, int]:
        """Every mark of a printed number, with its footnote's number; equal marks share one."""
        cells = (row.cell(column.key) for row in self.rows for column in self.columns)
        return {
            mark: n
            for n, mark in enumerate(
                dict.fromkeys(m for cell in cells if cell.text != MISSING for m in cell.marks),
                start=1,
            )
        }

    def notes(self, rows: Sequence["TableRow"] | None = None) -> list[Note]:
        """The remarks of some of the rows (default: of all, and of those they are held against),
        equal ones of a row together.
        """
        found = []
        for row in (*self.rows, *self.bases) if rows is None else rows:
            headings: dict[str, list[str]] = {}
            for column in self.columns:
                if column.key in row.notes:
                    headings.setdefault(row.notes[column.key], []).append(column.heading)
            found += [Note(tuple(about), row.name, text) for text, about in headings.items()]
        return found


def make_table(rows: Sequence[TableRow]) -> Table:
    """The rows in their cards' columns, as they come; limited runs last, since their numbers are of
    other items.
    """
    ordered, columns = aligned(sorted(rows, key=lambda row: row.group == LIMITED))
    return Table(tuple(ordered), columns)


def aligned(rows: Sequence[TableRow]) -> tuple[list[TableRow], tuple[Column, ...]]:
    """The rows under one set of columns, and these: the first row's card's in its order, then what
    other cards have of their own. One column for several cards only where benchmark, settings and
    metric are the same; else each stands apart, named after its card.

    A cell off its card stands in a column named after its key, before the Average.
    """
    of_card: dict[int, list[TableRow]] = {}
    for row in rows:
        of_card.setdefault(id(_card(row)), []).append(row)
    placed: dict[str, Column] = {}
    for own in of_card.values() or [[]]:
        card = _card(own[0]) if own else shipped()
        off = dict.fromkeys(key for row in own for key in row.cells if key not in card.keys)
        known = {one.key: replace(one, heading=one.key) for row in own for one in row.off}
        extra = [known.get(key, Column(key, key)) for key in off]
        places = _places(card)
        for column in (*card.columns, *extra, card.average.column):
            place = places.get(column.key, column.key)
            if place not in placed:
                taken = {one.key for one in placed.values()}
                apart = column.key in taken
                placed[place] = (
                    replace(
                        column,
                        key=f"{column.key} ({card.name})",
                        heading=f"{column.heading} ({card.title})",
                    )
                    if apart
                    else column
                )
    return [_placed(row, placed) for row in rows], tuple(placed.values())


def _card(row: TableRow) -> Card:
    return row.card or shipped()


def _places(card: Card) -> dict[str, str]:
    """By column key what two cards must agree in to share the column; a second column of the same
    is another place.
    """
    inputs = {one.key: str(one.identity) for one in card.columns}
    found: dict[str, str] = {}
    for column in card.columns:
        # A column that nobody measures is its card's own, by its heading.
        place = inputs[column.key] if column.benchmark else f"{column.key} {column.heading}"
        n = sum(other.startswith(f"{place} #") for other in found.values())
        found[column.key] = f"{place} #{n}"
    rule = card.average
    members = [[inputs[key] for key in member] for member in rule.members]
    turned = sorted(inputs[key] for key in rule.complement)
    return found | {rule.column.key: f"average {members} {turned}"}


def _placed(row: TableRow, placed: Mapping[str, Column]) -> TableRow:
    """The row with its cells and notes under the table's keys, in its columns' units."""
    card = _card(row)
    found = {key: placed[place] for key, place in _places(card).items()}
    keys = {key: column.key for key, column in found.items()}
    shifts = {
        one.key: _percent_of(one) - _percent_of(found[one.key])
        for one in card.printed
        if one.is_share and found[one.key].is_share
    }
    if all(key == own for own, key in keys.items()) and not any(shifts.values()):
        return row
    cells = {
        keys.get(key, key): _shifted(cell, shifts.get(key, 0)) for key, cell in row.cells.items()
    }
    return replace(row, cells=cells, notes={keys.get(k, k): note for k, note in row.notes.items()})


def _percent_of(column: Column) -> int:
    """By how many decimal places its numbers are smaller than percent."""
    return 2 if column.unit == "fraction" else 0


def _shifted(cell: TableCell, places: int) -> TableCell:
    """The printed digits with the decimal point moved, which is exact."""
    if not places or cell.text == MISSING:
        return cell
    text, *ends = (
        # A difference keeps its sign.
        f"{Decimal(one).scaleb(places):{'+' if one.startswith('+') else ''}f}"
        for one in (cell.text, *(cell.ci95 or ()))
    )
    return replace(cell, text=text, ci95=(ends[0], ends[1]) if ends else None)


def table_columns(rows: Sequence[TableRow] = ()) -> tuple[Column, ...]:
    """The columns of a table of these rows; the default card's for none."""
    return aligned(rows)[1]


def markdown(rows: Sequence[TableRow]) -> str:
    """The rows as GitHub Markdown; ends in a newline."""
    return as_markdown(make_table(rows))


def delta_table(rows: Sequence[TableRow], published: Sequence[TableRow]) -> Table:
    """Ours minus the published row at the same place, in points (of a card in fractions: in its
    columns' units), each cell with its sign; "-" where either has no number.

    The printed numbers are subtracted, so the reader can check it by hand. In the XSTest columns
    lower is better.
    """
    pairs = sorted(zip(rows, published, strict=True), key=lambda pair: pair[0].group == LIMITED)
    differences, columns = aligned([_minus(row, base) for row, base in pairs])
    bases = tuple({base.name: base for base in published}.values())
    against = (
        f"the published row {bases[0].name}" if len(bases) == 1 else "each row's own published row"
    )
    is_in_points = all(one.is_share and not _percent_of(one) for one in columns)
    unit = "In points" if is_in_points else "In each column's unit"
    return Table(tuple(differences), columns, f"{unit}, against {against}:", bases=bases)


def _minus(row: TableRow, base: TableRow) -> TableRow:
    """The row less a published one, in the columns that are the same on both cards."""
    same = aligned([row, base])[0][1]
    differs = _asked_otherwise(_card(row), _card(base))
    cells, notes = {}, dict(row.notes)
    for key, cell in row.cells.items():
        theirs = same.cell(key).text
        low, high = (_difference(end, theirs) for end in cell.ci95 or (MISSING, MISSING))
        ends = None if MISSING in (low, high) else (low, high)
        cells[key] = TableCell(_difference(cell.text, theirs), cell.marks, ends)
        if cell.text != MISSING and theirs == MISSING and key in differs:
            notes[key] = f"asked otherwise than {base.name}: {differs[key]}"
    return replace(row, cells=cells, notes=notes)


def _asked_otherwise(own: Card, theirs: Card) -> dict[str, str]:
    """The columns of a card whose benchmark another asks under other settings, and under which."""
    found: dict[str, str] = {}
    asked = variants(theirs).values()
    for one in variants(own).values():
        said = [
            apart(one.cls, one.settings, other.settings) for other in asked if other.cls is one.cls
        ]
        if said and all(said):
            found |= {column.key: "; ".join(said) for column in one.columns}
    return found


def as_markdown(table: Table) -> str:
    """The table as GitHub Markdown, with notes and footnotes under it; ends in a newline.

    Limited runs stand in a table of their own. A marked cell has a footnote reference right after
    its number.
    Names, marks and notes are escaped: they may hold anything.
    """
    footnotes = table.marks()
    lines = [escape(table.caption), ""] if table.caption else []
    is_limited = [row.group == LIMITED for row in table.rows]
    whole, limited = (
        tuple(at for at, own in enumerate(is_limited) if own is wanted) for wanted in (False, True)
    )
    lines += _markdown_part(table, footnotes, whole) if whole or not limited else []
    if whole and limited:
        lines += [
            "",
            (
                "Limited runs, on a few items of each benchmark; not to be held against the rows"
                " above:"
            ),
            "",
        ]
    lines += _markdown_part(table, footnotes, limited) if limited else []
    lines += _markdown_notes(table, table.bases)
    if footnotes:
        lines += [
            "",
            *(f"[^{table.label}{number}]: {escape(mark)}" for mark, number in footnotes.items()),
        ]
    return "\n".join(lines) + "\n"


def _markdown_part(table: Table, footnotes: Mapping[str, int], places: Sequence[int]) -> list[str]:
    """One table of the rows at these places, and their notes."""
    lines = [
        "| " + " | ".join(["Model", *(escape(column.heading) for column in table.columns)]) + " |",
        "| --- |" + " ---: |" * len(table.columns),
    ]
    for at in places:
        texts = [
            escape(table.rows[at].name),
            *(_markdown_cell(table, footnotes, at, column.key) for column in table.columns),
        ]
        lines.append("| " + " | ".join(texts) + " |")
    return lines + _markdown_notes(table, [table.rows[at] for at in places])


def _markdown_notes(table: Table, rows: Sequence[TableRow]) -> list[str]:
    notes = [
        f"- {', '.join(map(escape, note.headings))} of {escape(note.row)}: {escape(note.text)}"
        for note in table.notes(rows)
    ]
    return ["", *notes] if notes else []


def _markdown_cell(table: Table, footnotes: Mapping[str, int], at: int, key: str) -> str:
    cell = table.rows[at].cell(key)
    if cell.text == MISSING:
        return MISSING
    value = f"**{cell.text}**" if (at, key) in table.best else cell.text
    references = "".join(
        f"[^{table.label}{number}]" for number in sorted(footnotes[mark] for mark in cell.marks)
    )
    return (
        value
        + references
        + (f" ({interval_text(cell.ci95)})" if table.with_ci and cell.ci95 else "")
    )


def interval_text(ci95: tuple[str, str]) -> str:
    """An interval as printed: low and high with a dash, a word where the ends carry signs."""
    low, high = ci95
    return f"{low} to {high}" if low[0] in "+-" else f"{low}–{high}"


_ESCAPES = str.maketrans(
    # A backslash becomes an entity: left as it is, it could take the escape of the character after
    # it.
    {"&": "&amp;", "<": "&lt;", ">": "&gt;", "\\": "&#92;"} | {c: "\\" + c for c in "|[]*`~$"}
)


def escape(text: str) -> str:
    """Any text as one line of inline Markdown: no markup, HTML, image, named link, cell border,
    footnote or new line comes of it.

    Characters that cannot be printed (controls, lone surrogates, direction marks) become spaces.
    """
    line = one_line(text).translate(_ESCAPES)
    # Between two letters or digits "_" is no markup, and a cell key stays as it is.
    line = re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", line)
    # At a line's beginning these would make a heading, a list or a rule.
    return re.sub(r"^(\d*)([#+\-=.)])", r"\1\\\2", line)
