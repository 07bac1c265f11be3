"""`evals run --log`: the real libraries, each on this machine alone; what is missing or down."""

import json
import sqlite3
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from evals.errors import InputError
from evals.report import trackers
from evals.report.trackers import log_run, numbers, require
from evals.runs.writing import RunResult
from evals.storage.run_folder import RunFolder
from tests.unit.conftest import Call, Make

VARIABLES = (
    "WANDB_MODE", "WANDB_PROJECT", "WANDB_API_KEY", "WANDB_RUN_ID", "WANDB_BASE_URL",
    "TRACKIO_PROJECT", "TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL",
    "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID", "MLFLOW_RUN_ID",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT",
)  # fmt: skip


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in; no tracker of the machine's is seen."""
    for name in VARIABLES:
        # Set, then taken away: what the code under test sets is undone too.
        monkeypatch.setenv(name, "x")
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def result(recorded: Make) -> RunResult:
    folder = RunFolder(recorded("tracked", tasks=("gsm8k", "xstest")))
    return RunResult(folder, folder.read_json("summary.json"), 0)


def test_the_numbers_are_the_cells_with_their_intervals_and_counts(result: RunResult) -> None:
    found, cell = numbers(result), result.summary["cells"]["gsm8k"]
    assert found["evals/gsm8k"] == cell["value"] == 1.0
    assert [found[f"evals/gsm8k_ci95_{end}"] for end in ("low", "high")] == cell["ci95"]
    assert found["evals/missing"] == 0
    assert found["evals/warnings"] == sum(
        len(task["warnings"]) for task in result.summary["tasks"].values()
    )
    # The Average has no number here: none is made up.
    assert "evals/average" not in found
    assert all(isinstance(value, int | float) for value in found.values())


def test_wandb_keeps_the_run_offline(
    result: RunResult, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_DIR", str(home))
    require("wandb", offline=True)
    assert log_run("wandb", result, 2000, series="my run") is None
    # Steps of one series are one run there, which its id says.
    (file,) = home.glob("wandb/offline-run-*/run-my-run.wandb")
    logged: dict[str, Any] = {}
    artifacts = []
    for record in wandb_records(file):
        for item in record.history.item:
            logged["/".join(item.nested_key) or item.key] = json.loads(item.value_json)
        artifacts += [one.path for one in record.request.log_artifact.artifact.manifest.contents]
        artifacts += [one.path for one in record.artifact.manifest.contents]
    assert logged["evals/step"] == 2000
    assert {key: logged[key] for key in numbers(result)} == numbers(result)
    assert {"table.md", "page.html"} <= set(artifacts)


def wandb_records(file: Path) -> Iterator[Any]:
    """The records of a run that wandb kept: LevelDB's log format, behind seven bytes of its own."""
    from wandb.proto import wandb_internal_pb2

    raw, at, whole = file.read_bytes(), 7, b""
    while at + 7 <= len(raw):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        size, kind = struct.unpack("<HB", raw[at + 4 : at + 7])
        whole, at = whole + raw[at + 7 : at + 7 + size], at + 7 + size
        if kind in (1, 4):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            yield record
            whole = b""


def test_trackio_has_a_line_over_steps_in_whatever_order(
    result: RunResult, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    import trackio
    from trackio.sqlite_storage import SQLiteStorage

    for module in list(sys.modules.values()):
        if getattr(module, "__name__", "").startswith("trackio") and hasattr(module, "TRACKIO_DIR"):
            monkeypatch.setattr(module, "TRACKIO_DIR", home / "trackio")
    require("trackio", offline=True)
    for step in (2000, 1000):  # a step that goes backwards
        assert log_run("trackio", result, step) is None
    assert capsys.readouterr().out == ""
    assert trackio.__version__
    logs = SQLiteStorage.get_logs("evals", result.summary["model"]["name"])
    assert sorted(entry["step"] for entry in logs) == [1000, 2000]
    for entry in logs:
        assert {key: entry[key] for key in numbers(result)} == numbers(result)
    (database,) = (home / "trackio").glob("evals.db")
    with sqlite3.connect(database) as db:
        tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master")}
    assert any("artifact" in name for name in tables)


def test_mlflow_has_metrics_tags_table_and_page(
    result: RunResult, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{home}/mlruns")
    require("mlflow", offline=True)
    assert log_run("mlflow", result, 2000) is None
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("evals")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == result.summary["model"]["name"]
    assert run.data.metrics == pytest.approx(numbers(result))
    assert client.get_metric_history(run.info.run_id, "evals/gsm8k")[0].step == 2000
    assert run.data.tags["evals/suite"] == "smoke"
    kept = {file.path for file in client.list_artifacts(run.info.run_id, "evals")}
    assert kept == {"evals/table.md", "evals/page.html"}
    # Into the training's own run, at a further step, with another model.
    result.summary["model"]["fingerprint"] = "another"  # type: ignore[index]
    monkeypatch.setenv("MLFLOW_RUN_ID", run.info.run_id)
    assert log_run("mlflow", result, 3000) is None
    history = client.get_metric_history(run.info.run_id, "evals/gsm8k")
    assert [point.step for point in history] == [2000, 3000]
    # Steps of one series find their run by its name.
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)  # mlflow takes it away itself
    for step in (100, 200):
        assert log_run("mlflow", result, step, series="train") is None
    (series,) = client.search_runs([experiment.experiment_id], "attributes.run_name = 'train'")
    history = client.get_metric_history(series.info.run_id, "evals/gsm8k")
    assert [point.step for point in history] == [100, 200]


def test_a_tracker_that_is_down_is_a_warning_and_the_run_is_done(
    evals: Call, recorded: Make, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = recorded("tracked", tasks=("gsm8k", "xstest")).with_suffix(".jsonl")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    code, out, err = evals(
        "run", f"replay:{recording}", "--suite", "smoke", "--tasks", "gsm8k",
        "--out", home / "run", "--log", "mlflow", "--step", "7",
    )  # fmt: skip
    assert code == 0
    assert "| tracked (smoke suite) |" in out
    assert "warning: mlflow has not got this run (" in err
    assert f"It is complete in {home / 'run'}" in err


@pytest.mark.parametrize(
    ("arguments", "environment", "words"),
    [
        (("--step", "5"), {}, "--step goes with --log"),
        (("--log", "tensorboard"), {}, "--log tensorboard: known are wandb, trackio, mlflow"),
        (("--log", "wandb"), {}, "--log wandb has no key. Log in with `wandb login`"),
        (
            ("--log", "mlflow", "--offline"),
            {"MLFLOW_TRACKING_URI": "https://me:secret@mlflow.example.org"},
            "--offline and --log mlflow to a server, by MLFLOW_TRACKING_URI. Unset",
        ),
        (
            ("--log", "trackio", "--offline"),
            {"TRACKIO_SPACE_ID": "me/space"},
            "--offline and --log trackio to a server, by TRACKIO_SPACE_ID. Unset",
        ),
        (("--log", "mlflow", "--step", "-1"), {}, "greater than or equal to 0"),
    ],
)
def test_what_cannot_be_logged_is_said_before_anything_is_loaded(
    evals: Call,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    environment: dict[str, str],
    words: str,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    code, out, err = evals("run", "nowhere/at-all", "--out", home / "run", *arguments)
    assert (code, out) == (2, "")
    assert words in err
    assert not (home / "run").exists()


@pytest.mark.parametrize("tracker", trackers.TRACKERS)
def test_a_library_that_is_not_there_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, tracker: str
) -> None:
    monkeypatch.setitem(sys.modules, tracker, None)
    with pytest.raises(InputError, match=rf"pip install 'model-card-evals\[{tracker}\]'"):
        require(tracker, offline=True)


def test_the_servers_of_this_machine_are_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    for address in ("http://localhost:5000", "http://127.0.0.1:5000", "./mlruns", "sqlite:///x.db"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        require("mlflow", offline=True)
