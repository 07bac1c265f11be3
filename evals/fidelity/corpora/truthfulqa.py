"""TruthfulQA's judges: no answers with verdicts were released, but people's labels of 2,554 answers
for each judge, in the data folder.

The judges' published accuracies on those rows need the judges' weights. What can be had without
them: the adapter asks a judge about such an answer in the very words of its row, and reads a
person's label as the label it is.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from evals.data.files import Row, read_jsonl
from evals.data.load import data_folder
from evals.errors import InputError
from evals.fidelity.corpora import Figure, Recording, Scored, Value
from evals.records import Choose, Completion, Finding, ItemId, Output

_SHA256 = {
    "truth": "4469a6a91f23a2d98eff26d0d8464970b278b2f9cfc80b132fe807ef06932810",
    "info": "aeff42a0fad5b95af0b7bf549d3cb3a488db62b670a5d2702e528f0839b712aa",
}
_NO_WEIGHTS = "the judge's weights are not among the recordings"
_YES = " yes"


class Question(Protocol):
    """What is read of an item."""

    id: ItemId
    question: str


def recordings(
    folder: Path, about: Mapping[str, Any], items: Sequence[Question]
) -> Iterator[Recording]:
    """One recording a published judge, and one of the people's labels;
    none holds answers to score.
    """
    for record in about["published"]:
        figures, source = [], f"{record['where']}, {about['source']}"
        for name in sorted(record.keys() - {"judge", "where"}):
            ends = (
                dict(zip((", lowest", ", highest"), record[name], strict=True))
                if isinstance(record[name], list)
                else {"": record[name]}
            )
            for end, printed in ends.items():
                figures.append(
                    Figure(
                        name + end,
                        printed,
                        3,
                        source,
                        lambda _: Value(None, 0, _NO_WEIGHTS),
                        unit=1,
                    )
                )
        yield Recording(record["judge"], {}, figures)
    figures = []
    for role in _SHA256:
        source = f"data/{_name(role)}, {about['source']}"
        figures.append(
            Figure(
                f"{role}: rows asked in the same words",
                100,
                1,
                source,
                partial(_share_asked, role, items),
            )
        )
        figures.append(
            Figure(
                f"{role}: labels read as given", 100, 1, source, partial(_share_read, role, items)
            )
        )
    yield Recording("people's labels of the judges' development sets", {}, figures)


def _share_asked(role: str, items: Sequence[Question], scored: Scored) -> Value:
    """The share of rows whose prompt is what the adapter asks this judge, with " yes" as the
    candidate.
    """
    same = []
    for row, item, answer in _rows(role, items, scored.data):
        asks = {check.name: check.ask for check in scored.result.benchmark.checks(item, answer)}
        ask = asks[role]
        same.append(
            isinstance(ask, Choose)
            and (ask.messages[0].content, ask.candidates[0][1]) == (row["prompt"], _YES)
        )
    return (
        Value(sum(same) / len(same), len(same))
        if same
        else Value(None, 0, f"the data folder has no {_name(role)}")
    )


def _share_read(role: str, items: Sequence[Question], scored: Scored) -> Value:
    """The share of rows whose label the adapter reads as given."""
    same, n_positive = [], 0
    for row, item, answer in _rows(role, items, scored.data):
        grade = scored.result.benchmark.grade(
            item, answer, {role: Finding("people", text=row["completion"])}
        )
        same.append(not grade.unparsed and grade.scores[role] == (row["completion"] == _YES))
        n_positive += row["completion"] == _YES
    why = f"{n_positive:,} of {len(same):,} positive"
    return (
        Value(sum(same) / len(same), len(same), why)
        if same
        else Value(None, 0, f"the data folder has no {_name(role)}")
    )


def _name(role: str) -> str:
    return f"truthfulqa/finetune_{role}_dev.jsonl"


def _rows(
    role: str, items: Sequence[Question], data: Path | None
) -> Iterator[tuple[Row, Any, Completion]]:
    """Each row with its item and its answer. Raises InputError when the file is not the released
    one.
    """
    home = data_folder(data)
    if home is None or not (home / _name(role)).is_file():
        return
    raw = (home / _name(role)).read_bytes()
    if hashlib.sha256(raw).hexdigest() != _SHA256[role]:
        raise InputError(
            f"{_name(role)} is damaged: its SHA-256 is not the released file's. Get it again."
        )
    by_question = {item.question.strip(): item for item in items}
    for row in read_jsonl(raw):
        question, _, answer = (
            row["prompt"].removeprefix("Q: ").rpartition("\n")[0].partition("\nA: ")
        )
        yield row, by_question[question], Completion((Output(answer),))
