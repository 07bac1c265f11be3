"""Answers of three models to the XSTest prompts with labels by people, by GPT-4 and by string
match, as the authors released them.

One recording a model and labeller. The published rates are shares of three classes among the safe
and the unsafe prompts; the card has two, and a partial refusal is a refusal there. GPT-4 sometimes
answered in words of its own: no class, but in the denominator. Ids are v2-1 to v2-450 and join by
number: prompt 195 reads differently today.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from glob import escape
from pathlib import Path
from typing import Any

from evals.data.files import read_csv
from evals.fidelity.corpora import (
    Figure,
    Recording,
    Released,
    Scored,
    Value,
    by_item,
    listed,
    one_of,
)
from evals.generators.replay import Recorded
from evals.records import Completion, Finding, Item, ItemId, Output
from evals.registry import benchmark_class

_PARTIAL = "3_partial_refusal"
_CARD = {"1_full_compliance": "following", "2_full_refusal": "refusal", _PARTIAL: "refusal"}
_FILES = {"final_label": "", "gpt4_label": "_gpteval", "strmatch_label": "_streval"}
_RULE = "strmatch"
_APART = "three classes, a partial refusal apart from a refusal"


def recordings(
    folder: Path, about: Mapping[str, Any], items: Sequence[Item]
) -> Iterator[Recording]:
    """One recording a model and labeller. Raises ValueError when a file lacks a prompt's row."""
    source = f"{about['published_where'].partition(' at the')[0]}, {about['source']}"
    ids = {item.id: item.id for item in items}
    for model, by_labeller in about["published"].items():
        for labeller, rates in by_labeller.items():
            suffix = _FILES[one_of(labeller, _FILES)]
            file = listed(folder, about, f"xstest_v2_completions_{escape(model)}{suffix}.csv")
            by_id = by_item(file, read_csv, ids, _id)
            answers = {item_id: _recorded(row, labeller) for item_id, row in by_id.items()}
            labels = {item_id: row.take(labeller, str) for item_id, row in by_id.items()}
            figures = list(_figures(rates, labels, source))
            if labeller == "strmatch_label":
                released = "released labels that come back"
                figures.append(
                    Figure(
                        released,
                        len(by_id),
                        0,
                        f"{labeller}, {about['source']}",
                        _agreement(labels),
                        unit=len(by_id),
                    )
                )
            yield Recording(f"{model}, {labeller}", answers, figures)


def _id(row: Released) -> str:
    return f"xstest/{row.take('id', str).removeprefix('v2-')}"


def _recorded(row: Released, labeller: str) -> Recorded:
    """The answer and its label in the card's words; by string match the label is our own rule's,
    not the released one.
    """
    text, label = row.take("completion", str), row.take(labeller, str)
    label = (
        benchmark_class("xstest").rules[_RULE](text)
        if labeller == "strmatch_label"
        else _CARD.get(label, label)
    )
    return Recorded(Completion((Output(text),)), {"xstest": Finding(labeller, text=label)})


def _figures(
    rates: Mapping[str, Mapping[str, str]], labels: Mapping[ItemId, str], source: str
) -> Iterator[Figure]:
    for prompts, shares in rates.items():
        for label, printed in shares.items():
            name, number, safe = (
                f"{prompts}, {label}",
                float(printed.rstrip("%")),
                prompts == "safe_prompts",
            )
            card = _share(_CARD.get(label, label), safe)
            if label == _PARTIAL:
                yield Figure(
                    name,
                    number,
                    1,
                    source,
                    _share(label, safe, labels),
                    why="the card has no such class",
                )
            elif label == "2_full_refusal" and _PARTIAL in shares:
                yield Figure(
                    name, number, 1, source, _share(label, safe, labels), rule=_APART, card=card
                )
            else:
                yield Figure(name, number, 1, source, card)


def _share(
    label: str, safe: bool, labels: Mapping[ItemId, str] | None = None
) -> Callable[[Scored], Value]:
    """The share of safe or unsafe prompts with this label: the one the adapter read, or the one in
    `labels`.
    """

    def share(scored: Scored) -> Value:
        grades = [grade for grade in scored.result.grades if grade.details["safe"] == safe]
        found = [labels[grade.id] if labels else grade.extracted for grade in grades]
        return Value(found.count(label) / len(found), len(found))

    return share


def _agreement(labels: Mapping[ItemId, str]) -> Callable[[Scored], Value]:
    """The share of items whose label by our rule is the released one."""

    def share(scored: Scored) -> Value:
        same = [grade.extracted == _CARD.get(labels[grade.id]) for grade in scored.result.grades]
        return Value(sum(same) / len(same), len(same))

    return share
