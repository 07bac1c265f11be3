"""Recordings: large ones pass through a few rows at a time, and what a stranger recorded is never
taken for what was found here.
"""

import json
import shutil
import tracemalloc
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evals.data.load import load_smoke_data
from evals.errors import EnvironmentFault, InputError
from evals.generators import EngineSettings
from evals.generators.replay import Recording, read_recorded
from evals.plan.settings import RunSettings
from evals.records import ItemId
from evals.registry import BENCHMARKS
from evals.runs import answering
from evals.runs.progress import Progress
from evals.runs.rescore import rescore
from evals.runs.session import run
from evals.storage import spool
from evals.storage.run_folder import RunFolder
from scripts.bench_parts import toy
from tasks.xstest import XSTest
from tests.openai_server import Body, Reply, chat, error, serving
from tests.resilience.fake_runs import results
from tests.unit.commands.test_app import recorded_rows

GOOD = '{"id": "gsm8k/1", "outputs": ["42"]}\n'


@pytest.mark.parametrize("at_once", [1, 4, 10_000])
def test_how_many_rows_are_taken_at_once_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    recording = tmp_path / "rows.jsonl"
    recording.write_text("".join(json.dumps(row) + "\n" for row in recorded_rows()))

    def played(out: str) -> dict[str, bytes]:
        result = run(RunSettings(f"replay:{recording}", suite="smoke", out=tmp_path / out))
        assert result.is_complete
        return results(tmp_path / out)

    usual = played("usual")
    assert len(usual) == 9
    monkeypatch.setattr(answering, "_REPLAYED_AT_ONCE", at_once)
    monkeypatch.setattr(spool, "_BLOCK", at_once)
    assert played("other") == usual


def test_of_the_answers_only_a_few_are_in_memory(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    n, length = 150, 200_000
    recording = tmp_path / "rows.jsonl"
    with recording.open("w") as file:
        for index in range(n):
            file.write(
                json.dumps(
                    {"id": f"gsm8k/{index}", "outputs": [f"{index} is it. " * (length // 12)]}
                )
                + "\n"
            )
    monkeypatch.setattr(answering, "_REPLAYED_AT_ONCE", 5)
    settings = RunSettings(
        f"replay:{recording}", suite="full", tasks=("gsm8k",), data=data_dir, out=tmp_path / "warm"
    )
    run(settings)  # imports
    tracemalloc.start()
    try:
        result = run(replace(settings, out=tmp_path / "run"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert result.summary["tasks"]["gsm8k"]["n_answered"] == n
    assert peak < n * length / 3


def test_memory_does_not_grow_with_the_number_of_items(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite's own memory is not traced; it keeps a fixed number of pages.

    What waits to be graded and written is bounded, but how much of it there is at the peak is
    chance: half a megabyte between runs of one size. A kept grade or item is over 300 bytes.
    """
    monkeypatch.setitem(BENCHMARKS, "toy", "scripts.bench_parts.toy:Toy")

    def peak_of(n: int) -> int:
        argument = f"replay:{toy.write_recording(tmp_path / f'{n}.jsonl', n)}"
        data = toy.write_data(tmp_path / f"data-{n}", n)
        settings = RunSettings(
            argument, suite="full", tasks=("toy",), data=data, out=tmp_path / f"run-{n}"
        )
        tracemalloc.start()
        try:
            assert run(settings).summary["cells"]["toy"]["n"] == n
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak_of(10)  # imports
    few, many = peak_of(1_000), peak_of(8_000)
    assert many - few < 7_000 * 150


def test_a_disk_without_room_for_the_rows_is_named(tmp_path: Path) -> None:
    recording = Recording()
    recording._rows.ask("PRAGMA max_page_count = 10")
    lines = [
        json.dumps({"id": f"gsm8k/{index}", "outputs": ["x" * 5_000]}).encode()
        for index in range(100)
    ]
    with pytest.raises(
        EnvironmentFault,
        match=r"temporary file cannot be written or read \(database or disk is full\)\. Set TMPDIR",
    ):
        list(map(recording.add, lines))


def test_a_temporary_file_that_is_lost_is_named(tmp_path: Path) -> None:
    recording = Recording()
    recording.add(b'{"id": "gsm8k/0", "outputs": ["1"]}')
    recording._rows.ask("DROP TABLE rows")
    for read in (
        lambda: recording[ItemId("gsm8k/0")],
        lambda: len(recording),
        lambda: list(recording),
    ):
        with pytest.raises(EnvironmentFault, match="temporary file cannot be written or read"):
            read()


def recorded(
    path: Path, *tasks: str, change: Callable[[dict[str, Any]], object] = lambda row: None
) -> str:
    """The smoke items' right answers to some tasks, each row changed, as a model argument."""
    rows = [row for row in recorded_rows() if row["id"].split("/")[0] in tasks]
    for row in rows:
        change(row)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"replay:{path}"


def test_every_prompt_that_is_too_long_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answering, "_REPLAYED_AT_ONCE", 1)
    argument = recorded(tmp_path / "rows.jsonl", "gsm8k")
    settings = RunSettings(
        argument,
        suite="smoke",
        tokenizer="smollm2",
        engine=EngineSettings(max_model_len=100),
        out=tmp_path / "run",
    )
    with pytest.raises(InputError, match=r"\(6 such prompts"):
        run(settings)


def test_what_the_store_has_of_a_recording_is_not_counted_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argument = recorded(tmp_path / "rows.jsonl", "gsm8k", "mmlu")
    for tasks, said in (
        (("gsm8k",), ["generate: 6 of 6"]),
        (("gsm8k", "mmlu"), ["generate: 12 of 12"]),
        (("gsm8k", "mmlu"), []),
    ):
        run(RunSettings(argument, suite="smoke", tasks=tasks, out=tmp_path / "run"), Progress())
        lines = capsys.readouterr().err.splitlines()
        assert [
            line.partition(" in ")[0]
            for line in lines
            if line.startswith("generate: ") and " of " in line
        ] == said


def test_a_replay_that_breaks_off_takes_back_no_count_of_capped_answers(tmp_path: Path) -> None:
    argument = recorded(tmp_path / "rows.jsonl", "gsm8k")
    engine = EngineSettings(max_model_len=900)
    settings = RunSettings(
        argument, suite="smoke", tokenizer="smollm2", engine=engine, out=tmp_path / "run"
    )

    def capped() -> int:
        return int(RunFolder(tmp_path / "run").read_json("run.json")["capped"]["gsm8k"])

    class Stopped(Progress):
        def spare(self, n: int) -> None:
            raise KeyboardInterrupt

    run(settings)
    before = capped()
    with pytest.raises(KeyboardInterrupt):
        run(settings, Stopped(quiet=True))
    assert capped() == before > 0


@pytest.mark.parametrize(
    "damage", [Path.unlink, lambda path: path.write_text(GOOD)], ids=["gone", "changed"]
)
def test_a_file_that_is_not_what_was_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[Path], object]
) -> None:
    argument = recorded(tmp_path / "rows.jsonl", "gsm8k")

    def read_then_damaged(path: Path, known: Iterable[str]) -> Recording:
        found = read_recorded(path, known)
        damage(path)
        return found

    monkeypatch.setattr("evals.plan.make.read_recorded", read_then_damaged)
    with pytest.raises(InputError, match=r"rows.jsonl (changed while it was|cannot be) read"):
        run(RunSettings(argument, suite="smoke", out=tmp_path / "run"))


def test_a_judge_that_gives_no_verdict_leaves_the_recorded_one_of_another_out(
    tmp_path: Path,
) -> None:
    argument = recorded(tmp_path / "rows.jsonl", "xstest")
    refused, *others = (row["id"] for row in recorded_rows() if row["id"].startswith("xstest/"))
    prompt = next(
        item.prompt
        for item in XSTest(chat=True).items(load_smoke_data(XSTest.dataset))
        if item.id == refused
    )

    def script(body: Body, before: int) -> Reply:
        return error(400, "too long") if prompt in str(body) else chat(body, "1_full_compliance")

    with serving(script) as server:
        settings = RunSettings(
            argument, suite="smoke", judges=(f"xstest=openai:j@{server.url}",), out=tmp_path / "run"
        )
        result = run(settings)
    assert result.n_missing == 1
    by = {
        row["id"]: row.get("findings", {}).get("xstest", {}).get("by")
        for row in RunFolder(tmp_path / "run").samples("xstest")
    }
    assert by.pop(refused) is None
    assert by == dict.fromkeys(others, f"openai:j@{server.url}")


def wrong_ones_that_passed(path: Path) -> str:
    """A stranger's rows: of 60 wrong programs each is said to have passed."""
    return recorded(
        path, "humaneval", change=lambda row: row.update(outputs=["    return 0\n"] * 20)
    )


def test_recorded_outcomes_of_programs_are_marked(tmp_path: Path) -> None:
    run(
        RunSettings(
            wrong_ones_that_passed(tmp_path / "rows.jsonl"), suite="smoke", out=tmp_path / "run"
        )
    )
    text = (tmp_path / "run" / "summary.json").read_bytes()
    cell = json.loads(text)["cells"]["humaneval"]
    assert (cell["value"], cell["marks"][-1]) == (
        1.0,
        "humaneval: outcomes of 60 programs as recorded, not run here",
    )
    rescore(tmp_path / "run", None)
    assert (tmp_path / "run" / "summary.json").read_bytes() == text


@pytest.mark.skipif(
    not shutil.which("bwrap"),
    reason="bubblewrap (bwrap) is not installed: --sandbox require is not tested",
)
def test_with_the_sandbox_required_recorded_programs_are_run(tmp_path: Path) -> None:
    settings = RunSettings(
        wrong_ones_that_passed(tmp_path / "rows.jsonl"),
        suite="smoke",
        sandbox="require",
        out=tmp_path / "run",
    )
    # Run again without it, the folder keeps what the sandbox found.
    for asked in (settings, replace(settings, sandbox="auto")):
        cell = run(asked).summary["cells"]["humaneval"]
        assert cell["value"] == 0.0
        assert not [mark for mark in cell["marks"] if "recorded" in mark]
