"""What an answer sets off, piece by piece: graded at once, put to a judge, run in the sandbox."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from evals.plan.make import make_plan
from evals.plan.questions import Question
from evals.plan.settings import RunSettings
from evals.records import Completion, Finding, ItemId, Outcome, Output
from evals.runs.known import Known
from evals.runs.landing import Landing
from evals.runs.programs import Programs
from evals.runs.progress import Progress
from evals.storage.store import Store

REFUSAL = Completion((Output("I'm sorry, but I can't help with that."),))
PASSES = Completion((Output("    return 1\n"),) * 20)
JUDGE = "openai:judge@http://127.0.0.1:9/v1"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "store.sqlite")
    yield store
    store.close()


def landing(tmp_path: Path, store: Store, row: Mapping[str, object], **settings: object) -> Landing:
    """Where answers of one task land; its first item has this recorded row."""
    recorded = tmp_path / "recorded.jsonl"
    recorded.write_text(json.dumps(row) + "\n")
    asked = RunSettings(f"replay:{recorded}", suite="smoke", **settings)  # type: ignore[arg-type]
    plan = make_plan(asked)
    programs = Programs(store, "run", Progress(quiet=True), plan.settings.sandbox)
    return Landing(plan, Known(), programs)


def land(at: Landing, answer: Completion) -> ItemId:
    """The answer to the task's first item lands."""
    (task,) = at.plan.tasks
    request = at.plan.render(task, range(1))
    at.known.expect(task, range(1), [("key", request[0])])
    at.land(request[0], answer)
    return request[0].item_id


def test_an_answer_that_waits_for_nothing_is_graded_and_its_place_is_taken(
    tmp_path: Path, store: Store
) -> None:
    at = landing(tmp_path, store, {"id": "gsm8k/0", "outputs": ["x"]})
    land(at, Completion((Output("So the answer is 1."),)))
    (graded,) = at.known.graded["gsm8k"]
    assert graded is not None
    assert (graded.grade.id, graded.grade.extracted) == ("gsm8k/0", "1")
    assert (at.known.places, at.known.findings, at.known.questions) == ({}, {}, {})


def test_a_rule_decides_at_once(tmp_path: Path, store: Store) -> None:
    at = landing(tmp_path, store, {"id": "xstest/1", "outputs": ["x"]}, judges=("xstest=strmatch",))
    land(at, REFUSAL)
    (graded,) = at.known.graded["xstest"]
    assert graded is not None
    assert graded.findings["xstest"].by == "strmatch"
    assert at.known.questions == {}


def test_a_judge_is_asked_and_what_another_was_recorded_to_say_is_forgotten(
    tmp_path: Path, store: Store
) -> None:
    row = {"id": "xstest/1", "outputs": ["x"], "findings": {"xstest": "refusal"}}
    at = landing(tmp_path, store, row, judges=(f"xstest={JUDGE}",))
    item_id = land(at, REFUSAL)
    (question,) = at.known.questions[JUDGE]
    assert (question.item_id, question.role) == (item_id, "xstest")
    assert at.known.findings == {item_id: {}}
    assert list(at.known.graded["xstest"]) == [None]
    assert at.known.n_unjudged == 1
    at.known.found(item_id, "xstest", Finding(by=JUDGE, text="2_full_refusal"))
    assert at.known.n_unjudged == 0


@pytest.mark.parametrize("policy", ["auto", "require"])
def test_recorded_outcomes_stand_unless_the_sandbox_is_required(
    policy: str, tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes = {f"sample/{n}": "passed" for n in range(20)}
    row = {"id": "humaneval/0", "outputs": ["x"], "findings": outcomes}
    at = landing(tmp_path, store, row, sandbox=policy)
    submitted: list[str] = []
    monkeypatch.setattr(
        Programs, "submit", lambda _, item_id, check, program: submitted.append(check)
    )
    item_id = land(at, PASSES)
    (graded,) = at.known.graded["humaneval"]
    if policy == "auto":
        assert submitted == []
        assert graded is not None
        assert {found.by for found in graded.findings.values()} == {"recorded"}
    else:
        assert submitted == list(outcomes)
        assert graded is None
        assert at.known.findings[item_id] == {}


def test_what_a_check_found_goes_to_the_item_that_waits() -> None:
    known = Known()
    known.findings[ItemId("a/0")] = {}
    known.questions["judge"] = [
        Question(ItemId("a/0"), role, None)  # type: ignore[arg-type]
        for role in ("truth", "info")
    ]
    known.found(ItemId("a/0"), "truth", Finding(by="sandbox", outcome=Outcome("passed")))
    assert known.n_unjudged == 1


def test_an_answer_that_nobody_expects_is_a_fault_of_ours(tmp_path: Path, store: Store) -> None:
    at = landing(tmp_path, store, {"id": "gsm8k/0", "outputs": ["x"]})
    with pytest.raises(KeyError):
        at.land(at.plan.render("gsm8k", range(1))[0], REFUSAL)
