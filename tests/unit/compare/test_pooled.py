"""The pooled difference: the Average's own where all its inputs are there, and right where columns
score the same items.
"""

from dataclasses import replace

import numpy as np
import pytest

from evals.cards.average import average, shares_of
from evals.cards.card import Average
from evals.cards.published import shipped
from evals.compare.paired import (
    PairedDifference,
    Pairs,
    average_difference,
    influence,
    paired_difference,
)
from evals.compare.policy import known_columns
from evals.compare.pooled import covariances, pooled_difference
from evals.records import Column, ItemId

COLUMNS = known_columns()
RULE = shipped().average
AVERAGED, SHARES = RULE.inputs, shares_of(RULE)


def pairs(
    key: str, n: int, random: np.random.Generator, ids: tuple[ItemId, ...] | None = None
) -> Pairs:
    before, after = random.integers(0, 2, (2, n)).astype(float).tolist()
    ids = ids or tuple(ItemId(f"{key}/{i}") for i in range(n))
    strata = tuple(random.integers(0, 4, n).astype(str).tolist())
    return Pairs(COLUMNS[key], ids, tuple(before), tuple(after), strata, macro=key == "bbh")


def test_over_all_of_its_inputs_it_is_the_average() -> None:
    random = np.random.default_rng(1)
    found = {key: paired_difference(pairs(key, 60, random), 0) for key in AVERAGED}
    pooled, whole = pooled_difference(found), average_difference(found)
    assert pooled is not None
    for name in ("baseline", "candidate", "difference"):
        assert getattr(pooled, name) == pytest.approx(getattr(whole, name)), name
    # The two pairs of each column's own interval are added once, to all items.
    plain = sum((SHARES[key] ** 2) * (one.variance or 0) for key, one in found.items()) ** 0.5
    assert plain < (pooled.stderr or 0) < (whole.stderr or 0)
    assert pooled.stderr == pytest.approx(plain, rel=0.02)
    assert pooled.n == 60 * len(AVERAGED)


def test_a_cells_share_is_what_it_moves_the_average_by() -> None:
    base = dict.fromkeys(AVERAGED, 0.4)
    for key in AVERAGED:
        moved = average(RULE, base | {key: 0.5})
        assert moved is not None
        assert (moved - (average(RULE, base) or 0)) / 0.1 == pytest.approx(SHARES[key])


def test_what_could_not_be_compared_leaves_its_share_to_the_others() -> None:
    random = np.random.default_rng(2)
    found = {key: paired_difference(pairs(key, 60, random), 0) for key in ("gsm8k", "bbh")}
    found["mmlu"] = PairedDifference(COLUMNS["mmlu"], 0, reason="not run")
    pooled = pooled_difference(found)
    assert pooled is not None
    gains = [found[key].difference or 0 for key in ("gsm8k", "bbh")]
    assert pooled.difference == pytest.approx(sum(gains) / 2)
    assert pooled.column.heading == "Pooled over 2 columns, weighted as in the Average"
    assert pooled_difference({"mmlu": found["mmlu"]}) is None
    # A covariance with what is not pooled changes nothing.
    beside = {("gsm8k", "mmlu"): 0.5, ("alpaca_eval_1", "bbh"): 0.5}
    assert pooled_difference(found, beside) == pooled


def test_where_lower_is_better_a_rise_is_a_loss() -> None:
    random = np.random.default_rng(3)
    one = paired_difference(pairs("xstest_safe_refused", 60, random), 0)
    pooled = pooled_difference({"xstest_safe_refused": one})
    assert pooled is not None
    assert pooled.difference == pytest.approx(-(one.difference or 0))
    assert pooled.baseline == pytest.approx(1 - (one.baseline or 0))


def test_a_fall_is_a_gain_where_lower_is_better_though_the_average_does_not_turn_it() -> None:
    one = paired_difference(pairs("xstest_safe_refused", 60, np.random.default_rng(3)), 0)
    plain = Average(members=(("xstest_safe_refused",),))
    assert pooled_difference({one.key: one}, rule=plain) == pooled_difference({one.key: one})


def test_what_is_no_share_is_not_pooled() -> None:
    one = paired_difference(pairs("gsm8k", 60, np.random.default_rng(3)), 0)
    own = replace(one, column=Column("p", "Perplexity", lower_is_better=True, unit="own"))
    rule = Average(members=(("gsm8k",), ("p",)))
    assert pooled_difference({"p": own}, rule=rule) is None
    assert pooled_difference({"p": own, "gsm8k": one}, rule=rule) == pooled_difference(
        {"gsm8k": one}, rule=rule
    )


def test_an_items_influence_squares_and_sums_to_the_sampling_variance() -> None:
    one = pairs("bbh", 80, np.random.default_rng(4))
    shares = influence(one)
    change = np.array(one.candidate) - np.array(one.baseline)
    strata = np.array(one.strata)
    k = len(set(one.strata))
    variance = sum(
        np.var(change[strata == s], ddof=1) / np.sum(strata == s) / k**2 for s in set(one.strata)
    )
    assert sum(share**2 for share in shares.values()) == pytest.approx(variance)


def test_where_every_item_is_a_stratum_of_its_own_the_influences_still_sum_to_the_variance() -> (
    None
):
    one = pairs("gsm8k", 30, np.random.default_rng(8))
    lone = replace(one, strata=tuple(map(str, range(30))))
    variance = paired_difference(lone, n_resamples=0).variance
    assert sum(share**2 for share in influence(lone).values()) == pytest.approx(variance)


def test_one_pair_up_and_one_down_are_added_to_the_effective_items_of_all_columns() -> None:
    """By hand: shares of a third; of the last column neither variance nor effective items are
    known, but its standard error, 0.1, and its 60 items.
    """
    found = {
        key: PairedDifference(
            COLUMNS[key], 60, 0.5, 0.5, 0.0, 0.1, variance=variance, n_effective=n,
            n_better=3, n_worse=2, n_same=40,
        )
        for key, variance, n in (("gsm8k", 0.01, 50), ("bbh", 0.03, 20), ("mmlu", None, 0))
    }  # fmt: skip
    pooled = pooled_difference(found)
    assert pooled is not None
    n, variance = 9 / (1 / 50 + 1 / 20 + 1 / 60), (0.01 + 0.03 + 0.1**2) / 9
    assert pooled.stderr == pytest.approx((variance * n**2 + 2) ** 0.5 / (n + 2))
    assert (pooled.n, pooled.n_better, pooled.n_worse, pooled.n_same) == (180, 9, 6, 120)


def test_columns_that_score_the_same_items_do_not_count_twice() -> None:
    """Twice the same column is no surer than once; two that are opposite are surer."""
    random = np.random.default_rng(5)
    one = pairs("gsm8k", 100, random)
    same = Pairs(COLUMNS["ifeval"], one.ids, one.baseline, one.candidate, one.strata)
    turned = Pairs(COLUMNS["ifeval"], one.ids, one.candidate, one.baseline, one.strata)
    apart = pairs("ifeval", 100, random)
    errors = []
    for other in (same, turned, apart):
        both = {"gsm8k": one, "ifeval": other}
        found = {key: paired_difference(its, 0) for key, its in both.items()}
        pooled = pooled_difference(found, covariances(both))
        assert pooled is not None
        errors.append(pooled.stderr or 0)
    alone = paired_difference(one, 0).stderr or 0
    assert errors[0] == pytest.approx(alone, rel=0.02)
    assert errors[1] < 0.2 * alone
    assert errors[2] == pytest.approx(alone / 2**0.5, rel=0.1)


def test_the_interval_covers_at_its_level_and_the_one_sided_test_raises_no_more_alarms() -> None:
    """500 nulls of four columns on a few hundred items, seeded."""
    random, covered, alarms = np.random.default_rng(6), 0, 0
    sizes = {"gsm8k": 200, "ifeval": 250, "humaneval": 164, "xstest_safe_refused": 250}
    for _ in range(500):
        found = {}
        for key, n in sizes.items():
            up, down, _ = random.multinomial(n, (0.06, 0.06, 0.88)).tolist()
            ends = (1.0,) * up + (-1.0,) * down + (0.0,) * (n - up - down)
            ids = tuple(ItemId(f"{key}/{i}") for i in range(n))
            found[key] = paired_difference(
                Pairs(COLUMNS[key], ids, (0.0,) * n, ends, ("",) * n), n_resamples=0
            )
        pooled = pooled_difference(found)
        assert pooled is not None
        low, high = pooled.ci95 or (0.0, 0.0)
        covered, alarms = covered + (low <= 0 <= high), alarms + (high < 0)
    assert 0.93 <= covered / 500 <= 0.97
    assert alarms / 500 <= 0.025 + 3 * (0.025 * 0.975 / 500) ** 0.5
