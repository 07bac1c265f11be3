"""Nominal 95 % intervals cover 93 to 97 of 100 simulated runs, for every column of the card and
every paired comparison.

The settings are those of scripts/coverage, with fewer runs: a bound is missed only by more than the
simulation's own error explains.
"""

import math

import pytest

from tests.coverage_simulation import Setting, cells, comparisons, simulate

N_RUNS = {
    "bootstrap": 60,
    "stratified": 200,
    "macro over strata": 400,
    "clustered": 300,
    "cells independent": 100,
}
N_RUNS |= {"paired macro": 200, "paired pass@10": 150, "paired, cells independent": 100}
SETTINGS = [
    one
    for one in (*cells(), *comparisons())
    if not ("paired" in one.estimator and "n=14,042" in one.cell)
    # A fit for each of a run's draws: one rate of the two that scripts/coverage has.
    and not (one.estimator == "bootstrap" and "36.6%" in one.cell)
    # Half a second for each simulated run: tests/unit/runs/test_draws.py holds their error to its
    # formula.
    and not one.estimator.endswith("bootstrap, draws")
]


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda one: f"{one.estimator}: {one.cell}")
def test_a_nominal_interval_covers_as_often_as_it_says(setting: Setting) -> None:
    n = 200 if "n=14,042" in setting.cell else N_RUNS.get(setting.estimator, 1500)
    found = simulate(setting, n)
    slack = 3 * math.sqrt(0.05 * 0.95 / n)
    # Counts of two or three items: no interval keeps its level exactly. Of a few items' draws
    # nobody knows how alike an item's are: it takes them for more alike.
    is_wide = setting.estimator in ("paired 0/1, few changes", "mean of draws")
    assert 0.93 - slack <= found.covered <= (1.0 if is_wide else 0.97 + slack)
    assert found.false_alarms is None or found.false_alarms <= 0.05 + slack
