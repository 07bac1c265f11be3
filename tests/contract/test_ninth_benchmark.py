"""Adding a benchmark is one file, its smoke items and one line of the registry: done here, in a
copy of the program.
"""

import filecmp
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
REGISTRY_LINE = '    "toy": "tasks.toy:Toy",\n'
ROWS = [{"question": f"What is {n} and {n}?", "answer": str(2 * n)} for n in range(5)]
SMOKE_ITEMS = "".join(json.dumps(row) + "\n" for row in ROWS)
ANSWERS = ["0", "2", "5", "6", "8"]

TOY = '''
"""A toy benchmark: sums."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evals import stats
from evals.benchmark import Benchmark
from evals.data.dataset import Dataset, HubTable, Source, Table
from evals.data.files import FileRecord, read_jsonl
from evals.records import (
    Completion, Findings, Generate, Grade, Item, ItemId, Measure, Message, Metric, Sampling
)


@dataclass(frozen=True)
class ToyItem(Item):
    """One sum."""

    question: str
    answer: str


class Toy(Benchmark[ToyItem]):
    """Sums."""

    name = "toy"
    metrics = (Measure("toy", "share of right sums"),)
    dataset = Dataset(
        name="toy",
        hub_id="me/toy",
        licence="MIT",
        url="https://example.org/toy",
        tables={"test": Table("toy/test.jsonl", ("question", "answer"), read_jsonl, HubTable())},
        files={"toy/test.jsonl": FileRecord("SHA256", ROWS)},
    )

    def items(self, source: Source) -> Sequence[ToyItem]:
        """All sums."""
        rows = enumerate(source.rows("test"))
        return [ToyItem(ItemId(f"toy/{n}"), "", row["question"], row["answer"]) for n, row in rows]

    def request(self, item: ToyItem) -> Generate:
        """The question."""
        return Generate((Message("user", item.question),), Sampling(max_tokens=8))

    def grade(self, item: ToyItem, answer: Completion, findings: Findings) -> Grade:
        """1 when the answer is the sum."""
        said = answer.text.strip()
        return Grade(item.id, item.group, {"toy": float(said == item.answer)}, said)

    def summarize(self, grades: Sequence[Grade]) -> Mapping[str, Metric]:
        """The share of right sums."""
        scores = [grade.scores["toy"] for grade in grades if "toy" in grade.scores]
        return {"toy": stats.proportion(scores, len(grades))}

    def gold(self, item: ToyItem) -> str:
        """The sum."""
        return item.answer
'''


def evals(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The copy's command line, run in the copy."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("EVALS_DATA", "PYTHONPATH")
    }
    command = [sys.executable, "-m", "evals", *arguments]
    return subprocess.run(
        command, cwd=home, env=environment, capture_output=True, text=True, check=False
    )


def column(table: str, heading: str) -> list[str]:
    """The cells under a heading, footnote references cut off."""
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in table.splitlines()
        if line.startswith("|")
    ]
    place = lines[0].index(heading)
    return [line[place].split("[^")[0] for line in lines[2:]]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the program with a ninth benchmark."""
    home = tmp_path_factory.mktemp("program")
    skip = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "evals", home / "evals", ignore=skip)
    shutil.copytree(ROOT / "tasks", home / "tasks", ignore=skip)
    shutil.copytree(ROOT / "results" / "published", home / "results" / "published")
    digest = hashlib.sha256(SMOKE_ITEMS.encode()).hexdigest()
    (home / "tasks" / "toy.py").write_text(
        TOY.replace("SHA256", digest).replace("ROWS", str(len(ROWS)))
    )
    (home / "tasks" / "smoke" / "toy").mkdir()
    (home / "tasks" / "smoke" / "toy" / "test.jsonl").write_text(SMOKE_ITEMS)
    registry = home / "evals" / "registry.py"
    text = registry.read_text("utf-8")
    last = text.index("}\n", text.index("BENCHMARKS = {"))
    registry.write_text(text[:last] + REGISTRY_LINE + text[last:], "utf-8")
    (home / "answers.jsonl").write_text(
        "".join(
            json.dumps({"id": f"toy/{n}", "outputs": [a]}) + "\n" for n, a in enumerate(ANSWERS)
        )
    )
    return home


@pytest.fixture(scope="module")
def toy_run(home: Path) -> subprocess.CompletedProcess[str]:
    """The smoke suite of the toy, replayed."""
    return evals(
        home, "run", "replay:answers.jsonl", "--suite", "smoke", "--tasks", "toy", "--out", "run"
    )


def test_nothing_but_one_file_and_one_line_was_added(
    home: Path, toy_run: subprocess.CompletedProcess[str]
) -> None:
    new, changed = [], []
    for folder in ("evals", "tasks", "results"):
        for file in (home / folder).rglob("*"):
            original = ROOT / file.relative_to(home)
            if file.is_dir() or "__pycache__" in file.parts:
                continue
            if not original.exists():
                new.append(file.relative_to(home).as_posix())
            elif not filecmp.cmp(file, original, shallow=False):
                changed.append(file.relative_to(home).as_posix())
    assert sorted(new) == ["tasks/smoke/toy/test.jsonl", "tasks/toy.py"]
    assert changed == ["evals/registry.py"]


def test_a_run_fills_its_column(home: Path, toy_run: subprocess.CompletedProcess[str]) -> None:
    assert toy_run.returncode == 0, toy_run.stderr
    assert column(toy_run.stdout, "toy") == ["80.0"]
    assert column(toy_run.stdout, "MMLU 5-shot") == ["-"]
    summary = json.loads((home / "run" / "summary.json").read_text())
    assert summary["cells"]["toy"]["value"] == 0.8
    assert summary["cells"]["average"]["value"] is None


def test_the_report_shows_its_column_beside_the_published_rows(
    home: Path, toy_run: subprocess.CompletedProcess[str]
) -> None:
    assert toy_run.returncode == 0
    shown = evals(home, "report", "--published", "run")
    assert shown.returncode == 0, shown.stderr
    assert column(shown.stdout, "toy") == ["-"] * 8 + ["80.0"]
    assert "toy" not in evals(home, "report", "--published").stdout


def test_every_other_command_knows_it(
    home: Path, toy_run: subprocess.CompletedProcess[str]
) -> None:
    assert toy_run.returncode == 0
    assert "toy" in evals(home, "tasks").stdout
    assert "me/toy" in evals(home, "data", "list").stdout
    shown = evals(home, "show", "run", "toy/2")
    assert "What is 2 and 2?" in shown.stdout, shown.stderr
    assert "── gold\n4" in shown.stdout
    before = (home / "run" / "summary.json").read_bytes()
    scored = evals(home, "score", "run")
    assert column(scored.stdout, "toy") == ["80.0"]
    assert (home / "run" / "summary.json").read_bytes() == before
    misspelt = evals(home, "run", "replay:answers.jsonl", "--suite", "smoke", "--tasks", "toi")
    assert (misspelt.returncode, "toy" in misspelt.stderr) == (2, True)


def test_its_public_file_is_held_to_its_checksum(home: Path) -> None:
    folder = home / "data" / "toy"
    folder.mkdir(parents=True)
    arguments = (
        "run",
        "replay:answers.jsonl",
        "--suite",
        "card",
        "--tasks",
        "toy",
        "--data",
        "data",
    )
    (folder / "test.jsonl").write_text(SMOKE_ITEMS)
    whole = evals(home, *arguments, "--out", "whole")
    assert whole.returncode == 0, whole.stderr
    assert column(whole.stdout, "toy") == ["80.0"]
    (folder / "test.jsonl").write_text(SMOKE_ITEMS.replace('"4"', '"5"'))
    damaged = evals(home, *arguments, "--out", "damaged")
    assert damaged.returncode == 2
    assert "toy/test.jsonl is damaged or another edition" in damaged.stderr
