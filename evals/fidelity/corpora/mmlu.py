"""HELM's 5-shot MMLU predictions: the first token each of five models gave for a question, as
mmlu-redux released them.

HELM turns the token into the text of the option it stands for and compares that with the text of
the right option (stanford-crfm/helm, evaluate_reference_metrics.py: output_mapping, then
exact_match), so a letter also counts where its option reads like the right one. That is the
corpus's rule; its mean is over subjects, the card's over questions. A token that is no letter
("To", "The", an empty cell) is wrong there; the adapter, which always has four letters to choose
from, is handed a wrong one.

27 questions of the test files are there twice, and once in the released file. HELM asked both with
the same prompt, so both have that answer: every published figure comes back so, and 21 of 175 would
not without them.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from evals.data.files import read_csv
from evals.fidelity.corpora import Figure, Recording, Value, by_item, listed, metric, one_of, share
from evals.generators.replay import Recorded
from evals.records import Completion, ItemId, Output

_FILE = "helm_mmlu_predictions.csv.gz"
_LETTERS = ("A", "B", "C", "D")
_DECIMALS = 3  # JSON drops the zeros at the end
_RULE = "HELM's: a letter counts as the text of its option, which may be written under two letters"


class Question(Protocol):
    """What is read of an item."""

    id: ItemId
    group: str
    question: str
    choices: tuple[str, ...]
    answer: str


def recordings(
    folder: Path, about: Mapping[str, Any], items: Sequence[Question]
) -> Iterator[Recording]:
    """One recording a model; its figures are the mean and the subjects that the leaderboard's
    record holds.
    """
    # The released column holds the choices as Python prints a list.
    keys = {item.id: (item.group, item.question, str(list(item.choices))) for item in items}
    rows = by_item(
        listed(folder, about, _FILE),
        read_csv,
        keys,
        lambda row: (row["subject"], row["question"], row["choices"]),
    )
    for record in about["published"]:
        model = record["model"]
        tokens = {item_id: row.take(model, str).strip() for item_id, row in rows.items()}
        answers = {item.id: Recorded(_completion(item, tokens[item.id]), {}) for item in items}
        yield Recording(model, answers, list(_figures(record, items, tokens)))


def _completion(item: Question, token: str) -> Completion:
    chosen = token if token in _LETTERS else "B" if item.answer == "A" else "A"
    return Completion(
        (Output(token),), {letter: 0.0 if letter == chosen else -math.inf for letter in _LETTERS}
    )


def _figures(
    record: Mapping[str, Any], items: Sequence[Question], tokens: Mapping[ItemId, str]
) -> Iterator[Figure]:
    source = f"HELM MMLU leaderboard, {record['where'].partition(' as recorded')[0]}"
    right: dict[str, list[bool]] = {}
    for item in items:
        options = dict(zip(_LETTERS, item.choices, strict=True))
        right.setdefault(item.group, []).append(
            options.get(tokens[item.id]) == options[item.answer]
        )
    macro = Value(
        math.fsum(sum(group) / len(group) for group in right.values()) / len(right), len(items)
    )
    rule = f"{_RULE}; mean of the subjects' means"
    yield Figure(
        "mean accuracy",
        record["mean_accuracy"],
        _DECIMALS,
        source,
        lambda _: macro,
        unit=1,
        rule=rule,
        card=metric("mmlu"),
    )
    for title, accuracy in sorted(record["subjects"].items()):
        subject = one_of(title.lower().replace(" ", "_"), right)
        card = metric(f"mmlu/{subject}")
        yield Figure(
            subject,
            accuracy,
            _DECIMALS,
            source,
            share(right[subject]),
            unit=1,
            rule=_RULE,
            card=card,
        )
