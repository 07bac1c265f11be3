"""A card's Average: which cells enter it, and how sure it is."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from evals.cards.card import Average, Card, PublishedRow
from evals.records import Column, Metric

_CENT = 100.0


def average(rule: Average, cells: Mapping[str, float | None]) -> float | None:
    """The Average by the card's rule, from cells by key; fractions in, a fraction out.

    The mean of the members; an inner list enters as the mean of its columns, a complement as 1 - x.
    A column that the rule calls optional is left out where it has no value, with its member where
    none of that is left. None when any other input is missing, or no rule is known.
    """
    shares = _shares(rule, {key for key, value in cells.items() if value is not None})
    if shares is None:
        return None
    return (
        math.fsum(
            (1 - value if key in rule.complement else value) / n_inner
            for key, n_inner in shares.inner.items()
            if (value := cells[key]) is not None
        )
        / shares.n
    )


class _Shares(NamedTuple):
    """The columns that enter, each with how many its member has; n: members."""

    inner: Mapping[str, int]
    n: int


def _shares(rule: Average, present: set[str]) -> _Shares | None:
    left = [
        tuple(key for key in member if key in present or key not in rule.optional)
        for member in rule.members
    ]
    left = [member for member in left if member]
    inner = {key: len(member) for member in left for key in member}
    return _Shares(inner, len(left)) if inner and inner.keys() <= present else None


def shares_of(rule: Average) -> dict[str, float]:
    """By how much a cell that rises by one moves the Average, by cell key, where all are there."""
    return _signed(rule, _shares(rule, set(rule.inputs)))


def _signed(rule: Average, found: _Shares | None) -> dict[str, float]:
    if found is None:
        return {}
    signs = {key: -1.0 if key in rule.complement else 1.0 for key in found.inner}
    return {key: signs[key] / n_inner / found.n for key, n_inner in found.inner.items()}


def left_out(rule: Average, cells: Mapping[str, float | None]) -> tuple[str, ...]:
    """The optional columns that have no value, and so did not enter."""
    return tuple(key for key in rule.inputs if key in rule.optional and cells.get(key) is None)


def average_metric(rule: Average, metrics: Mapping[str, Metric]) -> Metric:
    """The Average with its error and 95 % interval, both propagated from the cells, which are taken
    as independent.

    n: how many of the members are there (an inner list counts when all its columns are); n_items:
    members.
    Without a value the reason names the missing cells.  Source of the interval: Zou & Donner 2008
    (MOVER): the cells' own distances to their bounds, squared and summed, so that a cell at 0 or 1
    does not count as certain.
    """
    present = {
        key: metrics[key]
        for key in rule.inputs
        if key in metrics and metrics[key].value is not None
    }
    n = sum(all(key in present for key in member) for member in rule.members)
    n_members = len(rule.members)
    value = average(rule, {key: metric.value for key, metric in present.items()})
    if value is None:
        missing = [key for key in rule.inputs if key not in present and key not in rule.optional]
        reason = f"no value for {', '.join(missing)}" if missing else "no value for its members"
        return Metric(
            None, n, n_members, reason=reason if rule.members else "the card gives no rule for it"
        )
    shares = _signed(rule, _shares(rule, set(present)))
    stderrs = [
        metric.stderr * shares[key] for key, metric in present.items() if metric.stderr is not None
    ]
    stderr = math.hypot(*stderrs) if len(stderrs) == len(present) else None
    ends = [
        # Sorted, because a negative share (a complement) turns the interval round.
        sorted((bound - metric.value) * shares[key] for bound in metric.ci95)
        for key, metric in present.items()
        if metric.ci95 is not None and metric.value is not None
    ]
    # (0.0, 0.0): zip of nothing has no two sides to unpack.
    below, above = (math.hypot(*side) for side in zip(*ends, strict=True)) if ends else (0.0, 0.0)
    ci95 = (value - below, value + above) if len(ends) == len(present) else None
    if ci95 and rule.column.is_share:
        ci95 = max(0.0, ci95[0]), min(1.0, ci95[1])
    return Metric(value, n, n_members, stderr, ci95, "cells independent")


@dataclass(frozen=True, slots=True)
class Off:
    """How far a printed Average lies from the rule's, in percent. printed, cells: what its own
    rounding and that of the cells explain.
    """

    by: float
    printed: float
    cells: float


def off_by(card: Card, row: PublishedRow) -> Off | None:
    """A published row's Average against the card's rule; None where either gives none."""
    text, value = row.cells[card.average.column.key], printed_average(card, row)
    if text == "-" or value is None:
        return None
    rule = _with_hidden(card, row)
    present = {key for key, cell in (*row.cells.items(), *row.hidden.items()) if cell != "-"}
    shares = _shares(rule, present)
    assert shares is not None
    units = {column.key: _percent_of(column) for column in card.columns}
    halves = [
        _half(row.hidden.get(key, row.cells.get(key, ""))) * units.get(key, 1.0) / n_inner
        for key, n_inner in shares.inner.items()
    ]
    tiny = 1e-9  # sums of decimals are off by as much
    return Off(abs(float(text) - value), _half(text) + tiny, math.fsum(halves) / shares.n)


def _half(text: str) -> float:
    """Half a unit of a number's last decimal."""
    half: float = 0.5 / 10 ** len(text.partition(".")[2])
    return half


def _percent_of(column: Column) -> float:
    return _CENT if column.unit == "fraction" else 1.0


def _with_hidden(card: Card, row: PublishedRow) -> Average:
    rule = card.average
    return replace(rule, members=(*rule.members, *((key,) for key in row.hidden)))


def printed_average(card: Card, row: PublishedRow) -> float | None:
    """The Average of a published row by the card's rule, in percent, from the cells as printed and
    the row's hidden ones; None where the rule gives none.
    """
    if card.average.any_dash and "-" in [row.cells[column.key] for column in card.columns]:
        return None
    units = {column.key: _percent_of(column) for column in card.columns}
    cells = {
        key: None if text == "-" else float(text) * units.get(key, 1.0) / _CENT
        for key, text in {**row.cells, **row.hidden}.items()
    }
    value = average(_with_hidden(card, row), cells)
    return None if value is None else value * _CENT
