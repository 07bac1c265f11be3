"""The gate: its verdict on every column, on the whole, its exit code, and what it says where it
runs.
"""

import json
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from evals.cards.card import AVERAGE
from evals.compare.gate import ALPHA, Gate, check, judge
from evals.compare.gate_files import junit
from evals.compare.gate_report import annotations, explain, headline, markdown
from evals.compare.paired import PairedDifference
from evals.compare.policy import Policy, Rule
from evals.records import Column
from evals.stats import Z95
from evals.storage.run_folder import RunFolder
from tests.unit.conftest import Call, Make, unfinished_sums, wrong_sums

UP = Column("gsm8k", "GSM8k 8-shot cot")
DOWN = Column("xstest_safe_refused", "XSTest safe but ref.", lower_is_better=True)


def difference(low: float, high: float, column: Column = UP) -> PairedDifference:
    """A difference with this interval, in points."""
    middle, error = (low + high) / 200, (high - low) / 200 / Z95
    return PairedDifference(
        column,
        100,
        0.5,
        0.5 + middle,
        middle,
        error,
        (low / 100, high / 100),
        0.5,
        9,
        11,
        estimator="made up",
    )


def state(one: PairedDifference, drop: float = 1.0) -> str:
    (column,) = judge({one.key: one}, Policy(Rule(drop / 100)))
    return column.state


# --- one column -----------------------------------------------------------------------------------

CASES = {
    "wholly below": (-5.0, -1.001, "regressed"),
    "upper end at the drop": (-5.0, -1.0, "undecided"),
    "on both sides": (-5.0, 2.0, "undecided"),
    "lower end just below": (-1.001, 4.0, "undecided"),
    "lower end at the drop": (-1.0, 4.0, "pass"),
    "a small drop, sure": (-0.9, -0.1, "pass"),
    "better": (1.0, 4.0, "pass"),
}


@pytest.mark.parametrize(("low", "high", "expected"), CASES.values(), ids=CASES)
def test_the_interval_of_the_difference_decides(low: float, high: float, expected: str) -> None:
    assert state(difference(low, high)) == expected


@pytest.mark.parametrize(("low", "high", "expected"), CASES.values(), ids=CASES)
def test_where_lower_is_better_a_rise_is_the_drop(low: float, high: float, expected: str) -> None:
    assert state(difference(-high, -low, DOWN)) == expected


def test_the_allowed_drop_is_the_columns_own() -> None:
    assert [state(difference(-5.0, -2.0), drop) for drop in (0.0, 1.99, 2.01, 5.0)] == [
        "regressed",
        "regressed",
        "undecided",
        "pass",
    ]


def test_a_column_whose_every_answer_is_the_same_passes_however_few_its_items() -> None:
    one = replace(difference(-30.0, 30.0), n_better=0, n_worse=0, difference=0.0)
    assert state(replace(one, n_same=99)) == "undecided"
    assert state(replace(one, n_same=100)) == "pass"


def test_the_same_answers_with_other_verdicts_are_not_the_same() -> None:
    assert state(replace(difference(-30.0, 10.0), n_same=100)) == "undecided"


# --- the whole ------------------------------------------------------------------------------------


def gate(*ends: tuple[float, float], strict: bool = False) -> Gate:
    """A gate over as many columns as there are intervals, in points."""
    columns = [Column(f"column_{number}", f"Column {number}") for number in range(len(ends))]
    found = {
        column.key: difference(*end, column) for column, end in zip(columns, ends, strict=True)
    }
    return Gate(("old", "new"), judge(found, Policy()), strict=strict)


SURE, UNSURE, BARELY, CLEARLY = (-0.5, 0.5), (-3.0, 1.0), (-5.0, -1.01), (-9.0, -4.0)


def test_the_gate_passes_when_every_column_does() -> None:
    assert (gate(SURE, SURE).verdict, gate(SURE, SURE).exit_code) == ("pass", 0)


def test_one_undecided_column_leaves_the_gate_undecided_which_only_strict_fails() -> None:
    assert (gate(SURE, UNSURE).verdict, gate(SURE, UNSURE).exit_code) == ("undecided", 0)
    assert gate(SURE, UNSURE, strict=True).exit_code == 1


def test_one_clear_regression_fails_the_gate_whatever_the_rest_says() -> None:
    assert (gate(*[SURE] * 10, CLEARLY).verdict, gate(*[SURE] * 10, CLEARLY).exit_code) == (
        "regressed",
        1,
    )


def test_one_column_that_regressed_barely_fails_alone_but_not_among_eleven() -> None:
    assert gate(BARELY).verdict == "regressed"
    among = gate(*[SURE] * 10, BARELY)
    assert among.columns[-1].state == "regressed"
    assert (among.verdict, among.exit_code) == ("undecided", 0)
    assert "Holm" in explain(among.columns[-1])


def test_what_is_proven_is_what_holms_step_down_procedure_rejects() -> None:
    found = gate(CLEARLY, (-6.0, -1.8), (-5.0, -1.3), BARELY, UNSURE, SURE)
    rejected, ranked = set(), sorted(found.columns, key=lambda column: column.drop.p or 0)
    for rank, column in enumerate(ranked):
        if column.drop.p is None or column.drop.p > ALPHA / (len(ranked) - rank):
            break
        rejected.add(column.difference.key)
    assert {column.difference.key for column in found.columns if column.is_proven} == rejected
    assert 0 < len(rejected) < 4


def test_a_column_at_the_edge_of_its_interval_has_one_sided_p_of_two_and_a_half_percent() -> None:
    (column,) = gate((-5.0, -1.0)).columns
    assert column.drop.p == pytest.approx(0.025, abs=1e-12)


def missing(column: Column = UP) -> PairedDifference:
    return PairedDifference(column, 0, reason="candidate: 3 of 6 items answered")


def test_a_cell_only_the_baseline_has_is_incomplete_and_one_it_lacks_is_not_compared() -> None:
    differences = {UP.key: missing(), DOWN.key: difference(-0.5, 0.5, DOWN)}
    incomplete = Gate(("a", "b"), judge(differences, Policy(), frozenset({UP.key, DOWN.key})))
    assert (incomplete.columns[0].state, incomplete.verdict, incomplete.exit_code) == (
        "incomplete",
        "incomplete",
        3,
    )
    assert "3 of 6 items answered" in markdown(incomplete)
    lacking = Gate(("a", "b"), judge(differences, Policy(), frozenset({DOWN.key})))
    assert (lacking.columns[0].state, lacking.verdict, lacking.exit_code) == (
        "not compared",
        "pass",
        0,
    )
    assert "3 of 6 items answered" in markdown(lacking)
    assert headline(lacking) == "pass: no column fell by more than is allowed (1 of 2 compared)"


def test_a_regression_is_said_even_where_another_column_is_incomplete() -> None:
    differences = {UP.key: missing(), DOWN.key: difference(4.0, 9.0, DOWN)}
    assert (
        Gate(("a", "b"), judge(differences, Policy(), frozenset({UP.key}))).verdict == "regressed"
    )


# --- what is said ---------------------------------------------------------------------------------

VERDICTS = {
    "pass": gate(SURE),
    "undecided": gate(SURE, UNSURE),
    "strict": gate(SURE, UNSURE, strict=True),
    "regressed": gate(SURE, CLEARLY),
    "regressed by chance": gate(*[SURE] * 10, BARELY),
    "incomplete": Gate(("a", "b"), judge({UP.key: missing()}, Policy(), frozenset({UP.key}))),
    "not compared": Gate(
        ("a", "b"), judge({UP.key: missing(), DOWN.key: difference(*SURE, DOWN)}, Policy())
    ),
    "incomparable": Gate(("a", "b"), (), reason="suite differs: card against smoke"),
}


@pytest.mark.parametrize("found", VERDICTS.values(), ids=VERDICTS)
def test_junit_has_a_failure_or_an_error_exactly_when_the_exit_code_is_not_zero(
    found: Gate,
) -> None:
    (suite,) = ElementTree.fromstring(junit(found))
    cases = list(suite.iter("testcase"))
    tags = [child.tag for case in cases for child in case]
    assert ({"failure", "error"} & set(tags) != set()) == (found.exit_code != 0)
    counts = {name: int(suite.attrib[name]) for name in ("tests", "failures", "errors", "skipped")}
    wanted = {
        "tests": len(cases),
        "failures": tags.count("failure"),
        "errors": tags.count("error"),
        "skipped": tags.count("skipped"),
    }
    assert counts == wanted


@pytest.mark.parametrize("found", VERDICTS.values(), ids=VERDICTS)
def test_the_first_annotation_is_an_error_exactly_when_the_exit_code_is_not_zero(
    found: Gate,
) -> None:
    first, *_ = annotations(found)
    assert first.startswith("::error ") == (found.exit_code != 0)
    assert first.endswith(headline(found).replace("%", "%25"))


def test_annotations_are_escaped_as_workflow_commands_want_it() -> None:
    column = Column("c", "50%: a, b\nc")
    one = PairedDifference(column, 0, reason="10% of\r\n::error::it, gone: all")
    _, line = annotations(Gate(("a", "b"), judge({"c": one}, Policy(), frozenset({"c"}))))
    assert (
        line == "::error title=evals check%2C 50%25%3A a%2C b%0Ac::incomplete: 10%25"
        " of%0D%0A::error::it, gone: all"
    )


def test_the_table_shows_points_the_direction_and_the_verdict() -> None:
    table = markdown(
        Gate(("old", "new"), judge({DOWN.key: difference(4.0, 9.0, DOWN)}, Policy(Rule(0.02))))
    )
    assert (
        "| XSTest safe but ref. (lower is better) | 50.0 | 56.5 | +6.50 [+4.00, +9.00] | 2.00 |"
        " regressed |" in table
    )
    assert table.startswith(
        "Hold it back: **new** against **old**: regressed: a column fell by more than is allowed"
        " (XSTest safe but ref.)\n"
    )


# --- runs on disk ---------------------------------------------------------------------------------


def test_a_run_against_itself_passes_strictly_in_every_column_it_has(recorded: Make) -> None:
    found = check(recorded("right"), recorded("right"), Policy(), strict=True)
    assert (found.verdict, found.exit_code) == ("pass", 0)
    assert {column.state for column in found.columns} == {"pass", "not compared"}
    assert [
        column.difference.key for column in found.columns if column.state == "not compared"
    ] == ["alpaca_eval_2_lc"]
    assert found.columns[-1].difference.column == AVERAGE
    assert found.columns[-1].same


def test_a_column_that_broke_fails_the_gate_and_the_others_stand(recorded: Make) -> None:
    found = check(recorded("right"), recorded("broken", wrong_sums), Policy())
    assert (found.verdict, found.exit_code) == ("regressed", 1)
    assert [column.difference.key for column in found.columns if column.is_proven] == ["gsm8k"]


def test_a_run_that_got_better_does_not_fail(recorded: Make) -> None:
    found = check(recorded("broken", wrong_sums), recorded("right"), Policy())
    assert found.exit_code == 0
    assert {column.difference.key: column.state for column in found.columns}["gsm8k"] == "pass"


def test_an_unfinished_candidate_is_incomplete_and_an_unfinished_baseline_is_not_its_fault(
    recorded: Make,
) -> None:
    part = recorded("part", unfinished_sums)
    found = check(recorded("right"), part, Policy())
    assert (found.verdict, found.exit_code) == ("incomplete", 3)
    assert [column.difference.key for column in found.columns if column.state == "incomplete"] == [
        "gsm8k",
        "average",
    ]
    assert check(part, recorded("right"), Policy()).exit_code == 0


def test_another_suite_or_limit_is_incomparable(recorded: Make) -> None:
    found = check(recorded("right"), recorded("limited", limit=2), Policy())
    assert (found.verdict, found.exit_code, found.columns) == ("incomparable", 3, ())
    assert found.reason is not None
    assert "limit" in found.reason


def test_a_candidate_without_any_column_is_incomplete_and_runs_without_any_value_are_incomparable(
    recorded: Make,
) -> None:
    ifeval = recorded("ifeval", lambda row: row if row["id"].startswith("ifeval/") else None)
    sums = recorded("sums", lambda row: row if row["id"].startswith("gsm8k/") else None)
    assert check(ifeval, sums, Policy()).verdict == "incomplete"
    part = recorded(
        "part of the sums",
        lambda row: unfinished_sums(row) if row["id"].startswith("gsm8k/") else None,
    )
    nothing = check(part, part, Policy())
    assert (nothing.verdict, nothing.exit_code, nothing.reason) == (
        "incomparable",
        3,
        "no column has a value in both runs",
    )


def test_a_limited_runs_cells_are_marked_as_no_full_columns(recorded: Make) -> None:
    cells = RunFolder(recorded("limited", limit=2)).read_json("summary.json")["cells"]
    valued = [cell for cell in cells.values() if cell["value"] is not None]
    assert valued
    assert all(
        "a limited run, 2 items of each benchmark at most: not the full column" in cell["marks"]
        for cell in valued
    )


# --- the command ----------------------------------------------------------------------------------


def test_the_command_prints_the_table_and_exits_by_the_verdict(
    evals: Call, recorded: Make, tmp_path: Path
) -> None:
    code, out, err = evals(
        "check", "--baseline", recorded("right"), "--candidate", recorded("right"), "--strict"
    )
    assert (code, err) == (0, "")
    assert out == markdown(check(recorded("right"), recorded("right"), Policy(), strict=True))
    code, out, err = evals(
        "check", "--baseline", recorded("right"), "--candidate", recorded("broken", wrong_sums)
    )
    assert code == 1
    assert err == "evals: regressed: a column fell by more than is allowed (GSM8k 8-shot cot)\n"
    code, _, err = evals(
        "check", "--baseline", recorded("right"), "--candidate", recorded("part", unfinished_sums)
    )
    assert code == 3
    assert err.startswith("evals: incomplete: ")


def test_undecided_is_a_warning_and_under_strict_a_failure(evals: Call, recorded: Make) -> None:
    one_wrong = recorded(
        "one wrong", lambda row: wrong_sums(row) if not unfinished_sums(row) else row
    )
    code, _, err = evals("check", "--baseline", recorded("right"), "--candidate", one_wrong)
    assert code == 0
    assert re.fullmatch(r"warning: undecided: .*\(GSM8k 8-shot cot, Average\)\n", err)
    assert (
        evals("check", "--baseline", recorded("right"), "--candidate", one_wrong, "--strict")[0]
        == 1
    )


def test_a_policy_that_allows_the_drop_lets_it_pass(
    evals: Call, recorded: Make, tmp_path: Path
) -> None:
    (tmp_path / "gate.toml").write_text("[columns]\ngsm8k = 100\naverage = 100\n")
    runs = ("--baseline", recorded("right"), "--candidate", recorded("broken", wrong_sums))
    assert evals("check", *runs, "--policy", tmp_path / "gate.toml", "--strict")[0] == 0


def test_files_are_written_whatever_the_verdict(
    evals: Call, recorded: Make, tmp_path: Path
) -> None:
    files = ("--junit", tmp_path / "new" / "junit.xml", "--json", tmp_path / "check.json")
    assert (
        evals(
            "check",
            "--baseline",
            recorded("right"),
            "--candidate",
            recorded("broken", wrong_sums),
            *files,
        )[0]
        == 1
    )
    (suite,) = ElementTree.parse(tmp_path / "new" / "junit.xml").getroot()
    assert [
        case.attrib["name"] for case in suite.iter("testcase") if case.find("failure") is not None
    ] == ["GSM8k 8-shot cot"]
    written = json.loads((tmp_path / "check.json").read_text())
    assert (written["schema"], written["verdict"], written["exit_code"]) == (1, "regressed", 1)
    found = written["columns"]["gsm8k"]
    assert (
        found["verdict"],
        found["proven"],
        found["baseline"],
        found["candidate"],
        found["allowed_drop"],
    ) == ("regressed", True, 1, 0, 0.01)


def test_on_github_it_annotates_and_adds_its_table_to_the_step_summary(
    evals: Call, recorded: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    code, out, err = evals(
        "check", "--baseline", recorded("right"), "--candidate", recorded("broken", wrong_sums)
    )
    assert code == 1
    assert summary.read_text() == "before\n" + out
    assert [
        line.partition("::")[2].partition(" ")[0]
        for line in err.splitlines()
        if line.startswith("::")
    ] == ["error", "error"]


def test_what_cannot_be_read_or_written_is_one_sentence(
    evals: Call, recorded: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = recorded("right")
    code, _, err = evals("check", "--baseline", tmp_path / "nowhere", "--candidate", right)
    assert (code, "is not a finished run" in err) == (2, True)
    (tmp_path / "gate.toml").write_text("[columns]\nmlu = 1")
    code, _, err = evals(
        "check", "--baseline", right, "--candidate", right, "--policy", tmp_path / "gate.toml"
    )
    assert (code, "Did you mean mmlu?" in err) == (2, True)
    code, _, err = evals("check", "--baseline", right, "--candidate", right, "--junit", tmp_path)
    assert (code, "could not be written" in err) == (4, True)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path))
    code, _, err = evals("check", "--baseline", right, "--candidate", right)
    assert (code, "The step summary" in err) == (4, True)
