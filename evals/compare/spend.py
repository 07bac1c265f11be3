"""`evals compare A B --plan POINTS`: what to ask more of both models, cheapest first, until a drop
of so many points is found in 80 of 100 cases.

From what these two runs show: how much an item changes between them, taken with care (`guarded`),
and what an item takes. What is not there yet is taken to change in a fifth of its items, as in
`power`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from evals.cards.card import AVERAGE
from evals.compare.columns import asked
from evals.compare.moves import Move, Room, guarded, move_to, moves, rooms, totals, with_draws
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
    """points: the drop, a fraction.  now: the pooled difference.  taken: the same with the spread
    that is planned with.  steps: moves in their order, each with the pooled difference after it;
    the last reaches the drop where one can.
    alone: by column, the items that it would take to find the drop in it alone, and all there are.
    least: the pooled difference with all items that there are, and of columns that were drawn more
    than once answers without end.
    """

    points: float
    now: PairedDifference | None
    taken: PairedDifference | None = None
    steps: tuple[tuple[Move, PairedDifference], ...] = ()
    alone: tuple[tuple[PairedDifference, int, int], ...] = ()
    least: PairedDifference | None = None

    @property
    def is_reached(self) -> bool:
        """Whether the pooled difference finds the drop after all steps."""
        last = self.steps[-1][1] if self.steps else self.taken
        return last is not None and _reaches(last, 100 * self.points)


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

    def pooled(columns: Mapping[str, PairedDifference]) -> PairedDifference | None:
        return pooled_difference(columns, rule=about.shown.average)

    now = pooled(there)
    if now is None or not now.stderr:
        return Plan(points / 100, now)
    current = {key: guarded(one) for key, one in there.items()}
    asks = rooms(runs, {one.key: one for one in found.columns} | current, about)
    taken = last = pooled(current)
    made: list[Move] = []
    while last is not None and not _reaches(last, points):
        could = [move for room in asks for move in moves(room)]
        ranked = [
            (_gain(last, after) / _cost(move, could), move, after)
            for move in could
            if (after := pooled(move.made(current))) is not None
            and _gain(last, after) > _LEAST_GAIN * (last.stderr or 0.0) ** 2
        ]
        if not ranked:
            break
        _, best, last = max(ranked, key=lambda one: one[0])
        made.append(best)
        current = best.made(current)
        asks = [best.after if room is best.before else room for room in asks]
    steps: list[tuple[Move, PairedDifference]] = []
    then = {key: guarded(one) for key, one in there.items()}
    for move in _at_once(made):
        then = move.made(then)
        if (after := pooled(then)) is not None:
            steps.append((move, after))
    every = {k: n for own in about.variants.values() for k, n in totals(own).items()}
    alone = tuple(
        (one, _needed(guarded(one), points / 100), max(one.n, every.get(key, one.n)))
        for key, one in there.items()
        if key != AVERAGE.key and one.stderr and one.column.is_share
    )
    least = pooled(_with_everything(current, asks))
    return Plan(points / 100, now, taken, tuple(steps), alone, least)


def _at_once(made: Sequence[Move]) -> list[Move]:
    """A task's moves as one, from where it was to where it comes to be."""
    first = {move.task: move.before for move in reversed(made)}
    last = {move.task: move.after for move in made}
    return [move_to(last[task], first[task]) for task in last]


def _with_everything(
    current: Mapping[str, PairedDifference], asks: Sequence[Room]
) -> dict[str, PairedDifference]:
    """The differences with all items, and of columns whose noise is known without it."""
    found = dict(current)
    for room in asks:
        for move in moves(room):
            found = move.made(found) if move.after.is_full > room.is_full else found
    return {key: with_draws(one, math.inf) for key, one in found.items()}


def _reaches(one: PairedDifference, points: float) -> bool:
    return (one.mde or 0.0) <= points / 100


def _gain(before: PairedDifference, after: PairedDifference) -> float:
    """By how much the variance is less."""
    return (before.stderr or 0.0) ** 2 - (after.stderr or 0.0) ** 2


def _cost(move: Move, moves: Sequence[Move]) -> float:
    """Minutes where they are known of every move, else answers."""
    known = all(one.minutes is not None for one in moves)
    # Fewer answers to each of more items may be fewer together.
    return max((move.minutes or 0.0) if known else float(move.n_more), 1e-9)


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
    elif found.taken is None:
        lines.append(
            "Every answer is the same in both runs: they do not show how much items change, and"
            " nothing can be planned from them. Give two runs that differ."
        )
    else:
        lines.append(
            f"{escape(found.now.column.heading)}: {found.now.n:,} items find"
            f" {(found.now.mde or 0) * 100:.2f} points now. They show only roughly how much items"
            f" change, so the plan takes {(found.taken.mde or 0) * 100:.2f}, the upper end of an"
            " 80 % interval."
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
        lines += ["", "All else as in these runs: judges, temperature, chat format."]
    if found.taken is not None and not found.is_reached:
        lines += ["", _at_most(found)]
    lines += ["", *(f"- {escape(line)}" for line in _alone(found))] if found.alone else []
    return "\n".join(lines) + "\n"


def _at_most(found: Plan) -> str:
    """What is the best that these benchmarks can do, where that is not enough."""
    least = (found.least.mde or 0.0) if found.least else 0.0
    if least <= found.points:
        return (
            "What would find it are many answers more that each bring next to nothing: plan for a"
            " larger drop."
        )
    return (
        "Not to be found with these benchmarks: all their items, in the columns that are here, find"
        f" {least * 100:.2f} points; it would take {(least / found.points) ** 2:.1f} times as many."
        " What finds more without new items: answers drawn more than once (evals run --repeats),"
        ' MMLU\'s measure = "probability", a pooled drop below 1.0 in the policy.'
    )


def _alone(found: Plan) -> list[str]:
    lines = []
    for one, needed, there in found.alone:
        mde = (one.mde or 0.0) * 100
        text = f"{one.column.heading} alone: {one.n:,} items find {mde:.2f} points"
        if needed > one.n:
            text += f"; it would take {needed:,}, and there are {there:,}"
        lines.append(text)
    return lines
