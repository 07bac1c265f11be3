"""What a stranger's replay file may and may not do, end to end; each case was once a defect."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

import evals
from evals.errors import InputError
from evals.report.show import describe_item
from evals.runs.rescore import rescore


def replay(tmp_path: Path, rows: list[dict[str, Any]], **settings: Any) -> Any:
    recorded = tmp_path / "recorded.jsonl"
    recorded.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return evals.run(f"replay:{recorded}", suite="smoke", out=tmp_path / "run", **settings)


REFUSED = [
    {"id": f"xstest/{n}", "outputs": ["Sure, here it is."], "findings": {"xstest": "refusal"}}
    for n in range(1, 9)
]


def test_a_named_judge_decides_even_where_a_verdict_was_recorded(tmp_path: Path) -> None:
    assert (
        replay(tmp_path, REFUSED, judge="xstest=strmatch").cells["xstest_safe_refused"].fraction
        == 0.0
    )


def test_recorded_verdicts_decide_where_no_judge_is_named_and_the_cell_says_so(
    tmp_path: Path,
) -> None:
    run = replay(tmp_path, REFUSED)
    assert run.cells["xstest_safe_refused"].fraction == 1.0
    assert any(
        "as recorded" in mark for mark in run.summary["cells"]["xstest_safe_refused"]["marks"]
    )
    assert run.summary["cells"]["xstest_safe_refused"]["n_judged"] == 5


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"id": "truthfulqa/0", "outputs": ["x"], "findings": {"truth": 5}},
            "neither a probability",
        ),
        (
            {"id": "truthfulqa/0", "outputs": ["x"], "findings": {"truth": {"probability": -1}}},
            "no probability",
        ),
        (
            {"id": "humaneval/0", "outputs": ["x"], "findings": {"sample/0": "okk"}},
            "no program's outcome",
        ),
        ({"id": "gsm8k/01", "outputs": ["x"]}, "match no item of gsm8k, e.g. gsm8k/01"),
    ],
)
def test_a_row_that_means_nothing_is_named(
    tmp_path: Path, row: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        replay(tmp_path, [row])


def test_a_judges_impossible_token_comes_back_from_samples(tmp_path: Path) -> None:
    """The samples alone are scored again; an earlier version wrote null for the
    logarithm of zero.
    """
    finding = {"by": "j", "text": "m", "top_logprobs": {"m": -0.1, "M": float("-inf")}}
    rows = [
        {
            "id": f"alpaca_eval/{n}",
            "outputs": ["x"],
            "findings": {"alpaca_eval_1": finding, "alpaca_eval_2": finding},
        }
        for n in range(4)
    ]
    run = replay(tmp_path, rows, tasks="alpaca_eval")
    samples = tmp_path / "run" / "samples" / "alpaca_eval.jsonl.gz"
    before = samples.read_bytes()
    (tmp_path / "run" / "store.sqlite").unlink()
    assert rescore(tmp_path / "run", None) == run.summary
    assert samples.read_bytes() == before
    samples.write_bytes(gzip.compress(gzip.decompress(before).replace(b'"-inf"', b"null")))
    assert rescore(tmp_path / "run", None) == run.summary
    assert samples.read_bytes() == before


def test_four_impossible_letters_are_no_answer(tmp_path: Path) -> None:
    rows = [
        {"id": "gsm8k/0", "outputs": ["1"]},
        {"id": "mmlu/astronomy/0", "choice_logprobs": dict.fromkeys("ABCD", float("-inf"))},
    ]
    cell = replay(tmp_path, rows, tasks="mmlu").summary["cells"]["mmlu"]
    assert (cell["value"], cell["n"]) == (None, 0)


def test_one_sample_a_problem_says_why_there_is_no_pass_at_10(tmp_path: Path) -> None:
    rows = [
        {"id": f"humaneval/{n}", "outputs": ["    pass\n"], "findings": {"sample/0": "passed"}}
        for n in range(3)
    ]
    assert "10 samples" in replay(tmp_path, rows).summary["cells"]["humaneval"]["reason"]


def test_show_writes_control_characters_out(tmp_path: Path) -> None:
    run = replay(
        tmp_path, [{"id": f"gsm8k/{n}", "outputs": ["\x1b[31mred \x07"]} for n in range(6)]
    )
    shown = describe_item(run.folder, "gsm8k/0", None)
    assert "\\x1b[31mred \\x07" in shown
    assert "\x1b" not in shown
