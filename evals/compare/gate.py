"""`evals check`: did the candidate get worse than the baseline by more than is allowed?

A column, in its own sense of better, with allowed drop d: `regressed` when its whole 95 % interval
lies below -d, `pass` when the interval's lower end is at or above -d, else `undecided`.  A column
whose every answer is the same in both runs passes: nothing changed.  A floor or a ceiling is held
against the interval of the candidate's own cell in the same way. A policy may let the estimates
decide instead; nothing then bounds their false alarms.

The gate as a whole looks at up to eleven columns, so one of them may regress by chance. It is
`regressed` only when a column still is after Holm's correction over all that decide: the
chance of a false alarm is at most 5 %, even where every true drop is exactly d, and far less where
nothing got worse (scripts/gate_power measures both). It is `pass` only when every column passes,
which needs no correction: each column has to reject its own drop (Berger 1982).

Where the policy lets the pooled difference decide too, it has one half of the 5 % and the columns
the other; a pooled difference that passes stands for the critical columns that are undecided.
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from evals.cards.card import Average, Card
from evals.cards.published import shipped
from evals.compare.columns import read_columns
from evals.compare.paired import PairedDifference
from evals.compare.policy import Policy, Rule
from evals.compare.pooled import pooled_difference
from evals.compare.runs import comparability, settled, unchanged
from evals.errors import InputError
from evals.report.run_row import row_from_summary
from evals.stats import Z95, holm, p_at_least
from evals.storage.run_folder import RunFolder

ALPHA = 0.05
"""Chance of a false alarm that the gate as a whole is held to."""

ColumnState = Literal["pass", "regressed", "undecided", "incomplete", "not compared"]
Verdict = Literal["pass", "regressed", "undecided", "incomplete", "incomparable"]
Limit = Literal["drop", "floor", "ceiling"]
_WORST: tuple[ColumnState, ...] = (
    "regressed", "incomplete", "undecided", "not compared", "pass",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Held:
    """One thing that a column is held to, and how it came out. limit: a fraction.

    p: chance of a value this bad where the truth is exactly at the limit; p_holm: the same after
    Holm's correction; None where nothing was tested.
    proven: whether it decides that the gate is regressed.
    """

    what: Limit
    limit: float
    state: ColumnState
    p: float | None = None
    p_holm: float | None = None
    proven: bool = False


@dataclass(frozen=True, slots=True)
class ColumnVerdict:
    """One column's verdict. held: the drop, then a floor or a ceiling where there is one.

    same: every answer and score is the same in both runs.  in_baseline: whether that has a value.
    """

    difference: PairedDifference
    rule: Rule
    held: tuple[Held, ...]
    same: bool = False
    in_baseline: bool = False

    @property
    def state(self) -> ColumnState:
        """The worst of what the column is held to."""
        return min((one.state for one in self.held), key=_WORST.index)

    @property
    def drop(self) -> Held:
        """How the drop came out."""
        return self.held[0]

    @property
    def is_proven(self) -> bool:
        """True when the column is regressed after Holm's correction too."""
        return any(one.proven for one in self.held)

    @property
    def decides(self) -> bool:
        """False for an advisory column."""
        return self.rule.tier != "advisory"

    @property
    def is_lacking(self) -> bool:
        """True where it leaves the gate incomplete: whatever its tier, where it is required."""
        lacks = any(one.state == "incomplete" for one in self.held)
        return lacks and (self.decides or self.rule.required)


@dataclass(frozen=True, slots=True)
class Gate:
    """The verdicts on one candidate. names: the two rows'.  reason: why the runs cannot be
    compared.  notes: what else differs.

    pooled: the critical columns together, None where nothing can be pooled.  beside: what is
    shown and does not decide: a column's finer measure, or its score where the finer one decides.
    runs: the two folders.  seconds: what the comparison took.
    """

    names: tuple[str, str]
    columns: tuple[ColumnVerdict, ...]
    reason: str | None = None
    notes: tuple[str, ...] = ()
    strict: bool = False
    policy: Policy = field(default_factory=Policy)
    pooled: ColumnVerdict | None = None
    beside: tuple[PairedDifference, ...] = ()
    runs: tuple[Path, Path] | None = None
    seconds: float = 0.0

    @property
    def verdict(self) -> Verdict:
        """The gate's own: regressed before incomplete before undecided."""
        deciding = [column for column in self.columns if column.decides]
        if self.reason is not None:
            return "incomparable"
        if any(column.is_proven for column in deciding) or self._pooled("regressed"):
            return "regressed"
        if any(column.is_lacking for column in self.columns):
            return "incomplete"
        return "undecided" if self._pooled("undecided") or any(self.open_columns()) else "pass"

    def open_columns(self) -> Iterator[ColumnVerdict]:
        """The columns that keep the gate from passing, because they are undecided."""
        supporting = []
        for column in self.columns:
            if column.state not in ("undecided", "regressed") or not column.decides:
                continue
            if column.rule.tier == "supporting":
                supporting.append(column)
            # A drop that is undecided in one column the pooled difference may have settled for all;
            # a floor it says nothing of.
            elif not self._pooled("pass") or any(
                one.state == "regressed" or (one.state == "undecided" and one.what != "drop")
                for one in column.held
            ):
                yield column
        if len(supporting) > self.policy.undecided_supporting:
            yield from supporting

    def _pooled(self, state: ColumnState) -> bool:
        """Whether the pooled difference decides, and is so."""
        return self.policy.pooled_decides and self.pooled is not None and self.pooled.state == state

    @property
    def fails_undecided(self) -> bool:
        """Whether not knowing is a failure."""
        return self.strict or self.policy.undecided == "fail"

    @property
    def exit_code(self) -> int:
        """0 fine, 1 regressed (or undecided, when that fails), 3 incomplete or incomparable."""
        return {
            "pass": 0,
            "undecided": int(self.fails_undecided),
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

    data, card: as in `read_columns`.  Raises InputError where a folder is no run.
    """
    started = time.monotonic()
    summaries = [RunFolder(path).read_json("summary.json") for path in (baseline, candidate)]
    names = (row_from_summary(summaries[0]).name, row_from_summary(summaries[1]).name)
    comparable = comparability(*summaries)
    # A pipeline that measured the baseline twice would pass for ever.
    if baseline.resolve() == candidate.resolve():
        alike: tuple[str, ...] = ("baseline and candidate are one run folder: nothing can differ",)
    else:
        one_model = "one model in both runs: every difference here is run-to-run spread"
        alike = (one_model,) * comparable.same_model
    gate = Gate(names, (), comparable.reason, (*comparable.notes, *alike), strict, policy)
    gate = replace(gate, runs=(baseline, candidate))
    if comparable.reason is not None:
        return gate
    found = read_columns(baseline, candidate, data, card)
    before, after = found.about.cells
    has_value = frozenset(key for key, cell in before.items() if cell["value"] is not None)
    by_finer = {key for key in found.finer if policy.rule(key).measure == "probability"}
    deciding = dict(found.differences) | {key: found.finer[key] for key in by_finer}
    columns = judge(deciding, policy, has_value, after, found.about.shown)
    beside = {key: found.differences[key] for key in found.finer if key in by_finer}
    beside |= {key: one for key, one in found.shown.items() if key not in by_finer}
    return replace(
        gate,
        columns=columns,
        pooled=judge_pooled(found.differences, policy, found.covariance, found.about.shown.average),
        beside=tuple(beside[key] for key in found.finer if key in beside),
        reason=_nothing(columns),
        seconds=time.monotonic() - started,
    )


def _nothing(columns: tuple[ColumnVerdict, ...]) -> str | None:
    """Why there is nothing to decide on."""
    if any(column.state != "not compared" for column in columns if column.decides):
        return None
    some = all(column.decides for column in columns)
    return f"no column {'' if some else 'that decides '}has a value in both runs"


def judge(
    differences: Mapping[str, PairedDifference],
    policy: Policy,
    in_baseline: frozenset[str] = frozenset(),
    cells: Mapping[str, Mapping[str, Any]] | None = None,
    shown: Card | None = None,
) -> tuple[ColumnVerdict, ...]:
    """The verdict on every column, in the order given. in_baseline: the columns of which the
    baseline has a value.  cells: the candidate's own, for floors and ceilings.  shown: the
    card, None: the default one.

    A required column that is nowhere in the differences is added, as one that is incomplete.
    """
    same = unchanged(differences)
    differences = dict(differences) | {
        key: PairedDifference(column, 0, reason="in neither run")
        for key, column in ((one.key, one) for one in (shown or shipped()).printed)
        if policy.rule(key).required and key not in differences
    }
    columns = [
        _column(one, policy.rule(key), key in same, key in in_baseline, (cells or {}).get(key))
        for key, one in settled(differences).items()
    ]
    alpha = ALPHA / 2 if policy.pooled_decides else ALPHA
    return _corrected(columns, alpha)


def _corrected(columns: list[ColumnVerdict], alpha: float) -> tuple[ColumnVerdict, ...]:
    """The columns after Holm's correction over everything that was tested and decides."""
    tested = {
        f"{column.difference.key} {one.what}": one.p
        for column in columns
        for one in column.held
        if column.decides
    }
    adjusted = holm(tested)

    def corrected(column: ColumnVerdict, one: Held) -> Held:
        p_holm = adjusted.get(f"{column.difference.key} {one.what}")
        by_estimate = column.rule.by == "estimate" and column.decides
        proven = one.state == "regressed" and (by_estimate if p_holm is None else p_holm <= alpha)
        return replace(one, p_holm=p_holm, proven=proven)

    return tuple(
        replace(column, held=tuple(corrected(column, one) for one in column.held))
        for column in columns
    )


def _column(
    one: PairedDifference,
    rule: Rule,
    same: bool,
    in_baseline: bool,
    cell: Mapping[str, Any] | None,
) -> ColumnVerdict:
    missing: ColumnState = "incomplete" if in_baseline or rule.required else "not compared"
    if not one.column.is_share:
        if rule.floor is not None or rule.ceiling is not None:
            raise InputError(
                f"The policy's floor and ceiling of {one.key} are in percent, and it is no share:"
                " relative_drop is what can hold it."
            )
        if rule.relative_drop is None:
            why = "no share, so that no points may be allowed: a relative_drop holds it"
            one = PairedDifference(one.column, 0, reason=one.reason or why)
            missing = "incomplete" if rule.required else "not compared"
    held = [_held_drop(one, rule, missing)]
    for what, limit in (("floor", rule.floor), ("ceiling", rule.ceiling)):
        if limit is not None:
            held.append(_held_value(what, limit, cell, rule, missing))  # type: ignore[arg-type]
    return ColumnVerdict(one, rule, tuple(held), same, in_baseline)


def _held_drop(one: PairedDifference, rule: Rule, missing: ColumnState) -> Held:
    allowed = rule.allowed(one.baseline)
    if not one.column.is_share:
        allowed = (rule.relative_drop or 0.0) * abs(one.baseline or 0.0)
    if one.gain_ci95 is None or one.stderr is None or one.difference is None:
        return Held("drop", allowed, missing)
    if rule.by == "estimate":
        gain = -one.difference if one.column.lower_is_better else one.difference
        return Held("drop", allowed, "regressed" if gain < -allowed else "pass")
    low, high = one.gain_ci95
    state: ColumnState = (
        "regressed" if high < -allowed else "pass" if low >= -allowed else "undecided"
    )
    return Held("drop", allowed, state, _p_of_drop(high, one.stderr, allowed))


def _held_value(
    what: Limit, limit: float, cell: Mapping[str, Any] | None, rule: Rule, missing: ColumnState
) -> Held:
    """The candidate's own value against a floor, or turned round against a ceiling."""
    if cell is None or cell["value"] is None:
        return Held(what, limit, missing)
    down = what == "ceiling"
    value, least = (1 - cell["value"], 1 - limit) if down else (cell["value"], limit)
    if rule.by == "estimate":
        return Held(what, limit, "regressed" if value < least else "pass")
    if cell["ci95"] is None:
        return Held(what, limit, "undecided")
    low, high = (1 - end for end in reversed(cell["ci95"])) if down else cell["ci95"]
    state: ColumnState = "regressed" if high < least else "pass" if low >= least else "undecided"
    return Held(what, limit, state, p_at_least(least, value, (low, high)))


def judge_pooled(
    differences: Mapping[str, PairedDifference],
    policy: Policy,
    covariance: Mapping[tuple[str, str], float] | None = None,
    rule: Average | None = None,
) -> ColumnVerdict | None:
    """The verdict on the critical columns together, None where none of them enters the Average.

    covariance, rule: as in `pooled_difference`.
    """
    critical = {
        key: one for key, one in settled(differences).items() if policy.rule(key).tier == "critical"
    }
    pooled = pooled_difference(critical, covariance, rule)
    if pooled is None:
        return None
    held = _held_drop(pooled, Rule(policy.pooled_drop), "not compared")
    proven = policy.pooled_decides and held.state == "regressed"
    return ColumnVerdict(
        pooled, Rule(policy.pooled_drop), (replace(held, proven=proven),), pooled.stderr == 0
    )


def _p_of_drop(high: float, stderr: float, allowed: float) -> float:
    """One-sided p of "the drop is at most `allowed`"; 2.5 % where the interval's upper end `high`
    is exactly -allowed.
    """
    from scipy.stats import norm

    # No spread: no answer changed (`settled`), so nothing fell.
    return float(norm.cdf((high + allowed) / stderr - Z95)) if stderr else 1.0
