"""The package as a program uses it; what evals/README.md shows."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from pydantic import TypeAdapter
from typer.main import get_command

import evals
from evals.commands.app import app
from evals.errors import InputError
from evals.plan.named import settings_by_name


def recorded(folder: Path, name: str, answer: str) -> str:
    rows = [{"id": f"gsm8k/{i}", "outputs": [f"The answer is {answer}."]} for i in range(6)]
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"replay:{folder / name}.jsonl"


def done(folder: Path, name: str = "run", answer: str = "18", **settings: Any) -> evals.Result:
    return evals.run(
        recorded(folder, name, answer),
        suite="smoke",
        tasks="gsm8k",
        out=str(folder / name),
        dtype="float32",
        **settings,
    )


def test_a_run_gives_its_cells_in_fractions_and_percent_and_its_table(tmp_path: Path) -> None:
    run = done(tmp_path)
    assert run.is_complete
    cell, average = run.cells["gsm8k"], run.cells["average"]
    assert cell.fraction is not None
    assert cell.ci95 is not None
    assert (cell.percent, cell.n, cell.reason) == (100 * cell.fraction, 6, None)
    assert cell.ci95_percent == (100 * cell.ci95[0], 100 * cell.ci95[1])
    assert cell.ci95[0] <= cell.fraction <= cell.ci95[1]
    assert (average.fraction, average.percent, average.ci95_percent) == (None, None, None)
    assert average.reason
    assert "| run (smoke suite) |" in run.table()
    scored = evals.score(run.folder)
    assert (scored.summary, scored.cells, scored.n_missing) == (run.summary, run.cells, 0)


def test_progress_and_notes_are_told_to_those_who_ask(tmp_path: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    lines: list[str] = []
    run = done(tmp_path, on_progress=lambda *one: steps.append(one), on_note=lines.append)
    assert [step for step in steps if step[0] == "generate"][-1] == ("generate", 6, 6)
    for warning in run.warnings:
        assert f"warning: {warning}" in lines
    assert len(run.warnings) < len(lines)


def test_what_a_callback_raises_ends_the_run_and_the_same_call_goes_on(tmp_path: Path) -> None:
    def stop(*_: object) -> None:
        raise KeyError("enough")

    with pytest.raises(KeyError):
        done(tmp_path, on_progress=stop)
    assert done(tmp_path).is_complete


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"suit": "smoke"}, r"no setting 'suit'\. Did you mean .*suite"),
        ({"clock": None}, "no setting 'clock'"),
        ({"engine": {}}, "no setting 'engine'"),
        ({"out": 123}, "out is 123: give a path"),
        ({"limit": "x"}, "limit is 'x': .*integer"),
        ({"limit": 0}, "--limit 0: give the number"),
        ({"judge": 5}, "judge is 5"),
        ({"judges": "b"}, r"no setting 'judges'\. Did you mean judge"),
        ({"eager": "so"}, "eager is 'so'"),
        ({"tasks": [1]}, "tasks is 1: .*string"),
        ({"sandbox": "no"}, "sandbox is 'no': .*'auto' or 'require'"),
        ({"dtype": "flot"}, "--dtype flot: known are auto"),
        ({"suite": "cards"}, "Unknown suite 'cards'"),
        ({"chat_template": "nowhere.jinja"}, "chat_template nowhere.jinja: cannot be read"),
        ({"system_prompt": "@nowhere"}, "system_prompt nowhere: cannot be read"),
        ({"stop_token_ids": "two"}, "--stop-token-ids two: write token ids"),
        ({"chat_template_kwargs": {"a": {1}}}, "chat_template_kwargs is no JSON"),
        ({"reasoning_marks": "a"}, "--reasoning-marks a: write the two texts"),
        ({"log": "os"}, "--log os: known are wandb, trackio, mlflow"),
    ],
    ids=str,
)
def test_what_cannot_be_is_one_sentence_of_ours(given: dict[str, Any], says: str) -> None:
    with pytest.raises(evals.EvalsError, match=says) as raised:
        evals.run("smollm2", **{"suite": "smoke"} | given)
    assert "\n" not in str(raised.value)


def test_a_model_that_is_no_text_is_named() -> None:
    with pytest.raises(InputError, match="model is None"):
        evals.run(None)  # type: ignore[arg-type]


def test_the_options_of_the_command_are_the_settings_here_with_their_defaults() -> None:
    command = get_command(app).commands["run"]  # type: ignore[attr-defined]
    defaults = {one.name: one.default for one in command.params}
    # what is an argument of a function, or of no use in a program
    for name in ("model", "adapter", "dry_run", "parameters", "log", "step", "help_all"):
        del defaults[name]
    # variables of the process: EVALS_INCLUDE_PATH, EVALS_CONFIRM_RUN_UNSAFE_CODE
    del defaults["include_path"], defaults["confirm_run_unsafe_code"]
    defaults["eager"] = defaults.pop("enforce_eager")
    types = get_type_hints(evals.Settings)
    assert defaults.keys() == types.keys()
    for name, default in defaults.items():
        TypeAdapter(types[name]).validate_python(default, strict=True)
    assert settings_by_name("smollm2", defaults) == settings_by_name("smollm2", {})


@pytest.mark.parametrize(
    ("function", "given", "says"),
    [
        ("run", {"on_progres": print}, "no setting 'on_progres'"),
        ("run", {"model": "m"}, "evals.run: multiple values for argument 'model'"),
        ("score", {"dat": "d"}, r"evals.score: .*'dat'\. Did you mean data"),
        ("diff", {"candidat": "b"}, "evals.diff: missing a required argument: 'candidate'"),
        ("check", {"candidate": "b", "polic": "p"}, "'polic'. Did you mean policy"),
        ("table", {"fmt": "csv"}, "evals.table: got an unexpected keyword argument 'fmt'"),
        ("run_adapters", {"bas": "m"}, r"no setting 'bas'"),
    ],
)
def test_a_wrong_name_is_an_error_of_ours_in_every_function(
    function: str, given: dict[str, Any], says: str
) -> None:
    with pytest.raises(InputError, match=says):
        getattr(evals, function)("a", **given)


def test_settings_are_taken_as_a_program_has_them(tmp_path: Path) -> None:
    (tmp_path / "t.jinja").write_text("{{ messages }}")
    (tmp_path / "system").write_text("Be brief.")
    found = settings_by_name(
        "m",
        {
            "tasks": "mmlu,gsm8k",
            "judge": ["a=b", "c=d"],
            "out": str(tmp_path),
            "chat_template": tmp_path / "t.jinja",
            "system_prompt": f"@{tmp_path / 'system'}",
            "chat_template_kwargs": {"enable_thinking": False},
            "stop_token_ids": "2, 7",
            "reasoning_marks": "[T],[/T]",
            "tensor_parallel_size": 2,
            "eager": True,
        },
    )
    assert (found.tasks, found.judges, found.out) == (("mmlu,gsm8k",), ("a=b", "c=d"), tmp_path)
    assert found.prompts.chat_template == "{{ messages }}"
    assert found.prompts.system_prompt == "Be brief."
    assert found.prompts.chat_template_kwargs == '{"enable_thinking": false}'
    assert found.prompts.stop_token_ids == (2, 7)
    assert found.reading.reasoning_marks == ("[T]", "[/T]")
    assert (found.engine.tensor_parallel_size, found.engine.enforce_eager) == (2, True)
    text = {"chat_template": "{% for m in messages %}{{ m }}{% endfor %}", "stop_token_ids": 2}
    as_text = settings_by_name("m", text).prompts
    assert (as_text.chat_template, as_text.stop_token_ids) == (text["chat_template"], (2,))


def test_two_runs_are_told_apart_and_stand_in_one_table(tmp_path: Path) -> None:
    old, new = done(tmp_path, "old"), done(tmp_path, "new", "99999")
    found = evals.diff(str(old.folder), new.folder)
    assert found.comparable.reason is None
    assert [one.key for one in found.columns] == ["gsm8k", "average"]
    text = evals.table(old.folder, str(new.folder), format="csv", published=True)
    assert len(text.splitlines()) == 1 + 8 + 2
    with pytest.raises(InputError, match="format 'word': known are markdown"):
        evals.table(old.folder, format="word")


def test_the_gate_gives_its_verdict_and_takes_texts_for_paths(tmp_path: Path) -> None:
    done(tmp_path, "old")
    done(tmp_path, "new", "99999")
    gate = evals.check(str(tmp_path / "old"), tmp_path / "new", strict=True)
    assert (gate.verdict, gate.exit_code) in (("undecided", 1), ("pass", 0))
    assert [column.difference.key for column in gate.columns] == ["gsm8k", "average"]
    required = evals.check(tmp_path / "old", tmp_path / "new", "release")
    assert (required.verdict, required.exit_code) == ("incomplete", 3)
    with pytest.raises(InputError, match="weekly cannot be read"):
        evals.check(tmp_path / "old", tmp_path / "new", "weekly")


def test_the_page_about_the_package_has_every_name_and_importing_it_loads_nothing() -> None:
    page = subprocess.run(
        [sys.executable, "-m", "pydoc", "evals"], capture_output=True, text=True, check=True
    ).stdout
    for name in evals.__all__:
        assert f"\n    {name}(" in page.partition("FUNCTIONS")[2]
    above = page.partition("PACKAGE CONTENTS")[0]
    for name in ("Result", "Cell", "Card", "Benchmark", "EvalsError"):
        assert f"evals.{name}" in above
        assert isinstance(getattr(evals, name), type)
    for kind in (evals.Result, evals.Cell):
        own = [name for name in dir(kind) if not name.startswith("_")]
        assert [name for name in own if not re.search(rf"\b{name}\b", above)] == []
    # No machinery of classes.
    assert "__eq__" not in page
    listed = page.partition("They are: ")[2].partition(".")[0]
    assert [name.strip() for name in listed.split(",")] == sorted(evals.Settings.__annotations__)
    # None of the methods that every dict has.
    assert "popitem" not in page
    loaded = "import evals, sys; print([m for m in sys.modules if m.startswith('evals.')])"
    alone = subprocess.run(
        [sys.executable, "-c", loaded], capture_output=True, text=True, check=True
    )
    assert alone.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"baseline": None}, "The baseline is None. Give it as a text or a Path."),
        ({"candidate": 3}, "The candidate is 3."),
        ({"policy": ["release"]}, "The policy is ['release']."),
        ({"policy": b"release"}, "The policy is b'release'."),
        ({"policy": "no such"}, "The policy no such cannot be read"),
        ({"policy": ""}, "cannot be read"),
        ({"data": 3}, "A folder is 3."),
        ({"card": 3}, "card is 3. Give it as a text."),
        ({"card": "no such"}, "no card of that name"),
        ({"strict": "yes"}, "strict is 'yes'. Give True or False."),
    ],
)
def test_what_the_gate_cannot_take_is_one_sentence(given: dict[str, Any], says: str) -> None:
    run = "results/baselines/smollm2-smoke"
    with pytest.raises(InputError) as told:
        evals.check(**{"baseline": run, "candidate": run, **given})
    assert says in str(told.value)
