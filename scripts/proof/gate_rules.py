"""The gate's rules beside each other: how often each raises a false alarm, how often it sees a drop
of 1, 2 or 5 points, how often its intervals cover; and on the same pairs another gate's rule.

By simulation at the card's size, as in `gate_power`, and on recorded pairs of real models, whose
items that changed are given directions at random. "step": an item changes half as often as between
two independent models; "copy": an eighth as often, as after quantisation.

The other gate is NVIDIA NeMo Evaluator's (0.3), from its description: a column breaches where its
estimate fell by more than 1.0 point (critical: MMLU, GSM8k, BBH) or 1.5 (supporting: the others);
one breach is no-go. Our `by = "estimate"` is the same rule.
"""

import argparse
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from evals.compare.gate import Gate, judge, judge_pooled
from evals.compare.paired import Z80, PairedDifference, Pairs, paired_difference
from evals.compare.policy import Policy, Rule, read_policy
from evals.records import ItemId
from evals.stats import Z95
from scripts.proof.gate_power import COLUMNS, SCORES, SIZES, Simulation

FULL = SIZES | {"gsm8k": (1319, 1), "bbh": (6511, 27)}
"""The sizes of the full suite."""
DROPS = (0.01, 0.02, 0.05)
_CRITICAL = ("mmlu", "gsm8k", "bbh")
_LEFT_OUT = {key: Rule(tier="advisory") for key in ("alpaca_eval_1", "alpaca_eval_2_lc", "average")}


def _rules() -> dict[str, Policy]:
    by_estimate = {key: Rule(0.015, by="estimate") for key in COLUMNS if key not in _CRITICAL}
    return {
        "columns, drop 1.0 (before)": Policy(),
        "columns 1.0 and pooled 1.0": Policy(pooled_decides=True),
        "columns 1.0 and pooled 0.5": Policy(pooled_drop=0.005, pooled_decides=True),
        "columns 1.0 and pooled 0.0": Policy(pooled_drop=0.0, pooled_decides=True),
        **{
            f"ready: {name}": read_policy(Path(name))
            for name in ("release", "quantised", "nightly")
        },
        "NeMo Evaluator 0.3, by estimate": Policy(
            Rule(0.01, by="estimate"), {**by_estimate, "average": Rule(tier="advisory")}
        ),
    }


def gates(found: Sequence[Mapping[str, PairedDifference]], policy: Policy) -> list[Gate]:
    """The gate under a policy on every comparison."""
    # What a policy requires and the simulation lacks is not what is looked at here.
    return [
        Gate(("", ""), judge(one, policy), policy=policy, pooled=judge_pooled(one, policy))
        for one in found
    ]


def regressed(found: Sequence[Mapping[str, PairedDifference]], policy: Policy) -> float:
    """In percent of how many comparisons the gate fails."""
    return 100 * float(np.mean([gate.verdict == "regressed" for gate in gates(found, policy)]))


# --- recorded pairs of real models ----------------------------------------------------------------


class Recorded(Simulation):
    """Pairs of real models' recorded grades: which items differ is as recorded, the direction of
    each is drawn. Of each benchmark the two models that agree most.
    """

    def __init__(self, folder: Path, runs: int, seed: int) -> None:
        self.counts = dict(recorded_counts(folder))
        sizes = {key: (int(n.sum()), len(n)) for key, (n, _, _) in self.counts.items()}
        super().__init__(runs, seed, sizes=sizes)

    def draw(self, key: str, drop: float) -> tuple[Any, Any]:
        n, moved, _ = self.counts[key]
        worse = min(1.0, (1 + drop * n.sum() / max(1, moved.sum())) / 2)
        up_is = worse if COLUMNS[key].lower_is_better else 1 - worse
        up = self.random.binomial(np.broadcast_to(moved, (self.runs, len(n))), up_is)
        return n, np.stack([up, moved - up, n - moved + 0 * up], axis=-1)


def recorded_counts(folder: Path) -> Iterator[tuple[str, tuple[Any, Any, str]]]:
    """By column: items of each stratum, how many of them two models' grades differ in, and which
    models they are.
    """
    for task in ("mmlu", "gsm8k", "bbh", "ifeval", "xstest"):
        by_model = _graded(folder / task, task)
        for key in [column.key for column in COLUMNS.values() if column.key.startswith(task)]:
            best = _closest(
                {name: scores[key] for name, scores in by_model.items() if scores.get(key)}
            )
            if best is not None:
                yield key, best


def _graded(folder: Path, task: str) -> dict[str, dict[str, dict[str, float]]]:
    """model -> column -> item -> score."""
    import json

    from evals.data.load import load_card_data
    from evals.fidelity.corpora import recordings
    from evals.registry import benchmark_class
    from evals.runs.grading import grade_task

    benchmark = benchmark_class(task)(chat=True)
    source = load_card_data([benchmark.dataset], None)[task]
    items = list(benchmark.items(source))
    about = json.loads((folder / "README.json").read_text("utf-8"))
    found: dict[str, dict[str, dict[str, float]]] = {}
    for recording in recordings(task, folder, about, items):
        own = [item for item in items if item.id in recording.answers]
        completions = {i: one.completion for i, one in recording.answers.items()}
        findings = {i: dict(one.findings) for i, one in recording.answers.items()}
        scores: dict[str, dict[str, float]] = {}
        for grade in grade_task(benchmark, own, completions, findings).grades:
            for key, score in grade.scores.items():
                scores.setdefault(key, {})[grade.id] = score
        found[recording.name] = scores
    return found


def _closest(by_model: Mapping[str, Mapping[str, float]]) -> tuple[Any, Any, str] | None:
    """Of every two models the pair whose grades differ least, over the items both have."""
    best: tuple[float, Any, Any, str] | None = None
    names = sorted(by_model)
    for at, one in enumerate(names):
        for other in names[at + 1 :]:
            # Another judge's labels of the same answers are no pair of models.
            (model, _, label), (model_2, _, label_2) = (x.partition(", ") for x in (one, other))
            if model == model_2 or label != label_2:
                continue
            both = sorted(by_model[one].keys() & by_model[other].keys())
            if len(both) < 100:
                continue
            strata = [item.partition("/")[2].rpartition("/")[0] for item in both]
            _, place = np.unique(strata, return_inverse=True)
            differs = np.array([by_model[one][i] != by_model[other][i] for i in both])
            share = float(differs.mean())
            if share and (best is None or share < best[0]):
                best = (
                    share,
                    np.bincount(place),
                    np.bincount(place, differs).astype(int),
                    (f"{one} and {other}: {differs.sum():,} of {len(both):,} differ"),
                )
    return best and best[1:]


# --- MMLU's probability of the right letter ------------------------------------------------------


def margins(
    runs: int, n: int, changing: float, drop: float, random: Any
) -> Iterator[tuple[Any, Any]]:
    """Two models' margins of the right letter over the likeliest wrong letter, in logits, often.

    The margin is normal; a margin above 0 is a right answer, and its logistic value stands for the
    letter's probability. changing: the correlation of the two models' margins.  drop: of accuracy.
    """
    from scipy.stats import norm

    spread = 2.5
    mean, fallen = (spread * float(norm.ppf(p)) for p in (0.62, 0.62 - drop))
    for _ in range(runs):
        first = random.standard_normal(n)
        second = changing * first + np.sqrt(1 - changing**2) * random.standard_normal(n)
        yield mean + spread * first, fallen + spread * second


def finer_power(
    runs: int, changing: float, drop: float, random: Any, n: int = SIZES["mmlu"][0]
) -> tuple[float, float, float, float]:
    """Shares of changed answers, of runs in which the accuracy, and in which the probability fell
    (its interval is wholly below 0), and of intervals of the probability that cover the truth.
    """
    from scipy.special import expit

    found = []
    truth = np.mean(
        [np.mean(expit(b) - expit(a)) for a, b in margins(2000, n, changing, drop, random)]
    )
    for first, second in margins(runs, n, changing, drop, random):
        score = (second > 0).astype(float) - (first > 0)
        finer = expit(second) - expit(first)
        ends = [_interval(change) for change in (score, finer)]
        found.append(
            (
                np.mean(score != 0),
                ends[0][1] < 0,
                ends[1][1] < 0,
                ends[1][0] <= truth <= ends[1][1],
            )
        )
    changed, accuracy, probability, covers = np.mean(np.array(found, float), axis=0).tolist()
    return changed, accuracy, probability, covers


def _interval(change: Any) -> tuple[float, float]:
    """As paired_difference makes it, in one stratum; a test holds it to that."""
    n, moved = len(change), change[change != 0]
    size = float(np.mean(moved**2)) if len(moved) else 1.0
    error = np.sqrt(np.var(change, ddof=1) / n * n * n + 2 * size) / (n + 2)
    centre = float(np.sum(change)) / (n + 2)
    return centre - 1.959963984540054 * error, centre + 1.959963984540054 * error


# --- the tables -----------------------------------------------------------------------------------


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a Markdown table."""
    print(f"\n| {' | '.join(heads)} |\n| --- |{' ---: |' * (len(heads) - 1)}")
    for row in rows:
        print(f"| {' | '.join(row)} |", flush=True)


def all_fall(keys: Sequence[str], drop: float) -> dict[str, float]:
    """Every column falls."""
    return dict.fromkeys(keys, drop)


def but_mmlu(keys: Sequence[str], drop: float) -> dict[str, float]:
    """Every column falls but MMLU."""
    return dict.fromkeys(keys, drop) | ({"mmlu": 0.0} if "mmlu" in keys else {})


def power_rows(
    simulations: Mapping[str, Simulation], rules: Mapping[str, Policy], drops: Sequence[float]
) -> tuple[list[str], list[list[str]]]:
    """Heads and rows: a rule a row, for each simulation and pattern the drops' power."""
    patterns: dict[str, Callable[[Sequence[str], float], dict[str, float]]] = {
        "all fall": all_fall, "all but MMLU": but_mmlu,
    }  # fmt: skip
    heads, columns = ["Rule"], []
    for name, simulation in simulations.items():
        for pattern, make in patterns.items():
            for drop in drops:
                heads.append(f"{name}, {pattern} by {100 * drop:g}")
                found = simulation.comparisons(make(list(simulation.sizes), drop))
                columns.append([f"{regressed(found, rule):.1f}" for rule in rules.values()])
    return heads, [
        [rule, *cells] for rule, cells in zip(rules, zip(*columns, strict=True), strict=True)
    ]


# --- repeats --------------------------------------------------------------------------------------


class Drawn(Simulation):
    """Columns whose answers are drawn, several to an item, but for MMLU's, which are no draws.

    An item's chance to be right is Beta(s, 1 - s) at a score of s: two answers of one model to it
    differ as often as two models do in `Simulation`. A drop of d loses the share d / s of the items
    for good.
    """

    def __init__(
        self, runs: int, seed: int, draws: int, sizes: Mapping[str, tuple[int, int]] | None = None
    ) -> None:
        super().__init__(runs, seed, sizes=sizes)
        self.draws = draws

    def _differences(self, key: str, drop: float) -> list[PairedDifference]:
        if key == "mmlu":
            return super()._differences(key, drop)
        n, k = self.sizes[key]
        strata = tuple(np.sort(np.arange(n) % k).astype(str).tolist())
        ids = tuple(ItemId(str(at)) for at in range(n))
        lower = COLUMNS[key].lower_is_better
        good = 1 - SCORES[key] if lower else SCORES[key]
        found = []
        for _ in range(self.runs):
            chance = self.random.beta(good, 1 - good, n)
            kept = chance * (self.random.random(n) >= drop / good)
            right = [self.random.binomial(self.draws, p) / self.draws for p in (chance, kept)]
            noise = np.sum([x * (1 - x) for x in right], axis=0) / max(1, self.draws - 1)
            first, second = (tuple((1 - x if lower else x).tolist()) for x in right)
            pairs = Pairs(COLUMNS[key], ids, first, second, strata, key == "bbh")
            pairs = replace(pairs, noise=tuple(noise.tolist()) if self.draws > 1 else ())
            found.append(paired_difference(pairs, n_resamples=0))
        return found


DRAWS = (1, 2, 4, 8)


def repeats_rows(runs: int, power_runs: int, seed: int) -> Iterator[list[str]]:
    """A row for each number of draws."""
    policy = Policy()
    for draws in DRAWS:
        null = Drawn(runs, seed, draws)
        keys = list(null.sizes)
        found = null.comparisons(all_fall(keys, 0.0))
        edge = Drawn(runs, seed + 1, draws).comparisons(all_fall(keys, policy.rest.drop))
        pooled = [one for each in found if (one := judge_pooled(each, policy)) is not None]
        sides = [[each["gsm8k"] for each in found], [one.difference for one in pooled]]
        covered = [np.mean([low <= 0 <= high for low, high in map(_ends, s)]) for s in sides]
        errors = [np.mean([one.stderr or 0.0 for one in side]) for side in sides]
        noise = np.mean([math.sqrt(one.noise or 0.0) for one in sides[0]])
        power = [
            regressed(Drawn(power_runs, seed + 2, draws).comparisons(but_mmlu(keys, drop)), policy)
            for drop in DROPS
        ]
        yield [
            str(draws),
            f"{regressed(found, policy):.1f}",
            f"{regressed(edge, policy):.1f}",
            *(f"{100 * share:.1f}" for share in covered),
            f"{100 * errors[0]:.2f}",
            f"{100 * noise:.2f}" if draws > 1 else "",
            f"{100 * errors[1]:.2f}",
            *(f"{share:.1f}" for share in power),
        ]


def half_rows(power_runs: int, seed: int) -> Iterator[list[str]]:
    """A row for each suite and number of draws: the pooled difference held to no drop at all."""
    policy = Policy(pooled_drop=0.0, pooled_decides=True)
    for name, sizes in (("card", SIZES), ("full", FULL)):
        for draws in (1, 4, 8):
            row = [name, str(draws)]
            for make in (all_fall, but_mmlu):
                drawn = Drawn(power_runs, seed, draws, sizes)
                found = drawn.comparisons(make(list(sizes), 0.005))
                if make is all_fall:
                    pooled = [o for each in found if (o := judge_pooled(each, policy)) is not None]
                    error = float(np.mean([one.difference.stderr or 0.0 for one in pooled]))
                    row += [f"{100 * error:.2f}", f"{100 * (Z95 + Z80) * error:.2f}"]
                row.append(f"{regressed(found, policy):.1f}")
            yield row


def _ends(one: PairedDifference) -> tuple[float, float]:
    assert one.ci95 is not None
    return one.ci95


# --- the parts of the page ------------------------------------------------------------------------


def false_alarms(asked: argparse.Namespace) -> None:
    """How often each rule fails where nothing fell by more than is allowed, and the pooled
    interval's coverage.
    """
    print(
        f"{asked.runs} simulated comparisons for false alarms and coverage, {asked.power_runs} for"
        f" power, seed {asked.seed}; shares in percent."
    )
    print("\n### False alarms: the gate is regressed and nothing fell by more than is allowed")
    nulls = {
        "step": Simulation(asked.runs, asked.seed),
        "copy": Simulation(asked.runs, asked.seed + 1, 0.25),
    }
    if asked.replay:
        nulls["recorded pairs"] = Recorded(Path(asked.replay), asked.runs, asked.seed + 2)
    rules = _rules()
    drawn = {name: one.comparisons(all_fall(list(one.sizes), 0.0)) for name, one in nulls.items()}
    edges = Simulation(asked.runs, asked.seed + 3)
    heads = [
        "Rule",
        *(f"{name}, no drop" for name in nulls),
        "step, every drop as allowed",
        "Nominal",
    ]
    edge = {drop: edges.comparisons(all_fall(list(SIZES), drop)) for drop in (0.0, 0.005, 0.01)}
    rows = []
    for name, rule in rules.items():
        least = min(rule.pooled_drop if rule.pooled_decides else 0.01, 0.01)
        nominal = "none" if rule.rest.by == "estimate" else "5.0"
        cells = [f"{regressed(found, rule):.1f}" for found in drawn.values()]
        rows.append([name, *cells, f"{regressed(edge[least], rule):.1f}", nominal])
    table(heads, rows)
    print("\n### Coverage of the pooled 95 % interval, and one-sided alarms (nominal 2.5)")
    covers = []
    for name, found in drawn.items():
        pooled = [judge_pooled(one, Policy(pooled_drop=0.0)) for one in found]
        ends = np.array([one.difference.ci95 for one in pooled if one is not None])
        errors = [one.difference.stderr or 0.0 for one in pooled if one is not None]
        covered = 100 * np.mean((ends[:, 0] <= 0) & (ends[:, 1] >= 0))
        alarms = 100 * np.mean(ends[:, 1] < 0)
        covers.append([name, f"{covered:.1f}", f"{alarms:.1f}", f"{100 * np.mean(errors):.2f}"])
    table(["Pairs", "Covered", "Alarms", "Standard error, points"], covers)


def finer(asked: argparse.Namespace) -> None:
    """MMLU's accuracy beside its probability of the right letter."""
    print("\n### MMLU alone: power of its accuracy and of its probability of the right letter")
    print(
        "\nMMLU's margins of the right letter are taken as normal, 2.5 logits wide: how much more"
        " its probability sees depends on that."
    )
    random, rows = np.random.default_rng(asked.seed), []
    for name, rho in (("step", 0.75), ("copy", 0.98)):
        for drop in (0.0, 0.0025, 0.005, 0.01, 0.02):
            shares = [100 * share for share in finer_power(asked.runs, rho, drop, random)]
            rows.append(
                [f"{name}, accuracy falls by {100 * drop:g}", *(f"{x:.1f}" for x in shares)]
            )
    table(["Pairs", "Answers changed", "Accuracy fell", "Probability fell", "Covered"], rows)


def power(asked: argparse.Namespace) -> None:
    """How often each rule finds what fell."""
    n, rules = asked.power_runs, _rules()
    print("\n### Power: the gate is regressed, at the card's sizes")
    card = {"step": Simulation(n, asked.seed + 4), "copy": Simulation(n, asked.seed + 5, 0.25)}
    table(*power_rows(card, rules, DROPS))
    print("\n### Power for half a point and for 1, on the full suite")
    full = {
        "step": Simulation(n, asked.seed + 6, 1.0, FULL),
        "copy": Simulation(n, asked.seed + 7, 0.25, FULL),
    }
    table(*power_rows(full, rules, (0.005, 0.01)))


def recorded(asked: argparse.Namespace) -> None:
    """The same on recorded pairs of real models."""
    if asked.replay:
        print("\n### Power on recorded pairs of real models")
        real = Recorded(Path(asked.replay), asked.power_runs, asked.seed + 8)
        table(*power_rows({"recorded": real}, _rules(), DROPS))
        print()
        for key, (_, _, about) in real.counts.items():
            print(f"- {COLUMNS[key].heading}: {about}")


def repeats(asked: argparse.Namespace) -> None:
    """Several answers to an item, all columns sampled but MMLU."""
    print("\n### Repeats: K answers to each item, by both models; columns held to a drop of 1.0")
    heads = [
        "K", "no drop: alarms", "every drop as allowed: alarms", "GSM8k covered", "pooled covered",
        "GSM8k's error, points", "of it the answers'", "pooled error",
        *(f"all but MMLU by {100 * drop:g}" for drop in DROPS),
    ]  # fmt: skip
    table(heads, list(repeats_rows(asked.runs, asked.power_runs, asked.seed + 9)))


def half(asked: argparse.Namespace) -> None:
    """What it takes to find half a point."""
    print("\n### Half a point, by the pooled difference held to a drop of 0.0, with repeats")
    heads = [
        "Suite", "K", "pooled error, points", "found in 80 of 100", "all fall by 0.5",
        "all but MMLU by 0.5",
    ]  # fmt: skip
    table(heads, list(half_rows(asked.power_runs, asked.seed + 12)))


PARTS = {
    "false-alarms": false_alarms, "finer": finer, "power": power, "recorded": recorded,
    "repeats": repeats, "half": half,
}  # fmt: skip


def main() -> None:
    """Print the tables, or some of them."""
    parser = argparse.ArgumentParser(prog="scripts/gate_rules", description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; all, where none is named")
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--power-runs", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--replay", type=Path, default=os.environ.get("EVALS_REPLAY"))
    asked = parser.parse_args()
    for name in asked.parts or PARTS:
        started = time.monotonic()
        PARTS[name](asked)
        print(f"\n{name}: {time.monotonic() - started:.0f} seconds.", flush=True)


if __name__ == "__main__":
    main()
