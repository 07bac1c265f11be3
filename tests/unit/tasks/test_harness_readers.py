"""What reads a run, on a run of lm-evaluation-harness' tasks: of choices by letters, lengths and
contexts, cloze, whole texts, generated ones, and a group with its tasks' rows.
"""

import csv
import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from evals.compare.gate import check
from evals.compare.policy import Policy
from evals.compare.runs import compare
from evals.compare.text import markdown
from evals.generators.fake import FakeGenerator
from evals.plan.settings import RunSettings
from evals.report.export import FORMATS, item_rows, write_format, write_items
from evals.report.formats import FORMATS as LAYOUTS
from evals.report.html import write_report
from evals.report.result import Result
from evals.report.rows import Layout, report_table
from evals.report.show import describe_item
from evals.runs.session import run
from evals.storage.run_folder import RunFolder
from tests.harness_tasks import story, write_tasks
from tests.unit.report.test_export_formats import validated
from tests.unit.tasks.test_harness import answer, other

N = 5
NAMES = ("ends", "ends_information", "who", "cloze", "pages", "sums", "animals")
ASKED = tuple(f"lm-eval:{name}" for name in NAMES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("tasks"), n=N)


@pytest.fixture(autouse=True)
def included(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVALS_INCLUDE_PATH", str(folder))


@pytest.fixture(scope="module")
def runs(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two models' runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EVALS_INCLUDE_PATH", str(folder))
        home = tmp_path_factory.mktemp("runs")
        for name, model in (("a", answer), ("b", other)):
            settings = RunSettings("smollm2", tasks=ASKED, out=home / name, name=f"model {name}")
            run(settings, make_generator=lambda _, model=model: FakeGenerator(model))
        return home / "a", home / "b"


def cells(folder: Path) -> Mapping[str, Any]:
    found: Mapping[str, Any] = RunFolder(folder).read_json("summary.json")["cells"]
    return {key: one for key, one in found.items() if one["value"] is not None}


def printed(folder: Path, key: str) -> str:
    value = cells(folder)[key]["value"]
    own = key.startswith(("pages", "cloze_perplexity"))
    return f"{value:.3f}" if own else f"{100 * value:.1f}"


@pytest.mark.parametrize("layout", [*LAYOUTS])
def test_a_table_has_every_cell_in_every_format(layout: str, runs: tuple[Path, Path]) -> None:
    text = LAYOUTS[layout](report_table(runs, False, Layout(with_ci=False)))
    for folder in runs:
        for key in cells(folder):
            shown = printed(folder, key)
            assert (f'"value": {float(shown)}' if layout == "json" else shown) in text, key
            assert (key.replace("_", r"\_") if layout == "latex" else key) in text
    if layout == "csv":
        heading, *rows = csv.reader(io.StringIO(text))
        assert {len(row) for row in rows if row} == {len(heading)}
    if layout == "latex":
        assert not re.search(r"(?<!\\)_", text)


def test_a_program_gets_percents_of_shares_alone(runs: tuple[Path, Path]) -> None:
    found = Result(runs[0], RunFolder(runs[0]).read_json("summary.json"), 0).cells
    for key in cells(runs[0]):
        is_share = not key.startswith("pages") and key != "cloze_perplexity"
        value = found[key].fraction
        assert value is not None
        assert found[key].is_share is is_share
        assert found[key].percent == (100 * value if is_share else None)
    assert 0 < (found["pages_bits_per_byte"].fraction or 0) < 1


@pytest.mark.parametrize(
    ("item", "says"),
    [
        ("lm-eval.ends/3", [story(3)["query"], "tokens", "── gold\n1", '"acc_norm"']),
        ("lm-eval.who/1", ["because the crow", "── gold\n1"]),
        ("lm-eval.cloze/2", [story(2)["text"], story(2)["last"], '"perplexity"']),
        ("lm-eval.pages/4", [story(4)["page"][:40], '"word_perplexity"']),
        ("lm-eval.sums/0", [story(0)["question"], "── output", '"exact_match,strict-match"']),
        ("lm-eval.animals/birds/0", [story(1)["query"], '"acc"']),
    ],
)
def test_an_item_is_shown_with_what_was_asked_said_and_counted(
    item: str, says: list[str], runs: tuple[Path, Path]
) -> None:
    text = describe_item(runs[0], item, None)
    for one in says:
        assert one in text


def test_the_page_has_the_items_and_the_rows_of_a_groups_tasks(
    runs: tuple[Path, Path], tmp_path: Path
) -> None:
    write_report(tmp_path / "page.html", runs)
    page = (tmp_path / "page.html").read_text("utf-8")
    found = RunFolder(runs[0]).read_json("summary.json")["metrics"]["lm-eval.animals"]
    for name in ("acc/birds", "acc/beasts", "acc_norm/birds"):
        assert name.replace("_", " ") in page.replace("_", " "), name
        assert f"{100 * found[name]['value']:.1f}" in page


def test_two_runs_are_compared_and_gated_on_every_column(runs: tuple[Path, Path]) -> None:
    text = markdown(compare(*runs))
    states = {one.difference.key: one.state for one in check(*runs, Policy()).columns}
    same = text.partition(": every answer is the same")[0].rpartition("- ")[2].split(", ")
    for key in cells(runs[0]):
        is_same = key in {re.sub(r"\W", "_", one) for one in same}
        assert is_same or printed(runs[0], key) in text, key
        is_own = not 0 <= cells(runs[0])[key]["value"] <= 1
        assert (states[key] == "not compared") is (is_own or key.startswith("pages")), key


def test_items_become_a_flat_table(runs: tuple[Path, Path], tmp_path: Path) -> None:
    n = write_items(runs[0], tmp_path / "items.csv")
    assert n == len(NAMES) * N
    rows = list(csv.DictReader((tmp_path / "items.csv").open(encoding="utf-8")))
    assert {row["task"] for row in rows} == {f"lm-eval.{name}" for name in NAMES}
    for row in item_rows(runs[0]):
        assert json.loads(row["details"])["metrics"]


@pytest.fixture(scope="module")
def files(
    runs: tuple[Path, Path], folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[Path]]:
    """The first run in every format."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EVALS_INCLUDE_PATH", str(folder))
        home = tmp_path_factory.mktemp("exports")
        return {layout: write_format(layout, runs[0], home / layout)[0] for layout in FORMATS}


def test_every_eval_ever_takes_them_and_no_perplexity_for_a_share(
    runs: tuple[Path, Path], files: dict[str, list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, reports = validated(files["eee"][0].parents[4], monkeypatch)
    assert code == 0, reports
    found = json.loads(files["eee"][0].read_text("utf-8"))["evaluation_results"]
    by_key = {one["evaluation_result_id"]: one for one in found}
    assert by_key.keys() == cells(runs[0]).keys()
    for key, one in by_key.items():
        is_share = not key.startswith("pages") and key != "cloze_perplexity"
        assert one["metric_config"]["max_score"] == (1 if is_share else "Infinity"), key
        assert one["source_data"]["source_type"] == "other"
    rows = [json.loads(line) for line in files["eee"][1].read_text("utf-8").splitlines()]
    choices = {row["sample_id"]: row["input"]["choices"] for row in rows}
    assert choices["lm-eval.ends/1"] == story(1)["choices"]
    assert choices["lm-eval.ends_information/1"] == story(1)["choices"]
    assert choices["lm-eval.who/1"][1].endswith("because the crow")
    assert choices["lm-eval.cloze/1"] is None
    pages = [row for row in rows if row["evaluation_name"] == "pages_word_perplexity"]
    assert len(pages) == N
    assert not any(row["evaluation"]["is_correct"] for row in pages)


def test_inspect_reads_them(runs: tuple[Path, Path], files: dict[str, list[Path]]) -> None:
    from inspect_ai.log import read_eval_log

    values = {}
    for file in files["inspect"]:
        log = read_eval_log(str(file))
        assert log.results is not None
        assert log.samples is not None
        assert len(log.samples) == N
        for score in log.results.scores:
            (values[score.name],) = (
                one.value for name, one in score.metrics.items() if name != "stderr"
            )
    assert values == pytest.approx({key: one["value"] for key, one in cells(runs[0]).items()})


def test_lm_eval_gets_back_what_it_asked(files: dict[str, list[Path]]) -> None:
    configs = json.loads(files["lm-eval"][0].read_text("utf-8"))["configs"]
    kinds = {name.removeprefix("evals_lm_eval_"): one for name, one in configs.items()}
    assert {name.removesuffix("_card"): one["output_type"] for name, one in kinds.items()} == {
        **dict.fromkeys(("ends", "ends_information", "who", "animals"), "multiple_choice"),
        "cloze": "loglikelihood",
        "pages": "loglikelihood_rolling",
        "sums": "generate_until",
    }
    by_task = {re.split("_card", file.name)[0].removeprefix("samples_evals_lm_eval_"): file
               for file in files["lm-eval"][1:]}  # fmt: skip
    for name, asked, n_said in (
        ("ends", [story(0)["query"], f" {story(0)['choices'][0]}"], 4),
        ("cloze", [story(0)["text"], f" {story(0)['last']}"], 1),
        ("pages", [story(0)["page"]], 1),
    ):
        row = json.loads(by_task[name].read_text("utf-8").splitlines()[0])
        assert list(row["arguments"]["gen_args_0"].values()) == asked
        assert len(row["resps"]) == len(row["filtered_resps"]) == n_said
