"""Length-controlled win rates: what a judge's preferences would be if the two answers had the same
length.

Dubois et al. 2024 (arXiv 2404.04475), equation 1: a logistic model of the preference on the
difference of lengths (through tanh), the instruction's difficulty and the model; the win rate is
its mean prediction at difference zero. The fit (formula, regularisation towards two "gamed"
versions of the baseline, cross-validated penalty) is the alpaca_eval package's; only the reading of
the hub's df_gamed.csv is done here, since the package would download it.
"""

import logging
import math
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from statistics import fmean, stdev
from typing import Any

from evals import stats
from evals.data.files import Row
from evals.records import Grade, Metric

GLM_NAME = "length_controlled_v1"
GAMED_FIELDS = (
    "index",
    "preference",
    "std_delta_len",
    "instruction_difficulty",
    "not_gamed_baseline",
)
MODEL_WEIGHT = "not_gamed_baseline.astype(float)"
DIFFICULTY_WEIGHT = "instruction_difficulty"
N_REPLICATES = 400
N_NEWTON_STEPS = 8
RIDGE = 1e-4  # keeps a draw in which every preference agrees from running away
# of a row of df_gamed.csv in the fit: the package's 0.2, halved because there are two gamed
# baselines
GAMED_WEIGHT = 0.1


@dataclass(frozen=True)
class Judged:
    """One annotated instruction.

    row: its row in the public file.  n_chars_reference, n_chars: lengths of the two answers in
    characters.
    preference: 0 (reference) to 1 (model), None when the annotation could not be read.
    """

    row: int
    n_chars_reference: int
    n_chars: int
    preference: float | None

    @classmethod
    def of(cls, grade: Grade, role: str) -> "Judged":
        """From an AlpacaEval grade."""
        details: Mapping[str, Any] = grade.details
        row = int(grade.id.rpartition("/")[2])
        return cls(
            row, details["n_chars_reference"][role], details["n_chars"], grade.scores.get(role)
        )


def predicted_preferences(
    weights: Mapping[str, float], difficulties: Sequence[float]
) -> list[float]:
    """Preferences in [0, 1] at equal lengths from fitted weights (the published ones have the same
    names), one a difficulty.
    """
    # The logistic function as a tanh: no overflow, however sure the fit is.
    return [
        0.5 + math.tanh((weights[MODEL_WEIGHT] + weights[DIFFICULTY_WEIGHT] * difficulty) / 2) / 2
        for difficulty in difficulties
    ]


def win_rate(judged: Sequence[Judged], gamed: Sequence[Row]) -> Metric:
    """The length-controlled win rate. judged: all annotations of one model; gamed: the rows of
    df_gamed.csv.

    The error is the bootstrap's over instructions. The package's, the spread of the predictions,
    leaves out that the weights themselves are estimated (0.7 points where repeated fits of the
    package spread by 1.5).
    """
    ordered = sorted(judged, key=lambda one: one.row)
    n = sum(one.preference is not None for one in ordered)
    if len({one.n_chars_reference - one.n_chars for one in ordered}) < 2:
        return stats.unfinished(n, n, "length control needs answers of different lengths")
    weights, difficulties = fit(ordered, gamed)
    value = fmean(predicted_preferences(weights, difficulties))
    stderr = stdev(replicates(ordered, gamed))
    return metric_of(value, stderr, n)


def metric_of(value: float, stderr: float, n: int) -> Metric:
    """The cell: n annotations, the bootstrap's error, Wilson's interval of the effective sample
    size.
    """
    return Metric(value, n, n, stderr, stats.effective_wilson(value, stderr, n), "bootstrap")


def replicates(
    judged: Sequence[Judged], gamed: Sequence[Row], n_replicates: int = N_REPLICATES
) -> list[float]:
    """The win rate of so many draws of as many instructions, with replacement; the same draws for
    every model.

    Each is a fit by Newton's method without the package's penalty, all at once; lengths stay
    standardised as they were.
    """
    import numpy as np

    ordered = sorted(judged, key=lambda one: one.row)
    baseline = _gamed_frame(gamed)
    # By the place of an index's first row in the file, as the package looks it up.
    difficulty_of = baseline.drop_duplicates("index")["instruction_difficulty"]
    difficulty = np.array([float(difficulty_of[one.row]) for one in ordered])
    gap = np.array([float(one.n_chars_reference - one.n_chars) for one in ordered])
    model = np.column_stack([np.tanh(gap / np.std(gap, ddof=1)), difficulty, np.ones(len(ordered))])
    reference = np.column_stack(
        [
            np.tanh(baseline["std_delta_len"]),
            baseline["instruction_difficulty"],
            np.zeros(len(baseline)),
        ]
    )
    preference = np.array(
        [one.preference if one.preference is not None else np.nan for one in ordered]
    )
    readable = ~np.isnan(preference)
    drawn = (
        np.random.default_rng(0)
        .multinomial(len(ordered), np.full(len(ordered), 1 / len(ordered)), n_replicates)
        .astype(float)
    )
    features, target = (
        np.vstack([model[readable], reference]),
        np.concatenate([preference[readable], baseline["preference"]]),
    )
    weight = np.hstack([drawn[:, readable], np.full((n_replicates, len(baseline)), GAMED_WEIGHT)])
    # Outer products of all rows, flat: one matrix product then has the curvature of every draw.
    products = (features[:, :, None] * features[:, None, :]).reshape(len(features), 9)
    fitted = np.zeros((n_replicates, 3))
    for _ in range(N_NEWTON_STEPS):
        chance = 0.5 + np.tanh(fitted @ features.T / 2) / 2
        gradient = (weight * (target - chance)) @ features - RIDGE * fitted
        curvature = ((weight * chance * (1 - chance)) @ products).reshape(
            -1, 3, 3
        ) + RIDGE * np.eye(3)
        fitted += np.linalg.solve(curvature, gradient[:, :, None])[:, :, 0]
    at_equal_lengths = 0.5 + np.tanh((fitted[:, 1:2] * difficulty + fitted[:, 2:3]) / 2) / 2
    return [float(value) for value in np.sum(drawn * at_equal_lengths, axis=1) / len(ordered)]


def fit(judged: Sequence[Judged], gamed: Sequence[Row]) -> tuple[dict[str, float], list[float]]:
    """The fitted weights by name, and the difficulty of each judged instruction.

    A difficulty is looked up by the instruction's row; the original takes the position among the
    annotations, the same while none is left out. Unreadable annotations count in the
    standardisation of lengths and are predicted, but not fitted, as in the original.
    """
    import pandas as pd

    glm = _glm()
    info = glm.GLM_INFO[GLM_NAME]
    baseline = _gamed_frame(gamed)
    by_position = baseline.drop_duplicates("index")["instruction_difficulty"]
    length_gap = pd.Series([float(one.n_chars_reference - one.n_chars) for one in judged])
    model = pd.DataFrame(
        {
            "preference": pd.Series([one.preference for one in judged], dtype=float),
            "std_delta_len": length_gap / length_gap.std(),
            "instruction_difficulty": [float(by_position[one.row]) for one in judged],
            "not_gamed_baseline": True,
        }
    )
    # In the package's order, on which the folds of its cross-validation depend.
    everything = pd.concat([baseline, model], ignore_index=True)
    at_equal_lengths = model[["instruction_difficulty", "not_gamed_baseline"]].assign(
        std_delta_len=0
    )
    train, test = glm.make_dmatrix_for_model(everything, at_equal_lengths, formula=info["formula"])
    readable = everything["preference"].notna()
    # Halved because there are two gamed baselines.
    item_weight = everything["not_gamed_baseline"].map(
        {True: 1.0, False: info["regularize_to_baseline_lambda"] / 2}
    )
    import sklearn

    # The package switches sklearn's metadata routing on for the whole process, and passes the
    # `penalty` that sklearn warns of.
    with warnings.catch_warnings(), sklearn.config_context():
        warnings.simplefilter("ignore")
        fitted = glm.fit_LogisticRegressionCV(
            train[readable],
            "preference",
            is_ytrue_proba=True,
            sample_weight=item_weight[readable],
            **info["kwargs"],
        )
    weights = dict(zip(test.columns, map(float, fitted.coef_[0]), strict=True))
    return weights, [float(difficulty) for difficulty in model["instruction_difficulty"]]


def _gamed_frame(gamed: Sequence[Row]) -> Any:
    import pandas as pd

    rows = [
        {name: float(row[name]) for name in GAMED_FIELDS[1:-1]}
        | {
            "index": int(row["index"]),
            "not_gamed_baseline": str(row["not_gamed_baseline"]) == "True",
        }
        for row in gamed
    ]
    return pd.DataFrame(rows)


@cache
def _glm() -> Any:
    """alpaca_eval's module of the fit. The import takes seconds, so only a fit pays for it."""
    with _contained_import():
        from alpaca_eval.metrics import glm_winrate
    return glm_winrate


@contextmanager
def _contained_import() -> Iterator[None]:
    """alpaca_eval sets variables from .env files, turns the root logger to INFO and wants a user
    name when imported: undo and provide.
    """
    root = logging.getLogger()
    level, environment = root.level, dict(os.environ)
    os.environ.setdefault("LOGNAME", "evals")
    try:
        yield
    finally:
        root.setLevel(level)
        os.environ.clear()
        os.environ.update(environment)
