"""The estimators against brute force and scipy, and their intervals against simulated runs of card
size.
"""

import math
import random
from collections.abc import Callable
from itertools import accumulate, combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from evals.compare.paired import Z80
from evals.records import Metric
from evals.stats import (
    Z95,
    clustered_mean,
    effective_wilson,
    mean,
    p_at_least,
    pass_at_k,
    proportion,
    stratified,
    wilson_interval,
    wilson_of_draws,
)

scores = st.floats(0, 1)
score_lists = st.lists(scores, min_size=1, max_size=8)
strata = st.lists(score_lists, min_size=1, max_size=5)


def by_name(lists: list[list[float]]) -> dict[str, list[float]]:
    return {f"s{i}": values for i, values in enumerate(lists)}


def n_in(lists: list[list[float]]) -> int:
    return sum(map(len, lists))


# --- pass@k ---------------------------------------------------------------------------------------


@given(
    st.integers(1, 9).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n)))
)
def test_pass_at_k_is_the_share_of_subsets_with_a_pass(nck: tuple[int, int, int]) -> None:
    n, c, k = nck
    drawn = [any(i < c for i in subset) for subset in combinations(range(n), k)]
    assert math.isclose(pass_at_k(n, c, k), sum(drawn) / len(drawn), abs_tol=1e-12)


@given(
    st.integers(1, 300).flatmap(
        lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))
    )
)
def test_pass_at_k_is_the_hypergeometric_tail(nck: tuple[int, int, int]) -> None:
    n, c, k = nck
    assert math.isclose(
        pass_at_k(n, c, k), float(scipy_stats.hypergeom.sf(0, n, c, k)), abs_tol=1e-9
    )


def test_pass_at_ten_of_twenty_has_the_protocols_values() -> None:
    assert [round(pass_at_k(20, c, 10), 4) for c in range(6)] == [
        0,
        0.5,
        0.7632,
        0.8947,
        0.9567,
        0.9837,
    ]


@pytest.mark.parametrize("p", [0.02, 0.1, 0.4])
def test_pass_at_k_is_unbiased(p: float) -> None:
    expected = sum(float(scipy_stats.binom.pmf(c, 20, p)) * pass_at_k(20, c, 10) for c in range(21))
    assert math.isclose(expected, 1 - (1 - p) ** 10, rel_tol=1e-9)


@pytest.mark.parametrize(("n", "c", "k"), [(5, 0, 6), (5, 6, 1), (5, -1, 1), (5, 0, 0), (0, 0, 1)])
def test_pass_at_k_refuses_what_is_undefined(n: int, c: int, k: int) -> None:
    with pytest.raises(ValueError, match="undefined"):
        pass_at_k(n, c, k)


# --- values and errors ----------------------------------------------------------------------------


@given(st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_proportion_has_scipys_wilson_interval(kn: tuple[int, int]) -> None:
    k, n = kn
    found = proportion([1.0] * k + [0.0] * (n - k), n)
    expected = scipy_stats.binomtest(k, n).proportion_ci(0.95, method="wilson")
    assert found.value == k / n
    assert found.ci95 == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert found.stderr == pytest.approx(math.sqrt(k / n * (1 - k / n) / n))
    assert found.ci95 is not None
    assert 0 <= found.ci95[0] <= k / n <= found.ci95[1] <= 1


@given(st.lists(scores, min_size=2, max_size=40))
def test_mean_has_scipys_standard_error(values: list[float]) -> None:
    found = mean(values, len(values))
    assert found.value == pytest.approx(float(np.mean(values)), abs=1e-12)
    assert found.stderr == pytest.approx(float(scipy_stats.sem(values)), abs=1e-9)


@given(strata, st.booleans())
def test_stratified_is_the_mean_over_items_or_over_strata(
    lists: list[list[float]], macro: bool
) -> None:
    found = stratified(by_name(lists), n_in(lists), macro=macro)
    expected = (
        np.mean([np.mean(values) for values in lists]) if macro else np.mean(np.concatenate(lists))
    )
    assert found.value == pytest.approx(float(expected), abs=1e-12)


@given(st.lists(st.lists(scores, min_size=2, max_size=20), min_size=1, max_size=6), st.booleans())
def test_stratified_error_counts_only_what_varies_within_strata(
    lists: list[list[float]], macro: bool
) -> None:
    n = n_in(lists)
    weights = [1 / len(lists) if macro else len(values) / n for values in lists]
    variance = sum(
        w**2 * float(np.var(values, ddof=1)) / len(values)
        for w, values in zip(weights, lists, strict=True)
    )
    assert stratified(by_name(lists), n, macro=macro).stderr == pytest.approx(
        math.sqrt(variance), abs=1e-9
    )


@given(st.lists(scores, min_size=2, max_size=20), st.booleans())
def test_strata_of_one_item_each_have_the_error_of_a_plain_mean(
    values: list[float], macro: bool
) -> None:
    found = stratified(by_name([[value] for value in values]), len(values), macro=macro)
    assert found.stderr == pytest.approx(mean(values, len(values)).stderr, abs=1e-9)


@given(st.lists(scores, min_size=2, max_size=40))
def test_one_stratum_is_a_plain_mean(values: list[float]) -> None:
    found, plain = stratified({"all": values}, len(values), macro=True), mean(values, len(values))
    assert (found.value, found.ci95) == (plain.value, plain.ci95)
    assert found.stderr == pytest.approx(plain.stderr)


@given(strata)
def test_clusters_of_one_member_are_a_plain_mean(lists: list[list[float]]) -> None:
    values = [value for members in lists for value in members]
    found, plain = (
        clustered_mean([[value] for value in values], len(values)),
        mean(values, len(values)),
    )
    assert (found.value, found.n) == (plain.value, plain.n)
    assert found.stderr == (None if plain.stderr is None else pytest.approx(plain.stderr, abs=1e-9))


@given(st.lists(st.sampled_from([0.0, 1.0]), min_size=2, max_size=50), st.integers(1, 5))
def test_repeating_every_member_of_a_cluster_adds_no_certainty(
    values: list[float], times: int
) -> None:
    repeated, plain = (
        clustered_mean([[value] * times for value in values], len(values)),
        mean(values, len(values)),
    )
    assert repeated.stderr == pytest.approx(plain.stderr)
    assert repeated.ci95 == pytest.approx(plain.ci95)


@given(strata)
def test_an_empty_cluster_withholds_the_value(clusters: list[list[float]]) -> None:
    found = clustered_mean([*clusters, []], len(clusters) + 1)
    assert (found.value, found.n, found.n_items) == (None, len(clusters), len(clusters) + 1)


@given(strata)
def test_clustered_mean_is_the_ratio_estimate_with_its_linearised_error(
    clusters: list[list[float]],
) -> None:
    found, k = clustered_mean(clusters, len(clusters)), len(clusters)
    totals, sizes = np.array([sum(c) for c in clusters]), np.array([len(c) for c in clusters])
    ratio = totals.sum() / sizes.sum()
    assert found.value == pytest.approx(float(ratio), abs=1e-12)
    if k == 1:
        assert found.stderr is None
    else:
        residuals = np.var(totals - ratio * sizes, ddof=1)
        assert found.stderr == pytest.approx(float(np.sqrt(residuals / k) / sizes.mean()), abs=1e-9)


# --- laws -----------------------------------------------------------------------------------------

ESTIMATORS: list[Callable[[list[list[float]], int | None], Metric]] = [
    lambda lists, n: proportion(
        [round(v) for values in lists for v in values], n_in(lists) if n is None else n
    ),
    lambda lists, n: mean([v for values in lists for v in values], n_in(lists) if n is None else n),
    lambda lists, n: stratified(by_name(lists), n_in(lists) if n is None else n, macro=True),
    lambda lists, n: stratified(by_name(lists), n_in(lists) if n is None else n, macro=False),
    lambda lists, n: clustered_mean(lists, len(lists) if n is None else n),
]
NAMES = ["proportion", "mean", "macro", "micro", "clustered"]


@pytest.mark.parametrize("estimate", ESTIMATORS, ids=NAMES)
@given(lists=strata)
def test_value_and_interval_stay_fractions_around_each_other(
    estimate: Callable[..., Metric], lists: list[list[float]]
) -> None:
    found = estimate(lists, None)
    assert found.value is not None
    assert 0 <= found.value <= 1
    if found.ci95 is not None:
        assert 0 <= found.ci95[0] <= found.value <= found.ci95[1] <= 1


@pytest.mark.parametrize("estimate", ESTIMATORS, ids=NAMES)
@given(lists=strata, rng=st.randoms(use_true_random=False))
def test_shuffling_items_or_groups_changes_no_bit(
    estimate: Callable[..., Metric], lists: list[list[float]], rng: random.Random
) -> None:
    shuffled = [rng.sample(values, len(values)) for values in lists]
    rng.shuffle(shuffled)
    assert estimate(shuffled, None) == estimate(lists, None)


@pytest.mark.parametrize("estimate", ESTIMATORS, ids=NAMES)
def test_a_score_too_few_withholds_the_value(estimate: Callable[..., Metric]) -> None:
    found = estimate([[1.0], [0.0], [1.0]], 4)
    assert (found.value, found.ci95, found.n, found.reason) == (
        None,
        None,
        3,
        "3 of 4 items scored",
    )


@pytest.mark.parametrize("estimate", ESTIMATORS, ids=NAMES)
def test_no_items_at_all_have_no_value(estimate: Callable[..., Metric]) -> None:
    assert estimate([], None).value is None


@pytest.mark.parametrize("estimate", ESTIMATORS, ids=NAMES)
@pytest.mark.parametrize("score", [0.0, 1.0])
def test_equal_scores_are_exact_and_claim_no_certainty(
    estimate: Callable[..., Metric], score: float
) -> None:
    found = estimate([[score] * 3 for _ in range(27)], None)
    assert found.value == score
    assert found.ci95 is not None
    assert 0.02 < found.ci95[1] - found.ci95[0] < 0.2


def test_a_single_item_has_no_error() -> None:
    assert mean([0.5], 1) == Metric(0.5, 1, 1, estimator="mean")
    assert stratified({"a": [0.5]}, 1, macro=True) == Metric(
        0.5, 1, 1, estimator="macro over strata"
    )
    assert clustered_mean([[0.5, 0.5]], 1) == Metric(0.5, 1, 1, estimator="clustered")


def test_an_estimate_says_how_it_was_made_and_of_how_many_items() -> None:
    found = [
        proportion([0.0, 1.0], 2),
        mean([0.0, 0.5], 2),
        stratified({"a": [0.0, 0.5]}, 2, macro=True),
    ]
    found += [stratified({"a": [0.0, 0.5]}, 2, macro=False), clustered_mean([[0.0, 0.5], [1.0]], 2)]
    assert [(one.estimator, one.n, one.n_items) for one in found] == [
        (name, 2, 2) for name in ("Wilson", "mean", "macro over strata", "stratified", "clustered")
    ]


# --- coverage -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "shares"),
    [
        (200, (0.055, 0.13, 0.44, 0.57, 0.845, 0.96)),
        (250, (0.056, 0.088, 0.172)),
        (541, (0.11, 0.75)),
        (817, (0.31, 0.7)),
    ],
)
def test_wilson_covers_the_truth_in_93_to_97_of_100_runs(n: int, shares: tuple[float, ...]) -> None:
    intervals = [wilson_interval(k / n, n) for k in range(n + 1)]
    for p in shares:
        weights = scipy_stats.binom.pmf(np.arange(n + 1), n, p)
        assert (
            0.93
            <= sum(w for w, (low, high) in zip(weights, intervals, strict=True) if low <= p <= high)
            <= 0.97
        )


N_RUNS = 2000
"""Enough that the simulation's own error (half a point) keeps a true 95 % four of them away from 93
and 97.
"""


def coverage(estimate: Callable[[], Metric], truth: float) -> float:
    intervals = [estimate().ci95 for _ in range(N_RUNS)]
    return sum(low <= truth <= high for low, high in filter(None, intervals)) / N_RUNS


def groups_of(values: list[float], sizes: list[int]) -> list[list[float]]:
    """Consecutive pieces of the given sizes."""
    ends = list(accumulate(sizes))
    return [values[end - size : end] for end, size in zip(ends, sizes, strict=True)]


def test_the_interval_of_pass_at_ten_over_164_problems_covers() -> None:
    rng = np.random.default_rng(1)
    estimates = [pass_at_k(20, c, 10) for c in range(21)]
    solve = rng.beta(0.5, 1.0, 200_000)
    truth = float(np.mean(1 - (1 - solve) ** 10))

    def run() -> Metric:
        passes = rng.binomial(20, solve[rng.integers(0, len(solve), 164)])
        return mean([estimates[c] for c in passes.tolist()], 164)

    assert 0.93 <= coverage(run, truth) <= 0.97


@pytest.mark.parametrize("macro", [True, False])
def test_the_interval_over_27_strata_of_unequal_size_covers(macro: bool) -> None:
    rng = np.random.default_rng(2)
    sizes, shares = rng.integers(20, 60, 27), rng.uniform(0.1, 0.98, 27)
    truth = shares.mean() if macro else (sizes * shares).sum() / sizes.sum()
    chances = np.repeat(shares, sizes)

    def run() -> Metric:
        hits = (rng.random(len(chances)) < chances).astype(float).tolist()
        return stratified(by_name(groups_of(hits, sizes.tolist())), len(chances), macro=macro)

    assert 0.93 <= coverage(run, float(truth)) <= 0.97


def test_the_interval_over_clusters_covers_where_members_depend_on_each_other() -> None:
    rng = np.random.default_rng(4)

    def run() -> Metric:
        sizes = rng.integers(1, 4, 200)
        levels = np.repeat(rng.beta(1.2, 0.8, 200), sizes)
        hits = (rng.random(len(levels)) < levels).astype(float).tolist()
        return clustered_mean(groups_of(hits, sizes.tolist()), 200)

    assert 0.93 <= coverage(run, 0.6) <= 0.97


def test_the_normal_quantiles_are_scipys() -> None:
    assert float(scipy_stats.norm.ppf(0.975)) == pytest.approx(Z95, abs=1e-15)
    assert float(scipy_stats.norm.ppf(0.8)) == pytest.approx(Z80, abs=1e-15)


@given(st.integers(2, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_of_an_effective_size_is_wilsons_where_the_error_is_the_binomial_one(
    kn: tuple[int, int],
) -> None:
    k, n = kn
    p = k / n
    assert effective_wilson(p, math.sqrt(p * (1 - p) / n), n) == pytest.approx(
        wilson_interval(p, n), abs=1e-12
    )


@given(st.floats(0.01, 0.99), st.floats(0.001, 0.2), st.floats(1.01, 3))
def test_a_larger_error_never_gives_a_narrower_interval(
    value: float, stderr: float, factor: float
) -> None:
    small, large = (
        effective_wilson(value, stderr, 100),
        effective_wilson(value, stderr * factor, 100),
    )
    assert large[0] <= small[0] <= value <= small[1] <= large[1]


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_an_error_where_a_share_can_have_none_leaves_the_items_that_there_are(value: float) -> None:
    assert effective_wilson(value, 0.1, 40) == wilson_interval(value, 40)
    assert p_at_least(value, value, wilson_interval(value, 40)) == 1.0


# --- means of several draws -----------------------------------------------------------------------


@pytest.mark.parametrize(("value", "n_scoring"), [(0.1, 10), (0.9, 10), (0.02, 2), (0.5, 50)])
def test_of_draws_one_item_more_that_scores_alike_in_all_of_them_is_counted(
    value: float, n_scoring: int
) -> None:
    """By hand: of 100 items, each worth half of one that is drawn once."""
    stderr = math.sqrt(0.5 * value * (1 - value) / 100)
    effect = (0.5 * n_scoring + 1) / (n_scoring + 1)
    assert wilson_of_draws(value, stderr, 100) == pytest.approx(
        wilson_interval(value, 100 / effect), abs=1e-12
    )


@given(st.floats(0.001, 0.999), st.floats(0.001, 0.2), st.integers(2, 5000))
def test_of_draws_the_interval_is_never_narrower_and_its_mirror_image_is_the_failures(
    value: float, stderr: float, n: int
) -> None:
    low, high = wilson_of_draws(value, stderr, n)
    without = effective_wilson(value, stderr, n)
    assert low <= without[0] + 1e-12
    assert without[1] <= high + 1e-12
    assert 0 <= low <= value <= high <= 1
    mirrored = wilson_of_draws(1 - value, stderr, n)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-9)
    if stderr**2 * n >= value * (1 - value):
        # An item that counts for no more than its draws: nothing is missed by chance.
        assert (low, high) == pytest.approx(without, abs=1e-12)


@pytest.mark.parametrize(("value", "stderr"), [(0.0, 0.1), (1.0, 0.1), (0.3, 0.0), (0.3, 1e-13)])
def test_of_draws_without_an_error_the_items_are_what_there_is(value: float, stderr: float) -> None:
    assert wilson_of_draws(value, stderr, 40) == wilson_interval(value, 40)
