"""The gate over arbitrary differences and texts: verdicts are ordered, and every report can be read
back.
"""

import json
import re
from collections.abc import Sequence
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from evals.cards.published import shipped
from evals.compare.gate import Gate, judge, judge_pooled
from evals.compare.gate_files import as_json, junit
from evals.compare.gate_report import annotations, headline, markdown
from evals.compare.paired import PairedDifference
from evals.compare.policy import Policy, Rule
from evals.records import Column
from evals.stats import Z95
from evals.storage.run_folder import to_json

KEYS = shipped().keys
RANK = {"regressed": 0, "undecided": 1, "pass": 2}
gains = st.floats(-0.4, 0.4)
errors = st.floats(1e-4, 0.2)
drops = st.floats(0, 0.1)


def difference(column: Column, gain: float, error: float) -> PairedDifference:
    change = -gain if column.lower_is_better else gain
    ends = (change - Z95 * error, change + Z95 * error)
    return PairedDifference(
        column, 50, 0.5, 0.5 + change, change, error, ends, 0.5, 5, 6, estimator="made up"
    )


@st.composite
def differences(draw: st.DrawFn) -> Sequence[PairedDifference]:
    """Up to six columns of arbitrary names, some of them without a value for an
    arbitrary reason.
    """
    found = []
    for number in range(draw(st.integers(1, 6))):
        column = Column(KEYS[number], draw(st.text(max_size=20)), draw(st.booleans()))
        if draw(st.integers(0, 3)) == 0:
            found.append(PairedDifference(column, 0, reason=draw(st.text(max_size=30))))
        else:
            found.append(difference(column, draw(gains), draw(errors)))
    return found


rules = st.builds(
    Rule,
    drops,
    tier=st.sampled_from(["critical", "supporting", "advisory"]),
    by=st.sampled_from(["interval", "estimate"]),
    required=st.just(False),
)


@st.composite
def policies(draw: st.DrawFn, keys: Sequence[str]) -> Policy:
    own = {key: draw(rules) for key in keys if draw(st.booleans())}
    undecided, n = draw(st.sampled_from(["pass", "fail"])), draw(st.integers(0, 3))
    return Policy(draw(rules), own, undecided, n, draw(drops), draw(st.booleans()))


@st.composite
def gates(draw: st.DrawFn) -> Gate:
    found = {one.key: one for one in draw(differences())}
    in_baseline = frozenset(key for key in found if draw(st.booleans()))
    reason = draw(st.none() | st.text(min_size=1, max_size=30))
    names, notes = (
        (draw(st.text(max_size=20)), draw(st.text(max_size=20))),
        tuple(draw(st.lists(st.text(max_size=20), max_size=2))),
    )
    policy = draw(policies(list(found)))
    columns, pooled = judge(found, policy, in_baseline), judge_pooled(found, policy)
    return Gate(names, columns, reason, notes, draw(st.booleans()), policy, pooled)


@given(gains, gains, errors, drops, st.booleans())
def test_a_better_candidate_never_gets_a_worse_verdict(
    one: float, other: float, error: float, drop: float, lower: bool
) -> None:
    column = Column("c", "C", lower)
    worse, better = (
        judge({"c": difference(column, gain, error)}, Policy(Rule(drop)))[0]
        for gain in sorted((one, other))
    )
    assert RANK[worse.state] <= RANK[better.state]
    assert (worse.drop.p or 0) <= (better.drop.p or 0)


@given(gains, errors, drops, st.booleans())
def test_a_column_is_regressed_exactly_when_its_one_sided_p_is_below_two_and_a_half_percent(
    gain: float, error: float, drop: float, lower: bool
) -> None:
    (column,) = judge({"c": difference(Column("c", "C", lower), gain, error)}, Policy(Rule(drop)))
    assert column.drop.p is not None
    if abs(column.drop.p - 0.025) > 1e-9:
        assert (column.state == "regressed") == (column.drop.p < 0.025)


@given(differences(), drops, drops)
def test_a_more_generous_policy_never_fails_what_a_stricter_one_let_pass(
    found: Sequence[PairedDifference], one: float, other: float
) -> None:
    strict, generous = (
        Gate(("", ""), judge({d.key: d for d in found}, Policy(Rule(drop)))).exit_code
        for drop in sorted((one, other))
    )
    assert generous <= strict


# Of each element: the attributes it must have, those it may have, and its children in their order,
# as the schemas of Jenkins' xUnit plugin and of Surefire say, where both allow it.
ELEMENTS = {
    "testsuites": ("", "name time tests failures errors", "(testsuite )*"),
    "testsuite": (
        "name tests failures errors",
        "time skipped timestamp hostname id package",
        "(properties )?(testcase )*(system-out )?(system-err )?",
    ),
    "properties": ("", "", "(property )+"),
    "property": ("name value", "", ""),
    "testcase": ("name", "time classname", "(skipped )?(failure )*(system-out )*(system-err )*"),
    "skipped": ("", "type message", ""),
    "failure": ("", "type message", ""),
    "error": ("", "type message", ""),
    "system-out": ("", "", ""),
}
TIME = re.compile(r"\d+\.\d{3}")


@given(gates())
def test_junit_is_as_the_schemas_of_its_readers_want_it(gate: Gate) -> None:
    root = ElementTree.fromstring(junit(gate))
    assert root.tag == "testsuites"
    for element in root.iter():
        required, allowed, children = ELEMENTS[element.tag]
        assert set(required.split()) <= set(element.attrib)
        assert set(element.attrib) <= {*required.split(), *allowed.split()}
        # One schema calls an error an error, another leaves it out: its place is a failure's.
        tags = "".join(f"{'failure' if c.tag == 'error' else c.tag} " for c in element)
        assert re.fullmatch(children, tags), (element.tag, tags)
        assert TIME.fullmatch(element.attrib.get("time", "0.000"))
        has_text = element.tag == "system-out"
        assert has_text or not (element.text or "").strip()


@given(gates())
def test_junit_reads_back_and_fails_exactly_as_the_exit_code_does(gate: Gate) -> None:
    (suite,) = ElementTree.fromstring(junit(gate))
    cases = list(suite.iter("testcase"))
    tags = {child.tag for case in cases for child in case}
    assert bool({"failure", "error"} & tags) == (gate.exit_code != 0)
    assert len(cases) == int(suite.attrib["tests"])


@given(gates())
def test_annotations_are_one_line_each_and_say_what_was_meant(gate: Gate) -> None:
    lines = list(annotations(gate))
    for line in lines:
        level, _, rest = line.removeprefix("::").partition(" title=")
        title, _, message = rest.partition("::")
        assert level in ("error", "warning", "notice")
        assert not {"\r", "\n"} & set(line)
        assert not {":", ","} & set(title)
        unescaped = message.replace("%0D", "\r").replace("%0A", "\n").replace("%25", "%")
        assert headline(gate) == unescaped or line is not lines[0]


@given(gates())
def test_every_row_of_the_table_has_six_cells_whatever_the_columns_are_called(gate: Gate) -> None:
    text = markdown(gate)
    rows = [line for line in text.split("\n") if line.startswith("| ")]
    n_shown = sum(column.state != "not compared" for column in gate.columns)
    assert len(rows) == (2 + n_shown if n_shown else 0)
    assert all(line.replace("\\|", "").count("|") == 7 for line in rows)
    assert text.endswith("\n")


@given(gates())
def test_json_holds_every_column(gate: Gate) -> None:
    written = json.loads(to_json(as_json(gate)).encode("utf-8", "backslashreplace"))
    assert list(written["columns"]) == sorted(column.difference.key for column in gate.columns)
    assert (written["verdict"], written["exit_code"]) == (gate.verdict, gate.exit_code)
