"""One's own card as README shows it: its file, and the very commands, on the real engine."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.real_engine import SHORT

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text("utf-8")


def shown(words: str) -> list[str]:
    """The command of README that begins so, as its words."""
    (line,) = re.findall(rf"^{re.escape(words)}.*$", README, re.M)
    return shlex.split(line, comments=True)[1:]


def evals(folder: Path, *arguments: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    # As for a user: the cache is a share of the memory.
    environment.pop("VLLM_CPU_KVCACHE_SPACE", None)
    done = subprocess.run(
        [sys.executable, "-m", "evals", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a user stands, with README's card."""
    folder = tmp_path_factory.mktemp("mine")
    (card,) = re.findall(r"```toml\n(.*?)```", README, re.S)
    (folder / "mine.toml").write_text(card, "utf-8")
    return folder


def test_the_card_is_checked_by_the_command_that_is_shown(folder: Path) -> None:
    said = evals(folder, *shown("evals cards mine.toml"))
    for words in ("asks mmlu.shots-0", "asks gsm8k.shots-2.items-all", "f1): refusal_f1"):
        assert words in said
    assert said.rstrip().endswith("average: mean of mmlu, gsm8k")


def test_it_is_run_by_the_command_that_is_shown(folder: Path) -> None:
    table = evals(folder, *shown("evals run smollm2 --card"), *SHORT)
    heads = ["Model", "MMLU 0-shot", "GSM8k 2-shot", "Safe but refused", "XSTest F1", "Mean"]
    assert table.splitlines()[0].strip("| ").split(" | ") == heads
    run = folder / "results" / "mine"
    cells = json.loads((run / "summary.json").read_text())["cells"]
    assert all(cell["value"] is not None for cell in cells.values())
    mean = (cells["mmlu"]["value"] + cells["gsm8k"]["value"]) / 2
    assert cells["average"]["value"] == pytest.approx(mean)
    shown_item = evals(folder, "show", str(run), "mmlu.shots-0/astronomy/0")
    assert shown_item.count("Answer:") == 1
    ours = evals(folder, "report", str(run), "--card", "llama-3.1-tulu-2")
    assert "not asked: evals run asks for it" in ours
