"""A difference in words: in points, of what is no share in its own unit; with its interval, its p,
and what its error is made of.
"""

import math
from collections.abc import Iterable, Iterator, Mapping

from evals.compare.paired import PairedDifference
from evals.records import Column
from evals.report.table import MISSING, points


def change(one: PairedDifference | None, sign: int = 1) -> str:
    """Difference and 95 % interval, for a table. sign: -1 turns it round."""
    if one is None or one.difference is None or one.ci95 is None:
        return MISSING
    low, high = (points(end, one.column) for end in sorted(sign * end for end in one.ci95))
    return f"{points(sign * one.difference, one.column)} [{low}, {high}]"


def in_words(one: PairedDifference) -> str:
    """The same for a sentence; of equal answers it is zero."""
    low, high = (points(end, one.column) for end in one.ci95 or (0.0, 0.0))
    return f"{points(one.difference or 0.0, one.column)} (95 %: {low} to {high})"


def unit(column: Column) -> str:
    """What stands behind such a number."""
    return " points" if column.is_share else ""


def in_points(drops: Mapping[str, float]) -> str:
    """Headings with their drops, which are fractions, in points."""
    return ", ".join(f"{heading} {min(drop, 1) * 100:.1f}" for heading, drop in drops.items())


def by_remark(remarks: Iterable[tuple[str, Column]]) -> Iterator[str]:
    """Each remark once, behind the headings of the columns that it is of."""
    about: dict[str, list[str]] = {}
    for remark, column in remarks:
        about.setdefault(remark, []).append(column.heading)
    for remark, headings in about.items():
        yield f"{', '.join(headings)}: {remark}"


def p_value(p: float | None) -> str:
    """p with four decimals."""
    return MISSING if p is None else "<0.0001" if p < 0.0001 else f"{p:.4f}"


def noises(columns: Iterable[PairedDifference]) -> Iterator[str]:
    """Of each column that was drawn more than once, the two parts of its error."""
    for one in columns:
        if one.noise is not None and one.variance and one.stderr:
            parts = max(0.0, one.variance - one.noise), one.noise
            items, drawn = (points(math.sqrt(part), one.column, "") for part in parts)
            said = f"{items}{unit(one.column)} come of the items (more items lessen it)"
            # Few items can come out with no variance of their own; that is chance, and no finding.
            none = "what comes of the items (more items lessen it) is too little to be told"
            yield (
                f"{one.column.heading}: of the difference's standard error"
                f" {drawn}{unit(one.column)} come of the answers drawn (more draws lessen it);"
                f" {said if parts[0] > 1e-9 * one.variance else none}"
            )
