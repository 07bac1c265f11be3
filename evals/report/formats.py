"""The table beside Markdown: which values are best, rows by size, and HTML, LaTeX, CSV and JSON.
Pure; same table, same bytes.
"""

import csv
import html
import io
import json
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal

from evals.report.readers import table_for_readers
from evals.report.table import (
    LIMITED,
    MISSING,
    Table,
    TableCell,
    TableRow,
    as_markdown,
    interval_text,
)
from evals.storage.files import one_line

# Neither the end of another number nor the beginning of a word ("8bit").
_SIZE = re.compile(r"(?<![\d.])(\d+(?:\.\d+)?)\s?([bm])(?![a-z])", re.IGNORECASE)


# --- which rows, which values ---------------------------------------------------------------------


def size_of(name: str) -> float | None:
    """A model's size in billions of weights, read from its name ("8b", "135M"); None where the name
    tells none.
    """
    found = _SIZE.search(name)
    return float(found[1]) / (1 if found[2] in "bB" else 1000) if found else None


def by_size(rows: Sequence[TableRow]) -> list[TableRow]:
    """Rows as the card has them, small models first, each size a group; rows of a size keep their
    order, unknown sizes come last.
    """
    sizes = [size_of(row.name) for row in rows]
    order = sorted(range(len(rows)), key=lambda at: (sizes[at] is None, sizes[at] or 0.0))
    groups = [
        row.group if row.group == LIMITED else "" if size is None else f"{size:g}b"
        for row, size in zip(rows, sizes, strict=True)
    ]
    return [replace(rows[at], group=groups[at]) for at in order]


def with_best(table: Table) -> Table:
    """The table with the best value of each column in each group set in bold.

    Best is lowest where lower is better; ties are all best. A marked number is not compared, nor is
    one that stands alone or is of a limited run.
    """
    best: set[tuple[int, str]] = set()
    for group in dict.fromkeys(row.group for row in table.rows):
        for column in table.columns if group != LIMITED else ():
            cells = {
                at: row.cell(column.key) for at, row in enumerate(table.rows) if row.group == group
            }
            # Compared as printed: what reads the same is a tie.
            values = {
                at: Decimal(cell.text)
                for at, cell in cells.items()
                if cell.text != MISSING and not cell.marks
            }
            if len(values) > 1:
                wanted = (min if column.lower_is_better else max)(values.values())
                best |= {(at, column.key) for at, value in values.items() if value == wanted}
    return replace(table, best=frozenset(best))


# --- HTML -----------------------------------------------------------------------------------------


def as_html(table: Table) -> str:
    """A <table> with its remarks and footnotes under it, to be put into a page of one's own."""
    table = table_for_readers(table)
    footnotes = table.marks()
    lines = ["<table>"] + ([f"<caption>{_html(table.caption)}</caption>"] if table.caption else [])
    heads = "".join(
        f'<th scope="col">{_html(heading)}</th>'
        for heading in ("Model", *(column.heading for column in table.columns))
    )
    lines += [f"<thead><tr>{heads}</tr></thead>", "<tbody>"]
    for at, row in enumerate(table.rows):
        if at and row.group != table.rows[at - 1].group:
            lines += ["</tbody>", "<tbody>"]
        cells = "".join(
            f"<td>{_html_cell(table, footnotes, at, column.key)}</td>" for column in table.columns
        )
        lines.append(f'<tr><th scope="row">{_html(row.name)}</th>{cells}</tr>')
    lines += ["</tbody>", "</table>"]
    if notes := table.notes():
        lines += [
            "<ul>",
            *(f"<li>{_html(_words(note.headings, note.row, note.text))}</li>" for note in notes),
            "</ul>",
        ]
    if footnotes:
        lines += ["<ol>", *(f"<li>{_html(mark)}</li>" for mark in footnotes), "</ol>"]
    return "\n".join(lines) + "\n"


def _html(text: str) -> str:
    return html.escape(one_line(text))


def _html_cell(table: Table, footnotes: Mapping[str, int], at: int, key: str) -> str:
    cell = table.rows[at].cell(key)
    if cell.text == MISSING:
        return MISSING
    value = f"<strong>{cell.text}</strong>" if (at, key) in table.best else cell.text
    marks = f"<sup>{_numbers(cell, footnotes)}</sup>" if cell.marks else ""
    return (
        value
        + marks
        + (f" <small>{interval_text(cell.ci95)}</small>" if table.with_ci and cell.ci95 else "")
    )


def _numbers(cell: TableCell, footnotes: Mapping[str, int]) -> str:
    return ",".join(map(str, sorted(footnotes[mark] for mark in cell.marks)))


def _words(headings: Sequence[str], row: str, text: str) -> str:
    return f"{', '.join(headings)} of {row}: {text}"


# --- LaTeX ----------------------------------------------------------------------------------------


def as_latex(table: Table) -> str:
    """A tabular for the packages booktabs and graphicx, groups parted by rules, remarks and
    footnotes under it. It is made smaller where it would be wider than the text, as little as can
    be: columns stand close, an interval below its number.
    """
    table = table_for_readers(table)
    footnotes = table.marks()
    heads = ["Model", *(_latex_heading(column.heading) for column in table.columns)]
    lines = [_latex(table.caption), ""] if table.caption else []
    lines += [
        r"\noindent\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}"
        r"{\setlength{\tabcolsep}{3pt}%",
        rf"\begin{{tabular}}{{l{'r' * len(table.columns)}}}",
        r"\toprule",
        " & ".join(heads) + r" \\",
        r"\midrule",
    ]
    for at, row in enumerate(table.rows):
        if at and row.group != table.rows[at - 1].group:
            lines.append(r"\midrule")
        lines.append(
            " & ".join(
                [
                    _latex(row.name),
                    *(_latex_cell(table, footnotes, at, c.key) for c in table.columns),
                ]
            )
            + r" \\"
        )
    lines += [r"\bottomrule", r"\end{tabular}}"]
    below = [_latex(_words(note.headings, note.row, note.text)) for note in table.notes()]
    below += [rf"\textsuperscript{{{number}}} {_latex(mark)}" for mark, number in footnotes.items()]
    return (
        "\n".join(
            [*lines, *(rf"\par\noindent{{\footnotesize\sloppy {line}\par}}" for line in below)]
        )
        + "\n"
    )


def _latex_heading(heading: str) -> str:
    """In lines no longer than they must be: a heading is longer than its numbers."""
    words = heading.split()
    width = max(_HEADING_WIDTH, *map(len, words))
    lines = textwrap.wrap(" ".join(words), width, break_long_words=False, break_on_hyphens=False)
    return _stack(map(_latex, lines))


_HEADING_WIDTH = 9
"""Characters of a heading's line, where a word is not longer: "shot, CoT"."""


def _stack(lines: Iterable[str]) -> str:
    return r"\shortstack[r]{" + r"\\".join(lines) + "}"


def _latex_cell(table: Table, footnotes: Mapping[str, int], at: int, key: str) -> str:
    cell = table.rows[at].cell(key)
    if cell.text == MISSING:
        return MISSING
    value = rf"\textbf{{{cell.text}}}" if (at, key) in table.best else _latex(cell.text)
    marks = rf"\textsuperscript{{{_numbers(cell, footnotes)}}}" if cell.marks else ""
    if not (table.with_ci and cell.ci95):
        return value + marks
    return _stack([value + marks, rf"{{\scriptsize ({_latex(interval_text(cell.ci95))})}}"])


_LATEX = str.maketrans(
    {c: "\\" + c for c in "{}$&#%_"}
    | {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "–": r"\textendash{}",
    }
    | {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"}
    | {"[": "{[}", "]": "{]}"}
)


def _latex(text: str) -> str:
    """Text without a command in it; "[" in braces, since a line that begins with it would be the
    option of the line break before. Two hyphens stay two.
    """
    return re.sub("-(?=-)", "-{}", one_line(text).translate(_LATEX))


# --- for machines ---------------------------------------------------------------------------------


def as_csv(table: Table) -> str:
    """One line a row: bare numbers, an empty field for none; with intervals two more columns each;
    marks and remarks in the last one.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    ends = ("", " 95% low", " 95% high") if table.with_ci else ("",)
    writer.writerow(
        [
            "Model",
            *(_inert(one_line(column.heading)) + end for column in table.columns for end in ends),
            "Remarks",
        ]
    )
    for row in table.rows:
        fields = [_inert(one_line(row.name))]
        for column in table.columns:
            cell = row.cell(column.key)
            low, high = cell.ci95 or ("", "")
            fields += [
                text if text != MISSING else "" for text in (cell.text, low, high)[: len(ends)]
            ]
        writer.writerow([*fields, _inert("; ".join(_remarks(table, row)))])
    return buffer.getvalue()


def _inert(text: str) -> str:
    """Text that no spreadsheet takes for a formula."""
    return "'" + text if text[:1] in ("=", "+", "-", "@") else text


def _remarks(table: Table, row: TableRow) -> list[str]:
    about = [
        (column.heading, (*row.cell(column.key).marks, row.notes.get(column.key, "")))
        for column in table.columns
    ]
    return [f"{heading}: {one_line(text)}" for heading, texts in about for text in texts if text]


def as_json(table: Table) -> str:
    """Schema 1: columns, and rows with each cell's value (percent, or points in a table of
    differences), interval, marks, remark.
    """
    content = {
        "schema": 1,
        "caption": table.caption or "percent",
        "columns": [
            {"key": c.key, "heading": c.heading, "lower_is_better": c.lower_is_better}
            | ({"unit": c.unit} if c.unit != "percent" else {})
            for c in table.columns
        ],
        "rows": [
            {
                "name": row.name,
                "group": row.group,
                "cells": {c.key: _json_cell(table, at, c.key) for c in table.columns},
            }
            for at, row in enumerate(table.rows)
        ],
    }
    return json.dumps(content, ensure_ascii=True, indent=1, sort_keys=True) + "\n"


def _json_cell(table: Table, at: int, key: str) -> dict[str, object]:
    cell = table.rows[at].cell(key)
    return {
        "value": float(cell.text) if cell.text != MISSING else None,
        "ci95": [float(end) for end in cell.ci95] if cell.ci95 else None,
        "best": (at, key) in table.best,
        "marks": list(cell.marks) if cell.text != MISSING else [],
        "note": table.rows[at].notes.get(key),
    }


FORMATS: Mapping[str, Callable[[Table], str]] = {
    "markdown": as_markdown,
    "html": as_html,
    "latex": as_latex,
    "csv": as_csv,
    "json": as_json,
}
