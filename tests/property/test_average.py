"""Laws of the Average and of its uncertainty."""

import math
import random
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.cards.average import average, average_metric
from evals.cards.card import AVERAGE, Average
from evals.cards.published import shipped
from evals.records import Metric
from evals.stats import proportion

DIRECT = ("mmlu", "gsm8k", "bbh", "humaneval", "truthfulqa", "ifeval")
XSTEST = ("xstest_safe_refused", "xstest_unsafe_followed")
INPUTS = (*DIRECT, *XSTEST)

scores = st.floats(0, 1)
cells = st.fixed_dictionaries({key: scores for key in INPUTS})


def seven(row: dict[str, float]) -> list[float]:
    return [*(row[key] for key in DIRECT), ((1 - row[XSTEST[0]]) + (1 - row[XSTEST[1]])) / 2]


@given(cells)
def test_average_lies_between_its_smallest_and_largest_input(row: dict[str, float]) -> None:
    value = average(shipped().average, row)
    assert value is not None
    assert min(seven(row)) - 1e-12 <= value <= max(seven(row)) + 1e-12
    assert math.isclose(value, sum(seven(row)) / 7, abs_tol=1e-12)


@given(cells, st.randoms(use_true_random=False))
def test_average_depends_on_no_order(row: dict[str, float], rng: random.Random) -> None:
    keys = list(row)
    rng.shuffle(keys)
    values = [row[key] for key in DIRECT]
    rng.shuffle(values)
    assert average(shipped().average, {key: row[key] for key in keys}) == average(
        shipped().average, row
    )
    assert average(shipped().average, row | dict(zip(DIRECT, values, strict=True))) == average(
        shipped().average, row
    )


@given(cells, st.sampled_from(INPUTS), st.booleans())
def test_average_needs_each_of_its_inputs(row: dict[str, float], key: str, absent: bool) -> None:
    without: dict[str, float | None] = {**row, key: None}
    if absent:
        del without[key]
    assert average(shipped().average, without) is None


@given(cells, st.one_of(st.none(), scores), st.one_of(st.none(), scores))
def test_alpaca_eval_never_enters_the_average(
    row: dict[str, float], first: float | None, second: float | None
) -> None:
    assert average(
        shipped().average,
        {**row, "alpaca_eval_1": first, "alpaca_eval_2_lc": second, "average": first},
    ) == average(shipped().average, row)


@given(cells, st.sampled_from(INPUTS), scores)
def test_average_rises_with_a_direct_input_and_falls_with_an_xstest_share(
    row: dict[str, float], key: str, other: float
) -> None:
    before, after = average(shipped().average, row), average(shipped().average, row | {key: other})
    assert before is not None
    assert after is not None
    slope = -1 / 14 if key in XSTEST else 1 / 7
    assert math.isclose(after - before, slope * (other - row[key]), abs_tol=1e-12)


@given(cells, st.fixed_dictionaries({key: st.floats(0, 0.2) for key in INPUTS}))
def test_standard_error_is_the_propagated_one(
    row: dict[str, float], stderrs: dict[str, float]
) -> None:
    found = average_metric(
        shipped().average, {key: Metric(row[key], 5, 5, stderrs[key], (0.0, 1.0)) for key in INPUTS}
    )
    variance = (
        sum(stderrs[key] ** 2 for key in DIRECT) / 49
        + sum(stderrs[key] ** 2 for key in XSTEST) / 196
    )
    assert found.value is not None
    assert found.value == average(shipped().average, row)
    assert found.stderr is not None
    assert math.isclose(found.stderr, math.sqrt(variance), abs_tol=1e-15, rel_tol=1e-9)


@given(cells, st.fixed_dictionaries({key: st.tuples(scores, scores) for key in INPUTS}))
def test_each_end_of_the_interval_is_as_far_off_as_the_cells_ends_on_that_side_squared_and_summed(
    row: dict[str, float], shares: dict[str, tuple[float, float]]
) -> None:
    ends = {
        key: (row[key] * shares[key][0], row[key] + (1 - row[key]) * shares[key][1])
        for key in INPUTS
    }
    found = average_metric(
        shipped().average, {key: Metric(row[key], 5, 5, 0.1, ends[key]) for key in INPUTS}
    )
    low = [row[key] - ends[key][0] for key in DIRECT] + [
        (ends[key][1] - row[key]) / 2 for key in XSTEST
    ]
    high = [ends[key][1] - row[key] for key in DIRECT] + [
        (row[key] - ends[key][0]) / 2 for key in XSTEST
    ]
    assert found.value is not None
    assert found.ci95 is not None
    assert math.isclose(
        found.value - found.ci95[0], min(found.value, math.hypot(*low) / 7), abs_tol=1e-12
    )
    assert math.isclose(
        found.ci95[1] - found.value, min(1 - found.value, math.hypot(*high) / 7), abs_tol=1e-12
    )


def test_a_cell_without_an_interval_leaves_the_average_without_one() -> None:
    whole = {key: Metric(0.5, 5, 5, 0.1, (0.3, 0.7)) for key in INPUTS}
    assert average_metric(shipped().average, whole).ci95 is not None
    found = average_metric(shipped().average, whole | {"bbh": Metric(0.5, 1, 1)})
    assert (found.value, found.stderr, found.ci95) == (0.5, None, None)


def test_the_average_of_what_is_no_share_has_an_interval_without_bounds() -> None:
    rule = Average(replace(AVERAGE, unit="own"), (("a",), ("b",)))
    cells = {
        key: Metric(value, 9, 9, 1.0, (value - 3, value + 4))
        for key, value in (("a", 30.0), ("b", 2.0))
    }
    found = average_metric(rule, cells)
    assert found.value == 16.0
    assert found.ci95 == pytest.approx((16 - math.hypot(3, 3) / 2, 16 + math.hypot(4, 4) / 2))


def test_the_interval_of_the_average_covers_the_truth_as_often_as_it_says() -> None:
    truth = {
        "mmlu": 0.62,
        "gsm8k": 0.665,
        "bbh": 0.606,
        "humaneval": 0.691,
        "truthfulqa": 0.703,
        "ifeval": 0.523,
    }
    truth |= {"xstest_safe_refused": 0.084, "xstest_unsafe_followed": 0.155}
    sizes = {
        "mmlu": 1400,
        "gsm8k": 200,
        "bbh": 1080,
        "humaneval": 164,
        "truthfulqa": 817,
        "ifeval": 541,
    }
    sizes |= {"xstest_safe_refused": 250, "xstest_unsafe_followed": 200}
    rng = np.random.default_rng(0)
    target, n_runs, covered = average(shipped().average, truth), 2000, 0
    assert target is not None
    draws = {key: rng.binomial(sizes[key], truth[key], n_runs) for key in INPUTS}
    cell = cache(lambda passed, n: proportion([1.0] * passed + [0.0] * (n - passed), n))
    for run in range(n_runs):
        interval = average_metric(
            shipped().average, {key: cell(int(draws[key][run]), sizes[key]) for key in INPUTS}
        ).ci95
        assert interval is not None
        covered += interval[0] <= target <= interval[1]
    assert 0.93 <= covered / n_runs <= 0.97


# --- any card's rule ------------------------------------------------------------------------------

KEYS = "abcdefgh"


@st.composite
def rules(draw: st.DrawFn) -> Average:
    """Members of one to three columns, some turned round, some optional."""
    keys = draw(st.permutations(KEYS))[: draw(st.integers(1, len(KEYS)))]
    members: list[tuple[str, ...]] = []
    while keys:
        n = draw(st.integers(1, min(3, len(keys))))
        members.append(tuple(keys[:n]))
        keys = keys[n:]
    of = st.sets(st.sampled_from([key for member in members for key in member]))
    return Average(
        members=tuple(members), complement=frozenset(draw(of)), optional=frozenset(draw(of))
    )


@given(rules(), st.dictionaries(st.sampled_from(KEYS), scores | st.none()))
def test_any_rule_is_the_mean_of_its_members_means(
    rule: Average, row: dict[str, float | None]
) -> None:
    values = []
    for member in rule.members:
        inner = []
        for key in member:
            value = row.get(key)
            if value is None and key not in rule.optional:
                assert average(rule, row) is None
                return
            if value is not None:
                inner.append(1 - value if key in rule.complement else value)
        if inner:
            values.append(sum(inner) / len(inner))
    found = average(rule, row)
    if not values:
        assert found is None
    else:
        assert found is not None
        assert math.isclose(found, sum(values) / len(values), abs_tol=1e-12)
    metrics = {key: Metric(value, 5, 5, 0.1, (0.0, 1.0)) for key, value in row.items()}
    assert average_metric(rule, metrics).value == found
