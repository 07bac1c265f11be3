"""What `evals compare` prints: whether the runs are comparable, the table of differences,
run-to-run spread, the items that flipped.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from evals.cards.card import AVERAGE
from evals.cards.published import card_of_run
from evals.compare.columns import JUDGED_BY, Answer, read_answers
from evals.compare.paired import PairedDifference
from evals.compare.runs import Comparison
from evals.records import Json
from evals.registry import variants
from evals.report.show import visible
from evals.report.table import MISSING, escape, percent
from evals.storage.run_folder import RunFolder, to_json

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
    if found.columns:
        table = (
            _HEADS,
            ("---", *["---:"] * (len(_HEADS) - 1)),
            *(_cells(one, found.p_holm[one.key]) for one in found.columns),
        )
        lines += ["", *(f"| {' | '.join(row)} |" for row in table)]
    notes = [*found.comparable.notes, *_run_to_run(found), *_how(found)]
    lines += ["", *(f"- {escape(note)}" for note in notes)] if notes else []
    return "\n".join(lines) + "\n"


def _cells(one: PairedDifference, p_holm: float | None) -> tuple[str, ...]:
    name = escape(one.column.heading) + (" (lower is better)" if one.column.lower_is_better else "")
    n = f"{one.n} inputs" if one.key == AVERAGE.key else f"{one.n:,}"
    if one.difference is None or one.ci95 is None or one.mde is None:
        return (name, n, *[MISSING] * (len(_HEADS) - 2))
    low, high = one.ci95
    change = f"{one.difference * 100:+z.2f} [{low * 100:+z.2f}, {high * 100:+z.2f}]"
    flips = (MISSING, MISSING) if one.key == AVERAGE.key else (str(one.n_better), str(one.n_worse))
    values = [
        MISSING if value is None else percent(value) for value in (one.baseline, one.candidate)
    ]
    return (
        name,
        n,
        *values,
        change,
        _p(one.p),
        _p(p_holm),
        *flips,
        f"{one.mde * 100:.2f}" if one.mde else MISSING,
    )


def _p(p: float | None) -> str:
    return MISSING if p is None else "<0.0001" if p < 0.0001 else f"{p:.4f}"


def _how(found: Comparison) -> Iterator[str]:
    """How intervals and p-values were made, and why a column has none; each remark once, with its
    columns.
    """
    about: dict[str, list[str]] = {}
    for one in found.columns:
        about.setdefault(one.reason or one.estimator, []).append(one.column.heading)
    for remark, headings in about.items():
        yield f"{', '.join(headings)}: {remark}"


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
                f" {one.run_to_run * 100:.2f} points; the sampling error of drawing other items is"
                f" {error * 100:.2f}"
            )


# --- flips ----------------------------------------------------------------------------------------


def flips(baseline: Path, candidate: Path, found: Comparison) -> Iterator[str]:
    """Every item whose score changed, column by column, with both outputs; safe to print on a
    terminal.
    """
    runs = RunFolder(baseline), RunFolder(candidate)
    compared = {one.key: one for one in found.columns if one.n and one.reason is None}
    card = card_of_run(runs[0].read_json("summary.json"))
    of = tuple(one.column for one in compared.values() if one.column.benchmark)
    for variant in variants(replace(card, columns=of)).values():
        columns = [compared[one.key] for one in variant.columns if one.key in compared]
        benchmark = variant.make(chat=True)
        sides = [read_answers(run, benchmark) for run in runs] if columns else []
        for one in columns:
            yield (
                f"== {one.column.heading}: {one.n_better} better, {one.n_worse} worse, of {one.n:,}"
                " items"
            )
            for item_id, before in sides[0].items():
                after = sides[1].get(item_id)
                if after is not None and _moved(before, after, one.key):
                    yield _flip(item_id, before, after, one.key)


def _moved(before: Answer, after: Answer, key: str) -> bool:
    old, new = before.scores.get(key), after.scores.get(key)
    return old is not None and new is not None and old != new


def _flip(item_id: str, before: Answer, after: Answer, key: str) -> str:
    sides = [
        f"── {name}, {_read(answer.row)}\n{_output(answer.row)}"
        for name, answer in (("A", before), ("B", after))
    ]
    return visible(
        "\n".join([f"{item_id}  {before.scores[key]:g} -> {after.scores[key]:g}", *sides]) + "\n"
    )


def _read(row: Mapping[str, Any]) -> str:
    """The answer as the scorer read it, in a few words."""
    extracted: Json = row.get("extracted")
    outputs = row.get("outputs", ())
    texts = f"first of {len(outputs)} outputs, " if len(outputs) > 1 else ""
    return f"{texts}read as {to_json(extracted, indent=None)}"


def _output(row: Mapping[str, Any]) -> str:
    """The first output; the log-probabilities of a choice."""
    outputs = row.get("outputs", ())
    return str(outputs[0]) if outputs else to_json(row.get("choice_logprobs"), indent=None)
