"""One self-contained page for some runs: table, parts, plots and every item. Opened from disk;
nothing is fetched.

Text of models and data is escaped by the template or lies in compressed blocks that the script
shows as text; besides, the page's policy runs no script but its own, which it names by hash, and
loads nothing.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from evals.cards.card import Card
from evals.cards.published import card_of_run
from evals.records import Column
from evals.registry import card_to_ask, off_card, task_variant, variants
from evals.report import plots
from evals.report.items import BLOCK, Part, TaskItems, task_items
from evals.report.readers import for_readers, plain_words
from evals.report.run_row import cells_under, row_from_summary
from evals.report.table import (
    MISSING,
    TableRow,
    as_markdown,
    compared,
    make_table,
    rows_from_published,
    table_columns,
)
from evals.storage.run_folder import RunFolder, to_json

if TYPE_CHECKING:
    from jinja2 import Template

_HERE = Path(__file__).parent
_PERCENT, _OWN = Column("", ""), Column("", "", unit="own", decimals=3)


@dataclass(frozen=True, slots=True)
class RunPage:
    """One run as the template reads it."""

    name: str
    folder: str
    summary: Mapping[str, Any]
    record: Mapping[str, Any]
    row: TableRow
    tasks: Mapping[str, TaskItems]
    cells: Mapping[str, Mapping[str, Any]]


class Score(NamedTuple):
    """A number as printed, its interval as printed, what hovering says, and the fractions it is
    sorted and drawn by.
    """

    text: str
    interval: str
    tip: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    is_share: bool = True


def write_report(
    file: Path,
    folders: Sequence[Path],
    against: Path | None = None,
    data: Path | None = None,
    card: str | None = None,
    differences: Sequence[str] = (),
) -> None:
    """Write the page of these runs; `against` is one more, which the others' items are held against
    at first.

    differences: what is to be said of them against `against`, as Markdown.  data: folder of the
    public data files, for gold answers.  card: whose columns the page has, as --card names it;
    None: the first run's.  Equal runs give equal bytes.
    Raises InputError when a folder is no run, EnvironmentFault when the file cannot be written.
    """
    named = [*folders, against] if against and against not in folders else list(folders)
    first = RunFolder(named[0]).read_json("summary.json")
    shown = card_to_ask(card) if card else card_of_run(first)
    runs = [_run(folder, named, data, shown) for folder in named]
    # backslashreplace: a model may write half of a surrogate pair, which UTF-8 has no bytes for.
    RunFolder(file.parent).write_bytes(
        file.name,
        _page(runs, named.index(against) if against else -1, differences).encode(
            "utf-8", "backslashreplace"
        ),
    )


def template(file: Path) -> "Template":
    """A page's template: whatever it is given is escaped, and a name it lacks is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(file.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(file.name)


def score(metric: Mapping[str, Any], column: Column = _PERCENT) -> Score:
    """A metric of summary.json as the page prints it."""
    if metric.get("value") is None:
        return Score(MISSING, "", plain_words(str(metric.get("reason") or "not scored")))
    ends = metric["ci95"] or ()
    low, high = ends or (None, None)
    interval = "–".join(compared(end, column) for end in ends if end is not None)
    words = [f"95 % interval {interval}"] if interval else []
    return Score(
        compared(metric["value"], column),
        interval,
        " · ".join([*words, f"n = {metric['n']:,}", metric["estimator"]]),
        metric["value"],
        low,
        high,
        column.is_share,
    )


def _run(folder: Path, folders: Sequence[Path], data: Path | None, card: Card) -> RunPage:
    run = RunFolder(folder)
    summary, record = run.read_json("summary.json"), run.read_json("run.json")
    row = row_from_summary(summary, card=card)
    others = [RunFolder(other).read_json("summary.json") for other in folders if other != folder]
    if row.name in [row_from_summary(other).name for other in others]:
        row = row_from_summary(summary, f"{summary['model']['name']} in {folder.name}", card)
    asked = [task for task in record["tasks"] if task not in record["skipped"]]
    tasks = {task: task_items(run, summary, record, task, data) for task in asked}
    return RunPage(
        row.name, folder.name, summary, record, for_readers(row), tasks, cells_under(card, summary)
    )


def _page(runs: Sequence[RunPage], against: int, differences: Sequence[str]) -> str:
    from markupsafe import Markup

    card = runs[0].row.card
    assert card is not None
    published = rows_from_published(card)
    columns = table_columns([run.row for run in runs])
    marks = list(
        dict.fromkeys(
            mark for run in runs for column in columns for mark in run.row.cell(column.key).marks
        )
    )
    script = (_HERE / "report.js").read_text("utf-8")
    meta = {
        "block": BLOCK,
        "against": against,
        "runs": [
            {
                "name": run.name,
                "folder": run.folder,
                "tasks": [
                    [t.name, t.n, len(t.blocks), [*map(plain_words, t.lacks)]]
                    for t in run.tasks.values()
                ],
            }
            for run in runs
        ],
    }
    return template(_HERE / "page.html.j2").render(
        runs=runs,
        columns=columns,
        task_of={
            column.key: name
            for name, one in variants(card, off_card(runs[0].summary)).items()
            for column in one.columns
            if name in _tasks(runs)
        },
        published=published,
        marks=marks,
        score=score,
        plain_words=plain_words,
        parts={task: _part_rows(runs, task) for task in _tasks(runs)},
        part_words={
            task: task_variant(run.summary, task).cls.parts for run in runs for task in run.tasks
        },
        differences=[Markup(_as_html(plain_words(text))) for text in differences],
        markdown=as_markdown(make_table([run.row for run in runs])),
        measures=_measures(runs),
        unit_of=partial(_unit_of, runs),
        plots=[[Markup(svg) for svg in pair] for pair in _plots(runs, columns, card)],
        # Escaped, since a "</script>" in a name would end the block; to JSON the text is the same.
        meta=Markup(
            to_json(meta, indent=None).translate(
                {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}
            )
        ),
        style=Markup((_HERE / "report.css").read_text("utf-8")),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _as_html(markdown: str) -> str:
    """A text of ours with a table in it; what stands in it of others is escaped."""
    from markdown_it import MarkdownIt

    # Raw HTML stays text.
    made = MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown)
    opening = '<div class="scroll" tabindex="0" role="region" aria-label="Differences">'
    table = f'{opening}<table class="sub">'
    return str(made).replace("<table>", table).replace("</table>", "</table></div>")


def _tasks(runs: Sequence[RunPage]) -> list[str]:
    return list(dict.fromkeys(task for run in runs for task in run.tasks))


def _part_rows(runs: Sequence[RunPage], task: str) -> dict[str, list[Part | None]]:
    """Part -> its sub-score in each run."""
    found = [run.tasks[task].parts if task in run.tasks else {} for run in runs]
    return {
        name: [parts.get(name) for parts in found]
        for name in dict.fromkeys(name for parts in found for name in parts)
    }


def _measures(runs: Sequence[RunPage]) -> dict[tuple[str, str], list[Mapping[str, Any]]]:
    """(task, metric) -> the metric in each run, for what is neither a cell nor a part."""
    metrics = [run.summary["metrics"] for run in runs]
    cells = {key for run in runs for key in run.summary["cells"]}
    names = [
        (task, name)
        for one in metrics
        for task in one
        for name in one[task]
        if name not in cells and not name.startswith(f"{task}/")
    ]
    return {
        (task, name): [one.get(task, {}).get(name, {}) for one in metrics]
        for task, name in dict.fromkeys(names)
    }


def _unit_of(runs: Sequence[RunPage], task: str, name: str) -> Column:
    """As what a measure that is no cell is printed; name: with a part's behind a stroke."""
    cls = next(
        task_variant(run.summary, task).cls for run in runs if task in run.summary["metrics"]
    )
    no_share = {one.name for one in cls.metrics if not one.is_share}
    return _OWN if name in no_share or name.partition("/")[0] in no_share else _PERCENT


def _plots(runs: Sequence[RunPage], columns: Sequence[Column], card: Card) -> list[tuple[str, str]]:
    """Each plot twice: for wide and for narrow screens."""
    series = []
    columns = [column for column in columns if column.is_share]
    scale = {column.key: 100 if column.unit == "fraction" else 1 for column in columns}
    for row in card.rows:
        points = {
            k: plots.Point(float(text) * scale[k], None, None, f"{row.name}: {text}")
            for k, text in row.cells.items()
            if text != MISSING
        }
        series.append(plots.Series(row.name, row.size, points))
    for run in runs:
        scores = {one.key: score(run.cells[one.key]) for one in columns if one.key in run.cells}
        own = {
            key: plots.Point(
                100 * s.value,
                s.low and 100 * s.low,
                s.high and 100 * s.high,
                f"{run.name}: {s.text} · {s.tip}",
            )
            for key, s in scores.items()
            if s.value is not None
        }
        series.append(plots.Series(run.name, "run", own))
    labels = {
        column.key: column.heading + (" ↓" if column.lower_is_better else "") for column in columns
    }
    seconds = {run.name: _phases(run.record) for run in runs}
    return [
        (plots.cells(labels, series, 860), plots.cells(labels, series, 360)),
        (plots.times(seconds, 860), plots.times(seconds, 360)),
    ]


def _phases(record: Mapping[str, Any]) -> dict[str, tuple[float, str]]:
    """Phase -> wall seconds over all sessions, and in words with tokens a second where there were
    tokens.
    """
    sums: dict[str, dict[str, float]] = {}
    for session in record["sessions"]:
        for phase, figures in session["phases"].items():
            for name, value in figures.items():
                sums.setdefault(phase, {}).setdefault(name, 0.0)
                sums[phase][name] += value
    return {phase: (figures["wall_s"], _in_words(figures)) for phase, figures in sums.items()}


def _in_words(figures: Mapping[str, float]) -> str:
    seconds = figures["wall_s"]
    minutes, rest = divmod(round(seconds), 60)
    short = f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"
    time = f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else short
    words = {"prompt_tokens": "tok/s in", "output_tokens": "out"}
    rates = [
        f"{figures[kind] / seconds:,.0f} {word}"
        for kind, word in words.items()
        if figures.get(kind) and seconds
    ]
    return " · ".join([time, *rates])
