"""The checkpoints of a training run: which there are, at what steps, which are whole and still."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from evals.errors import InputError
from evals.runs.checkpoints import STILL_S, Checkpoint, checkpoints

LONG_AGO = time.time() - 10 * STILL_S


def aged(folder: Path, at: float = LONG_AGO) -> Path:
    """The folder with every file last changed then."""
    for file in folder.iterdir():
        os.utime(file, (at, at))
    return folder


def checkpoint(folder: Path, at: float = LONG_AGO) -> Path:
    """A whole one, with hardly a weight."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    save_file({"w": np.zeros(4)}, folder / "model.safetensors")
    return aged(folder, at)


def cut(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-5])


def lacking_part(folder: Path) -> None:
    index = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


FLAWS: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut": (cut, "its header says"),
    "a pointer": (
        lambda folder: (folder / "model.safetensors").write_text("version https://git-lfs\n"),
        "is a Git LFS pointer",
    ),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "no weights yet"),
    "only an optimizer": (
        lambda folder: (folder / "model.safetensors").rename(folder / "optimizer.pt"),
        "no weights yet",
    ),
    "no config": (lambda folder: (folder / "config.json").unlink(), "no config.json yet"),
    "a part lacks": (lacking_part, "model-2.safetensors is not whole or not there yet"),
    "index half written": (
        lambda folder: (folder / "model.safetensors.index.json").write_text('{"weight_map": {'),
        "model.safetensors.index.json is not whole",
    ),
}


@pytest.mark.parametrize(("spoil", "words"), FLAWS.values(), ids=FLAWS)
def test_one_that_is_half_written_says_what_it_lacks(
    tmp_path: Path, spoil: Callable[[Path], object], words: str
) -> None:
    folder = checkpoint(tmp_path / "step_10")
    assert Checkpoint(folder, 10).lacks() is None
    spoil(folder)
    assert words in str(Checkpoint(aged(folder), 10).lacks())


@pytest.mark.parametrize("age", [0, STILL_S - 10, -STILL_S + 10])
def test_one_that_changed_just_now_waits(tmp_path: Path, age: float) -> None:
    folder = checkpoint(tmp_path / "step_10", time.time() - age)
    assert Checkpoint(folder, 10).lacks() == f"changed less than {STILL_S} s ago"


@pytest.mark.parametrize("age", [STILL_S + 60, -STILL_S - 3600])
def test_a_clock_that_is_ahead_does_not_keep_it_waiting(tmp_path: Path, age: float) -> None:
    folder = checkpoint(tmp_path / "step_10", time.time() - age)
    assert Checkpoint(folder, 10).lacks() is None


@pytest.mark.parametrize(
    ("name", "state", "step"),
    [
        ("checkpoint-500", None, 500),
        ("checkpoint-500", '{"global_step": 7}', 500),
        ("step_2000", None, 2000),
        ("step2000-tokens8B", None, 2000),
        ("stage1-step-100-tokens1B", None, 100),
        ("global_step40", None, 40),
        ("iter_0000100", None, 100),
        ("final", '{"global_step": 900}', 900),
        ("final", '{"global_step": "900"}', None),
        ("final", '{"global_st', None),
        ("final", "[]", None),
        ("llama-8b", None, None),
    ],
)
def test_the_step_is_in_the_name_or_in_the_trainers_state(
    tmp_path: Path, name: str, state: str | None, step: int | None
) -> None:
    checkpoint(tmp_path / name)
    if state is not None:
        (tmp_path / name / "trainer_state.json").write_text(state)
    (found,) = checkpoints(tmp_path)
    assert (found.name, found.step) == (name, step)


def test_they_come_by_step_and_those_under_way_are_none(tmp_path: Path) -> None:
    for name in ("checkpoint-1000", "checkpoint-500", "final", "tmp-checkpoint-1500", ".cache"):
        (tmp_path / name).mkdir()
    (tmp_path / "checkpoint-9").write_text("a file")
    names = [one.name for one in checkpoints(tmp_path)]
    assert names == ["checkpoint-500", "checkpoint-1000", "final"]
    assert "no step" in str(checkpoints(tmp_path)[2].lacks())


def test_a_folder_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot be read .* checkpoints are written into"):
        checkpoints(tmp_path / "none")


def test_one_that_is_written_again_looks_otherwise(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "step_10")
    before = Checkpoint(folder, 10).seen()
    assert Checkpoint(folder, 10).seen() == before
    save_file({"w": np.ones(4)}, folder / "model.safetensors")
    assert Checkpoint(folder, 10).seen() != before
