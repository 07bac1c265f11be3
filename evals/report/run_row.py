"""A run's row, from its summary.json: under its own card or under another."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from evals.benchmark import apart, undrawn
from evals.cards.average import average_metric, left_out
from evals.cards.card import AVERAGE, Card
from evals.cards.published import card_of_run
from evals.errors import InputError
from evals.records import Column, Metric
from evals.registry import off_card, variants
from evals.report.table import LIMITED, MISSING, TableCell, TableRow, in_unit
from evals.runs.summary import metric_json

CARD_WOULD_OMIT = "The card prints - for the Average as soon as any cell of the row is -."


def row_from_summary(
    summary: Mapping[str, Any], name: str | None = None, card: Card | None = None
) -> TableRow:
    """The row of one of our runs, from its parsed summary.json.

    name: what to call it where the model's own name does not tell two rows apart.  card: print what
    the run has of this card's columns; None: of its own.
    A cell without a value prints "-" with its reason in the notes. The Average carries its inputs'
    marks, and one more where the card would have printed "-".
    """
    card = card or card_of_run(summary)
    found, whole = cells_under(card, summary), _undrawn(card, summary)
    cells: dict[str, TableCell] = {}
    notes: dict[str, str] = {}
    known = {column.key: column for column in card.columns}
    # The Average, last of the keys, is made after its inputs, whose marks it carries.
    off = [key for key in found if key not in card.keys]
    known |= (besides := _off_card(card, summary, off) if off else {})
    for key in (*(key for key in known if key not in off), *off):
        column = known.get(key, Column(key, key))
        cell, reason = _own_cell(found.get(key), column)
        said = (whole[key],) if key in whole and cell.text != MISSING else ()
        cells[key], reason = replace(cell, marks=(*cell.marks, *said)), column.reason or reason
        counted = _verdict_counts(found.get(key))
        if reason or counted:
            notes[key] = reason or counted
    cells[AVERAGE.key], reason = _own_average(found, cells, card)
    if reason:
        notes[AVERAGE.key] = reason
    group = "ours" if summary.get("limit") is None else LIMITED
    return TableRow(_own_name(summary, name), cells, group, notes, card, tuple(besides.values()))


def cells_under(card: Card, summary: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    """A run's cells under a card's keys: its own; of a run of another card what it has of this
    one's columns, of benchmarks asked under the same settings, and the card's Average of these.
    What would have to be asked says in which settings the run's was another.
    """
    own = card_of_run(summary)
    if (card.hash, card.average, card.keys) == (own.hash, own.average, own.keys):
        cells: Mapping[str, Mapping[str, Any]] = summary["cells"]
        return cells
    return _of_another(card, own, summary)


def kept_columns(summary: Mapping[str, Any]) -> list[Column]:
    """The columns of what a run asked besides its card, as it wrote them down."""
    return [Column(**{"metric": one["key"], **one}) for one in summary.get("off_card", ())]


def _off_card(card: Card, summary: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Column]:
    """The columns of cells off the card: a perplexity is no percentage. A run keeps them, for its
    benchmarks may not be here any more.
    """
    if found := {one.key: one for one in kept_columns(summary) if one.key in keys}:
        return found
    try:
        asked = variants(card, off_card(summary)).values()
    except InputError:  # of a benchmark that is not here any more
        return {}
    return {one.key: one for variant in asked for one in variant.columns if one.key in keys}


def _undrawn(card: Card, summary: Mapping[str, Any]) -> dict[str, str]:
    """By column, that every item was asked although the card draws some."""
    if summary.get("suite") != "full":
        return {}
    try:
        asked = variants(card, off_card(summary)).values()
    except InputError:  # a stranger's benchmark that is not here any more
        return {}
    return {
        column.key: said
        for one in asked
        if (said := apart(one.cls, undrawn(one.settings), one.settings))
        for column in one.columns
    }


def _of_another(card: Card, own: Card, summary: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """What a run of one's own card has of another's columns, and that one's Average."""
    found: dict[str, Mapping[str, Any]] = {}
    cells, measured = summary["cells"], summary["metrics"]
    theirs = {one.benchmark for one in card.columns}
    shared = tuple(one for one in own.columns if one.benchmark in theirs)
    asked = variants(replace(own, columns=shared), off_card(summary))
    for name, variant in variants(card).items():
        keys = {one.metric: one.key for one in asked[name].columns} if name in asked else {}
        marks = {mark for key in keys.values() for mark in cells.get(key, {}).get("marks", ())}
        same = [one for one in asked.values() if one.cls is variant.cls]
        differs = [apart(one.cls, one.settings, variant.settings) for one in same]
        metrics = measured.get(name, {})
        for column in variant.columns:
            cell = cells.get(keys.get(column.metric, "")) or metrics.get(column.metric)
            if cell is None:
                what = "scored: evals score does it" if metrics else "asked: evals run asks for it"
                words = [f"not {what}; the run was of {own.title}", *filter(None, differs)]
                cell = metric_json(Metric(None, 0, 0, reason=", ".join(words)))
            found[column.key] = {"marks": sorted(marks), **cell}
    values = {key: _metric(cell) for key, cell in found.items() if cell.get("value") is not None}
    return found | {AVERAGE.key: metric_json(average_metric(card.average, values))}


def _metric(cell: Mapping[str, Any]) -> Metric:
    ends = cell["ci95"]
    return Metric(cell["value"], cell["n"], cell["n_items"], cell["stderr"], ends and tuple(ends))


def _own_name(summary: Mapping[str, Any], name: str | None) -> str:
    """The row's name with what marks the whole row in words: another suite than the card's, a
    limit.
    """
    base = name or summary["model"]["name"]
    suite, limit = summary.get("suite"), summary.get("limit")
    words = [f"{suite} suite"] if suite != "card" else []
    words += [f"limit {limit}"] if limit is not None else []
    return f"{base} ({', '.join(words)})" if words else str(base)


def _own_cell(cell: Mapping[str, Any] | None, column: Column) -> tuple[TableCell, str]:
    """The printed cell and why it is empty ("" when it is not)."""
    if cell is None:
        return TableCell(), "not run"
    value = cell.get("value")
    if value is None:
        return TableCell(), str(
            cell.get("reason") or f"{cell.get('n')} of {cell.get('n_items')} items scored"
        )
    low_high = cell.get("ci95")
    interval = (in_unit(low_high[0], column), in_unit(low_high[1], column)) if low_high else None
    marks = tuple(dict.fromkeys(cell.get("marks", ())))
    return TableCell(in_unit(value, column), marks, interval), ""


def _verdict_counts(cell: Mapping[str, Any] | None) -> str:
    """How many verdicts stand behind a judged cell, "" where no judge decides it."""
    if cell is None or not isinstance(cell.get("n_judged"), int):
        return ""
    return f"{cell['n_judged']} items judged, {cell.get('n_unparsable')} of the verdicts unreadable"


def _own_average(
    found: Mapping[str, Mapping[str, Any]], cells: Mapping[str, TableCell], card: Card
) -> tuple[TableCell, str]:
    rule = card.average
    cell, reason = _own_cell(found.get(AVERAGE.key), rule.column)
    if reason:
        return cell, reason
    marks = [*cell.marks, *(mark for key in rule.inputs for mark in cells[key].marks)]
    if rule.any_dash and any(cells[column.key].text == MISSING for column in card.columns):
        marks.append(CARD_WOULD_OMIT)
    there = {key: 0.0 for key in rule.inputs if cells[key].text != MISSING}
    if lacking := left_out(rule, there):
        marks.append(f"a mean without {', '.join(lacking)}, as the card's where a row lacks them")
    return TableCell(cell.text, tuple(dict.fromkeys(marks)), cell.ci95), ""
