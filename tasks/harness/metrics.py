"""Metrics over documents: lm-eval's own aggregations, with our intervals."""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from evals import stats
from evals.records import Json, Metric
from tasks.harness.names import Weighing

N_DRAWS = 200
"""Of a bootstrap; its spread is then known to about 5 %."""
_SEED = 20260101
_NOT_FINITE = "lm-evaluation-harness gives no finite number"


@dataclass(frozen=True)
class Values:
    """What a task's documents say of a metric. values: as the task counts them.  n_items: of the
    documents that were to be counted.  aggregate: lm-eval's; None where it is the mean.
    """

    values: Sequence[Any]
    n_items: int
    aggregate: Callable[[Sequence[Any]], float] | None

    def metric(self) -> Metric:
        """Its value with an interval."""
        n = len(self.values)
        if n < self.n_items or not n:
            return stats.unfinished(n, self.n_items)
        if self.aggregate is None:
            return mean(self.values)
        value = self._aggregated(self.values)
        if not math.isfinite(value):
            return stats.unfinished(n, self.n_items, _NOT_FINITE)
        return with_draws(Metric(value, n, n, estimator="bootstrap"), self.draws())

    def draws(self) -> list[float]:
        """The metric of as many documents drawn with replacement, some times; equal documents are
        drawn equally whatever their values.
        """
        if self.aggregate is None or not self.values:
            return []
        chance = random.Random(f"{_SEED}/{len(self.values)}")
        n = len(self.values)
        return [self._aggregated(chance.choices(self.values, k=n)) for _ in range(N_DRAWS)]

    def _aggregated(self, values: Sequence[Any]) -> float:
        """Infinite where it is too large for a float, as the perplexity of a broken model is."""
        assert self.aggregate is not None
        try:
            return float(self.aggregate(values))
        except OverflowError:
            return math.inf


def mean(values: Sequence[float]) -> Metric:
    """Of shares as `stats.mean` has it, of other numbers with the normal interval."""
    if set(values) <= {0.0, 1.0}:
        return stats.proportion(values, len(values))
    if all(0 <= one <= 1 for one in values):
        return stats.mean(values, len(values))
    n = len(values)
    try:
        value = math.fsum(values) / n
    except OverflowError:
        value = math.inf
    if not math.isfinite(value):
        return stats.unfinished(n, n, _NOT_FINITE)
    spread = _spread(values)
    return _normal(Metric(value, n, n, spread and spread / math.sqrt(n), estimator="normal"))


def with_draws(metric: Metric, draws: Sequence[float]) -> Metric:
    """The metric with the spread of its replicates."""
    return _normal(replace(metric, stderr=_spread(draws)))


def as_share(metric: Metric) -> Metric:
    """The metric with a share's interval: Wilson's of the effective sample size, within [0, 1]."""
    if metric.estimator != "bootstrap" or metric.stderr is None or metric.value is None:
        return metric
    ends = stats.effective_wilson(metric.value, metric.stderr, metric.n)
    return replace(metric, ci95=ends)


def _spread(values: Sequence[float]) -> float | None:
    """The standard deviation; None of what is not all finite."""
    n = len(values)
    if n < 2 or not all(map(math.isfinite, values)):
        return None
    centre = math.fsum(one / n for one in values)
    return math.hypot(*(one - centre for one in values)) / math.sqrt(n - 1)


def _normal(metric: Metric) -> Metric:
    if metric.stderr is None or metric.value is None:
        return metric
    if not math.isfinite(metric.stderr):
        return replace(metric, stderr=None)
    half = stats.Z95 * metric.stderr
    return replace(metric, ci95=(metric.value - half, metric.value + half))


def weighed(rule: Weighing, tasks: Mapping[str, Values]) -> Metric:
    """A group's metric of those of its tasks that have it, as lm-eval weighs them. The tasks are
    fixed, documents are drawn within them.
    """
    n, n_items = (sum(f(one) for one in tasks.values()) for f in (_n, lambda one: one.n_items))
    if n < n_items or not n:
        return stats.unfinished(n, n_items)
    if all(one.aggregate is None and _are_shares(one.values) for one in tasks.values()):
        by_task = {name: one.values for name, one in tasks.items()}
        return stats.stratified(by_task, n_items, macro=not rule.by_size)
    each = {name: one.metric() for name, one in tasks.items()}
    if any(one.value is None for one in each.values()):
        return stats.unfinished(n, n_items, "a task of the group has no number")
    weights = _weights(rule, tasks)
    value = math.fsum(weights[name] * (one.value or 0) for name, one in each.items())
    error = math.hypot(*(weights[k] * (one.stderr or 0) for k, one in each.items()))
    is_drawn = any(one.aggregate for one in tasks.values())
    kind = "bootstrap" if is_drawn else "stratified" if rule.by_size else "macro over strata"
    return _normal(Metric(value, n, n_items, error, estimator=kind))


def weighed_draws(rule: Weighing, tasks: Mapping[str, Values]) -> list[float]:
    """Replicates of a group's metric; none where all of it are means."""
    draws = {name: one.draws() for name, one in tasks.items()}
    if not draws or not all(draws.values()):
        return []
    weights = _weights(rule, tasks)
    columns = zip(*draws.values(), strict=True)
    add = partial(map, lambda weight, one: weight * one, list(weights.values()))
    return [math.fsum(add(column)) for column in columns]


def _weights(rule: Weighing, tasks: Mapping[str, Values]) -> dict[str, float]:
    sizes = {name: len(one.values) if rule.by_size else 1 for name, one in tasks.items()}
    return {name: size / sum(sizes.values()) for name, size in sizes.items()}


def _n(one: Values) -> int:
    return len(one.values)


def _are_shares(values: Sequence[Any]) -> bool:
    return all(0 <= one <= 1 for one in values)


def plain(value: Any) -> Json:
    """What a task counted, as JSON has it."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, bool | int):
        return float(value)
    if isinstance(value, float | str) or value is None:
        return value
    if isinstance(value, Mapping):
        return {str(name): _inner(one) for name, one in value.items()}
    if isinstance(value, list | tuple | set):
        return [_inner(one) for one in value]
    return str(value)


def _inner(value: Any) -> Json:
    """Within a pair whole numbers stay so: they are labels."""
    return value if isinstance(value, int) else plain(value)


def scalar(value: Json, kind: str) -> float | None:
    """One number of a document's metric, for a list of items: itself, of a text's log-likelihood
    and length the one by the other, of a gold label and an answer whether they agree.
    """
    if isinstance(value, float):
        return value
    if not isinstance(value, list) or len(value) != 2:
        return None
    first, second = value
    if kind == "loglikelihood_rolling" and isinstance(first, float) and isinstance(second, int):
        return first / second if second else None
    return float(first == second)
