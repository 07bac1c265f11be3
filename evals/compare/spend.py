"""`evals compare A B --plan POINTS`: what to ask more of both models, cheapest first, until a drop
of so many points is found in 80 of 100 cases.

From what these two runs show: how much an item changes between them, and what an item takes. What
is not there yet is taken to change in a fifth of its items, as in `power`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evals.benchmark import Benchmark
from evals.cards.average import shares_of
from evals.cards.card import AVERAGE, Average
from evals.compare.columns import Asked, asked
from evals.compare.paired import Z80, PairedDifference
from evals.compare.pooled import pooled_difference
from evals.compare.power import planned_difference
from evals.compare.runs import Comparison
from evals.errors import InputError
from evals.registry import Variant
from evals.report.table import MISSING, escape
from evals.stats import Z95
from evals.storage.run_folder import RunFolder


@dataclass(frozen=True, slots=True)
class Move:
    """Asking all items of a task. columns: its columns' differences then.  n_more: items more, of
    each model.  minutes: what they take of the machine, both models; None where it is not known.
    """

    task: str
    how: str
    columns: tuple[PairedDifference, ...]
    n_more: int
    minutes: float | None


@dataclass(frozen=True, slots=True)
class Plan:
    """points: the drop, a fraction.  now: the pooled difference.  steps: moves in their order, each
    with the pooled difference after it; the last reaches the drop where one can.
    alone: by column, the items that it would take to find the drop in it alone.
    """

    points: float
    now: PairedDifference | None
    steps: tuple[tuple[Move, PairedDifference], ...]
    alone: tuple[tuple[PairedDifference, int, int], ...]

    @property
    def is_reached(self) -> bool:
        """Whether the pooled difference finds the drop after all steps."""
        last = self.steps[-1][1] if self.steps else self.now
        return last is not None and (last.mde or 0.0) <= self.points


def plan(
    baseline: Path, candidate: Path, found: Comparison, points: float, card: str | None = None
) -> Plan:
    """points: the drop that is to be found, in points.  card: as in `read_columns`.

    Raises InputError where it is no drop, or the runs have no column in common.
    """
    if not 0 < points <= 100:
        raise InputError(f"--plan {points:g}: give a drop in points, above 0 and at most 100.")
    there = {one.key: one for one in found.columns if one.difference is not None}
    runs = RunFolder(baseline), RunFolder(candidate)
    about = asked(runs, card)
    rule = about.shown.average
    moves = _moves(runs, {one.key: one for one in found.columns}, about)
    now = pooled_difference(there, rule=rule)
    steps: list[tuple[Move, PairedDifference]] = []
    current = dict(there)
    while moves and not _reaches(steps[-1][1] if steps else now, points):
        before = steps[-1][1] if steps else now
        ranked = [
            (_gain(before, after) / _cost(move, moves), move, after)
            for move in moves
            if (after := _after(current, move, rule)) is not None
        ]
        gain, best, after = max(ranked, key=lambda one: one[0])
        if gain <= 0:
            break
        steps.append((best, after))
        current |= {one.key: one for one in best.columns}
        moves.remove(best)
    totals = {k: n for own in about.variants.values() for k, n in _totals(own, there).items()}
    alone = tuple(
        (one, _needed(one, points / 100), max(one.n, totals.get(key, one.n)))
        for key, one in there.items()
        if key != AVERAGE.key and one.stderr
    )
    return Plan(points / 100, now, tuple(steps), alone)


def _reaches(one: PairedDifference | None, points: float) -> bool:
    return one is not None and (one.mde or 0.0) <= points / 100


def _after(
    current: Mapping[str, PairedDifference], move: Move, rule: Average
) -> PairedDifference | None:
    return pooled_difference(dict(current) | {one.key: one for one in move.columns}, rule=rule)


def _gain(before: PairedDifference | None, after: PairedDifference) -> float:
    """By how much the variance is less."""
    return (before.stderr or 0.0) ** 2 - (after.stderr or 0.0) ** 2 if before else 1.0


def _cost(move: Move, moves: Sequence[Move]) -> float:
    """Minutes where they are known of every move, else items."""
    known = all(one.minutes for one in moves)
    return move.minutes if known and move.minutes else float(move.n_more)


def _needed(one: PairedDifference, points: float) -> int:
    """Items for 80 % power at a drop, from how much these changed."""
    variance = (one.stderr or 0.0) ** 2 * one.n
    return math.ceil(variance * ((Z95 + Z80) / points) ** 2)


# --- what there is --------------------------------------------------------------------------------


def n_items(benchmark: type[Benchmark[Any]]) -> int | None:
    """Items of the whole benchmark, from the checksums of its public files; None where they are not
    on record.
    """
    dataset = benchmark.dataset
    # The table that items come from is the largest of those that have parts, or the last one.
    counts = []
    for table in dataset.tables.values():
        records = [dataset.record(table.path_of(part)) for part in table.parts]
        if all(records):
            counts.append(sum(record.rows or 0 for record in records if record))
    return max(counts, default=None)


def _totals(variant: Variant, columns: Mapping[str, PairedDifference]) -> dict[str, int]:
    """Items of each column of a task in the whole benchmark, by key: shared out between several as
    they are in these runs (XSTest's safe and unsafe prompts).
    """
    total, keys = n_items(variant.cls), [column.key for column in variant.columns]
    if total is None:
        return {}
    there = {key: columns[key].n for key in keys if key in columns}
    n = sum(there.values())
    if len(keys) == 1 or not n or max(there.values()) * len(keys) > n * 1.9:
        # Alone, or each column of all items.
        return dict.fromkeys(keys, total)
    return {key: round(total * own / n) for key, own in there.items()}


def _moves(
    runs: Sequence[RunFolder], columns: Mapping[str, PairedDifference], about: Asked
) -> list[Move]:
    """Each task that has items which were not asked, or columns that enter the Average without a
    value.
    """
    minutes, pooled = _minutes_an_item(runs, about), shares_of(about.shown.average)
    found = []
    for task, variant in about.variants.items():
        grown, n_more, is_new = [], 0, False
        for key, n in _totals(variant, columns).items():
            one = columns.get(key)
            if one is None or key not in pooled:
                continue
            if one.difference is None:
                planned = planned_difference(one.column, n)
                grown.append(replace(planned, baseline=0.5, candidate=0.5))
                n_more, is_new = n_more + n, True
            elif one.stderr and n > one.n:
                grown.append(_with_items(one, n))
                n_more += n - one.n
        if grown:
            # Both runs must be of one suite, so the whole of a benchmark is asked anew.
            how = (
                f"--tasks {task}, with what it lacks here"
                if is_new
                else f"--suite full --tasks {task}"
            )
            per = None if is_new else minutes.get(task)
            found.append(
                Move(task, how, tuple(grown), n_more, None if per is None else per * n_more)
            )
    return found


def _with_items(one: PairedDifference, n: int) -> PairedDifference:
    """The difference as it would be on n items that change as these did."""
    more = n / one.n
    error = (one.stderr or 0.0) / math.sqrt(more)
    variance = None if one.variance is None else one.variance / more
    return replace(
        one,
        n=n,
        stderr=error,
        mde=(Z95 + Z80) * error,
        variance=variance,
        n_effective=one.n_effective * more,
    )


def _minutes_an_item(runs: Sequence[RunFolder], about: Asked) -> dict[str, float]:
    """By task, minutes of the generation that an item took in both runs together: the phase's wall
    time, shared out by new tokens, one for a choice.
    """
    found: dict[str, float] = {}
    for run in runs:
        try:
            sessions = run.read_json("run.json")["sessions"]
        except InputError:
            return {}
        wall = sum(one["phases"].get("generate", {}).get("wall_s", 0.0) for one in sessions)
        tokens, counts = {}, {}
        for task in about.variants:
            if run.samples_path(task).exists():
                rows = [_n_tokens(row) for row in run.samples(task)]
                tokens[task], counts[task] = sum(rows), len(rows)
        total = sum(tokens.values())
        for task, n in tokens.items():
            if wall and total and counts[task]:
                found[task] = found.get(task, 0.0) + wall / 60 * n / total / counts[task]
    return found


def _n_tokens(row: Mapping[str, Any]) -> int:
    return sum(row.get("n_tokens", ())) or 1


# --- as text --------------------------------------------------------------------------------------


def markdown(found: Plan) -> str:
    """The plan as Markdown; ends in a newline."""
    drop = f"{found.points * 100:g}"
    lines = [f"### To find a drop of {drop} points in 80 of 100 cases", ""]
    if found.now is None:
        lines.append("No column that enters the Average was compared: nothing can be planned.")
    else:
        lines.append(
            f"{escape(found.now.column.heading)}: {found.now.n:,} items find"
            f" {(found.now.mde or 0) * 100:.2f} points now."
        )
    if found.steps:
        heads = ("Ask of both models", "Items more", "Minutes, both", "Then found, in points")
        rows = [
            (
                f"`evals run MODEL {move.how}`",
                f"{move.n_more:,}",
                MISSING if move.minutes is None else f"about {move.minutes:.0f}",
                f"{(after.mde or 0) * 100:.2f}",
            )
            for move, after in found.steps
        ]
        table = (heads, ("---", *["---:"] * 3), *rows)
        lines += ["", *(f"| {' | '.join(row)} |" for row in table)]
    if found.now is not None and not found.is_reached:
        lines += [
            "",
            "These benchmarks have no more items that would help: a smaller drop than the last one"
            " shown is not to be found with them.",
        ]
    lines += ["", *(f"- {escape(line)}" for line in _alone(found))] if found.alone else []
    return "\n".join(lines) + "\n"


def _alone(found: Plan) -> list[str]:
    lines = []
    for one, needed, there in found.alone:
        mde = (one.mde or 0.0) * 100
        text = f"{one.column.heading} alone: {one.n:,} items find {mde:.2f} points"
        if needed > one.n:
            text += f"; it would take {needed:,}, of {there:,} that there are"
        lines.append(text)
    return lines
