"""The runs of a training run's checkpoints: which is the best, and a page of all of them."""

import html
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from evals.cards.card import AVERAGE
from evals.cards.published import card_of_run
from evals.records import Column
from evals.report.run_row import row_from_summary
from evals.report.table import MISSING, TableCell, TableRow, table_columns
from evals.storage.run_folder import RunFolder

Step = tuple[int, Path, str, str | None]
"""A checkpoint's step, its run folder, the gate's verdict and the run it was held against."""

_STYLE = """body{font:15px/1.4 system-ui,sans-serif;margin:2em;color:#222;background:#fff}
div{overflow-x:auto}table{border-collapse:collapse}th,td{padding:.3em .7em;text-align:right;
border-bottom:1px solid #ddd;white-space:nowrap}small{color:#888}.regressed{background:#fdd}
figure{display:inline-block;width:270px;vertical-align:bottom;margin:0 1.5em 1em 0}
svg{display:block}svg *{fill:none;stroke:#27c}
@media(prefers-color-scheme:dark){body{color:#ddd;background:#111}.regressed{background:#511}}"""
_WIDE, _HIGH = 260, 90
"""Of a plot, in px."""


def best_run(runs: Sequence[Path]) -> Path:
    """The run with the best mean of the columns that all of them have a number in, each in its own
    sense of better; the Average, where all have it. Of equal ones, and without any such column, the
    last.
    """
    summaries = [RunFolder(run).read_json("summary.json") for run in runs]
    values = [
        {key: cell["value"] for key, cell in one["cells"].items() if cell["value"] is not None}
        for one in summaries
    ]
    # What is no share would outweigh all others.
    shares = ({k for k, value in one.items() if 0 <= value <= 1} for one in values)
    shared = set.intersection(*shares)
    lower = {one.key for one in card_of_run(summaries[0]).columns if one.lower_is_better}

    def worth(at: int) -> tuple[float, int]:
        if AVERAGE.key in shared or not shared:
            return values[at].get(AVERAGE.key, 0.0), at
        return fmean(-values[at][key] if key in lower else values[at][key] for key in shared), at

    return runs[max(range(len(runs)), key=worth)]


def page(name: str, steps: Sequence[Step]) -> str:
    """Columns over steps as one page of HTML, which draws itself again every minute.

    steps: in their order.  Raises InputError where a folder is no run.
    """
    rows = [row_from_summary(RunFolder(run).read_json("summary.json")) for _, run, _, _ in steps]
    columns = table_columns(rows)
    heads = ["Step", "Run", *(one.heading for one in columns), "Gate"]
    lines = [f"<tr>{''.join(f'<th>{html.escape(head)}</th>' for head in heads)}</tr>"]
    for (step, run, verdict, against), row in zip(steps, rows, strict=True):
        cells = [f"{step:,}", html.escape(run.name), *(_cell(row.cell(one.key)) for one in columns)]
        held = f"{verdict} against {against}" if against else verdict
        cells.append(html.escape(held))
        kind = "regressed" if verdict == "regressed" else ""
        lines.append(f'<tr class="{kind}">{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>')
    plots = [_plot(column, [one[0] for one in steps], rows) for column in columns]
    title = html.escape(name)
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width"><meta http-equiv="refresh"'
        f' content="60"><style>{_STYLE}</style>\n<h1>{title}</h1>\n'
        f"{''.join(plots)}\n<p>Percent; in brackets 95 % intervals.</p>\n<div><table>\n"
        + "\n".join(lines)
        + "\n</table></div></html>\n"
    )


def _plot(column: Column, steps: Sequence[int], rows: Sequence[TableRow]) -> str:
    """A column over steps, with its intervals; "" where fewer than two have a number."""
    cells = [row.cell(column.key) for row in rows]
    found = [
        (step, *(float(end) for end in (cell.text, *(cell.ci95 or (cell.text, cell.text)))))
        for step, cell in zip(steps, cells, strict=True)
        if cell.text != MISSING
    ]
    if len(found) < 2:
        return ""
    low, high = min(one[2] for one in found), max(one[3] for one in found)
    first, last = found[0][0], found[-1][0]

    def at(step: float, value: float) -> str:
        x = 4 + (_WIDE - 8) * (step - first) / ((last - first) or 1)
        return f"{x:.1f},{4 + (_HIGH - 8) * (high - value) / ((high - low) or 1):.1f}"

    line = " ".join(at(step, value) for step, value, *_ in found)
    bars = "".join(f"M{at(step, below)}L{at(step, above)}" for step, _, below, above in found)
    better = "↓ lower" if column.lower_is_better else "↑ higher"
    return (
        f"<figure><figcaption>{html.escape(column.heading)}<br><small>{better} is better;"
        f' {low:g} to {high:g}</small></figcaption><svg width="{_WIDE}" height="{_HIGH}">'
        f'<polyline points="{line}"/><path opacity=".4" d="{bars}"/></svg></figure>'
    )


def _cell(cell: TableCell) -> str:
    text = html.escape(cell.text)
    if cell.ci95:
        text += f" <small>[{cell.ci95[0]}, {cell.ci95[1]}]</small>"
    if cell.marks and cell.text != MISSING:
        text = f'<span title="{html.escape("; ".join(cell.marks))}">{text}*</span>'
    return text
