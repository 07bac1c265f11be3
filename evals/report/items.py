"""Every item of a run as the page reads it: a small index for the list and its filters, the texts
in compressed blocks.

Whatever a model wrote travels as gzipped JSON in base64: none of its characters means anything to
HTML.
"""

import base64
import gzip
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from evals import stats
from evals.benchmark import Benchmark
from evals.errors import EnvironmentFault, InputError
from evals.records import Generate, Item, Json
from evals.registry import task_variant
from evals.runs.grading import VerdictCounts
from evals.runs.rescore import run_items
from evals.runs.summary import metric_json
from evals.storage.run_folder import RunFolder, to_json
from evals.storage.store import Store

BLOCK = 200
"""Items in one block of texts: small enough to open in some milliseconds."""
# report.js has the same numbers.
UNPARSED, TRUNCATED, EMPTY = 1, 2, 4
"""Bits of an item's flags in the index."""
_N_BRIEF_CHARS = 64


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a benchmark (subject, task, type): its metric as the summary holds one, and the
    link that lists its items.
    """

    metric: Mapping[str, Any]
    link: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class TaskItems:
    """One task of one run. index, blocks: packed JSON.  lacks: what is not on this machine, one
    sentence each.
    """

    name: str
    n: int
    index: str
    blocks: tuple[str, ...]
    parts: Mapping[str, Part] = field(default_factory=dict)
    lacks: tuple[str, ...] = ()


def pack(value: Json | Mapping[str, Any]) -> str:
    """JSON, gzipped, in base64; equal values give equal text."""
    # mtime: gzip would write the time of day.
    return base64.b64encode(
        gzip.compress(to_json(value, indent=None).encode("utf-8"), 6, mtime=0)
    ).decode("ascii")


def task_items(
    run: RunFolder,
    summary: Mapping[str, Any],
    record: Mapping[str, Any],
    task: str,
    data: Path | None,
) -> TaskItems:
    """A task's items with prompts and gold where these are at hand.

    Raises InputError when its samples are missing or damaged.
    """
    background = Background(run, record, task, data)
    try:
        rows = list(run.samples(task))
        ids = [str(row["id"]) for row in rows]
        good = [goodness(row, background.lower_is_better) for row in rows]
        entries = [_entry(row, background) for row in rows]
        shared = _share(ids, entries)
        index = {
            "id": [item_id.removeprefix(f"{task}/") for item_id in ids],
            "good": good,
            "flags": [flags(row) for row in rows],
            "brief": [_brief(entry, mark) for entry, mark in zip(entries, good, strict=True)],
        }
        blocks = [
            _block(entries[start : start + BLOCK], shared)
            for start in range(0, len(entries), BLOCK)
        ]
        parts = _parts(task, summary, rows, background)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        where = f"{run.samples_path(task)}: a row lacks what this program writes there ({error!r})"
        raise InputError(f"{where}. Make it again with: evals score {run.path}") from error
    finally:
        background.close()
    return TaskItems(
        task, len(rows), pack(index), tuple(map(pack, blocks)), parts, background.lacks
    )


def goodness(row: Mapping[str, Any], lower_is_better: bool) -> float | None:
    """An item's score turned so that 1 is good (the mean over judges where several decide); None
    where it has none.
    """
    scores = [row["score"]] if "score" in row else list(row["scores"].values())
    known = [float(score) for score in scores if score is not None]
    if not known:
        return None
    return 1 - fmean(known) if lower_is_better else fmean(known)


def flags(row: Mapping[str, Any]) -> int:
    """What the filters ask about one item, as bits."""
    truncated = TRUNCATED * ("length" in row.get("finish_reasons", ()))
    outputs = row.get("outputs", ())
    empty = EMPTY * (len(outputs) > 0 and not any(text.strip() for text in outputs))
    return UNPARSED * bool(row.get("unparsed")) | truncated | empty


class Background:
    """What samples do not hold: prompts from the run's store, gold and groups from the data.

    benchmark: None where the data is not here.  lacks: what is not here, one sentence each.
    """

    def __init__(
        self, run: RunFolder, record: Mapping[str, Any], task: str, data: Path | None
    ) -> None:
        self.lacks: tuple[str, ...] = ()
        self._run_key = str(record["run_key"])
        self.benchmark: Benchmark[Any] | None = None
        items: Sequence[Item] = ()
        try:
            self.benchmark, items = run_items(record, task, data)
        except InputError:
            self.lacks += (
                (
                    f"Gold answers come from the data of {task}, which is not here: see `evals data"
                    " list`, or name it with --data."
                ),
            )
        self.variant = task_variant(record["summary_header"], task)
        self.lower_is_better = all(one.lower_is_better for one in self.variant.columns)
        self.items = {str(item.id): item for item in items}
        self._store: Store | None = None
        path = run.store_of(record)
        try:
            self._store = Store(path, read_only=True) if path else None
        except EnvironmentFault as error:
            self.lacks += (
                f"Prompts as sent come from the run's store, which could not be read: {error}",
            )
        if path is None:
            self.lacks += (
                (
                    "Prompts as sent come from the run's store, which is not here: see `evals"
                    f" prompts {task}`."
                ),
            )

    def prompt(self, item_id: str) -> tuple[str, bool]:
        """The prompt and whether it is the text that was sent; else the messages it is made of, ""
        where these are not at hand.
        """
        item = self.items.get(item_id)
        sent = (
            self._store.prompts(self._run_key, item.id).get("", "") if self._store and item else ""
        )
        if sent or item is None or self.benchmark is None:
            return sent, True
        request = self.benchmark.request(item)
        roles = len(request.messages) > 1 or (isinstance(request, Generate) and not request.raw)
        words = [
            f"[{message.role}]\n{message.content}" if roles else message.content
            for message in request.messages
        ]
        return (
            "\n\n".join([*words, f"[assistant]\n{request.opening}"] if request.opening else words),
            False,
        )

    def gold(self, item_id: str) -> str | None:
        """The reference answer, "" where the benchmark has none, None where the data
        is not here.
        """
        item = self.items.get(item_id)
        return self.benchmark.gold(item) if self.benchmark and item else None

    def group(self, item_id: str) -> str:
        """The item's subject, task or type."""
        item = self.items.get(item_id)
        return item.group if item else ""

    def close(self) -> None:
        """Close the store."""
        if self._store:
            self._store.close()


def _entry(row: Mapping[str, Any], background: Background) -> dict[str, Any]:
    """One item's texts; the page shows what is left in `grade` as it is."""
    item_id = str(row["id"])
    prompt, sent = background.prompt(item_id)
    grade = {
        name: value
        for name, value in row.items()
        if name not in ("id", "outputs", "extracted", "findings", "choice_logprobs", "reasoning")
    }
    if group := background.group(item_id):
        grade["group"] = group
    if "instructions" in row:
        obeyed = zip(row["instructions"], row["loose"], strict=True)
        grade["not followed"] = [name for name, loose in obeyed if not loose] or "none"
    entry = {
        "prompt": prompt,
        "sent": sent,
        "gold": background.gold(item_id),
        "extracted": row.get("extracted"),
        "grade": grade,
    }
    if "reasoning" in row:
        entry["reasoning"] = row["reasoning"]
    return entry | {
        "outputs": row["outputs"],
        "findings": row.get("findings", {}),
        "logprobs": row.get("choice_logprobs"),
    }


def _share(ids: Sequence[str], entries: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Take what all prompts of a part begin with (instruction, shots) out of them, up to a line's
    end; by part.
    """
    parts: dict[str, list[dict[str, Any]]] = {}
    for item_id, entry in zip(ids, entries, strict=True):
        if entry["prompt"]:
            parts.setdefault(item_id.rpartition("/")[0], []).append(entry)
    shared = {}
    for part, members in parts.items():
        prompts = [entry["prompt"] for entry in members] if len(members) > 1 else []
        start = os.path.commonprefix(prompts)  # noqa: RUF071 texts, not paths
        shared[part] = start[: start.rfind("\n") + 1]
        for entry in members:
            entry["prompt"] = entry["prompt"].removeprefix(shared[part])
            entry["shared"] = part
    return shared


def _block(entries: Sequence[Mapping[str, Any]], shared: Mapping[str, str]) -> dict[str, Any]:
    used = {entry["shared"] for entry in entries if "shared" in entry}
    return {"shared": {part: shared[part] for part in used}, "items": list(entries)}


def _brief(entry: Mapping[str, Any], good: float | None) -> str:
    """A line for the list: the answer as read (else how the output begins), and the gold answer
    where it is short and missed.
    """
    extracted, outputs, gold = entry["extracted"], entry["outputs"], entry["gold"] or ""
    is_read = isinstance(extracted, str) and bool(extracted.strip())
    words = " ".join((extracted if is_read else outputs[0] if outputs else "").split())
    missed = is_read and good is not None and good < 0.5 and 0 < len(gold) < _N_BRIEF_CHARS / 2
    return f"{words[: _N_BRIEF_CHARS // 2]} · gold {gold}" if missed else words[:_N_BRIEF_CHARS]


def _parts(
    task: str,
    summary: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    background: Background,
) -> dict[str, Part]:
    """Sub-scores: the summary's own, else by instruction type, else by the items' groups."""
    own = {
        name: metric
        for name, metric in summary["metrics"].get(task, {}).items()
        if name.startswith(f"{task}/")
    }
    if own:
        return {
            name.removeprefix(f"{task}/"): Part(metric, {"task": name})
            for name, metric in own.items()
        }
    # An unreadable verdict lowers a part as it would the cell, which then has no value.
    if _is_unreadable(task, summary):
        return {}
    scores: dict[str, list[float]] = {}
    for row in rows:
        if "instructions" in row:
            for name, followed in zip(row["instructions"], row["loose"], strict=True):
                scores.setdefault(str(name), []).append(float(followed))
        elif (group := background.group(str(row["id"]))) and row.get("score") is not None:
            scores.setdefault(group, []).append(float(row["score"]))
    if len(scores) < 2:
        return {}
    found = {
        # Preferences lie between 0 and 1 (AlpacaEval): Wilson's interval of a share is not theirs.
        name: (stats.proportion if set(own) <= {0.0, 1.0} else stats.mean)(own, len(own))
        for name, own in sorted(scores.items())
    }
    return {
        name: Part(metric_json(metric), {"task": task, "q": f'"{name}"'})
        for name, metric in found.items()
    }


def _is_unreadable(task: str, summary: Mapping[str, Any]) -> bool:
    """Whether a column of the task has no value because its judge could not be read."""
    columns = task_variant(summary, task).columns
    cells = [summary["cells"].get(column.key, {}) for column in columns]
    return any(
        VerdictCounts(cell["n_judged"], cell.get("n_unparsable") or 0).decide_nothing
        for cell in cells
        if cell.get("n_judged")
    )
