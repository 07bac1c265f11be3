"""Few-shot texts come from lm-eval's files as data: tags are stepped over, the package is never
imported.
"""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from evals.errors import EnvironmentFault
from tasks import fewshot
from tasks.fewshot import task_file


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package named lm_eval with one folder of task files, found before the real one."""
    (tmp_path / "lm_eval" / "tasks").mkdir(parents=True)
    (tmp_path / "lm_eval" / "__init__.py").write_text("raise AssertionError('imported')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "lm_eval", raising=False)
    task_file.cache_clear()
    yield tmp_path / "lm_eval" / "tasks"
    task_file.cache_clear()


def test_the_gsm8k_file_has_its_eight_shots() -> None:
    samples = task_file("gsm8k/gsm8k-cot.yaml").samples
    assert [set(sample) for sample in samples] == [{"question", "target"}] * 8


def test_a_file_is_read_once() -> None:
    assert task_file("bbh/cot_fewshot/snarks.yaml") is task_file("bbh/cot_fewshot/snarks.yaml")


def test_function_tags_are_stepped_over(shipped: Path) -> None:
    (shipped / "one.yaml").write_text(
        "description: !function utils.header\ndoc_to_text: 'Q: {{x}}'\nprocess: !function"
        " utils.run\nlist: !items [1, 2]\nfewshot_config:\n  samples:\n  - {input: 1, target:"
        " two}\n"
    )
    found = task_file("one.yaml")
    assert (found.doc_to_text, found.samples) == ("Q: {{x}}", ({"input": "1", "target": "two"},))


def test_a_python_tag_runs_nothing(shipped: Path, tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    (shipped / "bad.yaml").write_text(
        f"doc_to_text: !!python/object/apply:pathlib.Path.touch ['{witness}']\n"
    )
    with pytest.raises(EnvironmentFault, match=r"bad\.yaml of lm-eval cannot be read"):
        task_file("bad.yaml")
    assert not witness.exists()


@pytest.mark.parametrize(
    "content",
    ["", "- a\n- b\n", "a: [", "fewshot_config: text\n", "fewshot_config: {samples: [text]}\n"],
)
def test_a_damaged_file_is_one_sentence(content: str, shipped: Path) -> None:
    (shipped / "bad.yaml").write_text(content)
    with pytest.raises(
        EnvironmentFault, match=r"bad\.yaml of lm-eval cannot be read: .+ Install lm-eval"
    ):
        task_file("bad.yaml")


def test_a_missing_file_is_one_sentence(shipped: Path) -> None:
    with pytest.raises(EnvironmentFault, match=r"none\.yaml of lm-eval cannot be read"):
        task_file("none.yaml")


def test_a_missing_package_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fewshot, "find_spec", lambda name: None)
    task_file.cache_clear()
    with pytest.raises(
        EnvironmentFault, match="lm-eval, which ships the few-shot texts, is not installed"
    ):
        task_file("gsm8k/gsm8k-cot.yaml")


def test_building_every_prompt_imports_nothing_heavy() -> None:
    program = (
        "import sys\nfrom tasks.bbh import TASKS, task_prompt\nfrom tasks.gsm8k import"
        " prompt_prefix\nimport tasks.mmlu\nbefore = set(sys.modules)\nprompt_prefix(),"
        " [task_prompt(task) for task in TASKS]\nprint(sorted({'yaml', 'numpy'} & before),"
        " sorted({'lm_eval', 'pandas', 'numpy', 'torch', 'datasets'} & set(sys.modules)))\n"
    )
    root = Path(__file__).resolve().parents[3]
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[] []"
