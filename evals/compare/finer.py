"""A second, finer measure of a column, paired item by item as its score is: MMLU's probability of
the right letter. It moves with every item, not only with those whose answer changed, so the same
items show smaller changes of the model; it is no accuracy, and decides only where a policy says so.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from evals.benchmark import Benchmark
from evals.compare.columns import asked
from evals.compare.paired import PairedDifference, Pairs, paired_difference
from evals.errors import InputError
from evals.generators.replay import NOT_A_ROW, recorded_row
from evals.records import Column, Item, ItemId
from evals.runs.rescore import run_items
from evals.storage.run_folder import RunFolder


def finer_differences(
    baseline: Path,
    candidate: Path,
    differences: Mapping[str, PairedDifference],
    data: Path | None = None,
    card: str | None = None,
) -> dict[str, PairedDifference]:
    """By column key, the finer measure of the columns that were compared; one without a value has a
    `reason`. Its key is the column's, its heading says what it is.

    data: folder of the public data, where the right answers are.  card: as in `read_columns`.
    """
    found: dict[str, PairedDifference] = {}
    runs = RunFolder(baseline), RunFolder(candidate)
    for name, variant in asked(runs, card).variants.items():
        for own in variant.columns:
            one, what = differences.get(own.key), variant.cls.finer.get(own.metric)
            if what is None or one is None or one.difference is None:
                continue
            column = replace(one.column, heading=f"{one.column.heading}, {what}")
            found[own.key] = _difference(column, name, runs, data)
    return found


def _difference(
    column: Column, task: str, runs: tuple[RunFolder, RunFolder], data: Path | None
) -> PairedDifference:
    try:
        record = runs[0].read_json("run.json")
    except InputError:
        why = "the baseline's run.json, which says what was asked, is not here"
        return PairedDifference(column, 0, reason=why)
    try:
        benchmark, items = run_items(record, task, data)
    except InputError:
        return PairedDifference(column, 0, reason="its data is not here: give --data")
    sides = [_scores(run, task, column.metric, benchmark, items) for run in runs]
    both = [item for item in items if all(item.id in side for side in sides)]
    n_lacking = sum(item.id not in side for side in sides for item in both)
    n_lacking += len({item.id for item in items} - {item.id for item in both})
    if n_lacking or not both:
        why = f"{n_lacking:,} answers have no log-probability of it"
        return PairedDifference(column, 0, reason=why)
    first, second = ([side[item.id] for item in both] for side in sides)
    # Every item moves, so the normal distribution serves; a permutation would take a minute.
    found = paired_difference(
        Pairs(
            column,
            tuple(item.id for item in both),
            tuple(first),
            tuple(second),
            tuple(item.group for item in both),
        ),
        n_resamples=0,
    )
    p = math.erfc(abs(found.difference or 0) / (found.stderr or 1) / math.sqrt(2))
    return replace(found, p=p, estimator="Bonett-Price, normal", better=(), worse=())


def _scores(
    run: RunFolder, task: str, metric: str, benchmark: Benchmark[Item], items: Sequence[Item]
) -> dict[ItemId, float]:
    by_id: dict[object, Item] = {item.id: item for item in items}
    found = {}
    for row in run.samples(task):
        item = by_id.get(row.get("id"))
        try:
            scores = benchmark.finer_scores(item, recorded_row(row).completion) if item else {}
        except NOT_A_ROW:
            scores = {}
        if item is not None and metric in scores:
            found[item.id] = scores[metric]
    return found
