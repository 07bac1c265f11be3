"""`evals check`: did the candidate get worse than the baseline by more than is allowed?

A column, in its own sense of better, with allowed drop d: `regressed` when its whole 95 % interval
lies below -d, `pass` when the interval's lower end is at or above -d, else `undecided`.  A column
whose every answer is the same in both runs passes: nothing changed.

The gate as a whole looks at up to eleven columns, so one of them may regress by chance. It is
`regressed` only when a column still is after Holm's correction over all compared columns: the
chance of a false alarm is at most 5 %, even where every true drop is exactly d, and far less where
nothing got worse (scripts/gate_power measures both). It is `pass` only when every column passes,
which needs no correction: each column has to reject its own drop (Berger 1982).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from evals.cards.published import card_named, card_of_run
from evals.compare.columns import paired_columns
from evals.compare.paired import PairedDifference
from evals.compare.policy import Policy
from evals.compare.runs import comparability, settled, unchanged
from evals.registry import bound
from evals.report.table import cells_under, row_from_summary
from evals.stats import Z95, holm
from evals.storage.run_folder import RunFolder

ALPHA = 0.05
"""Chance of a false alarm that the gate as a whole is held to."""

ColumnState = Literal["pass", "regressed", "undecided", "incomplete", "not compared"]
Verdict = Literal["pass", "regressed", "undecided", "incomplete", "incomparable"]


@dataclass(frozen=True, slots=True)
class ColumnVerdict:
    """One column's verdict. allowed: the drop d, a fraction.

    p: chance of a gain this low where the true drop is exactly d; p_holm: the same after Holm's
    correction; None where not compared.
    same: every answer and score is the same in both runs.
    """

    difference: PairedDifference
    allowed: float
    state: ColumnState
    p: float | None = None
    p_holm: float | None = None
    same: bool = False

    @property
    def is_proven(self) -> bool:
        """True when the column is regressed after Holm's correction too."""
        return self.state == "regressed" and self.p_holm is not None and self.p_holm <= ALPHA


@dataclass(frozen=True, slots=True)
class Gate:
    """The verdicts on one candidate. names: the two rows'.  reason: why the runs cannot be
    compared.  notes: what else differs.
    """

    names: tuple[str, str]
    columns: tuple[ColumnVerdict, ...]
    reason: str | None = None
    notes: tuple[str, ...] = ()
    strict: bool = False

    @property
    def verdict(self) -> Verdict:
        """The gate's own: regressed before incomplete before undecided."""
        states = {column.state for column in self.columns}
        if self.reason is not None:
            return "incomparable"
        if any(column.is_proven for column in self.columns):
            return "regressed"
        if "incomplete" in states:
            return "incomplete"
        return "undecided" if states & {"undecided", "regressed"} else "pass"

    @property
    def exit_code(self) -> int:
        """0 fine, 1 regressed (or undecided, when strict), 3 incomplete or incomparable."""
        return {
            "pass": 0,
            "undecided": int(self.strict),
            "regressed": 1,
            "incomplete": 3,
            "incomparable": 3,
        }[self.verdict]


def check(
    baseline: Path,
    candidate: Path,
    policy: Policy,
    *,
    data: Path | None = None,
    strict: bool = False,
    card: str | None = None,
) -> Gate:
    """Judge a candidate's run folder against a baseline's.

    data, card: as in `paired_columns`.  Raises InputError where a folder is no run.
    """
    summaries = [RunFolder(path).read_json("summary.json") for path in (baseline, candidate)]
    names = (row_from_summary(summaries[0]).name, row_from_summary(summaries[1]).name)
    comparable = comparability(*summaries)
    if comparable.reason is not None:
        return Gate(names, (), comparable.reason, comparable.notes, strict)
    shown = bound(card_named(card)) if card else card_of_run(summaries[0])
    cells = cells_under(shown, summaries[0])
    has_value = {key for key, cell in cells.items() if cell["value"] is not None}
    found = paired_columns(baseline, candidate, data, card)
    columns = judge(found, policy, frozenset(has_value))
    nothing = (
        None
        if any(column.state != "not compared" for column in columns)
        else "no column has a value in both runs"
    )
    return Gate(names, columns, nothing, comparable.notes, strict)


def judge(
    differences: Mapping[str, PairedDifference],
    policy: Policy,
    in_baseline: frozenset[str] = frozenset(),
) -> tuple[ColumnVerdict, ...]:
    """The verdict on every column, in the order given. in_baseline: the columns of which the
    baseline has a value.
    """
    same = unchanged(differences)
    columns = [
        _column(one, policy.allowed(key), key in same, key in in_baseline)
        for key, one in settled(differences).items()
    ]
    adjusted = holm({column.difference.key: column.p for column in columns})
    return tuple(replace(column, p_holm=adjusted[column.difference.key]) for column in columns)


def _column(one: PairedDifference, allowed: float, same: bool, in_baseline: bool) -> ColumnVerdict:
    if one.gain_ci95 is None or one.stderr is None:
        return ColumnVerdict(one, allowed, "incomplete" if in_baseline else "not compared")
    low, high = one.gain_ci95
    state: ColumnState = (
        "regressed" if high < -allowed else "pass" if low >= -allowed else "undecided"
    )
    return ColumnVerdict(one, allowed, state, _p_of_drop(high, one.stderr, allowed), same=same)


def _p_of_drop(high: float, stderr: float, allowed: float) -> float:
    """One-sided p of "the drop is at most `allowed`"; 2.5 % where the interval's upper end `high`
    is exactly -allowed.
    """
    from scipy.stats import norm

    # No spread: no answer changed (`settled`), so nothing fell.
    return float(norm.cdf((high + allowed) / stderr - Z95)) if stderr else 1.0
