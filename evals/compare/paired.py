"""Two runs on the same items: the difference of every column, how sure it is, and what drop the items could show at all.

Fractions, in a column's own units; `gain` turns them so that up is better. Strata (subjects, tasks) are fixed, as in stats.py.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import stdev
from typing import Any

from evals.benchmark import roles_of_column
from evals.cards.average import AVERAGE, average_metric
from evals.errors import InputError
from evals.generators.replay import RECORDED
from evals.models.resolve import public_name
from evals.records import Column, Grade, ItemId, Metric
from evals.registry import BENCHMARKS, benchmark_class
from evals.stats import Z95
from evals.storage.run_folder import RunFolder

Z80 = 0.8416212335729143
N_RESAMPLES = 9999
JUDGED_BY = "judged by"
"""How the reason begins why a column that other judges decided is not compared."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """One column's scores in two runs, item by item.

    ids, baseline, candidate, strata: one entry an item, in the same order; scores in [0, 1], stratum "" where there is none.
    macro: the column is the mean of its strata's means, else of its items.
    n_same: items both runs answered with the same words (MMLU: the same letter).
    """

    column: Column
    ids: tuple[ItemId, ...]
    baseline: tuple[float, ...]
    candidate: tuple[float, ...]
    strata: tuple[str, ...]
    macro: bool = False
    n_same: int = 0


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """Candidate less baseline in one column; all None with a `reason` where it cannot be had.

    n: pairs (the Average: its seven inputs).  stderr: the interval's standard error, never 0.  ci95: of the difference.
    p: two-sided.  n_better, n_worse: items whose score changed, in the column's sense of better.  n_same: see Pairs.
    mde: smallest true difference that such a comparison finds in 80 of 100 cases (two-sided test at 5 %, normal).
    run_to_run: one run's standard deviation over runs on these same items, were both runs of one model; from the items' changes.
    estimator: how interval and p were made.
    """

    column: Column
    n: int
    baseline: float | None = None
    candidate: float | None = None
    difference: float | None = None
    stderr: float | None = None
    ci95: tuple[float, float] | None = None
    p: float | None = None
    n_better: int = 0
    n_worse: int = 0
    n_same: int = 0
    mde: float | None = None
    run_to_run: float | None = None
    estimator: str = ""
    reason: str | None = None

    @property
    def key(self) -> str:
        """The column's key."""
        return self.column.key

    @property
    def gain_ci95(self) -> tuple[float, float] | None:
        """The interval of the difference turned so that up is better."""
        return (-self.ci95[1], -self.ci95[0]) if self.ci95 is not None and self.column.lower_is_better else self.ci95


def paired_difference(pairs: Pairs, n_resamples: int = N_RESAMPLES) -> PairedDifference:
    """The difference over the items both runs scored. n_resamples: of the permutation test; 0: no p, which takes most of the time.

    The interval is Wald's after two more pairs are added, one each way (Bonett & Price 2012, for 0/1 scores): no interval has
    width zero, however few items changed. Other scores get pairs of the changes' root mean square (1 where nothing changed).
    The p-value is McNemar's exact one for 0/1 scores of equal weight, else a paired permutation test's.
    """
    import numpy as np

    if not pairs.ids:
        return PairedDifference(pairs.column, 0, reason="no item was scored in both runs")
    baseline, candidate = np.asarray(pairs.baseline), np.asarray(pairs.candidate)
    weights, variance = _weights_and_variance(candidate - baseline, pairs)
    n_effective = 1 / float(np.sum(weights**2))
    stderr = _with_two_pairs(variance, n_effective, pairs)
    values = float(weights @ baseline), float(weights @ candidate)
    centre = (values[1] - values[0]) * n_effective / (n_effective + 2)
    p, how = _p_value(candidate - baseline, weights, n_resamples) if n_resamples else (None, "no test")
    found = _normal(pairs, values, stderr)
    spread = float(np.linalg.norm(weights * (candidate - baseline))) / math.sqrt(2)
    return replace(found, ci95=_around(centre, stderr), p=p, run_to_run=spread, estimator=f"Bonett-Price, {how}")


def average_difference(differences: Mapping[str, PairedDifference]) -> PairedDifference:
    """The Average's difference from its inputs' by cell key, which are independent; normal interval and p."""
    baseline, candidate, spread = (
        average_metric({key: Metric(getattr(one, side), one.n, one.n, getattr(one, error)) for key, one in differences.items()})
        for side, error in (("baseline", "stderr"), ("candidate", "stderr"), ("baseline", "run_to_run"))
    )
    if baseline.value is None or candidate.value is None or baseline.stderr is None:
        return PairedDifference(AVERAGE, baseline.n, reason=baseline.reason)
    found = _normal(Pairs(AVERAGE, (), (), (), ()), (baseline.value, candidate.value), baseline.stderr)
    return replace(found, n=baseline.n, run_to_run=spread.stderr)


def holm(p_values: Mapping[str, float | None]) -> dict[str, float | None]:
    """Holm's adjusted p-values of those that are there.  Source: Holm 1979."""
    found = sorted((p, key) for key, p in p_values.items() if p is not None)
    adjusted: dict[str, float | None] = dict.fromkeys(p_values)
    highest = 0.0
    for rank, (p, key) in enumerate(found):
        highest = max(highest, min(1.0, p * (len(found) - rank)))
        adjusted[key] = highest
    return adjusted


def _normal(pairs: Pairs, values: tuple[float, float], stderr: float) -> PairedDifference:
    """The difference of (baseline, candidate) where the standard error is all that is known of its spread."""
    difference = values[1] - values[0]
    n_up = sum(b > a for a, b in zip(pairs.baseline, pairs.candidate, strict=True))
    n_down = sum(b < a for a, b in zip(pairs.baseline, pairs.candidate, strict=True))
    n_better, n_worse = (n_down, n_up) if pairs.column.lower_is_better else (n_up, n_down)
    p = math.erfc(abs(difference) / stderr / math.sqrt(2))
    return PairedDifference(
        pairs.column, len(pairs.ids), *values, difference, stderr, _around(difference, stderr), p,
        n_better, n_worse, pairs.n_same, (Z95 + Z80) * stderr, estimator="normal",
    )  # fmt: skip


def _around(centre: float, stderr: float) -> tuple[float, float]:
    return max(-1.0, centre - Z95 * stderr), min(1.0, centre + Z95 * stderr)


def _with_two_pairs(variance: float, n: float, pairs: Pairs) -> float:
    """The standard error of a mean over n once two pairs are added, one each way; never 0."""
    squares = [(b - a) ** 2 for a, b in zip(pairs.baseline, pairs.candidate, strict=True) if a != b]
    size = (math.fsum(squares) / len(squares) if squares else 0.0) or 1.0  # squares may be too small for a float
    return math.sqrt(variance * n * n + 2 * size) / (n + 2)


def _weights_and_variance(change: Any, pairs: Pairs) -> tuple[Any, float]:
    """Each item's weight (they sum to 1) and the sampling variance of the weighted mean; a lone item gets the pooled variance."""
    import numpy as np

    _, stratum, sizes = np.unique(np.asarray(pairs.strata), return_inverse=True, return_counts=True)
    weights = 1 / (len(sizes) * sizes[stratum]) if pairs.macro else np.full(len(change), 1 / len(change))
    means = np.bincount(stratum, change) / sizes
    squares = np.bincount(stratum, (change - means[stratum]) ** 2)
    per_item = np.where(sizes > 1, squares / np.maximum(1, sizes - 1), np.var(change))
    return weights, float(np.sum(np.bincount(stratum, weights) ** 2 * per_item / sizes))


def _p_value(change: Any, weights: Any, n_resamples: int) -> tuple[float, str]:
    import numpy as np
    from scipy.stats import binomtest, permutation_test

    signed = (change * weights)[change != 0]
    if np.ptp(weights) < 1e-12 and set(np.unique(np.abs(change))) <= {0.0, 1.0}:
        return (float(binomtest(int(np.sum(signed > 0)), len(signed)).pvalue) if len(signed) else 1.0), "exact McNemar"
    if len(signed) < 2:  # with one changed item either sign is as likely
        return 1.0, "paired permutation"
    signed /= np.max(np.abs(signed))
    found = permutation_test(
        (signed, np.zeros(len(signed))),
        lambda a, b, axis: np.round(np.sum(a - b, axis=axis), 9),  # sums that are equal but for their last bits are ties
        permutation_type="samples",
        vectorized=True,
        n_resamples=n_resamples,
        batch=500,
        rng=np.random.default_rng(0),
    )
    return float(found.pvalue), "paired permutation"


# --- from run folders ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answer:
    """One row of samples. scores: by column key, None where a verdict could not be read."""

    row: Mapping[str, Any]
    scores: Mapping[str, float | None]

    def says_the_same(self, other: "Answer") -> bool:
        """Whether both answers are equal: the texts, or the choice; its log-probabilities differ in the last digits between processors."""
        return bool((self.row.get("outputs") or self.row.get("extracted")) == (other.row.get("outputs") or other.row.get("extracted")))


Answers = Mapping[ItemId, Answer]
Sides = tuple[Mapping[str, Any], Mapping[str, Any]]


def paired_columns(baseline: Path, candidate: Path, data: Path | None = None) -> dict[str, PairedDifference]:
    """Every column of two runs by key, in the table's order, the Average last; a column that cannot be paired has a `reason`.

    data: folder of the public data files, for what samples do not hold (length control).  Raises InputError where a folder is no run.
    """
    runs = RunFolder(baseline), RunFolder(candidate)
    cells = tuple(run.read_json("summary.json")["cells"] for run in runs)
    found: dict[str, PairedDifference] = {}
    for name in BENCHMARKS:
        columns = [column for column in benchmark_class(name).columns if any(column.key in side for side in cells)]
        lacking = {column.key: why for column in columns if (why := _why_not(column.key, cells))}
        answers = [read_answers(run, name) for run in runs] if len(lacking) < len(columns) else []
        for column in columns:
            if column.key in lacking:
                found[column.key] = PairedDifference(column, 0, reason=lacking[column.key])
                continue
            sides = (cells[0][column.key], cells[1][column.key])
            if why := _why_unlike(name, column, answers, sides):
                found[column.key] = PairedDifference(column, 0, reason=why)
                continue
            pairs = pairs_of(column, answers[0], answers[1], macro=str(sides[0]["estimator"]).startswith("macro"))
            if sides[0]["estimator"] == "bootstrap":
                found[column.key] = _bootstrapped(pairs, sides, [_replicates(run, name, column, data) for run in runs])
            else:
                found[column.key] = _agreeing(paired_difference(pairs), sides)
    return found | {AVERAGE.key: average_difference(found)}


def read_answers(run: RunFolder, task: str) -> dict[ItemId, Answer]:
    """A task's items in their order. Raises InputError naming a file whose rows lack id or score."""
    columns = benchmark_class(task).columns
    found = {}
    for row in run.samples(task):
        try:
            if "scores" in row:
                roles = [(c.key, role) for c in columns for role in row["scores"] if f"{c.key}_".startswith(f"{role}_")]
                scores = {key: row["scores"][role] for key, role in roles}
            else:  # XSTest alone has two columns and one score: safe items count in the first
                scores = {columns[0 if len(columns) == 1 or row["safe"] else 1].key: row["score"]}
            found[ItemId(row["id"])] = Answer(row, {key: None if score is None else float(score) for key, score in scores.items()})
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            path = run.samples_path(task)
            raise InputError(f"{path}: a row lacks its id or score ({error!r}). Make it again with: evals score {run.path}") from error
    return found


def pairs_of(column: Column, baseline: Answers, candidate: Answers, *, macro: bool) -> Pairs:
    """The items of a column that both runs scored; the stratum is what stands between an id's task and its number."""
    before = {i: score for i, answer in baseline.items() if (score := answer.scores.get(column.key)) is not None}
    after = {i: score for i, answer in candidate.items() if (score := answer.scores.get(column.key)) is not None}
    ids = tuple(i for i in before if i in after)
    n_same = sum(baseline[i].says_the_same(candidate[i]) for i in ids)
    strata = tuple(i.partition("/")[2].rpartition("/")[0] for i in ids)
    return Pairs(column, ids, tuple(before[i] for i in ids), tuple(after[i] for i in ids), strata, macro, n_same)


def _why_not(key: str, cells: Sequence[Mapping[str, Any]]) -> str | None:
    for side, which in zip(cells, ("baseline", "candidate"), strict=True):
        if side.get(key, {}).get("value") is None:
            return f"{which}: {side[key].get('reason') or 'no value' if key in side else 'not run'}"
    return None


def _why_unlike(task: str, column: Column, answers: Sequence[Answers], cells: Sides) -> str | None:
    """Why samples cannot be held against each other: they lack items that their cell counts, or other judges decided them."""
    for side, cell in zip(answers, cells, strict=True):
        n = sum(answer.scores.get(column.key) is not None for answer in side.values())
        if n != cell["n"]:
            return f"samples have {n:,} scored items where summary.json has {cell['n']:,}; make them again with evals score"
    roles = roles_of_column(benchmark_class(task)(chat=True), column.key)
    judges = [
        sorted({_who(found["by"]) for answer in side.values() for role in roles if (found := answer.row.get("findings", {}).get(role))})
        for side in answers
    ]
    if judges[0] == judges[1] or not all(judges):
        return None
    return f"{JUDGED_BY} {' and '.join(judges[0])} in the baseline, by {' and '.join(judges[1])} in the candidate"


def _who(by: str) -> str:
    return "an unknown judge" if by == RECORDED else public_name(by)


def _agreeing(found: PairedDifference, cells: Sides) -> PairedDifference:
    """The difference, unless cells over the same items have other values: the run's files are then not of one scoring."""
    for value, cell in zip((found.baseline, found.candidate), cells, strict=True):
        if value is not None and cell["n"] == found.n and abs(value - cell["value"]) > 1e-6:
            why = f"samples give {value:.6f} where summary.json has {cell['value']:.6f}; make them again with evals score"
            return PairedDifference(found.column, 0, reason=why)
    return found


def _bootstrapped(pairs: Pairs, cells: Sides, replicates: Sequence[Sequence[float]]) -> PairedDifference:
    """A column that is no mean of scores: its error is the spread of the differences of both runs' replicates."""
    if not replicates[0] or len(replicates[0]) != len(replicates[1]):
        return PairedDifference(pairs.column, 0, reason="its data is not here: give --data")
    spread = stdev(b - a for a, b in zip(*replicates, strict=True))
    stderr = _with_two_pairs(spread**2, len(pairs.ids), pairs)
    return replace(_normal(pairs, (cells[0]["value"], cells[1]["value"]), stderr), estimator="paired bootstrap, normal")


def _replicates(run: RunFolder, task: str, column: Column, data: Path | None) -> Sequence[float]:
    from evals.runs.rescore import run_items

    try:
        benchmark, _ = run_items(run.read_json("run.json"), task, data)
    except InputError:
        return ()
    rows = list(run.samples(task))
    grades = [Grade(row["id"], "", {k: v for k, v in row["scores"].items() if v is not None}, details=row) for row in rows]
    return benchmark.replicates(grades).get(column.key, ())
