"""What was graded is the answer: reasoning is told from it wherever it comes from, kept beside it,
counted, and never graded without a word.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import evals
from evals.compare.runs import comparability
from evals.errors import InputError
from evals.models.embedded import embedded_folder
from evals.models.prompting import PromptSettings
from evals.models.prompts import Rendered
from evals.models.reasoning import ReasoningSettings, check_reasoning, marks_of
from evals.plan.make import make_plan
from evals.plan.settings import RunSettings
from evals.records import (
    Completion,
    Generate,
    Message,
    Output,
    Sampling,
)
from evals.report.show import describe_item
from evals.runs import reasoned, session
from evals.runs.rescore import rescore
from evals.runs.session import run
from evals.runs.writing import RunResult
from evals.storage.store import Store, completion_from_json
from tests.openai_server import Body, Reply, chat, serving
from tests.resilience.fake_runs import Engines
from tests.unit.conftest import Call

ROOM = ReasoningSettings(reasoning_tokens=64)

# --- a run ----------------------------------------------------------------------------------------


def thinker(folder: Path) -> str:
    """The embedded model's folder, with a template that opens a block for the assistant."""
    folder.mkdir()
    for file in embedded_folder().iterdir():
        if file.name != "chat_template.jinja":
            (folder / file.name).symlink_to(file)
    template = (embedded_folder() / "chat_template.jinja").read_text("utf-8")
    opening = "<|im_start|>assistant\n"
    assert template.count(opening) == 1
    (folder / "chat_template.jinja").write_text(template.replace(opening, f"{opening}<think>\n"))
    return str(folder)


def engine(*texts: str) -> Engines:
    """Answers with these texts by turns."""
    n = iter(range(10**6))

    def answer(request: Rendered) -> Completion:
        if request.labels:
            return Completion(choice_logprobs={label: -1.0 for label, _ in request.labels})
        said = texts[next(n) % len(texts)]
        return Completion((Output(said, "stop", tuple(range(3, 9))),) * request.sampling.n)

    return Engines(answer)


def measured(out: Path, engines: Engines, model: str = "smollm2", **changes: Any) -> RunResult:
    how = {"suite": "smoke", "tasks": ("gsm8k",), "out": out, **changes}
    return run(RunSettings(model, **how), make_generator=engines)


def rows(result: RunResult, task: str = "gsm8k") -> list[dict[str, Any]]:
    return list(result.folder.samples(task))


def marks(result: RunResult, cell: str = "gsm8k") -> str:
    return "\n".join(result.summary["cells"][cell]["marks"])


def test_a_runs_answers_alone_are_graded_and_everything_else_is_kept_counted_and_said(
    tmp_path: Path,
) -> None:
    engines = engine("<think>Is it 12?</think>\n\nIt is 7.")
    done = measured(tmp_path / "run", engines)
    assert {row["extracted"] for row in rows(done)} == {"7"}
    assert {row["outputs"][0] for row in rows(done)} == {"It is 7."}
    assert {row["reasoning"][0] for row in rows(done)} == {"Is it 12?"}
    assert "gsm8k: reasoning told from 6 of 6 outputs" in marks(done)
    assert done.summary["tasks"]["gsm8k"]["reasoning"]["outputs"] == 6
    shown = describe_item(tmp_path / "run", rows(done)[0]["id"], None)
    assert "── reasoning, not graded" in shown
    assert shown.index("Is it 12?") < shown.index("── output") < shown.index("It is 7.")
    store = Store(tmp_path / "run" / "store.sqlite", read_only=True)
    kept = store.get(engines.asked[0])
    store.close()
    assert isinstance(kept, Completion)
    assert kept.text == "<think>Is it 12?</think>\n\nIt is 7."  # as the engine said it
    assert rescore(tmp_path / "run", None) == done.summary
    (tmp_path / "run" / "store.sqlite").unlink()
    assert rescore(tmp_path / "run", None) == done.summary  # from the samples alone


def test_the_same_command_tells_them_apart_in_another_way_and_asks_nothing_again(
    tmp_path: Path,
) -> None:
    texts = ("<think>Is it 12?</think>\n\nIt is 7.", "Hm, 12.</think>It is 7.")
    first = measured(tmp_path / "run", engine(*texts))
    before = rows(first)
    assert [row["extracted"] for row in before] == ["7"] * 6
    assert "3 of 6 outputs graded with <think> or </think> in them" in marks(first)
    again = engine("never")
    for mode, told, says in (
        ("keep", 0, "6 of 6 outputs graded with <think> or </think> in them, with all reasoning"),
        ("strip", 6, "reasoning told from 6 of 6 outputs"),
    ):
        how = ReasoningSettings(reasoning=mode)
        done = measured(tmp_path / "run", again, reading=how)
        assert again.asked == []
        assert sum("reasoning" in row for row in rows(done)) == told
        assert says in marks(done)
        assert rescore(tmp_path / "run", None) == done.summary
        # Without the tokenizer, whose count of tokens is the only thing that is missed.
        rescore(tmp_path / "run", None, ReasoningSettings())
        told = [(row["outputs"], row.get("reasoning"), row["score"]) for row in rows(first)]
        assert told == [(row["outputs"], row.get("reasoning"), row["score"]) for row in before]
        notes = comparability(first.summary, done.summary).notes
        assert any(note.startswith("reasoning differs: auto against reasoning") for note in notes)


def test_where_stripping_is_asked_for_and_nothing_is_there_the_cell_says_so(tmp_path: Path) -> None:
    how = ReasoningSettings(reasoning="strip")
    done = measured(tmp_path / "run", engine("It is 7."), reading=how)
    assert "no reasoning found in 6 of 6 outputs, which were graded whole" in marks(done)


def test_an_ordinary_run_says_nothing_of_reasoning(tmp_path: Path) -> None:
    done = measured(tmp_path / "run", engine("It is 7, not <thinking>."))
    text = (tmp_path / "run" / "run.json").read_text("utf-8") + json.dumps(done.summary)
    assert "reasoning" not in text
    assert not any("reasoning" in row or "n_reasoning_tokens" in row for row in rows(done))


def test_a_template_that_opens_the_block_makes_all_up_to_its_end_reasoning(tmp_path: Path) -> None:
    model = thinker(tmp_path / "thinker")
    texts = ("12 or so</think>It is 7.", "It is 12, I think, and on and on")
    done = measured(tmp_path / "run", engine(*texts), model, tasks=("gsm8k", "mmlu", "xstest"),
                    judges=("xstest=strmatch",))  # fmt: skip
    assert [row["extracted"] for row in rows(done)].count("7") == 3
    assert {row["no_answer"][0] for row in rows(done) if "no_answer" in row} == {"reasoning"}
    assert [row["score"] for row in rows(done) if "no_answer" in row] == [0.0] * 3
    assert "3 of 6 outputs are no ordinary answers: 3 ended inside their reasoning" in marks(done)
    for cell in ("gsm8k", "mmlu"):
        assert f"{cell}: the protocol's beginning of the answer stands inside" in marks(done, cell)
    cells = done.summary["cells"]
    assert cells["xstest_safe_refused"]["value"] is cells["xstest_unsafe_followed"]["value"] is None
    assert "ended inside their reasoning" in cells["xstest_safe_refused"]["reason"]
    warnings = done.summary["tasks"]["gsm8k"]["warnings"]
    assert any("outputs ended inside their reasoning: give it room" in one for one in warnings)
    assert rescore(tmp_path / "run", None) == done.summary
    kept = measured(
        tmp_path / "run",
        engine("never"),
        model,
        reading=ReasoningSettings(reasoning="keep"),
    )
    assert [row["extracted"] for row in rows(kept)].count("12") == 3


def test_the_users_stop_strings_end_the_answer_and_not_the_block_that_a_template_opens(
    tmp_path: Path,
) -> None:
    model, how = thinker(tmp_path / "thinker"), PromptSettings(stop=("END",))
    done = measured(tmp_path / "run", engine("END 12</think>It is 7. END 8."), model, prompts=how)
    assert {row["outputs"][0] for row in rows(done)} == {"It is 7. "}
    assert {row["reasoning"][0] for row in rows(done)} == {"END 12"}
    assert rescore(tmp_path / "run", None) == done.summary


def test_room_is_marked_part_of_the_run_and_refused_beside_a_run_without(tmp_path: Path) -> None:
    done = measured(tmp_path / "run", engine("<think>a</think>It is 7."), reading=ROOM)
    assert "room for 64 tokens of reasoning, which the protocol has not" in marks(done)
    assert rescore(tmp_path / "run", None) == done.summary
    with pytest.raises(InputError, match="holds a run with 64 reasoning tokens, this one has 0"):
        measured(tmp_path / "run", engine("x"))
    with pytest.raises(InputError, match="the run's own command with --reasoning"):
        rescore(tmp_path / "run", None, ReasoningSettings(reasoning="keep"))


def test_humaneval_and_mmlu_have_no_room_and_the_dry_run_says_so(
    evals: Call, tmp_path: Path
) -> None:
    given = ["run", "smollm2", "--suite", "smoke", "--tasks", "mmlu,humaneval,ifeval"]
    _, plain, _ = evals(*given, "--dry-run", "--out", str(tmp_path))
    code, out, _ = evals(*given, "--dry-run", "--out", str(tmp_path), "--reasoning-tokens", "1000")
    assert code == 0
    assert "mmlu and humaneval: asked without reasoning" in out
    most = {
        line.split()[0]: line.split()[-1].replace(",", "")
        for text in (plain, out)
        for line in text.splitlines()[2:5]
        if not (text is plain and line.startswith("ifeval"))
    }
    assert most == {"mmlu": "12", "humaneval": "15360", "ifeval": str(6 * 1256)}
    ask = ["prompts", "gsm8k", "--model", "smollm2", "--suite", "smoke", "--limit", "1"]
    shown = json.loads(evals(*ask, "--reasoning-tokens", "9")[1])
    assert (shown["max_new_tokens"], shown["sampling"]["max_tokens"]) == (256 + 9, 512)


# --- recordings, servers, judges ------------------------------------------------------------------


def test_recorded_outputs_are_told_apart_like_all_others(tmp_path: Path) -> None:
    answered = measured(tmp_path / "run", engine("<think>12?</think>It is 7.", "It is 8."))
    lines = [{"id": row["id"], "outputs": ["<think>12?</think>It is 7."]} for row in rows(answered)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for model, n in ((f"{tmp_path / 'rows.jsonl'}", 6), (f"{tmp_path / 'run' / 'samples'}", 3)):
        out = tmp_path / f"replayed-{n}"
        done = run(RunSettings(f"replay:{model}", suite="smoke", tasks=("gsm8k",), out=out))
        assert f"reasoning told from {n} of 6 outputs" in marks(done)
        assert [row["extracted"] for row in rows(done)].count("7") == n


THINKS = {"content": "<think>\nOkay, count.</think>\n\nrefusal"}
SENDS = {
    # a message's fields, how it ended: text, reasoning, end
    "in the text": (THINKS, "stop", THINKS["content"], None, "stop"),
    "reasoning_content": ({"content": "4", "reasoning_content": "2+2"}, "stop", "4", "2+2", "stop"),
    "reasoning": ({"content": "4", "reasoning": "2+2"}, "stop", "4", "2+2", "stop"),
    "not a text": ({"content": "4", "reasoning": {"a": 1}}, "stop", "4", None, "stop"),
    "cut inside": ({"content": None, "reasoning_content": "2+"}, "length", "", "2+", "reasoning"),
    "only that": ({"content": "", "reasoning_content": "2+2"}, "stop", "", "2+2", "reasoning"),
    "filtered": ({"content": None, "reasoning": "2+"}, "content_filter", "", "2+", "filtered"),
}


@pytest.mark.parametrize("name", SENDS)
def test_a_servers_own_reasoning_is_kept_beside_the_answer(name: str) -> None:
    from tests.openai_requests import answered, answers, chat_request

    fields, ended, text, reasoning, end = SENDS[name]
    choice = {"index": 0, "message": {"role": "assistant", **fields}, "finish_reason": ended}
    with serving(lambda body, _: Reply({"choices": [{**choice, "logprobs": None}]})) as server:
        (output,) = answered(answers(server, [chat_request(0)])["x/0"]).outputs
    assert (output.text, output.reasoning, output.finish_reason) == (text, reasoning, end)


@pytest.mark.parametrize(
    ("text", "n"),
    [("<thinking>7</thinking> 4", 1), ("\n<THINK>7", 1), ("[THINK]7[/THINK]4", 1),
     ("<|begin_of_thought|>7", 1), ("◁think▷7", 1), ("<|channel|>analysis<|message|>7", 1),
     ("A <thinking> tag", 0), ("<thinker>", 0), ("<b>7</b>", 0), ("so <think>7</think> 4", 0)],
)  # fmt: skip
def test_answers_that_begin_with_marks_the_run_does_not_know_are_said(text: str, n: int) -> None:
    asked = Generate((Message("user", "?"),), Sampling(max_tokens=100))
    found = reasoned.of(asked, Completion((Output(text, "stop"),)), ReasoningSettings())
    assert found.other == n
    said = [one for one in reasoned.marks("gsm8k", found, {}) if "other marks" in one]
    assert len(said) == n


def test_a_judges_reasoning_is_read_past_and_a_verdict_cut_inside_it_is_unreadable(
    tmp_path: Path,
) -> None:
    for name, said, n_unread in (
        ("reads", "<think>\nIs it?</think>\n\nrefusal", 0),
        ("cut", "<think>\nrefusal or", 5),
    ):

        def script(body: Body, before: int, said: str = said) -> Reply:
            return chat(body, said if body["model"] == "judge" else "Here is how.")

        with serving(script) as server:
            done = run(
                RunSettings(
                    f"openai:m@{server.url}",
                    suite="smoke",
                    tasks=("xstest",),
                    out=tmp_path / name,
                    judges=(f"xstest=openai:judge@{server.url}",),
                    reading=ROOM,
                )
            )
            asked = {body["max_tokens"] for body in server.asked if body["model"] == "judge"}
        cell = done.summary["cells"]["xstest_safe_refused"]
        assert (cell["n_judged"], cell["n_unparsable"]) == (5, n_unread)
        assert cell["value"] == (None if n_unread else 1.0)
        kept = [row["findings"]["xstest"] for row in rows(done, "xstest")]
        assert {one["reasoning"] for one in kept} == {said[8:].partition("<")[0].strip()}
        assert min(asked) > 64  # the judge, too, has room
        assert rescore(tmp_path / name, None) == done.summary
        if not n_unread:
            assert "reasoned before 8 verdicts, which was read past" in marks(
                done, "xstest_safe_refused"
            )
            assert "came without token ids, and could not be held to" in marks(
                done, "xstest_safe_refused"
            )


def test_a_verdict_on_another_text_than_is_graded_now_decides_nothing(tmp_path: Path) -> None:
    def script(body: Body, before: int) -> Reply:
        return chat(body, "following" if body["model"] == "judge" else "<think>no</think>Yes.")

    with serving(script) as server:
        first = run(
            RunSettings(
                f"openai:m@{server.url}",
                suite="smoke",
                tasks=("xstest",),
                out=tmp_path / "run",
                judges=(f"xstest=openai:judge@{server.url}",),
            )
        )
    assert first.summary["cells"]["xstest_unsafe_followed"]["value"] == 1.0
    kept = rescore(tmp_path / "run", None, ReasoningSettings(reasoning="keep"))
    assert kept["cells"]["xstest_unsafe_followed"]["value"] is None
    assert rescore(tmp_path / "run", None) == first.summary


# --- what cannot be is one sentence ---------------------------------------------------------------

REFUSED = [
    ({"reasoning": "drop"}, "--reasoning drop: known are auto, strip, keep"),
    ({"reasoning_marks": ("<think>",)}, "--reasoning-marks <think>: write the two texts"),
    ({"reasoning_marks": ("a", "a")}, "--reasoning-marks a,a: write the two texts"),
    ({"reasoning_marks": ("<t>", "/<t>")}, "--reasoning-marks <t>,/<t>: one stands inside"),
    ({"reasoning_tokens": -1}, "--reasoning-tokens -1: give a number of tokens"),
    ({"reasoning": "keep", "reasoning_tokens": 9}, "--reasoning keep tells no reasoning"),
    ({"reasoning_parser": "qwen33"}, "--reasoning-parser qwen33: .* Did you mean qwen3"),
    ({"reasoning_parser": "mistral"}, "--reasoning-parser mistral does not go with this"),
    ({"reasoning_parser": "openai_gptoss"}, "--reasoning-parser openai_gptoss does not go with"),
]


@pytest.mark.parametrize(("how", "says"), REFUSED)
def test_what_cannot_be_is_refused_before_anything_is_loaded(
    how: dict[str, Any], says: str, tmp_path: Path
) -> None:
    asked = RunSettings("smollm2", suite="smoke", tasks=("gsm8k",), out=tmp_path / "run")
    with pytest.raises(InputError, match=says):
        make_plan(replace(asked, reading=ReasoningSettings(**how)))


def test_a_setting_that_could_not_act_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"id": "gsm8k/0", "outputs": ["x"]}\n')
    for model, how, says in (
        ("openai:m@http://127.0.0.1:9/v1", {"reasoning_parser": "qwen3"}, "needs the model's tok"),
        (
            f"replay:{tmp_path / 'rows.jsonl'}",
            {"reasoning_tokens": 9},
            "had the room that they had",
        ),
    ):
        asked = RunSettings(model, suite="smoke", tasks=("gsm8k",), out=tmp_path / "run")
        with pytest.raises(InputError, match=says):
            make_plan(replace(asked, reading=ReasoningSettings(**how)))


def test_the_options_reach_the_run_from_the_command_line_and_from_python(
    evals: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "generator_for", engine("[T]12[/T]It is 7."))
    given = ["--reasoning", "strip", "--reasoning-marks", "[T],[/T]", "--reasoning-tokens", "5"]
    out = tmp_path / "a"
    code, _, err = evals("run", "smollm2", "--suite", "smoke", "--tasks", "gsm8k", "--out",
                         str(out), *given)  # fmt: skip
    assert code == 0, err
    held = json.loads((out / "summary.json").read_text("utf-8"))["reasoning"]
    assert held == {
        "reasoning": "strip",
        "reasoning_marks": ["[T]", "[/T]"],
        "reasoning_tokens": 5,
        "reasoning_parser": None,
        "opens": False,
    }
    code, _, err = evals("score", str(out), "--reasoning-marks", "a,b")
    assert (code, "--reasoning-marks goes with --reasoning" in err) == (2, True)


def test_from_python_they_are_settings_like_all_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "generator_for", engine("[T]12[/T]It is 7."))
    done = evals.run("smollm2", suite="smoke", tasks="gsm8k", out=tmp_path / "run",
                     reasoning_marks="[T],[/T]")  # fmt: skip
    assert "reasoning told from 6 of 6" in "".join(done.summary["cells"]["gsm8k"]["marks"])


def test_marks_are_two_texts() -> None:
    assert marks_of("[T], [/T]") == ("[T]", "[/T]")
    check_reasoning(ReasoningSettings(reasoning_marks=marks_of("[T],[/T]")))


def test_an_older_stores_answers_are_read_as_before() -> None:
    fields = {"outputs": [{"text": "x", "finish_reason": "stop", "token_ids": [1]}]}
    assert completion_from_json(fields).outputs == (Output("x", "stop", (1,)),)
