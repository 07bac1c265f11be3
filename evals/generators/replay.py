"""Recorded outputs as a generator: JSON lines, one an item, as `samples/*.jsonl.gz` are written or
as a stranger sends them.

    {"id": "gsm8k/17", "outputs": ["... 42"]}
    {"id": "mmlu/anatomy/3", "choice_logprobs": {"A": -1.2, "B": -0.4, "C": -3.0, "D": -2.2}}
    {"id": "xstest/1", "outputs": ["..."], "findings": {"xstest": "refusal"}}
    {"id": "ifeval/1000", "outputs": ["..."], "reasoning": ["..."]}
    {"id": "lm-eval.hellaswag/17", "loglikelihoods": [[-12.5, false, 9], [-8.25, true, 7]]}

Where log-probabilities are there, each label asked for has one, or the item is not answered. A
finding may be a judge's text, a number (truth, info: probability of yes; AlpacaEval: preference
from 1 to 2), true or false, or an object as samples hold it; a program's outcome may be its status
alone ({"sample/0": "passed"}). The file is data: nothing in it is run, its lines are bounded.
"""

import json
import math
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from evals.errors import InputError, nearest
from evals.generators import MOST_BYTES, Failure, n_bytes, texts_of
from evals.models.fingerprint import recorded_files
from evals.models.prompts import Rendered
from evals.records import Completion, Finding, ItemId, Outcome, OutcomeStatus, Output, finish_reason
from evals.registry import BENCHMARKS, of_draw
from evals.storage.files import TooMuchError, bounded_lines
from evals.storage.spool import Scratch
from evals.storage.store import scored_from_json

NOT_A_ROW = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)
"""What reading a row that is not one may raise."""


RECORDED = "recorded"
"""Who decided a recorded finding that names nobody."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """One recorded item: its completion, and what judges or the sandbox found then."""

    completion: Completion
    findings: Mapping[str, Finding]


class Recording(Mapping[ItemId, Recorded]):
    """Recorded items by id, in the order they were added. They lie in a temporary file: in memory
    is only the one asked for.

    Every method raises EnvironmentFault as Scratch does.
    """

    def __init__(self) -> None:
        self._rows = Scratch("id TEXT PRIMARY KEY, line BLOB NOT NULL")

    def add(self, line: bytes) -> tuple[ItemId, bool]:
        """Take a line of a recorded file: its item's id, and whether that is a new one. Raises one
        of NOT_A_ROW on any other line.
        """
        row = _row(line)
        # Made only to be refused here, where the line's number is known.
        recorded_row(row)
        done = self._rows.ask("INSERT OR IGNORE INTO rows VALUES (?, ?)", row["id"], line)
        return ItemId(row["id"]), bool(done.rowcount)

    def __getitem__(self, item_id: ItemId) -> Recorded:
        found = self._rows.ask("SELECT line FROM rows WHERE id = ?", item_id).fetchone()
        if found is None:
            raise KeyError(item_id)
        return recorded_row(_row(found[0]))

    def __contains__(self, item_id: object) -> bool:
        return self._rows.ask("SELECT 1 FROM rows WHERE id = ?", item_id).fetchone() is not None

    def __iter__(self) -> Iterator[ItemId]:
        last = 0
        while found := self._rows.ask(
            "SELECT rowid, id FROM rows WHERE rowid > ? ORDER BY rowid LIMIT 1000", last
        ).fetchall():
            last = found[-1][0]
            yield from (ItemId(item_id) for _, item_id in found)

    def __len__(self) -> int:
        (n,) = self._rows.ask("SELECT count(*) FROM rows").fetchone()
        return int(n)


def _row(line: bytes) -> dict[str, Any]:
    # A stranger's file may begin with a byte-order mark.
    row: dict[str, Any] = json.loads(line.decode("utf-8-sig"))
    if not isinstance(row["id"], str):
        raise TypeError("the id is not a text")
    return row


class ReplayGenerator:
    """Answers by item id. recorded: what the file holds; an item it lacks is a Failure and stays
    unscored.
    """

    def __init__(self, recorded: Mapping[ItemId, Recorded]) -> None:
        self.recorded = recorded

    def stream(
        self, requests: Sequence[Rendered]
    ) -> Iterator[list[tuple[Rendered, Completion | Failure]]]:
        """See Generator; all at once."""
        yield [(request, self._answer(request)) for request in requests]

    def _answer(self, request: Rendered) -> Completion | Failure:
        found = self.recorded.get(request.item_id)
        if found is None:
            return Failure("the file has no row for it")
        answer = found.completion
        if not request.labels and not answer.outputs and answer.scores is None:
            return Failure("the file's row has no outputs")
        # None at all is what a server shows that has none of them among its likeliest tokens.
        shown = answer.choice_logprobs or {}
        lacking = [one for one, _ in request.labels if math.isnan(shown.get(one, math.nan))]
        if shown and lacking:
            return Failure(f"the file's row has no log-probability of {' and '.join(lacking)}")
        return answer

    def close(self) -> None:
        """Nothing to free."""


def read_recorded(path: Path, known: Iterable[str] = ()) -> Recording:
    """All rows of a recorded file (plain or gzipped JSON lines, or a folder of them).

    known: names that items may have besides the registered ones, a card's variants.  Raises
    InputError naming the first bad line.
    """
    tasks = {*BENCHMARKS, *known}
    recording = Recording()
    for file in recorded_files(path):
        for number, line in _lines(file):
            try:
                item_id, is_new = recording.add(line)
            except NOT_A_ROW as error:
                raise InputError(
                    f"{file.name}, line {number}: not a recorded output ({type(error).__name__}:"
                    f' {error}). Each line is {{"id": …, "outputs": […]}}.'
                ) from error
            task, slash, _ = item_id.partition("/")
            if of_draw(task)[0] not in tasks or not slash:
                raise InputError(
                    f"{file.name}, line {number}: {item_id!r} is of no known benchmark."
                    f" {nearest(task, sorted(tasks))}"
                )
            if not is_new:
                raise InputError(f"{file.name}, line {number}: {item_id} is there twice.")
    if not recording:
        hint = (
            f" A run's are in its samples: replay:{path / 'samples'}."
            if os.path.isdir(path / "samples")
            else ""
        )
        raise InputError(f"{path.name or path} holds no recorded outputs.{hint}")
    return recording


def _lines(file: Path) -> Iterator[tuple[int, bytes]]:
    number = 0
    try:
        for number, line in bounded_lines(file):
            yield number, line
    except TooMuchError as error:
        raise InputError(f"{file.name}, {error}.") from None
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(
            f"{file.name}, line {number + 1}: cannot be read ({error}). Copy the file again."
        ) from error


def recorded_row(row: Mapping[str, Any]) -> Recorded:
    """One row's completion and findings. Raises KeyError, TypeError or ValueError when it is not of
    the documented form.
    """
    reasons = row.get("finish_reasons") or []
    ids = row.get("token_ids") or []
    told, counted = row.get("reasoning") or [], row.get("n_reasoning_tokens") or []
    outputs = []
    texts = row.get("outputs") or []
    if not isinstance(texts, list):
        raise TypeError("outputs is not a list of texts")
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"output {index} is not a text")
        # An end that was not recorded is taken for an ordinary one.
        end = finish_reason((reasons[index] if index < len(reasons) else None) or "stop")
        token_ids = tuple(map(int, ids[index])) if index < len(ids) else ()
        reasoning = told[index] if index < len(told) else None
        if not isinstance(reasoning, str | None):
            raise TypeError(f"the reasoning of output {index} is not a text")
        n = counted[index] if index < len(counted) else None
        outputs.append(Output(text, end, token_ids, reasoning, None if n is None else int(n)))
    logprobs = row.get("choice_logprobs")
    if logprobs is not None:
        logprobs = {str(label): float(value) for label, value in logprobs.items()}
    scores = scored_from_json(row.get("loglikelihoods"))
    if not outputs and logprobs is None and scores is None:
        raise KeyError("outputs")
    unasked = tuple(map(str, row.get("unasked") or ()))
    findings = row.get("findings") or {}
    if isinstance(findings, list):
        findings = {entry.get("check") or entry["role"]: entry for entry in findings}
    completion = Completion(tuple(outputs), logprobs, unasked=unasked, scores=scores)
    found = {str(name): _named_finding(str(name), value) for name, value in findings.items()}
    said = [text for one in found.values() for text in (one.reasoning, one.text) if text]
    for texts, what in ((texts_of(completion), "an answer has"), (said, "judges say of an answer")):
        if (n := n_bytes(texts)) > MOST_BYTES:
            raise ValueError(f"{n:,} bytes are more than {what}")
    return Recorded(completion, found)


def _named_finding(name: str, value: Any) -> Finding:
    """A finding; a text recorded for a program ("sample/3") is its outcome and must be one."""
    finding = finding_from_json(value)
    if name.startswith("sample/") and isinstance(value, str) and finding.outcome is None:
        return Finding(finding.by, outcome=_outcome({"status": value}))
    return finding


def finding_from_json(value: Any) -> Finding:
    """A finding in any of the documented forms. Raises TypeError or ValueError on another."""
    by = RECORDED
    # Before numbers: a bool is an int.
    if isinstance(value, bool):
        return Finding(
            by,
            text="yes" if value else "no",
            outcome=Outcome("passed" if value else "wrong_answer"),
        )
    if isinstance(value, int | float):
        if not 0 <= value <= 2:
            raise ValueError(f"{value} is neither a probability (0 to 1) nor a preference (1 to 2)")
        # 1 can be either; the benchmark that reads it knows which.
        return Finding(
            by, preference=float(value), probability=float(value) if value <= 1 else None
        )
    if isinstance(value, str):
        return Finding(
            by,
            text=value,
            outcome=_outcome({"status": value}) if value in get_args(OutcomeStatus) else None,
        )
    if value is None:
        return Finding(by, text="")
    outcome = value.get("outcome")
    if isinstance(outcome, str):
        outcome = {"status": outcome}
    if value.get("probability") is not None and not 0 <= value["probability"] <= 1:
        raise ValueError(f"{value['probability']} is no probability")
    number = {
        name: None if value.get(name) is None else _finite(value[name])
        for name in ("probability", "preference")
    }
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
        top_logprobs=(
            None
            if top is None
            else {
                str(t): -math.inf if logprob is None else float(logprob)
                for t, logprob in top.items()
            }
        ),
        ended=None if value.get("ended") is None else finish_reason(value["ended"]),
        reasoning=None if value.get("reasoning") is None else str(value["reasoning"]),
    )


def _outcome(fields: Mapping[str, Any]) -> Outcome:
    if fields["status"] not in get_args(OutcomeStatus):
        raise ValueError(
            f"{fields['status']!r} is no program's outcome."
            f" {nearest(str(fields['status']), get_args(OutcomeStatus))}"
        )
    return Outcome(fields["status"], str(fields.get("detail", "")))


def _finite(number: Any) -> float:
    if not math.isfinite(number):
        raise ValueError(f"{number} is no judge's number")
    return float(number)
