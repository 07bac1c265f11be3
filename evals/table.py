"""The card's table: rows of ours and published rows, printed in the card's columns.

The only place where fractions become percent. A published row is printed exactly as on the card; a row of ours carries its
marks, so that no number is taken for more than it is. Pure functions; same rows, same bytes.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal

from evals.card_rows import CELL_KEYS, PublishedRow, published_rows
from evals.errors import InputError
from evals.records import Column, Json, Metric
from evals.registry import BENCHMARKS, benchmark_class

AVERAGE = Column("average", "Average")
MISSING = "-"
SCHEMA = 1
CARD_WOULD_OMIT = "The card prints - for the Average as soon as any cell of the row is -."

_DIRECT = ("mmlu", "gsm8k", "bbh", "humaneval", "truthfulqa", "ifeval")
_XSTEST = ("xstest_safe_refused", "xstest_unsafe_followed")
_N_INPUTS = len(_DIRECT) + 1


@dataclass(frozen=True, slots=True)
class TableCell:
    """What is printed: percent with one decimal or "-", and what the reader must know about it."""

    text: str = MISSING
    marks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TableRow:
    """One printed row.

    cells: cell key -> cell; a key left out prints "-".  group: "8b" or "70b" for published rows, "ours" or "limited" for our own.
    notes: cell key -> remark listed under the table (why there is no number, why a published one is to be distrusted).
    """

    name: str
    cells: Mapping[str, TableCell]
    group: str = ""
    notes: Mapping[str, str] = field(default_factory=dict)

    def cell(self, key: str) -> TableCell:
        """The cell under `key`; an empty one where the row has none."""
        return self.cells.get(key, TableCell())


# --- the Average ---------------------------------------------------------------------------------------------------------


def average(cells: Mapping[str, float | None]) -> float | None:
    """The card's Average, from cells by key; fractions in, a fraction out.

    Mean of seven: MMLU, GSM8K, BBH, HumanEval, TruthfulQA, IFEval, and XSTest as the mean of the two shares' complements.
    AlpacaEval does not enter. None when any input is missing.  Source: PROTOCOL section 4, inferred from the card.
    """
    inputs: list[float] = []
    for key in (*_DIRECT, *_XSTEST):
        value = cells.get(key)
        if value is None:
            return None
        inputs.append((1 - value) / 2 if key in _XSTEST else value)
    return math.fsum(inputs) / _N_INPUTS


def average_metric(metrics: Mapping[str, Metric]) -> Metric:
    """The Average with its error and 95 % interval, both propagated from the cells, which are taken as independent.

    n: how many of the seven inputs are there (XSTest counts when both its cells are); n_items: seven.
    Without a value the reason names the missing cells.  Source of the interval: Zou & Donner 2008 (MOVER): the cells' own
    distances to their bounds, squared and summed, so that a cell at 0 or 1 does not count as certain.
    """
    present = {key: metrics[key] for key in (*_DIRECT, *_XSTEST) if key in metrics and metrics[key].value is not None}
    n = sum(key in present for key in _DIRECT) + all(key in present for key in _XSTEST)
    value = average({key: metric.value for key, metric in present.items()})
    if value is None:
        missing = [key for key in (*_DIRECT, *_XSTEST) if key not in present]
        return Metric(None, n, _N_INPUTS, reason=f"no value for {', '.join(missing)}")
    shares = {key: (-0.5 if key in _XSTEST else 1) / _N_INPUTS for key in present}
    stderrs = [metric.stderr * shares[key] for key, metric in present.items() if metric.stderr is not None]
    stderr = math.hypot(*stderrs) if len(stderrs) == len(present) else None
    ends = [
        sorted((bound - metric.value) * shares[key] for bound in metric.ci95)
        for key, metric in present.items()
        if metric.ci95 is not None and metric.value is not None
    ]
    below, above = (math.hypot(*side) for side in zip(*ends, strict=True)) if ends else (0.0, 0.0)
    ci95 = (max(0.0, value - below), min(1.0, value + above)) if len(ends) == len(present) else None
    return Metric(value, n, _N_INPUTS, stderr, ci95, "cells independent")


# --- printing numbers ----------------------------------------------------------------------------------------------------


def percent(fraction: float) -> str:
    """A fraction as percent with one decimal, halves away from zero.

    The number rounded is the shortest decimal that reads back as this float, so 0.3125 prints 31.3 and k/N ties are
    decided by the fraction meant, not by its binary neighbour. No published cell is a tie; all six published Averages
    come out of this rule.
    """
    return str((Decimal(repr(float(fraction))) * 100).quantize(Decimal("0.1"), ROUND_HALF_UP))


def _difference(ours: str, published: str) -> str:
    """Difference of two printed cells, signed; "-" where either is missing."""
    if MISSING in (ours, published):
        return MISSING
    return f"{Decimal(ours) - Decimal(published):+}"


# --- rows ----------------------------------------------------------------------------------------------------------------


def rows_from_published() -> tuple[TableRow, ...]:
    """The card's rows, as printed there."""
    return tuple(_published(row) for row in published_rows())


def _published(row: PublishedRow) -> TableRow:
    return TableRow(row.name, {key: TableCell(text) for key, text in row.cells.items()}, row.size, row.notes)


def row_from_summary(summary: Mapping[str, Json], name: str | None = None) -> TableRow:
    """The row of one of our runs, from its parsed summary.json.

    name: what to call it where the model's own name does not tell two rows apart.
    A cell without a value prints "-" with its reason in the notes. The Average carries its inputs' marks, and one more
    where the card would have printed "-". Raises InputError when the summary is not one.
    """
    schema = summary.get("schema")
    if schema != SCHEMA:
        raise InputError(f"summary.json has schema {schema!r}, this program reads {SCHEMA}. Use the version that wrote it.")
    found = {key: _object(cell, f"cells.{key}") for key, cell in _object(summary.get("cells"), "cells").items()}
    cells: dict[str, TableCell] = {}
    notes: dict[str, str] = {}
    for key in (*CELL_KEYS[:-1], *(key for key in found if key not in CELL_KEYS)):
        cells[key], reason = _own_cell(found.get(key), key)
        counted = _verdict_counts(found.get(key))
        if reason or counted:
            notes[key] = reason or counted
    cells[AVERAGE.key], reason = _own_average(found, cells)
    if reason:
        notes[AVERAGE.key] = reason
    return TableRow(_own_name(summary, name), cells, "ours" if summary.get("limit") is None else "limited", notes)


def _own_name(summary: Mapping[str, Json], name: str | None) -> str:
    """The row's name with what marks the whole row in words: another suite than the card's, a limit."""
    base = name or _object(summary.get("model"), "model").get("name")
    suite, limit = summary.get("suite"), summary.get("limit")
    words = [f"{suite} suite"] if suite != "card" else []
    words += [f"limit {limit}"] if limit is not None else []
    return f"{base} ({', '.join(words)})" if words else str(base)


def _own_cell(cell: Mapping[str, Json] | None, key: str) -> tuple[TableCell, str]:
    """The printed cell and why it is empty ("" when it is not)."""
    if cell is None:
        return TableCell(), "not run"
    value = _number(cell.get("value"), key)
    if value is None:
        return TableCell(), str(cell.get("reason") or f"{cell.get('n')} of {cell.get('n_items')} items scored")
    marks = cell.get("marks") or []
    if not isinstance(marks, list):
        raise _damaged(f"cells.{key}.marks", "a list")
    return TableCell(percent(value), tuple(dict.fromkeys(map(str, marks)))), ""


def _verdict_counts(cell: Mapping[str, Json] | None) -> str:
    """How many verdicts stand behind a judged cell, "" where no judge decides it."""
    if cell is None or not isinstance(cell.get("n_judged"), int):
        return ""
    return f"{cell['n_judged']} items judged, {cell.get('n_unparsable')} of the verdicts unreadable"


def _own_average(found: Mapping[str, Mapping[str, Json]], cells: Mapping[str, TableCell]) -> tuple[TableCell, str]:
    stated = found.get(AVERAGE.key)
    if stated is None:
        value = average({key: _number(cell.get("value"), key) for key, cell in found.items()})
        stated = {"value": value, "reason": None if value is not None else "not every input has a value"}
    cell, reason = _own_cell(stated, AVERAGE.key)
    if reason:
        return cell, reason
    marks = [*cell.marks, *(mark for key in (*_DIRECT, *_XSTEST) for mark in cells[key].marks)]
    if any(cells[key].text == MISSING for key in CELL_KEYS[:-1]):
        marks.append(CARD_WOULD_OMIT)
    return TableCell(cell.text, tuple(dict.fromkeys(marks))), ""


def _object(value: Json, where: str) -> Mapping[str, Json]:
    if not isinstance(value, dict):
        raise _damaged(where, "an object")
    return value


def _number(value: Json, key: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _damaged(f"cells.{key}.value", "a number or null")
    return float(value)


def _damaged(where: str, wanted: str) -> InputError:
    return InputError(f"summary.json is damaged: {where} is not {wanted}. Run the same command again to write it anew.")


# --- Markdown ------------------------------------------------------------------------------------------------------------


def table_columns(rows: Sequence[TableRow] = ()) -> tuple[Column, ...]:
    """Columns in registry order, then the Average; a benchmark that is not on the card shows only where a row has it."""
    registered = [column for name in BENCHMARKS for column in benchmark_class(name).columns]
    shown = [column for column in registered if column.key in CELL_KEYS or any(column.key in row.cells for row in rows)]
    return (*shown, AVERAGE)


def markdown(rows: Sequence[TableRow]) -> str:
    """The table as GitHub Markdown, with notes and footnotes under it; ends in a newline.

    Limited runs stand in a table of their own: their numbers are of other items. A marked cell has a footnote reference right after
    its number; equal marks share one footnote. Names, marks and notes are escaped: they may hold anything.
    """
    return _render(rows, table_columns(rows))


def markdown_delta(rows: Sequence[TableRow], published_row: TableRow) -> str:
    """Ours minus the published row, in points, each cell with its sign; "-" where either has no number.

    The printed numbers are subtracted, so the reader can check it by hand. In the XSTest columns lower is better.
    """
    differences = [
        TableRow(
            row.name,
            {key: TableCell(_difference(cell.text, published_row.cell(key).text), cell.marks) for key, cell in row.cells.items()},
            row.group,
            row.notes,
        )
        for row in rows
    ]
    columns = table_columns(rows)
    notes = _notes((published_row,), columns)
    text = f"In points, against the published row {escape(published_row.name)}:\n\n{_render(differences, columns)}"
    return text + "\n" + "\n".join(notes) + "\n" if notes else text


def _render(rows: Sequence[TableRow], columns: Sequence[Column]) -> str:
    footnotes: dict[str, int] = {}
    parts = [[row for row in rows if (row.group == "limited") is limited] for limited in (False, True)]
    lines = _table(parts[0], columns, footnotes) if parts[0] or not rows else []
    if parts[0] and parts[1]:
        lines += ["", "Limited runs, on a few items of each benchmark; not to be held against the rows above:", ""]
    lines += _table(parts[1], columns, footnotes) if parts[1] else []
    if footnotes:
        lines += ["", *(f"[^{number}]: {escape(mark)}" for mark, number in footnotes.items())]
    return "\n".join(lines) + "\n"


def _table(rows: Sequence[TableRow], columns: Sequence[Column], footnotes: dict[str, int]) -> list[str]:
    """One table and its notes; footnotes are numbered through all tables."""
    lines = [
        "| " + " | ".join(["Model", *(escape(column.heading) for column in columns)]) + " |",
        "| --- |" + " ---: |" * len(columns),
    ]
    for row in rows:
        texts = [escape(row.name), *(_cell(row.cell(column.key), footnotes) for column in columns)]
        lines.append("| " + " | ".join(texts) + " |")
    notes = _notes(rows, columns)
    return [*lines, "", *notes] if notes else lines


def _cell(cell: TableCell, footnotes: dict[str, int]) -> str:
    """The cell with its references; a new mark gets the next number."""
    if cell.text == MISSING:
        return MISSING
    return cell.text + "".join(f"[^{footnotes.setdefault(mark, len(footnotes) + 1)}]" for mark in cell.marks)


def _notes(rows: Sequence[TableRow], columns: Sequence[Column]) -> list[str]:
    """One list line for each remark of a row, naming the columns it is about."""
    lines = []
    for row in rows:
        headings: dict[str, list[str]] = {}
        for column in columns:
            if column.key in row.notes:
                headings.setdefault(row.notes[column.key], []).append(escape(column.heading))
        lines += [f"- {', '.join(about)} of {escape(row.name)}: {escape(note)}" for note, about in headings.items()]
    return lines


_ESCAPES = str.maketrans(
    # A backslash becomes an entity: left as it is, it could take the escape of the character after it.
    {"&": "&amp;", "<": "&lt;", ">": "&gt;", "\\": "&#92;"} | {c: "\\" + c for c in "|[]*`~$"}
)


def escape(text: str) -> str:
    """Any text as one line of inline Markdown: no markup, HTML, image, named link, cell border, footnote or new line comes of it.

    Characters that cannot be printed (controls, lone surrogates, direction marks) become spaces.
    """
    printable = "".join(c if c.isprintable() else " " for c in text)
    line = " ".join(printable.split()).translate(_ESCAPES)
    line = re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", line)
    return re.sub(r"^(\d*)([#+\-=.)])", r"\1\\\2", line)
