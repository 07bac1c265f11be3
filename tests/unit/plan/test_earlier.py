"""What a folder already holds: the same run goes on, another is refused before it is asked."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evals.errors import InputError
from evals.generators import EngineSettings
from evals.plan.earlier import earlier_run
from evals.plan.make import make_plan
from evals.plan.settings import RunSettings
from evals.runs.session import run

ROWS = [{"id": f"gsm8k/{n}", "outputs": [f"So the answer is {n}."]} for n in range(6)]


@pytest.fixture
def settings(tmp_path: Path) -> RunSettings:
    """A finished run's settings."""
    recorded = tmp_path / "recorded.jsonl"
    recorded.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    asked = RunSettings(f"replay:{recorded}", suite="smoke", out=tmp_path / "run")
    run(asked)
    return asked


def test_an_empty_folder_and_the_same_run_have_nothing_to_say(
    settings: RunSettings, tmp_path: Path
) -> None:
    assert earlier_run(make_plan(settings)) == []
    assert earlier_run(make_plan(replace(settings, out=tmp_path / "new"))) == []


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"limit": 2}, "holds a run with limit None, this one has 2"),
        ({"engine": EngineSettings(seed=7)}, "holds a run with seed 0, this one has 7"),
    ],
)
def test_another_run_is_refused_with_what_differs(
    changes: dict[str, Any], says: str, settings: RunSettings
) -> None:
    with pytest.raises(InputError, match=says):
        earlier_run(make_plan(replace(settings, **changes)))


def test_another_model_is_refused_by_its_name(settings: RunSettings, tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps(ROWS[0]) + "\n")
    with pytest.raises(InputError, match=r"holds a run of another model \(recorded\)"):
        earlier_run(make_plan(replace(settings, model=f"replay:{other}")))
