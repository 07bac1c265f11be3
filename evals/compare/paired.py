"""Two runs on the same items: the difference of every column, how sure it is, and what drop the
items could show at all.

Fractions, in a column's own units; `gain` turns them so that up is better. Strata (subjects, tasks)
are fixed, as in stats.py.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import stdev
from typing import Any

from evals.cards.average import average_metric
from evals.cards.card import Average
from evals.cards.published import shipped
from evals.records import Column, ItemId, Metric
from evals.stats import Z95

# The normal distribution's 80 % point: added to Z95, what a power of 80 % asks for.
Z80 = 0.8416212335729143
# scipy's default; no p below 2 in 10,000 can come of it.
N_RESAMPLES = 9999
_SQUARABLE = 1e150
"""Below which the square of a number, and sums of them, are finite."""
_TOO_LARGE = "too large a number for an interval"


@dataclass(frozen=True, slots=True)
class Pairs:
    """One column's scores in two runs, item by item.

    ids, baseline, candidate, strata: one entry an item, in the same order; scores in [0, 1],
    stratum "" where there is none.
    macro: the column is the mean of its strata's means, else of its items.
    n_same: items both runs answered with the same words (MMLU: the same letter).
    noise: of each item's difference, the variance for the answers drawn; empty where neither run
    drew more than one.
    """

    column: Column
    ids: tuple[ItemId, ...]
    baseline: tuple[float, ...]
    candidate: tuple[float, ...]
    strata: tuple[str, ...]
    macro: bool = False
    n_same: int = 0
    noise: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """Candidate less baseline in one column; all None with a `reason` where it cannot be had.

    n: pairs (the Average: its inputs).  stderr: the interval's standard error, never 0.
    ci95: of the difference.
    p: two-sided.  n_better, n_worse: items whose score changed, in the column's sense of better;
    better, worse: their ids.
    n_same: see Pairs.
    mde: smallest true difference that such a comparison finds in 80 of 100 cases (two-sided test at
    5 %, normal).
    run_to_run: one run's standard deviation over runs on these same items, were both runs of one
    model; from the items' changes.
    estimator: how interval and p were made.  n_columns: how many columns are pooled in it.
    variance: of the difference, before the two pairs are added; n_effective: the items of equal
    weight that would have as much.  inputs: of the Average, the columns that enter it.
    noise: of the variance, the part for the answers drawn (prediction noise, Wang 2025, arXiv
    2512.21326); None where every item has one answer, or a run was not repeated.
    """

    column: Column
    n: int
    baseline: float | None = None
    candidate: float | None = None
    difference: float | None = None
    stderr: float | None = None
    ci95: tuple[float, float] | None = None
    p: float | None = None
    n_better: int = 0
    n_worse: int = 0
    n_same: int = 0
    mde: float | None = None
    run_to_run: float | None = None
    estimator: str = ""
    reason: str | None = None
    better: tuple[ItemId, ...] = ()
    worse: tuple[ItemId, ...] = ()
    n_columns: int = 1
    variance: float | None = None
    n_effective: float = 0.0
    inputs: tuple[str, ...] = ()
    noise: float | None = None

    @property
    def key(self) -> str:
        """The column's key."""
        return self.column.key

    @property
    def gain_ci95(self) -> tuple[float, float] | None:
        """The interval of the difference turned so that up is better."""
        return (
            (-self.ci95[1], -self.ci95[0])
            if self.ci95 is not None and self.column.lower_is_better
            else self.ci95
        )


def paired_difference(pairs: Pairs, n_resamples: int = N_RESAMPLES) -> PairedDifference:
    """The difference over the items both runs scored. n_resamples: of the permutation test; 0: no
    p, which takes most of the time.

    The interval is Wald's after two more pairs are added, one each way (Bonett & Price 2012, for
    0/1 scores): no interval has width zero, however few items changed. Other scores get pairs of
    the changes' root mean square (1 where nothing changed).
    The p-value is McNemar's exact one for 0/1 scores of equal weight, else a paired permutation
    test's.
    """
    import numpy as np

    if not pairs.ids:
        return PairedDifference(pairs.column, 0, reason="no item was scored in both runs")
    baseline, candidate = np.asarray(pairs.baseline), np.asarray(pairs.candidate)
    if _are_too_large(candidate - baseline):
        return PairedDifference(pairs.column, 0, reason=_TOO_LARGE)
    weights, variance = _weights_and_variance(candidate - baseline, pairs)
    n_effective = 1 / float(np.sum(weights**2))
    stderr = _with_two_pairs(variance, n_effective, pairs)
    values = float(weights @ baseline), float(weights @ candidate)
    # The two pairs, one up and one down, add nothing to the sum and two to the count.
    centre = (values[1] - values[0]) * n_effective / (n_effective + 2)
    p, how = (
        _p_value(candidate - baseline, weights, n_resamples) if n_resamples else (None, "no test")
    )
    found = normal_difference(pairs, values, stderr)
    # Of a difference's variance one run has half. Changes count whole, not less their mean: two
    # runs of one model differ by nothing but chance.
    spread = float(np.linalg.norm(weights * (candidate - baseline))) / math.sqrt(2)
    return replace(
        found,
        ci95=_interval(centre, stderr, pairs.column),
        p=p,
        run_to_run=spread,
        variance=variance,
        n_effective=n_effective,
        noise=float(weights**2 @ np.asarray(pairs.noise)) if pairs.noise else None,
        estimator=f"Bonett-Price, {how}",
    )


def _are_too_large(changes: Iterable[float]) -> bool:
    """As of a broken model's perplexities."""
    return not all(abs(one) < _SQUARABLE for one in changes)


def bootstrapped_difference(
    pairs: Pairs,
    values: tuple[float, float],
    replicates: Sequence[Sequence[float]],
    noise: float | None = None,
) -> PairedDifference:
    """The difference of a column that is no mean of scores: its error is the spread of the
    differences of both runs' replicates.

    values: the column's in baseline and candidate.  noise: as in PairedDifference.
    """
    if not replicates[0] or len(replicates[0]) != len(replicates[1]):
        return PairedDifference(pairs.column, 0, reason="its data is not here: give --data")
    changes = [b - a for a, b in zip(*replicates, strict=True)]
    if _are_too_large(changes):
        return PairedDifference(pairs.column, 0, reason=_TOO_LARGE)
    variance = stdev(changes) ** 2
    n = len(pairs.ids)
    # Of what is no share an item has no unit that two pairs could be of.
    is_share = pairs.column.is_share
    stderr = _with_two_pairs(variance, n, pairs) if is_share else math.sqrt(variance)
    return replace(
        normal_difference(pairs, values, stderr),
        variance=variance,
        n_effective=float(n),
        noise=None if noise is None else min(noise, variance),
        estimator="paired bootstrap, normal",
    )


def average_difference(
    differences: Mapping[str, PairedDifference], rule: Average | None = None
) -> PairedDifference:
    """The Average's difference from its inputs' by cell key, which are independent; normal interval
    and p. rule: a card's; None: the default card's.
    """
    rule = rule or shipped().average
    # The Average's rule carries whatever errors it is handed: here those of the differences.
    baseline, candidate, spread = (
        average_metric(
            rule,
            {
                key: Metric(getattr(one, side), one.n, one.n, getattr(one, error))
                for key, one in differences.items()
            },
        )
        for side, error in (
            ("baseline", "stderr"),
            ("candidate", "stderr"),
            ("baseline", "run_to_run"),
        )
    )
    if baseline.value is None or candidate.value is None or baseline.stderr is None:
        return PairedDifference(rule.column, baseline.n, reason=baseline.reason)
    found = normal_difference(
        Pairs(rule.column, (), (), (), ()), (baseline.value, candidate.value), baseline.stderr
    )
    return replace(found, n=baseline.n, run_to_run=spread.stderr, inputs=rule.inputs)


def normal_difference(pairs: Pairs, values: tuple[float, float], stderr: float) -> PairedDifference:
    """The difference of (baseline, candidate) where the standard error is all that is known of its
    spread.
    """
    difference = values[1] - values[0]
    both = list(zip(pairs.ids, pairs.baseline, pairs.candidate, strict=True))
    up, down = (tuple(i for i, a, b in both if b > a), tuple(i for i, a, b in both if b < a))
    better, worse = (down, up) if pairs.column.lower_is_better else (up, down)
    # No spread: nothing changed.
    p = math.erfc(abs(difference) / stderr / math.sqrt(2)) if stderr else 1.0
    return PairedDifference(
        pairs.column, len(pairs.ids), *values, difference, stderr,
        _interval(difference, stderr, pairs.column), p,
        len(better), len(worse), pairs.n_same, (Z95 + Z80) * stderr, estimator="normal",
        better=better, worse=worse,
    )  # fmt: skip


def influence(pairs: Pairs) -> dict[ItemId, float]:
    """By how much each item moves the difference beyond what its stratum does on average; the
    squares sum to the difference's sampling variance.
    """
    import numpy as np

    change = np.asarray(pairs.candidate) - np.asarray(pairs.baseline)
    weights, _ = _weights_and_variance(change, pairs)
    _, stratum, sizes = np.unique(np.asarray(pairs.strata), return_inverse=True, return_counts=True)
    means = np.bincount(stratum, change) / sizes
    off = np.where(sizes > 1, means, np.mean(change))[stratum]
    scale = np.sqrt(np.where(sizes > 1, sizes / np.maximum(1, sizes - 1), 1.0))[stratum]
    return dict(zip(pairs.ids, (weights * (change - off) * scale).tolist(), strict=True))


def _interval(centre: float, stderr: float, column: Column) -> tuple[float, float]:
    low, high = centre - Z95 * stderr, centre + Z95 * stderr
    return (max(-1.0, low), min(1.0, high)) if column.is_share else (low, high)


def _with_two_pairs(variance: float, n: float, pairs: Pairs) -> float:
    """The standard error of a mean over n once two pairs are added, one each way; never 0."""
    squares = [(b - a) ** 2 for a, b in zip(pairs.baseline, pairs.candidate, strict=True) if a != b]
    # squares may be too small for a float
    size = (math.fsum(squares) / len(squares) if squares else 0.0) or 1.0
    return math.sqrt(variance * n * n + 2 * size) / (n + 2)


def _weights_and_variance(change: Any, pairs: Pairs) -> tuple[Any, float]:
    """Each item's weight (they sum to 1) and the sampling variance of the weighted mean; a lone
    item gets the pooled variance.
    """
    import numpy as np

    _, stratum, sizes = np.unique(np.asarray(pairs.strata), return_inverse=True, return_counts=True)
    weights = (
        1 / (len(sizes) * sizes[stratum]) if pairs.macro else np.full(len(change), 1 / len(change))
    )
    means = np.bincount(stratum, change) / sizes
    squares = np.bincount(stratum, (change - means[stratum]) ** 2)
    per_item = np.where(sizes > 1, squares / np.maximum(1, sizes - 1), np.var(change))
    return weights, float(np.sum(np.bincount(stratum, weights) ** 2 * per_item / sizes))


def _p_value(change: Any, weights: Any, n_resamples: int) -> tuple[float, str]:
    import numpy as np
    from scipy.stats import binomtest, permutation_test

    signed = (change * weights)[change != 0]
    if np.ptp(weights) < 1e-12 and set(np.unique(np.abs(change))) <= {0.0, 1.0}:
        return (
            float(binomtest(int(np.sum(signed > 0)), len(signed)).pvalue) if len(signed) else 1.0
        ), "exact McNemar"
    if len(signed) < 2:  # with one changed item either sign is as likely
        return 1.0, "paired permutation"
    # What is rounded below is then relative to the largest change.
    signed /= np.max(np.abs(signed))
    # Against zeros, swapping a pair is turning a change's sign. In batches, since all draws at once
    # would be 9,999 rows of every item; from a seed, so that equal runs give an equal p.
    found = permutation_test(
        (signed, np.zeros(len(signed))),
        # sums that are equal but for their last bits are ties
        lambda a, b, axis: np.round(np.sum(a - b, axis=axis), 9),
        permutation_type="samples",
        vectorized=True,
        n_resamples=n_resamples,
        batch=500,
        rng=np.random.default_rng(0),
    )
    return float(found.pvalue), "paired permutation"
