"""Several draws of one benchmark as one result: their mean, and its error told apart.

Of the variance of a mean over n items with K answers each, the law of total variance makes two
parts: Var[E[score | item]] / n, which only more items lessen, and E[Var[score | item]] / (n K),
which more answers do (Wang 2025, "Measuring all the noises of LLM Evals", arXiv 2512.21326: data
noise and prediction noise). The items' means hold both; the second is had from the variance of an
item's own scores, unbiased (K - 1), and the first is what it leaves.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean, stdev, variance
from typing import Any

from evals import stats
from evals.records import Metric
from evals.registry import of_draw
from evals.runs.grading import TaskResult

_CLOSE = 1e-9


def by_variant(results: Iterable[TaskResult]) -> list[list[TaskResult]]:
    """The results of one variant together, the first draw first."""
    found: dict[str, list[TaskResult]] = {}
    for result in results:
        found.setdefault(of_draw(result.benchmark.name)[0], []).append(result)
    return list(found.values())


def mean_of(
    draws: Sequence[TaskResult], name: str, found: Sequence[Metric]
) -> tuple[Metric, dict[str, Any] | None]:
    """A metric over all draws, and what the summary says of them; None where there is only one.

    found: the metric in each.  Without a value where one of them has none. A metric that is no mean
    of its items' scores has the bootstrap's error; where it has none either, that of one draw,
    which is at least as large, and the estimator says so.
    """
    if len(draws) == 1:
        return found[0], None
    for number, one in enumerate(found, 1):
        if one.value is None:
            return replace(one, reason=f"draw {number} of {len(found)}: {one.reason}"), None
    values = [one.value for one in found if one.value is not None]
    about: dict[str, Any] = {"n": len(draws), "values": values}
    kind, value = found[0].estimator, fmean(values)
    said = f"{kind}, mean of {len(draws)} draws"
    metric = _of_items(draws, name, kind, found[0].n_items)
    if metric is None or metric.value is None or abs(metric.value - value) > _CLOSE:
        error = _bootstrapped(draws, name) if kind == "bootstrap" else None
        if error is not None:
            noise = min(variance(values) / len(values), error**2)
            about |= _parts(error, noise)
        else:
            errors = [one.stderr for one in found if one.stderr is not None]
            error = math.sqrt(fmean(e * e for e in errors)) if errors else None
            said += ", with the error of one"
        ends = None
        if error is not None and _is_share(draws[0], name):
            ends = stats.effective_wilson(value, error, found[0].n)
        elif error is not None:
            ends = value - stats.Z95 * error, value + stats.Z95 * error
        metric = replace(found[0], value=value, stderr=error, ci95=ends)
    elif metric.stderr is not None:
        noise = _variance_of_draws(draws, name, macro=kind.startswith("macro"))
        about |= _parts(metric.stderr, noise)
        if _is_share(draws[0], name):
            ends = stats.wilson_of_draws(metric.value, metric.stderr, metric.n)
            metric = replace(metric, ci95=ends)
    return replace(metric, estimator=said), about


def _is_share(one: TaskResult, name: str) -> bool:
    own = name.partition("/")[0]  # a group's metric has its parts' own as "name/part"
    return all(measure.is_share for measure in one.benchmark.metrics if measure.name == own)


def _parts(stderr: float, noise: float) -> dict[str, float]:
    """An error's two parts. noise: the variance for the answers drawn."""
    items = math.sqrt(max(0.0, stderr**2 - noise))
    return {"stderr_draws": math.sqrt(noise), "stderr_items": items}


def _bootstrapped(draws: Sequence[TaskResult], name: str) -> float | None:
    """The spread of the metric's replicates, each the mean over all draws: an item is drawn with
    all its answers, so that both parts are in it. None where a draw has none.
    """
    own = [one.benchmark.replicates(one.grades).get(name, ()) for one in draws]
    if not all(own):
        return None
    return stdev(map(fmean, zip(*own, strict=True)))


def _of_items(draws: Sequence[TaskResult], name: str, kind: str, n_items: int) -> Metric | None:
    """The metric over the items' means; None where the draws did not score the same items."""
    scores = _scores(draws, name)
    if not scores:
        return None
    means = {key: fmean(own) for key, (_, own) in scores.items()}
    if kind in ("Wilson", "mean"):
        return stats.mean(list(means.values()), n_items)
    if kind in ("stratified", "macro over strata"):
        groups: dict[str, list[float]] = {}
        for key, (group, _) in scores.items():
            groups.setdefault(group, []).append(means[key])
        return stats.stratified(groups, n_items, macro=kind.startswith("macro"))
    return None


def _scores(draws: Sequence[TaskResult], name: str) -> dict[str, tuple[str, list[float]]]:
    """By item, its group and its score in every draw; empty where one has other items than
    another.
    """
    found: dict[str, tuple[str, list[float]]] = {}
    for result in draws:
        for grade in result.grades:
            if name in grade.scores:
                own = found.setdefault(grade.id.partition("/")[2], (grade.group, []))[1]
                own.append(grade.scores[name])
    return found if all(len(own) == len(draws) for _, own in found.values()) else {}


def _variance_of_draws(draws: Sequence[TaskResult], name: str, *, macro: bool) -> float:
    """Of the mean over all draws, the variance that drawing other answers makes."""
    scores = _scores(draws, name).values()
    sizes: dict[str, int] = {}
    for group, _ in scores:
        sizes[group] = sizes.get(group, 0) + 1
    weights = {g: 1 / (len(sizes) * n) if macro else 1 / len(scores) for g, n in sizes.items()}
    return math.fsum(weights[g] ** 2 * variance(own) / len(own) for g, own in scores)


def marks(draws: Sequence[TaskResult], header: Mapping[str, Any]) -> list[str]:
    """What the cell must say of how its answers were drawn."""
    said, (name, _) = [], of_draw(draws[0].benchmark.name)
    sampling = header.get("sampling", {})
    if name in sampling.get("tasks", ()):
        said.append(
            f"{name}: answers sampled at temperature {sampling['temperature']:g}; the card's are"
            " greedy"
        )
    if len(draws) > 1:
        said.append(f"{name}: the mean of {len(draws)} draws, where the card has one")
    n_other = len({result.digest for result in draws})
    if n_other < len(draws):
        said.append(
            f"{name}: of {len(draws)} draws only {n_other} differ in any answer: whoever answered"
            " does not draw anew, and the interval is too narrow"
        )
    return said
