"""A finished run in an experiment tracker: its numbers at a step, its table and page as an
artifact.

Project, server, run to go on with and offline mode are each tracker's own variables
(WANDB_PROJECT, WANDB_MODE, WANDB_RUN_ID, TRACKIO_PROJECT, TRACKIO_SPACE_ID, MLFLOW_TRACKING_URI,
MLFLOW_EXPERIMENT_NAME, MLFLOW_RUN_ID, …).
"""

import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from evals.errors import InputError, first_line
from evals.report.html import write_report
from evals.report.run_row import row_from_summary
from evals.report.table import markdown
from evals.runs.writing import RunResult

PROJECT = "evals"
"""Where the tracker's own variables name none."""
_PATIENCE_S = 30
"""How long a tracker may take to answer."""

_SERVERS = {
    "trackio": ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL"),
    "mlflow": ("MLFLOW_TRACKING_URI",),
}
"""Variables that make a tracker a server."""


def require(tracker: str, offline: bool) -> None:
    """Raise InputError where the tracker could not be logged to: its library is not installed, it
    has no key, or it is a server and the run is to open no connection. Offline, wandb keeps what
    is logged on this machine.
    """
    if tracker not in TRACKERS:
        raise InputError(f"--log {tracker}: known are {', '.join(TRACKERS)}.")
    try:
        library = import_module(tracker)
    except ImportError as error:
        raise InputError(
            f"--log {tracker} needs the package {tracker}, which cannot be imported ({error})."
            f" Bring it with: pip install 'model-card-evals[{tracker}]'"
        ) from error
    if tracker == "wandb" and offline:
        os.environ["WANDB_MODE"] = "offline"
    if tracker == "wandb" and not _has_key(library):
        raise InputError(
            "--log wandb has no key. Log in with `wandb login`, or keep it on this machine with"
            " WANDB_MODE=offline."
        )
    for name in _SERVERS.get(tracker, ()):
        if offline and _is_far(os.environ.get(name, "")):
            raise InputError(
                f"--offline and --log {tracker} to a server, by {name}. Unset {name} to log on this"
                " machine, or leave one of the options out."
            )


def _has_key(wandb: Any) -> bool:
    """Whether wandb would log without asking for a key, which nobody may be there to give."""
    if os.environ.get("WANDB_MODE", "online") != "online":
        return True
    try:
        return bool(wandb.login(prompt=False))
    except TypeError:  # before 0.31 it could not be asked
        return True


def _is_far(address: str) -> bool:
    """Whether an address is not on this machine: neither a folder or file, nor a local port."""
    near = ("file:", "sqlite:", "/", ".", "http://localhost", "http://127.0.0.1", "http://[::1]")
    return bool(address) and not address.startswith(near)


def log_run(
    tracker: str,
    result: RunResult,
    step: int | None = None,
    data: Path | None = None,
    series: str | None = None,
) -> str | None:
    """Log a run; None, or why it could not be, which leaves the run as it is.

    step: of the training run that the model comes from.  series: what several steps are called
    that are to be points of one line in the tracker.
    """
    summary = result.summary
    try:
        # trackio prints where our own table goes.
        with (
            contextlib.redirect_stdout(sys.stderr),
            tempfile.TemporaryDirectory(prefix="evals-") as kept,
        ):
            files = [Path(kept, "table.md"), Path(kept, "page.html")]
            files[0].write_text(markdown([row_from_summary(summary)]), "utf-8")
            write_report(files[1], [result.folder.path], None, data)
            name, values = series or summary["model"]["name"], numbers(result)
            _LOGGERS[tracker](name, about(summary), values, step, files, series is not None)
    except Exception as error:  # noqa: BLE001  whatever a tracker raises, the run is done
        return (
            f"{tracker} has not got this run ({first_line(error)}). It is complete in"
            f" {result.folder.path}, and the same command logs it again without asking anything."
        )
    return None


def numbers(result: RunResult) -> dict[str, float]:
    """What is logged, by name: every cell that has a number and its 95 % interval, as fractions;
    how many warnings and marks there are, and how many answers and verdicts are missing.
    """
    found: dict[str, float] = {}
    for key, cell in result.summary["cells"].items():
        if cell["value"] is not None:
            found[f"evals/{key}"] = cell["value"]
            if cell["ci95"] is not None:
                found[f"evals/{key}_ci95_low"], found[f"evals/{key}_ci95_high"] = cell["ci95"]
    tasks = result.summary["tasks"].values()
    found["evals/warnings"] = sum(len(task["warnings"]) for task in tasks)
    marks = {mark for cell in result.summary["cells"].values() for mark in cell["marks"]}
    return found | {"evals/marks": len(marks), "evals/missing": result.n_missing}


def about(summary: Mapping[str, Any]) -> dict[str, Any]:
    """What the numbers are of."""
    names = ("protocol", "suite", "limit", "chat_format", "seed")
    return {name: summary[name] for name in names} | {
        f"model_{name}": value for name, value in summary["model"].items()
    }


def _wandb(
    name: str,
    config: Mapping[str, Any],
    values: Mapping[str, float],
    step: int | None,
    files: list[Path],
    goes_on: bool,
) -> None:
    import wandb

    run = wandb.init(
        project=os.environ.get("WANDB_PROJECT", PROJECT),
        name=os.environ.get("WANDB_NAME", name),
        id=os.environ.get("WANDB_RUN_ID") or (_slug(name) if goes_on else None),
        config={"evals": dict(config)},
        # With WANDB_RUN_ID the numbers go into a training run that is there.
        resume="allow",
        settings=wandb.Settings(init_timeout=_PATIENCE_S, console="off"),
    )
    # An axis of their own: wandb would drop a step behind the training run's last.
    run.define_metric("evals/step")
    run.define_metric("evals/*", step_metric="evals/step")
    run.log({**values, **({} if step is None else {"evals/step": step})})
    _keep_files(wandb, run, name, files)


def _trackio(
    name: str,
    config: Mapping[str, Any],
    values: Mapping[str, float],
    step: int | None,
    files: list[Path],
    goes_on: bool,
) -> None:
    import trackio

    run = trackio.init(
        project=os.environ.get("TRACKIO_PROJECT", PROJECT),
        name=name,
        config={key: value for key, value in config.items() if value is not None},
        # The same name at another step is a further point of the same line.
        resume="allow",
        auto_log_gpu=False,
        auto_log_cpu=False,
    )
    run.log(dict(values), step=step)
    _keep_files(trackio, run, name, files)


def _keep_files(tracker: Any, run: Any, name: str, files: list[Path]) -> None:
    """Files as an artifact, in the calls that wandb and trackio share; the run's end."""
    artifact = tracker.Artifact(_slug(f"evals-{name}"), type="evaluation")
    for file in files:
        artifact.add_file(str(file))
    run.log_artifact(artifact)
    run.finish()


def _mlflow(
    name: str,
    config: Mapping[str, Any],
    values: Mapping[str, float],
    step: int | None,
    files: list[Path],
    goes_on: bool,
) -> None:
    # Its own defaults wait many minutes for a server that is not there.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(_PATIENCE_S))
    import mlflow

    if not {"MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID"} & os.environ.keys():
        mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT))
    before = None
    if goes_on and "MLFLOW_RUN_ID" not in os.environ:
        quoted = name.replace("\\", "").replace("'", "")
        called = f"attributes.run_name = '{quoted}'"
        found = mlflow.search_runs(filter_string=called, max_results=1, output_format="list")
        before = found[0].info.run_id if found else None
        name = quoted
    with mlflow.start_run(run_id=before, run_name=name):
        # A parameter could not change from one step of a run to the next.
        mlflow.set_tags({f"evals/{key}": value for key, value in config.items()})
        mlflow.log_metrics(dict(values), step=step)
        for file in files:
            mlflow.log_artifact(str(file), "evals")


def _slug(name: str) -> str:
    return "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in name)[:100]


_LOGGERS: Mapping[str, Callable[..., None]] = {
    "wandb": _wandb,
    "trackio": _trackio,
    "mlflow": _mlflow,
}
TRACKERS = tuple(_LOGGERS)
