"""What `evals check` tells people and machines: Markdown, GitHub annotations, JUnit XML, JSON.
Everything is escaped.
"""

import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from evals.compare.gate import ColumnVerdict, Gate
from evals.errors import EnvironmentFault
from evals.report.table import MISSING, escape, percent

# XML 1.0 has no place for these, escaped or not; ElementTree writes them all the same.
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_MEANING = {
    "pass": "no column fell by more than is allowed",
    "undecided": "the items cannot tell whether a column fell by more than is allowed",
    "regressed": "a column fell by more than is allowed",
    "incomplete": "a column the baseline has could not be compared",
    "incomparable": "the runs cannot be compared",
}
_BLAMED = {"undecided": ("undecided", "regressed"), "incomplete": ("incomplete",)}


def headline(gate: Gate) -> str:
    """The gate's verdict in one sentence of plain text, naming the columns it rests on."""
    states = _BLAMED.get(gate.verdict, ())
    why = [
        _heading(column)
        for column in gate.columns
        if column.state in states or (gate.verdict == "regressed" and column.is_proven)
    ]
    why += [gate.reason] if gate.reason else []
    why += (
        [f"{sum(column.p is not None for column in gate.columns)} of {len(gate.columns)} compared"]
        if gate.verdict == "pass"
        else []
    )
    return f"{gate.verdict}: {_MEANING[gate.verdict]}" + (f" ({', '.join(why)})" if why else "")


def explain(column: ColumnVerdict) -> str:
    """One column's verdict in one sentence of plain text, in points."""
    change = _change(column)
    if change is None:
        return f"{column.state}: {column.difference.reason}"
    text = f"{column.state}: {change} points, allowed drop {_allowed(column)}"
    if column.state == "regressed" and not column.is_proven:
        text += "; one of so many columns does by chance (Holm), so it counts as undecided"
    return text + ("; every answer is the same" if column.same else "")


def markdown(gate: Gate) -> str:
    """The verdict and a table of the columns; ends in a newline."""
    heads = (
        "Column",
        "Baseline",
        "Candidate",
        "Difference in points [95 %]",
        "Allowed drop",
        "Verdict",
    )
    table = [
        f"| {' | '.join(row)} |"
        for row in (heads, ("---", *["---:"] * 4, "---"), *map(_cells, gate.columns))
    ]
    unclear = [
        column
        for column in gate.columns
        if column.p is None or (column.state == "regressed" and not column.is_proven)
    ]
    notes = [*(f"{_heading(column)}: {explain(column)}" for column in unclear), *gate.notes]
    lines = [
        f"**{escape(gate.names[1])}** against **{escape(gate.names[0])}**: {escape(headline(gate))}"
    ]
    lines += ["", *table] if gate.columns else []
    lines += ["", *(f"- {escape(note)}" for note in notes)] if notes else []
    return "\n".join(lines) + "\n"


def _cells(column: ColumnVerdict) -> tuple[str, ...]:
    one, change = column.difference, _change(column)
    name = escape(_heading(column)) + (" (lower is better)" if one.column.lower_is_better else "")
    values = [
        MISSING if value is None else percent(value) for value in (one.baseline, one.candidate)
    ]
    return name, *values, change or MISSING, _allowed(column), column.state


def annotations(gate: Gate) -> Iterator[str]:
    """GitHub workflow commands: one for the gate, one for each column that regressed or is
    incomplete.
    """
    level = "error" if gate.exit_code else "warning" if gate.verdict == "undecided" else "notice"
    yield _command(level, "evals check", headline(gate))
    for column in gate.columns:
        if column.state in ("regressed", "incomplete"):
            level = "error" if column.is_proven or column.state == "incomplete" else "warning"
            yield _command(level, f"evals check, {_heading(column)}", explain(column))


def _command(level: str, title: str, message: str) -> str:
    return f"::{level} title={_percent_escaped(title, '%:,')}::{_percent_escaped(message, '%')}"


def _percent_escaped(text: str, special: str) -> str:
    """Text of a workflow command, on one line; in a property ":" and "," are special too."""
    return "".join(f"%{ord(c):02X}" if c in special or c in "\r\n" else c for c in text)


def junit(gate: Gate) -> bytes:
    """One test case a column, or one for the comparison itself; a failure or error is in it exactly
    when the exit code is not 0.
    """
    cases = [
        (_heading(column), _outcome(column, gate.strict), explain(column))
        for column in gate.columns
    ]
    cases += [("comparison", "error", headline(gate))] if gate.reason else []
    root = ElementTree.Element("testsuites")
    suite = ElementTree.SubElement(root, "testsuite", name="evals check", tests=str(len(cases)))
    for plural, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(plural, str([found for _, found, _ in cases].count(tag)))
    for name, tag, message in cases:
        case = ElementTree.SubElement(
            suite, "testcase", classname="evals.compare.gate", name=_NOT_XML.sub("�", name)
        )
        if tag:
            ElementTree.SubElement(case, tag, message=_NOT_XML.sub("�", message))
    ElementTree.indent(root)
    return bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"


def _outcome(column: ColumnVerdict, strict: bool) -> str:
    """The element that says how a column's test case ended, "" for a pass."""
    undecided = "failure" if strict or column.is_proven else "skipped"
    return {
        "pass": "",
        "regressed": undecided,
        "undecided": undecided,
        "incomplete": "error",
        "not compared": "skipped",
    }[column.state]


def as_json(gate: Gate) -> dict[str, Any]:
    """Everything, JSON-ready: fractions, in each column's own units; by column what
    PairedDifference holds, and the verdict.
    """
    head = {
        "schema": 1,
        "verdict": gate.verdict,
        "exit_code": gate.exit_code,
        "strict": gate.strict,
        "reason": gate.reason,
    }
    columns = {column.difference.key: _column_json(column) for column in gate.columns}
    return head | {
        "baseline": gate.names[0],
        "candidate": gate.names[1],
        "notes": list(gate.notes),
        "columns": columns,
    }


def _column_json(column: ColumnVerdict) -> dict[str, Any]:
    verdict = {
        "verdict": column.state,
        "proven": column.is_proven,
        "allowed_drop": column.allowed,
        "same": column.same,
    }
    return asdict(column.difference) | verdict | {"p_drop": column.p, "p_drop_holm": column.p_holm}


def append(path: Path, text: str) -> None:
    """Add the table to GitHub's step summary. Raises EnvironmentFault when it cannot be written."""
    try:
        with path.open("a", encoding="utf-8") as stream:
            stream.write(text)
    except OSError as error:
        raise EnvironmentFault(
            f"The step summary {path} could not be written ({error.strerror or error})."
        ) from error


def _heading(column: ColumnVerdict) -> str:
    return column.difference.column.heading


def _change(column: ColumnVerdict) -> str | None:
    """The difference and its interval in points, None where there is none."""
    one = column.difference
    if one.difference is None or one.ci95 is None:
        return None
    low, high = one.ci95
    # z: a change that rounds to zero gets no minus sign.
    return f"{one.difference * 100:+z.2f} [{low * 100:+z.2f}, {high * 100:+z.2f}]"


def _allowed(column: ColumnVerdict) -> str:
    return f"{column.allowed * 100:.2f}"
