"""How far two judges agree about the same answers, and how far the second moves a column. Pure;
what comes out is JSON-ready.

Answers to one question are alike, so questions are what the intervals draw: the cluster bootstrap's
percentile interval (Davison & Hinkley 1997, sections 3.8 and 5.3).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from evals.records import Grade
from evals.stats import wilson_interval

UNREADABLE = "unreadable"
_SEED = 42
_RESAMPLES = 4000
_SIDES = {"truth": ("no", "yes"), "info": ("no", "yes")}


@dataclass(frozen=True, slots=True)
class Pair:
    """One answer graded by two judges. question: answers to it are one cluster.  author: the model
    that wrote the answer.
    """

    question: str
    author: str
    recorded: Grade
    candidate: Grade


def label_of(grade: Grade, role: str) -> str:
    """The role's verdict in a word: the judge's own, yes or no, the side it prefers, or that it
    cannot be read.
    """
    score = grade.scores.get(role)
    if grade.unparsed or score is None:
        return UNREADABLE if grade.unparsed else str(grade.extracted)
    return "draw" if score == 0.5 else _SIDES.get(role, ("reference", "model"))[score > 0.5]


def kappa(tables: Any) -> Any:
    """Cohen's kappa of m x m tables of counts, flat along the last axis; NaN where chance alone
    agrees.  Source: Cohen 1960.
    """
    m = math.isqrt(tables.shape[-1])
    square = tables.reshape(*tables.shape[:-1], m, m)
    n = square.sum((-1, -2))
    by_chance = (square.sum(-1) * square.sum(-2)).sum(-1) / n**2
    return (square.trace(axis1=-2, axis2=-1) / n - by_chance) / (1 - by_chance)


def agreement(pairs: Sequence[Pair], role: str) -> dict[str, Any]:
    """Labels, their table (rows recorded, columns candidate), the share of equal ones and kappa; an
    unreadable verdict is a label too.
    """
    import numpy as np

    named = [(label_of(pair.recorded, role), label_of(pair.candidate, role)) for pair in pairs]
    labels = sorted(
        {label for both in named for label in both}, key=lambda label: (label == UNREADABLE, label)
    )
    # A table is kept flat, m x m numbers in a row: a pair is a row with one 1, rows add up to
    # tables, and every (m + 1)th number lies on the diagonal.
    m = len(labels)
    sums = _by_question(
        pairs,
        np.eye(m * m)[
            [labels.index(recorded) * m + labels.index(candidate) for recorded, candidate in named]
        ],
    )
    return {
        "labels": labels,
        "table": sums.sum(0).astype(int).reshape(m, m).tolist(),
        "agreement": _estimate(sums, lambda t: t[..., :: m + 1].sum(-1) / t.sum(-1)),
        "kappa": _estimate(sums, kappa, is_share=False),
        "n_unreadable": {
            who: sum(both[at] == UNREADABLE for both in named)
            for at, who in enumerate(("recorded", "candidate"))
        },
    }


def shift(pairs: Sequence[Pair], column: str) -> dict[str, Any]:
    """The column's value by the candidate less its value by the recorded judge, each over its
    verdicts that give a score; and both.
    """
    rows = [
        [
            value
            for g in (p.candidate, p.recorded)
            for value in (g.scores.get(column, 0.0), column in g.scores)
        ]
        for p in pairs
    ]
    found = _estimate(
        _by_question(pairs, rows), lambda t: t[..., 0] / t[..., 1] - t[..., 2] / t[..., 3]
    )
    value, n_value, was, n_was = map(sum, zip(*rows, strict=True))
    return found | {
        "n": len(pairs),
        "candidate": value / n_value if n_value else None,
        "recorded": was / n_was if n_was else None,
    }


def _by_question(pairs: Sequence[Pair], rows: Any) -> Any:
    """The rows, one a pair, summed by question."""
    import numpy as np

    index = {
        question: n for n, question in enumerate(dict.fromkeys(pair.question for pair in pairs))
    }
    sums = np.zeros((len(index), len(rows[0])))
    np.add.at(sums, [index[pair.question] for pair in pairs], np.asarray(rows, float))
    return sums


def _estimate(
    sums: Any, statistic: Callable[[Any], Any], *, is_share: bool = True
) -> dict[str, Any]:
    """A statistic of the summed rows with standard error and interval; value None where it is
    undefined.

    Where no draw differs, a share's interval (or that of two shares' difference) is as wide as
    Wilson's of a change that was never seen; kappa, which has no such bound, then has none.
    """
    import numpy as np

    k = len(sums)
    # Drawing questions with replacement is drawing how often each comes: one product has all sums.
    drawn = np.random.default_rng(_SEED).multinomial(k, np.full(k, 1 / k), size=_RESAMPLES) @ sums
    # In a draw the statistic may be 0 / 0; nanquantile leaves such draws out.
    with np.errstate(divide="ignore", invalid="ignore"):
        value, values = float(statistic(sums.sum(0))), statistic(drawn)
    if math.isnan(value):
        return {"value": None, "stderr": None, "ci95": None}
    low, high = map(float, np.nanquantile(values, (0.025, 0.975)))
    if high - low > 1e-12:
        return {"value": value, "stderr": float(np.nanstd(values, ddof=1)), "ci95": [low, high]}
    half = wilson_interval(0.0, k)[1]
    return {
        "value": value,
        "stderr": None,
        "ci95": [max(-1.0, value - half), min(1.0, value + half)] if is_share else None,
    }
