"""A run's graded items for other tools: one flat table, Parquet or CSV, through pandas; or files
in another tool's own format.
"""

import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from evals.errors import InputError
from evals.storage.run_folder import RunFolder, to_json

FORMATS = {
    "eee": "evals.report.export_eee",
    "inspect": "evals.report.export_inspect",
    "lm-eval": "evals.report.export_lm_eval",
}
"""Other tools' formats, and the module that writes each."""
COLUMNS = (
    "task",
    "id",
    "score",
    "extracted",
    "unparsed",
    "truncated",
    "n_outputs",
    "n_tokens",
    "outputs",
    "findings",
    "details",
)
"""score: the item's score, the mean over judges where several decide.  n_tokens: over all outputs.
extracted: text, else JSON.
outputs (a list), findings and details (all else of the item's grade) are JSON."""
_KNOWN = {
    "id",
    "score",
    "extracted",
    "unparsed",
    "finish_reasons",
    "n_tokens",
    "outputs",
    "findings",
}


def write_items(folder: Path, file: Path) -> int:
    """Write the items of all tasks to a .parquet or .csv file; how many there were.

    Raises InputError when the folder is no run, its samples are damaged, or the file's name ends
    otherwise.
    """
    if file.suffix not in (".parquet", ".csv"):
        raise InputError(f"{file} ends neither in .parquet nor in .csv.")
    import pandas as pd

    rows = list(item_rows(folder))
    frame = pd.DataFrame(rows, columns=list(COLUMNS)).astype(
        {name: "string" for name in ("task", "id", "extracted", "outputs", "findings", "details")}
        | {
            "score": "float64",
            "unparsed": "bool",
            "truncated": "bool",
            "n_outputs": "int64",
            # pandas' own integers, which may be missing.
            "n_tokens": "Int64",
        }
    )
    buffer = io.BytesIO()
    if file.suffix == ".csv":
        frame.to_csv(
            buffer, index=False, lineterminator="\n", encoding="utf-8", errors="backslashreplace"
        )
    else:
        frame.to_parquet(buffer, index=False)
    RunFolder(file.parent).write_bytes(file.name, buffer.getvalue())
    return len(rows)


def write_format(
    layout: str, folder: Path, to: Path, data: Path | None = None
) -> tuple[list[Path], tuple[str, ...]]:
    """Write a run in one of FORMATS into a folder: the files, and what of the run has no number, a
    sentence each.

    data: folder of the public data files, for questions and gold answers.  Raises InputError where
    the folder is no run, is damaged, or the data is not here.
    """
    from importlib import import_module

    from evals.report.exported import exported

    write = import_module(FORMATS[layout]).write
    try:
        with exported(folder, data) as run:
            return write(run, to), run.left_out
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise InputError(
            f"{folder} lacks what this program writes there ({error!r}). Make it again with: evals"
            f" score {folder}"
        ) from error


def item_rows(folder: Path) -> Iterator[dict[str, Any]]:
    """One flat row an item, tasks and items in the run's order."""
    run = RunFolder(folder)
    record = run.read_json("run.json")
    for task in record["tasks"]:
        if task not in record["skipped"]:
            for row in run.samples(task):
                yield _flat(task, row)


def _flat(task: str, row: Mapping[str, Any]) -> dict[str, Any]:
    scores = (
        [row["score"]]
        if "score" in row
        else [score for score in row.get("scores", {}).values() if score is not None]
    )
    extracted = row.get("extracted")
    return {
        "task": task,
        "id": _text(row["id"]),
        "score": fmean(map(float, scores)) if scores and None not in scores else None,
        "extracted": _text(extracted)
        if isinstance(extracted, str | None)
        else _text(to_json(extracted, indent=None)),
        "unparsed": bool(row.get("unparsed")),
        "truncated": "length" in row.get("finish_reasons", ()),
        "n_outputs": len(row.get("outputs", ())),
        "n_tokens": sum(row["n_tokens"]) if row.get("n_tokens") else None,
        "outputs": _text(to_json(row.get("outputs", []), indent=None)),
        "findings": _text(to_json(row.get("findings", {}), indent=None)),
        "details": _text(
            to_json({name: value for name, value in row.items() if name not in _KNOWN}, indent=None)
        ),
    }


def _text(value: str | None) -> str | None:
    """Text without the halves of a pair that stand alone, which no file can hold: they are written
    out.
    """
    return None if value is None else value.encode("utf-8", "backslashreplace").decode("utf-8")
