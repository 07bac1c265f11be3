"""Judges: asked once for each verdict, theirs kept with their name, missing ones asked again. The
judge is a server on this machine.
"""

import shutil
from pathlib import Path
from typing import Any

import pytest

from evals.errors import InputError
from evals.models.prompts import Rendered
from evals.records import Completion, Output
from evals.runs.rescore import rescore
from evals.runs.session import run
from evals.runs.writing import RunResult
from tests.resilience.conftest import JUDGED, N_VERDICTS, Judge, verdict
from tests.resilience.fake_runs import Engines, reply, results, settings


def judged(out: Path, judges: tuple[str, ...], **changes: Any) -> RunResult:
    """A run of the judged tasks; the evaluated model answers as in every test."""
    return run(settings(out, tasks=JUDGED, judges=judges, **changes), make_generator=Engines())


def test_verdicts_are_kept_and_asked_once(tmp_path: Path, judge: Judge) -> None:
    out = tmp_path / "run"
    result = judged(out, judge.everything)
    assert result.is_complete
    assert len(judge.asked) == len(set(judge.asked)) == N_VERDICTS
    values = {key: cell["value"] for key, cell in result.summary["cells"].items()}
    assert {key for key, value in values.items() if value is not None} == {
        "xstest_safe_refused",
        "xstest_unsafe_followed",
        "truthfulqa",
        "alpaca_eval_1",
    }
    before = results(out)
    assert judged(out, judge.everything).is_complete
    assert len(judge.asked) == N_VERDICTS
    assert results(out) == before


def test_scores_are_what_the_judge_said(tmp_path: Path, judge: Judge) -> None:
    judge.says = lambda prompt: (
        "refusal"
        if "CLASS:" in prompt
        else " yes"
        if prompt.endswith(("True:", "Helpful:"))
        else verdict(prompt)
    )
    cells = judged(tmp_path / "run", judge.everything).cells
    assert (cells["xstest_safe_refused"], cells["xstest_unsafe_followed"], cells["truthfulqa"]) == (
        1.0,
        0.0,
        1.0,
    )
    judge.says = lambda prompt: (
        "following" if "CLASS:" in prompt else " no" if prompt.endswith("True:") else " yes"
    )
    cells = judged(tmp_path / "other", judge.everything).cells
    assert (cells["xstest_safe_refused"], cells["xstest_unsafe_followed"], cells["truthfulqa"]) == (
        0.0,
        1.0,
        0.0,
    )


def test_a_judge_of_ones_own_is_said_beside_the_cell_without_its_address(
    tmp_path: Path, judge: Judge
) -> None:
    result = judged(tmp_path / "run", judge.everything)
    for key in ("xstest_safe_refused", "truthfulqa", "alpaca_eval_1"):
        assert any(
            "judged by openai:judge@own-server, not by the card's judge" in mark
            for mark in result.summary["cells"][key]["marks"]
        )
    assert "127.0.0.1" not in (tmp_path / "run" / "summary.json").read_text()


def test_a_cards_judge_at_a_server_of_ones_own_is_not_the_cards(
    tmp_path: Path, judge: Judge
) -> None:
    result = run(
        settings(
            tmp_path / "run", tasks=("xstest",), judges=(f"xstest=openai:gpt-4-0613@{judge.url}",)
        ),
        make_generator=Engines(),
    )
    assert result.summary["judges"]["xstest"]["card"] is False
    assert "not by the card's judge" in result.summary["cells"]["xstest_safe_refused"]["marks"][0]


def test_a_verdict_that_does_not_come_is_missing_and_asked_again_alone(
    tmp_path: Path, judge: Judge
) -> None:
    out = tmp_path / "run"
    judge.says = lambda prompt: None if "balloons" in prompt else verdict(prompt)
    result = judged(out, judge.everything)
    assert result.n_missing == 1
    cell = result.summary["cells"]["xstest_safe_refused"]
    assert (cell["value"], cell["n"], cell["n_items"], cell["reason"]) == (
        None,
        4,
        5,
        "4 of 5 items scored",
    )
    assert result.cells["xstest_unsafe_followed"] is not None
    judge.says = verdict
    n_before = len(judge.asked)
    assert judged(out, judge.everything).is_complete
    assert ["balloons" in prompt for prompt in judge.asked[n_before:]] == [True]
    assert judged(tmp_path / "whole", judge.everything).is_complete
    assert results(out) == results(tmp_path / "whole")


def test_words_that_are_no_verdict_keep_their_place_and_one_in_five_is_too_many(
    tmp_path: Path, judge: Judge
) -> None:
    judge.says = lambda prompt: (
        "Refusal." if "balloons" in prompt else "refusal" if "CLASS:" in prompt else verdict(prompt)
    )
    result = judged(tmp_path / "run", judge.everything)
    assert result.is_complete
    cell = result.summary["cells"]["xstest_safe_refused"]
    assert (cell["value"], cell["n_items"]) == (None, 5)
    assert cell["reason"].startswith("1 of 5 items have a verdict that could not be read")


def test_another_judge_decides_anew_and_the_earlier_ones_verdicts_stay_out(
    tmp_path: Path, judge: Judge
) -> None:
    out = tmp_path / "run"
    judge.says = lambda prompt: "refusal"
    first = run(settings(out, tasks=("xstest",), judges=judge.everything), make_generator=Engines())
    assert first.cells["xstest_safe_refused"] == 1.0
    judge.says = lambda prompt: "following"
    other = (f"all=openai:other@{judge.url}",)
    for judges, expected in (
        (other, 0.0),
        (("xstest=strmatch",), None),
        ((), None),
        (judge.everything, 1.0),
    ):
        result = run(settings(out, tasks=("xstest",), judges=judges), make_generator=Engines())
        assert expected is None or result.cells["xstest_safe_refused"] == expected
        # Scoring again decides by the same judge as the run, whatever else the store and old
        # samples hold.
        before = results(out)
        rescore(out, None)
        assert results(out) == before
        alone = tmp_path / f"alone {judges}".replace("/", "_")
        shutil.copytree(out, alone)
        shutil.rmtree(alone / "samples")
        rescore(alone, None)
        assert results(alone) == before
    assert len(judge.asked) == 16


def test_judged_runs_score_again_from_samples_alone(tmp_path: Path, judge: Judge) -> None:
    out = tmp_path / "run"
    judged(out, judge.everything)
    before = results(out)
    rescore(out, None)
    assert results(out) == before
    (out / "store.sqlite").unlink()
    rescore(out, None)
    assert results(out) == before


def test_without_a_judge_nothing_is_generated_for_a_cell_that_cannot_be_had(tmp_path: Path) -> None:
    engines = Engines()
    result = run(settings(tmp_path / "run", tasks=(), judges=()), make_generator=engines)
    assert result.is_complete
    reasons = {
        key: cell["reason"]
        for key, cell in result.summary["cells"].items()
        if cell["value"] is None
    }
    assert (
        "--judge xstest=MODEL (or --judge xstest=strmatch, which needs no model)"
        in reasons["xstest_safe_refused"]
    )
    assert "--judge truth=MODEL --judge info=MODEL" in reasons["truthfulqa"]
    asked_about = {path.name.partition(".")[0] for path in (tmp_path / "run" / "samples").iterdir()}
    assert asked_about == {"mmlu", "gsm8k", "bbh", "humaneval", "ifeval"}


def test_an_answer_no_tokenizer_takes_reaches_the_judge_and_stops_nothing(
    tmp_path: Path, judge: Judge
) -> None:
    def half_a_pair(request: Rendered) -> Completion:
        return (
            Completion((Output("half a pair: \ud83d"),))
            if request.item_id == "xstest/1"
            else reply(request)
        )

    judges = (f"xstest=openai:judge@{judge.url}",)
    result = run(
        settings(tmp_path / "run", tasks=("xstest",), judges=judges),
        make_generator=Engines(half_a_pair),
    )
    assert result.is_complete
    assert any('RESPONSE: "half a pair: �"' in prompt for prompt in judge.asked)
    before = results(tmp_path / "run")
    rescore(tmp_path / "run", None)
    assert results(tmp_path / "run") == before


def test_a_judge_that_cannot_be_had_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    recording = tmp_path / "rows.jsonl"
    recording.write_text('{"id": "gsm8k/1", "outputs": ["42"]}\n')
    for argument in (
        "xstest=no-such-model",
        f"xstest=replay:{recording}",
        "xstest=openai:gpt@nowhere",
    ):
        engines = Engines()
        with pytest.raises(InputError):
            run(
                settings(tmp_path / "run", tasks=("xstest",), judges=(argument,)),
                make_generator=engines,
            )
        assert engines.n_started == 0
