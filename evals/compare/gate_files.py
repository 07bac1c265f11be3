"""What `evals check` leaves for machines: JUnit XML and JSON. Everything is escaped."""

import re
from dataclasses import asdict
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from evals.compare.gate import ColumnVerdict, Gate
from evals.compare.gate_report import blamed, detectable, explain, heading, headline, to_do
from evals.storage.run_folder import RunFolder

# XML 1.0 has no place for these, escaped or not; ElementTree writes them all the same.
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write(gate: Gate, junit_file: Path | None, json_file: Path | None) -> None:
    """Write what was asked for. Raises EnvironmentFault where a file cannot be written."""
    if json_file is not None:
        RunFolder(json_file.parent).write_json(json_file.name, as_json(gate))
    if junit_file is not None:
        RunFolder(junit_file.parent).write_bytes(junit_file.name, junit(gate))


def junit(gate: Gate) -> bytes:
    """One test case a column, one for the pooled difference, or one for the comparison itself; a
    failure or error is in it exactly when the exit code is not 0. A case's output is the ids of the
    items that changed; what was found are properties of the suite, "gsm8k.difference", since most
    schemas of the format allow none in a case.
    """
    cases = [
        (heading(column), _outcome(column, gate), explain(column), _flipped(column))
        for column in _decided(gate)
    ]
    cases += [("comparison", "error", headline(gate), "")] if gate.reason else []
    root = ElementTree.Element("testsuites")
    suite = ElementTree.SubElement(root, "testsuite", name="evals check", tests=str(len(cases)))
    suite.set("time", f"{gate.seconds:.3f}")
    for plural, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(plural, str([found for _, found, _, _ in cases].count(tag)))
    properties = ElementTree.SubElement(suite, "properties")
    for name, value in _properties(gate).items():
        ElementTree.SubElement(properties, "property", name=name, value=_xml(str(value)))
    for name, tag, message, ids in cases:
        case = ElementTree.SubElement(
            suite, "testcase", classname="evals.compare.gate", name=_xml(name)
        )
        # The whole comparison is one pass over all items; no part of it is timed on its own.
        case.set("time", f"{gate.seconds / len(cases):.3f}")
        if tag:
            found = ElementTree.SubElement(case, tag, message=_xml(message))
            found.set("type", message.partition(":")[0])
        if ids:
            ElementTree.SubElement(case, "system-out").text = _xml(ids)
    ElementTree.indent(root)
    return bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"


def _decided(gate: Gate) -> list[ColumnVerdict]:
    return [*gate.columns, *([gate.pooled] if gate.pooled else [])]


def _xml(text: str) -> str:
    return _NOT_XML.sub("\ufffd", text)


def _properties(gate: Gate) -> dict[str, object]:
    """What the gate is about and found, by name; nothing that has no value."""
    found: dict[str, object] = {"baseline": gate.names[0], "candidate": gate.names[1]}
    found["verdict"] = gate.verdict
    for column in _decided(gate):
        one = column.difference
        low, high = one.ci95 or (None, None)
        figures = {
            "tier": column.rule.tier, "n": one.n, "baseline": one.baseline,
            "candidate": one.candidate, "difference": one.difference, "low": low, "high": high,
            "allowed_drop": column.drop.limit, "p": column.drop.p, "p_holm": column.drop.p_holm,
        }  # fmt: skip
        found |= {f"{one.key}.{k}": value for k, value in figures.items() if value is not None}
    return found


def _flipped(column: ColumnVerdict) -> str:
    """The ids of the items whose score changed, by direction."""
    sides = (("worse", column.difference.worse), ("better", column.difference.better))
    return "\n".join(f"{name}: {' '.join(ids)}" for name, ids in sides if ids)


def _outcome(column: ColumnVerdict, gate: Gate) -> str:
    """The element that says how a column's test case ended, "" for a pass."""
    if column.state == "pass":
        return ""
    if column.is_lacking and not column.is_proven:
        return "error"
    if not column.decides or (column is gate.pooled and not gate.policy.pooled_decides):
        return "skipped"
    fails = gate.verdict == "undecided" and gate.fails_undecided and column in blamed(gate)
    return "failure" if fails or column.is_proven else "skipped"


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
        "to_do": to_do(gate),
    }
    columns = {column.difference.key: _column_json(column) for column in gate.columns}
    return head | {
        "baseline": gate.names[0],
        "candidate": gate.names[1],
        "notes": list(gate.notes),
        "columns": columns,
        "pooled": _column_json(gate.pooled) if gate.pooled else None,
        "pooled_decides": gate.policy.pooled_decides,
        "beside": {one.column.heading: asdict(one) for one in gate.beside},
        "detectable": detectable(gate),
    }


def _column_json(column: ColumnVerdict) -> dict[str, Any]:
    verdict = {
        "verdict": column.state,
        "proven": column.is_proven,
        "allowed_drop": column.drop.limit,
        "same": column.same,
        "p_drop": column.drop.p,
        "p_drop_holm": column.drop.p_holm,
        "tier": column.rule.tier,
        "required": column.rule.required,
        "by": column.rule.by,
        "measure": column.rule.measure,
    }
    bounds = {one.what: asdict(one) for one in column.held[1:]}
    return asdict(column.difference) | verdict | {"bounds": bounds}
