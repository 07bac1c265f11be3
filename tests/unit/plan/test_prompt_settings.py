"""A run whose prompts are made in the user's own way: marked, kept, gone on with, refused beside
another.
"""

import json
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

import evals
from evals.compare.runs import comparability
from evals.compare.why import why
from evals.errors import InputError
from evals.models.embedded import embedded_folder
from evals.models.prompting import PromptSettings
from evals.plan import rendering
from evals.plan.make import make_plan
from evals.plan.questions import Question, prepare
from evals.plan.settings import RunSettings
from evals.records import Generate, ItemId, Message, Sampling
from evals.report.show import prompt_lines
from evals.runs import session
from evals.runs.session import run
from tests.resilience.fake_runs import Engines
from tests.unit.conftest import Call

TELLS = "{{ strftime_now('%H:%M:%S') }} "
NOON = datetime(2026, 1, 2, 12, 0, 0)
USER = Generate((Message("user", "Is it safe?"),), Sampling(max_tokens=8))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The embedded model's folder, with a template that tells the time."""
    folder = tmp_path / "tells"
    folder.mkdir()
    for file in embedded_folder().iterdir():
        (folder / file.name).symlink_to(file)
    template = (folder / "chat_template.jinja").read_text("utf-8")
    (folder / "chat_template.jinja").unlink()
    (folder / "chat_template.jinja").write_text(TELLS + template)
    return folder


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[datetime]:
    """What time it is: the last of the list."""
    times = [NOON]

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return times[-1]

    monkeypatch.setattr(rendering, "datetime", Clock)
    return times


def settings(out: Path, model: str, **changes: Any) -> RunSettings:
    return RunSettings(model, suite="smoke", tasks=("gsm8k",), out=out, **changes)


def test_a_clock_stands_still_from_a_runs_start_to_its_end_however_often_it_is_killed(
    model: Path, tmp_path: Path, clock: list[datetime]
) -> None:
    asked = settings(tmp_path / "run", str(model))
    first = Engines(fails_after=2)
    with pytest.raises(KeyboardInterrupt):
        run(asked, make_generator=first)
    record = json.loads((tmp_path / "run" / "run.json").read_text("utf-8"))
    assert record["clock"] == "2026-01-02 12:00:00"
    clock.append(datetime(2026, 1, 3, 0, 0, 1))
    again = Engines()
    done = run(asked, make_generator=again)
    assert done.is_complete
    assert not set(first.asked) & set(again.asked)
    assert any(
        "it was told 2026-01-02 12:00:00" in mark
        for mark in done.summary["cells"]["gsm8k"]["marks"]
    )
    assert len(json.loads((tmp_path / "run" / "run.json").read_text("utf-8"))["sessions"]) == 2
    asked_anew = replace(asked, out=tmp_path / "other")
    plans = make_plan(asked), make_plan(asked_anew)
    times = [plan.render("gsm8k", range(1))[0].text.split()[0] for plan in plans]
    assert times == ["12:00:00", "00:00:01"]


def test_a_killed_run_has_kept_its_time_before_the_first_answer(
    model: Path, tmp_path: Path, clock: list[datetime], monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any) -> Any:
        raise SystemExit  # what is written from here on is not written when the power goes

    writes: list[str] = []
    write = session.Writing.record
    monkeypatch.setattr(
        session.Writing,
        "record",
        lambda self, *, finished: (writes.append("record"), write(self, finished=finished))[1],
    )
    with pytest.raises(SystemExit):
        run(settings(tmp_path / "run", str(model)), make_generator=killed)
    # Before an engine is looked for, what it is to take at a time, and what the session came to.
    assert writes == ["record", "record", "record"]


OTHER = [
    ({"system_prompt": "Be brief."}, 'system prompt "Be brief."; the card\'s row had none'),
    ({"stop": ("\n\n",), "stop_token_ids": (7,)}, 'answers end at "\\n\\n", token 7 too'),
    ({"chat_template_kwargs": '{"a": 1}'}, 'chat template given {"a": 1}'),
    ({"leave_out_added": True}, "what the tokenizer adds after a text is left out"),
]


@pytest.mark.parametrize(("how", "mark"), OTHER)
def test_prompts_of_the_users_are_recorded_marked_and_refused_beside_others(
    how: dict[str, Any], mark: str, tmp_path: Path
) -> None:
    asked = settings(tmp_path / "run", "smollm2", prompts=PromptSettings(**how))
    done = run(asked, make_generator=Engines())
    assert any(mark in found for found in done.summary["cells"]["gsm8k"]["marks"])
    record = json.loads((tmp_path / "run" / "run.json").read_text("utf-8"))
    assert {name: record["prompts"][name] for name in how} == json.loads(json.dumps(how))
    again = Engines()
    assert run(asked, make_generator=again).is_complete
    assert again.asked == []
    with pytest.raises(InputError, match="holds a run with other prompts"):
        run(settings(tmp_path / "run", "smollm2"), make_generator=Engines())


def test_an_ordinary_run_says_nothing_of_prompts(tmp_path: Path) -> None:
    run(settings(tmp_path / "run", "smollm2"), make_generator=Engines())
    record = json.loads((tmp_path / "run" / "run.json").read_text("utf-8"))
    assert not {"prompts", "clock"} & record.keys()


def test_the_prompts_that_are_shown_are_those_that_are_asked(tmp_path: Path) -> None:
    how = PromptSettings(system_prompt="Be brief.", stop=("END",))
    asked = settings(tmp_path / "run", "smollm2", prompts=how)
    shown = [json.loads(line) for line in prompt_lines(asked)]
    assert all(
        "Be brief." in line["prompt"] and "END" in line["sampling"]["stop"] for line in shown
    )


def test_the_options_of_the_command_line_reach_the_prompts(evals: Call, tmp_path: Path) -> None:
    (tmp_path / "system.txt").write_text("Be brief.")
    given = ["--system-prompt", f"@{tmp_path / 'system.txt'}", "--stop", "A", "--stop", "B"]
    ask = ["prompts", "gsm8k", "--model", "smollm2", "--suite", "smoke", "--limit", "1"]
    code, out, _ = evals(*ask, *given, "--stop-token-ids", "2, 7")
    line = json.loads(out)
    assert (code, line["sampling"]["stop"][-2:]) == (0, ["A", "B"])
    assert "system\nBe brief." in line["prompt"]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (("--system-prompt", "@nowhere.txt"), "--system-prompt nowhere.txt: cannot be read"),
        (("--chat-template", "nowhere.jinja"), "--chat-template nowhere.jinja: cannot be read"),
        (("--stop-token-ids", "two"), "--stop-token-ids two: write token ids with commas"),
        (("--chat-template-kwargs", "{"), "--chat-template-kwargs {: no JSON"),
        (("--system-prompt", "x", "--chat-format", "none"), "--system-prompt needs a chat format"),
    ],
)
def test_what_cannot_be_is_one_sentence(given: tuple[str, ...], says: str, evals: Call) -> None:
    code, out, err = evals("run", "smollm2", "--suite", "smoke", "--dry-run", *given)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert says in err


def test_from_python_they_are_settings_like_all_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="Did you mean system_prompt"):
        evals.run("smollm2", sytem_prompt="x")
    monkeypatch.setattr(session, "generator_for", Engines())
    out = tmp_path / "run"
    done = evals.run("smollm2", suite="smoke", tasks="gsm8k", out=out, stop="END")
    marks = done.summary["cells"]["gsm8k"]["marks"]
    assert any('answers end at "END" too' in mark for mark in marks)


# --- no setting does nothing while a cell says that it did ----------------------------------------


SERVER = "openai:m@http://127.0.0.1:9/v1"
IDLE: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    (SERVER, {}, {"chat_template": "x"}, "--chat-template and .* a server: --tokenizer"),
    (SERVER, {}, {"chat_template_kwargs": "{}"}, "--chat-template and"),
    (SERVER, {}, {"stop_token_ids": (7,)}, "a chat server is sent none"),
    (SERVER, {}, {"leave_out_added": True}, "a chat server is sent none"),
    ("smollm2", {"chat_format": "tulu"}, {"chat_template": "x"}, "--chat-template and"),
    ("smollm2", {"chat_format": "none"}, {"system_prompt": "x"}, "--system-prompt needs a chat"),
    ("replay", {}, {"system_prompt": "x"}, "A recording's prompts were made when it was"),
    ("replay", {}, {"stop": ("x",)}, "A recording's prompts were made when it was"),
]


@pytest.mark.parametrize(("model", "more", "how", "says"), IDLE)
def test_a_setting_that_could_not_act_is_refused(
    model: str, more: dict[str, Any], how: dict[str, Any], says: str, tmp_path: Path
) -> None:
    if model == "replay":
        (tmp_path / "rows.jsonl").write_text('{"id": "gsm8k/0", "outputs": ["x"]}\n')
        model = f"replay:{tmp_path / 'rows.jsonl'}"
    asked = replace(settings(tmp_path / "run", model, prompts=PromptSettings(**how)), **more)
    with pytest.raises(InputError, match=says):
        make_plan(asked)


def without_template(folder: Path) -> str:
    """The embedded model as a base model's folder: without a chat template."""
    folder.mkdir()
    for file in embedded_folder().iterdir():
        if file.name != "chat_template.jinja":
            (folder / file.name).symlink_to(file)
    return str(folder)


def test_a_base_model_has_no_system_and_takes_a_template_of_the_users(tmp_path: Path) -> None:
    base = without_template(tmp_path / "base")
    asked = settings(tmp_path / "run", base)
    assert make_plan(asked).chat_format == "none"
    with pytest.raises(InputError, match="--system-prompt needs a chat format"):
        make_plan(replace(asked, prompts=PromptSettings(system_prompt="x")))
    template = (embedded_folder() / "chat_template.jinja").read_text("utf-8")
    plan = make_plan(replace(asked, prompts=PromptSettings(chat_template=template)))
    assert plan.chat_format == "tokenizer"
    assert "<|im_start|>assistant" in plan.render("gsm8k", range(1))[0].text


def test_a_judges_template_is_told_the_same_time_as_the_model(
    model: Path, tmp_path: Path, clock: list[datetime]
) -> None:
    judges = tuple(f"{role}={model}" for role in ("truth", "info", "xstest"))
    asked = RunSettings(
        "smollm2", suite="smoke", tasks=("xstest",), out=tmp_path / "run", judges=judges
    )
    first = make_plan(asked)
    assert first.clock == "2026-01-02 12:00:00"
    assert not first.renderer.reads_clock
    clock.append(datetime(2026, 1, 3))
    question = Question(ItemId("xstest/1"), "xstest", USER)
    texts = [
        prepare(plan.settings, str(model), [question]).keyed[0][1].text
        for plan in (first, make_plan(asked))
    ]
    assert [text.split()[0] for text in texts] == ["12:00:00", "00:00:00"]


def test_a_clock_that_is_none_is_one_sentence(tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(settings(out, "smollm2"), make_generator=Engines())
    record = json.loads((out / "run.json").read_text("utf-8")) | {"clock": "yesterday"}
    (out / "run.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match=r"damaged \(its clock is 'yesterday'\)"):
        make_plan(settings(out, "smollm2"))


def test_two_runs_with_other_prompts_are_told_apart(tmp_path: Path) -> None:
    how = PromptSettings(system_prompt="Be brief.")
    for name, prompts in (("a", PromptSettings()), ("b", how)):
        asked = settings(tmp_path / name, "smollm2", prompts=prompts)
        run(asked, make_generator=Engines())
        (tmp_path / name / "store.sqlite").unlink()  # prompts are then rendered again
    summaries = [json.loads((tmp_path / name / "summary.json").read_text("utf-8")) for name in "ab"]
    assert any(
        note.startswith('only in the candidate: system prompt "Be brief."')
        for note in comparability(*summaries).notes
    )
    assert "gsm8k: 6 of 6 prompts differ" in why(tmp_path / "a", tmp_path / "b")
