"""A model (code-davinci-002) on tasks of BIG-Bench Hard, with its chain of thought (cot) and
without (direct), as the paper's authors released it.

A file holds one task's outputs in the order of its questions, each with its whole prompt. The
paper's rule, under which every accuracy was published: the text after "the answer is " (cot;
without one final full stop) or the whole output (direct), stripped, is the target letter for
letter. The card's rule beside it ignores case and punctuation.

A second accuracy was published with a calculator that is not among the released files. Where it is
the same figure, so is ours; for object_counting, working out the last sum that the output writes
gives it back; for multistep_arithmetic_two nothing simple does.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from glob import escape
from pathlib import Path
from typing import Any, Protocol

from evals.fidelity.corpora import Figure, Recording, Value, listed, metric, read_rows, share
from evals.generators.replay import Recorded
from evals.records import Completion, ItemId, Output

_RULES = {
    "cot": 'the paper\'s: the text after "the answer is", letter for letter',
    "direct": "the paper's: the output, letter for letter",
}
_SUM = re.compile(r"(\d+(?: \+ \d+)+) =")
_ALL_DIGITS = 16  # released as a whole float


class Question(Protocol):
    """What is read of an item."""

    id: ItemId
    group: str
    question: str
    target: str


def recordings(
    folder: Path, about: Mapping[str, Any], items: Sequence[Question]
) -> Iterator[Recording]:
    """Two recordings, cot and direct. Raises ValueError when a row is about another question than
    the task file's.
    """
    source = f"{about['published_where'].partition(';')[0]}, {about['source']}"
    for mode in _RULES:
        model, answers = "", dict[ItemId, Recorded]()
        figures: list[Figure] = []
        for record in about["published"]:
            task = record["task"]
            # Every task's file is in the folder of the first one's: one model's.
            file = listed(folder, about, f"{escape(model) or '*'}-{mode}/{task}_*.json.gz")
            model = file.parent.name.removesuffix(f"-{mode}")
            rows = read_rows(file, lambda raw: json.loads(raw)["outputs"])
            asked = [item for item in items if item.group == task]
            if len(rows) != len(asked):
                raise ValueError(f"{file} has {len(rows)} rows about {len(asked)} questions")
            texts = []
            for item, row in zip(asked, rows, strict=True):
                if item.question not in row.take("input", str):
                    raise ValueError(f"{row.where} is about another question than {item.id}")
                texts.append((item, row.take("prediction", str)))
            answers |= {item.id: Recorded(Completion((Output(text),)), {}) for item, text in texts}
            figures += _figures(task, mode, record[mode], texts, source)
        yield Recording(f"{model} {mode}", answers, figures, chat=False)


def _figures(
    task: str,
    mode: str,
    record: Mapping[str, Any],
    texts: Sequence[tuple[Question, str]],
    source: str,
) -> Iterator[Figure]:
    ours = share([_answer(text, mode) == item.target for item, text in texts])
    card, rule = metric(f"bbh/{task}"), _RULES[mode]
    yield Figure(task, record["accuracy"], _ALL_DIGITS, source, ours, rule=rule, card=card)
    printed, why = record["accuracy_with_calc"], ""
    if printed != record["accuracy"] and task == "object_counting":
        ours = share([_last_sum(text) == item.target for item, text in texts])
        rule = f"{rule}; the last sum that the output writes, worked out"
    elif printed != record["accuracy"]:
        nothing = Value(None, len(texts))
        ours, why = (lambda _: nothing), "the calculator is not among the released files"
    yield Figure(
        f"{task}, with a calculator",
        printed,
        _ALL_DIGITS,
        source,
        ours,
        rule=rule,
        card=card,
        why=why,
    )


def _answer(text: str, mode: str) -> str:
    return (
        text.partition("the answer is ")[2].strip().removesuffix(".")
        if mode == "cot"
        else text.strip()
    )


def _last_sum(text: str) -> str:
    sums = _SUM.findall(text)
    return str(sum(map(int, sums[-1].split("+")))) if sums else ""
