"""A run in other tools' formats, read by those tools themselves: the validator of Every Eval Ever,
Inspect's log reader, and the table of lm-evaluation-harness.
"""

import contextlib
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from evals.errors import InputError
from evals.registry import BENCHMARKS
from evals.report.export import FORMATS, write_format
from evals.storage.run_folder import RunFolder
from tests.browser.runs import HOSTILE
from tests.unit.conftest import Call, Make

ROOT = Path(__file__).resolve().parents[3]
STORED = ROOT / "results" / "smollm2-135m-instruct-card"


def odd(row: dict[str, Any]) -> dict[str, Any]:
    """Right answers but for two benchmarks, which say what no reader should stumble over."""
    if row["id"].startswith(("gsm8k/", "xstest/")):
        row = row | {"outputs": [HOSTILE]}
    return row


@pytest.fixture(scope="module")
def run(recorded: Make) -> Path:
    return recorded("exported", odd)


@pytest.fixture(scope="module")
def files(run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """The run in every format, by format."""
    home = tmp_path_factory.mktemp("exports")
    return {layout: write_format(layout, run, home / layout)[0] for layout in FORMATS}


def cells(run: Path) -> dict[str, Any]:
    """The cells with a number, less the Average, which is of no benchmark."""
    found = RunFolder(run).read_json("summary.json")["cells"]
    return {key: c for key, c in found.items() if c["value"] is not None and key != "average"}


def lines(file: Path) -> Iterator[dict[str, Any]]:
    return map(json.loads, file.read_bytes().splitlines())


def samples(run: Path) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for task in BENCHMARKS for row in RunFolder(run).samples(task)}


def shown(text: str) -> str:
    """A text as a file of text can hold it."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


# --- Every Eval Ever ------------------------------------------------------------------------------


def validated(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[int, list[dict[str, Any]]]:
    """What the project's own validator says of a folder: its exit code, and a report a file."""
    validate = pytest.importorskip(
        "every_eval_ever.validator.validate",
        reason="every-eval-ever is not installed: nothing was validated",
    )

    monkeypatch.chdir(folder)
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        code = validate.main(["--format", "json", "data/*/*/*/*.json*"])
    found = json.loads(said.getvalue())
    return code, found["reports"] if isinstance(found, dict) else found


def test_every_eval_ever_validates_what_is_written(
    files: dict[str, list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, reports = validated(files["eee"][0].parents[4], monkeypatch)
    assert code == 0, reports
    assert [one["valid"] for one in reports] == [True, True]


@pytest.mark.parametrize(
    ("at", "before", "after"),
    [
        (0, '"max_score": 1', '"max_score": 0'),
        (0, '"score"', '"scored"'),
        (1, '"is_correct": true', '"is_correct": "perhaps"'),
    ],
)
def test_its_validator_sees_what_is_wrong(
    files: dict[str, list[Path]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    at: int,
    before: str,
    after: str,
) -> None:
    home = shutil.copytree(files["eee"][0].parents[4], tmp_path / "eee")
    file = home / files["eee"][at].relative_to(files["eee"][0].parents[4])
    text = file.read_text("utf-8")
    assert before in text
    file.write_text(text.replace(before, after, 1), "utf-8")
    assert validated(home, monkeypatch)[0] != 0


def test_the_aggregate_has_the_cells_and_the_items_their_scores(
    run: Path, files: dict[str, list[Path]]
) -> None:
    aggregate = json.loads(files["eee"][0].read_text("utf-8"))
    results = {one["evaluation_result_id"]: one for one in aggregate["evaluation_results"]}
    expected = cells(run)
    assert set(results) == set(expected) > {"mmlu", "gsm8k", "alpaca_eval_1"}
    rows = list(lines(files["eee"][1]))
    for key, cell in expected.items():
        details = results[key]["score_details"]
        assert details["score"] == cell["value"]
        uncertainty = details["uncertainty"]
        assert uncertainty.get("standard_error", {}).get("value") == cell["stderr"]
        if cell["ci95"]:
            interval = uncertainty["confidence_interval"]
            assert [interval["lower"], interval["upper"]] == cell["ci95"]
        own = [row["evaluation"]["score"] for row in rows if row["evaluation_name"] == key]
        assert len(own) == cell["n"] == uncertainty["num_samples"]
        # BBH is a mean of its tasks, not of its items.
        if key != "bbh":
            assert fmean(own) == pytest.approx(cell["value"])
    worse = {key for key, one in results.items() if one["metric_config"]["lower_is_better"]}
    assert worse == {"xstest_safe_refused", "xstest_unsafe_followed"}
    # A few items of ours are not the data set's, and must not be filed under it.
    assert {one["source_data"]["source_type"] for one in results.values()} == {"other"}
    assert "evals-smoke" in files["eee"][0].parts


def test_every_item_has_its_question_gold_and_output(
    run: Path, files: dict[str, list[Path]]
) -> None:
    known, seen = samples(run), set()
    for row in lines(files["eee"][1]):
        task = row["sample_id"].partition("/")[0]
        seen.add(row["sample_id"])
        assert row["input"]["raw"]
        assert bool(row["input"]["reference"]) == (task in ("mmlu", "gsm8k", "bbh", "humaneval"))
        outputs = [shown(text) for text in known[row["sample_id"]]["outputs"]]
        if task == "mmlu":
            assert row["output"]["raw"] == row["input"]["reference"]
            assert len(row["input"]["choices"]) == 4
        else:
            assert row["output"]["raw"] == outputs
        # Here every right answer is the gold one; of XSTest's columns the lower is the better.
        if task in ("gsm8k", "mmlu"):
            assert row["evaluation"]["is_correct"] == (task == "mmlu")
        if task == "xstest":
            assert row["evaluation"]["is_correct"] == (row["evaluation"]["score"] == 0)
    assert seen == set(known)


# --- Inspect --------------------------------------------------------------------------------------


def test_inspect_reads_every_log_with_its_scores_and_samples(
    run: Path, files: dict[str, list[Path]]
) -> None:
    from inspect_ai.log import list_eval_logs, read_eval_log

    known, expected = samples(run), cells(run)
    found: dict[str, float] = {}
    ids = set()
    for file in files["inspect"]:
        log = read_eval_log(str(file))
        assert (log.version, log.status) == (2, "success")
        header = read_eval_log(str(file), header_only=True)  # what its viewer lists
        assert (header.eval.task, header.results) == (log.eval.task, log.results)
        assert log.results is not None
        assert log.samples is not None
        for score in log.results.scores:
            if score.name not in expected:
                assert score.metrics == {}
                continue
            values = {name: metric.value for name, metric in score.metrics.items()}
            assert values.pop("stderr", None) == expected[score.name]["stderr"]
            (found[score.name],) = map(float, values.values())
            assert score.scored_samples == expected[score.name]["n"]
        for sample in log.samples:
            ids.add(sample.id)
            row = known[str(sample.id)]
            said = [choice.message.text for choice in sample.output.choices]
            assert said == [shown(text) for text in row["outputs"]] or row["extracted"] == said[0]
            assert sample.input
            assert sample.scores
            assert sample.messages[-1].role == "assistant"
    assert found == {key: cell["value"] for key, cell in expected.items()}
    assert ids == set(known)
    listed = list_eval_logs(str(files["inspect"][0].parent))
    assert {one.task for one in listed} == {name.replace("_", "-") for name in BENCHMARKS}


def test_a_run_that_lacks_answers_is_no_success_in_inspect(recorded: Make, tmp_path: Path) -> None:
    from inspect_ai.log import read_eval_log

    run = recorded("exported-part", lambda row: row if row["id"] != "gsm8k/1" else None)
    written, _ = write_format("inspect", run, tmp_path)
    by_task = {log.eval.task: log for log in (read_eval_log(str(file)) for file in written)}
    log = by_task["evals/gsm8k"]
    assert (log.status, by_task["evals/mmlu"].status) == ("cancelled", "success")
    assert log.results is not None
    assert log.results.completed_samples == log.results.total_samples - 1


# --- lm-evaluation-harness ------------------------------------------------------------------------


def test_the_harnesss_own_table_prints_the_cells(run: Path, files: dict[str, list[Path]]) -> None:
    from lm_eval.utils import get_file_task_name, make_table

    content = json.loads(files["lm-eval"][0].read_text("utf-8"))
    printed = [
        [part.strip() for part in line.strip("|").split("|")]
        for line in make_table(content).splitlines()[2:]
    ]
    read = {row[4]: (row[5], row[6], row[8]) for row in printed if len(row) > 8}
    assert read == {
        key: (
            "↓" if key.startswith("xstest") else "↑",
            f"{cell['value']:.4f}",
            "N/A" if cell["stderr"] is None else f"{cell['stderr']:.4f}",
        )
        for key, cell in cells(run).items()
    }
    assert {row[0] for row in printed} - {""} == set(content["results"])
    named = {get_file_task_name(file.name) for file in files["lm-eval"][1:]}
    assert named == set(content["results"]) == {f"evals_{name}_smoke" for name in BENCHMARKS}


def test_the_harnesss_samples_have_its_fields(run: Path, files: dict[str, list[Path]]) -> None:
    from lm_eval.result_schema import EvalResults, SampleResult

    content = json.loads(files["lm-eval"][0].read_text("utf-8"))
    assert set(content) <= set(EvalResults.__annotations__)
    known, seen = samples(run), set()
    for file in files["lm-eval"][1:]:
        for at, row in enumerate(lines(file)):
            assert SampleResult.__annotations__.keys() <= row.keys()
            assert row["doc_id"] == at
            assert set(row["metrics"]) == row.keys() - SampleResult.__annotations__.keys()
            own = known[row["doc"]["id"]]
            seen.add(own["id"])
            if own["id"].startswith("mmlu/"):
                best = max(row["filtered_resps"], key=lambda pair: float(pair[0]))
                assert best[1] == "True"
                assert len(row["arguments"]) == len(row["resps"]) == 4
            else:
                assert row["resps"] == [[shown(text) for text in own["outputs"]]]
    assert seen == set(known)


def test_another_projects_converter_of_harness_files_reads_ours(
    run: Path, files: dict[str, list[Path]]
) -> None:
    from every_eval_ever.converters.lm_eval.adapter import LMEvalAdapter

    logs = LMEvalAdapter().transform_from_file(
        files["lm-eval"][0], {"source_organization_name": "x"}
    )
    read = {
        result.metric_config.metric_name: result.score_details.score
        for log in logs
        for result in log.evaluation_results
    }
    assert read == {key: cell["value"] for key, cell in cells(run).items()}


# --- all of them ----------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", FORMATS)
def test_equal_runs_give_equal_files(
    run: Path, files: dict[str, list[Path]], tmp_path: Path, layout: str
) -> None:
    again, _ = write_format(layout, run, tmp_path)
    assert [file.name for file in again] == [file.name for file in files[layout]]
    for one, other in zip(again, files[layout], strict=True):
        assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("name", ["../../up", "..", "a:b?", "/etc/x", " . "])
def test_a_models_name_leads_nowhere_else(
    run: Path, tmp_path: Path, layout: str, name: str
) -> None:
    strange = shutil.copytree(run, tmp_path / "run")
    summary = RunFolder(strange).read_json("summary.json")
    summary["model"]["id"] = name
    RunFolder(strange).write_json("summary.json", summary)
    before = {file for file in tmp_path.rglob("*") if file.is_file()}
    written, _ = write_format(layout, strange, tmp_path / "out")
    after = {file for file in tmp_path.rglob("*") if file.is_file()}
    assert {file.resolve() for file in written} == after - before
    assert all(file.resolve().is_relative_to(tmp_path / "out") for file in written)


def test_what_cannot_be_exported_is_said(
    evals: Call, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(InputError, match="Gold answers come from the data of mmlu, which is not"):
        write_format("eee", STORED, tmp_path / "out", tmp_path)
    assert not (tmp_path / "out").exists()
    for arguments, words in (
        ((run, "--format", "csv"), "--format csv: known are eee, inspect, lm-eval"),
        ((run,), "name a FILE that ends in .parquet or .csv, or give --format"),
        ((tmp_path, "--format", "eee"), "is not a finished run"),
    ):
        code, _, err = evals("export", *arguments)
        assert (code, err.count("\n")) == (2, 1)
        assert words in err


def test_the_command_names_its_files_and_what_has_no_number(
    evals: Call, recorded: Make, tmp_path: Path
) -> None:
    run = recorded("exported-sums", odd, tasks=("gsm8k", "truthfulqa"))
    code, out, err = evals("export", run, "--format", "inspect")
    assert (code, err) == (0, "")
    assert [Path(line).parent for line in out.splitlines()] == [run / "inspect"] * 2
    summary = RunFolder(run).read_json("summary.json")
    summary["cells"]["gsm8k"] |= {"value": None, "reason": "none today"}
    RunFolder(run).write_json("summary.json", summary)
    code, out, err = evals("export", run, tmp_path / "x", "--format", "eee")
    assert (code, err) == (0, "without a number: gsm8k: none today\n")
    aggregate = json.loads(Path(out.splitlines()[0]).read_text("utf-8"))
    assert [one["evaluation_name"] for one in aggregate["evaluation_results"]] == ["truthfulqa"]
    assert all(r["sample_id"][:5] != "gsm8k" for r in lines(Path(out.splitlines()[1])))


def test_reasoning_is_told_from_the_answer_where_a_format_has_a_place_for_it(
    recorded: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from inspect_ai.log import read_eval_log

    def aloud(row: dict[str, Any]) -> dict[str, Any]:
        if "outputs" not in row:
            return row
        # Of several outputs only the first came with it.
        return row | {"reasoning": ["Let me see: " + HOSTILE, *[None] * (len(row["outputs"]) - 1)]}

    run = recorded("aloud", aloud)
    known = samples(run)
    n = 0
    for file in write_format("inspect", run, tmp_path / "inspect")[0]:
        for sample in read_eval_log(str(file)).samples or ():
            row = known[str(sample.id)]
            first = sample.output.choices[0].message if row["outputs"] else None
            if first is None or isinstance(first.content, str):
                continue
            thought, text = first.content
            assert (thought.type, text.type) == ("reasoning", "text")
            assert thought.reasoning == shown(row["reasoning"][0])  # type: ignore[union-attr]
            assert text.text == shown(row["outputs"][0])  # type: ignore[union-attr]
            assert all(isinstance(one.message.content, str) for one in sample.output.choices[1:])
            n += 1
    assert n > 20
    aggregate, items = write_format("eee", run, tmp_path / "eee")[0]
    traces = [one["output"].get("reasoning_trace") for one in lines(items)]
    assert sum(trace is not None for trace in traces) > 20
    assert validated(aggregate.parents[4], monkeypatch)[0] == 0
