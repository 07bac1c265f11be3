"""Tasks of lm-evaluation-harness that cannot be asked, beside those that can; and tasks that are
other ones than they were.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evals.compare.runs import comparability, compare
from evals.compare.text import markdown
from evals.errors import InputError
from evals.generators.fake import FakeGenerator
from evals.models.prompts import Rendered
from evals.plan.make import make_plan
from evals.plan.settings import RunSettings, go_offline
from evals.records import Completion, Scored
from evals.report.rows import Layout, report_table
from evals.report.run_row import row_from_summary
from evals.report.table import as_markdown
from evals.runs.rescore import rescore
from evals.runs.session import run
from evals.runs.writing import RunResult
from tasks.harness.metrics import mean
from tasks.harness.names import content_of
from tests.harness_tasks import BROKEN, write_broken, write_tasks
from tests.toydata import failure
from tests.unit.conftest import paired_columns

Answer = Callable[[Rendered], Completion]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_broken(write_tasks(tmp_path_factory.mktemp("tasks"), n=4))


@pytest.fixture(autouse=True)
def included(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVALS_INCLUDE_PATH", str(folder))


def answer(request: Rendered) -> Completion:
    asked = [one for _, own in request.scored for one in own]
    return Completion(scores=tuple(Scored(-float(len(one)), False, len(one)) for one in asked))


def asked(out: Path, *names: str, model: Answer = answer) -> RunResult:
    tasks = tuple(f"lm-eval:{name}" for name in names)
    settings = RunSettings("smollm2", tasks=tasks, out=out, offline=True)
    return run(settings, make_generator=lambda _: FakeGenerator(model))


@pytest.fixture(scope="module")
def beside(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """A run of all that cannot be asked, and of one that can."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EVALS_INCLUDE_PATH", str(folder))
        return asked(tmp_path_factory.mktemp("run"), "ends", *BROKEN)


@pytest.mark.parametrize("name", BROKEN)
def test_a_task_that_cannot_be_asked_is_a_dash_with_lm_evals_reason(
    beside: RunResult, name: str
) -> None:
    row = row_from_summary(beside.summary)
    keys = [key for key in row.cells if key.startswith(name) and row.cells[key].text == "-"]
    assert keys, name
    assert all(BROKEN[name][1] in row.notes[key] for key in keys)
    assert all("\n" not in row.notes[key] for key in keys)


def test_the_others_are_asked_and_the_run_is_not_complete(beside: RunResult) -> None:
    assert beside.summary["cells"]["ends_acc"]["n"] == 4
    assert set(beside.broken) == {f"lm-eval.{name}" for name in BROKEN}
    assert beside.n_missing == len(BROKEN)


def test_such_a_run_is_scored_again_and_compared(beside: RunResult) -> None:
    folder = beside.folder.path
    go_offline()  # or the hub is asked, again and again, for what is nowhere
    assert rescore(folder, None)["cells"] == beside.summary["cells"]
    found = paired_columns(folder, folder)
    assert found["ends_acc"].difference == 0.0
    assert "baseline: " in (found["no_split_acc"].reason or "")


def test_all_data_that_is_not_here_is_named_at_once(beside: RunResult) -> None:
    plan = make_plan(beside_settings("ends", "no_data", "no_data_part"))
    (said,) = plan.faults
    assert "lm-eval:no_data needs" in said
    assert "lm-eval:no_data_part needs" in said
    calls = "load_dataset('nobody/nothing'); load_dataset('nobody/else', 'part');"
    assert f"`from datasets import load_dataset` and {calls}" in said


def beside_settings(*names: str, **more: Any) -> RunSettings:
    tasks = tuple(f"lm-eval:{name}" for name in names)
    return RunSettings("smollm2", tasks=tasks, offline=True, **more)


def test_nothing_loads_where_no_task_can_be_asked() -> None:
    said = failure(lambda: make_plan(beside_settings(*BROKEN)))
    assert all(reason in said for _, reason in BROKEN.values())


def test_a_card_of_such_a_task_has_its_column(tmp_path: Path, folder: Path) -> None:
    card = tmp_path / "mine.toml"
    column = '[[column]]\nkey = "{0}"\nheading = "{0}"\nbenchmark = "lm-eval:{0}"\nmetric = "acc"\n'
    card.write_text('title = "Mine"\n' + column.format("ends") + column.format("no_yaml"))
    settings = RunSettings("smollm2", card=str(card), out=tmp_path / "run", offline=True)
    summary = run(settings, make_generator=lambda _: FakeGenerator(answer)).summary
    assert summary["cells"]["ends"]["value"] is not None
    assert "cannot be read as a task" in summary["cells"]["no_yaml"]["reason"]


def test_a_task_of_another_version_is_neither_gone_on_with_nor_compared(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "tasks"
    own.mkdir()
    first = (folder / "ends.yaml").read_text().replace("task: ends", "task: mine")
    (own / "mine.yaml").write_text(first)
    monkeypatch.setenv("EVALS_INCLUDE_PATH", str(own))
    before = asked(tmp_path / "run", "mine")
    newer = tmp_path / "newer"
    newer.mkdir()
    (newer / "mine.yaml").write_text(first.replace("version: 2.0", "version: 2.1"))
    monkeypatch.setenv("EVALS_INCLUDE_PATH", str(newer))
    with pytest.raises(
        InputError, match=r"version 2\.0 of mine asked it, which is version 2\.1 now"
    ):
        asked(tmp_path / "run", "mine")
    after = asked(tmp_path / "other", "mine")
    reason = comparability(before.summary, after.summary).reason
    assert reason == "version of lm-eval.mine (mine) differs: 2.0 against 2.1"


def test_a_changed_file_of_the_same_version_is_told_apart_and_one_that_moved_is_not(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (folder / "sums.yaml").read_text().replace("task: sums", "task: mine")
    changed = text.replace("Question: ", "Problem: ")
    assert changed != text
    runs = {}
    for name, own in (("before", text), ("moved", text), ("changed", changed)):
        home = tmp_path / f"tasks-{name}"
        home.mkdir()
        (home / "mine.yaml").write_text(own)
        monkeypatch.setenv("EVALS_INCLUDE_PATH", str(home))
        if name == "moved":
            asked(tmp_path / "before", "mine")  # goes on with the run that is there
        if name == "changed":
            with pytest.raises(InputError, match="another file of mine asked it: its YAML"):
                asked(tmp_path / "before", "mine")
        runs[name] = asked(tmp_path / name, "mine").summary
    assert not comparability(runs["before"], runs["moved"]).reason
    reason = comparability(runs["before"], runs["changed"]).reason
    assert reason.startswith("task file of lm-eval.mine (mine) differs")


@pytest.mark.parametrize(
    ("times", "printed"), [(1, r"\d+\.\d{3}"), (30, r"\d\.\d{3}e\+\d+"), (1000, "-")]
)
def test_a_broken_models_perplexity_is_short_or_not_there(
    tmp_path: Path, times: int, printed: str
) -> None:
    def broken(request: Rendered) -> Completion:
        found = answer(request).scores or ()
        return Completion(scores=tuple(replace(one, logprob=one.logprob * times) for one in found))

    asked(tmp_path / "sane", "cloze", "pages")
    found = asked(tmp_path / "broken", "cloze", "pages", model=broken)
    row = row_from_summary(found.summary)
    for key in ("cloze_perplexity", "pages_word_perplexity"):
        assert re.fullmatch(printed, row.cells[key].text)
    runs = tmp_path / "sane", tmp_path / "broken"
    table = as_markdown(report_table(runs, False, Layout(with_ci=True)))
    assert ("lm-evaluation-harness gives no finite number" in table) is (printed == "-")
    for text in (table, markdown(compare(*runs))):
        assert not re.search(r"\b(inf|nan)\b", text)


def test_a_text_that_begins_with_a_slash_is_no_place_of_a_file(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = set()
    for name in ("one", "other"):
        home = tmp_path / name
        home.mkdir()
        text = (folder / "sums.yaml").read_text().replace("task: sums", "task: mine")
        (home / "mine.yaml").write_text(text.replace("Question: ", f"/{name}/Question: ", 1))
        monkeypatch.setenv("EVALS_INCLUDE_PATH", str(home))
        found.add(content_of("mine"))
    assert len(found) == 2


def test_a_mean_of_numbers_whose_sum_is_infinite_is_none() -> None:
    assert mean([1e308, 1e308]).value is None
