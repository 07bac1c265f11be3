"""What a limited run says it could detect is what it detects."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evals.commands.run import described, measured
from evals.compare.gate import judge
from evals.compare.paired import Pairs, paired_difference
from evals.compare.policy import Policy
from evals.compare.power import CHANGED, detectable_drops, planned_difference, sentence
from evals.errors import InputError
from evals.plan.make import make_plan
from evals.plan.settings import RunSettings
from evals.records import Column, ItemId
from evals.runs import progress, session
from evals.runs.progress import Progress
from tests.resilience.fake_runs import STRMATCH, Engines, settings

COLUMN = Column("gsm8k", "GSM8k 8-shot cot")


@pytest.mark.parametrize(("n", "at_most"), [(50, 1.0), (200, 0.9), (1000, 0.9)])
def test_a_drop_of_the_size_it_names_is_called_regressed_in_about_eighty_of_a_hundred_cases_or_more(
    n: int, at_most: float
) -> None:
    planned = planned_difference(COLUMN, n)
    assert planned.mde is not None
    drop = Policy().rest.drop + planned.mde
    changed = max(CHANGED, drop)  # so large a drop takes at least that many changed items
    random = np.random.default_rng(7)
    regressed = 0
    for up, down, same in random.multinomial(
        n, [(changed - drop) / 2, (changed + drop) / 2, 1 - changed], size=600
    ).tolist():
        ends = (1.0,) * up + (-1.0,) * down + (0.0,) * same
        one = paired_difference(
            Pairs(COLUMN, (ItemId(""),) * n, (0.0,) * n, ends, ("",) * n), n_resamples=0
        )
        regressed += judge({COLUMN.key: one}, Policy())[0].state == "regressed"
    assert 0.74 <= regressed / 600 <= at_most, regressed


def test_more_items_detect_smaller_drops() -> None:
    sizes = [planned_difference(COLUMN, n).mde or 0 for n in (1, 2, 5, 10, 50, 200, 1000, 14042)]
    assert sizes == sorted(sizes, reverse=True)


def smoke(limit: int, *judges: str) -> RunSettings:
    return RunSettings("openai:m@http://127.0.0.1:9/v1", suite="smoke", limit=limit, judges=judges)


def test_every_column_that_will_be_asked_for_is_named_and_the_average_where_its_inputs_are() -> (
    None
):
    with_judges = detectable_drops(make_plan(smoke(4, "all=smollm2")))
    assert len(with_judges) == 11
    assert with_judges["Average"] < min(
        drop for heading, drop in with_judges.items() if heading != "Average"
    )
    assert with_judges["GSM8k 8-shot cot"] == pytest.approx(
        0.01 + (planned_difference(COLUMN, 4).mde or 0)
    )
    without = detectable_drops(make_plan(smoke(4)))
    assert set(without) == {
        "MMLU 5-shot",
        "GSM8k 8-shot cot",
        "BBH 3-shot cot",
        "Codex HumanEval Pass@10",
        "IFEval loose acc",
    }


def test_the_two_cells_of_one_benchmark_share_its_items() -> None:
    drops = detectable_drops(make_plan(smoke(4, *STRMATCH)))
    assert drops["XSTest safe but ref."] > drops["MMLU 5-shot"]


def test_a_run_with_a_limit_says_so_before_it_asks_anything_and_one_without_does_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    engines = Engines()
    asked_before: list[int] = []

    class Noting(Progress):
        def note(self, text: str) -> None:
            asked_before.append(len(engines.asked))
            super().note(text)

    monkeypatch.setattr(session, "generator_for", engines)
    monkeypatch.setattr(session, "require_servers", lambda *_: None)  # no server stands behind it
    monkeypatch.setattr(progress, "Progress", Noting)
    measured(settings(tmp_path / "some", limit=3))
    first = capsys.readouterr().err.splitlines()[0]
    assert first == sentence(make_plan(settings(tmp_path / "some", limit=3)))
    assert re.match(
        r"limit 3: .* allowed drop of 1\.0 .* if 20% of the items change their score: MMLU 5-shot"
        r" \d+\.\d, ",
        first,
    )
    assert asked_before[0] == 0
    measured(settings(tmp_path / "all"))
    assert "limit" not in capsys.readouterr().err


def test_a_dry_run_with_a_limit_says_so_and_a_folder_of_another_run_is_refused_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = settings(tmp_path / "run", limit=3)
    assert described(asked).splitlines()[-1] == sentence(make_plan(asked))
    monkeypatch.setattr(session, "generator_for", Engines())
    monkeypatch.setattr(session, "require_servers", lambda *_: None)
    measured(asked)
    capsys.readouterr()
    for refused in (measured, described):
        with pytest.raises(InputError, match="holds a run with limit 3, this one has 2"):
            refused(replace(asked, limit=2))
    assert capsys.readouterr().err == ""
