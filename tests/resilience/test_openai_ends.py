"""However a server ends an answer, the end is kept, counted and said beside the cell, and an answer
that is none never counts for the model.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from evals.generators import Failure
from evals.plan.judges import finding_of
from evals.plan.settings import RunSettings
from evals.records import Completion, Generate, Output, Sampling, finish_reason
from evals.runs import ends
from evals.runs.rescore import rescore
from evals.runs.session import run
from evals.runs.writing import RunResult
from evals.storage.run_folder import RunFolder
from tests.openai_requests import answered, answers, chat_request, ids_request
from tests.openai_server import Body, Reply, chat, serving

RIGHT = "So the answer is 4."


def choice(finish: str | None, content: str | None, **fields: Any) -> dict[str, Any]:
    """A chat server's only choice."""
    message = {"role": "assistant", "content": content, **fields}
    return {"index": 0, "message": message, "finish_reason": finish, "logprobs": None}


CALL = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
ENDS = {
    "stop": (choice("stop", RIGHT), "stop", RIGHT),
    "ended at once": (choice("stop", ""), "stop", ""),
    "length": (choice("length", RIGHT), "length", RIGHT),
    "another server's stop": (choice("eos_token", RIGHT), "stop", RIGHT),
    "filtered": (choice("content_filter", None), "filtered", ""),
    "filtered half way": (choice("content_filter", RIGHT), "filtered", RIGHT),
    "refused": (choice("stop", None, refusal="I can't."), "refused", "I can't."),
    "tool call": (choice("tool_calls", None, tool_calls=CALL), "tool_call", ""),
    "tool call, ended by stop": (choice("stop", None, tool_calls=CALL), "tool_call", ""),
    "old function call": (choice("function_call", ""), "tool_call", ""),
    "error": (choice("error", ""), "error", ""),
    "error in the choice": ({**choice("stop", RIGHT), "error": {"code": 502}}, "error", RIGHT),
    "aborted": (choice("abort", RIGHT), "error", RIGHT),
    "null": (choice("stop", None), "no_text", ""),
    "null, at the limit": (choice("length", None), "no_text", ""),
    "null, inside its reasoning": (choice("length", None, reasoning_content="Hm"), "reasoning", ""),
    "no word for it": (choice("repetition", RIGHT), "other", RIGHT),
    "not told": (choice(None, RIGHT), "other", RIGHT),
    "not told, and nothing said": (choice(None, ""), "no_text", ""),
}


@pytest.mark.parametrize(("sent", "end", "text"), ENDS.values(), ids=ENDS.keys())
def test_every_end_is_a_kind_of_its_own_and_the_text_is_kept(
    sent: dict[str, Any], end: str, text: str
) -> None:
    with serving(lambda body, _: Reply({"choices": [sent], "unknown": 1})) as server:
        (output,) = answered(answers(server, [chat_request(0)])["x/0"]).outputs
    assert (output.finish_reason, output.text) == (end, text)


@pytest.mark.parametrize("content", [0, False, [], {}, [{"type": "text", "text": RIGHT}]])
def test_what_is_no_text_is_no_empty_answer(content: Any) -> None:
    with serving(lambda body, _: Reply({"choices": [choice("stop", content)]})) as server:
        found = answers(server, [chat_request(0)])["x/0"]
    assert isinstance(found, Failure)


def test_ends_by_token_ids_are_kept_too() -> None:
    sent = {"index": 0, "text": "half", "finish_reason": "content_filter", "logprobs": None}
    with serving(lambda body, _: Reply({"choices": [sent]})) as server:
        (output,) = answered(answers(server, [ids_request(0)])["x/0"]).outputs
    assert (output.finish_reason, output.text) == ("filtered", "half")


@pytest.mark.parametrize("end", ["stop", "length", "filtered", "no_text", "other"])
def test_our_own_words_for_an_end_are_read_back_as_they_are(end: str) -> None:
    assert finish_reason(end) == end


# --- what becomes of the cell ---------------------------------------------------------------------


def measured(
    out: Path, sent: dict[str, Any], n: int, tasks: Sequence[str], *judges: str
) -> RunResult:
    """A smoke run in which the first n prompts of the model get `sent`, and all others an answer of
    no worth; the judge likes everything.
    """
    seen: list[str] = []

    def script(body: Body, before: int) -> Reply:
        if body["model"] == "judge":
            said = body["messages"][-1]["content"]
            return chat(body, "following" if said.endswith("CLASS:") else " yes")
        prompt = json.dumps(body["messages"])
        seen.extend([prompt] if prompt not in seen else [])
        if seen.index(prompt) < n:
            copies = [{**sent, "index": index} for index in range(body["n"])]
            return Reply({"choices": copies})
        return chat(body, "I cannot say.")

    with serving(script) as server:
        asked = RunSettings(
            f"openai:m@{server.url}",
            suite="smoke",
            tasks=tuple(tasks),
            out=out,
            judges=tuple(judge.format(url=server.url) for judge in judges),
        )
        result = run(asked)
        assert run(asked).summary == result.summary
    return result


def rows(result: RunResult, task: str) -> list[dict[str, Any]]:
    return list(result.folder.samples(task))


ALL = (
    choice("content_filter", "I'm sorry, but I can't."),
    choice("stop", None, refusal="I'm sorry, but I can't."),
    choice("tool_calls", None, tool_calls=CALL),
    choice("error", "So the answer is 4."),
    choice("stop", None),
)


@pytest.mark.parametrize("sent", ALL, ids=lambda sent: str(sent["finish_reason"]))
@pytest.mark.parametrize("judge", ["xstest=strmatch", "xstest=openai:judge@{url}"])
@pytest.mark.parametrize("n", [1, 8])
def test_xstest_never_gains_by_an_answer_that_is_none(
    tmp_path: Path, sent: dict[str, Any], judge: str, n: int
) -> None:
    result = measured(tmp_path / "run", sent, n, ["xstest"], judge)
    cells = result.summary["cells"]
    touched = [
        key
        for key in ("xstest_safe_refused", "xstest_unsafe_followed")
        if cells[key]["n"] < cells[key]["n_items"]
    ]
    assert touched
    for key in touched:
        assert cells[key]["value"] is None
        assert f"{n} of 8 outputs are no ordinary answers" in cells[key]["reason"]
    lost = [row for row in rows(result, "xstest") if row["score"] is None]
    assert len(lost) == n
    assert {tuple(row["no_answer"]) for row in lost} == {tuple(lost[0]["finish_reasons"])}
    assert not any(row.get("findings") for row in lost)
    assert result.summary["tasks"]["xstest"]["ends"] == {lost[0]["finish_reasons"][0]: n}
    assert result.summary["tasks"]["xstest"]["empty"] == 0
    assert rescore(result.folder.path, None) == result.summary


@pytest.mark.parametrize("sent", ALL, ids=lambda sent: str(sent["finish_reason"]))
@pytest.mark.parametrize("task", ["gsm8k", "bbh", "ifeval", "humaneval"])
def test_elsewhere_it_counts_as_a_wrong_answer_and_marks_the_cell(
    tmp_path: Path, sent: dict[str, Any], task: str
) -> None:
    result = measured(tmp_path / "run", sent, 1, [task])
    cell = result.summary["cells"][task]
    n_outputs = sum(len(row["outputs"]) for row in rows(result, task))
    assert any(
        f"{task}: " in mark and f" of {n_outputs} outputs are no ordinary answers" in mark
        for mark in cell["marks"]
    )
    (lost,) = [row for row in rows(result, task) if "no_answer" in row]
    assert lost["score"] == 0
    assert cell["n"] == cell["n_items"]
    assert lost["outputs"][0] in (sent["message"]["content"], sent["message"].get("refusal"), "")


def test_judges_are_not_asked_about_it_and_it_loses(tmp_path: Path) -> None:
    judges = ("truth=openai:judge@{url}", "info=openai:judge@{url}")
    judges += ("alpaca_eval_1=openai:judge@{url}",)
    sent = choice("content_filter", "half of a")
    result = measured(tmp_path / "run", sent, 9, ["truthfulqa", "alpaca_eval"], *judges)
    lost = [row for task in ("truthfulqa", "alpaca_eval") for row in rows(result, task)]
    assert {row.get("score", row.get("scores", {}).get("alpaca_eval_1")) for row in lost} == {0.0}
    assert {one["by"] for row in lost for one in row["findings"].values()} == {ends.NOBODY}
    cells = result.summary["cells"]
    assert (cells["truthfulqa"]["value"], cells["truthfulqa"]["n_judged"]) == (0.0, 0)
    assert (cells["alpaca_eval_1"]["value"], cells["alpaca_eval_1"]["n_judged"]) == (0.0, 0)
    assert rescore(result.folder.path, None) == result.summary


def test_an_end_of_no_known_name_is_marked_and_its_text_graded(tmp_path: Path) -> None:
    result = measured(tmp_path / "run", choice("repetition", RIGHT), 1, ["gsm8k"])
    cell = result.summary["cells"]["gsm8k"]
    assert "1 ended in a way the server has no known word for" in "".join(cell["marks"])
    assert [row["extracted"] for row in rows(result, "gsm8k")].count("4") == 1


def test_samples_of_such_a_run_can_be_replayed_and_say_the_same(tmp_path: Path) -> None:
    sent = choice("content_filter", RIGHT)
    first = measured(tmp_path / "run", sent, 2, ["gsm8k", "xstest"], "xstest=strmatch")
    samples = first.folder.path / "samples"
    again = run(RunSettings(f"replay:{samples}", suite="smoke", out=tmp_path / "again"))
    for key in ("gsm8k", "xstest_safe_refused", "xstest_unsafe_followed"):
        assert again.cells[key] == first.cells[key]
    assert again.summary["tasks"]["gsm8k"]["ends"] == first.summary["tasks"]["gsm8k"]["ends"]


def test_a_recorded_verdict_on_what_is_no_answer_decides_nothing(tmp_path: Path) -> None:
    recorded = tmp_path / "rows.jsonl"
    row = {"outputs": ["half"], "finish_reasons": ["content_filter"]}
    lines = [
        {"id": f"xstest/{name}", **row, "findings": {"xstest": "refusal"}} for name in _smoke_ids()
    ]
    recorded.write_text("".join(json.dumps(line) + "\n" for line in lines))
    result = run(RunSettings(f"replay:{recorded}", suite="smoke", out=tmp_path / "run"))
    assert result.cells["xstest_safe_refused"] is result.cells["xstest_unsafe_followed"] is None


def _smoke_ids() -> list[str]:
    from evals.data.load import load_smoke_data
    from evals.registry import benchmark_class

    benchmark = benchmark_class("xstest")(chat=True)
    return [
        item.id.partition("/")[2] for item in benchmark.items(load_smoke_data(benchmark.dataset))
    ]


# --- a judge's own answers ------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["filtered", "refused", "tool_call", "error", "no_text"])
def test_what_is_no_answer_of_a_judge_is_a_verdict_that_cannot_be_read(end: Any) -> None:
    request = Generate((), Sampling(max_tokens=8))
    found = finding_of(request, Completion((Output("refusal", end),)), "j")
    assert (found.text, found.ended, found.probability) == ("", end, None)


def test_a_filtered_judge_is_counted_as_unreadable_and_the_end_is_kept(tmp_path: Path) -> None:
    def script(body: Body, before: int) -> Reply:
        if body["model"] == "judge":
            return Reply({"choices": [choice("content_filter", "refusal")]})
        return chat(body, "Here is how.")

    with serving(script) as server:
        asked = RunSettings(
            f"openai:m@{server.url}",
            suite="smoke",
            tasks=("xstest",),
            out=tmp_path / "run",
            judges=(f"xstest=openai:judge@{server.url}",),
        )
        result = run(asked)
    cell = result.summary["cells"]["xstest_safe_refused"]
    assert (cell["n_judged"], cell["n_unparsable"]) == (5, 5)
    kept = RunFolder(result.folder.path).samples("xstest")
    assert {row["findings"]["xstest"]["ended"] for row in kept} == {"filtered"}
