"""A sample of a run's answers for people to label, and their labels read back."""

import csv
import hashlib
import io
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from evals.benchmark import Benchmark
from evals.errors import InputError, first_line, nearest
from evals.registry import BENCHMARKS, benchmark_class
from evals.runs.rescore import run_items
from evals.storage.run_folder import RunFolder

_SEED = 42
_FILE = "labels.json"
Row = dict[str, str]
FIELDS = ("id", "question", "reference", "answer", "check", "label")


def allowed(role: str) -> tuple[type[Benchmark[Any]], Mapping[str, float]]:
    """Whose role it is, and the labels that people may give, with what each counts. Raises
    InputError for one of which none are read: TruthfulQA's judges live on.
    """
    classes = [benchmark_class(name) for name in BENCHMARKS]
    known = {one: (cls, labels) for cls in classes for one, labels in cls.labels.items()}
    if role not in known:
        raise InputError(f"No labels are read for {role!r}. {nearest(role, known)}")
    return known[role]


def sample(run: Path, role: str, n: int, out: Path, data: Path | None) -> int:
    """Write n of the run's answers, drawn by a fixed seed, for people to label: what the judge saw,
    and not what it said. Returns how many there are.

    Raises InputError for a role that has no labels or no answers, and where the file exists.
    """
    rows = list(_rows(run, role, data))
    if n < 20:
        raise InputError(f"--n {n}: give 20 or more; fewer labels say nothing.")
    if out.exists():
        raise InputError(f"{out} exists, and may hold labels. Name another file.")
    chosen = _drawn(rows, min(n, len(rows)))
    text = io.StringIO()
    writer = csv.DictWriter(text, FIELDS)
    writer.writeheader()
    writer.writerows({key: _inert(value) for key, value in row.items()} for row in chosen)
    RunFolder(out.parent).write_bytes(out.name, text.getvalue().encode())
    return len(chosen)


def _drawn(rows: Sequence[Row], n: int) -> Sequence[Row]:
    """The n answers of a sample: always the same, so that it shows where some were left out."""
    return random.Random(_SEED).sample(rows, n)


def _inert(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula: an answer may begin with a dash, or worse."""
    return f"'{cell}" if cell.startswith(("=", "+", "-", "@", "\t", "\r")) else cell


def _rows(run: Path, role: str, data: Path | None) -> Iterator[Row]:
    """What is to be labelled of each answer."""
    folder, task = RunFolder(run), allowed(role)[0].name
    record = folder.read_json("run.json")
    if task not in record["tasks"] or task in record["skipped"]:
        raise InputError(f"{run} has no answers of {task}, which {role} decides.")
    benchmark, items = run_items(record, task, data)
    answers = {row["id"]: row["outputs"][0] for row in folder.samples(task) if row["outputs"]}
    for item in items:
        if item.id in answers:
            question = benchmark.request(item).messages[-1].content
            reference = getattr(item, "references", {}).get(role, "")
            yield _row(item.id, question, reference, answers[item.id])


def _row(item_id: str, question: str, reference: str, answer: str) -> Row:
    # A letter before it: digits alone, or 12e34, are a number to a spreadsheet, and written anew.
    check = f"h{_digest(question, reference, answer)}"
    return dict(zip(FIELDS, (item_id, question, reference, answer, check, ""), strict=True))


def _digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode("utf-8", "replace")).hexdigest()[:12]


def take(run: Path, role: str, file: Path, data: Path | None) -> int:
    """Read labels back and keep them in the run's folder. Returns how many.

    Raises InputError for a file that is not the sample of this run, wholly labelled.
    """
    rows = list(_rows(run, role, data))
    known = {row["id"]: row for row in rows}
    found: dict[str, dict[str, str]] = {}
    for number, row in enumerate(_read(file), start=2):
        where = f"{file}, row {number}"
        item = row["id"]
        if item not in known:
            raise InputError(f"{where}: {item!r} is no item of {run}.")
        if item in found:
            raise InputError(f"{where}: {item} stands there twice.")
        if row["check"] not in (check := known[item]["check"], check[1:]):
            raise InputError(
                f"{where}: {item} was labelled for another answer than {run} holds now, or its"
                " check was changed. Draw a sample again."
            )
        answer = _digest(known[item]["answer"])
        found[item] = {"label": (row["label"] or "").strip().lower(), "answer": answer}
    empty = [item for item, one in found.items() if not one["label"]]
    if empty:
        raise InputError(
            f"{file}: {len(empty)} of {len(found)} rows have no label, e.g. {empty[0]}."
            f" {_ALL_OF_THEM}"
        )
    if not found:
        raise InputError(f"{file} has no rows. Draw a sample again: evals judge sample.")
    if found.keys() != {row["id"] for row in _drawn(rows, len(found))}:
        raise InputError(
            f"{file}: its {len(found)} rows are not {len(found)} that were drawn from {run}: some"
            f" were left out, or added. {_ALL_OF_THEM}"
        )
    may = allowed(role)[1]
    for item, one in found.items():
        if one["label"] not in may:
            said = nearest(one["label"], may)
            raise InputError(f"{file}: {item} has the label {one['label']!r}. {said}")
    folder = RunFolder(run)
    folder.write_json(_FILE, {**_kept(folder), role: found})
    return len(found)


_ALL_OF_THEM = "Label all that were drawn: the ones left out would not be left out by chance."


def _read(file: Path) -> list[dict[str, Any]]:
    """The rows of a sample, as spreadsheets write it too: with a mark of UTF-8 before it, between
    commas, semicolons or tabs, with empty rows.
    """
    try:
        text = file.read_text("utf-8-sig")
    except (OSError, ValueError) as error:
        why = f"{file} cannot be read ({first_line(error)})"
        raise InputError(f"{why}. Save the labelled sample as CSV in UTF-8.") from None
    for delimiter in ",;\t":
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
        try:
            rows = [row for row in reader if any(row.values())]
        except csv.Error as error:
            raise InputError(f"{file} cannot be read ({error}).") from None
        if set(FIELDS) <= set(reader.fieldnames or ()):
            break
    else:
        raise InputError(f"{file} lacks columns of the sample: {', '.join(FIELDS)}.")
    if cut := next((n for n, row in enumerate(rows, start=2) if None in row.values()), None):
        raise InputError(f"{file}, row {cut} lacks cells of the sample: {', '.join(FIELDS)}.")
    return rows


def _kept(run: RunFolder) -> dict[str, dict[str, dict[str, str]]]:
    """The labels in a run's folder, by role and item, each with a digest of the answer it is of."""
    path = run.path / _FILE
    if not path.exists():
        return {}
    try:
        kept: dict[str, dict[str, dict[str, str]]] = json.loads(path.read_text("utf-8"))
        for role, labels in kept.items():
            if not {one["label"] for one in labels.values()} <= set(allowed(role)[1]):
                raise ValueError(f"a label of {role} is none")
    except (
        OSError, ValueError, LookupError, AttributeError, TypeError, RecursionError, InputError
    ) as error:  # fmt: skip
        raise InputError(
            f"{path} cannot be read ({first_line(error)}). Move it away, and read the labels again:"
            " evals judge labels."
        ) from None
    return kept


def labels_of(run: RunFolder, role: str) -> Mapping[str, tuple[str, float]] | None:
    """The labels kept for a role, by item: the metric that the item is of, and 0 to 1 as the metric
    counts it; None where there are none. Raises InputError where the run's answers are others now.
    """
    kept = _kept(run).get(role)
    if kept is None:
        return None
    cls, values = allowed(role)
    benchmark = cls(chat=True)
    rows = {row["id"]: row for row in run.samples(cls.name) if row["id"] in kept and row["outputs"]}
    for item, one in kept.items():
        if item not in rows or one.get("answer") != _digest(rows[item]["outputs"][0]):
            raise InputError(
                f"{run.path / _FILE}: {item} was labelled for another answer than the run holds"
                " now. Move the file away, and label a sample of these answers."
            )
    return {
        item: benchmark.labelled(role, values[one["label"]], rows[item])
        for item, one in kept.items()
    }
