"""HumanEval against the published executor's text, the released verdicts and the reference
solutions.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from evals.data.dataset import content_hash
from evals.data.load import load_card_data, load_smoke_data
from evals.fidelity.corpora import Recording, released_verdict
from evals.fidelity.corpora.humaneval import recordings
from evals.records import (
    Completion,
    Finding,
    Findings,
    Message,
    Outcome,
    OutcomeStatus,
    Output,
    Program,
)
from evals.sandbox.launch import Level
from evals.sandbox.pool import Sandbox
from tasks.humaneval import HumanEval, HumanEvalItem, program

BENCHMARK = HumanEval(chat=True)


@pytest.fixture(scope="module")
def items(data_dir: Path) -> Sequence[HumanEvalItem]:
    return BENCHMARK.items(load_card_data([HumanEval.dataset], data_dir)["humaneval"])


@pytest.fixture(scope="module", params=["namespace", "process"])
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    level: Level = request.param
    if level == "namespace" and not shutil.which("bwrap"):
        pytest.skip("bubblewrap (bwrap) is not installed: the namespace level is not tested")
    with Sandbox(level=level) as opened:
        yield opened


def test_items_are_the_164_problems_in_file_order(items: Sequence[HumanEvalItem]) -> None:
    assert [item.id for item in items] == [f"humaneval/{n}" for n in range(164)]
    assert {item.group for item in items} == {""}
    assert sum(item.prompt.startswith("\n") for item in items) == 142
    assert all(item.prompt.endswith("\n") for item in items)


def test_package_ships_the_very_file(data_dir: Path) -> None:
    assert HumanEval.dataset.package_file
    shipped = HumanEval.dataset.package_file().read_bytes()
    assert (
        hashlib.sha256(shipped).hexdigest()
        == "b796127e635a67f93fb35c04f4cb03cf06f38c8072ee7cee8833d7bee06979ef"
    )
    assert shipped == (data_dir / "humaneval" / "HumanEval.jsonl.gz").read_bytes()


def test_content_hash_on_record_is_that_of_the_rows(data_dir: Path) -> None:
    rows = load_card_data([HumanEval.dataset], data_dir)["humaneval"].rows("test")
    assert HumanEval.dataset.content_sha256("test") == content_hash(rows)


def test_smoke_suite_takes_the_first_three_from_the_package(items: Sequence[HumanEvalItem]) -> None:
    assert BENCHMARK.items(load_smoke_data(HumanEval.dataset)) == items[:3]


def test_request_is_the_bare_prompt_sampled_twenty_times_for_base_and_chat(
    items: Sequence[HumanEvalItem],
) -> None:
    request = BENCHMARK.request(items[0])
    assert request == HumanEval(chat=False).request(items[0])
    assert request.raw
    assert request.opening == ""
    assert request.messages == (Message("user", items[0].prompt),)
    sampling = request.sampling
    assert (
        sampling.n,
        sampling.temperature,
        sampling.top_p,
        sampling.max_tokens,
        sampling.seed,
    ) == (20, 0.8, 0.95, 512, None)
    assert sampling.stop == ("\nclass", "\ndef", "\n#", "\nif", "\nprint")


def test_program_is_the_published_executors_text(items: Sequence[HumanEvalItem]) -> None:
    item = items[32]
    made = program(item, "    return 0.0")
    assert (
        f"{made.source}\n{made.checks}"
        == f"{item.prompt}    return 0.0\n{item.test}\ncheck({item.entry_point})"
    )
    assert made.wall_s == 3.0


def test_every_reference_solution_passes(items: Sequence[HumanEvalItem], sandbox: Sandbox) -> None:
    outcomes = sandbox.map([program(item, BENCHMARK.gold(item)) for item in items])
    assert [
        (item.id, outcome)
        for item, outcome in zip(items, outcomes, strict=True)
        if outcome.status != "passed"
    ] == []


@pytest.fixture(scope="module")
def recorded(items: Sequence[HumanEvalItem], replay_dir: Path) -> dict[str, Recording]:
    about = json.loads((replay_dir / "humaneval" / "README.json").read_text("utf-8"))
    return {
        recording.name: recording
        for recording in recordings(replay_dir / "humaneval", about, items)
    }


@pytest.mark.parametrize(
    ("model", "n_passed"),
    [
        ("WizardCoder-15B-V1.0 (greedy)", 98),
        ("gpt-4 (simple_1)", 134),
        ("gpt-3.5-turbo (simple_1)", 42),
    ],
)
def test_every_released_verdict_comes_back(
    items: Sequence[HumanEvalItem],
    sandbox: Sandbox,
    recorded: dict[str, Recording],
    model: str,
    n_passed: int,
) -> None:
    answers = recorded[model].answers
    programs: list[Program] = []
    for item in items:
        (check,) = BENCHMARK.checks(item, answers[item.id].completion)
        assert isinstance(check.ask, Program)
        programs.append(check.ask)
    outcomes = sandbox.map(programs)
    passed = {
        item.id: outcome.status == "passed" for item, outcome in zip(items, outcomes, strict=True)
    }
    assert len(answers) == 164
    assert [
        item_id
        for item_id, answer in answers.items()
        if released_verdict(answer) != passed[item_id]
    ] == []
    assert sum(passed.values()) == n_passed


def _graded(item: HumanEvalItem, **counts: int) -> tuple[Completion, Findings]:
    """An answer whose samples ended so: status -> how many."""
    statuses = [status for status in get_args(OutcomeStatus) for _ in range(counts.get(status, 0))]
    answer = Completion(tuple(Output("") for _ in statuses))
    names = [check.name for check in BENCHMARK.checks(item, answer)]
    return answer, {
        name: Finding("sandbox", outcome=Outcome(status))
        for name, status in zip(names, statuses, strict=True)
    }


@pytest.mark.parametrize(
    ("c", "expected"),
    [(0, 0.0), (1, 0.5), (2, 0.7632), (3, 0.8947), (4, 0.9567), (5, 0.9837), (11, 1.0), (20, 1.0)],
)
def test_pass_at_10_of_twenty_samples(
    items: Sequence[HumanEvalItem], c: int, expected: float
) -> None:
    grade = BENCHMARK.grade(items[0], *_graded(items[0], passed=c, time=20 - c))
    assert grade.scores["humaneval"] == pytest.approx(expected, abs=5e-5)
    assert grade.scores["pass@1"] == grade.details["pass@1"] == c / 20
    assert grade.details["n"] == 20
    assert grade.details["c"] == c
    assert grade.missing is None
    assert not grade.unparsed


def test_details_count_how_samples_ended(items: Sequence[HumanEvalItem]) -> None:
    grade = BENCHMARK.grade(items[0], *_graded(items[0], passed=1, time=2, wrong_answer=7))
    assert grade.details["statuses"] == {"passed": 1, "time": 2, "wrong_answer": 7}


def test_one_recorded_sample_gives_pass_at_1_and_says_why_not_10(
    items: Sequence[HumanEvalItem],
) -> None:
    grade = BENCHMARK.grade(items[0], *_graded(items[0], passed=1))
    assert grade.scores == {"pass@1": 1.0}
    assert grade.missing == "pass@10 needs 10 samples, there are 1"
    metrics = BENCHMARK.summarize([grade])
    assert metrics["humaneval"].value is None
    assert metrics["pass@1"].value == 1.0


def test_missing_finding_leaves_the_item_unscored_and_in_the_denominator(
    items: Sequence[HumanEvalItem],
) -> None:
    answer, findings = _graded(items[0], passed=20)
    partial = BENCHMARK.grade(
        items[0],
        answer,
        {name: finding for name, finding in findings.items() if name != "sample/7"},
    )
    assert partial.scores == {}
    assert partial.missing == "1 of 20 samples were not run"
    whole = BENCHMARK.grade(items[1], answer, findings)
    metric = BENCHMARK.summarize([whole, partial])["humaneval"]
    assert (metric.value, metric.n, metric.n_items) == (None, 1, 2)


def test_column_is_the_mean_over_problems(items: Sequence[HumanEvalItem]) -> None:
    grades = [
        BENCHMARK.grade(items[0], *_graded(items[0], passed=c, exited=20 - c)) for c in (0, 1, 20)
    ]
    metrics = BENCHMARK.summarize(
        [replace(grade, id=item.id) for grade, item in zip(grades, items, strict=False)]
    )
    assert metrics[BENCHMARK.columns[0].key].value == pytest.approx(0.5)
    assert metrics["pass@1"].value == pytest.approx(0.35)


@pytest.mark.parametrize(
    ("n", "scores", "missing"),
    [(10, {"humaneval", "pass@1"}, None), (9, {"pass@1"}, "pass@10 needs 10 samples, there are 9")],
)
def test_ten_samples_are_enough_for_pass_at_ten_and_fewer_give_pass_at_one_alone(
    n: int, scores: set[str], missing: str | None
) -> None:
    (item, *_) = BENCHMARK.items(load_smoke_data(HumanEval.dataset))
    findings = {f"sample/{i}": Finding("sandbox", outcome=Outcome("passed")) for i in range(n)}
    grade = BENCHMARK.grade(item, Completion((Output("x"),) * n), findings)
    assert (set(grade.scores), grade.missing, grade.group) == (scores, missing, item.group)
    assert BENCHMARK.grade(item, Completion(()), {}).missing == "no samples"
