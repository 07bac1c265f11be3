"""What `evals compare` prints: whether the runs are comparable, the table of differences,
run-to-run spread.
"""

import math
from collections.abc import Iterator

from evals.cards.card import AVERAGE
from evals.compare.columns import JUDGED_BY
from evals.compare.paired import PairedDifference
from evals.compare.runs import Comparison
from evals.compare.words import by_remark, change, in_words, noises, p_value, unit
from evals.report.table import MISSING, compared, escape, points, sense

_HEADS = (
    "Column",
    "Items",
    "A",
    "B",
    "B - A in points [95 %]",
    "p",
    "p (Holm)",
    "Better",
    "Worse",
    "Detectable",
)


def headline(found: Comparison) -> str:
    """Whether the two runs are comparable, in one sentence of plain text."""
    if found.comparable.reason is not None:
        return f"not comparable: {found.comparable.reason}"
    if any((one.reason or "").startswith(JUDGED_BY) for one in found.columns):
        return (
            "comparable: protocol, suite, limit and data are the same; the judges of some columns"
            " are not"
        )
    return "comparable: protocol, suite, limit, data and judges are the same"


def markdown(found: Comparison) -> str:
    """The comparison as Markdown; ends in a newline. Detectable: the smallest true difference found
    in 80 of 100 cases, in points.
    """
    lines = [
        f"A: **{escape(found.names[0])}**, B: **{escape(found.names[1])}**."
        f" {escape(headline(found))}"
    ]
    if found.pooled is not None and found.pooled.n_columns > 1:
        lines += ["", f"- {escape(_pooled(found.pooled))}"]
    rows = [row for one in found.columns for row in _rows(one, found)]
    if rows:
        table = (_HEADS, ("---", *["---:"] * (len(_HEADS) - 1)), *rows)
        lines += ["", *(f"| {' | '.join(row)} |" for row in table)]
    notes = [*found.comparable.notes, *_run_to_run(found), *noises(found.columns), *_how(found)]
    lines += ["", *(f"- {escape(note)}" for note in notes)] if notes else []
    return "\n".join(lines) + "\n"


def _pooled(one: PairedDifference) -> str:
    """The columns together, in a sentence; up is better."""
    text = f"{one.column.heading} ({one.n:,} items, up is better): {in_words(one)} points"
    if not one.stderr or one.difference is None:
        return f"{text}; every answer is the same"
    # One side of a symmetric test.
    p = math.erfc(one.difference / one.stderr / math.sqrt(2)) / 2
    return (
        f"{text}, one-sided p of no loss {p_value(1 - p)}, of no gain {p_value(p)}; detectable"
        f" {(one.mde or 0.0) * 100:.2f}"
    )


def _rows(one: PairedDifference, found: Comparison) -> Iterator[tuple[str, ...]]:
    """A column's row, and that of its finer measure, which is no part of Holm's correction; none
    where it is not compared, or nothing changed.
    """
    if one.difference is not None and one.stderr != 0:
        yield _cells(one, found.p_holm[one.key])
    finer = found.finer.get(one.key)
    if finer is not None and finer.n_better + finer.n_worse:
        yield _cells(finer, None)


def _cells(one: PairedDifference, p_holm: float | None) -> tuple[str, ...]:
    name = escape(one.column.heading) + sense(one.column)
    n = f"{one.n} inputs" if one.key == AVERAGE.key else f"{one.n:,}"
    if one.difference is None or one.ci95 is None or one.mde is None:
        return (name, n, *[MISSING] * (len(_HEADS) - 2))
    flips = (MISSING, MISSING) if one.key == AVERAGE.key else (str(one.n_better), str(one.n_worse))
    values = [
        MISSING if value is None else compared(value, one.column)
        for value in (one.baseline, one.candidate)
    ]
    return (
        name,
        n,
        *values,
        change(one),
        p_value(one.p),
        p_value(p_holm),
        *flips,
        points(one.mde, one.column, "") if one.mde else MISSING,
    )


def _how(found: Comparison) -> Iterator[str]:
    """How intervals and p-values were made, and why a column has none."""
    of = (*found.columns, *found.finer.values())
    return by_remark((one.reason or one.estimator, one.column) for one in of)


def _run_to_run(found: Comparison) -> Iterator[str]:
    """For two runs of one model: the spread between such runs, beside the error of drawing other
    items.
    """
    if not (found.comparable.same_model and found.columns):
        return
    first, second = found.seeds
    seeds = f"the same seed {first}" if first == second else f"seeds {first} and {second}"
    yield f"one model in both runs ({seeds}): every difference here is run-to-run spread"
    for one in found.columns:
        error = found.stderr.get(one.key)
        if one.run_to_run and error is not None:
            yield (
                f"{one.column.heading}: run to run on these items, one standard deviation is"
                f" {points(one.run_to_run, one.column, '')}{unit(one.column)}; the sampling error"
                f" of drawing other items is {points(error, one.column, '')}"
            )
