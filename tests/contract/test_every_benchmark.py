"""What the engine may expect of any benchmark: the rules of evals.runs.contract for all that are
registered, under the settings of all our cards.
"""

from collections.abc import Sequence
from typing import Any

import pytest

from evals.benchmark import Benchmark
from evals.cards.published import shipped, shipped_names
from evals.records import Choose, Completion, Item, ItemId, Output
from evals.registry import BENCHMARKS, benchmark_class, bound, variants
from evals.runs.contract import RULES, Rule, Tried, broken
from evals.runs.grading import grade_task

ANSWERED_BY_GOLD = ("mmlu", "gsm8k", "bbh")

every_style = pytest.mark.parametrize("chat", [True, False], ids=["chat", "base"])
VARIANTS = {
    name: variant
    for card in shipped_names()
    for name, variant in variants(bound(shipped(card))).items()
}
"""Each benchmark, under each of the settings under which a card of ours asks it."""


def new(name: str, chat: bool) -> tuple[Benchmark[Any], Sequence[Item]]:
    """A fresh benchmark and its smoke items."""
    return Tried(VARIANTS[name], chat).new()


def test_every_benchmark_is_on_a_card_and_called_as_it_is_registered() -> None:
    classes = {name: benchmark_class(name) for name in BENCHMARKS}
    assert {one.cls for one in VARIANTS.values()} == set(classes.values())
    assert {name: (cls.name, cls.dataset.name) for name, cls in classes.items()} == {
        name: (name, name) for name in BENCHMARKS
    }


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("name", VARIANTS)
def test_it_keeps_the_rule(name: str, rule: Rule) -> None:
    assert broken(rule, VARIANTS[name]) == []


def test_no_two_benchmarks_share_a_column() -> None:
    keys = [one.key for name in BENCHMARKS for one in benchmark_class(name).own_columns()]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("name", ANSWERED_BY_GOLD)
@every_style
def test_the_gold_answer_scores_full_marks(name: str, chat: bool) -> None:
    benchmark, items = new(name, chat)
    answers: dict[ItemId, Completion] = {}
    for item in items:
        gold = benchmark.gold(item)
        request = benchmark.request(item)
        if isinstance(request, Choose):
            answers[item.id] = Completion(
                choice_logprobs={
                    label: -0.1 if label == gold else -3.0 for label, _ in request.candidates
                }
            )
        else:
            answers[item.id] = Completion((Output(f"So the answer is {gold}."),))
    result = grade_task(benchmark, items, answers)
    assert [result.metrics[column.key].value for column in benchmark.columns] == [1.0]
    assert result.shares["unparsed"] == 0


@every_style
def test_a_wrong_answer_scores_nothing(chat: bool) -> None:
    for name in ANSWERED_BY_GOLD:
        benchmark, items = new(name, chat)
        answers: dict[ItemId, Completion] = {}
        for item in items:
            gold = benchmark.gold(item)
            if name == "mmlu":
                answers[item.id] = Completion(
                    choice_logprobs={label: -3.0 if label == gold else -0.1 for label in "ABCD"}
                )
            else:
                answers[item.id] = Completion((Output("So the answer is 123456789 wrongs."),))
        assert grade_task(benchmark, items, answers).metrics[name].value == 0.0
