"""A chat server that shows none of the candidates has not chosen; nothing is invented for it."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from evals.data.load import load_smoke_data
from evals.plan.judges import finding_of
from evals.plan.settings import RunSettings
from evals.records import Choose, Completion, FinishReason, Output, Sampling
from evals.registry import benchmark_class
from evals.runs.grading import TaskResult, grade_task
from evals.runs.session import run
from evals.runs.summary import summarize
from tasks.truthfulqa import Label, judge_label
from tests.openai_requests import answered, answers, chat_request, choose_request, ids_request
from tests.openai_server import Body, Reply, chat, completion, serving
from tests.unit.runs.test_summary import head

WORDS = {"The": -0.01, "**": -5.0, "Answer": -6.0, "Based": -7.0, "I": -8.0}
SHOWN = {
    "no letter": (WORDS, {}),
    "letters inside words": ({"All": -0.1, "Be": -1.0, "Ab": -2.0}, {}),
    "one letter, low down": (
        {"The": -0.01, "C": -5.0, "**": -6.0},
        {"A": -7.0, "B": -7.0, "C": -5.0, "D": -7.0},
    ),
    "two spellings": ({" B": -0.5, "B": -2.0}, {"A": -3.0, "B": -0.5, "C": -3.0, "D": -3.0}),
}


@pytest.mark.parametrize(("top", "expected"), SHOWN.values(), ids=SHOWN.keys())
def test_what_is_shown_decides_and_nothing_else(
    top: Mapping[str, float], expected: Mapping[str, float]
) -> None:
    with serving(lambda body, _: chat(body, "The", top)) as server:
        answer = answered(answers(server, [choose_request(ids=False)])["x/0"])
    assert answer.choice_logprobs == expected
    assert answer.has_no_choice == (not expected)


@pytest.mark.parametrize("by_ids", [False, True])
@pytest.mark.parametrize(
    ("asked", "room", "end"), [(1, 1, "stop"), (8, 8, "length"), (8, 1, "length")]
)
def test_the_one_token_that_was_asked_for_is_not_cut_off(
    by_ids: bool, asked: int, room: int, end: str
) -> None:
    sampling = Sampling(max_tokens=asked)
    request = replace((ids_request if by_ids else chat_request)(0, sampling), max_new_tokens=room)

    def script(body: Body, before: int) -> Reply:
        reply = (completion if by_ids else chat)(body)
        reply.body["choices"][0]["finish_reason"] = "length"
        return reply

    with serving(script) as server:
        (output,) = answered(answers(server, [request])["x/0"]).outputs
    assert output.finish_reason == end


@pytest.mark.parametrize("end", ["length", "stop"])
def test_choices_by_chat_are_not_said_to_have_ended_at_the_limit(end: FinishReason) -> None:
    benchmark = benchmark_class("mmlu")(chat=True)
    items = list(benchmark.items(load_smoke_data(benchmark.dataset)))
    given = Completion((Output("A", end),), dict.fromkeys("ABCD", -1.0))
    result = grade_task(benchmark, items, {item.id: given for item in items})
    assert (result.shares["truncated"], result.warnings) == (0, [])


def chosen(n_unshown: int, n: int) -> TaskResult:
    """n questions, all answered right but those that the server showed no letter of."""
    benchmark = benchmark_class("mmlu")(chat=True)
    smoke = list(benchmark.items(load_smoke_data(benchmark.dataset)))
    items = [
        type(item)(**{**vars(item), "id": f"{item.id}/{index}"})
        for index, item in enumerate(smoke * (n // len(smoke) + 1))
    ][:n]
    given = {
        item.id: Completion(
            choice_logprobs={}
            if index < n_unshown
            else {letter: float(letter == item.answer) for letter in "ABCD"}
        )
        for index, item in enumerate(items)
    }
    return grade_task(benchmark, items, given)


@pytest.mark.parametrize("n_unshown", [0, 1, 2, 3, 200])
def test_above_one_in_a_hundred_there_is_no_number(n_unshown: int) -> None:
    result = chosen(n_unshown, 200)
    summary = summarize(head(), [result], {})
    cell = summary["cells"]["mmlu"]
    said = f"no candidate among the server's likeliest tokens for {n_unshown} of 200 items"
    assert sum(grade.unparsed for grade in result.grades) == n_unshown
    if n_unshown <= 2:
        assert cell["value"] == 1 - n_unshown / 200
        assert [said in mark for mark in cell["marks"]] == [True] * bool(n_unshown)
    else:
        assert cell["value"] is None
        assert cell["reason"] == (
            f"{200 - n_unshown} of 200 items scored: the server showed no letter among its"
            " likeliest tokens"
        )
        assert summary["metrics"]["mmlu"]["mmlu"]["value"] is None


def test_a_server_that_shows_no_letter_has_no_mmlu(tmp_path: Path) -> None:
    with serving(lambda body, _: chat(body, "The", WORDS)) as server:
        asked = RunSettings(
            f"openai:m@{server.url}", suite="smoke", tasks=("mmlu",), out=tmp_path / "run"
        )
        result = run(asked)
        assert run(asked).summary == result.summary
    cell = result.summary["cells"]["mmlu"]
    assert cell["value"] is None
    assert "the server showed no letter among its likeliest tokens" in cell["reason"]
    assert {row["extracted"] for row in result.folder.samples("mmlu")} == {None}


@pytest.mark.parametrize(
    ("said", "label"),
    [
        ("The", Label(False, parsed=False)),
        ("no", Label(False)),
        (" No", Label(False)),
        ("", Label(False, parsed=False)),
    ],
)
def test_a_judge_that_does_not_show_its_yes_is_read_by_its_words(said: str, label: Label) -> None:
    request = Choose((), (("yes", " yes"),), raw=True)
    top = {said or "…": -0.01, "maybe": -4.0}
    with serving(lambda body, _: chat(body, said, top)) as server:
        answer = answered(answers(server, [choose_request(ids=False)])["x/0"])
    assert answer.has_no_choice
    finding = finding_of(request, answer, "j")
    assert finding.probability is None
    assert judge_label(finding) == label
