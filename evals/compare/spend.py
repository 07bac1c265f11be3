"""`evals compare A B --plan POINTS`: what to ask more of both models, cheapest first, until a drop
of so many points is found in 80 of 100 cases.

From what these two runs show: how much an item changes between them, and what an item takes. What
is not there yet is taken to change in a fifth of its items, as in `power`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from evals.cards.card import AVERAGE
from evals.compare.columns import asked
from evals.compare.moves import Move, Room, moves, rooms, totals, with_draws
from evals.compare.paired import Z80, PairedDifference
from evals.compare.pooled import pooled_difference
from evals.compare.runs import Comparison
from evals.errors import InputError
from evals.report.table import MISSING, escape
from evals.stats import Z95
from evals.storage.run_folder import RunFolder

_LEAST_GAIN = 0.02
"""Of the pooled variance: a step that takes away less is not worth its answers."""


@dataclass(frozen=True, slots=True)
class Plan:
    """points: the drop, a fraction.  now: the pooled difference.  steps: moves in their order, each
    with the pooled difference after it; the last reaches the drop where one can.
    alone: by column, the items that it would take to find the drop in it alone.
    least: the pooled difference with all items that there are, and of columns that were drawn more
    than once answers without end.
    """

    points: float
    now: PairedDifference | None
    steps: tuple[tuple[Move, PairedDifference], ...]
    alone: tuple[tuple[PairedDifference, int, int], ...]
    least: PairedDifference | None = None

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
    asks = rooms(runs, {one.key: one for one in found.columns}, about)
    now = pooled_difference(there, rule=rule)
    steps: list[tuple[Move, PairedDifference]] = []
    current = there
    while not _reaches(steps[-1][1] if steps else now, points):
        before = steps[-1][1] if steps else now
        could = [move for room in asks for move in moves(room)]
        ranked = [
            (_gain(before, after) / _cost(move, could), move, after)
            for move in could
            if (after := pooled_difference(move.made(current), rule=rule)) is not None
            and _gain(before, after) > _LEAST_GAIN * ((before and before.stderr) or 0.0) ** 2
        ]
        if not ranked:
            break
        _, best, after = max(ranked, key=lambda one: one[0])
        steps.append((best, after))
        current = best.made(current)
        asks = [best.after if room is best.before else room for room in asks]
    every = {k: n for own in about.variants.values() for k, n in totals(own, there).items()}
    alone = tuple(
        (one, _needed(one, points / 100), max(one.n, every.get(key, one.n)))
        for key, one in there.items()
        if key != AVERAGE.key and one.stderr and one.column.is_share
    )
    least = pooled_difference(_with_everything(current, asks), rule=rule)
    return Plan(points / 100, now, tuple(steps), alone, least)


def _with_everything(
    current: Mapping[str, PairedDifference], asks: Sequence[Room]
) -> dict[str, PairedDifference]:
    """The differences with all items, and of columns whose noise is known without it."""
    found = dict(current)
    for room in asks:
        for move in moves(room):
            found = move.made(found) if move.after.is_full > room.is_full else found
    return {key: with_draws(one, math.inf) for key, one in found.items()}


def _reaches(one: PairedDifference | None, points: float) -> bool:
    return one is not None and (one.mde or 0.0) <= points / 100


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


# --- as text --------------------------------------------------------------------------------------


def markdown(found: Plan) -> str:
    """The plan as Markdown; ends in a newline."""
    drop = f"{found.points * 100:g}"
    unit = "point" if drop == "1" else "points"
    lines = [f"### To find a drop of {drop} {unit} in 80 of 100 cases", ""]
    if found.now is None:
        lines.append("No column that enters the Average was compared: nothing can be planned.")
    elif not found.now.stderr:
        lines.append(
            "Every answer is the same in both runs: they do not show how much items change, and"
            " nothing can be planned from them. Give two runs that differ."
        )
    else:
        lines.append(
            f"{escape(found.now.column.heading)}: {found.now.n:,} items find"
            f" {(found.now.mde or 0) * 100:.2f} points now."
        )
    if found.steps:
        heads = ("Ask of both models", "Answers more", "Minutes, both", "Then found, in points")
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
            _at_most(found),
        ]
    lines += ["", *(f"- {escape(line)}" for line in _alone(found))] if found.alone else []
    return "\n".join(lines) + "\n"


def _at_most(found: Plan) -> str:
    """What is the best that these benchmarks can do, where that is not enough."""
    least = (found.least.mde or 0.0) * 100 if found.least else 0.0
    text = (
        f"Not to be found with these benchmarks: all their items, in the columns that are here,"
        f" find {least:.2f} points"
    )
    if found.least is not None and found.least.mde:
        times = (found.least.mde / found.points) ** 2
        text += f"; it would take {max(times, 1):.1f} times as many"
    return (
        f"{text}. What finds more without new items: answers drawn more than once (evals run"
        ' --repeats), MMLU\'s measure = "probability", a pooled drop below 1.0 in the policy.'
    )


def _alone(found: Plan) -> list[str]:
    lines = []
    for one, needed, there in found.alone:
        mde = (one.mde or 0.0) * 100
        text = f"{one.column.heading} alone: {one.n:,} items find {mde:.2f} points"
        if needed > one.n:
            text += f"; it would take {needed:,}, of {there:,} that there are"
        lines.append(text)
    return lines
