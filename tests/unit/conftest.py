"""Finished runs of recorded answers, and the console command, for what reads run folders."""

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from evals.commands.app import main
from evals.compare.columns import read_columns
from evals.compare.paired import PairedDifference
from evals.plan.settings import RunSettings
from evals.runs.session import run
from tests.unit.commands.test_app import recorded_rows

Make = Callable[..., Path]
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """A finished run of recorded answers to the smoke suite, changed row by row; made once for each
    name.
    """
    folder = tmp_path_factory.mktemp("runs")

    def make(
        name: str, change: Callable[[dict[str, Any]], dict[str, Any] | None] = dict, **settings: Any
    ) -> Path:
        if not (folder / name).exists():
            rows = [changed for row in recorded_rows() if (changed := change(row))]
            (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            run(
                RunSettings(
                    f"replay:{folder / name}.jsonl", suite="smoke", out=folder / name, **settings
                )
            )
        return folder / name

    return make


def paired_columns(
    baseline: Path, candidate: Path, data: Path | None = None
) -> dict[str, PairedDifference]:
    return dict(read_columns(baseline, candidate, data).differences)


def wrong_sums(row: Mapping[str, Any]) -> dict[str, Any]:
    return (
        {**row, "outputs": ["So the answer is 99999."]}
        if row["id"].startswith("gsm8k/")
        else dict(row)
    )


def unfinished_sums(row: Mapping[str, Any]) -> dict[str, Any] | None:
    return (
        None
        if row["id"] == next(row["id"] for row in recorded_rows() if row["id"].startswith("gsm8k/"))
        else dict(row)
    )


@pytest.fixture
def evals(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """The console command outside GitHub: exit code, stdout, stderr."""
    for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["evals", *map(str, arguments)])
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        return (code, *capsys.readouterr())

    return call
