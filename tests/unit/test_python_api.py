"""The three lines of evals/README.md, from Python."""

import json
from pathlib import Path

import pytest

import evals
from evals.errors import InputError


def test_a_run_gives_its_cells_and_its_table(tmp_path: Path) -> None:
    recorded = tmp_path / "recorded.jsonl"
    recorded.write_text(
        "".join(
            json.dumps({"id": f"gsm8k/{i}", "outputs": ["The answer is 1."]}) + "\n"
            for i in range(6)
        )
    )
    run = evals.run(
        f"replay:{recorded}",
        suite="smoke",
        tasks="gsm8k",
        out=str(tmp_path / "run"),
        dtype="float32",
    )
    assert run.is_complete
    assert run.cells["gsm8k"] is not None
    assert run.cells["average"] is None
    assert "| recorded (smoke suite) |" in run.table()


def test_a_setting_that_does_not_exist_is_named_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r"no setting 'suit'. Did you mean .*suite"):
        evals.run("smollm2", suit="smoke")
