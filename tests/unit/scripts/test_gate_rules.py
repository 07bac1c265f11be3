"""The simulation of the gate's rules, in little and with a fixed seed: its intervals are the
program's, its recorded pairs fall by what they are to, and no rule raises more alarms than it may.
"""

from pathlib import Path

import numpy as np
import pytest

from evals.compare.gate import judge_pooled
from evals.compare.paired import Pairs, paired_difference
from evals.compare.policy import Policy
from evals.records import Column, ItemId
from scripts.proof import gate_rules
from scripts.proof.gate_power import COLUMNS, SIZES, Simulation

ALARMS = 100 * (0.05 + 3 * (0.05 * 0.95 / 150) ** 0.5)


def test_its_interval_of_the_finer_measure_is_the_programs() -> None:
    random = np.random.default_rng(1)
    ((first, second),) = gate_rules.margins(1, 500, 0.9, 0.02, random)
    change = second - first
    change /= np.abs(change).max()
    ids = tuple(ItemId(str(i)) for i in range(500))
    ends = tuple(change.tolist())
    pairs = Pairs(Column("c", "C"), ids, (0.0,) * 500, ends, ("",) * 500)
    assert gate_rules._interval(change) == pytest.approx(paired_difference(pairs, 0).ci95)


def test_the_margins_have_the_accuracy_that_is_meant_and_fall_by_what_is_meant() -> None:
    random = np.random.default_rng(2)
    ((first, second),) = gate_rules.margins(1, 400_000, 0.98, 0.02, random)
    assert np.mean(first > 0) == pytest.approx(0.62, abs=0.003)
    assert np.mean(first > 0) - np.mean(second > 0) == pytest.approx(0.02, abs=0.002)


def test_no_rule_alarms_more_than_it_may_where_nothing_fell_but_the_one_by_estimates() -> None:
    found = Simulation(150, 3).comparisons(gate_rules.all_fall(list(SIZES), 0.0))
    alarms = {name: gate_rules.regressed(found, rule) for name, rule in gate_rules._rules().items()}
    by_estimate = alarms.pop("NeMo Evaluator 0.3, by estimate")
    assert max(alarms.values()) <= ALARMS, alarms
    assert by_estimate > 50
    pooled = [judge_pooled(one, Policy()) for one in found]
    ends = [one.difference.ci95 or (0, 0) for one in pooled if one is not None]
    assert 0.9 < np.mean([low <= 0 <= high for low, high in ends]) < 0.99


def test_a_loss_that_no_column_shows_alone_the_pooled_rule_finds_more_often() -> None:
    """Two points in every column but MMLU, of a copy of which few items change."""
    simulation = Simulation(60, 4, 0.25)
    found = simulation.comparisons(gate_rules.but_mmlu(list(SIZES), 0.02))
    rules = gate_rules._rules()
    before = gate_rules.regressed(found, rules["columns, drop 1.0 (before)"])
    assert gate_rules.regressed(found, rules["columns 1.0 and pooled 0.5"]) > before + 20


def test_recorded_pairs_fall_by_what_they_are_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = {
        "gsm8k": (np.array([400]), np.array([100]), "a and b"),
        "xstest_safe_refused": (np.array([100, 150]), np.array([40, 10]), "c and d"),
    }
    monkeypatch.setattr(gate_rules, "recorded_counts", lambda folder: counts.items())
    pairs = gate_rules.Recorded(Path(), 400, 5)
    found = pairs.comparisons({"gsm8k": 0.03, "xstest_safe_refused": 0.03})
    for key, sign in (("gsm8k", -1), ("xstest_safe_refused", 1)):
        mean = np.mean([one[key].difference for one in found])
        assert mean == pytest.approx(sign * 0.03, abs=0.004), key
    assert COLUMNS["xstest_safe_refused"].lower_is_better


def test_of_several_models_the_two_that_agree_most_are_a_pair_and_two_judges_are_not() -> None:
    def scores(n_wrong: int) -> dict[str, float]:
        return {f"xstest/{i}": float(i >= n_wrong) for i in range(120)}

    by_model = {"a, x": scores(0), "a, y": scores(1), "b, x": scores(5), "c, x": scores(50)}
    found = gate_rules._closest(by_model)
    assert found is not None
    assert found[2] == "a, x and b, x: 5 of 120 differ"
    assert gate_rules._closest({"a": scores(0), "b": scores(0)}) is None
