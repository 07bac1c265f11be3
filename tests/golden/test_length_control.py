"""Length control: published weights give the published figures, and our fit is the package's."""

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev

import pytest

from evals import stats
from evals.data.dataset import LoadedSource
from evals.data.files import Row, read_csv
from evals.data.load import load_card_data
from evals.fidelity.replay import replay
from evals.records import Finding
from tasks import length_control
from tasks.alpaca_eval import AlpacaEval, AlpacaItem
from tests.recorded_alpaca import FOLDERS, MODELS, annotations, graded, published_row, read_recorded


@pytest.fixture(scope="module")
def source(data_dir: Path) -> LoadedSource:
    return load_card_data([AlpacaEval.dataset], data_dir)["alpaca_eval"]


@pytest.fixture(scope="module")
def items(source: LoadedSource) -> Mapping[str, AlpacaItem]:
    return {item.instruction: item for item in AlpacaEval(chat=True).items(source)}


@pytest.mark.parametrize("model", MODELS["alpaca_eval_2"])
def test_published_weights_and_recovered_difficulties_give_the_published_length_controlled_rate(
    source: LoadedSource, replay_dir: Path, model: str
) -> None:
    published = published_row(replay_dir, model)
    difficulties = [float(row["instruction_difficulty"]) for row in source.rows("difficulties")]
    predicted = length_control.predicted_preferences(
        published["length_controlled_v1_weights"], difficulties
    )
    assert abs(100 * fmean(predicted) - published["length_controlled_winrate"]) < 1e-6
    if published["lc_standard_error"] is not None:
        assert stdev(predicted) / math.sqrt(len(predicted)) == pytest.approx(
            published["lc_standard_error"] / 100, abs=1e-8
        )


def test_replay_gives_the_rate_of_the_same_function_at_six_decimals(
    source: LoadedSource, data_dir: Path, replay_dir: Path
) -> None:
    difficulties = [float(row["instruction_difficulty"]) for row in source.rows("difficulties")]
    lines = [
        line
        for line in replay(replay_dir / "alpaca_eval", data_dir)
        if line.figure.endswith("from the published weights")
    ]
    rates = {
        line.recording.partition("/")[2]: line
        for line in lines
        if line.figure.startswith("length_controlled_winrate")
    }
    assert tuple(rates) == MODELS["alpaca_eval_2"]
    assert len(lines) == len(rates) + 1
    for model, line in rates.items():
        weights = published_row(replay_dir, model)["length_controlled_v1_weights"]
        assert line.ours == pytest.approx(
            100 * fmean(length_control.predicted_preferences(weights, difficulties)), abs=1e-9
        )
        assert (line.state, line.decimals, line.n) == ("agrees", 6, 805)


def test_predicted_preferences_are_those_recorded_for_vicuna(
    source: LoadedSource, replay_dir: Path
) -> None:
    folder = replay_dir / "alpaca_eval" / FOLDERS["alpaca_eval_2"] / "vicuna-7b-v1.5"
    recorded = [
        row["glm_preference"]
        for row in read_recorded(folder / "annotations_with_glm_preference.json.gz")
    ]
    weights = published_row(replay_dir, "vicuna-7b-v1.5")["length_controlled_v1_weights"]
    difficulties = [float(row["instruction_difficulty"]) for row in source.rows("difficulties")]
    assert length_control.predicted_preferences(weights, difficulties) == pytest.approx(
        recorded, abs=1e-8
    )


# The length-controlled fit. The hub's df_gamed.csv is not at hand, so a synthetic one of the same
# shape stands in for it.


@pytest.fixture(scope="module")
def gamed_csv(source: LoadedSource, tmp_path_factory: pytest.TempPathFactory) -> Path:
    import numpy as np
    import pandas as pd

    draw = np.random.default_rng(0)
    difficulties = [float(row["instruction_difficulty"]) for row in source.rows("difficulties")]
    frames = [
        pd.DataFrame(
            {
                "preference": np.clip(
                    0.5 + shift / 2 + draw.normal(0, 0.1, len(difficulties)), 0, 1
                ),
                "index": range(len(difficulties)),
                "std_delta_len": -shift + draw.normal(0, 1, len(difficulties)),
                "instruction_difficulty": difficulties,
                "not_gamed_baseline": False,
                "model": name,
            }
        )
        for name, shift in (("baseline_concise", -0.5), ("baseline_verbose", 0.3))
    ]
    file = tmp_path_factory.mktemp("gamed") / "df_gamed.csv"
    pd.concat(frames, ignore_index=True).to_csv(file, index=False)
    return file


@pytest.mark.filterwarnings("ignore::FutureWarning:sklearn")
@pytest.mark.parametrize("model", ["vicuna-7b-v1.5", "FuseChat-Llama-3.1-8B-Instruct"])
@pytest.mark.parametrize("n_unreadable", [0, 7])
def test_the_fit_is_the_packages_own_on_real_annotations(
    source: LoadedSource,
    replay_dir: Path,
    gamed_csv: Path,
    monkeypatch: pytest.MonkeyPatch,
    model: str,
    n_unreadable: int,
) -> None:
    import pandas as pd
    import sklearn

    glm = length_control._glm()
    rows = [dict(row) for row in annotations(replay_dir, "alpaca_eval_2", model)]
    for row in rows[100 : 100 + n_unreadable]:
        row["preference"] = None
    monkeypatch.setattr(glm, "hf_hub_download", lambda **_: str(gamed_csv))
    with sklearn.config_context():
        expected = glm.get_length_controlled_winrate(pd.DataFrame(rows), save_weights_dir=None)

    gamed = tuple(
        AlpacaEval.dataset.tables["df_gamed"].canonical(row, "")
        for row in read_csv(gamed_csv.read_bytes())
    )
    benchmark = AlpacaEval(chat=True)
    by_instruction = {
        item.instruction: item
        for item in benchmark.items(replace(source, tables={**source.tables, "df_gamed": gamed}))
    }
    findings = [Finding("recorded", preference=row["preference"]) for row in rows]
    grades = graded(by_instruction, "alpaca_eval_2", rows, findings)
    cell = benchmark.summarize(list(reversed(grades)))["alpaca_eval_2_lc"]
    assert cell.value is not None
    assert 100 * cell.value == pytest.approx(expected["length_controlled_winrate"], abs=1e-9)
    # Theirs, the spread of the predictions, takes the fitted weights for known; the bootstrap does
    # not.
    assert cell.estimator == "bootstrap"
    assert cell.stderr is not None
    assert expected["lc_standard_error"] / 100 < cell.stderr < 0.03
    assert (cell.n, cell.n_items) == (805 - n_unreadable, 805 - n_unreadable)


def test_replay_fits_where_the_hubs_file_is_among_the_data(
    gamed_csv: Path,
    data_dir: Path,
    replay_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A synthetic file, so that the fit is made and its figure is another than the
    published one.
    """
    data, corpus = tmp_path / "data" / "alpaca_eval", tmp_path / "alpaca_eval"
    data.mkdir(parents=True)
    for file in (data_dir / "alpaca_eval").iterdir():
        (data / file.name).symlink_to(file)
    shutil.copyfile(gamed_csv, data / "df_gamed.csv")
    monkeypatch.setattr(AlpacaEval, "dataset", replace(AlpacaEval.dataset, files={}))
    about = json.loads((replay_dir / "alpaca_eval" / "README.json").read_text("utf-8"))
    (record,) = [record for record in about["published"] if record["model"] == "alpaca-7b"]
    (file,) = [file for file in about["files"] if "/alpaca-7b/annotations" in file["path"]]
    (corpus / file["path"]).parent.mkdir(parents=True)
    shutil.copyfile(replay_dir / "alpaca_eval" / file["path"], corpus / file["path"])
    (corpus / "README.json").write_text(
        json.dumps(about | {"published": [record], "files": [file]}), "utf-8"
    )
    (line,) = [
        line for line in replay(corpus, data.parent) if line.figure == "length_controlled_winrate"
    ]
    assert line.ours is not None
    assert (line.state, line.n, line.why) == ("differs", 805, "")
    assert 0 < line.ours < 100


def test_equal_lengths_everywhere_are_not_fitted() -> None:
    judged = [length_control.Judged(row, 10, 12, 1.0) for row in range(3)]
    metric = length_control.win_rate(judged, [{}])
    assert (metric.value, metric.reason) == (
        None,
        "length control needs answers of different lengths",
    )


def _run(program: str) -> subprocess.CompletedProcess[str]:
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("LOGNAME", "USER", "LNAME", "USERNAME")
    }
    root = Path(__file__).resolve().parents[2]
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_importing_the_package_for_the_fit_leaves_environment_and_logging_as_they_were() -> None:
    done = _run(
        "import logging, os; from tasks import length_control as lc; before = dict(os.environ);"
        " lc._glm();assert dict(os.environ) == before; assert logging.getLogger().level =="
        " logging.WARNING; print('same')"
    )
    assert done.stdout == "same\n", done.stderr


def test_judging_does_not_import_the_package_or_pandas() -> None:
    done = _run(
        "import sys; from tasks.alpaca_judges import judge_request; judge_request('alpaca_eval_1',"
        " 'a', 'b', 'c');print(sorted({'alpaca_eval', 'pandas', 'sklearn', 'datasets'} &"
        " set(sys.modules)))"
    )
    assert done.stdout == "[]\n", done.stderr


def synthetic(n: int) -> tuple[list[length_control.Judged], list[Row]]:
    """n judged instructions, one of them unreadable, and two gamed baselines on the same."""
    import numpy as np

    draw = np.random.default_rng(8)
    difficulty = draw.normal(0, 1, n).round(3).tolist()
    judged = [
        length_control.Judged(
            row,
            1000,
            1000 + int(draw.integers(-600, 600)),
            None if row == 3 else round(draw.random(), 2),
        )
        for row in range(n)
    ]
    gamed: list[Row] = [
        {
            "index": str(row),
            "preference": f"{draw.random():.2f}",
            "std_delta_len": f"{draw.normal(shift, 1):.3f}",
            "instruction_difficulty": str(difficulty[row]),
            "not_gamed_baseline": "False",
        }
        for shift in (-0.5, 0.5)
        for row in range(n)
    ]
    return judged, gamed


def test_a_replicate_is_the_penalised_fit_to_one_draw_of_the_instructions() -> None:
    """Fitted anew with scipy: the weighted log-likelihood less RIDGE / 2 times the squared weights,
    then the rate at equal lengths.
    """
    import numpy as np
    from scipy.optimize import minimize
    from scipy.special import expit, log_expit

    judged, gamed = synthetic(40)
    gap = np.array([1000.0 - one.n_chars for one in judged])
    difficulty = np.array([float(row["instruction_difficulty"]) for row in gamed[:40]])
    own = np.column_stack([np.tanh(gap / gap.std(ddof=1)), difficulty, np.ones(40)])
    theirs = np.array(
        [
            [np.tanh(float(row["std_delta_len"])), float(row["instruction_difficulty"]), 0.0]
            for row in gamed
        ]
    )
    preferences = [np.nan if one.preference is None else one.preference for one in judged]
    target = np.array([*preferences, *(float(row["preference"]) for row in gamed)])
    draws = np.random.default_rng(0).multinomial(40, np.full(40, 1 / 40), 3)
    expected = []
    for draw in draws:
        weight = np.concatenate([np.where(np.isnan(target[:40]), 0, draw), np.full(80, 0.1)])
        features, wanted = np.vstack([own, theirs]), np.nan_to_num(target)

        def loss(
            w: np.ndarray,
            weight: np.ndarray = weight,
            features: np.ndarray = features,
            wanted: np.ndarray = wanted,
        ) -> float:
            z = features @ w
            return float(
                -np.sum(weight * (wanted * log_expit(z) + (1 - wanted) * log_expit(-z)))
                + length_control.RIDGE / 2 * w @ w
            )

        fitted = minimize(loss, np.zeros(3), tol=1e-12).x
        expected.append(float(np.sum(draw * expit(fitted[1] * difficulty + fitted[2])) / 40))
    assert length_control.replicates(list(reversed(judged)), gamed, 3) == pytest.approx(
        expected, abs=1e-5
    )


def test_the_rates_interval_is_that_of_its_effective_sample_size() -> None:
    found = length_control.metric_of(0.3, 0.02, 500)
    assert (found.value, found.stderr, found.n, found.n_items) == (0.3, 0.02, 500, 500)
    assert found.ci95 == stats.effective_wilson(0.3, 0.02, 500)
    assert length_control.metric_of(0.0, 0.0, 500).ci95 == stats.wilson_interval(0.0, 500)


def test_two_different_lengths_are_enough_and_readable_annotations_are_counted() -> None:
    judged, gamed = synthetic(40)
    two = [replace(one, n_chars=1000 + 100 * (one.row % 2)) for one in judged]
    found = length_control.win_rate(two, gamed)
    assert found.value is not None
    assert (found.n, found.n_items) == (39, 39)
    equal = length_control.win_rate([replace(one, n_chars=1000) for one in judged], gamed)
    assert (equal.value, equal.n, equal.n_items) == (None, 39, 39)


def test_a_row_that_is_no_gamed_baseline_is_read_as_one_that_counts_whole() -> None:
    _, gamed = synthetic(4)
    frame = length_control._gamed_frame([{**gamed[0], "not_gamed_baseline": "True"}, gamed[1]])
    assert frame["not_gamed_baseline"].tolist() == [True, False]
