"""The runs of a training run's checkpoints: which is the best, and a page of all of them."""

import html
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from evals.cards.card import AVERAGE
from evals.cards.published import card_of_run
from evals.report.table import MISSING, TableCell, row_from_summary, table_columns
from evals.storage.run_folder import RunFolder

Step = tuple[int, Path, str, str | None]
"""A checkpoint's step, its run folder, the gate's verdict and the run it was held against."""

_STYLE = """body{font:15px/1.4 system-ui,sans-serif;margin:2em;color:#222;background:#fff}
div{overflow-x:auto}table{border-collapse:collapse}th,td{padding:.3em .7em;text-align:right;
border-bottom:1px solid #ddd;white-space:nowrap}td small{color:#666}.regressed{background:#fdd}
@media(prefers-color-scheme:dark){body{color:#ddd;background:#111}.regressed{background:#511}}"""


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
    shared = set.intersection(*(set(one) for one in values))
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
    title = html.escape(name)
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width"><meta http-equiv="refresh"'
        f' content="60"><style>{_STYLE}</style>\n<h1>{title}</h1>\n'
        "<p>Percent; in brackets 95 % intervals.</p>\n<div><table>\n"
        + "\n".join(lines)
        + "\n</table></div></html>\n"
    )


def _cell(cell: TableCell) -> str:
    text = html.escape(cell.text)
    if cell.ci95:
        text += f" <small>[{cell.ci95[0]}, {cell.ci95[1]}]</small>"
    if cell.marks and cell.text != MISSING:
        text = f'<span title="{html.escape("; ".join(cell.marks))}">{text}*</span>'
    return text
