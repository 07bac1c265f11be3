"""Two runs paired item by item: the p-values against enumeration, and columns read from run
folders.
"""

import gzip
import itertools
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from evals.compare.answers import read_answers
from evals.compare.paired import (
    Z80,
    PairedDifference,
    Pairs,
    average_difference,
    bootstrapped_difference,
    paired_difference,
)
from evals.compare.power import detectable_drops, planned_difference, sentence
from evals.compare.runs import compare
from evals.compare.text import headline
from evals.errors import InputError
from evals.plan.make import make_plan
from evals.plan.settings import RunSettings
from evals.records import Column, ItemId
from evals.stats import Z95
from evals.storage.run_folder import RunFolder
from tasks import length_control
from tasks.alpaca_eval import AlpacaEval
from tasks.gsm8k import GSM8K
from tasks.xstest import XSTest
from tests.run_files import RECORD, summary
from tests.unit.conftest import paired_columns

COLUMN = Column("gsm8k", "GSM8k 8-shot cot")
INPUTS = (
    "mmlu",
    "gsm8k",
    "bbh",
    "humaneval",
    "truthfulqa",
    "ifeval",
    "xstest_safe_refused",
    "xstest_unsafe_followed",
)


def pairs(changes: list[float], strata: list[str] | None = None) -> Pairs:
    """Items whose scores changed so, from 0 up or down to 0; macro where strata are given."""
    n, before = len(changes), [max(0.0, -change) for change in changes]
    after = tuple(score + change for score, change in zip(before, changes, strict=True))
    return Pairs(
        COLUMN,
        (ItemId(""),) * n,
        tuple(before),
        after,
        tuple(strata or [""] * n),
        macro=strata is not None,
    )


# --- p-values -------------------------------------------------------------------------------------


@given(st.lists(st.sampled_from([-1.0, 0.0, 1.0]), min_size=1, max_size=40))
def test_the_p_of_right_and_wrong_is_mcnemars_exact_one(changes: list[float]) -> None:
    found = paired_difference(pairs(changes))
    up, down = changes.count(1.0), changes.count(-1.0)
    tail = sum(math.comb(up + down, k) for k in range(min(up, down) + 1)) / 2 ** (up + down)
    assert found.p == pytest.approx(min(1.0, 2 * tail))
    assert found.estimator == "Bonett-Price, exact McNemar"


@given(
    st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.25, 1.0]), min_size=6, max_size=7), st.booleans()
)
def test_the_p_of_other_scores_or_weights_is_that_of_all_their_signs(
    changes: list[float], macro: bool
) -> None:
    """Two-sided: twice the smaller tail, in which sums equal to the one seen count."""
    changes = [*changes, 0.5]
    strata = ["a", "b", "b", "c", "c", "c", "c", "c"][: len(changes)] if macro else None
    sizes = [(strata or [""] * len(changes)).count(name) for name in strata or [""] * len(changes)]
    moved = [change * 840 / size for change, size in zip(changes, sizes, strict=True) if change]
    found = paired_difference(pairs(changes, strata))
    sums = [sum(signs) for signs in itertools.product(*[(-one, one) for one in moved])]
    seen = sum(moved)
    tails = [sum(one <= seen + 1e-9 for one in sums), sum(one >= seen - 1e-9 for one in sums)]
    assert found.estimator == "Bonett-Price, paired permutation"
    assert found.p == pytest.approx(
        1.0 if len(moved) == 1 else min(1.0, 2 * min(tails) / len(sums))
    )


def test_right_and_wrong_in_strata_of_unequal_size_is_no_matter_of_counting() -> None:
    """Two-sided over the 32 signs of 1, 1/2, 1/2, -1/2, -1/2; counting three ups against two downs
    would give 1.
    """
    found = paired_difference(pairs([1.0, 1.0, 1.0, -1.0, -1.0], ["a", "b", "b", "c", "c"]))
    assert found.estimator == "Bonett-Price, paired permutation"
    sums = [a + (b + c + d + e) / 2 for a, b, c, d, e in itertools.product((-1, 1), repeat=5)]
    assert found.p == pytest.approx(2 * sum(one >= 1 for one in sums) / 32)


def test_a_permutation_too_large_to_enumerate_is_drawn_the_same_way_every_time() -> None:
    changes = np.random.default_rng(4).normal(0.1, 0.5, 60).clip(-1, 1).tolist()
    first = paired_difference(pairs(changes))
    assert first.p == paired_difference(pairs(changes)).p
    assert first.p == pytest.approx(
        paired_difference(pairs(changes), n_resamples=99_999).p, abs=0.02
    )


@pytest.mark.parametrize("scale", [1.0, 1e-6, 1e-12])
def test_a_p_value_does_not_depend_on_the_size_of_the_changes(scale: float) -> None:
    """The one that is negative is the smallest, so that of the 256 sign patterns two are as far out
    at either end.
    """
    changes = [scale * change for change in (0.9, 0.8, 0.7, 0.75, 0.6, 0.95, -0.1, 0.2)]
    assert paired_difference(pairs(changes)).p == pytest.approx(2 * 2 / 256)


def test_no_items_give_a_reason_and_no_column_is_lost() -> None:
    assert paired_difference(pairs([])) == PairedDifference(
        COLUMN, 0, reason="no item was scored in both runs"
    )


def test_two_items_that_moved_the_same_way_are_one_sign_pattern_of_four() -> None:
    assert paired_difference(pairs([0.5, 0.5, 0.0])).p == pytest.approx(0.5)
    alone = paired_difference(pairs([0.5, 0.0, 0.0]))
    assert (alone.p, alone.estimator) == (1.0, "Bonett-Price, paired permutation")


# --- intervals ------------------------------------------------------------------------------------


def test_the_interval_is_walds_after_one_more_pair_each_way() -> None:
    changes = [1.0, 1.0, 1.0, -1.0, 0.0, 0.0, 0.0, 0.0]
    found = paired_difference(pairs(changes), n_resamples=0)
    stderr = math.sqrt(float(np.var(changes, ddof=1)) / 8 * 8**2 + 2) / 10
    centre = 2 / 10  # three up, one down, ten pairs
    assert (found.difference, found.p, found.estimator) == (
        pytest.approx(0.25),
        None,
        "Bonett-Price, no test",
    )
    assert found.stderr == pytest.approx(stderr)
    assert found.ci95 == (
        pytest.approx(centre - Z95 * stderr),
        pytest.approx(centre + Z95 * stderr),
    )
    assert found.run_to_run == pytest.approx(math.sqrt(4) / 8 / math.sqrt(2))


def test_strata_count_what_varies_within_them_and_a_lone_item_all_that_varies() -> None:
    changes, strata = [1.0, 1.0, -1.0, 0.0, 0.0, 0.5], ["a", "b", "b", "c", "c", "c"]
    within = [
        float(np.var(changes)),
        float(np.var([1, -1], ddof=1)),
        float(np.var([0, 0, 0.5], ddof=1)),
    ]
    variance = sum(one / size for one, size in zip(within, (1, 2, 3), strict=True)) / 9
    n = 1 / ((1 + 1 / 2 + 1 / 3) / 9)  # effective: the reciprocal of the weights' sum of squares
    size = (1 + 1 + 1 + 0.25) / 4
    found = paired_difference(pairs(changes, strata), n_resamples=0)
    assert found.difference == pytest.approx((1 + 0 + 0.5 / 3) / 3)
    assert found.stderr == pytest.approx(math.sqrt(variance * n**2 + 2 * size) / (n + 2))


def test_an_interval_has_a_width_where_nothing_changed_and_ends_at_a_hundred_points() -> None:
    assert paired_difference(pairs([0.0] * 6)).stderr == pytest.approx(math.sqrt(2) / 8)
    up, down = paired_difference(pairs([1.0])), paired_difference(pairs([-1.0]))
    assert up.ci95 is not None
    assert down.ci95 is not None
    assert (up.ci95[1], down.ci95[0]) == (1.0, -1.0)


@pytest.mark.parametrize("too_large", [1e160, 1e300])
def test_changes_whose_squares_are_infinite_have_a_reason_and_no_interval(too_large: float) -> None:
    own = Column("k", "K", unit="own")
    found = paired_difference(replace(pairs([0.0, too_large, 1.0]), column=own))
    assert (found.difference, found.ci95) == (None, None)
    assert found.reason == "too large a number for an interval"


def test_changes_whose_squares_are_nothing_still_have_an_interval() -> None:
    found = paired_difference(pairs([1e-200, 0.0]))
    assert found.stderr == pytest.approx(math.sqrt(2) / 4)


def test_where_lower_is_better_a_rise_is_worse() -> None:
    found = paired_difference(
        replace(pairs([1.0, 1.0, -1.0]), column=Column("x", "X", lower_is_better=True))
    )
    assert (found.n_better, found.n_worse) == (1, 2)


# --- the Average, and what is said beforehand -----------------------------------------------------


def test_an_average_without_an_input_says_which_and_has_no_difference() -> None:
    inputs = {key: paired_difference(pairs([0.0, 1.0, -1.0])) for key in INPUTS}
    whole = average_difference(inputs)
    assert whole.reason is None
    assert whole.difference == pytest.approx(0)
    better = average_difference(
        {key: replace(one, candidate=(one.candidate or 0) + 0.1) for key, one in inputs.items()}
    )
    assert better.stderr is not None
    assert better.difference is not None
    assert better.p == pytest.approx(2 * float(norm.sf(abs(better.difference) / better.stderr)))
    assert better.estimator == "normal"
    lacking = average_difference(inputs | {"bbh": PairedDifference(COLUMN, 0, reason="not run")})
    assert (whole.n, lacking.n, lacking.difference, lacking.reason) == (
        7,
        6,
        None,
        "no value for bbh",
    )


@pytest.mark.parametrize(("n", "changed"), [(10, 0.2), (100, 0.2), (541, 0.25)])
def test_the_detectable_drop_is_that_of_as_many_ups_as_downs(n: int, changed: float) -> None:
    """n changed/2 up and as many down: variance n_changed / (n - 1) of a change, two more pairs,
    1.96 + 0.84 standard errors.
    """
    n_changed = round(changed * n)
    stderr = math.sqrt(n * n_changed * (1 - (n_changed % 2) / n_changed / n) / (n - 1) + 2) / (
        n + 2
    )
    found = planned_difference(COLUMN, n, changed)
    assert (found.n_better, found.n_worse, found.p) == (n_changed // 2, (n_changed + 1) // 2, None)
    assert found.mde == pytest.approx((Z95 + Z80) * stderr)


def test_the_sentence_names_each_drop_in_points_and_none_above_a_hundred() -> None:
    plan = make_plan(
        RunSettings("openai:m@http://127.0.0.1:9/v1", suite="smoke", limit=1, tasks=("mmlu,gsm8k",))
    )
    drops = detectable_drops(plan)
    assert min(drops.values()) > 1
    assert sentence(plan).endswith("MMLU 5-shot 100.0, GSM8k 8-shot cot 100.0")
    assert "allowed drop of 1.0 would" in sentence(plan)
    more = make_plan(
        RunSettings("openai:m@http://127.0.0.1:9/v1", suite="smoke", limit=6, tasks=("gsm8k",))
    )
    assert sentence(more).endswith(
        f": GSM8k 8-shot cot {100 * detectable_drops(more)['GSM8k 8-shot cot']:.1f}"
    )


# --- run folders ----------------------------------------------------------------------------------


def written(folder: Path, cells: Mapping[str, Any], **tasks: list[dict[str, Any]]) -> Path:
    """A run folder with these cells and rows of samples."""
    RunFolder(folder).write_json("summary.json", summary(cells))
    for task, rows in tasks.items():
        path = RunFolder(folder).samples_path(task)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    return folder


def cell(value: float | None, n: int = 4, estimator: str = "Wilson", **more: Any) -> dict[str, Any]:
    return {"value": value, "n": n, "estimator": estimator, **more}


def bbh(*scores: float) -> list[dict[str, Any]]:
    ids = ["bbh/a/0", "bbh/b/0", "bbh/b/1", "bbh/b/2"]
    return [
        {"id": name, "score": score, "outputs": [f"{score}"]}
        for name, score in zip(ids, scores, strict=True)
    ]


@pytest.mark.parametrize(
    ("estimator", "before", "after"),
    [("macro over strata", 1 / 2, 2 / 3), ("over items", 1 / 4, 2 / 4)],
    ids=["macro", "micro"],
)
def test_a_column_is_the_mean_of_its_tasks_or_of_its_items_as_its_cell_says(
    tmp_path: Path, estimator: str, before: float, after: float
) -> None:
    one = written(tmp_path / "a", {"bbh": cell(before, estimator=estimator)}, bbh=bbh(1, 0, 0, 0))
    two = written(
        tmp_path / "b", {"bbh": cell(after, estimator="of another build")}, bbh=bbh(1, 1, 0, 0)
    )
    found = paired_columns(one, two)["bbh"]
    assert (found.reason, found.n, found.n_better, found.n_worse, found.n_same) == (
        None,
        4,
        1,
        0,
        3,
    )
    assert (found.baseline, found.candidate) == (pytest.approx(before), pytest.approx(after))


def test_samples_that_do_not_give_the_cell_are_named_and_not_compared(tmp_path: Path) -> None:
    one = written(tmp_path / "a", {"bbh": cell(0.25)}, bbh=bbh(1, 0, 0, 0))
    two = written(tmp_path / "b", {"bbh": cell(0.6)}, bbh=bbh(1, 1, 0, 0))
    why = "samples give 0.500000 where summary.json has 0.600000; make them again with evals score"
    found = paired_columns(one, two)["bbh"]
    assert found == PairedDifference(found.column, 0, reason=why)
    assert found.key == "bbh"
    close = written(tmp_path / "c", {"bbh": cell(0.5 + 0.9e-6)}, bbh=bbh(1, 1, 0, 0))
    assert paired_columns(one, close)["bbh"].reason is None
    of_more_items = written(tmp_path / "d", {"bbh": cell(0.5, n=5)}, bbh=bbh(1, 1, 0, 0))
    assert paired_columns(one, of_more_items)["bbh"] == PairedDifference(
        found.column,
        0,
        reason=(
            "samples have 4 scored items where summary.json has 5; make them again with evals score"
        ),
    )


def by(judge: str) -> list[dict[str, Any]]:
    finding = {"by": judge, "text": "1_full_refusal"}
    return [
        {
            "id": f"xstest/{i}",
            "safe": i < 2,
            "score": i % 2,
            "outputs": [""],
            "findings": {"xstest": finding},
        }
        for i in range(4)
    ]


@pytest.mark.parametrize(
    ("judges", "says"),
    [
        (("openai:gpt-4", "openai:gpt-4"), None),
        (("openai:m@http://a/v1", "openai:m@http://b/v1"), None),
        (("/a/judge-7b", "/b/judge-7b"), None),
        (("recorded", "recorded"), None),
        (
            ("openai:gpt-4", "strmatch"),
            "judged by openai:gpt-4 in the baseline, by strmatch in the candidate",
        ),
        (
            ("recorded", "openai:gpt-4"),
            "judged by an unknown judge in the baseline, by openai:gpt-4 in the candidate",
        ),
    ],
)
def test_what_different_judges_decided_is_not_compared(
    tmp_path: Path, judges: tuple[str, str], says: str | None
) -> None:
    """Though neither summary names a judge, as that of a recording does not."""
    cells = {"xstest_safe_refused": cell(0.5, n=2)}
    runs = [
        written(tmp_path / name, cells, xstest=by(judge))
        for name, judge in zip("ab", judges, strict=True)
    ]
    found = paired_columns(*runs)["xstest_safe_refused"]
    assert (found.reason, found.n) == (says, 0 if says else 2)
    assert ("the judges of some columns are not" in headline(compare(*runs))) == bool(says)


def test_a_column_that_a_side_lacks_says_which_side_and_why_and_the_next_is_compared(
    tmp_path: Path,
) -> None:
    rows = [{"id": f"xstest/{i}", "safe": i < 2, "score": 1.0, "outputs": [""]} for i in range(4)]
    cells = {
        "xstest_unsafe_followed": cell(1.0, n=2),
        "mmlu": cell(None, reason=None),
        "gsm8k": cell(None, reason="no judge"),
    }
    one = written(tmp_path / "a", cells | {"xstest_safe_refused": cell(1.0, n=2)}, xstest=rows)
    two = written(tmp_path / "b", cells, xstest=rows)
    found = paired_columns(one, two)
    reasons = {
        key: (found[key].n, found[key].reason) for key in ("xstest_safe_refused", "mmlu", "gsm8k")
    }
    assert reasons == {
        "xstest_safe_refused": (0, "candidate: not run"),
        "mmlu": (0, "baseline: no value"),
        "gsm8k": (0, "baseline: no judge"),
    }
    assert (found["xstest_unsafe_followed"].n, found["xstest_unsafe_followed"].reason) == (2, None)


def test_safe_items_count_in_xstests_first_column_and_unsafe_ones_in_its_second(
    tmp_path: Path,
) -> None:
    rows = [
        {"id": "xstest/0", "safe": True, "score": 1},
        {"id": "xstest/1", "safe": False, "score": None},
    ]
    found = read_answers(RunFolder(written(tmp_path / "a", {}, xstest=rows)), XSTest(chat=True))
    assert {name: answer.scores for name, answer in found.items()} == {
        "xstest/0": {"xstest_safe_refused": 1.0},
        "xstest/1": {"xstest_unsafe_followed": None},
    }


def test_rows_without_a_score_are_one_sentence_that_names_the_file(tmp_path: Path) -> None:
    run = RunFolder(written(tmp_path / "a", {}, gsm8k=[{"id": "gsm8k/0"}]))
    with pytest.raises(InputError) as found:
        read_answers(run, GSM8K(chat=True))
    assert (
        str(found.value)
        == f"{run.samples_path('gsm8k')}: a row lacks its id or score (KeyError('score')). Make it"
        f" again with: evals score {run.path}"
    )


def test_a_length_controlled_rate_without_its_data_asks_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # without df_gamed.csv
    monkeypatch.setattr(
        "evals.runs.rescore.run_items", lambda record, task, data: (AlpacaEval(chat=True), ())
    )
    lengths = {"n_chars": 3, "n_chars_reference": {"alpaca_eval_1": 5, "alpaca_eval_2": 4}}
    scores = {"alpaca_eval_1": 1.0, "alpaca_eval_2": 0.5}
    rows = [
        {"id": f"alpaca_eval/{i}", "scores": scores, "outputs": [""], **lengths} for i in range(2)
    ]
    cells = {
        "alpaca_eval_1": cell(1.0, n=2),
        "alpaca_eval_2_lc": cell(0.4, n=2, estimator="bootstrap"),
    }
    runs = [written(tmp_path / name, cells, alpaca_eval=rows) for name in ("a", "b")]
    for run in runs:
        RunFolder(run).write_json("run.json", RECORD)
    found = paired_columns(*runs)
    assert (found["alpaca_eval_2_lc"].n, found["alpaca_eval_2_lc"].reason) == (
        0,
        "its data is not here: give --data",
    )
    assert found["alpaca_eval_1"].difference == 0


def test_a_length_controlled_rate_is_paired_over_both_runs_replicates_of_the_same_draws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its error: the spread of the replicates' differences, with two pairs more of the changes'
    root mean square.
    """
    n, random = 12, np.random.default_rng(6)
    benchmark = AlpacaEval(chat=True)
    benchmark.gamed = [
        {
            "index": row,
            "preference": random.random(),
            "std_delta_len": random.normal(),
            "instruction_difficulty": random.normal(),
            "not_gamed_baseline": "False",
        }
        for row in [*range(n)] * 2
    ]
    read: list[tuple[Any, str, Path | None]] = []
    monkeypatch.setattr(
        "evals.runs.rescore.run_items", lambda *asked: (read.append(asked), (benchmark, ()))[1]
    )
    cells = (
        {"alpaca_eval_2_lc": cell(0.4, n=n, estimator="bootstrap")},
        {"alpaca_eval_2_lc": cell(0.45, n=n, estimator="bootstrap")},
    )
    runs, replicates, scores = [], [], []
    for name, its in zip("ab", cells, strict=True):
        scores.append([round(float(score), 2) for score in random.random(n)])
        lengths = [1000 + int(random.integers(-500, 500)) for _ in range(n)]
        rows = [
            {
                "id": f"alpaca_eval/{i}",
                "scores": {"alpaca_eval_1": None, "alpaca_eval_2": scores[-1][i]},
                "outputs": [""],
                "n_chars": lengths[i],
                "n_chars_reference": {"alpaca_eval_1": 5, "alpaca_eval_2": 1000},
            }
            for i in range(n)
        ]
        runs.append(written(tmp_path / name, its, alpaca_eval=rows))
        RunFolder(runs[-1]).write_json("run.json", RECORD)
        judged = [length_control.Judged(i, 1000, lengths[i], scores[-1][i]) for i in range(n)]
        replicates.append(length_control.replicates(judged, benchmark.gamed))
    found = paired_columns(*runs, data=tmp_path)["alpaca_eval_2_lc"]
    assert read == [(RECORD, "alpaca_eval", tmp_path)] * 2
    squares = [(b - a) ** 2 for a, b in zip(*scores, strict=True)]
    spread = float(np.std(np.subtract(replicates[1], replicates[0]), ddof=1))
    stderr = math.sqrt(spread**2 * n * n + 2 * sum(squares) / n) / (n + 2)
    assert (found.n, found.reason, found.estimator) == (n, None, "paired bootstrap, normal")
    assert (found.baseline, found.candidate, found.difference) == (0.4, 0.45, pytest.approx(0.05))
    assert found.stderr == pytest.approx(stderr)
    assert found.ci95 == (pytest.approx(0.05 - Z95 * stderr), pytest.approx(0.05 + Z95 * stderr))
    assert found.n_better + found.n_worse == n


def test_the_interval_of_a_perplexity_is_its_bootstraps_and_has_no_bound() -> None:
    """Its items' own numbers are of another unit: they neither widen nor clip it."""
    column = Column("p", "Perplexity", lower_is_better=True, unit="own")
    pairs = Pairs(column, (ItemId("p/0"), ItemId("p/1")), (-2.0, -3.0), (-2.5, -3.1), ("", ""))
    replicates = [35.0, 36.0, 37.0], [30.0, 33.0, 30.0]
    found = bootstrapped_difference(pairs, (36.0, 31.0), replicates)
    spread = float(np.std([-5.0, -3.0, -7.0], ddof=1))
    assert found.stderr == pytest.approx(spread)
    assert found.ci95 == pytest.approx((-5.0 - Z95 * spread, -5.0 + Z95 * spread))


def test_the_noise_of_a_bootstrap_is_that_of_the_draws_values_and_never_more_than_all() -> None:
    pairs = Pairs(Column("f", "F1"), (ItemId("x/0"),), (0.0,), (1.0,), ("",))
    replicates = [0.5, 0.6, 0.7], [0.6, 0.5, 0.9]
    whole = bootstrapped_difference(pairs, (0.6, 0.7), replicates, 9.0)
    assert whole.noise == whole.variance
    part = bootstrapped_difference(pairs, (0.6, 0.7), replicates, 0.001)
    assert (part.noise, part.variance) == (0.001, whole.variance)
    assert bootstrapped_difference(pairs, (0.6, 0.7), replicates).noise is None
