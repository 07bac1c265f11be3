"""What other tools read: the summary's schema, items through pandas, and lm-evaluation-harness'
results beside ours.
"""

import copy
import gzip
import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

import evals
from evals.commands.app import app
from evals.errors import Incomplete, InputError
from evals.report.export import COLUMNS, item_rows, write_items
from evals.report.lm_eval_results import read_row
from evals.report.table import TableCell
from evals.storage.forms import SCHEMA
from evals.storage.run_folder import RunFolder
from tests.run_files import RECORD

ROOT = Path(__file__).resolve().parents[3]
STORED = ROOT / "results" / "smollm2-135m-instruct-card"
VALIDATOR, OF_RECORDS = (
    Draft202012Validator(
        json.loads(
            (Path(evals.__file__).parent / "storage" / f"{name}.schema.json").read_text("utf-8")
        )
    )
    for name in ("summary", "run")
)


# --- the summary's schema -------------------------------------------------------------------------


def test_the_schema_is_one_and_has_the_summarys_version() -> None:
    Draft202012Validator.check_schema(VALIDATOR.schema)
    Draft202012Validator.check_schema(OF_RECORDS.schema)
    assert VALIDATOR.schema["properties"]["schema"] == {"const": SCHEMA}


def complaints(summary: Any) -> list[str]:
    return [error.message for error in VALIDATOR.iter_errors(summary)]


def undescribed(content: dict[str, Any], schema: dict[str, Any]) -> set[str]:
    return content.keys() - schema["properties"].keys()


def test_a_run_made_now_and_a_stored_one_are_valid(tmp_path: Path) -> None:
    recorded = tmp_path / "recorded.jsonl"
    rows = [{"id": f"gsm8k/{at}", "outputs": [f"So the answer is {at}."]} for at in range(6)]
    recorded.write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = [
        "run",
        f"replay:{recorded}",
        "--suite",
        "smoke",
        "--tasks",
        "gsm8k,xstest,mmlu",
        "--judge",
        "xstest=strmatch",
    ]
    done = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "run")])
    assert isinstance(done.exception, Incomplete), done.output
    for folder in (tmp_path / "run", STORED):
        summary, record = (
            RunFolder(folder).read_json(f"{name}.json") for name in ("summary", "run")
        )
        assert complaints(summary) == [] == list(OF_RECORDS.iter_errors(record))
        assert (
            undescribed(summary, VALIDATOR.schema)
            == set()
            == undescribed(record, OF_RECORDS.schema)
        )
        assert undescribed(summary["model"], VALIDATOR.schema["properties"]["model"]) == set()
        for session in record["sessions"]:
            assert (
                undescribed(session, OF_RECORDS.schema["properties"]["sessions"]["items"]) == set()
            )


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("schema",), 2),
        (("suite",), "large"),
        (("cells", "gsm8k", "value"), "3.0"),
        (("cells", "gsm8k", "ci95"), [0.1]),
        (("cells", "gsm8k", "ci95"), [1.0, 3.0]),
        (("cells", "gsm8k", "marks"), None),
        (("metrics", "gsm8k", "gsm8k", "n"), -1),
        (("tasks", "gsm8k", "truncated"), 59.5),
    ],
)
def test_a_damaged_summary_is_not_valid(where: tuple[str, ...], value: Any) -> None:
    summary = copy.deepcopy(RunFolder(STORED).read_json("summary.json"))
    place = summary
    for key in where[:-1]:
        place = place[key]
    place[where[-1]] = value
    assert len(complaints(summary)) == 1


# --- items ----------------------------------------------------------------------------------------


def stored_rows() -> list[dict[str, Any]]:
    record = RunFolder(STORED).read_json("run.json")
    return [
        row
        for task in record["tasks"]
        if task not in record["skipped"]
        for row in RunFolder(STORED).samples(task)
    ]


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_every_item_of_a_run_comes_back_from_the_file(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"items.{suffix}"
    rows = stored_rows()
    assert write_items(STORED, file) == len(rows) > 400
    read = (
        pd.read_parquet(file)
        if suffix == "parquet"
        else pd.read_csv(file, dtype={"extracted": str}, keep_default_na=False)
    )
    assert tuple(read.columns) == COLUMNS
    assert list(read["id"]) == [row["id"] for row in rows]
    assert [json.loads(outputs) for outputs in read["outputs"]] == [row["outputs"] for row in rows]
    gsm8k = read[read["task"] == "gsm8k"]
    summary = RunFolder(STORED).read_json("summary.json")
    assert pd.to_numeric(gsm8k["score"]).mean() == pytest.approx(summary["cells"]["gsm8k"]["value"])
    assert gsm8k["truncated"].mean() == pytest.approx(summary["tasks"]["gsm8k"]["truncated"])
    assert json.loads(read[read["task"] == "ifeval"]["details"].iloc[0])["instructions"]


def test_the_same_items_give_the_same_bytes(tmp_path: Path) -> None:
    for suffix in ("parquet", "csv"):
        files = [tmp_path / f"{name}.{suffix}" for name in ("one", "two")]
        for file in files:
            write_items(STORED, file)
        assert files[0].read_bytes() == files[1].read_bytes()


def test_items_without_a_score_with_several_and_with_broken_text_keep_their_place(
    tmp_path: Path,
) -> None:
    rows: list[dict[str, Any]] = [
        {
            "id": "toy/0",
            "outputs": ['a,"b"\n\ud800'],
            "finish_reasons": ["length"],
            "score": None,
            "unparsed": True,
            "n_tokens": [3],
        },
        {"id": "toy/1", "outputs": [], "scores": {"a": 1.0, "b": 0.5}, "extracted": {"a": 2}},
    ]
    RunFolder(tmp_path).write_samples("toy", rows)
    RunFolder(tmp_path).write_json("run.json", RECORD | {"tasks": ["toy"]})
    first, second = item_rows(tmp_path)
    assert (first["score"], first["truncated"], first["unparsed"], first["n_tokens"]) == (
        None,
        True,
        True,
        3,
    )
    assert (second["score"], second["extracted"], second["n_outputs"], second["n_tokens"]) == (
        0.75,
        '{"a": 2}',
        0,
        None,
    )
    for suffix in ("parquet", "csv"):
        assert write_items(tmp_path, tmp_path / f"items.{suffix}") == 2
    assert json.loads(pd.read_csv(tmp_path / "items.csv")["outputs"][0]) == ['a,"b"\n\ud800']


def test_what_cannot_be_exported_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"neither in \.parquet nor in \.csv"):
        write_items(STORED, tmp_path / "items.xlsx")
    with pytest.raises(InputError, match="is not a finished run"):
        write_items(tmp_path, tmp_path / "items.csv")
    with gzip.open(tmp_path / "x", "wb"):
        pass
    assert (
        CliRunner().invoke(app, ["export", str(STORED), str(tmp_path / "items.csv")]).exit_code == 0
    )


# --- lm-evaluation-harness ------------------------------------------------------------------------


def harness_file(folder: Path, **changes: Any) -> Path:
    """A result file as the harness writes it, cut down to what matters."""
    content = {
        "results": {
            "mmlu": {"alias": "mmlu", "acc,none": 0.6512, "acc_stderr,none": 0.0038},
            "gsm8k": {
                "alias": "gsm8k",
                "exact_match,strict-match": 0.5,
                "exact_match_stderr,strict-match": 0.0138,
                "exact_match,flexible-extract": 0.51,
                "exact_match_stderr,flexible-extract": 0.0138,
            },
            "ifeval": {
                "alias": "ifeval",
                "prompt_level_loose_acc,none": 0.3,
                "prompt_level_loose_acc_stderr,none": "N/A",
            },
            "truthfulqa_mc2": {
                "alias": "truthfulqa_mc2",
                "acc,none": 0.45,
                "acc_stderr,none": 0.01,
            },
        },
        "n-shot": {"mmlu": 5, "gsm8k": 5, "ifeval": 0},
        "model_name": "me/my-8b",
        "lm_eval_version": "0.4.13",
    }
    file = folder / "results_2026-11-25.json"
    file.write_text(json.dumps(content | changes))
    return file


@pytest.mark.parametrize("stderr", [10**400, -0.1, 1.5, True, float("nan"), "0.1"])
def test_an_error_that_is_none_gives_a_number_without_an_interval(
    tmp_path: Path, stderr: Any
) -> None:
    row = read_row(
        harness_file(tmp_path, results={"mmlu": {"acc,none": 0.5, "acc_stderr,none": stderr}})
    )
    assert (row.cell("mmlu").text, row.cell("mmlu").ci95) == ("50.0", None)


def test_the_harnesss_numbers_stand_in_their_columns_marked_as_another_protocol(
    tmp_path: Path,
) -> None:
    row = read_row(harness_file(tmp_path))
    assert row.name == "me/my-8b (lm-evaluation-harness)"
    assert row.cell("mmlu") == TableCell(
        "65.1",
        ("lm-evaluation-harness 0.4.13, task mmlu, acc, 5-shot: another protocol than the card's",),
        ("64.4", "65.9"),
    )
    gsm8k = row.cell("gsm8k")
    assert (gsm8k.text, gsm8k.ci95) == ("51.0", ("48.3", "53.7"))
    assert "exact_match (flexible-extract), 5-shot" in gsm8k.marks[0]
    assert row.cell("ifeval").ci95 is None
    assert set(row.cells) == {"mmlu", "gsm8k", "ifeval"}, (
        "TruthfulQA's multiple choice is another quantity than the card's"
    )


def test_a_result_file_is_printed_beside_runs_and_is_never_best(tmp_path: Path) -> None:
    printed = CliRunner().invoke(
        app, ["report", str(STORED), str(harness_file(tmp_path)), "--bold", "--published"]
    )
    assert printed.exit_code == 0
    assert re.search(
        r"\| me/my-8b \(lm-evaluation-harness\) \| 65\.1\[\^\d\] \| 51\.0\[\^\d\] \| - \|",
        printed.stdout,
    )
    assert (
        "]: lm-evaluation-harness 0.4.13, task mmlu, acc, 5-shot: another protocol than the card's"
        in printed.stdout
    )
    assert (
        "- Average of me/my-8b (lm-evaluation-harness): not made from cells of another protocol"
        in printed.stdout
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"results": {"hellaswag": {"acc,none": 0.5}}},
            "no task that the table has a column for; it has hellaswag",
        ),
        ({"results": {}}, "it has none"),
        ({"results": []}, "is no result file"),
        ({"results": {"mmlu": 1}}, "is no result file"),
        ({"results": {"mmlu": {"acc,none": 65.1}}}, "no task that the table has a column for"),
    ],
)
def test_another_file_is_refused(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_row(harness_file(tmp_path, **changes))


def test_a_file_that_is_no_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(InputError, match="is no result file"):
        read_row(tmp_path / "x.json")


def test_the_reader_knows_the_names_that_the_installed_harness_writes() -> None:
    """The keys of the harness's own schema of its result files."""
    import lm_eval

    schema = (Path(lm_eval.__file__).parent / "result_schema.py").read_text("utf-8")
    for key in ("results", "n-shot", "model_name", "lm_eval_version"):
        assert f'"{key}"' in schema
