"""`evals check --init`: a policy to start from, with a comment on everything that can be set."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from textwrap import wrap
from typing import Any

from evals.cards.average import shares_of
from evals.cards.card import AVERAGE, Card
from evals.cards.published import card_named, card_of_run, shipped
from evals.compare.gate import Gate, judge
from evals.compare.gate_report import power
from evals.compare.policy import Policy, Rule
from evals.compare.power import CHANGED, planned_difference
from evals.records import Column
from evals.report.table import compared
from evals.storage.run_folder import RunFolder

_HEAD = """\
# The policy of a regression gate:
#   evals check --baseline RUN --candidate RUN --policy gate.toml
# Points are percentage points: 1.0 is 80.0 falling to 79.0. What stands behind a # is off.

drop = 1.0                    # how far any column may fall, in points
# tier = "critical"           # critical decides; supporting too, but some may be undecided;
                              # advisory is shown and decides nothing
# by = "interval"             # "estimate": never undecided, but nothing bounds its false alarms
# required = false            # true: a column that cannot be compared leaves the gate incomplete
# undecided = "pass"          # "fail": not knowing is a failure (exit code 1)
# undecided_supporting = 0    # so many supporting columns may be undecided in a gate that passes

# All critical columns together, each weighted as in the Average.
[pooled]
drop = 1.0                    # how far they may fall together, in points
decides = false               # true: it fails the gate, and where it passes, critical columns
                              # may be undecided

# One line a column: gsm8k = 3.0 for its drop alone, or a table of what is to be other than above:
# tier, required, by, drop, relative_drop (percent of the baseline's value; the stricter counts),
# floor (percent, where higher is better), ceiling (percent, where lower is better), and for MMLU,
# TruthfulQA and lm-eval's tasks of choices measure = "probability": of what is right, or of the
# judges' yes, which shows smaller changes than the score.
[columns]
"""


def starter(baseline: Path | None = None, card: str | None = None) -> str:
    """A policy of every column of a card, in which nothing is stricter than without one.

    baseline: the run to be held against; each line then says what its items can find.  Raises
    InputError where the folder is no run.
    """
    shown, cells = _shown(baseline, card)
    pooled = set(shares_of(shown.average))
    lines = [line for column in shown.printed for line in _lines(column, cells, pooled)]
    return _HEAD + "\n".join(lines) + "\n"


def ready(text: str, policy: Policy, baseline: Path | None = None, card: str | None = None) -> str:
    """A policy's text, under what it finds with the items of the run to be held against. Raises
    InputError where the folder is no run.
    """
    shown, cells = _shown(baseline, card)
    planned = {
        one.key: replace(planned_difference(one, cell["n"]), baseline=cell["value"])
        for one in shown.printed
        if (cell := cells.get(one.key)) and cell["value"] is not None and one.key != AVERAGE.key
    }
    found = power(Gate(("", ""), judge(planned, policy, cells=cells, shown=shown), policy=policy))
    said = f"With the baseline's items, if {CHANGED:.0%} of them change, {found}" if found else ""
    return "".join(f"# {line}\n" for line in wrap(said, 96)) + text


def _shown(baseline: Path | None, card: str | None) -> tuple[Card, dict[str, dict[str, Any]]]:
    summary = RunFolder(baseline).read_json("summary.json") if baseline else None
    own = card_of_run(summary) if summary else shipped()
    return card_named(card) if card else own, summary["cells"] if summary else {}


def _lines(column: Column, cells: dict[str, dict[str, Any]], pooled: set[str]) -> Iterator[str]:
    """The column's comment, and its line, switched off."""
    about = f"{column.heading}, {'lower' if column.lower_is_better else 'higher'} is better"
    if column.key not in pooled and column.key != AVERAGE.key:
        about += ", not in the Average and so not pooled"
    cell = cells.get(column.key, {})
    value, n = cell.get("value"), cell.get("n")
    if isinstance(value, float | int):
        about += f": {compared(value, column)}"
    # The Average's n counts its inputs, of which nothing can be planned.
    if not column.is_share:
        yield f"# {about}; no share, so that only a relative_drop can hold it"
        yield f'# {column.key} = {{tier = "critical", required = true, relative_drop = 2.0}}'
        return
    if isinstance(n, int) and n and value is not None and column.key != AVERAGE.key:
        drop = Rule().drop + (planned_difference(column, n).mde or 0)
        about += (
            f" on {n:,} items, which find a drop of {min(drop, 1) * 100:.1f} points in 80 % if"
            f" {CHANGED:.0%} of them change"
        )
    limit = "ceiling = 20.0" if column.lower_is_better else "floor = 60.0"
    yield f"# {about}"
    yield f'# {column.key} = {{tier = "critical", required = true, drop = 1.0, {limit}}}'
