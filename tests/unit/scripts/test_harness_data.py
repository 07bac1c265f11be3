"""lm-evaluation-harness's own task files with public data in place of the hub's."""

import json
from importlib import import_module
from pathlib import Path

import pytest

from scripts.proof.harness_data import NAMES, PREFIX, write_tasks

build = import_module("tasks.harness.build")
task_module = import_module("tasks.harness.task")


@pytest.fixture(scope="module")
def folder(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tasks")
    write_tasks(folder, data_dir, 2)
    return folder


def asked(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, object]]:
    """What is asked of the first document, and of how many there are."""
    monkeypatch.setenv("EVALS_INCLUDE_PATH", str(folder))
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    (task,) = build.tasks_of(PREFIX + name).values()
    first, second = build.items_of(PREFIX + name, task, task_module.Settings(), name)
    assert second.number == 1
    return [tuple(one) for one in first.asked]


def test_the_names_are_those_that_are_written(folder: Path) -> None:
    assert {path.stem for path in folder.glob("*.yaml")} == set(NAMES)


@pytest.mark.parametrize(
    ("name", "shots", "mark"),
    [("hellaswag_0", 0, "\n\n"), ("hellaswag_10", 10, "\n\n"), ("truthfulqa_mc1", 6, "Q: "),
     ("mmlu_anatomy", 5, "\nD. "), ("gsm8k", 5, "Question: ")],
)  # fmt: skip
def test_each_is_asked_with_its_own_shots(
    name: str, shots: int, mark: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contexts = {context for context, _ in asked(name, folder, monkeypatch)}
    (context,) = contexts
    own = 0 if mark == "\n\n" else 1
    assert context.count(mark) == shots + own


def test_an_answer_is_scored_as_it_stands_in_the_data(
    folder: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = json.loads((data_dir / "truthfulqa" / "mc_task.json").read_text("utf-8"))[0]
    said = [rest for _, rest in asked("truthfulqa_mc2", folder, monkeypatch)]
    assert said == [f" {choice}" for choice in row["mc2_targets"]]
    rest = [rest for _, rest in asked("mmlu_astronomy", folder, monkeypatch)]
    assert rest == [" A", " B", " C", " D"]
