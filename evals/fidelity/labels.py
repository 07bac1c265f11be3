"""A sample of a run's answers for people to label, and their labels read back."""

import csv
import hashlib
import io
import json
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from evals.benchmark import Benchmark
from evals.errors import InputError, first_line, nearest
from evals.registry import BENCHMARKS, benchmark_class
from evals.runs.rescore import run_items
from evals.storage.run_folder import RunFolder

_SEED = 42
_FILE = "labels.json"
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
    chosen = random.Random(_SEED).sample(rows, min(n, len(rows)))
    text = io.StringIO()
    writer = csv.DictWriter(text, FIELDS)
    writer.writeheader()
    writer.writerows(chosen)
    RunFolder(out.parent).write_bytes(out.name, text.getvalue().encode())
    return len(chosen)


def _rows(run: Path, role: str, data: Path | None) -> Iterator[dict[str, str]]:
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


def _row(item_id: str, question: str, reference: str, answer: str) -> dict[str, str]:
    digest = hashlib.sha256("\0".join((question, reference, answer)).encode()).hexdigest()[:12]
    return dict(zip(FIELDS, (item_id, question, reference, answer, digest, ""), strict=True))


def take(run: Path, role: str, file: Path, data: Path | None) -> int:
    """Read labels back and keep them in the run's folder. Returns how many.

    Raises InputError for a file that is not the sample of this run, wholly labelled.
    """
    known = {row["id"]: row["check"] for row in _rows(run, role, data)}
    found: dict[str, str] = {}
    for number, row in enumerate(_read(file), start=2):
        where = f"{file}, line {number}"
        if row["id"] not in known:
            raise InputError(f"{where}: {row['id']!r} is no item of {run}.")
        if row["id"] in found:
            raise InputError(f"{where}: {row['id']} stands there twice.")
        if row["check"] != known[row["id"]]:
            raise InputError(
                f"{where}: {row['id']} was labelled for another answer than {run} holds now. Draw"
                " a sample again."
            )
        found[row["id"]] = (row["label"] or "").strip().lower()
    empty = [item for item, label in found.items() if not label]
    if not found or empty:
        raise InputError(
            f"{file}: {len(empty)} of {len(found)} rows have no label"
            + (f", e.g. {empty[0]}" if empty else "")
            + ". Label them all: the ones left out would not be left out by chance."
        )
    may = allowed(role)[1]
    for item, label in found.items():
        if label not in may:
            raise InputError(f"{file}: {item} has the label {label!r}. {nearest(label, may)}")
    folder = RunFolder(run)
    folder.write_json(_FILE, {**_kept(folder), role: found})
    return len(found)


def _read(file: Path) -> list[dict[str, Any]]:
    try:
        rows = list(csv.DictReader(io.StringIO(file.read_text("utf-8-sig"), newline="")))
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{file} cannot be read ({error}).") from None
    if any(set(FIELDS) - row.keys() or None in row.values() for row in rows):
        raise InputError(f"{file} lacks columns of the sample: {', '.join(FIELDS)}.")
    return rows


def _kept(run: RunFolder) -> dict[str, dict[str, str]]:
    """The labels in a run's folder, by role and item."""
    path = run.path / _FILE
    if not path.exists():
        return {}
    try:
        kept: dict[str, dict[str, str]] = json.loads(path.read_text("utf-8"))
        for role, labels in kept.items():
            if not set(labels.values()) <= set(allowed(role)[1]):
                raise ValueError(f"a label of {role} is none")
    except (OSError, ValueError, LookupError, AttributeError, TypeError, InputError) as error:
        raise InputError(
            f"{path} cannot be read ({first_line(error)}). Move it away, and read the labels again:"
            " evals judge labels."
        ) from None
    return kept


def labels_of(run: RunFolder, role: str) -> Mapping[str, tuple[str, float]] | None:
    """The labels kept for a role, by item: the metric that the item is of, and 0 to 1 as the metric
    counts it; None where there are none.
    """
    kept = _kept(run).get(role)
    if kept is None:
        return None
    cls, values = allowed(role)
    benchmark = cls(chat=True)
    return {
        row["id"]: benchmark.labelled(role, values[kept[row["id"]]], row)
        for row in run.samples(cls.name)
        if row["id"] in kept
    }
