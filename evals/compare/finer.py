"""A second, finer measure of a column, paired item by item as its score is: the probability of what
is right (MMLU's letter, the choice of a task of lm-evaluation-harness), or of a judge's yes. It
moves with every item, not only with those whose answer changed, so the same items show smaller
changes of the model; it is no accuracy, and decides only where a policy says so.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from evals.benchmark import Benchmark
from evals.compare.answers import Answer, Side
from evals.compare.paired import PairedDifference, Pairs, paired_difference
from evals.errors import InputError
from evals.generators.replay import NOT_A_ROW, recorded_row
from evals.records import Item

NOT_KEPT = "no answer has a log-probability of it"
"""Why a column has no finer measure that another run of it may well have."""


def finer_differences(
    benchmark: Benchmark[Any],
    compared: Sequence[PairedDifference],
    baseline: Side,
    candidate: Side,
    data: Path | None = None,
) -> dict[str, PairedDifference]:
    """By column key, the finer measure of a benchmark's columns that were compared; one without a
    value has a `reason`. Its key is the column's, its heading says what it is.

    data: folder of the public data, where the right answers are.
    """
    wanted = [one for one in compared if one.column.metric in benchmark.finer and not one.reason]
    columns = [
        replace(c, heading=f"{c.heading}, {benchmark.finer[c.metric]}")
        for c in (one.column for one in wanted)
    ]
    if not wanted:
        return {}
    try:
        record = baseline.run.read_json("run.json")
    except InputError:
        why = "the baseline's run.json, which says what was asked, is not here"
        return {one.key: PairedDifference(one, 0, reason=why) for one in columns}
    from evals.runs.rescore import run_items

    try:
        own, items = run_items(record, benchmark.name, data)
    except InputError:
        why = "its data is not here: give --data"
        return {one.key: PairedDifference(one, 0, reason=why) for one in columns}
    scores = [
        [_scores(own, item, side.answers.get(item.id)) for item in items]
        for side in (baseline, candidate)
    ]
    found = {}
    for column, one in zip(columns, wanted, strict=True):
        macro = str(baseline.cells[one.key]["estimator"]).startswith("macro")
        sides = [[answer.get(column.metric) for answer in side] for side in scores]
        found[one.key] = _difference(Pairs(column, (), (), (), (), macro), items, sides)
    return found


def _difference(
    empty: Pairs, items: Sequence[Item], sides: Sequence[Sequence[float | None]]
) -> PairedDifference:
    first, second = ([one for one in side if one is not None] for side in sides)
    if not (first or second):
        return PairedDifference(empty.column, 0, reason=NOT_KEPT)
    if n_lacking := 2 * len(items) - len(first) - len(second):
        why = f"{n_lacking:,} answers have no log-probability of it"
        return PairedDifference(empty.column, 0, reason=why)
    pairs = replace(
        empty,
        ids=tuple(item.id for item in items),
        baseline=tuple(first),
        candidate=tuple(second),
        strata=tuple(item.group for item in items),
        n_same=sum(a == b for a, b in zip(first, second, strict=True)),
    )
    # Every item moves, so the normal distribution serves; a permutation would take a minute.
    found = paired_difference(pairs, n_resamples=0)
    p = math.erfc(abs(found.difference or 0) / (found.stderr or 1) / math.sqrt(2))
    return replace(found, p=p, estimator="Bonett-Price, normal", better=(), worse=())


def _scores(benchmark: Benchmark[Any], item: Item, answer: Answer | None) -> Mapping[str, float]:
    """By metric, the mean over an item's draws; without those that a draw lacks."""
    draws = []
    for row in answer.rows if answer else ():
        try:
            one = recorded_row(row)
            draws.append(benchmark.finer_scores(item, one.completion, one.findings))
        except NOT_A_ROW:
            return {}
    shared = set.intersection(*(set(one) for one in draws)) if draws else set()
    return {metric: fmean(one[metric] for one in draws) for metric in shared}
