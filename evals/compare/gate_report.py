"""What `evals check` says: the verdict in words, as Markdown, as GitHub annotations. Everything is
escaped.
"""

import shlex
from collections.abc import Iterator
from pathlib import Path

from evals.compare.gate import ALPHA, ColumnVerdict, Gate, Held
from evals.compare.paired import Z80, PairedDifference
from evals.compare.words import change, in_points, in_words, noises, p_value, unit
from evals.errors import EnvironmentFault
from evals.report.table import MISSING, compared, escape, percent, points, sense
from evals.stats import Z95

_MEANING = {
    "pass": "no column fell by more than is allowed",
    "undecided": "the items cannot tell whether a column fell by more than is allowed",
    "regressed": "a column fell by more than is allowed",
    "incomplete": "a column the baseline has could not be compared",
    "incomparable": "the runs cannot be compared",
}
_TO_DO = {
    "pass": "Go on",
    "undecided": "Ask more items before you rely on it",
    "regressed": "Hold it back",
    "incomplete": "Finish the run, then check again",
    "incomparable": "Run both alike, then check again",
}


def to_do(gate: Gate) -> str:
    """What a person is to do."""
    if gate.verdict == "undecided" and gate.fails_undecided:
        return "Hold it back, and ask more items"
    return "Run what is missing, then check again" if _lacks_both(gate) else _TO_DO[gate.verdict]


def _lacks_both(gate: Gate) -> bool:
    """Whether the candidate's run, once finished, would not be enough: the policy requires what the
    baseline has not.
    """
    return gate.verdict == "incomplete" and not all(one.in_baseline for one in blamed(gate))


def headline(gate: Gate) -> str:
    """The gate's verdict in one sentence of plain text, naming the columns it rests on."""
    said, why = _meaning(gate), ", ".join(map(heading, blamed(gate))) or gate.reason
    if gate.verdict == "pass":
        n_compared = sum(column.drop.state not in _NOTHING for column in gate.columns)
        why = f"{n_compared} of {len(gate.columns)} compared"
        unsure = [c for c in gate.columns if c.decides and c.state in ("undecided", "regressed")]
        if unsure:
            said = "as far as the policy asks, nothing fell by more than is allowed"
            why += f"; alone undecided: {', '.join(map(heading, unsure))}"
    return f"{gate.verdict}: {said}" + (f" ({why})" if why else "")


def _meaning(gate: Gate) -> str:
    """What the verdict says; of columns that are held to a floor or ceiling, that too."""
    said, fell = _MEANING[gate.verdict], "fell by more than is allowed"
    if _lacks_both(gate):
        return "a column that the policy requires could not be compared"
    missed = [
        one.what
        for column in blamed(gate)
        for one in column.held
        if (one.proven if gate.verdict == "regressed" else _is_open(one))
    ]
    if set(missed) <= {"drop"}:
        return said
    beyond = "misses its floor or ceiling"
    return said.replace(fell, f"{fell} or {beyond}" if "drop" in missed else beyond)


_NOTHING = ("incomplete", "not compared")


def blamed(gate: Gate) -> list[ColumnVerdict]:
    """The columns that the verdict rests on, and the pooled difference where it decides."""
    deciding = [column for column in gate.columns if column.decides]
    pooled = [gate.pooled] if gate.pooled and gate.policy.pooled_decides else []
    if gate.verdict == "regressed":
        return [column for column in (*deciding, *pooled) if column.is_proven]
    if gate.verdict == "incomplete":
        return [column for column in gate.columns if column.is_lacking]
    if gate.verdict != "undecided":
        return []
    return [*gate.open_columns(), *(one for one in pooled if one.state == "undecided")]


def explain(column: ColumnVerdict) -> str:
    """One column's verdict in one sentence of plain text, in points."""
    one = column.difference
    text = f"{column.state}: {one.reason}"
    if one.ci95 is not None:
        text = f"{column.state}: {change(one)}{unit(one.column)}, allowed drop {_allowed(column)}"
    for held in column.held[1:]:
        text += f"; {held.what} {percent(held.limit)}: {_WORDS[held.state]}"
    if column.state == "regressed" and not column.is_proven and column.decides:
        text += "; one of so many columns does by chance (Holm), so it counts as undecided"
    if not (column.decides or column.is_lacking):
        text += "; advisory, it decides nothing"
    return text + ("; every answer is the same" if column.same else "")


_WORDS = {"pass": "kept", "regressed": "broken", "undecided": "undecided"} | dict.fromkeys(
    _NOTHING, "not to be told"
)


def markdown(gate: Gate) -> str:
    """What to do, the verdict, and a table of the columns; ends in a newline. Columns that are the
    same in every answer, or not compared, are folded into a line each.
    """
    heads = (
        "Column",
        "Baseline",
        "Candidate",
        "Difference in points [95 %]",
        "Allowed drop",
        "Verdict",
    )
    shown = [column for column in gate.columns if not _is_folded(column)]
    table = [
        f"| {' | '.join(row)} |"
        for row in (heads, ("---", *["---:"] * 4, "---"), *map(_cells, shown))
    ]
    lines = [
        f"{to_do(gate)}: **{escape(gate.names[1])}** against"
        f" **{escape(gate.names[0])}**: {escape(headline(gate))}"
    ]
    said = [*_pooled(gate), *_beside(gate), *filter(None, [power(gate)])]
    lines += ["", *(f"- {escape(line)}" for line in said)] if said else []
    lines += ["", *table] if shown else []
    drawn = noises(column.difference for column in gate.columns)
    notes = [*_remarks(gate), *drawn, *gate.notes, *_next(gate)]
    lines += ["", *(f"- {escape(note)}" for note in notes)] if notes else []
    return "\n".join(lines) + "\n"


def _is_folded(column: ColumnVerdict) -> bool:
    return column.state == "not compared" or (column.same and column.state == "pass")


def _remarks(gate: Gate) -> Iterator[str]:
    """What the table does not show: of each column that is unclear, and of those folded."""
    same = [column for column in gate.columns if column.same and column.state == "pass"]
    if same:
        yield f"the same in every answer: {', '.join(map(heading, same))}"
    for column in gate.columns:
        unclear = column.difference.difference is None or len(column.held) > 1
        unclear |= column.state == "regressed" and not column.is_proven
        if unclear and column not in same:
            yield f"{heading(column)}: {explain(column)}"


def _pooled(gate: Gate) -> Iterator[str]:
    """The pooled difference, one-sided, and what it could have found."""
    if gate.pooled is None and gate.policy.pooled_decides and gate.reason is None:
        yield "the pooled difference decides nothing: no critical column enters it"
    # Of one column it says what the table says.
    if gate.pooled is None or (gate.pooled.same and not gate.policy.pooled_decides):
        return
    if gate.pooled.difference.n_columns < 2 and not gate.policy.pooled_decides:
        return
    one, held = gate.pooled.difference, gate.pooled.drop
    role = "decides" if gate.policy.pooled_decides else "shown only"
    text = f"{heading(gate.pooled)} ({one.n:,} items): {in_words(one)} points"
    if gate.pooled.same:
        yield f"{text}; every answer is the same"
        return
    p = f"one-sided p of a drop of at most {_allowed(gate.pooled)} points: {p_value(held.p)}"
    drop = 100 * (held.limit + (one.mde or 0.0))
    yield f"{text}, {p}: {held.state} ({role}); it finds a drop of {drop:.1f} in 80 of 100 cases"


def _beside(gate: Gate) -> Iterator[str]:
    """The measures that do not decide, where anything moved; why one that was to be had is not."""
    for one in gate.beside:
        if one.difference is None:
            yield f"{one.column.heading}: {one.reason}"
        elif one.n_better + one.n_worse:
            yield f"{one.column.heading}: {in_words(one)} points (shown only{_unheard(one, gate)})"


def _unheard(one: PairedDifference, gate: Gate) -> str:
    """What to set where a finer measure, which decides nothing, is surely worse than is allowed."""
    (own,) = (column for column in gate.columns if column.difference.key == one.key)
    if own.rule.measure == "probability" or one.gain_ci95 is None or not own.decides:
        return ""
    fell = one.gain_ci95[1] < -own.drop.limit
    return '; it fell by more than is allowed, and decides with measure = "probability"' * fell


def power(gate: Gate) -> str:
    """What drop each column's own test finds in 80 of 100 cases, after Holm's correction; "" where
    that cannot be told.
    """
    if not (drops := detectable(gate)):
        return ""
    said = "one column alone is found in 80 of 100 cases where it fell by, in points: "
    return said + in_points(drops)


def detectable(gate: Gate) -> dict[str, float]:
    """Heading -> the drop, a fraction, at which a column that falls alone makes the gate regressed
    in 80 of 100 cases; without those that decide nothing or by their estimate, and those without
    any change.
    """
    from scipy.stats import norm

    tested = [
        column
        for column in gate.columns
        if column.decides
        and column.rule.by == "interval"
        and column.difference.stderr
        and column.difference.column.is_share
    ]
    if not tested:
        return {}
    # The first step of Holm's correction asks this of the smallest p.
    n_tests = sum(
        one.p is not None for column in gate.columns if column.decides for one in column.held
    )
    level = (ALPHA / 2 if gate.policy.pooled_decides else ALPHA) / n_tests
    z = max(Z95, float(norm.isf(level)))
    return {
        heading(column): column.drop.limit + (z + Z80) * (column.difference.stderr or 0.0)
        for column in tested
    }


def _next(gate: Gate) -> Iterator[str]:
    """The command that says more, where something is to be done."""
    if gate.runs is None or gate.verdict not in ("undecided", "regressed"):
        return
    # Quoted as a shell wants it.
    runs = " ".join(map(shlex.quote, map(str, gate.runs)))
    if gate.verdict == "regressed":
        yield f"what broke: evals compare {runs} --flips --why"
        return
    unsure = [(column, one) for column in blamed(gate) for one in column.held if _is_open(one)]
    limits = [
        one.limit
        for column, one in unsure
        if one.what == "drop" and column.difference.column.is_share
    ]
    if limits:
        # Of a column in which no drop is allowed more items can show none, but 1 point.
        drop = min((limit for limit in limits if limit > 0), default=0.01)
        yield f"which items would tell: evals compare {runs} --plan {100 * drop:.3g}"
    if bounds := [heading(column) for column, one in unsure if one.what != "drop"]:
        yield (
            "a floor or ceiling is held against the candidate's own interval"
            f" ({', '.join(bounds)}): more items narrow it (evals run --suite full, where there are"
            " more), or the limit has to be further from the value"
        )


def _is_open(one: Held) -> bool:
    """Whether it was tested and nothing is proven."""
    return one.state == "undecided" or (one.state == "regressed" and not one.proven)


def _cells(column: ColumnVerdict) -> tuple[str, ...]:
    one = column.difference
    name = escape(heading(column)) + sense(one.column)
    values = [
        MISSING if value is None else compared(value, one.column)
        for value in (one.baseline, one.candidate)
    ]
    tier = "" if column.rule.tier == "critical" else f" ({column.rule.tier})"
    # A share of the baseline's value cannot be told without one.
    known = one.difference is not None or column.rule.relative_drop is None
    allowed = _allowed(column) if known else MISSING
    return name, *values, change(one), allowed, column.state + tier


def annotations(gate: Gate) -> Iterator[str]:
    """GitHub workflow commands: one for the gate, one for each column that regressed or is
    incomplete.
    """
    level = "error" if gate.exit_code else "warning" if gate.verdict == "undecided" else "notice"
    yield _command(level, "evals check", headline(gate))
    for column in gate.columns:
        if column.state in ("regressed", "incomplete"):
            level = "warning" if column.decides else "notice"
            level = "error" if (column.is_proven and column.decides) or column.is_lacking else level
            yield _command(level, f"evals check, {heading(column)}", explain(column))


def _command(level: str, title: str, message: str) -> str:
    return f"::{level} title={_percent_escaped(title, '%:,')}::{_percent_escaped(message, '%')}"


def _percent_escaped(text: str, special: str) -> str:
    """Text of a workflow command, on one line; in a property ":" and "," are special too."""
    return "".join(f"%{ord(c):02X}" if c in special or c in "\r\n" else c for c in text)


def append(path: Path, text: str) -> None:
    """Add the table to GitHub's step summary. Raises EnvironmentFault when it cannot be written."""
    try:
        with path.open("a", encoding="utf-8") as stream:
            stream.write(text)
    except OSError as error:
        raise EnvironmentFault(
            f"The step summary {path} could not be written ({error.strerror or error})."
        ) from error


def heading(column: ColumnVerdict) -> str:
    return column.difference.column.heading


def _allowed(column: ColumnVerdict) -> str:
    return points(column.drop.limit, column.difference.column, "")
