"""What a policy makes of the same differences: tiers, required columns, floors and ceilings,
estimates, how many may be undecided, and the pooled difference.
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist
from typing import Any
from xml.etree import ElementTree

import pytest

from evals.cards.published import shipped
from evals.compare.gate import Gate, Verdict, check, judge, judge_pooled
from evals.compare.gate_files import as_json, junit
from evals.compare.gate_report import annotations, detectable, explain, headline, markdown
from evals.compare.paired import PairedDifference
from evals.compare.policy import Policy, Rule, read_policy
from evals.stats import Z95, effective_wilson, p_at_least
from tests.unit.conftest import Call, Make, wrong_sums

SHARES = shipped().average.inputs
COLUMNS = {column.key: column for column in shipped().printed}
SURE, UNSURE, CLEARLY = (-0.5, 0.5), (-3.0, 1.0), (-9.0, -4.0)
SAME = (0.0, 0.0)


def difference(key: str, low: float, high: float) -> PairedDifference:
    """A column's gain with this interval, in points, in its own sense of better."""
    column = COLUMNS[key]
    if column.lower_is_better:
        low, high = -high, -low
    middle, error = (low + high) / 200, (high - low) / 200 / Z95
    ends = (low / 100, high / 100)
    return PairedDifference(column, 100, 0.5, 0.5 + middle, middle, error, ends, 0.5, 9, 11)


def gate(policy: Policy, cells: dict[str, Any] | None = None, **ends: tuple[float, float]) -> Gate:
    """A gate over columns by key with these intervals, in points."""
    found = {key: difference(key, *end) for key, end in ends.items()}
    columns = judge(found, policy, frozenset(found), cells)
    return Gate(("old", "new"), columns, policy=policy, pooled=judge_pooled(found, policy))


def tiers(undecided_supporting: int = 0, **tier: str) -> Policy:
    own = {key: Rule(tier=name) for key, name in tier.items()}  # type: ignore[arg-type]
    return Policy(columns=own, undecided_supporting=undecided_supporting)


BY_TIER: dict[str, tuple[Policy, tuple[float, float], Verdict]] = {
    "critical, regressed": (tiers(gsm8k="critical"), CLEARLY, "regressed"),
    "supporting, regressed": (tiers(1, gsm8k="supporting"), CLEARLY, "regressed"),
    "advisory, regressed": (tiers(gsm8k="advisory"), CLEARLY, "pass"),
    "critical, undecided": (tiers(5, gsm8k="critical"), UNSURE, "undecided"),
    "supporting, undecided": (tiers(gsm8k="supporting"), UNSURE, "undecided"),
    "supporting, undecided, one may be": (tiers(1, gsm8k="supporting"), UNSURE, "pass"),
    "advisory, undecided": (tiers(gsm8k="advisory"), UNSURE, "pass"),
}


@pytest.mark.parametrize(("policy", "ends", "verdict"), BY_TIER.values(), ids=BY_TIER)
def test_what_a_column_does_to_the_gate_is_its_tiers(
    policy: Policy, ends: tuple[float, float], verdict: Verdict
) -> None:
    assert gate(policy, gsm8k=ends, mmlu=SURE).verdict == verdict


def test_one_supporting_column_more_than_may_be_undecided_leaves_the_gate_so() -> None:
    policy = tiers(1, gsm8k="supporting", bbh="supporting")
    assert gate(policy, gsm8k=UNSURE, bbh=SURE, mmlu=SURE).verdict == "pass"
    found = gate(policy, gsm8k=UNSURE, bbh=UNSURE, mmlu=SURE)
    assert [column.difference.key for column in found.open_columns()] == ["gsm8k", "bbh"]


def test_advisory_columns_cost_the_others_nothing() -> None:
    """They are not among what Holm's correction counts."""
    barely = {"gsm8k": (-5.0, -1.01)}
    others = {key: SURE for key in COLUMNS if key not in ("gsm8k", "average")}
    assert gate(Policy(), **barely, **others).verdict == "undecided"
    advisory = tiers(**dict.fromkeys(others, "advisory"))
    assert gate(advisory, **barely, **others).verdict == "regressed"


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("undecided", ["pass", "fail"])
def test_not_knowing_fails_where_the_policy_or_the_command_says_so(
    strict: bool, undecided: Any
) -> None:
    found = replace(gate(Policy(undecided=undecided), gsm8k=UNSURE), strict=strict)
    assert found.exit_code == int(strict or undecided == "fail")
    (suite,) = ElementTree.fromstring(junit(found))
    assert (suite.attrib["failures"] != "0") == bool(found.exit_code)


def test_a_required_column_that_is_missing_leaves_no_verdict_though_no_run_ever_had_it() -> None:
    policy = Policy(columns={"truthfulqa": Rule(required=True)})
    found = gate(policy, mmlu=SURE)
    assert (found.verdict, found.exit_code) == ("incomplete", 3)
    assert "TruthfulQA %Info+True: incomplete: in neither run" in markdown(found)
    assert markdown(found).startswith("Run what is missing, then check again")
    assert "a column that the policy requires could not be compared" in headline(found)
    assert gate(Policy(), mmlu=SURE).verdict == "pass"


def test_what_is_required_must_be_there_though_it_decides_nothing_else() -> None:
    """An advisory column; and one whose floor is broken, though not after Holm's correction."""
    rule = Rule(tier="advisory", required=True)
    found = gate(Policy(columns={"truthfulqa": rule}), mmlu=SURE)
    assert (found.verdict, found.exit_code) == ("incomplete", 3)
    assert "(TruthfulQA %Info+True)" in headline(found)
    (suite,) = ElementTree.fromstring(junit(found))
    assert suite.attrib["errors"] == "1"
    assert [line[:8] for line in annotations(found)] == ["::error ", "::error "]


def test_by_estimate_a_column_is_never_undecided_and_takes_no_part_in_holms_correction() -> None:
    policy = Policy(columns={"gsm8k": Rule(by="estimate")})
    assert gate(policy, gsm8k=(-30.0, 28.1), mmlu=SURE).verdict == "pass"  # -0.95
    fallen = gate(policy, gsm8k=(-30.0, 27.9), mmlu=SURE)  # -1.05
    assert (fallen.verdict, fallen.columns[0].drop.p) == ("regressed", None)
    assert fallen.columns[1].drop.p_holm == fallen.columns[1].drop.p


def test_a_relative_drop_is_counted_from_the_baselines_own_value() -> None:
    policy = Policy(columns={"gsm8k": Rule(0.01, relative_drop=0.01)})
    (column,) = gate(policy, gsm8k=(-0.9, -0.55)).columns
    assert (column.drop.limit, column.state) == (pytest.approx(0.005), "regressed")


def test_what_is_no_share_is_held_by_a_relative_drop_alone() -> None:
    column = replace(COLUMNS["gsm8k"], unit="own")
    one = replace(difference("gsm8k", *CLEARLY), column=column)
    states = []
    for rule in (Rule(), Rule(relative_drop=0.02)):
        (found,) = judge({one.key: one}, Policy(rule))
        states.append((found.state, found.drop.limit))
    assert states == [("not compared", 0.0), ("regressed", pytest.approx(0.02 * 0.5))]


# --- floors and ceilings --------------------------------------------------------------------------


def cell(value: float, n: int) -> dict[str, Any]:
    stderr = (value * (1 - value) / n) ** 0.5
    return {"value": value, "n": n, "stderr": stderr, "ci95": effective_wilson(value, stderr, n)}


BOUNDS = {
    "far above a floor": ("gsm8k", 0.6, 0.70, 1000, "pass"),
    "about a floor": ("gsm8k", 0.6, 0.61, 1000, "undecided"),
    "far below a floor": ("gsm8k", 0.6, 0.50, 1000, "regressed"),
    "below a floor, few items": ("gsm8k", 0.6, 0.50, 20, "undecided"),
    "far below a ceiling": ("xstest_safe_refused", 0.2, 0.10, 1000, "pass"),
    "about a ceiling": ("xstest_safe_refused", 0.2, 0.19, 1000, "undecided"),
    "far above a ceiling": ("xstest_safe_refused", 0.2, 0.30, 1000, "regressed"),
    "at the end of the scale": ("gsm8k", 1.0, 0.99, 1000, "regressed"),
}


@pytest.mark.parametrize(("key", "limit", "value", "n", "state"), BOUNDS.values(), ids=BOUNDS)
def test_a_floor_or_a_ceiling_is_held_against_the_interval_of_the_candidates_cell(
    key: str, limit: float, value: float, n: int, state: str
) -> None:
    lower = COLUMNS[key].lower_is_better
    rule = Rule(ceiling=limit) if lower else Rule(floor=limit)
    found = gate(Policy(columns={key: rule}), {key: cell(value, n)}, **{key: SURE})
    (column,) = found.columns
    assert (column.state, column.drop.state) == (state, "pass")
    assert found.verdict == state
    held = column.held[1]
    assert held.p is not None
    assert (held.p < 0.025) == (state == "regressed")
    assert f"{'ceiling' if lower else 'floor'} {limit * 100:.1f}" in explain(column)
    assert as_json(found)["columns"][key]["bounds"][held.what]["state"] == state


@pytest.mark.parametrize(("value", "state"), [(0.61, "pass"), (0.6, "pass"), (0.59, "regressed")])
@pytest.mark.parametrize("key", ["gsm8k", "xstest_safe_refused"])
def test_by_estimate_a_floor_or_a_ceiling_is_held_against_the_value_alone(
    key: str, value: float, state: str
) -> None:
    down = COLUMNS[key].lower_is_better
    rule = Rule(by="estimate", ceiling=0.4) if down else Rule(by="estimate", floor=0.6)
    value = 1 - value if down else value
    (column,) = gate(Policy(columns={key: rule}), {key: cell(value, 9)}, **{key: SURE}).columns
    assert (column.held[1].state, column.held[1].p) == (state, None)
    assert column.is_proven == (state == "regressed")


def test_a_value_without_an_interval_leaves_its_floor_undecided() -> None:
    policy = Policy(columns={"gsm8k": Rule(floor=0.1)})
    (one,) = gate(policy, {"gsm8k": cell(0.9, 99) | {"ci95": None}}, gsm8k=SURE).columns
    assert (one.held[1].state, one.held[1].p) == ("undecided", None)


def test_the_p_of_a_share_is_two_and_a_half_percent_where_its_interval_ends_at_the_limit() -> None:
    for value, n in ((0.62, 200), (0.97, 541), (0.5, 14_042)):
        stderr = (value * (1 - value) / n) ** 0.5
        ends = effective_wilson(value, stderr, n)
        assert p_at_least(ends[1], value, ends) == pytest.approx(0.025)
        binomial = (value - 0.6) / (0.6 * 0.4 / n) ** 0.5
        assert p_at_least(0.6, value, ends) == pytest.approx(NormalDist().cdf(binomial))
    assert [p_at_least(limit, 0.5, (0.3, 0.7)) for limit in (0.0, 1.0)] == [1.0, 0.0]
    # Of nothing but right answers the interval has one end, which is enough.
    assert p_at_least(0.9, 1.0, effective_wilson(1.0, 0.0, 50)) > 0.9
    assert p_at_least(1.0, 1.0, (1.0, 1.0)) == 1.0


def test_a_floor_is_named_as_one_and_no_pooled_difference_stands_for_it() -> None:
    policy = Policy(columns={"gsm8k": Rule(floor=0.6)}, pooled_decides=True, pooled_drop=0.5)
    found = gate(policy, {"gsm8k": cell(0.61, 1000)}, gsm8k=SURE, mmlu=SURE)
    assert found.pooled is not None
    assert (found.pooled.state, found.verdict) == ("pass", "undecided")
    assert headline(found).endswith(
        "whether a column misses its floor or ceiling (GSM8k 8-shot cot)"
    )
    broken = gate(Policy(columns={"gsm8k": Rule(floor=0.6)}), {"gsm8k": cell(0.4, 900)}, gsm8k=SURE)
    assert headline(broken) == "regressed: a column misses its floor or ceiling (GSM8k 8-shot cot)"


def test_a_pass_that_the_pooled_difference_gave_says_what_is_undecided_alone() -> None:
    policy = Policy(pooled_decides=True, pooled_drop=0.5)
    found = gate(policy, gsm8k=UNSURE, mmlu=SURE)
    assert found.verdict == "pass"
    assert headline(found) == (
        "pass: as far as the policy asks, nothing fell by more than is allowed (2 of 2 compared;"
        " alone undecided: GSM8k 8-shot cot)"
    )


def test_not_knowing_that_fails_says_to_hold_it_back() -> None:
    found = gate(Policy(undecided="fail"), gsm8k=UNSURE, mmlu=SURE)
    assert markdown(found).startswith("Hold it back, and ask more items: ")
    assert markdown(gate(Policy(), gsm8k=UNSURE)).startswith("Ask more items before you rely on it")


def test_a_broken_floor_counts_among_what_holm_corrects() -> None:
    policy = Policy(columns={"gsm8k": Rule(floor=0.6)})
    (one,) = gate(policy, {"gsm8k": cell(0.56, 1000)}, gsm8k=SURE).columns
    assert one.held[1].p_holm == pytest.approx(2 * (one.held[1].p or 0))


# --- the pooled difference ------------------------------------------------------------------------

ALL = {key: UNSURE for key in SHARES}


def test_pooled_columns_that_passed_stand_for_critical_ones_that_are_undecided() -> None:
    """Eight times an interval of 4 points: pooled it is 1.6, so that 1.8 are not lost."""
    shown = gate(Policy(pooled_drop=0.019), **ALL)
    assert shown.pooled is not None
    assert (shown.pooled.state, shown.verdict) == ("pass", "undecided")
    decides = Policy(pooled_drop=0.019, pooled_decides=True)
    assert gate(decides, **ALL).verdict == "pass"
    assert gate(decides, **ALL | {"mmlu": CLEARLY}).verdict == "regressed"
    barely = (-5.0, -1.01)
    assert gate(decides, **ALL | {"mmlu": barely}).verdict == "undecided"
    supporting = replace(decides, columns={"bbh": Rule(tier="supporting")})
    assert gate(supporting, **ALL).verdict == "undecided"


def test_pooled_columns_that_fell_fail_the_gate_though_no_column_did() -> None:
    every = dict.fromkeys(SHARES, (-4.5, 0.5))
    decides = Policy(pooled_drop=0.01, pooled_decides=True)
    found = gate(decides, **every)
    assert {column.state for column in found.columns} == {"undecided"}
    assert (found.verdict, found.exit_code) == ("regressed", 1)
    assert found.columns[0].is_proven is False
    assert "regressed: a column fell by more than is allowed (Pooled over 8 columns" in markdown(
        found
    )
    (suite,) = ElementTree.fromstring(junit(found))
    failed = [case for case in suite.iter("testcase") if case.find("failure") is not None]
    assert [case.attrib["name"][:6] for case in failed] == ["Pooled"]
    assert gate(replace(decides, pooled_decides=False), **every).verdict == "undecided"


def test_where_the_pooled_difference_decides_the_columns_have_half_of_the_error() -> None:
    barely = {"gsm8k": (-5.0, -1.01), "bbh": (-0.4, 0.4), "mmlu": (-0.4, 0.4)}
    (alone, *_) = gate(Policy(), **{"gsm8k": barely["gsm8k"]}).columns
    assert alone.is_proven
    halved = gate(Policy(pooled_drop=1.0, pooled_decides=True), **barely)
    assert not halved.columns[0].is_proven
    # p is 2.4 %: twice that, for two columns, is below 5 % and above 2.5.
    two = {key: barely[key] for key in ("gsm8k", "bbh")}
    assert gate(Policy(pooled_drop=1.0), **two).columns[0].is_proven
    assert not gate(Policy(pooled_drop=1.0, pooled_decides=True), **two).columns[0].is_proven


def test_only_critical_columns_are_pooled_and_none_leave_none() -> None:
    policy = Policy(Rule(tier="supporting"), {"mmlu": Rule()})
    found = gate(policy, **ALL)
    assert found.pooled is not None
    assert found.pooled.difference.column.heading.startswith("Pooled over 1 column,")
    assert found.pooled.difference.difference == pytest.approx(-0.01)
    assert gate(Policy(Rule(tier="supporting")), **ALL).pooled is None
    assert gate(Policy(), alpaca_eval_1=SURE).pooled is None


# --- what is said ---------------------------------------------------------------------------------


def test_the_detectable_drop_is_where_the_columns_own_test_has_a_power_of_eighty_percent() -> None:
    """By simulation of the estimate: normal with the standard error, Holm over eleven columns."""
    import numpy as np

    found = gate(Policy(), **{key: UNSURE for key in COLUMNS})
    drop = detectable(found)["GSM8k 8-shot cot"]
    error = found.columns[1].difference.stderr
    assert error is not None
    random, proven = np.random.default_rng(3), 0
    for gain in random.normal(-drop, error, 400) * 100:
        half = Z95 * error * 100
        ends = {key: SURE for key in COLUMNS} | {"gsm8k": (gain - half, gain + half)}
        proven += gate(Policy(), **ends).columns[1].is_proven
    assert 0.74 < proven / 400 < 0.86


def test_columns_that_are_equal_or_not_compared_are_folded_into_a_line_each(
    recorded: Make,
) -> None:
    found = check(recorded("right"), recorded("broken", wrong_sums), Policy())
    text = markdown(found)
    rows = [line.split(" | ")[0][2:] for line in text.splitlines() if line.startswith("| ")]
    assert rows == ["Column", "---", "GSM8k 8-shot cot", "Average"]
    (same,) = [line for line in text.splitlines() if line.startswith("- the same in every answer:")]
    assert same.count(",") == len(found.columns) - 4
    assert "- AlpacaEval 2 LC: not compared:" in text
    (what,) = [line for line in text.splitlines() if line.startswith("- what broke: ")]
    assert what.endswith(" --flips --why")


TO_FIND: dict[str, tuple[Policy, str]] = {
    "without a policy": (Policy(), "1"),
    "the undecided column's own": (Policy(Rule(0.001), {"gsm8k": Rule(0.025)}), "2.5"),
    "a share of the baseline's value": (
        Policy(columns={"gsm8k": Rule(relative_drop=0.005)}),
        "0.25",
    ),
    "the pooled difference's": (Policy(Rule(0.02), pooled_drop=0.005, pooled_decides=True), "0.5"),
    "none may fall, for which nothing can be planned": (Policy(Rule(0.0)), "1"),
}


@pytest.mark.parametrize(("policy", "points"), TO_FIND.values(), ids=TO_FIND)
def test_the_plan_that_is_advised_is_for_the_drop_that_was_undecided(
    policy: Policy, points: str
) -> None:
    found = replace(gate(policy, gsm8k=UNSURE, mmlu=SAME), runs=(Path("a b"), Path("new")))
    assert found.verdict == "undecided"
    (line,) = [one for one in markdown(found).splitlines() if "--plan" in one]
    assert line == f"- which items would tell: evals compare 'a b' new --plan {points}"


def test_a_baseline_measured_twice_does_not_pass_without_a_word(
    recorded: Make, tmp_path: Path
) -> None:
    (note,) = check(recorded("right"), recorded("right"), Policy()).notes
    assert note == "baseline and candidate are one run folder: nothing can differ"
    again = shutil.copytree(recorded("right"), tmp_path / "again")
    (note,) = check(recorded("right"), again, Policy()).notes
    assert note.startswith("one model in both runs")


def test_a_pooled_difference_that_is_to_decide_and_is_not_there_is_said() -> None:
    policy = Policy(Rule(tier="supporting"), pooled_decides=True)
    assert "the pooled difference decides nothing" in markdown(gate(policy, gsm8k=SURE))
    assert "decides nothing" not in markdown(
        gate(replace(policy, pooled_decides=False), gsm8k=SURE)
    )


def test_a_finer_measure_that_surely_fell_says_what_lets_it_decide() -> None:
    beside = (replace(difference("mmlu", -9.0, -1.1), n_worse=9),)
    said = 'it fell by more than is allowed, and decides with measure = "probability"'
    assert said in markdown(replace(gate(Policy(), mmlu=UNSURE), beside=beside))
    assert said not in markdown(replace(gate(Policy(Rule(0.02)), mmlu=UNSURE), beside=beside))


def test_no_plan_is_advised_where_a_floor_alone_is_undecided() -> None:
    floor = Policy(columns={"gsm8k": Rule(floor=0.6)})
    about = {"gsm8k": cell(0.61, 1000)}
    found = replace(gate(floor, about, gsm8k=SURE), runs=(Path("a"), Path("b")))
    assert found.verdict == "undecided"
    assert "--plan" not in markdown(found)
    assert "own interval (GSM8k 8-shot cot): more items narrow it" in markdown(found)
    both = markdown(replace(gate(floor, about, gsm8k=UNSURE), runs=(Path("a"), Path("b"))))
    assert "--plan 1" in both
    assert "more items narrow it" in both
    broken = gate(floor, {"gsm8k": cell(0.5, 20)}, gsm8k=SURE)
    assert "misses its floor" in headline(broken)


def test_the_ids_of_what_changed_are_in_the_files(recorded: Make) -> None:
    found = check(recorded("right"), recorded("broken", wrong_sums), Policy())
    ids = list(next(c for c in found.columns if c.difference.key == "gsm8k").difference.worse)
    assert ids
    assert as_json(found)["columns"]["gsm8k"]["worse"] == tuple(ids)
    (suite,) = ElementTree.fromstring(junit(found))
    said = {case.attrib["name"]: case.findtext("system-out") for case in suite.iter("testcase")}
    assert said["GSM8k 8-shot cot"] == f"worse: {' '.join(ids)}"
    assert said["MMLU 5-shot"] is None
    (case,) = [one for one in suite.iter("testcase") if one.attrib["name"] == "GSM8k 8-shot cot"]
    shown = {one.attrib["name"]: one.attrib["value"] for one in suite.iter("property")}
    assert (shown["gsm8k.tier"], shown["verdict"]) == ("critical", "regressed")
    values = float(shown["gsm8k.baseline"]), float(shown["gsm8k.candidate"])
    assert values == (pytest.approx(1), 0)
    assert float(case.attrib["time"]) <= float(suite.attrib["time"])


# --- the command ----------------------------------------------------------------------------------


def test_init_prints_a_policy_that_reads_with_what_the_baselines_items_can_find(
    evals: Call, recorded: Make, tmp_path: Path
) -> None:
    code, out, err = evals("check", "--init", "--baseline", recorded("right"))
    assert (code, err) == (0, "")
    (tmp_path / "gate.toml").write_text(out)
    assert read_policy(tmp_path / "gate.toml") == Policy()
    assert "# GSM8k 8-shot cot, higher is better: 100.0 on 6 items, which find a drop of" in out
    code, out, _ = evals("check", "--init", "--policy", "release")
    assert code == 0
    assert out.startswith("# A release: ")


def test_without_a_run_or_with_a_policy_of_no_name_it_says_what_is_lacking(
    evals: Call, recorded: Make
) -> None:
    code, _, err = evals("check", "--candidate", recorded("right"))
    assert (code, "Missing option '--baseline'" in err) == (2, True)
    code, _, err = evals("check", "--init", "--policy", "weekly")
    assert (code, "one of the ready ones: nightly, quantised, release" in err) == (2, True)


def test_a_ready_policy_decides_by_its_name(evals: Call, recorded: Make, tmp_path: Path) -> None:
    runs = ("--baseline", recorded("right"), "--candidate", recorded("broken", wrong_sums))
    written = tmp_path / "check.json"
    assert evals("check", *runs, "--policy", "quantised", "--json", written)[0] == 1
    found = json.loads(written.read_text())
    assert found["columns"]["gsm8k"]["tier"] == "critical"
    assert found["columns"]["gsm8k"]["required"] is True
    assert found["pooled_decides"] is True
    assert found["pooled"]["difference"] == pytest.approx(-1 / 3)
