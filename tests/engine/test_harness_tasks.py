"""Tasks of lm-evaluation-harness on the real engine, beside its own vLLM backend."""

from pathlib import Path
from typing import Any

import pytest

from scripts.proof.against_harness import both, differences
from tests.harness_tasks import write_tasks
from tests.real_engine import cut_short

NAMES = ("ends", "ends_same_shots", "ends_information", "letters", "who", "cloze", "pages", "sums",
         "animals")  # fmt: skip
CHATS = ("ends_own_shots", "sums")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("tasks"), n=5)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(cut_short(tmp_path_factory.mktemp("models") / "small", 4))


def lines(
    folder: Path, work: Path, names: tuple[str, ...], model: str, *, chat: bool
) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EVALS_INCLUDE_PATH", str(folder))
        found = both(folder, work, names, model, chat=chat)
        return {line["task"]: line for line in differences(*found)}


@pytest.mark.parametrize("chat", [False, True])
def test_every_metric_and_log_likelihood_is_lm_evals(
    folder: Path, model: str, tmp_path: Path, chat: bool
) -> None:
    found = lines(folder, tmp_path, CHATS if chat else NAMES, model, chat=chat)
    # A group's tasks are told apart.
    whole = {*NAMES, "birds", "beasts"} - {"animals"}
    assert set(found) == (set(CHATS) if chat else whole)
    for task, line in found.items():
        assert line["unlike"] == [], task
        assert line["logprob"] < 1e-4, task
        assert line["texts"] == 0, task
        assert line["metrics"] >= line["n"] > 0, task
