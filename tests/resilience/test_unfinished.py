"""Looking at a run that is not finished: what is there is printed, marked; nothing is written."""

import re
from pathlib import Path
from typing import Any

import pytest

from evals.errors import InputError
from evals.models.prompts import Rendered
from evals.records import Completion
from evals.report.rows import Layout, report_table
from evals.report.table import LIMITED, TableRow
from evals.runs.progress import Progress
from evals.runs.session import run
from tests.resilience.fake_runs import QUICK, Engines, reply, settings

N_ITEMS = {"mmlu": 12, "gsm8k": 6, "bbh": 6, "xstest": 8}
_COUNT = re.compile(r"(\d+) of (\d+) items answered so far")


def row_of(out: Path) -> TableRow:
    (row,) = report_table([out], False, Layout()).rows
    return row


def answered(row: TableRow, key: str) -> tuple[int, int]:
    """How many of a column's items the row says are answered, and how many there are: all, where a
    number has no mark about it.
    """
    cell = row.cell(key)
    if cell.text == "-":
        found = _COUNT.search(row.notes[key])
    else:
        marks = [mark for mark in cell.marks if mark.startswith("unfinished")]
        if not marks:
            return (N_ITEMS[key.partition("_")[0]],) * 2
        found = _COUNT.search(marks[0])
        assert found is not None
        assert int(found[1]) < int(found[2])
    assert found, row
    return int(found[1]), int(found[2])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> TableRow:
    out = tmp_path_factory.mktemp("finished") / "run"
    run(settings(out), make_generator=Engines(batch=7))
    return row_of(out)


@pytest.mark.parametrize("n_answered", [0, 1, 9, 20, 31])
def test_a_stopped_run_shows_what_it_has(
    tmp_path: Path, finished: TableRow, n_answered: int
) -> None:
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        run(settings(out), make_generator=Engines(fails_after=n_answered))
    before = {file: file.read_bytes() for file in out.rglob("*.json")}
    row = row_of(out)
    assert {file: file.read_bytes() for file in out.rglob("*.json")} == before
    assert (row.name, row.group) == (f"{finished.name} (unfinished)", LIMITED)
    counts = {task: answered(row, key) for task, key in zip(QUICK, KEYS, strict=True)}
    assert sum(n for n, _ in counts.values()) == n_answered
    assert {task: n for task, (_, n) in counts.items()} == N_ITEMS
    for task, key in zip(QUICK, KEYS, strict=True):
        if counts[task][0] == N_ITEMS[task]:
            assert row.cell(key).text == finished.cell(key).text
            assert finished.cell(key).marks == row.cell(key).marks
        assert (row.cell(key).text == "-") >= (counts[task][0] == 0)


KEYS = ("mmlu", "gsm8k", "bbh", "xstest_unsafe_followed")


def test_the_first_of_several_draws_is_not_the_runs_number(tmp_path: Path) -> None:
    of_two = settings(tmp_path / "run", tasks=("gsm8k",), temperature=0.7, repeats=2)
    with pytest.raises(KeyboardInterrupt):
        run(of_two, make_generator=Engines(fails_after=N_ITEMS["gsm8k"]))
    cell = row_of(tmp_path / "run").cell("gsm8k")
    assert cell.text != "-"
    assert "unfinished: the first of 2 draws alone" in cell.marks


def test_a_run_that_is_at_work_can_be_looked_at(tmp_path: Path) -> None:
    out, seen = tmp_path / "run", list[int]()

    def answer(request: Rendered) -> Completion:
        row = row_of(out)
        seen.append(sum(answered(row, key)[0] for key in KEYS))
        return reply(request)

    assert run(settings(out), make_generator=Engines(answer=answer)).is_complete
    # The store commits a few answers behind the engine, and never forgets one.
    assert seen == sorted(seen)
    assert 0 == seen[0] < seen[-1] < sum(N_ITEMS.values())


def test_a_resumed_run_says_how_much_is_kept(tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        run(settings(out), make_generator=Engines(fails_after=20))
    assert "are kept" not in capsys.readouterr().err
    run(settings(out), Progress(), make_generator=Engines())
    assert "20 of 32 answers are kept; the others are asked\n" in capsys.readouterr().err
    run(settings(out), Progress(), make_generator=Engines())
    assert "are kept" not in capsys.readouterr().err


def test_a_folder_without_a_run_is_still_none(tmp_path: Path) -> None:
    (tmp_path / "store.sqlite").touch()
    with pytest.raises(InputError, match="is not a finished run"):
        row_of(tmp_path)
