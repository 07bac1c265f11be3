"""One paired difference over the items of several columns, each weighted as in the Average.

What no column shows alone their sum may: a test over all items at once finds smaller drops (arXiv
2602.10144). Columns that score the same items depend on each other; their covariance over those
items enters the standard error (cluster-aware, arXiv 2411.00640).
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations

from evals.cards.average import shares_of
from evals.cards.card import Average
from evals.cards.published import shipped
from evals.compare.paired import PairedDifference, Pairs, influence, normal_difference
from evals.records import Column

POOLED = "pooled"


def covariances(pairs: Mapping[str, Pairs]) -> dict[tuple[str, str], float]:
    """Of the differences of every two columns that score the same items, by their keys in order;
    columns without an item in common are independent and left out.
    """
    found = {}
    for one, other in combinations(sorted(pairs), 2):
        if not set(pairs[one].ids).isdisjoint(pairs[other].ids):
            first, second = influence(pairs[one]), influence(pairs[other])
            found[one, other] = math.fsum(
                share * second[item] for item, share in first.items() if item in second
            )
    return found


def pooled_difference(
    differences: Mapping[str, PairedDifference],
    covariance: Mapping[tuple[str, str], float] | None = None,
    rule: Average | None = None,
) -> PairedDifference | None:
    """The sum of the columns' gains, each times its share of the Average; shares of the columns
    that are here sum to 1. Up is better, whichever way a card's Average takes a column. None where
    no column that enters the Average, and is a share, was compared.

    n: items, over all columns.  covariance: as `covariances` gives it.
    rule: a card's; None: the default card's.  Normal interval and p.
    """
    whole = shares_of(rule or shipped().average)
    there = {
        key: one
        for key, one in differences.items()
        if key in whole
        and one.difference is not None
        and one.stderr is not None
        # What is no share would outweigh all others.
        and one.column.is_share
    }
    if not there:
        return None
    total = math.fsum(abs(whole[key]) for key in there)
    signs = {key: -1 if one.column.lower_is_better else 1 for key, one in there.items()}
    shares = {key: signs[key] * abs(whole[key]) / total for key in there}
    variance = math.fsum(shares[key] ** 2 * _variance(one) for key, one in there.items())
    for (one, other), both in (covariance or {}).items():
        if one in there and other in there:
            variance += 2 * shares[one] * shares[other] * both
    values = [
        # Where lower is better the share is negative, and what counts is what is left of 1.
        math.fsum(
            shares[key] * getattr(one, side) + max(0.0, -shares[key]) for key, one in there.items()
        )
        for side in ("baseline", "candidate")
    ]
    n_columns = f"{len(there)} column{'s' if len(there) > 1 else ''}"
    column = Column(POOLED, f"Pooled over {n_columns}, weighted as in the Average")
    found = normal_difference(
        Pairs(column, (), (), (), ()),
        (values[0], values[1]),
        _with_two_pairs(variance, shares, there),
    )
    return replace(
        found,
        n=sum(one.n for one in there.values()),
        n_better=sum(one.n_better for one in there.values()),
        n_worse=sum(one.n_worse for one in there.values()),
        n_same=sum(one.n_same for one in there.values()),
        estimator="weighted sum, normal",
        n_columns=len(there),
    )


def _variance(one: PairedDifference) -> float:
    """Of a column's difference, without the two pairs that its own interval has."""
    # No spread: no answer changed.
    known = one.variance is not None and one.stderr
    return float(one.variance or 0.0) if known else (one.stderr or 0.0) ** 2


def _with_two_pairs(
    variance: float, shares: Mapping[str, float], there: Mapping[str, PairedDifference]
) -> float:
    """The standard error once two pairs are added to all items, one each way, as `paired` adds them
    to one column's: added to each column they would count eight times, and the interval of few
    changed items be too wide. 0 where no answer changed.
    """
    if all(one.stderr == 0 for one in there.values()):
        return 0.0
    n = 1 / math.fsum(
        shares[key] ** 2 / (one.n_effective or max(one.n, 1)) for key, one in there.items()
    )
    return math.sqrt(max(variance, 0.0) * n * n + 2) / (n + 2)
