"""scripts/bench, part tasks: what is asked, in which order, and what becomes of the figures."""

from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from evals.generators.scored_rows import score_last_tokens_alone
from scripts.bench_parts import Options
from scripts.bench_parts.tasks import CASES, _written, as_vllm_has_it, in_turns, rows_of

build = import_module("tasks.harness.build")
task_module = import_module("tasks.harness.task")
N = {case.name: case.n for case in CASES}


@pytest.fixture(scope="module")
def folder(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _written(Options(data_dir, tmp_path_factory.mktemp("bench")))


# Answers an item, lines that begin an example, and whether all contexts begin alike.
ASKED = {
    "hs_same": (4, 10, True),
    "hs_own": (4, 10, False),
    "tqa_arc": (4, 25, False),
    "hs_none": (4, 0, False),
    "tqa_none": (4, 0, False),
    "letters": (4, 5, True),
    "gsm8k": (1, 8, True),
}


@pytest.mark.parametrize("name", N)
def test_each_case_asks_what_its_words_say(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVALS_INCLUDE_PATH", str(folder))
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    (task,) = build.tasks_of(name).values()
    items = list(build.items_of(name, task, task_module.Settings(), name))
    answers, shots, is_shared = ASKED[name]
    assert len(items) == N[name]
    assert {len(item.asked) for item in items} == {answers}
    contexts = [item.asked[0][0] for item in items]
    assert {one.count("\n\n") for one in contexts} == {shots}
    begins = {one.rpartition("\n\n")[0] for one in contexts}
    assert (len(begins) == 1) is (is_shared or not shots)
    if name == "letters":
        assert [rest for _, rest in items[0].asked] == [" A", " B", " C", " D"]


def test_the_sides_take_turns_at_being_first() -> None:
    order: list[str] = []

    def side(name: str, seconds: float) -> Any:
        return lambda: order.append(name) or seconds

    sides = {"theirs": side("theirs", 2.0), "ours": side("ours", 1.0)}
    assert [in_turns(turn, sides) for turn in range(3)] == [[1.0, 2.0]] * 3
    assert order == ["ours", "theirs", "theirs", "ours", "ours", "theirs"]


def test_a_row_is_theirs_over_ours_with_an_interval_where_there_are_several() -> None:
    rows = rows_of({"gsm8k": [[1.0, 2.0], [2.0, 8.0]], "hs_own": [[2.0, 9.0]], "hs_none": []})
    assert [row["value"] for row in rows] == [4.5, 3.0]
    assert [row["target"] for row in rows] == [">= 3.5", ">= 1"]
    assert "interval" not in rows[0]
    low, high = rows[1]["interval"]
    assert low < 3 < high


def test_the_harness_is_answered_by_vllms_own_log_probabilities() -> None:
    class Runner:
        num_prompt_logprobs = requests = query_start_loc = None

        def _get_prompt_logprobs_dict(self) -> str:
            return "vLLM's"

    worker = SimpleNamespace(model_runner=Runner())
    core = SimpleNamespace(engine_core=object(), collective_rpc=lambda call: call(worker))
    engine: Any = SimpleNamespace(_scores=True, _engine=core)
    assert score_last_tokens_alone(worker)
    as_vllm_has_it(engine)
    assert worker.model_runner._get_prompt_logprobs_dict() == "vLLM's"
    assert engine._scores is False  # ours comes back with what is next to be scored
    as_vllm_has_it(engine)
