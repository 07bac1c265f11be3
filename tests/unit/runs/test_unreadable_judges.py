"""A judge that cannot be read judges nothing: no cell, and above all none where lower is better,
has a number made of its silence.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

import evals
from evals.benchmark import Benchmark
from evals.compare.gate import check
from evals.compare.policy import Policy
from evals.plan.judges import CARD_JUDGES, COUNTED_AS_UNREADABLE
from evals.records import Completion, Finding, Findings, Item, ItemId, Output
from evals.report.items import task_items
from evals.report.run_row import row_from_summary
from evals.report.table import markdown
from evals.runs.grading import MOST_UNREADABLE, TaskResult, VerdictCounts, grade_task
from evals.runs.rescore import rescore
from evals.runs.summary import summarize
from evals.storage.run_folder import RunFolder
from tasks.alpaca_eval import AlpacaEval, AlpacaItem
from tasks.truthfulqa import TruthfulQA, TruthfulQAItem
from tasks.xstest import XSTest, XSTestItem

JUDGES = {role: f"judge-of-{role}" for role in CARD_JUDGES}
ANSWER = Completion((Output("An answer."),))
BABBLE = "Well, it depends."


def head(judges: Mapping[str, str] = JUDGES, notes: Sequence[str] = ()) -> dict[str, Any]:
    """The header of a run with these judges, each with the same notes."""
    named = {
        role: {"name": name, "card": False, "notes": list(notes)} for role, name in judges.items()
    }
    model = {"name": "m"}
    return {
        "schema": 1,
        "suite": "card",
        "limit": None,
        "model": model,
        "prompts_by": "tokenizer",
        "judges": named,
    }


def graded(
    benchmark: Benchmark[Any], items: Sequence[Item], verdicts: Sequence[Findings]
) -> TaskResult:
    """The items, all answered alike, with a verdict each."""
    ids = [item.id for item in items]
    return grade_task(
        benchmark, items, dict.fromkeys(ids, ANSWER), dict(zip(ids, verdicts, strict=True))
    )


def xstest(n: int, unread: range, *, kind: str = "homonyms", label: str = "refusal") -> TaskResult:
    """n prompts of one type, all judged alike but those of which the judge babbles."""
    items = [XSTestItem(ItemId(f"xstest/{at}"), kind, f"{at}?") for at in range(n)]
    said = [BABBLE if at in unread else label for at in range(n)]
    return graded(XSTest(chat=True), items, [{"xstest": Finding("j", text=text)} for text in said])


def truthfulqa(n: int, truth: range = range(0), info: range = range(0)) -> TaskResult:
    """n questions, all called true and informative but those of which a judge babbles."""
    items = [TruthfulQAItem(ItemId(f"truthfulqa/{at}"), "", f"{at}?") for at in range(n)]
    found = [
        {
            role: Finding("j", text=BABBLE if at in unread else "yes")
            for role, unread in (("truth", truth), ("info", info))
        }
        for at in range(n)
    ]
    return graded(TruthfulQA(chat=True), items, found)


def alpaca_eval(n: int, role: str, unread: range) -> TaskResult:
    """n instructions, all won but those of which one of the judges babbles."""
    other = {"alpaca_eval_1": "alpaca_eval_2", "alpaca_eval_2": "alpaca_eval_1"}[role]
    items = [
        AlpacaItem(ItemId(f"alpaca_eval/{at}"), "", f"{at}?", {role: "Other.", other: "Other."})
        for at in range(n)
    ]
    won = Finding("j", preference=2.0)
    found = [
        {role: Finding("j", text=BABBLE) if at in unread else won, other: won} for at in range(n)
    ]
    return graded(AlpacaEval(chat=True), items, found)


def cells_of(
    result: TaskResult, header: Mapping[str, Any] | None = None
) -> dict[str, dict[str, Any]]:
    """The cells of a run of one task."""
    cells: dict[str, dict[str, Any]] = summarize(header or head(), [result], {})["cells"]
    return cells


# --- the share ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("judged", "unreadable", "nothing"),
    [
        (0, 0, False),
        (1, 0, False),
        (1, 1, True),
        (19, 1, True),
        (20, 1, False),
        (60, 3, False),
        (60, 4, True),
        (140, 7, False),
        (817, 40, False),
        (817, 41, True),
    ],
)
def test_more_than_one_in_twenty_is_too_many(judged: int, unreadable: int, nothing: bool) -> None:
    assert VerdictCounts(judged, unreadable).decide_nothing is nothing


@pytest.mark.parametrize("judged", range(20, 2020, 20))
def test_exactly_the_share_is_never_too_many_whatever_floats_do(judged: int) -> None:
    assert MOST_UNREADABLE == 1 / 20
    assert not VerdictCounts(judged, judged // 20).decide_nothing
    assert VerdictCounts(judged, judged // 20 + 1).decide_nothing


@pytest.mark.parametrize(
    ("kind", "label", "key"),
    [
        ("homonyms", "refusal", "xstest_safe_refused"),
        ("contrast_homonyms", "following", "xstest_unsafe_followed"),
    ],
)
@pytest.mark.parametrize(
    ("unread", "value"), [(0, 1.0), (5, 0.95), (6, None), (50, None), (100, None)]
)
def test_a_column_where_lower_is_better_is_never_lowered_by_a_failing_judge(
    kind: str, label: str, key: str, unread: int, value: float | None
) -> None:
    found = cells_of(xstest(100, range(unread), kind=kind, label=label))[key]
    assert found["value"] == (None if value is None else pytest.approx(value))
    assert (found["n_judged"], found["n_unparsable"]) == (100, unread)
    assert (found["ci95"] is None, found["stderr"] is None) == (value is None, value is None)
    counted = f"xstest: {unread} of 100 items have a verdict that could not be read"
    assert (counted in found["marks"]) == (value is not None and unread > 0)


def test_each_column_is_held_to_its_own_items() -> None:
    """A judge that will not speak of the unsafe prompts has still judged the safe ones."""
    kinds = ["homonyms"] * 150 + ["contrast_homonyms"] * 50
    items = [XSTestItem(ItemId(f"xstest/{at}"), kind, f"{at}?") for at, kind in enumerate(kinds)]
    said = ["refusal"] * 150 + ["I cannot help with that"] * 5 + ["refusal"] * 45
    result = graded(
        XSTest(chat=True), items, [{"xstest": Finding("j", text=text)} for text in said]
    )
    found = cells_of(result)
    assert found["xstest_safe_refused"]["value"] == 1.0
    assert found["xstest_unsafe_followed"]["value"] is None
    assert found["xstest_unsafe_followed"]["reason"].startswith("5 of 50 items")


# --- the reason -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("result", "key", "begins", "judges"),
    [
        (xstest(100, range(100)), "xstest_safe_refused", "100 of 100", {"xstest": 100}),
        (truthfulqa(100, truth=range(6)), "truthfulqa", "6 of 100", {"truth": 6}),
        (truthfulqa(100, info=range(6)), "truthfulqa", "6 of 100", {"info": 6}),
        (
            # Each below the share, and the cell all the same moved by both.
            truthfulqa(100, truth=range(3), info=range(3, 8)),
            "truthfulqa",
            "8 of 100",
            {"truth": 3, "info": 5},
        ),
        (
            alpaca_eval(100, "alpaca_eval_1", range(100)),
            "alpaca_eval_1",
            "100 of 100",
            {"alpaca_eval_1": 100},
        ),
        (
            alpaca_eval(100, "alpaca_eval_2", range(7)),
            "alpaca_eval_2_lc",
            "7 of 100",
            {"alpaca_eval_2": 7},
        ),
    ],
)
def test_the_reason_says_how_many_whose_and_what_to_do(
    result: TaskResult, key: str, begins: str, judges: Mapping[str, int]
) -> None:
    found = cells_of(result)[key]
    assert (found["value"], found["marks"]) == (None, [])
    assert found["reason"].startswith(f"{begins} items have a verdict that could not be read (")
    for role in CARD_JUDGES:
        named = f"{judges.get(role)} by judge-of-{role} as {role}"
        assert (named in found["reason"]) == (role in judges)
        assert (f"--judge {role}=MODEL" in found["reason"]) == (role in judges)
    assert "more than 5%" in found["reason"]
    assert "evals show" in found["reason"]


def test_the_other_column_of_the_same_answers_keeps_its_number() -> None:
    found = cells_of(alpaca_eval(100, "alpaca_eval_2", range(100)))
    assert (found["alpaca_eval_1"]["value"], found["alpaca_eval_2_lc"]["value"]) == (1.0, None)


def test_two_judges_that_fail_on_the_same_items_fail_once() -> None:
    found = cells_of(truthfulqa(100, truth=range(4), info=range(4)))["truthfulqa"]
    assert (found["value"], found["n_unparsable"]) == (pytest.approx(0.96), 4)


def test_answers_too_long_for_the_judge_are_named_as_the_cause() -> None:
    note = f"xstest: 100 answers too long for j to judge, {COUNTED_AS_UNREADABLE}"
    found = cells_of(xstest(100, range(100)), head(notes=[note, "a calibration's line"]))
    assert f"; {note}; " in found["xstest_safe_refused"]["reason"]
    assert "calibration" not in found["xstest_safe_refused"]["reason"]


def test_recorded_verdicts_are_nobodys() -> None:
    found = cells_of(xstest(100, range(100)), head({}) | {"prompts_by": "recording"})
    assert "100 by an unknown judge as xstest" in found["xstest_safe_refused"]["reason"]


def test_what_was_not_answered_or_not_judged_is_said_before() -> None:
    result = xstest(100, range(100))
    items = [XSTestItem(grade.id, grade.group, "?") for grade in result.grades]
    findings = {item.id: {"xstest": Finding("j", text=BABBLE)} for item in items[1:]}
    unanswered = grade_task(
        XSTest(chat=True), items, {item.id: ANSWER for item in items[1:]}, findings
    )
    unjudged = grade_task(XSTest(chat=True), items, {item.id: ANSWER for item in items}, findings)
    reasons = [
        cells_of(result)["xstest_safe_refused"]["reason"] for result in (unanswered, unjudged)
    ]
    assert reasons == ["99 of 100 items answered", "99 of 100 items scored"]


# --- everything that is made of the cell ----------------------------------------------------------


def test_the_average_lacks_an_input() -> None:
    found = cells_of(xstest(100, range(100)))["average"]
    assert found["value"] is None
    assert "xstest_safe_refused" in found["reason"]


def test_no_metric_of_an_unreadable_judge_has_a_value_but_the_share_itself() -> None:
    def values(result: TaskResult) -> dict[str, float | None]:
        found: Mapping[str, Any] = summarize(head(), [result], {})["metrics"]
        return {n: m["value"] for n, m in found[result.benchmark.name].items()}

    found = values(alpaca_eval(100, "alpaca_eval_2", range(60)))
    assert (found["alpaca_eval_2_win_rate"], found["alpaca_eval_2_lc"]) == (None, None)
    assert (found["alpaca_eval_2_unparsable"], found["alpaca_eval_1"]) == (0.6, 1.0)
    found = values(truthfulqa(100, truth=range(100)))
    assert (found["truthfulqa"], found["truth"], found["info"]) == (None, None, 1.0)
    found = values(xstest(100, range(100)))
    assert (found["xstest_safe_refused"], found["judge_unparsable"]) == (None, 1.0)
    assert found["strmatch_safe_refused"] == 0.0


# --- a run ----------------------------------------------------------------------------------------


def recorded(folder: Path, label: str) -> Path:
    """A run of XSTest's smoke items from a recording, all with one verdict."""
    file = folder / "recorded.jsonl"
    row = {"outputs": ["Sure, here it is."], "findings": {"xstest": label}}
    lines = [json.dumps(row | {"id": f"xstest/{at}"}) + "\n" for at in range(1, 9)]
    folder.mkdir()
    file.write_text("".join(lines))
    evals.run(f"replay:{file}", suite="smoke", out=folder / "run")
    return folder / "run"


def test_a_run_its_table_its_page_and_another_scoring_say_the_same(tmp_path: Path) -> None:
    run = RunFolder(recorded(tmp_path / "x", BABBLE))
    summary = run.read_json("summary.json")
    cells = summary["cells"]
    for key, n in (("xstest_safe_refused", 5), ("xstest_unsafe_followed", 3)):
        assert cells[key]["value"] is None
        assert cells[key]["reason"].startswith(f"{n} of {n} items have a verdict")
    assert "5 of 5 items have a verdict that could not be read" in markdown(
        [row_from_summary(summary)]
    )
    rescore(run.path, None)
    assert run.read_json("summary.json") == summary
    samples = list(run.samples("xstest"))
    assert [row["findings"]["xstest"]["text"] for row in samples] == [BABBLE] * 8


@pytest.mark.parametrize(("label", "has_parts"), [("refusal", True), (BABBLE, False)])
def test_the_page_has_no_sub_scores_of_an_unreadable_judge(
    tmp_path: Path, label: str, has_parts: bool
) -> None:
    run = RunFolder(recorded(tmp_path / "x", label))
    summary, record = (run.read_json(f"{name}.json") for name in ("summary", "run"))
    found = task_items(run, summary, record, "xstest", None)
    assert bool(found.parts) is has_parts


def test_the_gate_takes_an_unreadable_judge_for_no_improvement(tmp_path: Path) -> None:
    """The baseline refuses every safe prompt, the worst there is: silence is still not better."""
    baseline, candidate = (
        recorded(tmp_path / name, label) for name, label in (("b", "refusal"), ("c", BABBLE))
    )
    gate = check(baseline, candidate, Policy())
    state = {column.difference.key: column.state for column in gate.columns}
    assert (state["xstest_safe_refused"], gate.verdict, gate.exit_code) == (
        "incomplete",
        "incomplete",
        3,
    )
    back = check(candidate, baseline, Policy())
    assert {c.difference.key: c.state for c in back.columns}["xstest_safe_refused"] == (
        "not compared"
    )
