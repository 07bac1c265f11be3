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


def test_the_gate_gives_its_verdict_and_takes_texts_for_paths(tmp_path: Path) -> None:
    for name, answer in (("old", "18"), ("new", "99999")):
        rows = [{"id": f"gsm8k/{i}", "outputs": [f"The answer is {answer}."]} for i in range(6)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        evals.run(
            f"replay:{tmp_path / name}.jsonl",
            suite="smoke",
            tasks="gsm8k",
            out=str(tmp_path / name),
        )
    gate = evals.check(str(tmp_path / "old"), tmp_path / "new", strict=True)
    assert (gate.verdict, gate.exit_code) in (("undecided", 1), ("pass", 0))
    assert [column.difference.key for column in gate.columns] == ["gsm8k", "average"]
    required = evals.check(tmp_path / "old", tmp_path / "new", "release")
    assert (required.verdict, required.exit_code) == ("incomplete", 3)
    with pytest.raises(InputError, match="weekly cannot be read"):
        evals.check(tmp_path / "old", tmp_path / "new", "weekly")
