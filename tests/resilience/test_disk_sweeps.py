"""The disk fills up at every write there is, the store is damaged anywhere, the folder turns
read-only midway: swept, not sampled once.
"""

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from evals.errors import EnvironmentFault
from evals.runs.session import run
from tests.resilience.fake_runs import Engines, results, settings, stored

ROOT = Path(__file__).resolve().parents[2]
TASKS = ("gsm8k",)
N_PROMPTS = 6
N_DAMAGES = 36


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run to which nothing happened."""
    out = tmp_path_factory.mktemp("finished") / "run"
    assert run(settings(out, tasks=TASKS), make_generator=Engines()).is_complete
    return out


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system whose limits `limit` sets."""
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "nr_inodes=9999", "tmpfs", str(place)],
        capture_output=True,
        check=False,
    ).returncode:
        pytest.skip(
            "this user cannot mount a small disk; RLIMIT_FSIZE stands for it in test_full_disk.py"
        )
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def limit(disk: Path, option: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{option}", str(disk)], check=True)


def fault_of(out: Path, engines: Engines) -> str | None:
    """What a run says that the machine stopped; None where it ended well."""
    try:
        assert run(settings(out, tasks=TASKS), make_generator=engines).is_complete
    except EnvironmentFault as fault:
        return str(fault)
    return None


def filled_up(disk: Path, limits: Iterator[str], finished: Path) -> int:
    """Run under one limit after the other until one is enough; how many were not, each of them told
    and made good.
    """
    for n_full, small in enumerate(limits):
        out = disk / f"run-{n_full}"
        limit(disk, small)
        first = Engines()
        said = fault_of(out, first)
        if said is None:
            return n_full
        assert "\n" not in said
        assert "disk" in said or "No space left" in said, said
        limit(disk, "size=64m,nr_inodes=9999")
        assert not list(out.rglob("*.part"))
        second = Engines()
        assert run(settings(out, tasks=TASKS), make_generator=second).is_complete
        assert len(first.asked) + len(second.asked) <= N_PROMPTS + 1, (
            "more is asked again than the one answer that found no room"
        )
        assert results(out) == results(finished)
        shutil.rmtree(out)
    raise AssertionError("no limit was enough")


def test_wherever_the_disk_is_full_it_is_said_so_and_the_same_call_finishes(
    disk: Path, finished: Path
) -> None:
    assert filled_up(disk, (f"size={n_kb}k" for n_kb in range(4, 1000, 8)), finished) >= 10


def test_wherever_the_file_system_has_no_inode_left_it_is_said_so_and_the_same_call_finishes(
    disk: Path, finished: Path
) -> None:
    assert filled_up(disk, (f"nr_inodes={n}" for n in range(2, 100)), finished) >= 5


@pytest.mark.parametrize("seed", range(N_DAMAGES))
def test_a_store_damaged_anywhere_is_named_or_does_no_harm(
    seed: int, finished: Path, tmp_path: Path
) -> None:
    """Cut short, or a few bytes changed: no traceback, no other number, and moved away it is made
    anew.
    """
    out, draw = tmp_path / "run", random.Random(seed)
    shutil.copytree(finished, out)
    store = out / "store.sqlite"
    raw = bytearray(store.read_bytes())
    if seed % 3 == 0:
        del raw[draw.randrange(1, len(raw)) :]
    else:
        at, n = draw.randrange(len(raw)), draw.choice((1, 16, 512))
        raw[at : at + n] = draw.randbytes(len(raw[at : at + n]))
    store.write_bytes(raw)
    said = fault_of(out, Engines())
    if said is not None:
        assert "damaged" in said or "another" in said, said
        store.rename(tmp_path / "moved")
        assert fault_of(out, Engines()) is None
    assert results(out) == results(finished)


FROZEN = """
import os, sys
from unittest import mock
from evals.commands.app import main
from tests.resilience.fake_runs import Engines, SERVER, reply

out = sys.argv[1]
def freeze(request):
    if len(engines.asked) == 3:
        os.chmod(out + "/samples", 0o555)
        os.chmod(out, 0o555)
    return reply(request)

engines = Engines(freeze)
sys.argv[1:] = ["run", SERVER, "--suite", "smoke", "--tasks", "gsm8k", "--out", out]
with mock.patch("evals.runs.session.generator_for", engines):
    main()
"""


def test_a_folder_made_read_only_midway_is_said_so_with_its_exit_code_and_the_same_call_goes_on(
    finished: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    # Root is above permissions only by these two capabilities; without them it meets what everybody
    # meets.
    bound = (
        ["setpriv", "--bounding-set", "-dac_override,-dac_read_search", "--"]
        if os.geteuid() == 0
        else []
    )
    command = [*bound, sys.executable, "-c", FROZEN, str(out)]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    finally:
        for folder in (out, out / "samples"):
            folder.chmod(0o755)
    assert done.returncode == 4, done.stderr
    assert (
        "could not be written (Permission denied). The same command goes on"
        in done.stderr.splitlines()[-1]
    )
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert not (out / "summary.json").exists()
    assert len(stored(out)) == N_PROMPTS
    again = Engines()
    assert run(settings(out, tasks=TASKS), make_generator=again).is_complete
    assert again.asked == []
    assert results(out) == results(finished)
