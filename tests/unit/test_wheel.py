"""The built wheel works outside the clone: published rows and smoke items travel with it."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel's content, built from the clone."""
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
    (wheel,) = folder.glob("*.whl")
    site = folder / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return site


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
    recorded = tmp_path / "recorded.jsonl"
    rows = [
        {"id": f"gsm8k/{index}", "outputs": [f"So the answer is {index}."]} for index in range(6)
    ]
    recorded.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "run"
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
