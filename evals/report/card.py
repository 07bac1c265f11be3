"""A model card brought up to date: the table between markers, `model-index` in its metadata, and
.eval_results/*.yaml beside it.

Everything else stays byte for byte. Of `model-index` the entries that are not ours keep their
content, of .eval_results the files that do not begin with our prefix.  Sources: huggingface_hub's
EvalResult and EvalResultEntry; the hub's pages "Model Cards" and "Evaluation Results".
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from evals.errors import EnvironmentFault, InputError
from evals.registry import BENCHMARKS, benchmark_class
from evals.report.front_matter import FrontMatter
from evals.report.table import MISSING, TableRow, as_markdown, make_table, row_from_summary
from evals.storage.files import one_line
from evals.storage.run_folder import RunFolder

BEGIN, END = "<!-- evals: table -->", "<!-- /evals: table -->"
PREFIX = "evals-"
# The line's end, with its CR, stays outside: what is put behind a heading brings its own.
_HEADING = re.compile(
    r"^#{1,6}[ \t]+(?:Performance|Evaluation(?: Results)?|Results)[ \t#]*(?=\r?$)",
    re.IGNORECASE | re.MULTILINE,
)
# A commit; a branch or a tag may name other data tomorrow.
_REVISION = re.compile(r"[0-9a-f]{40}")
_METRICS = {
    "mmlu": "accuracy",
    "gsm8k": "exact_match",
    "bbh": "exact_match",
    "humaneval": "pass@10",
    "alpaca_eval_1": "win_rate",
    "alpaca_eval_2_lc": "length_controlled_win_rate",
    "truthfulqa": "truthful_and_informative",
    "ifeval": "prompt_level_loose_accuracy",
    "xstest_safe_refused": "refusal_rate",
    "xstest_unsafe_followed": "compliance_rate",
}


class Cell(NamedTuple):
    """One measured cell as the metadata states it. value: percent as printed; notes: what the
    number is, and what is special about it.
    """

    task: str
    key: str
    heading: str
    value: float
    hub_id: str
    hub_config: str | None
    hub_split: str
    revision: str | None
    notes: str


def update(
    readme: Path, runs: Sequence[Path], source: str | None = None, *, write: bool = True
) -> list[Path]:
    """Bring a card up to date with runs; the first is the card's model, and the metadata is about
    it alone.

    A run of a part of the data gives its row and no metadata: its numbers are not the datasets'.
    source: address where the results can be looked up.  write: False only says what would change.
    Returns the files that changed, removed ones among them.  Raises InputError for a card that
    cannot be read or edited safely.
    """
    summaries = [RunFolder(run).read_json("summary.json") for run in runs]
    rows = [row_from_summary(summary) for summary in summaries]
    cells = [] if part_of_the_data(summaries[0]) else measured(summaries[0], rows[0])
    before = _read(readme)
    files = {readme: new_text(before, rows, cells, summaries[0], source)} | _result_files(
        readme.parent, cells, source
    )
    stale = [
        path
        for path, text in files.items()
        if _bytes_of(path) != (text.encode() if text is not None else None)
    ]
    if write:
        for path in stale:
            _write(path, files[path])
    return stale


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
    for task in BENCHMARKS:
        benchmark = benchmark_class(task)
        tables = benchmark.dataset.tables
        # MMLU has a dev table before it, and is scored on test.
        hub = tables.get("test", next(iter(tables.values()))).hub
        # BBH has a configuration for each part: no one name for the metadata.
        config = None if hub.config is None or "{" in hub.config else hub.config
        revision = (summary.get("data", {}).get(task) or {}).get("revision")
        for column in benchmark.columns:
            cell = row.cell(column.key)
            if cell.text == MISSING:
                continue
            n = summary["cells"][column.key]["n"]
            words = [
                f"{column.heading}, protocol {summary['protocol']}, {summary['suite']} suite",
                f"n = {n}",
            ]
            words += [f"95 % interval {cell.ci95[0]} to {cell.ci95[1]}"] if cell.ci95 else []
            notes = "; ".join([*words, *cell.marks])
            is_pinned = _REVISION.fullmatch(str(revision)) is not None
            # The value as printed, so that metadata and table cannot disagree.
            found.append(
                Cell(
                    task,
                    column.key,
                    column.heading,
                    float(cell.text),
                    benchmark.dataset.hub_id,
                    config,
                    hub.split,
                    str(revision) if is_pinned else None,
                    notes,
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
    end = "\r\n" if "\r\n" in before else "\n"
    matter = FrontMatter.of(before)
    table = as_markdown(replace(make_table(rows), label="evals-")).replace("\n", end)
    body = with_table(matter.body, f"{BEGIN}{end}{table}{END}", end)
    index = _model_index(matter.value("model-index"), cells, summary, source)
    return matter.with_value("model-index", index, end) + body


def with_table(body: str, block: str, end: str) -> str:
    """The body with the block in place of the one between the markers, else under the heading of
    the results, else at its end.

    Raises InputError when the markers do not stand there once, in order.
    """
    if (counts := (body.count(BEGIN), body.count(END))) != (0, 0):
        start, stop = body.find(BEGIN), body.find(END)
        if counts != (1, 1) or stop < start:
            raise InputError(
                f"The card's markers {BEGIN} and {END} must stand in it once each, in this order."
                " Mend or remove them."
            )
        return body[:start] + block + body[stop + len(END) :]
    if found := _HEADING.search(_without_code(body)):
        at = found.end()
        return f"{body[:at]}{end}{end}{block}{end}{body[at:]}"
    gap = "" if not body or body.endswith(end * 2) else end if body.endswith(end) else end * 2
    return f"{body}{gap}## Evaluation{end}{end}{block}{end}"


def _without_code(body: str) -> str:
    """The body with fenced code blanked out, every character in its place."""
    blank = r"^(```|~~~).*?^\1[^\n]*$"
    return re.sub(
        blank, lambda found: re.sub(r"[^\r\n]", " ", found[0]), body, flags=re.MULTILINE | re.DOTALL
    )


# --- metadata -------------------------------------------------------------------------------------


def _model_index(
    old: Any, cells: Sequence[Cell], summary: Mapping[str, Any], source: str | None
) -> list[dict[str, Any]] | None:
    """The card's model-index with our entries in place of our earlier ones; None where there is
    nothing to state.

    Ours are known by the protocol among their dataset's arguments.
    """
    from huggingface_hub import EvalResult
    from huggingface_hub.repocard_data import eval_results_to_model_index

    models = _models(old)
    about = {"protocol": summary["protocol"], "suite": summary["suite"]} | (
        {"limit": summary["limit"]} if summary["limit"] else {}
    )
    results = [
        EvalResult(
            task_type="text-generation",
            dataset_type=cell.hub_id,
            dataset_name=benchmark_class(cell.task).dataset.name,
            dataset_config=cell.hub_config,
            dataset_split=cell.hub_split,
            dataset_revision=cell.revision,
            dataset_args=about,
            metric_type=_METRICS.get(cell.key, "score"),
            metric_name=cell.heading,
            metric_value=cell.value,
            source_url=source,
            source_name="evals" if source else None,
        )
        for cell in cells
    ]
    name = str(models[0]["name"]) if models else one_line(str(summary["model"]["name"]))
    ours = eval_results_to_model_index(name, results)[0]["results"] if results else []
    kept = [result for result in (models[0]["results"] if models else []) if not _is_ours(result)]
    first = {**(models[0] if models else {"name": name}), "results": [*kept, *ours]}
    return [first, *models[1:]] if first["results"] or models else None


def _models(old: Any) -> list[dict[str, Any]]:
    if old is None:
        return []
    ok = isinstance(old, list) and all(
        isinstance(one, dict) and isinstance(one.get("results"), list) and "name" in one
        for one in old
    )
    if not ok:
        raise InputError(
            "The card's model-index is not a list of models with name and results. Mend it first."
        )
    return list(old)


def _is_ours(result: Any) -> bool:
    arguments = (result.get("dataset") or {}).get("args") if isinstance(result, dict) else None
    return isinstance(arguments, dict) and "protocol" in arguments and "suite" in arguments


def _result_files(
    folder: Path, cells: Sequence[Cell], source: str | None
) -> dict[Path, str | None]:
    """The hub's result files, one a benchmark, by path; None for one of an earlier run that has
    nothing to say any more.

    The task id is the cell's key: the hub shows a result only where the dataset's own eval.yaml
    names that task.
    """
    import yaml
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    home = folder / ".eval_results"
    files: dict[Path, str | None] = dict.fromkeys(sorted(home.glob(f"{PREFIX}*.yaml")))
    for task in dict.fromkeys(cell.task for cell in cells):
        entries = [
            EvalResultEntry(
                cell.hub_id,
                cell.key,
                cell.value,
                cell.revision,
                source_url=source,
                source_name="evals" if source else None,
                notes=cell.notes,
            )
            for cell in cells
            if cell.task == task
        ]
        # width: PyYAML would fold a long note.
        content = eval_result_entries_to_yaml(entries)
        files[home / f"{PREFIX}{task}.yaml"] = yaml.safe_dump(
            content, sort_keys=False, allow_unicode=True, width=1000
        )
    return files


# --- files ----------------------------------------------------------------------------------------


def _read(readme: Path) -> str:
    try:
        # As bytes: reading text would turn CRLF into LF, and every line would be another.
        return readme.read_bytes().decode("utf-8")
    except FileNotFoundError:
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
