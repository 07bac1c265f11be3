"""Recorded outputs as a generator: JSON lines, one an item, as `samples/*.jsonl.gz` are written or as a stranger sends them.

    {"id": "gsm8k/17", "outputs": ["... 42"]}
    {"id": "mmlu/anatomy/3", "choice_logprobs": {"A": -1.2, "B": -0.4, "C": -3.0, "D": -2.2}}
    {"id": "xstest/1", "outputs": ["..."], "findings": {"xstest": "refusal"}}

A finding may be a judge's text, a number (truth, info: probability of yes; AlpacaEval: preference from 1 to 2), true or false, or an
object as samples hold it; a program's outcome may be its status alone ({"sample/0": "passed"}). The file is data: nothing in it is
run, its lines are bounded.
"""

import json
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from evals.errors import InputError, nearest
from evals.files import TooMuchError, bounded_lines
from evals.fingerprint import recorded_files
from evals.generators import Failure
from evals.prompts import Rendered
from evals.records import Completion, Finding, ItemId, Outcome, OutcomeStatus, Output
from evals.registry import BENCHMARKS

NOT_A_ROW = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)
"""What reading a row that is not one may raise."""


RECORDED = "recorded"
"""Who decided a recorded finding that names nobody."""


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
            elif not request.labels and not found.completion.outputs:
                yield [(request, Failure("the file's row has no outputs"))]
            else:
                yield [(request, found.completion)]

    def close(self) -> None:
        """Nothing to free."""


def read_recorded(path: Path) -> dict[ItemId, Recorded]:
    """All rows of a recorded file (plain or gzipped JSON lines, or a folder of them). Raises InputError naming the first bad line."""
    recorded: dict[ItemId, Recorded] = {}
    for file in recorded_files(path):
        for number, line in _lines(file):
            try:
                row = json.loads(line.decode("utf-8-sig"))
                item_id = ItemId(row["id"])
                if not isinstance(item_id, str):
                    raise TypeError("the id is not a text")
                entry = recorded_row(row)
            except NOT_A_ROW as error:
                raise InputError(
                    f"{file.name}, line {number}: not a recorded output ({type(error).__name__}: {error}). "
                    'Each line is {"id": …, "outputs": […]}.'
                ) from error
            task = item_id.partition("/")[0]
            if task not in BENCHMARKS:
                raise InputError(f"{file.name}, line {number}: {item_id!r} is of no known benchmark. {nearest(task, BENCHMARKS)}")
            if item_id in recorded:
                raise InputError(f"{file.name}, line {number}: {item_id} is there twice.")
            recorded[item_id] = entry
    if not recorded:
        raise InputError(f"{path.name} holds no recorded outputs.")
    return recorded


def _lines(file: Path) -> Iterator[tuple[int, bytes]]:
    number = 0
    try:
        for number, line in bounded_lines(file):
            yield number, line
    except TooMuchError as error:
        raise InputError(f"{file.name}, {error}.") from None
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{file.name}, line {number + 1}: cannot be read ({error}). Copy the file again.") from error


def recorded_row(row: Mapping[str, Any]) -> Recorded:
    """One row's completion and findings. Raises KeyError, TypeError or ValueError when it is not of the documented form."""
    reasons = row.get("finish_reasons") or []
    ids = row.get("token_ids") or []
    outputs = []
    texts = row.get("outputs") or []
    if not isinstance(texts, list):
        raise TypeError("outputs is not a list of texts")
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"output {index} is not a text")
        reason = reasons[index] if index < len(reasons) else "stop"
        token_ids = tuple(map(int, ids[index])) if index < len(ids) else ()
        outputs.append(Output(text, "length" if reason == "length" else "stop", token_ids))
    logprobs = row.get("choice_logprobs")
    if logprobs is not None:
        logprobs = {str(label): float(value) for label, value in logprobs.items()}
    if not outputs and logprobs is None:
        raise KeyError("outputs")
    findings = row.get("findings") or {}
    if isinstance(findings, list):
        findings = {entry.get("check") or entry["role"]: entry for entry in findings}
    return Recorded(Completion(tuple(outputs), logprobs), {str(name): _named_finding(str(name), value) for name, value in findings.items()})


def _named_finding(name: str, value: Any) -> Finding:
    """A finding; a text recorded for a program ("sample/3") is its outcome and must be one."""
    finding = finding_from_json(value)
    if name.startswith("sample/") and isinstance(value, str) and finding.outcome is None:
        return Finding(finding.by, outcome=_outcome({"status": value}))
    return finding


def finding_from_json(value: Any) -> Finding:
    """A finding in any of the documented forms. Raises TypeError or ValueError on another."""
    by = RECORDED
    if isinstance(value, bool):
        return Finding(by, text="yes" if value else "no", outcome=Outcome("passed" if value else "wrong_answer"))
    if isinstance(value, int | float):
        if not 0 <= value <= 2:
            raise ValueError(f"{value} is neither a probability (0 to 1) nor a preference (1 to 2)")
        return Finding(by, preference=float(value), probability=float(value) if value <= 1 else None)
    if isinstance(value, str):
        return Finding(by, text=value, outcome=_outcome({"status": value}) if value in get_args(OutcomeStatus) else None)
    if value is None:
        return Finding(by, text="")
    outcome = value.get("outcome")
    if isinstance(outcome, str):
        outcome = {"status": outcome}
    if value.get("probability") is not None and not 0 <= value["probability"] <= 1:
        raise ValueError(f"{value['probability']} is no probability")
    number = {name: None if value.get(name) is None else _finite(value[name]) for name in ("probability", "preference")}
    top = value.get("top_logprobs")
    text = value.get("text")
    if text is not None and not isinstance(text, str):
        raise TypeError("a finding's text is not a text")
    return Finding(
        str(value.get("by", by)),
        text=text,
        probability=number["probability"],
        preference=number["preference"],
        outcome=_outcome(outcome) if outcome else None,
        # Samples of earlier versions have null where a token had no chance.
        top_logprobs=None if top is None else {str(t): -math.inf if logprob is None else float(logprob) for t, logprob in top.items()},
    )


def _outcome(fields: Mapping[str, Any]) -> Outcome:
    if fields["status"] not in get_args(OutcomeStatus):
        raise ValueError(f"{fields['status']!r} is no program's outcome. {nearest(str(fields['status']), get_args(OutcomeStatus))}")
    return Outcome(fields["status"], str(fields.get("detail", "")))


def _finite(number: Any) -> float:
    if not math.isfinite(number):
        raise ValueError(f"{number} is no judge's number")
    return float(number)
