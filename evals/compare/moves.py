"""What more can be asked of two runs' benchmarks, what that costs, and how the differences would
then be: all items, or twice as many answers to each item.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from evals.benchmark import Benchmark
from evals.cards.average import shares_of
from evals.compare.columns import Asked
from evals.compare.paired import Z80, PairedDifference
from evals.compare.power import planned_difference
from evals.errors import InputError
from evals.plan.settings import MOST_REPEATS
from evals.registry import Variant, draw_name
from evals.stats import Z95
from evals.storage.run_folder import RunFolder


@dataclass(frozen=True, slots=True)
class Room:
    """What there is to be asked of a task. more: by column, how many times as many items there are;
    new: columns that have no value yet, as they are planned.  drawn: columns whose noise is known.

    n, n_all: items of each model, and all that there are.  draws: answers to each, of which the
    runs have `least`.  minutes: what an answer takes, of both models; None where it is not known.
    options: of `evals run`, which take the items that these runs have.  is_full: all are asked.
    """

    task: str
    more: Mapping[str, float]
    new: tuple[PairedDifference, ...]
    drawn: tuple[str, ...]
    n: int
    n_all: int
    draws: int
    least: int
    minutes: float | None
    options: str = ""
    is_full: bool = False


@dataclass(frozen=True, slots=True)
class Move:
    """One thing to ask. how: options of `evals run`.  n_more: answers more, of each model.
    minutes: what they take of the machine, both models; None where it is not known.  before, after:
    the room.
    """

    task: str
    how: str
    n_more: int
    minutes: float | None
    before: Room = field(repr=False)
    after: Room = field(repr=False)

    def made(self, current: Mapping[str, PairedDifference]) -> dict[str, PairedDifference]:
        """The differences once it is asked."""
        found = dict(current)
        if self.after.is_full and not self.before.is_full:
            found |= {one.key: one for one in self.before.new}
            more = self.before.more
            found |= {key: _with_items(found[key], times) for key, times in more.items()}
        times = self.after.draws / self.before.draws
        return found | {key: with_draws(found[key], times) for key in self.before.drawn}


def moves(room: Room) -> list[Move]:
    """What can be asked of a task next: all its items, with no more answers to each than there were
    at first; or twice as many answers.
    """
    found = []
    if not room.is_full and (room.new or room.more):
        found.append(move_to(replace(room, n=room.n_all, draws=room.least, is_full=True), room))
    if room.drawn and room.draws * 2 <= MOST_REPEATS:
        found.append(move_to(replace(room, draws=room.draws * 2), room))
    return found


def move_to(after: Room, before: Room) -> Move:
    """What leads from one room to the other."""
    n = after.n * after.draws - before.n * before.draws
    # What is not here yet has taken no time that could be known.
    known = before.minutes is not None and not (before.new and after.is_full > before.is_full)
    minutes = n * (before.minutes or 0.0) if known else None
    return Move(before.task, _how(after), n, minutes, before, after)


def _how(room: Room) -> str:
    if room.new and room.is_full:
        return f"--tasks {room.task}, with what it lacks here"
    # Both runs must be of one suite, so the whole of a benchmark is asked anew.
    again = f" --repeats {room.draws}" if room.draws > 1 else ""
    return f"{'--suite full ' if room.is_full else room.options}--tasks {room.task}{again}"


def rooms(
    runs: Sequence[RunFolder], columns: Mapping[str, PairedDifference], about: Asked
) -> list[Room]:
    """Each task that has items which were not asked, columns that enter the Average without a
    value, or answers that were drawn.
    """
    minutes, pooled = _minutes_an_answer(runs, about), shares_of(about.shown.average)
    summary = runs[0].read_json("summary.json")
    options = "" if summary.get("suite") in (None, "card") else f"--suite {summary['suite']} "
    options += f"--limit {summary['limit']} " if summary.get("limit") is not None else ""
    found = []
    for task, variant in about.variants.items():
        there = {key: columns[key] for key in _keys(variant) if key in columns and key in pooled}
        valued = {key: one for key, one in there.items() if one.difference is not None}
        every = totals(variant)
        more = {
            key: every[key] / one.n
            for key, one in valued.items()
            if one.stderr and every.get(key, 0) > one.n
        }
        new = tuple(
            replace(planned_difference(one.column, every[key]), baseline=0.5, candidate=0.5)
            for key, one in there.items()
            if key not in valued and key in every
        )
        drawn = tuple(key for key, one in there.items() if one.noise)
        if more or new or drawn:
            n = _n_asked(variant, valued)
            n_all = max(n, n_items(variant.cls) or 0)
            draws = max(about.draws(task))
            own = minutes.get(task)
            found.append(Room(task, more, new, drawn, n, n_all, draws, draws, own, options))
    return found


def _n_asked(variant: Variant, valued: Mapping[str, PairedDifference]) -> int:
    """Items behind these columns of a task, each counted once."""
    parts = [one.n for one in valued.values() if one.column.metric in variant.cls.items_of]
    whole = (one.n for one in valued.values() if one.column.metric not in variant.cls.items_of)
    return max(sum(parts), *whole, 0)


def _keys(variant: Variant) -> list[str]:
    return [column.key for column in variant.columns]


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


def totals(variant: Variant) -> dict[str, int]:
    """Items of each column of a task in the whole benchmark, by key; none where they are not on
    record.
    """
    total, parts = n_items(variant.cls), variant.cls.items_of
    return {one.key: parts.get(one.metric, total) for one in variant.columns} if total else {}


# --- what a difference would be -------------------------------------------------------------------

_SURE = 0.8
"""How sure it is to be that a plan takes no less spread for the items than there is."""


def guarded(one: PairedDifference) -> PairedDifference:
    """The difference with the upper end of a one-sided interval for its variance: with a pilot's
    own variance in its place, half of all plans ask too little (Browne 1995, Statistics in Medicine
    14). No less than its answers' noise, of which a variance below it is chance.

    Few items change, by whole points: their kurtosis (5 where a fifth does) leaves half of the
    degrees of freedom that normal changes would have, and so do strata of two items.
    """
    from scipy.special import chdtri

    if one.stderr is None or not one.n_effective:
        return one
    # Where no answer changed, the two pairs of `paired` are all that is known.
    error = one.stderr or math.sqrt(2) / (one.n_effective + 2)
    free = one.n_effective / 2
    least = max(error**2, one.variance or 0.0, one.noise or 0.0)
    variance = least * free / float(chdtri(free, _SURE))
    return replace(_with_error(one, math.sqrt(variance)), variance=variance)


def _with_items(one: PairedDifference, more: float) -> PairedDifference:
    """The difference as it would be on so many times the items, which change as these did."""
    return replace(
        _with_error(one, (one.stderr or 0.0) / math.sqrt(more)),
        n=round(one.n * more),
        variance=None if one.variance is None else one.variance / more,
        n_effective=one.n_effective * more,
        noise=None if one.noise is None else one.noise / more,
    )


def with_draws(one: PairedDifference, more: float) -> PairedDifference:
    """The difference as it would be with so many times the answers to each item; as it is where its
    noise is not known.
    """
    if not one.noise or not one.variance:
        return one
    noise = one.noise / more
    variance = max(0.0, one.variance - one.noise) + noise
    error = (one.stderr or 0.0) * math.sqrt(variance / one.variance)
    return replace(_with_error(one, error), variance=variance, noise=noise)


def _with_error(one: PairedDifference, error: float) -> PairedDifference:
    return replace(one, stderr=error, mde=(Z95 + Z80) * error)


# --- what it takes --------------------------------------------------------------------------------


def _minutes_an_answer(runs: Sequence[RunFolder], about: Asked) -> dict[str, float]:
    """By task, minutes of the generation that an answer took in both runs together: the phase's
    wall time, shared out by new tokens, one for a choice.
    """
    found: dict[str, float] = {}
    for at, run in enumerate(runs):
        try:
            sessions = run.read_json("run.json")["sessions"]
        except InputError:
            return {}
        wall = sum(one["phases"].get("generate", {}).get("wall_s", 0.0) for one in sessions)
        tokens, counts = {}, {}
        for task in about.variants:
            if run.samples_path(task).exists():
                names = [draw_name(task, draw + 1) for draw in range(about.draws(task)[at])]
                rows = [_n_tokens(row) for name in names for row in run.samples(name)]
                tokens[task], counts[task] = sum(rows), len(rows)
        total = sum(tokens.values())
        for task, n in tokens.items():
            if wall and total and counts[task]:
                found[task] = found.get(task, 0.0) + wall / 60 * n / total / counts[task]
    return found


def _n_tokens(row: Mapping[str, Any]) -> int:
    return sum(row.get("n_tokens", ())) or 1
