"""How often a nominal 95 % interval covers the truth, by simulating runs of card size; also the
program behind scripts/coverage.

Strata are fixed and items drawn within them; a problem's chance to be solved, a subject's level and
an instruction's difficulty are drawn once, so that the truth is known. Seeded: the same table every
time.
"""

import argparse
import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.special import betaln, expit

from evals.cards.average import average, average_metric
from evals.cards.published import shipped
from evals.compare.paired import (
    PairedDifference,
    Pairs,
    average_difference,
    bootstrapped_difference,
    paired_difference,
)
from evals.records import Column, Grade, ItemId, Metric
from evals.stats import (
    clustered_mean,
    effective_wilson,
    mean,
    pass_at_k,
    proportion,
    stratified,
    wilson_of_draws,
)
from tasks import length_control, xstest

Rng = np.random.Generator
Interval = tuple[float, float]
COLUMN = Column("any", "Any")
PASS_AT_10 = np.array([pass_at_k(20, c, 10) for c in range(21)])
BBH_SIZES = np.full(27, 40)
MMLU_SIZES = np.array([100] * 20 + [145] * 14 + [234] * 12 + [340] * 8 + [783, 895, 1128])
"""57 subjects whose sizes are spread as MMLU's are."""
SHARES = {
    "mmlu": 0.62,
    "gsm8k": 0.665,
    "bbh": 0.606,
    "humaneval": 0.691,
    "truthfulqa": 0.703,
    "ifeval": 0.523,
}
SHARES |= {"xstest_safe_refused": 0.084, "xstest_unsafe_followed": 0.155}
SIZES = {
    "gsm8k": 200,
    "truthfulqa": 817,
    "ifeval": 541,
    "xstest_safe_refused": 250,
    "xstest_unsafe_followed": 200,
}
"""The card's row "Tulu 2 Llama 3.1 8b DPO"."""
HIGH = {
    "mmlu": 0.814,
    "gsm8k": 0.96,
    "bbh": 0.831,
    "humaneval": 0.945,
    "truthfulqa": 0.69,
    "ifeval": 0.871,
}
HIGH |= {"xstest_safe_refused": 0.056, "xstest_unsafe_followed": 0.115}
"""The card's row "Llama 3.1 70b instruct"."""


@dataclass(frozen=True)
class Setting:
    """draw: one simulated run or comparison -> its interval and p-value (None where it has none),
    whose truth is `truth`.
    """

    estimator: str
    cell: str
    truth: float
    draw: Callable[[Rng], tuple[Interval, float | None]]
    n_runs: int = 4000


@dataclass(frozen=True)
class Found:
    """Shares of the runs: those whose interval covers, and (paired, no true difference) those with
    p < 0.05.
    """

    covered: float
    error: float
    false_alarms: float | None


def simulate(setting: Setting, n_runs: int | None = None) -> Found:
    """The setting's runs from a seed of its own; error: the simulation's own standard error."""
    rng = np.random.default_rng(zlib.crc32(f"{setting.estimator} {setting.cell}".encode()))
    n = n_runs or setting.n_runs
    draws = [setting.draw(rng) for _ in range(n)]
    covered = sum(low <= setting.truth <= high for (low, high), _ in draws) / n
    ps = [p for _, p in draws if p is not None]
    alarms = sum(p < 0.05 for p in ps) / n if ps and setting.truth == 0 else None
    return Found(covered, math.sqrt(covered * (1 - covered) / n), alarms)


# --- cells ----------------------------------------------------------------------------------------


def cells() -> Iterator[Setting]:
    """Every estimator over the range of cells the card has."""
    shares = {
        ("GSM8K", 200): (0.57, 0.885, 0.96),
        ("XSTest safe", 250): (0.056, 0.172),
        ("XSTest unsafe", 200): (0.055, 0.44),
    }
    shares |= {("TruthfulQA", 817): (0.311, 0.783), ("IFEval", 541): (0.109, 0.523, 0.871)}
    for (name, n), truths in shares.items():
        for p in truths:
            yield Setting("Wilson", f"{name}, n={n}, {p:.1%}", p, partial(_share, n, p), 10_000)
    for value in (0.616, 0.691, 0.89, 0.945):
        yield Setting(
            "mean (pass@10)",
            f"HumanEval, 164 x 20, {value:.1%}",
            value,
            partial(_pass_at_10, _skill(value)),
        )
    for value in (0.806, 0.968):
        yield Setting(
            "mean (preferences)",
            f"AlpacaEval 1, n=805, {value:.1%}",
            value,
            partial(_preferences, value),
        )
    for value in (0.592, 0.831):
        levels = _levels(value, np.full(27, 1 / 27))
        yield Setting(
            "macro over strata",
            f"BBH, 27 x 40, {value:.1%}",
            value,
            partial(_strata, levels, BBH_SIZES, True),
            2000,
        )
    for value in (0.614, 0.814):
        levels = _levels(value, MMLU_SIZES / MMLU_SIZES.sum())
        yield Setting(
            "stratified",
            f"MMLU, 57 subjects, n=14,042, {value:.1%}",
            value,
            partial(_strata, levels, MMLU_SIZES, False),
            2000,
        )
    for value in (0.2, 0.9):
        yield Setting(
            "clustered",
            f"IFEval instructions, 541 prompts, {value:.0%}",
            value,
            partial(_instructions, value),
            2000,
        )
    for value in (0.005, 0.02, 0.2, 0.99):
        for alike in (0.1, 1.0, 10.0):
            yield Setting(
                "mean of draws",
                f"n=200, 16 answers to each, alike {alike:g}, {value:.1%}",
                value,
                partial(_drawn, value, alike),
            )
    for level in (-1.9, -0.6):
        judge = Judge(level)
        yield Setting(
            "bootstrap",
            f"AlpacaEval 2 LC, n=805, {judge.truth:.1%}",
            judge.truth,
            partial(_length_controlled, judge),
            300,
        )
    for draws in (1, 4):
        yield Setting(
            "bootstrap, draws",
            f"XSTest F1, n=450, {draws} answers to each",
            F1_TRUTH,
            partial(_f1, draws),
            300,
        )
    for row in (SHARES, HIGH):
        truth = average(shipped().average, dict(row))
        assert truth is not None
        yield Setting(
            "cells independent",
            f"Average of a row, {truth:.1%}",
            truth,
            partial(_average, row),
            2000,
        )


def _interval(metric: Metric) -> tuple[Interval, None]:
    assert metric.ci95 is not None
    return metric.ci95, None


@cache
def _proportion(k: int, n: int) -> Metric:
    return proportion([1.0] * k + [0.0] * (n - k), n)


def _share(n: int, p: float, rng: Rng) -> tuple[Interval, None]:
    return _interval(_proportion(int(rng.binomial(n, p)), n))


@cache
def _skill(value: float, a: float = 0.5) -> tuple[float, float]:
    """The Beta distribution of a problem's chance to be solved by one sample, for which pass@10 is
    `value`.
    """
    return a, math.exp(
        brentq(
            lambda log_b: (
                1 - math.exp(betaln(a, math.exp(log_b) + 10) - betaln(a, math.exp(log_b))) - value
            ),
            -12,
            8,
        )
    )


def _solved(skill: tuple[float, float], rng: Rng) -> Metric:
    return mean(PASS_AT_10[rng.binomial(20, rng.beta(*skill, 164))].tolist(), 164)


def _pass_at_10(skill: tuple[float, float], rng: Rng) -> tuple[Interval, None]:
    return _interval(_solved(skill, rng))


def _preferences(value: float, rng: Rng) -> tuple[Interval, None]:
    """Wins, losses, and draws in two of a hundred."""
    return _interval(
        mean(rng.choice([0.0, 0.5, 1.0], 805, p=[0.99 - value, 0.02, value - 0.01]).tolist(), 805)
    )


def _drawn(value: float, alike: float, rng: Rng) -> tuple[Interval, None]:
    """Sixteen answers to each of 200 items; alike: an item's chances are Beta(value / alike, ...),
    so that with little an item's answers agree hardly more than those of two.
    """
    levels = rng.beta(value / alike, (1 - value) / alike, 200)
    found = mean((rng.binomial(16, levels) / 16).tolist(), 200)
    assert found.value is not None
    assert found.stderr is not None
    return wilson_of_draws(found.value, found.stderr, 200), None


@cache
def _levels_of(value: float, weights: tuple[float, ...]) -> tuple[float, ...]:
    spread = np.random.default_rng(7).normal(0, 1, len(weights))
    shift = brentq(lambda s: float(np.dot(weights, expit(spread + s))) - value, -8, 8)
    return tuple(expit(spread + shift).tolist())


def _levels(value: float, weights: Any) -> Any:
    """Levels of strata, spread as subjects and tasks are, whose weighted mean is `value`."""
    return np.array(_levels_of(value, tuple(weights.tolist())))


def _stratified(levels: Any, sizes: Any, macro: bool, rng: Rng) -> Metric:
    solved = rng.binomial(sizes, levels)
    scores = {
        str(s): [1.0] * k + [0.0] * (n - k)
        for s, (k, n) in enumerate(zip(solved.tolist(), sizes.tolist(), strict=True))
    }
    return stratified(scores, int(sizes.sum()), macro=macro)


def _strata(levels: Any, sizes: Any, macro: bool, rng: Rng) -> tuple[Interval, None]:
    return _interval(_stratified(levels, sizes, macro, rng))


def _instructions(value: float, rng: Rng) -> tuple[Interval, None]:
    """One to three instructions a prompt (834 in 541 on average), that succeed together."""
    sizes = rng.choice([1, 2, 3], 541, p=[0.56, 0.34, 0.10])
    levels = rng.beta(2 * value, 2 * (1 - value), 541)
    hits = [
        (rng.random(size) < level).astype(float).tolist()
        for size, level in zip(sizes, levels, strict=True)
    ]
    return _interval(clustered_mean(hits, 541))


class Judge:
    """A judge whose preferences follow the model that length control fits. level: how good the
    evaluated model is, in logits.
    """

    def __init__(self, level: float) -> None:
        rng = np.random.default_rng(11)
        self.level, self.n, self.difficulty = level, 805, rng.normal(0, 1, 805)
        self.truth = float(np.mean(expit(0.6 * self.difficulty + level)))
        self.gamed = []
        for longer in (-0.5, 0.5):
            gap = -longer + rng.normal(0, 1, self.n)
            chance = expit(0.9 * np.tanh(-gap) + 0.6 * self.difficulty)
            rows = zip(
                range(self.n), chance.tolist(), gap.tolist(), self.difficulty.tolist(), strict=True
            )
            names = ("index", "preference", "std_delta_len", "instruction_difficulty")
            self.gamed += [
                dict(zip(names, row, strict=True)) | {"not_gamed_baseline": "False"} for row in rows
            ]

    def judged(self, rng: Rng) -> list[length_control.Judged]:
        """As many instructions, drawn with replacement, answered and judged."""
        rows = rng.integers(0, self.n, self.n)
        gap = rng.normal(-0.3, 1, self.n)
        chance = expit(0.9 * np.tanh(-gap) + 0.6 * self.difficulty[rows] + self.level)
        preferences = (rng.random(self.n) < chance).astype(float)
        rounded = (1000 + 600 * gap).round().astype(int)
        triples = zip(rows.tolist(), rounded.tolist(), preferences.tolist(), strict=True)
        return [
            length_control.Judged(row, chars, 1000, preference)
            for row, chars, preference in triples
        ]


def _length_controlled(judge: Judge, rng: Rng) -> tuple[Interval, None]:
    """Around the mean of the replicates, since one fit by the package takes as long as
    all of them.
    """
    values = length_control.replicates(judge.judged(rng), judge.gamed, 100)
    stderr = float(np.std(values, ddof=1))
    return _interval(length_control.metric_of(float(np.mean(values)), stderr, judge.n))


REFUSED = {True: (0.2, 1.8), False: (3.4, 0.6)}
"""Of a safe and of an unsafe prompt, the Beta distribution of the chance that it is refused."""
_LABELS = ("1_full_compliance", "2_full_refusal")
F1_TRUTH = xstest.f1(200 * 0.85, 250 * 0.1, 200)


def _f1_draws(chances: dict[bool, Any], draws: int, rng: Rng) -> tuple[float, list[float]]:
    """F1 of so many answers to each prompt, the mean of the draws', and its replicates."""
    values, replicates = [], []
    for _ in range(draws):
        refused = {safe: rng.random(len(own)) < own for safe, own in chances.items()}
        grades = [
            Grade(
                ItemId(f"xstest/{safe:d}{at:03}"),
                "",
                {},
                _LABELS[bool(one)],
                details={"safe": safe},
            )
            for safe, own in refused.items()
            for at, one in enumerate(own)
        ]
        values.append(xstest.f1(int(refused[False].sum()), int(refused[True].sum()), 200))
        replicates.append(xstest.XSTest(chat=True).replicates(grades)[xstest.F1])
    return float(np.mean(values)), np.mean(replicates, axis=0).tolist()


def _prompts(rng: Rng) -> dict[bool, Any]:
    return {safe: rng.beta(*REFUSED[safe], n) for safe, n in ((True, 250), (False, 200))}


def _f1(draws: int, rng: Rng) -> tuple[Interval, None]:
    value, replicates = _f1_draws(_prompts(rng), draws, rng)
    return effective_wilson(value, float(np.std(replicates, ddof=1)), 450), None


def _f1_pair(draws: int, rng: Rng) -> tuple[Interval, float | None]:
    """One model, asked twice."""
    prompts = _prompts(rng)
    (before, first), (after, second) = (_f1_draws(prompts, draws, rng) for _ in range(2))
    # The items' own scores only size the two pairs that are added: as many as change here.
    same = [0.0] * 450
    return _difference(
        bootstrapped_difference(_pairs(same, same), (before, after), [first, second])
    )


def _row(row: dict[str, float], rng: Rng) -> dict[str, Metric]:
    found = {key: _proportion(int(rng.binomial(n, row[key])), n) for key, n in SIZES.items()}
    found["humaneval"] = _solved(_skill(row["humaneval"]), rng)
    found["bbh"] = _stratified(_levels(row["bbh"], np.full(27, 1 / 27)), BBH_SIZES, True, rng)
    found["mmlu"] = _stratified(
        _levels(row["mmlu"], MMLU_SIZES / MMLU_SIZES.sum()), MMLU_SIZES, False, rng
    )
    return found


def _average(row: dict[str, float], rng: Rng) -> tuple[Interval, None]:
    return _interval(average_metric(shipped().average, _row(row, rng)))


# --- paired differences ---------------------------------------------------------------------------


def comparisons() -> Iterator[Setting]:
    """Paired differences: equal models and a two-point drop, over columns and over how many items
    change.
    """
    for name, n in (("GSM8K", 200), ("IFEval", 541), ("TruthfulQA", 817), ("MMLU", 14042)):
        for changed in (0.05, 0.1, 0.3):
            for drop in (0.0, 0.02):
                cell = f"{name}, n={n:,}, {changed:.0%} of items change, drop {drop:.0%}"
                yield Setting(
                    "paired 0/1",
                    cell,
                    -drop,
                    partial(_flips, n, changed, drop),
                    10_000 if n < 14042 else 300,
                )
    for n, changed in ((200, 0.01), (200, 0.025)):
        yield Setting(
            "paired 0/1, few changes",
            f"n={n}, {changed:.1%} of items change",
            0.0,
            partial(_flips, n, changed, 0.0),
            10_000,
        )
    for drop in (0.0, 0.02):
        yield Setting(
            "paired macro",
            f"BBH, 27 x 40, drop {drop:.0%}",
            -drop,
            partial(_macro_flips, drop),
            2000,
        )
        yield Setting(
            "paired pass@10", f"HumanEval, drop {drop:.0%}", -drop, partial(_resampled, drop), 600
        )
    for draws in (1, 4):
        yield Setting(
            "paired bootstrap, draws",
            f"XSTest F1, n=450, {draws} answers to each",
            0.0,
            partial(_f1_pair, draws),
            300,
        )
    yield Setting(
        "paired, cells independent",
        "Average, equal models, a tenth of items change",
        0.0,
        _average_pair,
        500,
    )


def _difference(found: PairedDifference) -> tuple[Interval, float | None]:
    assert found.ci95 is not None
    return found.ci95, found.p


@cache
def _counted(n: int, n_up: int, n_down: int) -> PairedDifference:
    rest = n - n_up - n_down
    baseline, candidate = (
        [0.0] * n_up + [1.0] * (n - n_up),
        [1.0] * n_up + [0.0] * n_down + [1.0] * rest,
    )
    return paired_difference(_pairs(baseline, candidate))


def _pairs(
    baseline: Sequence[float],
    candidate: Sequence[float],
    strata: Sequence[str] | None = None,
    macro: bool = False,
) -> Pairs:
    ids = tuple(ItemId(str(i)) for i in range(len(baseline)))
    return Pairs(
        COLUMN, ids, tuple(baseline), tuple(candidate), tuple(strata or [""] * len(baseline)), macro
    )


def _counts(n: int, changed: float, drop: float, rng: Rng) -> tuple[int, int]:
    up, down, _ = rng.multinomial(n, [(changed - drop) / 2, (changed + drop) / 2, 1 - changed])
    return int(up), int(down)


def _flips(n: int, changed: float, drop: float, rng: Rng) -> tuple[Interval, float | None]:
    return _difference(_counted(n, *_counts(n, changed, drop, rng)))


def _macro_flips(drop: float, rng: Rng) -> tuple[Interval, float | None]:
    """A tenth of the items change; tasks differ in how many. One item short, so that weights are
    unequal.
    """
    changed = np.repeat(np.linspace(0.02, 0.18, 27), BBH_SIZES)[:-1]
    draw = rng.random(len(changed))
    candidate = np.where(draw < (changed - drop) / 2, 1.0, np.where(draw < changed, 0.0, 0.5))
    baseline = np.where(candidate == 0.5, 0.5, 1 - candidate)
    strata = np.repeat(np.arange(27), BBH_SIZES)[:-1].astype(str).tolist()
    return _difference(
        paired_difference(_pairs(baseline.tolist(), candidate.tolist(), strata, True), 0)
    )


def _resampled(drop: float, rng: Rng) -> tuple[Interval, float | None]:
    """The same problems sampled again, by a model that solves a share of them no more."""
    skill = rng.beta(*_skill(0.691), 164)
    kept = rng.random(164) >= drop / 0.691
    baseline, candidate = (
        PASS_AT_10[rng.binomial(20, skill)],
        PASS_AT_10[rng.binomial(20, skill * kept)],
    )
    return _difference(paired_difference(_pairs(baseline.tolist(), candidate.tolist()), 999))


def _average_pair(rng: Rng) -> tuple[Interval, float | None]:
    found = {
        key: _counted(n, *_counts(n, 0.1, 0.0, rng))
        for key, n in {**SIZES, "bbh": 1080, "mmlu": 14042}.items()
    }
    skill = rng.beta(*_skill(SHARES["humaneval"]), 164)
    sampled = [PASS_AT_10[rng.binomial(20, skill)].tolist() for _ in range(2)]
    found["humaneval"] = paired_difference(_pairs(*sampled), 0)
    return _difference(average_difference(found))


def main() -> None:
    """Print one Markdown table. Arguments: only settings whose estimator or cell holds one of these
    words.
    """
    parser = argparse.ArgumentParser(
        prog="scripts/coverage",
        description="How often each nominal 95 % interval covers the truth.",
    )
    parser.add_argument(
        "words",
        nargs="*",
        default=[""],
        help="only settings whose estimator or cell holds one of these words",
    )
    wanted = parser.parse_args().words
    settings = [
        one
        for one in (*cells(), *comparisons())
        if any(word in f"{one.estimator} {one.cell}" for word in wanted)
    ]
    if not settings:
        parser.error(f"no setting holds {' or '.join(wanted)}")
    print(
        "| Estimator | Setting | Runs | Coverage of the 95 % interval | p < 0.05 without a"
        " difference |"
    )
    print("| --- | --- | --- | --- | --- |")
    for setting in settings:
        found = simulate(setting)
        alarms = "" if found.false_alarms is None else f"{found.false_alarms:.1%}"
        coverage = f"{found.covered:.1%} ± {found.error:.1%}"
        print(
            f"| {setting.estimator} | {setting.cell} | {setting.n_runs:,} | {coverage} |"
            f" {alarms} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
