"""A model card brought up to date: the table between markers, `model-index` in its metadata, and
.eval_results/*.yaml beside it.

Everything else stays byte for byte. Of `model-index` the entries that are not ours are
kept, of .eval_results the files that do not begin with our prefix.  Sources: huggingface_hub's
EvalResult; the hub's page "Model Cards".
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from evals.cards.published import card_of_run
from evals.errors import EnvironmentFault, InputError
from evals.registry import card_to_ask, off_card, variants
from evals.report.front_matter import FrontMatter
from evals.report.leaderboards import PREFIX, Results, as_yaml, results
from evals.report.model_index import with_results
from evals.report.readers import for_readers
from evals.report.run_row import row_from_summary
from evals.report.table import MISSING, TableRow, as_markdown, make_table
from evals.storage.run_folder import RunFolder

BEGIN, END = "<!-- evals: table -->", "<!-- /evals: table -->"
RESULTS = ".eval_results"
# The line's end, with its CR, stays outside: what is put behind a heading brings its own.
_HEADING = re.compile(
    r"^#{1,6}[ \t]+(?:Performance|Evaluation(?: Results)?|Results)[ \t#]*(?=\r?$)",
    re.IGNORECASE | re.MULTILINE,
)
_CODE = ("fence", "code_block")
# Between backticks they are spoken of.
_MARKER = re.compile(rf"(?<!`)(?:{BEGIN}|{END})(?!`)")
# A commit; a branch or a tag may name other data tomorrow.
_REVISION = re.compile(r"[0-9a-f]{40}")


class Cell(NamedTuple):
    """One measured cell as model-index states it. value: percent as printed."""

    dataset: str
    heading: str
    value: float
    metric: str
    hub_id: str
    hub_config: str | None
    hub_split: str
    revision: str | None


class Renewed(NamedTuple):
    """A card as it should be. entries: what our files in .eval_results hold, by name.  left_out:
    what of the numbers the hub has no place for, a sentence each.
    """

    text: str
    entries: Mapping[str, list[dict[str, Any]]]
    left_out: Sequence[str]


def renewed(
    before: str,
    runs: Sequence[Path],
    source: str | None = None,
    card: str | None = None,
    boards: Path | None = None,
) -> Renewed:
    """A card's text brought up to date with runs; the first is the card's model, and the metadata
    is about it alone.

    A run of a part of the data gives its row and no metadata: its numbers are not the datasets'.
    source: address where the results can be looked up.  card: whose columns, as --card names it;
    None: the runs' own.  boards: a table of leaderboards of one's own.
    Raises InputError for a card that cannot be edited safely, or whose metadata is about another
    model.
    """
    summaries = [RunFolder(run).read_json("summary.json") for run in runs]
    shown = card_to_ask(card) if card else None
    rows = [for_readers(row_from_summary(summary, card=shown)) for summary in summaries]
    cells: list[Cell] = []
    found = Results({}, ())
    if part := part_of_the_data(summaries[0]):
        said = [f"{runs[0]} is a run with {part}, not of the datasets the hub would show it under"]
    else:
        cells = measured(summaries[0], rows[0])
        found = results(summaries[0], rows[0], _day(runs[0]), source, boards)
        said = list(found.left_out)
    text = new_text(before, rows, cells, summaries[0], source)
    return Renewed(text, {f"{PREFIX}{name}.yaml": one for name, one in found.entries.items()}, said)


def update(
    readme: Path,
    runs: Sequence[Path],
    source: str | None = None,
    *,
    write: bool = True,
    card: str | None = None,
    boards: Path | None = None,
) -> list[Path]:
    """Bring a card and the result files beside it up to date; see renewed.

    write: False only says what would change.
    Returns the files that changed, removed ones among them.  Raises InputError for a card that
    cannot be read or edited safely.
    """
    new = renewed(read_card(readme), runs, source, card, boards)
    home = readme.parent / RESULTS
    files: dict[Path, str | None] = {readme: new.text}
    files |= dict.fromkeys(sorted(home.glob(f"{PREFIX}*.yaml")))
    files |= {home / name: as_yaml(entries) for name, entries in new.entries.items()}
    stale = [
        path
        for path, text in files.items()
        if _bytes_of(path) != (text.encode() if text is not None else None)
    ]
    if write:
        for path in stale:
            _write(path, files[path])
    return stale


def _day(run: Path) -> str | None:
    """When a run's last session ended, YYYY-MM-DD; None where its record is gone or older."""
    if not (run / "run.json").exists():
        return None
    sessions = RunFolder(run).read_json("run.json")["sessions"]
    ended = sessions[-1].get("ended") if sessions else None
    return str(ended)[:10] if ended else None


def part_of_the_data(summary: Mapping[str, Any]) -> str:
    """What makes the run one of a part of the public data, in words; "" for a run of the card's
    subsets or of everything.
    """
    if summary.get("suite") not in ("card", "full"):
        return f"the {summary.get('suite')} suite"
    return f"a limit of {summary['limit']}" if summary.get("limit") else ""


def measured(summary: Mapping[str, Any], row: TableRow) -> list[Cell]:
    """The run's printed numbers, benchmark by benchmark;
    the Average is of no dataset and left out.
    """
    found = []
    card = row.card or card_of_run(summary)
    for task, variant in variants(card, off_card(summary)).items():
        benchmark = variant.cls
        hub_metrics = {one.name: one.hub for one in benchmark.metrics}
        tables = benchmark.dataset.tables
        if not tables:
            continue  # a task of lm-evaluation-harness names no data set of the hub
        # MMLU has a dev table before it, and is scored on test.
        hub = tables.get("test", next(iter(tables.values()))).hub
        # BBH has a configuration for each part: no one name for the metadata.
        config = None if hub.config is None or "{" in hub.config else hub.config
        revision = str((summary.get("data", {}).get(task) or {}).get("revision"))
        for column in variant.columns:
            cell = row.cell(column.key)
            if cell.text == MISSING:
                continue
            # The value as printed, so that metadata and table cannot disagree.
            found.append(
                Cell(
                    benchmark.dataset.name,
                    column.heading,
                    float(cell.text) * (100 if column.unit == "fraction" else 1),
                    hub_metrics[column.metric],
                    benchmark.dataset.hub_id,
                    config,
                    hub.split,
                    revision if _REVISION.fullmatch(revision) else None,
                )
            )
    return found


# --- the text -------------------------------------------------------------------------------------


def new_text(
    before: str,
    rows: Sequence[TableRow],
    cells: Sequence[Cell],
    summary: Mapping[str, Any],
    source: str | None,
) -> str:
    """The card with table and metadata as they should be; the same text when they are."""
    matter = FrontMatter.of(before)
    end = _line_end(matter.body, before)
    table = as_markdown(replace(make_table(rows), label="evals-")).replace("\n", end)
    # A card may end in the dashes below its metadata; what follows needs a line of its own.
    lacks_end = bool(matter.tail) and not matter.tail.endswith("\n")
    body = with_table(end if lacks_end else matter.body, f"{BEGIN}{end}{table}{END}", end)
    entries = _entries(cells, summary, source)
    metadata = with_results(matter, summary["model"], entries, _line_end(matter.whole(), before))
    return metadata + body


def _line_end(part: str, card: str) -> str:
    """How a part of the card ends its lines; as the whole card does where it has none."""
    return "\r\n" if "\r\n" in (part if "\n" in part else card) else "\n"


def with_table(body: str, block: str, end: str) -> str:
    """The body with the block in place of the one between the markers, else under the heading of
    the results, else at its end.

    Raises InputError when the markers do not stand there once, in order, or when what is written
    at the end would be code or a comment.
    """
    blocks = _blocks(body)
    if markers := list(_MARKER.finditer(_without_code(body, blocks))):
        if [found[0] for found in markers] != [BEGIN, END]:
            raise InputError(
                f"The card's markers {BEGIN} and {END} must stand in it once each, in this order."
                " Mend or remove them."
            )
        return body[: markers[0].start()] + block + body[markers[1].end() :]
    if (at := _end_of_heading(body, blocks)) is not None:
        return f"{body[:at]}{end}{end}{block}{end}{body[at:]}"
    gap = "" if not body or body.endswith(end * 2) else end if body.endswith(end) else end * 2
    text = f"{body}{gap}## Evaluation{end}{end}{block}{end}"
    if _end_of_heading(text, _blocks(text)) is None:
        raise InputError(
            "The card's text ends inside a code block, comment or HTML element that is not closed,"
            " so the table would not be seen there. Close it, or add a heading `## Evaluation`"
            " before it."
        )
    return text


class _Block(NamedTuple):
    """A heading or a block of code, from the beginning of its first line to the end of its last."""

    kind: str
    start: int
    stop: int


def _blocks(text: str) -> list[_Block]:
    """The headings and the code of a card, as CommonMark has them: what looks like a heading or a
    marker may stand in code of any kind, in a comment or in HTML.
    """
    from markdown_it import MarkdownIt

    starts = [0, *(found.end() for found in re.finditer(r"\r\n|\r|\n", text)), len(text)]
    tokens = MarkdownIt("commonmark").disable(["inline", "text_join"]).parse(text)
    return [
        _Block(one.type, starts[one.map[0]], starts[one.map[1]])
        for one in tokens
        if one.map and one.type in ("heading_open", *_CODE)
    ]


def _without_code(text: str, blocks: Sequence[_Block]) -> str:
    """The text with code blanked out, every character in its place."""
    parts, at = [], 0
    for block in blocks:
        if block.kind in _CODE:
            parts += [text[at : block.start], " " * (block.stop - block.start)]
            at = block.stop
    return "".join([*parts, text[at:]])


def _end_of_heading(text: str, blocks: Sequence[_Block]) -> int | None:
    """Where the line of the results' heading ends, before its line end; None without one."""
    headings = (
        _HEADING.match(text, block.start) for block in blocks if block.kind == "heading_open"
    )
    return next((found.end() for found in headings if found), None)


# --- metadata -------------------------------------------------------------------------------------


def _entries(
    cells: Sequence[Cell], summary: Mapping[str, Any], source: str | None
) -> list[dict[str, Any]]:
    """The cells as results of model-index."""
    from huggingface_hub import EvalResult
    from huggingface_hub.repocard_data import eval_results_to_model_index

    about = {"protocol": summary["protocol"], "suite": summary["suite"]} | (
        {"limit": summary["limit"]} if summary["limit"] else {}
    )
    results = [
        EvalResult(
            task_type="text-generation",
            dataset_type=cell.hub_id,
            dataset_name=cell.dataset,
            dataset_config=cell.hub_config,
            dataset_split=cell.hub_split,
            dataset_revision=cell.revision,
            dataset_args=about,
            metric_type=cell.metric,
            metric_name=cell.heading,
            metric_value=cell.value,
            source_url=source,
            source_name="evals" if source else None,
        )
        for cell in cells
    ]
    models = eval_results_to_model_index("", results) if results else []
    return [result for one in models for result in one["results"]]


# --- files ----------------------------------------------------------------------------------------


def read_card(readme: Path) -> str:
    """A card's text, line ends kept; none of a folder that, as training leaves it, has no README.md
    yet. Raises InputError where it is not there or no text.
    """
    try:
        # As bytes: reading text would turn CRLF into LF, and every line would be another.
        return readme.read_bytes().decode("utf-8")
    except FileNotFoundError:
        if readme.name == "README.md" and readme.parent.is_dir():
            return ""
        raise InputError(
            f"There is no {readme}. Make the card first; an empty file will do."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{readme} cannot be read as UTF-8 text ({error}).") from error


def _bytes_of(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _write(path: Path, text: str | None) -> None:
    if text is not None:
        RunFolder(path.parent).write_bytes(path.name, text.encode())
        return
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise EnvironmentFault(
            f"{path} could not be removed ({error.strerror or error})."
        ) from error
