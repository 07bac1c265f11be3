"""Recordings larger than the memory: their rows are read, answered and graded a few at a time."""

import json
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest

from evals import runner
from evals.errors import EnvironmentFault
from evals.generators.replay import Recording
from evals.plan import RunSettings
from evals.runner import run
from tests.resilience.fake_runs import results
from tests.unit.test_cli import recorded_rows


@pytest.mark.parametrize("at_once", [1, 4, 10_000])
def test_how_many_rows_are_taken_at_once_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    recording = tmp_path / "rows.jsonl"
    recording.write_text("".join(json.dumps(row) + "\n" for row in recorded_rows()))

    def played(out: str) -> dict[str, bytes]:
        result = run(RunSettings(f"replay:{recording}", suite="smoke", out=tmp_path / out))
        assert result.is_complete
        return results(tmp_path / out)

    usual = played("usual")
    assert len(usual) == 9
    monkeypatch.setattr(runner, "_REPLAYED_AT_ONCE", at_once)
    assert played("other") == usual


def test_of_the_answers_only_a_few_are_in_memory(tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    n, length = 150, 200_000
    recording = tmp_path / "rows.jsonl"
    with recording.open("w") as file:
        for index in range(n):
            file.write(json.dumps({"id": f"gsm8k/{index}", "outputs": [f"{index} is it. " * (length // 12)]}) + "\n")
    monkeypatch.setattr(runner, "_REPLAYED_AT_ONCE", 5)
    settings = RunSettings(f"replay:{recording}", suite="full", tasks=("gsm8k",), data=data_dir, out=tmp_path / "warm")
    run(settings)  # imports
    tracemalloc.start()
    try:
        result = run(replace(settings, out=tmp_path / "run"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert result.summary["tasks"]["gsm8k"]["n_answered"] == n
    assert peak < n * length / 3


def test_a_disk_without_room_for_the_rows_is_named(tmp_path: Path) -> None:
    recording = Recording()
    recording._db.execute("PRAGMA max_page_count = 10")
    lines = [json.dumps({"id": f"gsm8k/{index}", "outputs": ["x" * 5_000]}).encode() for index in range(100)]
    with pytest.raises(EnvironmentFault, match=r"temporary file \(database or disk is full\)\. Set TMPDIR"):
        list(map(recording.add, lines))
