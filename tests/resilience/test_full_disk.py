"""The disk is full, read-only, locked or damaged: one sentence, nothing lost, and the same call
goes on.
"""

import json
import os
import random
import resource
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from evals.errors import EnvironmentFault
from evals.models.prompts import Rendered
from evals.records import Completion, Output
from evals.runs.rescore import rescore
from evals.runs.session import run
from tests.resilience.fake_runs import Engines, reply, results, settings, stored
from tests.run_files import RECORD

ROOT = Path(__file__).resolve().parents[2]
N_PROMPTS = 12 + 6 + 6 + 8


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What the run comes to when nothing happens to it."""
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    finish(out)
    return results(out)


@pytest.fixture(scope="module")
def undisturbed_wordy(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The same with long answers."""
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    assert run(settings(out), make_generator=Engines(wordy)).is_complete
    return results(out)


def finish(out: Path) -> list[str]:
    """Call with a whole engine; what it was asked."""
    engines = Engines()
    assert run(settings(out), make_generator=engines).is_complete
    return engines.asked


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of half a megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(disk)],
        capture_output=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(
            "this user cannot mount a small disk; RLIMIT_FSIZE stands for it in the next test"
        )
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def wordy(request: Rendered) -> Completion:
    """A long answer that cannot be compressed."""
    noise = random.Random(request.item_id).randbytes(40_000).hex()
    return reply(request) if request.labels else Completion((Output(noise, "stop", (1,)),))


def test_a_full_disk_is_said_so_and_loses_nothing(
    small_disk: Path, undisturbed_wordy: dict[str, bytes]
) -> None:
    out = small_disk / "run"
    first = Engines(wordy)
    with pytest.raises(EnvironmentFault, match="disk is full"):
        run(settings(out), make_generator=first)
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    assert 0 < len(stored(out)) < N_PROMPTS
    assert not list(out.rglob("*.part"))
    second = Engines(wordy)
    assert run(settings(out), make_generator=second).is_complete
    # The one answer that found no room was not committed.
    assert len(first.asked) + len(second.asked) == N_PROMPTS + 1
    assert results(out) == undisturbed_wordy


def test_a_disk_that_fills_up_while_results_are_written_is_said_so(
    small_disk: Path, tmp_path: Path, undisturbed_wordy: dict[str, bytes]
) -> None:
    out, store = small_disk / "run", tmp_path / "store.sqlite"
    with pytest.raises(EnvironmentFault, match=r"jsonl\.gz could not be written .No space left"):
        run(settings(out, store=store), make_generator=Engines(wordy))
    assert not (out / "summary.json").exists()
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    again = Engines()
    assert run(settings(out, store=store), make_generator=again).is_complete
    assert again.asked == []
    assert results(out) == undisturbed_wordy


LIMITED = """
import resource, sys
from pathlib import Path
from evals.runs.session import run
from tests.resilience.fake_runs import Engines, settings
from tests.resilience.test_full_disk import wordy
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
run(settings(Path(sys.argv[1])), make_generator=Engines(wordy))
"""


def test_a_quota_reached_is_said_so_and_is_no_damage(
    tmp_path: Path, undisturbed_wordy: dict[str, bytes]
) -> None:
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    out = tmp_path / "run"
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "EnvironmentFault" in done.stderr.splitlines()[-1]
    assert "damaged" not in done.stderr.splitlines()[-1]
    had = stored(out)
    assert 0 < len(had) < N_PROMPTS
    again = Engines(wordy)
    assert run(settings(out), make_generator=again).is_complete
    assert had.isdisjoint(again.asked)
    assert results(out) == undisturbed_wordy


def test_a_locked_store_is_said_to_be_in_use_and_the_same_call_goes_on(
    tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        run(settings(out), make_generator=Engines(fails_after=10))
    other = sqlite3.connect(out / "store.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    engines = Engines()
    with pytest.raises(EnvironmentFault, match="in use by another process"):
        run(settings(out), make_generator=engines)
    assert engines.asked == []
    other.execute("ROLLBACK")
    other.close()
    assert len(finish(out)) == N_PROMPTS - 10
    assert results(out) == undisturbed


def test_a_store_cut_short_is_said_to_be_damaged_and_moved_away_starts_anew(
    tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    out = tmp_path / "run"
    finish(out)
    raw = (out / "store.sqlite").read_bytes()
    (out / "store.sqlite").write_bytes(raw[: len(raw) // 2])
    engines = Engines()
    with pytest.raises(EnvironmentFault, match="damaged"):
        run(settings(out), make_generator=engines)
    assert engines.asked == []
    (out / "store.sqlite").rename(tmp_path / "moved")
    assert len(finish(out)) == N_PROMPTS
    assert results(out) == undisturbed


def test_a_folder_that_cannot_be_written_is_said_so_before_anything_is_asked(
    tmp_path: Path,
) -> None:
    out = tmp_path / "run"
    out.mkdir()
    freeze, thaw = (
        (["chattr", "+i"], ["chattr", "-i"])
        if os.geteuid() == 0
        else (["chmod", "555"], ["chmod", "755"])
    )
    if subprocess.run([*freeze, str(out)], capture_output=True, check=False).returncode:
        pytest.skip("neither chmod nor chattr can make a folder read-only for this user here")
    try:
        engines = Engines()
        with pytest.raises(EnvironmentFault, match="cannot be written"):
            run(settings(out, tasks=("gsm8k",)), make_generator=engines)
        assert engines.n_started == 0
    finally:
        subprocess.run([*thaw, str(out)], check=True)


def test_a_second_run_in_a_folder_at_work_is_refused_and_harms_nothing(
    tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    out = tmp_path / "run"
    refused: list[str] = []

    def meddle(request: Rendered) -> Completion:
        if len(refused) < 2:
            with pytest.raises(EnvironmentFault, match="Another run is working") as caught:
                (
                    run(settings(out), make_generator=Engines())
                    if refused
                    else rescore_while_working(out)
                )
            refused.append(str(caught.value))
        return reply(request)

    assert run(settings(out), make_generator=Engines(meddle)).is_complete
    assert len(refused) == 2
    assert results(out) == undisturbed


def rescore_while_working(out: Path) -> None:
    """`evals score` on a folder whose run is under way;
    it has a run.json from an earlier session.
    """
    (out / "run.json").write_text(json.dumps(RECORD))
    try:
        rescore(out, None)
    finally:
        (out / "run.json").unlink()
