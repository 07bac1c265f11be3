"""The built wheel works outside the clone: published rows, calibrations and smoke items travel with
it, and what it says it needs is enough on every Python that it is for.
"""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / "lock-cpu.txt"
WITHOUT_WHEELS = ("langdetect", "rouge-score", "sqlitedict", "word2number")
"""Packages of the lock that are Python alone and released as source only."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the clone."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        str(folder),
        str(ROOT),
    ]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path) -> Path:
    """A folder with the wheel's content."""
    site = wheel.parent / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return site


def answers(folder: Path, outputs: Mapping[str, str]) -> Path:
    """A recording of these answers, by their items' ids."""
    recorded = folder / "recorded.jsonl"
    rows = [{"id": name, "outputs": [output]} for name, output in outputs.items()]
    recorded.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return recorded


SIX = {f"gsm8k/{number}": f"So the answer is {number}." for number in range(6)}
"""An answer to each GSM8k item of the smoke suite."""


def evals(site: Path, *arguments: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(site)}
    code = "import sys; from evals.commands.app import main; sys.argv[0] = 'evals'; main()"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, *arguments],
        cwd=site.parent,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_prints_the_published_rows(installed: Path) -> None:
    table = evals(installed, "report", "--published")
    assert (
        "| Tulu 2 Llama 3.1 70b DPO | 76.0 | 88.5 | 79.9 | 89.0 | 96.8 | 24.8 | 78.3 | 63.6 | 9.2 |"
        " 14.0 | 80.5 |" in table
    )


def test_it_scores_recorded_outputs_on_the_smoke_items_it_ships(
    installed: Path, tmp_path: Path
) -> None:
    import evals as package

    assert Path(package.__file__).is_relative_to(ROOT), (
        "the test's own process uses the clone, the subprocess the wheel"
    )
    recorded, out = answers(tmp_path, SIX), tmp_path / "run"
    evals(
        installed,
        "run",
        f"replay:{recorded}",
        "--suite",
        "smoke",
        "--tasks",
        "gsm8k",
        "--out",
        str(out),
    )
    assert json.loads((out / "summary.json").read_text())["cells"]["gsm8k"]["n"] == 6
    evals(installed, "report", str(out), "--html", str(tmp_path / "page.html"))
    assert "<!doctype html>" in (tmp_path / "page.html").read_text("utf-8")[:500]
    assert (installed / "evals" / "storage" / "summary.schema.json").is_file()


def test_a_cell_of_a_calibrated_judge_says_what_the_judge_is_worth(
    installed: Path, tmp_path: Path
) -> None:
    recorded = answers(tmp_path, {f"xstest/{number}": "No." for number in range(1, 9)})
    options = ["--suite", "smoke", "--tasks", "xstest", "--judge", "xstest=strmatch"]
    evals(installed, "run", f"replay:{recorded}", *options, "--out", str(tmp_path / "run"))
    assert "this judge agrees with gpt-4" in evals(installed, "report", str(tmp_path / "run"))


def python_of(version: str) -> str:
    """The interpreter of that version; the test is skipped where there is none."""
    found = shutil.which(f"python{version}")
    # pyenv puts a name for every version on PATH, of which only the chosen ones start.
    kept = Path(found).parent.parent.glob(f"versions/{version}.*/bin/python3") if found else ()
    for python in [found, *sorted(map(str, kept))] if found else ():
        if subprocess.run([python, "-c", "import venv"], capture_output=True).returncode == 0:
            return python
    pytest.skip(f"no Python {version} with the module venv is on this machine")


def locked(folder: Path) -> Path:
    """The lock without torch, whose CPU build no package index has, only PyTorch's own."""
    lines = LOCK.read_text("utf-8").splitlines(keepends=True)
    kept = folder / "lock.txt"
    kept.write_text("".join(line for line in lines if not line.startswith("torch==")))
    return kept


def uv_install(python: Path, *arguments: str | Path) -> None:
    """Install into that Python's environment; the test is skipped where no index answers."""
    command = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", python]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True)
    if "error sending request" in done.stderr:
        pytest.skip("no package index can be reached")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_installed_with_what_it_declares_it_runs_on_every_python_that_the_lock_serves(
    version: str, wheel: Path, tmp_path: Path
) -> None:
    subprocess.run(
        [python_of(version), "-m", "venv", "--without-pip", tmp_path / "env"], check=True
    )
    python, lock = tmp_path / "env" / "bin" / "python", locked(tmp_path)
    binary = ["--only-binary", ":all:"]
    for name in WITHOUT_WHEELS:
        binary += ["--no-binary", name]
    uv_install(python, *binary, "--dry-run", "--no-deps", "--requirements", lock)
    uv_install(python, wheel, "--constraints", lock)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def evals(*arguments: str) -> str:
        done = subprocess.run(
            [python.with_name("evals"), *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "Usage: evals" in evals("--help")
    evals("run", f"replay:{answers(tmp_path, SIX)}", "--suite", "smoke", "--out", "run")
    assert "So the answer is 1." in evals("show", "run", "gsm8k/1")
    assert "| recorded (smoke suite) |" in evals("report", "run")
