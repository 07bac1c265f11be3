"""The gate's policy file: points in, fractions out, and one sentence for whatever is
wrong in it.
"""

import json
import tomllib
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.cards.published import shipped
from evals.compare.gate import Gate, judge, judge_pooled
from evals.compare.gate_files import junit
from evals.compare.gate_report import markdown, to_do
from evals.compare.paired import PairedDifference
from evals.compare.policy import Policy, Rule, known_columns, read_policy, ready_policies
from evals.compare.policy_init import starter
from evals.errors import InputError
from tests.unit.conftest import Call, Make

KEYS = shipped().keys


def policy(tmp_path: Path, text: str) -> Policy:
    file = tmp_path / "gate.toml"
    file.write_text(text, encoding="utf-8")
    return read_policy(file)


def test_without_a_policy_every_column_may_drop_one_point() -> None:
    assert {Policy().rule(key) for key in KEYS} == {Rule(0.01, tier="critical", by="interval")}
    assert (Policy().undecided, Policy().pooled_decides) == ("pass", False)


def test_an_empty_file_is_the_default(tmp_path: Path) -> None:
    assert policy(tmp_path, "") == Policy()


def test_a_columns_own_drop_stands_before_the_one_for_all(tmp_path: Path) -> None:
    read = policy(tmp_path, "drop = 2\n[columns]\ngsm8k = 3.5\naverage = 0\n")
    assert [read.rule(key).drop for key in ("gsm8k", "average", "mmlu")] == [0.035, 0.0, 0.02]


def test_both_ends_of_what_may_be_said_are_read(tmp_path: Path) -> None:
    read = policy(tmp_path, "undecided_supporting = 0\ndrop = 100\n[columns]\nmmlu = 0\n")
    assert (read.undecided_supporting, read.rest.drop, read.rule("mmlu").drop) == (0, 1.0, 0.0)


def test_every_column_of_the_card_can_be_named(tmp_path: Path) -> None:
    read = policy(tmp_path, "[columns]\n" + "".join(f"{key} = 5\n" for key in KEYS))
    assert dict(read.columns) == dict.fromkeys(KEYS, Rule(0.05))


WRONG = {
    "no TOML": ("drop: 1.0", "cannot be read"),
    "a key of many parts": (f"drop{'.a' * 20_000} = 1", "line 1: more than 500 dots"),
    "twice": ("drop = 1\ndrop = 2", "cannot be read"),
    "key": ("dorp = 1", "unknown key 'dorp'. Did you mean drop?"),
    "column": ("[columns]\ngsm = 1", "unknown column 'gsm'. Did you mean gsm8k?"),
    "table": ("columns = 3", "columns is no table"),
    "text": ('drop = "1"', "drop is '1'. Give the allowed drop in points, a number from 0 to 100."),
    "negative": ("[columns]\nbbh = -1", "columns.bbh is -1"),
    "too much": ("drop = 100.5", "drop is 100.5"),
    "not a number": ("drop = nan", "drop is nan"),
    "infinite": ("drop = inf", "drop is inf"),
    "true": ("drop = true", "drop is True"),
    "list": ("[columns]\nmmlu = [1]", "columns.mmlu is [1]"),
    "key of a column": ("[columns.mmlu]\ndorp = 1", "unknown key 'columns.mmlu.dorp'. Did you"),
    "value of a column": ("[columns.mmlu]\ndrop = -1", "columns.mmlu.drop is -1"),
    "tier": ('tier = "vital"', "tier is 'vital'. Known are critical, supporting, advisory."),
    "by": ("[columns.mmlu]\nby = true", "columns.mmlu.by is True. Known are interval, estimate."),
    "required": ("required = 1", "required is 1. Write true or false."),
    "undecided": ('undecided = "maybe"', "undecided is 'maybe'. Known are pass, fail."),
    "how many": ("undecided_supporting = 1.5", "undecided_supporting is 1.5"),
    "fewer than none": ("undecided_supporting = -1", "undecided_supporting is -1. Give a number"),
    "how many, a truth": ("undecided_supporting = true", "undecided_supporting is True"),
    "a measure": ('[columns.gsm8k]\nmeasure = "probability"', "which this column has not"),
    "of the score": (
        '[columns.mmlu]\nmeasure = "probability"\nrelative_drop = 1', "Give drop, in points."
    ),
    "floor of lower": ("[columns.xstest_safe_refused]\nfloor = 1", "Give a ceiling."),
    "ceiling of higher": ("[columns.mmlu]\nceiling = 1", "Give a floor."),
    "relative of lower": ("[columns.xstest_safe_refused]\nrelative_drop = 1", "Give drop"),
    "floor for all": ("floor = 50", "unknown key 'floor'"),
    "pooled": ("pooled = true", "pooled is no table"),
    "key of pooled": ("[pooled]\ndecide = true", "unknown key 'pooled.decide'. Did you mean"),
    "pooled drop": ("[pooled]\ndrop = nan", "pooled.drop is nan"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "says"), WRONG.values(), ids=WRONG)
def test_whatever_is_wrong_is_said_with_the_files_name(
    tmp_path: Path, text: str, says: str
) -> None:
    with pytest.raises(InputError) as error:
        policy(tmp_path, text)
    assert says in str(error.value)
    assert "gate.toml" in str(error.value)


def test_a_value_deeper_than_a_message_can_show_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "deep.toml"
    file.write_text(f"drop{'.a' * 3000} = 1\n")
    with pytest.raises(InputError, match="cannot be read"):
        read_policy(file)


def test_the_command_ends_with_2_and_one_sentence(tmp_path: Path, evals: Call) -> None:
    file = tmp_path / "gate.toml"
    for text, says in WRONG.values():
        file.write_text(text, encoding="utf-8")
        code, out, err = evals("check", "--init", "--policy", file)
        assert (code, out, says in err, err.count("\n")) == (2, "", True, 1), err


def test_a_ready_policy_says_what_it_finds_with_the_baselines_items(
    recorded: Make, evals: Call
) -> None:
    init = ("check", "--init", "--policy", "quantised")
    (_, plain, _), (code, own, _) = evals(*init), evals(*init, "--baseline", recorded("right"))
    assert (code, own.endswith(plain)) == (0, True)
    assert "IFEval loose acc" in own.removesuffix(plain)
    assert "XSTest safe" not in own.removesuffix(plain)  # advisory
    tomllib.loads(own)


def test_a_missing_or_binary_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere.toml cannot be read \(FileNotFoundError"):
        read_policy(tmp_path / "nowhere.toml")
    (tmp_path / "gate.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="cannot be read"):
        read_policy(tmp_path / "gate.toml")


def test_a_columns_own_table_stands_before_what_is_said_for_all(tmp_path: Path) -> None:
    read = policy(
        tmp_path,
        """
        tier = "supporting"
        drop = 2.0
        by = "estimate"
        undecided = "fail"
        undecided_supporting = 3
        [pooled]
        drop = 0.5
        decides = true
        [columns]
        mmlu = {tier = "critical", required = true, relative_drop = 2.5, floor = 60, drop = 1}
        xstest_safe_refused = {tier = "advisory", ceiling = 20, by = "interval"}
        """,
    )
    rest = Rule(0.02, tier="supporting", by="estimate")
    assert read.rule("bbh") == rest
    assert read.rule("mmlu") == Rule(0.01, 0.025, 0.6, None, "critical", True, "estimate")
    assert read.rule("xstest_safe_refused") == Rule(0.02, ceiling=0.2, tier="advisory")
    whole = (read.undecided, read.undecided_supporting, read.pooled_drop, read.pooled_decides)
    assert whole == ("fail", 3, 0.005, True)


def test_of_a_drop_in_points_and_one_in_percent_of_the_baseline_the_stricter_counts() -> None:
    rule = Rule(0.01, relative_drop=0.02)
    assert [rule.allowed(value) for value in (None, 0.1, 0.5, 0.9)] == pytest.approx(
        [0.01, 0.002, 0.01, 0.01]
    )


@pytest.mark.parametrize("name", ready_policies())
def test_every_ready_policy_reads_by_its_name_and_lets_some_column_decide(name: str) -> None:
    read = read_policy(Path(name))
    assert read.pooled_decides
    assert "critical" in {read.rule(key).tier for key in KEYS}


def test_a_file_stands_before_the_ready_policy_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "release").write_text("drop = 7")
    assert read_policy(Path("release")) == Policy(Rule(0.07))


def test_the_starter_is_the_default_and_each_line_that_is_off_can_be_switched_on(
    tmp_path: Path,
) -> None:
    assert policy(tmp_path, starter()) == Policy()
    on = starter().replace("# tier = ", "tier = ").replace("# undecided", "undecided")
    for key in KEYS:
        on = on.replace(f"# {key} = {{", f"{key} = {{")
    read = policy(tmp_path, on)
    assert list(read.columns) == list(KEYS)
    assert {rule.required for rule in read.columns.values()} == {True}


# --- any file -------------------------------------------------------------------------------------

names = st.sampled_from(
    ["drop", "columns", "pooled", "tier", "required", "by", "undecided", "undecided_supporting",
     "relative_drop", "floor", "ceiling", "decides", "mmlu", "average", "xstest_safe_refused"]
) | st.text(max_size=4)  # fmt: skip
values = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["critical", "advisory", "estimate", "fail", ""])
    | st.text(max_size=4)
)
tables = st.recursive(
    values, lambda inner: st.dictionaries(names, inner, max_size=4) | st.lists(inner, max_size=2)
)


def toml(value: Any) -> str:
    """A value as TOML; None, of which TOML has none, as text."""
    if isinstance(value, dict):
        inner = ", ".join(f"{json.dumps(key)} = {toml(own)}" for key, own in value.items())
        return "{" + inner + "}"
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value) if value is not None else '"none"'


def reads_or_says_why(file: Path) -> None:
    try:
        read = read_policy(file)
    except InputError as error:
        said = str(error)
    else:
        said = ""
    if said:
        assert str(file) in said
        assert "\n" not in said
        return
    rules = [read.rest, *read.columns.values()]
    assert all(0 <= rule.drop <= 1 for rule in rules)
    assert set(read.columns) <= set(known_columns())
    has_a_verdict(read)


def has_a_verdict(read: Policy) -> None:
    """On two runs of which one lacks a column: an exit code, a first line, and JUnit that agree."""
    column = known_columns()["mmlu"]
    fell = PairedDifference(column, 9, 0.5, 0.4, -0.1, 0.02, (-0.14, -0.06), 0.0, 1, 3)
    found = {"mmlu": fell, "bbh": PairedDifference(known_columns()["bbh"], 0, reason="not run")}
    cells = {"mmlu": {"value": 0.4, "ci95": [0.3, 0.5], "stderr": 0.05, "n": 9}}
    columns = judge(found, read, frozenset(found), cells)
    gate = Gate(("a", "b"), columns, policy=read, pooled=judge_pooled(found, read))
    assert gate.exit_code in (0, 1, 3)
    assert markdown(gate).startswith(to_do(gate))
    (suite,) = ElementTree.fromstring(junit(gate))
    failed = int(suite.attrib["failures"]) + int(suite.attrib["errors"]) > 0
    assert failed == (gate.exit_code != 0)


@given(st.dictionaries(names, tables, max_size=5))
def test_a_policy_of_any_shape_is_read_or_refused_in_one_sentence(
    tmp_path_factory: pytest.TempPathFactory, content: dict[str, Any]
) -> None:
    file = tmp_path_factory.getbasetemp() / "shape.toml"
    text = "".join(f"{json.dumps(key)} = {toml(value)}\n" for key, value in content.items())
    file.write_text(text, "utf-8", "replace")
    reads_or_says_why(file)


@given(st.integers(0, 10**6), st.binary(max_size=3), st.integers(0, 4))
def test_a_damaged_policy_is_read_or_refused_in_one_sentence(
    tmp_path_factory: pytest.TempPathFactory, at: int, put: bytes, cut: int
) -> None:
    whole = starter().replace("# ", "").encode()
    at %= len(whole)
    file = tmp_path_factory.getbasetemp() / "damaged.toml"
    file.write_bytes(whole[:at] + put + whole[at + cut :])
    reads_or_says_why(file)
    ready = starter().encode()[:at] + put + starter().encode()[at + cut :]
    file.write_bytes(ready)
    reads_or_says_why(file)


def test_the_fuzz_reaches_files_that_read(tmp_path: Path) -> None:
    """Else it would prove nothing of what is read."""
    assert tomllib.loads(f"a = {toml({'x': [1.5, None, True]})}") == {
        "a": {"x": [1.5, "none", True]}
    }
    reads_or_says_why(tmp_path / "nowhere.toml")
