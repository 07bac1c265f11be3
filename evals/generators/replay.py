"""Recorded outputs as a generator: JSON lines, one an item, as `samples/*.jsonl.gz` are written or as a stranger sends them.

    {"id": "gsm8k/17", "outputs": ["... 42"]}
    {"id": "mmlu/anatomy/3", "choice_logprobs": {"A": -1.2, "B": -0.4, "C": -3.0, "D": -2.2}}
    {"id": "xstest/1", "outputs": ["..."], "findings": {"xstest": "refusal"}}

A finding may be a judge's text, a number (truth, info: probability of yes; AlpacaEval: preference from 1 to 2), true or false, or an
object as samples hold it. The file is data: nothing in it is run, its lines are bounded.
"""

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evals.errors import InputError
from evals.generators import Failure
from evals.prompts import Rendered
from evals.records import Completion, Finding, ItemId, Outcome, Output

_MAX_LINE = 32 << 20


@dataclass(frozen=True, slots=True)
class Recorded:
    """One recorded item: its completion, and what judges or the sandbox found then."""

    completion: Completion
    findings: Mapping[str, Finding]


class ReplayGenerator:
    """Answers by item id. recorded: what the file holds; an item it lacks is a Failure and stays unscored."""

    def __init__(self, recorded: Mapping[ItemId, Recorded]) -> None:
        self.recorded = recorded

    def stream(self, requests: Sequence[Rendered]) -> Iterator[list[tuple[Rendered, Completion | Failure]]]:
        """See Generator."""
        for request in requests:
            found = self.recorded.get(request.item_id)
            if found is None:
                yield [(request, Failure("the file has no row for it"))]
            elif request.labels and found.completion.choice_logprobs is None and not found.completion.outputs:
                yield [(request, Failure("the file's row has neither outputs nor choice_logprobs"))]
            else:
                yield [(request, found.completion)]

    def close(self) -> None:
        """Nothing to free."""


def read_recorded(path: Path) -> dict[ItemId, Recorded]:
    """All rows of a recorded file (plain or gzipped JSON lines, or a folder of them). Raises InputError naming the first bad line."""
    files = sorted(path.glob("*.jsonl*")) if path.is_dir() else [path]
    recorded: dict[ItemId, Recorded] = {}
    for file in files:
        for number, line in _lines(file):
            try:
                row = json.loads(line)
                item_id = ItemId(row["id"])
                if not isinstance(item_id, str):
                    raise TypeError("the id is not a text")
                entry = recorded_row(row)
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                raise InputError(
                    f"{file.name}, line {number}: not a recorded output ({type(error).__name__}: {error}). "
                    'Each line is {"id": …, "outputs": […]}.'
                ) from error
            if item_id in recorded:
                raise InputError(f"{file.name}, line {number}: {item_id} is there twice.")
            recorded[item_id] = entry
    if not recorded:
        raise InputError(f"{path.name} holds no recorded outputs.")
    return recorded


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    opened = gzip.open if file.suffix == ".gz" else Path.open
    try:
        with opened(file, "rb") as stream:
            for number, line in enumerate(iter(lambda: stream.readline(_MAX_LINE + 1), b""), 1):
                if len(line) > _MAX_LINE:
                    raise InputError(f"{file.name}, line {number}: longer than {_MAX_LINE >> 20} MB.")
                if line.strip():
                    yield number, line.decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise InputError(f"{file.name} cannot be read: {error}.") from error


def recorded_row(row: Mapping[str, Any]) -> Recorded:
    """One row's completion and findings. Raises KeyError, TypeError or ValueError when it is not of the documented form."""
    reasons = row.get("finish_reasons") or []
    ids = row.get("token_ids") or []
    outputs = []
    for index, text in enumerate(row.get("outputs") or []):
        if not isinstance(text, str):
            raise TypeError(f"output {index} is not a text")
        reason = reasons[index] if index < len(reasons) else "stop"
        outputs.append(Output(text, "length" if reason == "length" else "stop", tuple(ids[index]) if index < len(ids) else ()))
    logprobs = row.get("choice_logprobs")
    if logprobs is not None:
        logprobs = {str(label): float(value) for label, value in logprobs.items()}
    if not outputs and logprobs is None:
        raise KeyError("outputs")
    findings = row.get("findings") or {}
    if isinstance(findings, list):
        findings = {entry.get("check") or entry["role"]: entry for entry in findings}
    return Recorded(Completion(tuple(outputs), logprobs), {str(name): finding_from_json(value) for name, value in findings.items()})


def finding_from_json(value: Any) -> Finding:
    """A finding in any of the documented forms. Raises TypeError or ValueError on another."""
    by = "recorded"
    if isinstance(value, bool):
        return Finding(by, text="yes" if value else "no", outcome=Outcome("passed" if value else "wrong_answer"))
    if isinstance(value, int | float):
        return Finding(by, preference=float(value), probability=float(value))
    if isinstance(value, str):
        return Finding(by, text=value)
    if value is None:
        return Finding(by, text="")
    outcome = value.get("outcome")
    if isinstance(outcome, str):
        outcome = {"status": outcome}
    number = {name: None if value.get(name) is None else float(value[name]) for name in ("probability", "preference")}
    text = value.get("text")
    if text is not None and not isinstance(text, str):
        raise TypeError("a finding's text is not a text")
    return Finding(
        str(value.get("by", by)),
        text=text,
        probability=number["probability"],
        preference=number["preference"],
        outcome=Outcome(outcome["status"], str(outcome.get("detail", ""))) if outcome else None,
        top_logprobs=value.get("top_logprobs"),
    )
