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

    n, n_all: items of each model, and all that there are.  draws: answers to each.  minutes: what
    an answer takes, of both models; None where it is not known.  is_full: all items are asked.
    """

    task: str
    more: Mapping[str, float]
    new: tuple[PairedDifference, ...]
    drawn: tuple[str, ...]
    n: int
    n_all: int
    draws: int
    minutes: float | None
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
    """What can be asked of a task next."""
    found = []
    suite = "--suite full " if room.is_full else ""
    if not room.is_full and (room.new or room.more):
        again = f" --repeats {room.draws}" if room.draws > 1 else ""
        # Both runs must be of one suite, so the whole of a benchmark is asked anew.
        how = (
            f"--tasks {room.task}, with what it lacks here"
            if room.new
            else f"--suite full --tasks {room.task}{again}"
        )
        after = replace(room, n=room.n_all, is_full=True)
        found.append(_move(room, after, how))
    if room.drawn and room.draws * 2 <= MOST_REPEATS:
        twice = replace(room, draws=room.draws * 2)
        found.append(_move(room, twice, f"{suite}--tasks {room.task} --repeats {twice.draws}"))
    return found


def _move(before: Room, after: Room, how: str) -> Move:
    n = after.n * after.draws - before.n * before.draws
    # What is not here yet has taken no time that could be known.
    known = before.minutes is not None and not (before.new and after.is_full > before.is_full)
    return Move(before.task, how, n, n * (before.minutes or 0.0) if known else None, before, after)


def rooms(
    runs: Sequence[RunFolder], columns: Mapping[str, PairedDifference], about: Asked
) -> list[Room]:
    """Each task that has items which were not asked, columns that enter the Average without a
    value, or answers that were drawn.
    """
    minutes, pooled = _minutes_an_answer(runs, about), shares_of(about.shown.average)
    found = []
    for task, variant in about.variants.items():
        there = {key: columns[key] for key in _keys(variant) if key in columns and key in pooled}
        more, new, n_all = {}, [], 0
        for key, n in totals(variant, columns).items():
            one = there.get(key)
            if one is None:
                continue
            if one.difference is None:
                new.append(replace(planned_difference(one.column, n), baseline=0.5, candidate=0.5))
                n_all += n
            elif one.stderr and n > one.n:
                more[key] = n / one.n
                n_all += n
            else:
                n_all += one.n
        drawn = tuple(key for key, one in there.items() if one.noise)
        if more or new or drawn:
            n = sum(one.n for one in there.values() if one.difference is not None)
            draws = max(about.draws(task))
            own = minutes.get(task)
            found.append(Room(task, more, tuple(new), drawn, n, max(n, n_all), draws, own))
    return found


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


def totals(variant: Variant, columns: Mapping[str, PairedDifference]) -> dict[str, int]:
    """Items of each column of a task in the whole benchmark, by key: shared out between several as
    they are in these runs (XSTest's safe and unsafe prompts).
    """
    total, keys = n_items(variant.cls), _keys(variant)
    if total is None:
        return {}
    there = {key: columns[key].n for key in keys if key in columns}
    n = sum(there.values())
    if len(keys) == 1 or not n or max(there.values()) * len(keys) > n * 1.9:
        # Alone, or each column of all items.
        return dict.fromkeys(keys, total)
    return {key: round(total * own / n) for key, own in there.items()}


# --- what a difference would be -------------------------------------------------------------------


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
