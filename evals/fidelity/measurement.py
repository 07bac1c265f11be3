"""What another judge would have said: estimates from a stand-in's verdicts, with intervals that
know that judges err differently on different models. Pure; numpy is loaded when called.

A measurement model is fitted on recorded pairs (stand-in's verdict, card judge's verdict), a
recorded model at a time. How a stand-in errs is taken to vary between models, and the candidate to
be one more draw: few models leave the spread uncertain, and the intervals are as wide as that is.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist
from typing import Any

LEAST_MODELS = 3
"""So few recorded models at least: two show no spread to speak of."""
_SPREAD = 1.2
"""The scale of the half-Cauchy prior of the spread between models, in log-odds, with a tail that
lets the data say more (Gelman 2006, section 7.2, on few groups). Half of such a prior lies above
its scale, and this is the median of what was recorded: XSTest's answers of three models, judged by
GPT-4, string match and people, give 14 spreads of sensitivity and specificity, 0 to 3.8, their
median 1.16, their quartiles 0.1 and 2.5 (scripts/proof/judge_pairs.py); the prior's: 0.5, 2.9.
"""
_MEAN = 2.5
"""The standard deviation of the normal prior of the models' mean log-odds: next to none."""
_UNLIKE = 0.025
"""The share of further models that could show the candidate's rate, below which it is not alike."""
_BEYOND = 3.0
"""Standard errors by which a candidate may lie outside of what was recorded."""
_LEAST_DISCRIMINATION = 0.02
"""Below this sensitivity + specificity - 1 a verdict says next to nothing of the other judge's."""
_NORMAL = tuple(NormalDist().inv_cdf((k + 0.5) / 15) for k in range(15))
"""The standard normal distribution in 15 equal parts."""
_DRAWS = 20_000
_SEED = 42


@dataclass(frozen=True, slots=True)
class Estimate:
    """A share in [0, 1] with its 95 % interval, or why there is none.

    n_models: recorded models behind it.  n_labels: the candidate's own answers with a gold label.
    """

    value: float | None
    ci95: tuple[float, float] | None = None
    n_models: int = 0
    n_labels: int = 0
    reason: str | None = None

    @property
    def width(self) -> float | None:
        """Of its interval."""
        return None if self.ci95 is None else self.ci95[1] - self.ci95[0]


@dataclass(frozen=True, slots=True)
class Confusion:
    """Verdicts on one recorded model's answers: said yes by both, by the card's judge only, by the
    stand-in only, by neither.
    """

    both: int
    card_only: int
    standin_only: int
    neither: int

    @property
    def n(self) -> int:
        """Answers."""
        return self.both + self.card_only + self.standin_only + self.neither


# --- verdicts of yes and no -----------------------------------------------------------------------


def yes_no(
    n_yes: int, n: int, recorded: Sequence[Confusion], least_models: int = LEAST_MODELS
) -> Estimate:
    """The card's judge's share of yes, from a stand-in that said it of n_yes among n answers.

    Rogan and Gladen's relation with both error sources (arXiv 2511.21140): the n answers, and
    sensitivity and specificity, each with its spread between the recorded models (log-odds normal
    between models, counts binomial within).  ci95: what the relation gives over the distribution of
    all three, without any opinion about the share itself; where a further model's verdicts may say
    nothing, anything.
    """
    import numpy as np

    of_yes = [(one.both, one.both + one.card_only) for one in recorded]
    of_no = [(one.neither, one.standin_only + one.neither) for one in recorded]
    m = sum(one.n > 0 for one in recorded)
    measured = min(sum(trials > 0 for _, trials in counts) for counts in (of_yes, of_no))
    if m < least_models or measured < min(2, least_models - 1):
        return Estimate(None, n_models=m, reason=_too_few(min(m, measured), least_models))
    odds, _, _ = _grids()
    right = 1 / (1 + np.exp(-odds))
    sensitivity, specificity = _further(of_yes), _further(of_no)
    weights = sensitivity[:, None] * specificity[None, :]
    false_yes = np.broadcast_to(1 - right[None, :], weights.shape)
    true_yes = np.broadcast_to(right[:, None], weights.shape)
    rate = n_yes / n
    noise = math.sqrt(max(n_yes, 0.5) * max(n - n_yes, 0.5) / n) / n
    allows = (np.minimum(false_yes, true_yes) - 2 * noise <= rate) & (
        rate <= np.maximum(false_yes, true_yes) + 2 * noise
    )
    weights = np.where(allows, weights, 0.0)
    if float(weights.sum()) < _UNLIKE:
        return Estimate(
            None,
            n_models=m,
            reason=(
                f"the candidate lies outside the calibrated range: hardly a model on which the"
                f" stand-in errs as on the {m} recorded ones could show its {rate:.1%}"
            ),
        )
    weights = weights / weights.sum()
    rates = np.clip(rate + noise * np.array(_NORMAL)[:, None, None], 0, 1)
    says = true_yes - false_yes
    is_blind = says < _LEAST_DISCRIMINATION
    shares = np.clip((rates - false_yes) / np.where(is_blind, 1, says), 0, 1)
    each = np.broadcast_to(weights / len(_NORMAL), shares.shape)
    # A verdict that says nothing leaves everything open, half of it to either side.
    blind = float(weights[is_blind].sum()) / 2
    values = np.append(shares[:, ~is_blind], (0.0, 1.0))
    order = np.argsort(values)
    up = np.cumsum(np.append(each[:, ~is_blind], (blind, blind))[order])
    at = np.minimum(np.searchsorted(up, (0.025, 0.5, 0.975)), len(up) - 1)
    low, middle, high = map(float, values[order][at])
    return Estimate(middle, (low, high), m)


@cache
def _grids() -> tuple[Any, Any, Any]:
    """Log-odds; the normal densities over them, a row for each mean and spread between models; the
    prior of those.
    """
    import numpy as np

    odds = np.arange(-7, 7.01, 0.25)
    means = np.arange(-6, 6.01, 0.25)
    spreads = np.geomspace(0.05, 12, 40)
    mean, spread = (axis.ravel() for axis in np.meshgrid(means, spreads, indexing="ij"))
    density = np.exp(-0.5 * ((odds[None, :] - mean[:, None]) / spread[:, None]) ** 2)
    density /= density.sum(1, keepdims=True)
    # Steps of a geometric grid are as long as its values: times `spread`.
    prior = np.exp(-0.5 * (mean / _MEAN) ** 2) / (1 + (spread / _SPREAD) ** 2) * spread
    return odds, density, prior / prior.sum()


def _further(counts: Sequence[tuple[int, int]]) -> Any:
    """The predictive distribution over the grid of log-odds of a share in a further model, from
    (hits, trials) in each of the recorded ones.
    """
    import numpy as np

    odds, density, posterior = _grids()
    for hits, trials in counts:
        fits = hits * odds - trials * np.logaddexp(0, odds)
        posterior = posterior * (density @ np.exp(fits - fits.max()))
        posterior = posterior / posterior.sum()
    return posterior @ density


# --- preferences ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Preferences:
    """One model's pairs: the stand-in's preference (0 reference to 1 model), the answer's length
    against the reference's, and the card's judge's preference where it is known.

    length: the logarithm of the quotient of the lengths in characters.
    """

    standin: Sequence[float]
    length: Sequence[float]
    card: Sequence[float] = ()


Moments = Sequence[Sequence[float]]
"""A recorded model's mean products of (1, stand-in, tanh of length, card): all that a fit needs."""


def moments(pairs: Preferences) -> Moments:
    """Those of a model whose card's preferences are known."""
    import numpy as np

    rows = np.column_stack([_design(pairs), np.asarray(pairs.card, float)])
    found: list[list[float]] = (rows.T @ rows / len(rows)).tolist()
    return found


def preference(
    candidate: Preferences, recorded: Sequence[Moments], least_models: int = LEAST_MODELS
) -> Estimate:
    """The mean preference that the card's judge would show, from a stand-in's and the lengths.

    The card's preference is regressed on both, over the recorded models, each counting alike; what
    the fit misses of a model's mean when that model is left out is the spread that a further one is
    drawn from: Student's t around 0 with as many degrees of freedom as there are models
    (calibrated evaluators, arXiv 2512.11150; leave one model out).
    """
    import numpy as np

    m = len(recorded)
    if m < max(2, least_models):
        return Estimate(None, n_models=m, reason=_too_few(m, least_models))
    design = _design(candidate)
    own = [np.asarray(one, float) for one in recorded]
    if why := _beyond(design, own):
        said = f"the candidate lies outside the calibrated range: {why}"
        return Estimate(None, n_models=m, reason=said)
    total = sum(own)
    missed = np.array([one[0, -1] - one[0, :-1] @ _fit(total - one) for one in own])
    coefficients = _fit(total)
    predicted = design @ coefficients
    # What is left of a preference once it is predicted: these answers' own share of the error.
    error = np.append(-coefficients, 1.0)
    left = max(0.0, float(np.mean([error @ one @ error for one in own])))
    noise = math.sqrt((float(np.var(predicted)) + left) / len(predicted))
    rng = np.random.default_rng(_SEED)
    scale = math.sqrt(float(np.mean(missed**2)))
    value = float(predicted.mean())
    draws = value + scale * rng.standard_t(m, _DRAWS) + noise * rng.standard_normal(_DRAWS)
    low, high = map(float, np.quantile(np.clip(draws, 0, 1), (0.025, 0.975)))
    return Estimate(min(1.0, max(0.0, value)), (low, high), m)


def _design(pairs: Preferences) -> Any:
    import numpy as np

    length = np.tanh(np.asarray(pairs.length, float))
    return np.column_stack([np.ones(len(length)), np.asarray(pairs.standin, float), length])


def _fit(products: Any) -> Any:
    import numpy as np

    # The least-norm solution where a column is constant (a stand-in that never says yes).
    return np.linalg.lstsq(products[:-1, :-1], products[:-1, -1], rcond=None)[0]


def _beyond(design: Any, recorded: Sequence[Any]) -> str | None:
    """In what the candidate's means lie outside of the recorded models', more than its own sampling
    error.
    """
    for column, what in ((1, "a mean preference"), (2, "a mean relative length")):
        own = design[:, column]
        means = [float(one[0, column]) for one in recorded]
        slack = _BEYOND * float(own.std()) / math.sqrt(len(own))
        if not min(means) - slack <= own.mean() <= max(means) + slack:
            said = f"{min(means):.3f} to {max(means):.3f}"
            return f"{what} of {own.mean():.3f}, where the recorded models have {said}"
    return None


# --- labels of the candidate's own answers --------------------------------------------------------


def with_labels(
    standin: Sequence[float], labelled: Sequence[tuple[float, float]], prior: Estimate
) -> Estimate:
    """The mean gold label over all the candidate's answers, from a stand-in's verdict on all of
    them and (stand-in's, gold) on a random sample: prediction-powered (arXiv 2301.09633), its
    weight tuned (PPI++, arXiv 2311.01453).

    No spread between models is left in it: the answers are the candidate's own.  Two labels that
    were never seen, one missed to either side, are added to the error, so that a sample without a
    disagreement is not taken for proof; the sample is drawn without replacement.
    """
    import numpy as np

    n, n_all = len(labelled), len(standin)
    if n < 20:
        return Estimate(
            None,
            n_models=prior.n_models,
            n_labels=n,
            reason=f"{n} labels are too few to say anything: give 20 or more",
        )
    f_all = np.asarray(standin, float)
    f, y = (np.asarray(column, float) for column in zip(*labelled, strict=True))
    spread = float(np.var(f_all))
    weight = 0.0
    if spread > 0:
        weight = float(np.cov(f, y, ddof=1)[0, 1]) / spread
        weight = min(1.0, max(0.0, weight))
    left = y - weight * f
    value = weight * float(f_all.mean()) + float(left.mean())
    variance = (float(np.sum((left - left.mean()) ** 2)) + 2.0) / (n + 1)
    # Of the answers there are, n are known: what is unknown is the others' part.
    error = math.sqrt(variance / n * (1 - n / n_all)) if n < n_all else 0.0
    half = _t975(n - 1) * error
    value = min(1.0, max(0.0, value))
    ends = (max(0.0, value - half), min(1.0, value + half))
    return Estimate(value, ends, prior.n_models, n)


def _t975(df: int) -> float:
    """Student's 97.5 % point, to a part in a thousand from 10 degrees on.  Source: Cornish and
    Fisher's expansion around the normal's.
    """
    z = 1.959963984540054
    return z + (z**3 + z) / (4 * df) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * df**2)


def _too_few(n_models: int, least: int) -> str:
    return (
        f"the stand-in was held against the card's judge on {n_models} models, and {least} are"
        " needed"
    )
