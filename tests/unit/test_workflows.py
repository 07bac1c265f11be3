"""The ready workflow: read as GitHub reads it, and its own steps run here as they stand, with
recorded answers for a checkpoint.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from evals.commands.app import app
from evals.compare.policy import read_policy
from evals.plan.settings import RunSettings
from evals.runs.session import run
from tests.unit.commands.test_app import recorded_rows

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def workflow(file: Path) -> dict[Any, Any]:
    loaded = yaml.safe_load(file.read_text("utf-8"))
    assert isinstance(loaded, dict)
    return loaded


def steps(file: Path) -> list[dict[str, Any]]:
    return [step for job in workflow(file)["jobs"].values() for step in job.get("steps", [])]


GATE = next(file for file in WORKFLOWS if file.name == "gate.yml")
CI = next(file for file in WORKFLOWS if file.name == "ci.yml")
ON = True  # YAML 1.1 reads the key `on` so


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)
def test_no_expression_is_pasted_into_a_shell(file: Path) -> None:
    assert not [step["run"] for step in steps(file) if "${{" in step.get("run", "")]


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)
def test_every_action_is_githubs_own_at_a_major_version(file: Path) -> None:
    used = [step["uses"] for step in steps(file) if "uses" in step]
    assert used
    assert all(re.fullmatch(r"actions/[a-z-]+@v\d+", name) for name in used)


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)
def test_every_job_says_what_it_may_do_and_nothing_may_write_but_the_comment(file: Path) -> None:
    loaded = workflow(file)
    for job in loaded["jobs"].values():
        permissions = job.get("permissions", loaded.get("permissions"))
        assert {name for name, right in permissions.items() if right != "read"} <= {"pull-requests"}


def test_every_input_is_used_and_every_use_is_an_input() -> None:
    text = GATE.read_text("utf-8").split("\njobs:", 1)[1]
    used = set(re.findall(r"inputs\.([a-z-]+)", text))
    assert used == set(workflow(GATE)[ON]["workflow_call"]["inputs"])


def test_the_projects_own_gate_gives_only_inputs_there_are_and_a_policy_that_reads() -> None:
    job = workflow(CI)["jobs"]["gate"]
    inputs = workflow(GATE)[ON]["workflow_call"]["inputs"]
    assert (ROOT / job["uses"]).resolve() == GATE
    assert set(job["with"]) <= set(inputs)
    assert {name for name, one in inputs.items() if one.get("required")} <= set(job["with"])
    policy = read_policy(ROOT / job["with"]["policy"])
    assert (policy.rule("mmlu").drop, policy.rule("humaneval").drop) == (0.01, 1.0)


def test_the_caller_shown_in_the_file_gives_only_inputs_there_are() -> None:
    shown = "\n".join(
        line.removeprefix("#").removeprefix(" ")
        for line in GATE.read_text("utf-8").splitlines()
        if line.startswith("#   ")
    )
    job = yaml.safe_load(shown)["jobs"]["gate"]
    assert set(job["with"]) <= set(workflow(GATE)[ON]["workflow_call"]["inputs"])
    assert job["permissions"] == workflow(GATE)["jobs"]["gate"]["permissions"]


def test_the_caller_shown_beside_the_program_gives_only_inputs_there_are() -> None:
    (shown,) = re.findall(
        r"```yaml\n(.*?)```", (ROOT / "evals" / "README.md").read_text("utf-8"), re.DOTALL
    )
    job = yaml.safe_load(shown)["jobs"]["gate"]
    inputs = workflow(GATE)[ON]["workflow_call"]["inputs"]
    assert set(job["with"]) <= set(inputs)
    assert {name for name, one in inputs.items() if one.get("required")} <= set(job["with"])


def test_the_projects_own_baseline_is_what_its_gates_command_makes() -> None:
    given = workflow(CI)["jobs"]["gate"]["with"]
    head = json.loads((ROOT / given["baseline"] / "run.json").read_text())
    summary = json.loads((ROOT / given["baseline"] / "summary.json").read_text())
    assert (head["model"], summary["suite"], summary["limit"]) == (
        given["checkpoint"],
        given["suite"],
        None,
    )
    assert summary["model"]["dtype"] == "float32"
    assert {entry["name"] for entry in summary["judges"].values()} == {"smollm2"}
    assert [
        task for task in summary["tasks"].values() if task["n_answered"] != task["n_items"]
    ] == []


# --- GitLab ---------------------------------------------------------------------------------------


def test_gitlabs_template_gives_only_variables_it_declares_and_options_there_are() -> None:
    text = (ROOT / ".gitlab" / "gate.yml").read_text("utf-8")
    job = yaml.safe_load(text)[".evals-gate"]
    script = "\n".join(job["script"])
    used = set(re.findall(r"\$\{?([A-Z_]+)", script)) - {"CI_PIPELINE_SOURCE"}
    assert used == set(job["variables"])
    for command, words in re.findall(r"bin/evals (\w+) ([^|;\n]*)", script):
        whole = "--help-all" if command == "run" else "--help"
        shown = CliRunner().invoke(app, [command, whole], env={"COLUMNS": "300"}).output
        options = re.findall(r"(?<!\S)(?:\$\{\w+:\+)?(--[a-z]+)", words)
        assert options
        assert all(option in shown.split() for option in options), (command, options)
    assert job["artifacts"]["reports"]["junit"] in script
    shown = "\n".join(
        line.removeprefix("#").removeprefix(" ") for line in text.splitlines() if "#   " in line[:4]
    )
    caller = yaml.safe_load(shown)["gate"]
    assert caller["extends"] == ".evals-gate"
    assert set(caller["variables"]) <= set(job["variables"])


def test_gitlabs_script_fails_with_its_table_and_tests_written(runner: Path) -> None:
    """Line after line in one bash, as its runner does; what fetches and sets up is done before."""
    job = yaml.safe_load((ROOT / ".gitlab" / "gate.yml").read_text("utf-8"))[".evals-gate"]
    clone, setup, *script = job["script"]
    assert (clone.partition(" ")[0], setup.partition(" ")[0]) == ("git", ".evals/scripts/setup")
    (runner / "checkpoint.txt").write_text("replay:bad.jsonl\n")
    given = {"BASELINE": "baselines/smoke", "SUITE": "smoke", "ARGUMENTS": "--tasks gsm8k"}
    done = subprocess.run(
        ["bash", "-e", "-c", "\n".join(script)],
        cwd=runner,
        env=os.environ | job["variables"] | given | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 1, done.stderr
    assert (runner / "gate" / "table.md").read_text().startswith("Hold it back: ")
    written = {*job["artifacts"]["paths"], job["artifacts"]["reports"]["junit"]}
    assert all((runner / name).exists() for name in written)


# --- its steps, run -------------------------------------------------------------------------------


@pytest.fixture
def runner(tmp_path: Path) -> Path:
    """A runner's folder after checkout and set-up: a baseline, a checkpoint named in a file, and
    evals installed in .evals.
    """
    for name, answer in (("good", None), ("bad", "So the answer is 99999.")):
        rows = [
            row | {"outputs": [answer]} if answer and row["id"].startswith("gsm8k/") else row
            for row in recorded_rows()
        ]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run(
        RunSettings(
            f"replay:{tmp_path}/good.jsonl", suite="smoke", out=tmp_path / "baselines" / "smoke"
        )
    )
    program = tmp_path / ".evals" / ".venv" / "bin" / "evals"
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m evals "$@"\n')
    program.chmod(0o755)
    return tmp_path


def run_step(folder: Path, name: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """One step of the gate, by GitHub's own way of calling bash."""
    (script,) = [step["run"] for step in steps(GATE) if step.get("name") == name]
    job = {
        "EVALS": ".evals",
        "SUITE": "smoke",
        "BASELINE": "baselines/smoke",
        "GITHUB_ACTIONS": "true",
        "GITHUB_STEP_SUMMARY": str(folder / "summary.md"),
        "PYTHONPATH": str(ROOT),
    }
    empty = dict.fromkeys(
        ("CHECKPOINT", "CHECKPOINT_FILE", "POLICY", "STRICT", "ARGUMENTS", "CUDA"), ""
    )
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script]
    return subprocess.run(
        command,
        cwd=folder,
        env=os.environ | empty | job | environment,
        capture_output=True,
        text=True,
        timeout=600,
    )


def test_a_checkpoint_named_in_a_file_runs_and_passes_and_its_table_is_there_for_the_comment(
    runner: Path,
) -> None:
    (runner / "checkpoint.txt").write_text("replay:good.jsonl\n# the first line counts\n")
    done = run_step(runner, "Run", CHECKPOINT_FILE="checkpoint.txt")
    assert done.returncode == 0, done.stderr
    done = run_step(runner, "Gate", STRICT="--strict")
    assert done.returncode == 0, done.stderr
    assert (
        (runner / "gate" / "table.md").read_text()
        == (runner / "summary.md").read_text()
        == done.stdout
    )
    assert "pass" in done.stdout
    assert {"junit.xml", "check.json", "table.md", "smoke"} <= {
        path.name for path in (runner / "gate").iterdir()
    }


def test_a_checkpoint_that_broke_fails_the_step_with_its_table_written(runner: Path) -> None:
    done = run_step(runner, "Run", CHECKPOINT="replay:bad.jsonl", ARGUMENTS="--tasks gsm8k,ifeval")
    assert done.returncode == 0, done.stderr
    (runner / "gate.toml").write_text("drop = 2.0\n")
    done = run_step(runner, "Gate", POLICY="gate.toml")
    assert done.returncode == 1
    assert "::error title=evals check::regressed: " in done.stderr
    assert (
        "| GSM8k 8-shot cot | 100.0 | 0.0 | -100.00 [-100.00, -"
        in (runner / "gate" / "table.md").read_text()
    )


def test_a_checkpoint_that_cannot_be_run_fails_its_step(runner: Path) -> None:
    (runner / "checkpoint.txt").write_text("no-such-model\n")
    assert run_step(runner, "Run", CHECKPOINT_FILE="checkpoint.txt").returncode == 2
