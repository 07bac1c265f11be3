"""What the engine may expect of any benchmark: one test for all that are registered, and for the
ninth.
"""

import random
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from importlib import import_module
from typing import Any

import pytest

from evals.benchmark import Benchmark
from evals.data.load import load_smoke_data
from evals.records import (
    Choose,
    Completion,
    Finding,
    Generate,
    Grade,
    Item,
    ItemId,
    Message,
    Output,
    Program,
)
from evals.registry import BENCHMARKS, benchmark_class
from evals.runs.grading import grade_task
from evals.storage import spool
from evals.storage.spool import Spool

HEAVY = (
    "torch",
    "vllm",
    "pandas",
    "transformers",
    "datasets",
    "lm_eval",
    "alpaca_eval",
    "nltk",
    "scipy",
    "sklearn",
    "openai",
)
ROOT_OF_MODULE = {name: path.partition(":")[0] for name, path in BENCHMARKS.items()}
ANSWERED_BY_GOLD = ("mmlu", "gsm8k", "bbh")

every_benchmark = pytest.mark.parametrize("name", BENCHMARKS)
every_style = pytest.mark.parametrize("chat", [True, False], ids=["chat", "base"])


def new(name: str, chat: bool) -> tuple[Benchmark[Any], Sequence[Item]]:
    """A fresh benchmark and its smoke items."""
    benchmark = benchmark_class(name)(chat=chat)
    return benchmark, list(benchmark.items(load_smoke_data(benchmark.dataset)))


def answer_to(benchmark: Benchmark[Any], item: Item, text: str) -> Completion:
    """An answer of the form the request asks for."""
    request = benchmark.request(item)
    if isinstance(request, Choose):
        seeded = random.Random(f"{item.id} {text!r}")
        return Completion(
            choice_logprobs={label: -seeded.random() for label, _ in request.candidates}
        )
    return Completion(tuple(Output(f"{text} {n}") for n in range(request.sampling.n)))


def findings_for(benchmark: Benchmark[Any], item: Item, answer: Completion) -> dict[str, Finding]:
    """A verdict for each check, varied by item, in every form a check may decide by."""
    from evals.generators.replay import finding_from_json

    seeded = random.Random(str(item.id))
    forms = [1, 1.25, True, False, "refusal", "following"]
    return {
        check.name: replace(finding_from_json(seeded.choice(forms)), by="judge")
        for check in benchmark.checks(item, answer)
    }


@cache
def graded(name: str, chat: bool) -> tuple[Grade, ...]:
    """The smoke items with an answer and verdicts each, graded."""
    benchmark, items = new(name, chat)
    answers = {
        item.id: answer_to(benchmark, item, f"So the answer is {index}.")
        for index, item in enumerate(items)
    }
    return tuple(
        benchmark.grade(item, answers[item.id], findings_for(benchmark, item, answers[item.id]))
        for item in items
    )


@every_benchmark
def test_its_module_imports_nothing_heavy(name: str) -> None:
    probe = f"import sys, {ROOT_OF_MODULE[name]}; print(*sorted(set(sys.modules) & {set(HEAVY)!r}))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@every_benchmark
def test_its_class_says_what_the_engine_reads(name: str) -> None:
    cls = benchmark_class(name)
    assert cls.name == name == cls.dataset.name
    assert cls.own_columns()
    assert all(one.name and one.words for one in cls.metrics)
    assert {one.metric for one in cls.own_columns()} == set(cls.headline or [cls.metrics[0].name])
    assert import_module(ROOT_OF_MODULE[name]).__doc__
    assert all(dataset_table.fields for dataset_table in cls.dataset.tables.values())


def test_no_two_benchmarks_share_a_column() -> None:
    keys = [one.key for name in BENCHMARKS for one in benchmark_class(name).own_columns()]
    assert len(set(keys)) == len(keys)


@every_benchmark
@every_style
def test_items_have_unique_stable_ids_that_begin_with_the_tasks_name(name: str, chat: bool) -> None:
    _, items = new(name, chat)
    ids = [item.id for item in items]
    assert ids
    assert len(set(ids)) == len(ids)
    assert all(
        item_id.startswith(f"{name}/") and re.fullmatch(r"[\w/.-]+", item_id) for item_id in ids
    )
    assert (
        ids
        == [item.id for item in new(name, chat)[1]]
        == [item.id for item in new(name, not chat)[1]]
    )


@every_benchmark
@every_style
def test_requests_are_equal_whenever_they_are_made_and_of_one_of_two_kinds(
    name: str, chat: bool
) -> None:
    benchmark, items = new(name, chat)
    other, again = new(name, chat)
    random.seed(7)
    first = [benchmark.request(item) for item in items]
    random.seed(8)
    second = [other.request(item) for item in reversed(again)]
    assert first == second[::-1]
    for request in first:
        assert isinstance(request, Generate | Choose)
        assert request.messages
        assert all(isinstance(message, Message) and message.content for message in request.messages)
        if isinstance(request, Generate):
            assert request.sampling.max_tokens > 0
            assert request.sampling.n == 1 or request.sampling.temperature > 0
        else:
            assert len(dict(request.candidates)) == len(request.candidates) > 1


@every_benchmark
@every_style
def test_checks_are_equal_whenever_they_are_made_and_named_once_an_item(
    name: str, chat: bool
) -> None:
    benchmark, items = new(name, chat)
    for item in items:
        answer = answer_to(benchmark, item, "Certainly.")
        checks = benchmark.checks(item, answer)
        assert list(checks) == list(benchmark.checks(item, answer))
        names = [check.name for check in checks]
        assert len(set(names)) == len(names)
        judged = {check.name for check in checks if not isinstance(check.ask, Program)}
        assert judged == set(benchmark.judge_roles)
        assert (len(judged) < len(names)) == benchmark.runs_programs


@every_benchmark
@every_style
def test_grading_is_pure(name: str, chat: bool) -> None:
    before = graded(name, chat)
    random.seed(99)
    graded.cache_clear()
    assert graded(name, chat) == before
    assert all(0 <= score <= 1 for grade in before for score in grade.scores.values())


@every_benchmark
@every_style
def test_metrics_do_not_depend_on_the_order_of_the_grades(name: str, chat: bool) -> None:
    benchmark, _ = new(name, chat)
    grades = list(graded(name, chat))
    in_order = dict(benchmark.summarize(grades))
    for seed in range(5):
        shuffled = grades.copy()
        random.Random(seed).shuffle(shuffled)
        assert dict(benchmark.summarize(shuffled)) == in_order
    assert dict(benchmark.summarize(grades)) == in_order


@every_benchmark
@every_style
def test_every_column_has_its_metric_and_a_value_in_the_unit_interval_or_a_reason(
    name: str, chat: bool
) -> None:
    benchmark, _ = new(name, chat)
    metrics = benchmark.summarize(graded(name, chat))
    for measure in benchmark.metrics:
        metric = metrics[measure.name]
        assert (metric.value is None) == bool(metric.reason)
        if metric.value is not None:
            assert 0 <= metric.value <= 1
            assert metric.ci95 is None or metric.ci95[0] <= metric.value <= metric.ci95[1]


@every_benchmark
@every_style
def test_its_items_and_grades_come_back_from_disk(
    name: str, chat: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "_BLOCK", 1)
    _, items = new(name, chat)
    assert list(Spool(items)) == items
    assert tuple(Spool(graded(name, chat))) == graded(name, chat)


@every_benchmark
@every_style
def test_an_unanswered_item_keeps_its_place_and_withholds_the_value(name: str, chat: bool) -> None:
    benchmark, items = new(name, chat)
    answers = {item.id: answer_to(benchmark, item, "Certainly.") for item in items}
    findings = {item.id: findings_for(benchmark, item, answers[item.id]) for item in items}
    for lost in (items[0], items[-1]):
        kept = {item_id: answer for item_id, answer in answers.items() if item_id != lost.id}
        result = grade_task(benchmark, items, kept, findings)
        assert len(result.grades) == len(items)
        assert result.n_answered == len(items) - 1
        assert not result.is_complete
        metrics = [result.metrics[column.key] for column in benchmark.columns]
        assert any(metric.value is None and metric.n < metric.n_items for metric in metrics)
        # Columns are about every item each, or share them out among themselves, as XSTest's do.
        assert {metric.n_items for metric in metrics} == {len(items)} or sum(
            metric.n_items for metric in metrics
        ) == len(items)


@every_benchmark
@every_style
def test_an_empty_and_a_hostile_answer_are_graded_like_any_other(name: str, chat: bool) -> None:
    benchmark, items = new(name, chat)
    for text in ("", "\ud800\x00\u202e", "9" * 5000, "[" * 3000, "the answer is " * 500):
        for item in items[:2]:
            answer = answer_to(benchmark, item, text)
            grade = benchmark.grade(item, answer, findings_for(benchmark, item, answer))
            assert grade.id == item.id


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


@every_benchmark
@every_style
def test_messages_are_of_the_roles_that_chat_formats_know(name: str, chat: bool) -> None:
    benchmark, items = new(name, chat)
    assert {message.role for item in items for message in benchmark.request(item).messages} <= {
        "system",
        "user",
        "assistant",
    }
