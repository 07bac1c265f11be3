"""lm-evaluation-harness' own evaluator, asking our model type; beside a model of its own that gives
the same answers.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from evals.commands import app
from evals.errors import InputError
from evals.generators.fake import FakeGenerator
from evals.runs import engines
from evals.runs.lm_eval_model import EvalsLM, register
from tests.harness_tasks import write_tasks
from tests.toydata import failure
from tests.unit.tasks.test_harness import answer, theirs

__all__ = ["theirs"]
NAMES = ("ends", "ends_information", "letters", "who", "cloze", "pages", "sums", "animals")
Results = Mapping[str, Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("tasks"))


def evaluated(folder: Path, arguments: Mapping[str, Any], **more: Any) -> Results:
    import lm_eval
    from lm_eval.tasks import TaskManager

    register()
    found = lm_eval.simple_evaluate(
        model="evals", model_args={"pretrained": "smollm2", "offline": True, **arguments},
        task_manager=TaskManager(include_path=str(folder), include_defaults=False),
        bootstrap_iters=0, **more,
    )  # fmt: skip
    assert found is not None
    return found


def test_its_evaluator_has_the_same_numbers_and_asks_nothing_twice(
    folder: Path, theirs: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = FakeGenerator(answer)
    monkeypatch.setattr(engines, "start_engine", lambda *_: engine)
    for _ in range(2):
        found = evaluated(folder, {"out": str(tmp_path)}, tasks=[*NAMES])
        n = len(engine.asked)
        for name in (*(one for one in NAMES if one != "animals"), "birds", "beasts"):
            pairs = zip(found["samples"][name], theirs["samples"][name], strict=True)
            for own, expected in pairs:
                for metric in expected["metrics"]:
                    assert own[metric] == expected[metric], (name, metric)
    assert n == len(engine.asked) > 0
    assert found["results"]["animals"]["acc,none"] == theirs["results"]["animals"]["acc,none"]


def test_without_a_model_it_says_how_to_name_one() -> None:
    with pytest.raises(InputError, match="--model_args pretrained=MODEL"):
        EvalsLM()


def test_its_command_takes_a_chat_and_samples_each_repeat_anew(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "tasks"
    own.mkdir()
    text = (folder / "sums.yaml").read_text().replace("task: sums", "task: drawn")
    text = text.replace("do_sample: false", "do_sample: true\n  temperature: 0.7")
    (own / "drawn.yaml").write_text(text + "repeats: 3\n")
    engine = FakeGenerator(answer)
    monkeypatch.setattr(engines, "start_engine", lambda *_: engine)
    monkeypatch.setattr(
        sys, "argv",
        ["evals", "lm-eval", "--model_args", f"pretrained=smollm2,out={tmp_path / 'out'}",
         "--include_path", str(own), "--tasks", "drawn", "--limit", "2", "--apply_chat_template",
         "--fewshot_as_multiturn", "true"],
    )  # fmt: skip
    with pytest.raises(SystemExit) as ended:
        app.main()
    assert ended.value.code == 0
    assert len(engine.asked) == 6
    assert len({one.text for one in engine.asked}) == 2
    assert sorted(one.sampling.seed or 0 for one in engine.asked) == [0, 0, 1, 1, 2, 2]
    assert all(one.text.count("<|im_start|>assistant") == 3 for one in engine.asked)


@pytest.mark.parametrize(
    "given",
    [{"temperature": 0.7}, {"system_prompt": "a"}, {"limit": 5}, {"base": "b"}, {"dtyp": "c"}],
)
def test_an_option_that_would_do_nothing_is_refused(
    folder: Path, tmp_path: Path, given: Mapping[str, Any]
) -> None:
    said = failure(lambda: evaluated(folder, {"out": str(tmp_path), **given}, tasks=["ends"]))
    assert f"--model_args {next(iter(given))}: only options about model and engine" in said
