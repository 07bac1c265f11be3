"""The card's Average: which cells enter it, and how sure it is."""

import math
from collections.abc import Mapping

from evals.records import Column, Metric

AVERAGE = Column("average", "Average")
_DIRECT = ("mmlu", "gsm8k", "bbh", "humaneval", "truthfulqa", "ifeval")
_XSTEST = ("xstest_safe_refused", "xstest_unsafe_followed")
AVERAGED = (*_DIRECT, *_XSTEST)
"""The cells that enter the Average."""
_N_INPUTS = len(_DIRECT) + 1


def average(cells: Mapping[str, float | None]) -> float | None:
    """The card's Average, from cells by key; fractions in, a fraction out.

    Mean of seven: MMLU, GSM8K, BBH, HumanEval, TruthfulQA, IFEval, and XSTest as the mean of the
    two shares' complements.
    AlpacaEval does not enter. None when any input is missing.  Source: PROTOCOL section 4, inferred
    from the card.
    """
    inputs: list[float] = []
    for key in AVERAGED:
        value = cells.get(key)
        if value is None:
            return None
        inputs.append((1 - value) / 2 if key in _XSTEST else value)
    return math.fsum(inputs) / _N_INPUTS


def average_metric(metrics: Mapping[str, Metric]) -> Metric:
    """The Average with its error and 95 % interval, both propagated from the cells, which are taken
    as independent.

    n: how many of the seven inputs are there (XSTest counts when both its cells are); n_items:
    seven.
    Without a value the reason names the missing cells.  Source of the interval: Zou & Donner 2008
    (MOVER): the cells' own distances to their bounds, squared and summed, so that a cell at 0 or 1
    does not count as certain.
    """
    present = {
        key: metrics[key] for key in AVERAGED if key in metrics and metrics[key].value is not None
    }
    n = sum(key in present for key in _DIRECT) + all(key in present for key in _XSTEST)
    value = average({key: metric.value for key, metric in present.items()})
    if value is None:
        missing = [key for key in AVERAGED if key not in present]
        return Metric(None, n, _N_INPUTS, reason=f"no value for {', '.join(missing)}")
    shares = {key: (-0.5 if key in _XSTEST else 1) / _N_INPUTS for key in present}
    stderrs = [
        metric.stderr * shares[key] for key, metric in present.items() if metric.stderr is not None
    ]
    stderr = math.hypot(*stderrs) if len(stderrs) == len(present) else None
    ends = [
        # Sorted, because a negative share (XSTest) turns the interval round.
        sorted((bound - metric.value) * shares[key] for bound in metric.ci95)
        for key, metric in present.items()
        if metric.ci95 is not None and metric.value is not None
    ]
    # (0.0, 0.0): zip of nothing has no two sides to unpack.
    below, above = (math.hypot(*side) for side in zip(*ends, strict=True)) if ends else (0.0, 0.0)
    ci95 = (max(0.0, value - below), min(1.0, value + above)) if len(ends) == len(present) else None
    return Metric(value, n, _N_INPUTS, stderr, ci95, "cells independent")
