"""Tasks of lm-evaluation-harness whose metric executes what the model wrote: in our sandbox, or
only where a flag says so.
"""

import json
import os
from importlib import metadata
from pathlib import Path

import pytest
import yaml

from evals.commands.options import harness_settings
from evals.generators.fake import FakeGenerator
from evals.models.prompts import Rendered
from evals.plan.make import make_plan
from evals.plan.settings import RunSettings
from evals.records import Completion, Output
from evals.registry import benchmark_class
from evals.runs.rescore import rescore
from evals.runs.session import run
from tasks.harness.names import TRUST, config_of, measures, runs_programs
from tasks.harness.programs import CodeEval, asked
from tests.toydata import failure

ADD = 'def add(a, b):\n    """The sum."""\n'
PROBLEMS = [
    {"prompt": ADD, "test": "def check(f):\n    assert f(2, 3) == 5", "entry_point": "add"},
    {"prompt": ADD, "test": "def check(f):\n    assert f(1, 1) == 3", "entry_point": "add"},
]
MBPP = [{"text": f"Add {n}.", "code": "", "test_list": [f"assert add(1) == {n + 1}"] * 3}
        for n in (1, 2)]  # fmt: skip
WRITTEN = "    return a + b\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """lm-eval's own HumanEval and MBPP over problems of ours, a task that executes by itself, and
    one whose data brings code.
    """
    import lm_eval.tasks

    shipped = Path(lm_eval.tasks.__path__[0])
    tasks = {
        "mine": ("humaneval/humaneval.yaml", PROBLEMS),
        "mine_64": ("humaneval/humaneval_64.yaml", PROBLEMS),
        "mine_mbpp": ("mbpp/mbpp_instruct.yaml", MBPP),
    }
    folder = tmp_path / "tasks"
    folder.mkdir()
    for name, (path, rows) in tasks.items():
        data = folder / f"{name}.jsonl"
        data.write_text("".join(json.dumps(one) + "\n" for one in rows))
        own = {
            "task": name,
            "dataset_path": "json",
            "dataset_name": None,
            "test_split": "test",
            "include": str(shipped / path),
            "dataset_kwargs": {"data_files": {"test": str(data)}},
        }
        if name == "mine_64":
            own["repeats"] = 4
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(own))
    base = {**own, "include": str(shipped / "mbpp/mbpp_instruct.yaml")}
    (folder / "own.py").write_text(
        "def passes(references, predictions):\n    exec(predictions[0])\n"
    )
    text = yaml.safe_dump({**base, "task": "by_itself"})
    metric = "metric_list:\n- metric: !function own.passes\n  aggregation: mean\n"
    (folder / "by_itself.yaml").write_text(text + metric)
    kwargs = {"trust_remote_code": True, **own["dataset_kwargs"]}
    (folder / "remote.yaml").write_text(
        yaml.safe_dump({**base, "task": "remote", "dataset_kwargs": kwargs})
    )
    monkeypatch.setenv("EVALS_INCLUDE_PATH", str(folder))
    for name in ("EVALS_CONFIRM_RUN_UNSAFE_CODE", TRUST):
        monkeypatch.delenv(name, raising=False)
    return folder


def settings(out: Path, *names: str) -> RunSettings:
    return RunSettings("smollm2", tasks=tuple(f"lm-eval:{n}" for n in names), out=out, offline=True)


def answer(request: Rendered) -> Completion:
    n = request.sampling.n
    if "Add " in request.text:
        return Completion((Output("\ndef add(a):\n    return a + 1\n```"),) * n)
    return Completion(tuple(Output(WRITTEN if at % 2 else "    return\n") for at in range(n)))


def test_what_code_eval_would_execute_runs_in_the_sandbox(folder: Path, tmp_path: Path) -> None:
    asked = settings(tmp_path / "run", "mine", "mine_64", "mine_mbpp")
    right = FakeGenerator(lambda one: answer(one) if one.sampling.n > 1 or "Add " in one.text
                          else Completion((Output(WRITTEN),)))  # fmt: skip
    done = run(asked, make_generator=lambda _: right)
    found = done.summary["metrics"]
    assert found["lm-eval.mine"]["pass@1,create_test"]["value"] == 0.5
    # Two of four pass the first problem, none the second: 1 - C(2, 2) / C(4, 2) is 5 / 6.
    assert found["lm-eval.mine_64"]["pass@2,create_test"]["value"] == pytest.approx(5 / 12)
    assert found["lm-eval.mine_64"]["pass@64,create_test"]["value"] is None
    assert found["lm-eval.mine_mbpp"]["pass_at_1,extract_code"]["value"] == 0.5
    row = next(iter(done.folder.samples("lm-eval.mine")))
    assert row["findings"]["sample/0"]["by"] == "sandbox"
    assert rescore(done.folder.path, None)["cells"] == done.summary["cells"]


def test_passes_and_names_are_code_evals() -> None:
    told = {"a": True, "b": False}
    with asked(lambda program: told[program.source[0]]):
        rates, ended = CodeEval().compute(
            references=["t", "u"], predictions=[["a", "b"], ["b", "b"]], k=[1, 2, 3]
        )
    assert rates == {"pass@1": 0.25, "pass@2": 0.5}
    assert [[one["passed"] for _, one in ended[at]] for at in (0, 1)] == [
        [True, False],
        [False] * 2,
    ]
    rates, _ = CodeEval().compute(references=["t"], predictions=[["a"]], k=[1])
    assert rates == {"pass@1": 0.0}


@pytest.mark.parametrize(
    ("task", "where"),
    [("humaneval", "sandbox"), ("humaneval_instruct", "sandbox"), ("mbpp", "sandbox"),
     ("mbpp_plus", "sandbox"), ("cruxeval_input", "here"), ("hellaswag", ""), ("gsm8k", "")],
)  # fmt: skip
def test_where_lm_evals_own_tasks_execute_programs(task: str, where: str) -> None:
    assert runs_programs(config_of(task)) == where


LATE = """
from evaluate import load as fetch
def passes(references, predictions):
    metric = fetch(NAME)
    return metric.compute(references=references, predictions=[predictions], k=[1])[0]["pass@1"]
"""
PLAIN = """
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
test_split: test
output_type: generate_until
doc_to_text: "{{text}}"
doc_to_target: "{{test_list[0]}}"
metric_list:
- {metric: !function TASK.passes, aggregation: mean, higher_is_better: true}
"""


def test_no_program_runs_in_this_process_whoever_loads_code_eval_and_when(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ALLOW_CODE_EVAL", "1")
    code = {"late": LATE.replace(" as fetch", "").replace("fetch(NAME", "load('code_eval'"),
            "unseen": LATE.replace("NAME", "'code_' + 'eval'")}  # fmt: skip
    for name, text in code.items():
        (folder / f"{name}.py").write_text(text)
        plain = PLAIN.replace("DATA", str(folder / "mine_mbpp.jsonl")).replace("TASK", name)
        (folder / f"{name}.yaml").write_text(f"task: {name}{plain}")
    ran = tmp_path / "ran"
    wrote = FakeGenerator(lambda _: Completion((Output(f"open({str(ran)!r}, 'w')"),)))
    done = run(settings(tmp_path / "run", *code), make_generator=lambda _: wrote)
    assert not ran.exists()
    found = done.summary["metrics"]
    assert found["lm-eval.late"]["passes"]["value"] == 0.0
    assert found["lm-eval.unseen"]["passes"]["value"] is None
    row = next(iter(done.folder.samples("lm-eval.unseen")))
    assert "executes programs by code_eval" in row["missing"]


@pytest.mark.parametrize("function", ["deep.er.passes", "of_a_package.er.passes"])
def test_a_function_is_looked_at_wherever_lm_eval_finds_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    for inside in (folder / "deep", tmp_path / "site" / "of_a_package"):
        inside.mkdir(parents=True)
        (inside / "__init__.py").write_text("raise SystemExit('it was imported')\n")
        (inside / "er.py").write_text((folder / "own.py").read_text())
    text = (folder / "by_itself.yaml").read_text().replace("own.passes", function)
    (folder / "by_itself.yaml").write_text(
        text.replace("unsafe_code: true\n", "") + "unsafe_code: false\n"
    )
    assert runs_programs(config_of("by_itself")) == "here"


@pytest.mark.parametrize("word", ["0", "false", "no", ""])
def test_a_variable_that_says_no_allows_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str
) -> None:
    monkeypatch.setenv("EVALS_CONFIRM_RUN_UNSAFE_CODE", word)
    said = failure(lambda: make_plan(settings(tmp_path / "run", "by_itself")))
    assert "--confirm-run-unsafe-code says that this is wanted" in said


def test_a_task_that_executes_by_itself_wants_the_flag(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = settings(tmp_path / "run", "by_itself")
    said = failure(lambda: make_plan(asked))
    assert "--confirm-run-unsafe-code says that this is wanted" in said
    monkeypatch.setenv("EVALS_CONFIRM_RUN_UNSAFE_CODE", "1")
    plan = make_plan(asked)
    (note,) = plan.tasks["lm-eval.by_itself"].benchmark.notes()
    assert note.endswith("its programs run by its own code and in no sandbox")
    assert not benchmark_class("lm-eval:by_itself").runs_programs


def test_code_that_comes_with_data_wants_the_flag(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = settings(tmp_path / "run", "remote")
    make_plan(asked)  # this version of `datasets` runs none
    from tasks.harness.build import loaded

    loaded.cache_clear()
    version = metadata.version
    monkeypatch.setattr(metadata, "version", lambda n: "3.6.0" if n == "datasets" else version(n))
    assert "--trust-remote-code says that this is wanted" in failure(lambda: make_plan(asked))
    monkeypatch.setenv(TRUST, "")
    harness_settings(None, False, trust=True)
    # As the library itself reads it.
    assert os.environ[TRUST] == "1"
    assert make_plan(asked).faults == ()


@pytest.mark.parametrize(
    ("metric", "k", "names"),
    [("/t/utils.pass_at_k", 1, ["pass@1"]), ("/t/utils.pass_at_k", [2, 64], ["pass@2", "pass@64"]),
     ("/t/utils.hits", [1, 5], ["hits"]), ("/t/utils.pass_at_1", None, ["pass_at_1"])],
)  # fmt: skip
def test_one_k_or_several_are_a_pass_rates_own(metric: str, k: object, names: list[str]) -> None:
    listed = [{"metric": metric, "k": k, "higher_is_better": True}]
    assert [one.name for one in measures({"metric_list": listed})] == names
