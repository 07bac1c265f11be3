"""Graded GSM8K answers: the GPT-3 systems of the GSM8K paper, and chat models that ZeroEval asked
for JSON.

example_model_solutions: a row a question in the test file's order, each solution with its released
flag. Its rule is the paper's: what follows the last "A: " is the gold answer, letter for letter.
zeroeval: the output is JSON with "reasoning" and "answer", not always valid. Its rule: the first
number of the last "answer" field is the gold number; an output without that field has no answer.

Beside both stands the card's rule on the very same text: the last number of the whole output.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from glob import escape
from pathlib import Path
from typing import Any, Protocol

from evals.data.files import read_json, read_jsonl
from evals.fidelity.corpora import (
    Figure,
    Recording,
    Released,
    Scored,
    Value,
    agreement,
    by_item,
    listed,
    metric,
    one_of,
    released,
    share,
)
from evals.generators.replay import Recorded
from evals.records import Completion, ItemId, Output

_PAPER, _ZEROEVAL = "example_model_solutions", "zeroeval"
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
    addresses = {folder / file["path"]: file["source"]["repository"] for file in about["files"]}
    questions = {item.id: item.question for item in items}
    for record in about["published"]:
        model, of_paper = record["model"], one_of(record["set"], (_PAPER, _ZEROEVAL)) == _PAPER
        pattern = f"{_PAPER}.jsonl.gz" if of_paper else f"{_ZEROEVAL}/{escape(model)}.json.gz"
        file = listed(folder, about, pattern)
        read = read_jsonl if of_paper else read_json
        rows = by_item(file, read, questions, lambda row: row.take("question", str))
        source = f"{record['where']}, {addresses[file]}"
        if of_paper:
            solutions = [(item, rows[item.id].take(model, dict)) for item in items]
            found = [
                (item, solution.take("solution", str), solution.take("is_correct", bool))
                for item, solution in solutions
            ]
            answers = {
                item.id: Recorded(Completion((Output(text),)), released(flag))
                for item, text, flag in found
            }
            yield Recording(model, answers, _paper_figures(record, source, found), chat=False)
        else:
            texts = [(item, _only_output(rows[item.id])) for item in items]
            answers = {item.id: Recorded(Completion((Output(text),)), {}) for item, text in texts}
            yield Recording(model, answers, _zeroeval_figures(record, source, texts))


def _only_output(row: Released) -> str:
    match row["output"]:
        case [str(text)]:
            return text
    raise ValueError(f"{row.where}: 'output' is not a list of one text")


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
