"""A run's graded items as one flat table for other tools: Parquet or CSV, through pandas."""

import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from evals.errors import InputError
from evals.storage.run_folder import RunFolder, to_json

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
