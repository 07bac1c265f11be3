"""Graded GSM8K answers: the GPT-3 systems of the GSM8K paper, and chat models that ZeroEval asked
for JSON.

example_model_solutions: a row a question in the test file's order, each solution with its released
flag. Its rule is the paper's: what follows the last "A: " is the gold answer, letter for letter.
zeroeval: the output is JSON with "reasoning" and "answer", not always valid. Its rule: the first
number of the last "answer" field is the gold number; an output without that field has no answer.

Beside both stands the card's rule on the very same text: the last number of the whole output.
"""

import gzip
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from evals.data.files import read_json, read_jsonl_gz
from evals.fidelity.corpora import (
    Figure,
    Recording,
    Scored,
    Value,
    agreement,
    metric,
    released,
    share,
)
from evals.generators.replay import Recorded
from evals.records import Completion, ItemId, Output

_PAPER = "example_model_solutions"
_PAPER_RULE = 'the paper\'s: what follows "A: " is the gold answer'
_ZEROEVAL_RULE = "ZeroEval's: the first number of the JSON's \"answer\""
_NO_ANSWER = 'ZeroEval\'s: no "answer" field'
_FIELD = re.compile(r'"answer"\s*:\s*"?([^"\n}]*)')
_NUMBER = re.compile(r"-?[\d,]*\.?\d+")
_ALL_DIGITS = 16  # released as a whole float


class Question(Protocol):
    """What is read of an item."""

    id: ItemId
    question: str
    answer: str


def recordings(
    folder: Path, about: Mapping[str, Any], items: Sequence[Question]
) -> Iterator[Recording]:
    """One recording a system. Raises ValueError when a row is about another question than the test
    file's.
    """
    addresses = dict(zip((_PAPER, "zeroeval"), about["source"], strict=True))
    solutions = list(read_jsonl_gz((folder / f"{_PAPER}.jsonl.gz").read_bytes()))
    for record in about["published"]:
        model, source = record["model"], f"{record['where']}, {addresses[record['set']]}"
        if record["set"] == _PAPER:
            rows = [
                (item, row[model]["solution"], row[model]["is_correct"])
                for item, row in _joined(items, solutions)
            ]
            answers = {
                item.id: Recorded(Completion((Output(text),)), released(flag))
                for item, text, flag in rows
            }
            yield Recording(model, answers, _paper_figures(record, source, rows), chat=False)
        else:
            outputs = read_json(
                gzip.decompress((folder / record["set"] / f"{model}.json.gz").read_bytes())
            )
            texts = [(item, row["output"][0]) for item, row in _joined(items, outputs)]
            answers = {item.id: Recorded(Completion((Output(text),)), {}) for item, text in texts}
            yield Recording(model, answers, _zeroeval_figures(record, source, texts))


def _joined(
    items: Sequence[Question], rows: Sequence[dict[str, Any]]
) -> Iterator[tuple[Question, dict[str, Any]]]:
    for item, row in zip(items, rows, strict=True):
        if row["question"] != item.question:
            raise ValueError(f"the row for {item.id} is about another question")
        yield item, row


def _paper_figures(
    record: Mapping[str, Any], source: str, rows: Sequence[tuple[Question, str, bool]]
) -> list[Figure]:
    verdicts = [text.rpartition("A: ")[2] == item.answer for item, text, _ in rows]
    same = share([verdict == flag for verdict, (_, _, flag) in zip(verdicts, rows, strict=True)])
    right, card, n = share(verdicts), metric("gsm8k"), record["n"]
    return [
        Figure(
            "accuracy",
            record["accuracy"],
            _ALL_DIGITS,
            source,
            right,
            unit=1,
            rule=_PAPER_RULE,
            card=card,
        ),
        Figure(
            "correct answers",
            record["n_correct"],
            0,
            source,
            right,
            unit=n,
            rule=_PAPER_RULE,
            card=card,
        ),
        Figure(
            "released flags that come back",
            n,
            0,
            source,
            same,
            unit=n,
            rule=_PAPER_RULE,
            card=agreement("gsm8k"),
        ),
    ]


def _zeroeval_figures(
    record: Mapping[str, Any], source: str, texts: Sequence[tuple[Question, str]]
) -> list[Figure]:
    fields = [_FIELD.findall(text) for _, text in texts]
    right = [
        bool(found) and _is_number(found[-1], item.answer)
        for (item, _), found in zip(texts, fields, strict=True)
    ]
    none = share([not found for found in fields])

    def no_number(scored: Scored) -> Value:
        return Value(scored.result.shares["unparsed"], len(texts))

    return [
        Figure(
            "accuracy",
            record["accuracy_percent"],
            2,
            source,
            share(right),
            rule=_ZEROEVAL_RULE,
            card=metric("gsm8k"),
        ),
        Figure(
            "outputs without an answer",
            record["no_answer_percent"],
            2,
            source,
            none,
            rule=_NO_ANSWER,
            card=no_number,
        ),
    ]


def _is_number(field: str, gold: str) -> bool:
    first = _NUMBER.search(field)
    return first is not None and float(first.group().replace(",", "")) == float(gold)
