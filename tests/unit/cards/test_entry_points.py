"""Benchmarks that installed packages declare: found by name, listed, and none hides another."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from evals.registry import BENCHMARKS
from evals.report.pages import tasks_list
from evals.runs.contract import write_skeleton

ROOT = Path(__file__).resolve().parents[3]
PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "strangers-sums"
version = "1"
[project.entry-points."evals.benchmarks"]
stranger_sums = "stranger_sums:Written"
stranger_sums_choice = "stranger_sums:Chosen"
[tool.hatch.build.targets.wheel]
include = ["stranger_sums.py", "smoke"]
"""
Call = Callable[..., subprocess.CompletedProcess[str]]


def by_hand(site: Path, package: str, entries: str) -> None:
    """An installed package's metadata."""
    folder = site / f"{package}-1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1\n")
    (folder / "entry_points.txt").write_text(f"[evals.benchmarks]\n{entries}\n")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an installed package that ships two benchmarks, and others that are wrong."""
    home = tmp_path_factory.mktemp("strangers")
    write_skeleton("stranger_sums", home / "project")
    (home / "project" / "pyproject.toml").write_text(PROJECT)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    pip += ["--no-build-isolation", "--target", str(home / "site"), str(home / "project")]
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    site = home / "site"
    (site / "broken_inside.py").write_text("import no_such_module_of_theirs\n")
    by_hand(site, "aaa_broken", "broken = broken_inside:Sums\nhalf = stranger_sums")
    by_hand(site, "bold", "gsm8k = stranger_sums:Written\nsums = stranger_sums:Written")
    by_hand(site, "first", "both = stranger_sums:Written")
    by_hand(site, "second", "both = stranger_sums:Chosen")
    by_hand(site, "unreadable", "this is no entry\n[[[")
    return site


@pytest.fixture(scope="module")
def evals(site: Path) -> Call:
    """The command line, where that folder is installed."""

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{site}"}
        command = [sys.executable, "-m", "evals", *arguments]
        return subprocess.run(
            command, cwd=site.parent, env=environment, capture_output=True, text=True, check=False
        )

    return call


def card(folder: Path, *benchmarks: str) -> Path:
    """A card that names them."""
    columns = "".join(
        f'[[column]]\nkey = "c{n}"\nheading = "C{n}"\nbenchmark = "{name}"\nmetric = "{metric}"\n'
        for n, (name, metric) in enumerate((one, *two) for one, *two in benchmarks)
    )
    file = folder / "strangers.toml"
    file.write_text(f'title = "Strangers"\n{columns}')
    return file


def test_they_are_listed_and_what_is_wrong_with_others_is_a_sentence_each(evals: Call) -> None:
    done = evals("tasks")
    assert done.returncode == 0, done.stderr
    lines = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert lines["stranger_sums"].endswith("accuracy  (of the package strangers-sums)")
    assert lines["stranger_sums_choice"].endswith("chosen  (of the package strangers-sums)")
    assert "No module named 'no_such_module_of_theirs'" in lines["broken"]
    assert "aaa_broken, anew" in lines["broken"]
    assert "cannot be imported" in lines["half"]
    assert "calls itself stranger_sums: they must be one name" in lines["sums"]
    assert "declared by first and by second" in lines["both"]
    assert "GSM8k 8-shot cot" in lines["gsm8k"]
    assert (
        "declares stranger_sums:Written as the benchmark gsm8k, which is one of ours"
        in (done.stdout.splitlines()[-1])
    )
    assert len(done.stdout.splitlines()) == 8 + 6 + 1


def test_one_of_ours_that_cannot_be_imported_hides_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(BENCHMARKS, "ifeval", "tasks.no_such_module_of_ours:IFEval")
    lines = {line.split()[0]: line for line in tasks_list().splitlines()}
    assert "cannot be imported (ModuleNotFoundError: No module named" in lines["ifeval"]
    assert lines["ifeval"].endswith("Install this program anew.")
    assert "XSTest safe but ref." in lines["xstest"]


def test_a_card_names_them_and_a_run_asks_them(evals: Call, site: Path, tmp_path: Path) -> None:
    file = card(tmp_path, ("stranger_sums", "accuracy"), ("stranger_sums_choice", "chosen"))
    shown = evals("cards", str(file))
    assert "asks stranger_sums\n" in shown.stdout, shown.stderr
    rows = [{"id": f"stranger_sums/{n}", "outputs": [text]} for n, text in enumerate("574")]
    letters = [{"A": -1.0, "B": -0.1 if n == 0 else -3.0, "C": -2.0} for n in range(3)]
    rows += [
        {"id": f"stranger_sums_choice/{n}", "choice_logprobs": one} for n, one in enumerate(letters)
    ]
    (tmp_path / "said.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = ["run", f"replay:{tmp_path / 'said.jsonl'}", "--card", str(file), "--suite", "smoke"]
    done = evals(*asked, "--out", str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    cells = json.loads((tmp_path / "run" / "summary.json").read_text())["cells"]
    assert (cells["c0"]["value"], cells["c1"]["value"]) == (1.0, pytest.approx(2 / 3))
    again = evals("report", str(tmp_path / "run"))
    assert "| 100.0 | 66.7 |" in again.stdout, again.stderr


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("broken", "cannot be imported"),
        ("both", "Name one by its class: stranger_sums:Chosen or stranger_sums:Written"),
        ("stranger_sum", "Did you mean stranger_sums"),
    ],
)
def test_a_card_that_names_a_wrong_one_is_refused(
    name: str, words: str, evals: Call, tmp_path: Path
) -> None:
    done = evals("cards", str(card(tmp_path, (name, "accuracy"))))
    assert (done.returncode, words in done.stderr) == (2, True), done.stderr
    assert done.stderr.count("\n") == 1
