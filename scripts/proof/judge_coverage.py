"""How often the 95 % intervals of evals.fidelity.measurement hold the truth, by simulation.

    python -m scripts.proof.judge_coverage [DRAWS]

Each draw makes recorded models and a candidate whose judge errs as one more of them, log-odds
normal between models. Truth is what the card's judge would have said of the candidate's own
answers. An estimate that is refused counts neither way; the share refused is printed beside. The
spreads go beyond those of recorded judges (scripts.proof.judge_pairs: up to 3.8).
"""

import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

from evals.fidelity.estimates import WIDEST
from evals.fidelity.measurement import (
    Confusion,
    Estimate,
    Preferences,
    moments,
    preference,
    with_labels,
    yes_no,
)


class Case(NamedTuple):
    """n_models: recorded.  spread: standard deviation of log-odds between models: of sensitivity
    and specificity (yes/no), of preferring an answer (preference).  share: of yes by the card's
    judge.  n: answers each.
    """

    kind: str
    n_models: int
    spread: float
    share: float
    n: int


class Coverage(NamedTuple):
    """covered: share of the intervals that hold the truth.  refused: of all draws.  width: mean.
    narrow: share of all draws whose interval is narrow enough to name a value in it.  misled: of
    all draws, narrow and without the truth.
    """

    covered: float
    refused: float
    width: float
    narrow: float
    misled: float


SPREADS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0)
CASES = [
    *(
        Case("yes/no", m, spread, share, 250)
        for m in (3, 5)
        for spread in SPREADS
        for share in (0.05, 0.3)
    ),
    *(Case("yes/no", 10, spread, 0.3, 250) for spread in (0.0, 1.0, 3.0)),
    *(
        Case(kind, 3, spread, share, 250)
        for kind in ("heavy tails", "weak stand-in")
        for spread in (0.5, 1.0, 3.0)
        for share in (0.05, 0.3)
    ),
    *(
        Case("preference", m, spread, 0.2, 805)
        for m in (3, 5)
        for spread in (0.0, 0.5, 1.0, 2.0, 3.0)
    ),
    *(Case("labels", 0, 2.0, share, n) for share in (0.02, 0.3) for n in (20, 50, 100)),
]


def simulate(case: Case, draws: int, seed: int = 42) -> Coverage:
    """The coverage of one case."""
    import numpy as np

    rng = np.random.default_rng(seed)
    found = [_DRAW[case.kind](case, rng) for _ in range(draws)]
    ends = [(*one.ci95, truth) for one, truth in found if one.ci95 is not None]
    if not ends:
        return Coverage(float("nan"), 1.0, float("nan"), 0.0, 0.0)
    low, high, truth = np.array(ends).T
    holds = (low - 1e-9 <= truth) & (truth <= high + 1e-9)
    narrow = high - low <= WIDEST
    return Coverage(
        float(holds.mean()),
        1 - len(ends) / draws,
        float((high - low).mean()),
        float(narrow.sum()) / draws,
        float((narrow & ~holds).sum()) / draws,
    )


def _yes_no(case: Case, rng: Any) -> tuple[Estimate, float]:
    *recorded, own = (_model(case, rng, share) for share in _shares(case, rng))
    estimate = yes_no(own.both + own.standin_only, own.n, recorded)
    return estimate, (own.both + own.card_only) / own.n


def _shares(case: Case, rng: Any) -> list[float]:
    """What the card's judge says of the recorded models, which differ widely, and of the
    candidate.
    """
    return [*rng.uniform(0.05, 0.7, case.n_models), case.share]


_CENTRES = {"weak stand-in": (0.5, 3.0)}
"""Mean log-odds of sensitivity and specificity, where they are not those of a good stand-in."""


def _model(case: Case, rng: Any, share: float) -> Confusion:
    between = rng.standard_t(3, 2) if case.kind == "heavy tails" else rng.standard_normal(2)
    centre = _CENTRES.get(case.kind, (2.2, 2.2))
    sensitivity, specificity = 1 / (1 + _exp(-(centre + case.spread * between)))
    yes = int(rng.binomial(case.n, share))
    both = int(rng.binomial(yes, sensitivity))
    neither = int(rng.binomial(case.n - yes, specificity))
    return Confusion(both, yes - both, case.n - yes - neither, neither)


def _exp(values: Any) -> Any:
    import numpy as np

    return np.exp(values)


def _preference(case: Case, rng: Any) -> tuple[Estimate, float]:
    *recorded, own = (
        _pairs(case, rng, level) for level in (*rng.uniform(-2.5, 0, case.n_models), -1.2)
    )
    estimate = preference(Preferences(own.standin, own.length), [moments(r) for r in recorded])
    return estimate, sum(own.card) / case.n


def _pairs(case: Case, rng: Any, level: float) -> Preferences:
    """A stand-in that leans to length otherwise than the card's judge, and by a shift of its own on
    each model.
    """
    quality, length = level + 1.5 * rng.standard_normal(case.n), 0.5 * rng.standard_normal(case.n)
    shift = case.spread * rng.standard_normal()
    card = rng.random(case.n) < 1 / (1 + _exp(-(quality + 0.5 * length)))
    standin = rng.random(case.n) < 1 / (1 + _exp(-(quality + 1.5 * length + shift)))
    return Preferences(standin.astype(float).tolist(), length.tolist(), card.astype(float).tolist())


def _labels(case: Case, rng: Any) -> tuple[Estimate, float]:
    """case.n labels among 450 answers."""
    own = _model(case._replace(n=450), rng, case.share)
    pairs = [(1.0, 1.0)] * own.both + [(0.0, 1.0)] * own.card_only
    pairs += [(1.0, 0.0)] * own.standin_only + [(0.0, 0.0)] * own.neither
    picked = rng.choice(450, case.n, replace=False)
    found = with_labels([f for f, _ in pairs], [pairs[i] for i in picked], Estimate(None))
    return found, (own.both + own.card_only) / 450


_DRAW = {
    "yes/no": _yes_no,
    "heavy tails": _yes_no,
    "weak stand-in": _yes_no,
    "preference": _preference,
    "labels": _labels,
}


def lines(draws: int) -> Iterator[str]:
    """A table, a line a case."""
    yield "| kind | models | spread | share | n | covered | refused | width | narrow | misled |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    for case in CASES:
        found = simulate(case, draws)
        yield (
            f"| {case.kind} | {case.n_models} | {case.spread:g} | {case.share:g} | {case.n} |"
            f" {found.covered:.1%} | {found.refused:.0%} | {100 * found.width:.1f} |"
            f" {found.narrow:.0%} | {found.misled:.1%} |"
        )


if __name__ == "__main__":
    for line in lines(int(sys.argv[1]) if len(sys.argv) > 1 else 1000):
        print(line, flush=True)
