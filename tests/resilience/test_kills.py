"""kill -9 in every phase, at random moments: the same command goes on, asks only for what is
missing, and ends with the same bytes.
"""

import contextlib
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.resilience.fake_runs import results

ROOT = Path(__file__).resolve().parents[2]
WAIT_S = 0.004
PHASES = {
    "tokenize": 0.05,
    "load": 0.01,
    "generate": 0.06,
    "programs": 0.15,
    "judge": 0.04,
    "grade": 0.02,
    "write": 0.004,
}
"""In the order in which a session comes to them, with about how many seconds each lasts: moments
are drawn from these.
"""
LIVES = (
    ("tokenize", "load", "generate", "generate", "programs", "judge", "judge", "write"),
    ("generate", "generate", "programs", "programs", "judge", "judge", "grade", "write"),
    ("load", "generate", "programs", "judge", "grade", "grade", "write", "write"),
)
"""What each run is killed in, one session after the other."""
N_RUNS = 7


@dataclass
class Sessions:
    """The warm program that forks sessions."""

    process: "subprocess.Popen[str]"

    def session(
        self, out: Path, log: Path, killed_in: str | None = None, moment: float = 0.0
    ) -> int:
        """Run one session, killed so many seconds after a phase began; its exit status, negative
        for a signal.
        """
        assert self.process.stdin
        assert self.process.stdout
        print(out, log, WAIT_S, file=self.process.stdin, flush=True)
        handle = -1
        for line in self.process.stdout:
            what, value = line.split()
            if what == "pid":
                handle = os.pidfd_open(int(value))
            elif what == "phase" and value == killed_in:
                time.sleep(moment)
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
                killed_in = None
            elif what == "ended":
                os.close(handle)
                return int(value)
        raise AssertionError("the program that forks sessions ended")


@pytest.fixture(scope="module")
def sessions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sessions]:
    environment = os.environ | {"TMPDIR": str(tmp_path_factory.mktemp("scratch"))}
    command = [sys.executable, "-m", "tests.resilience.fake_runs"]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield Sessions(process)
        assert process.stdin
        process.stdin.close()


@pytest.fixture(scope="module")
def whole(sessions: Sessions, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nobody disturbs."""
    out = tmp_path_factory.mktemp("whole") / "run"
    assert sessions.session(out, out.with_name("log")) == 0
    return out


def rows(out: Path, table: str, columns: str) -> list[tuple[str, ...]]:
    """A table of a run's store; empty while there is none."""
    path = out / "store.sqlite"
    if not path.exists():
        return []
    with contextlib.closing(sqlite3.connect(path)) as store:
        known = {name for (name,) in store.execute("SELECT name FROM sqlite_master")}
        return sorted(store.execute(f"SELECT {columns} FROM {table}")) if table in known else []


@pytest.mark.parametrize("seed", range(N_RUNS))
def test_a_run_killed_again_and_again_ends_as_if_it_had_not_been(
    seed: int, sessions: Sessions, whole: Path, tmp_path: Path
) -> None:
    moments = random.Random(seed)
    out, log = tmp_path / "run", tmp_path / "log"
    killed: Counter[str] = Counter()
    for phase in LIVES[seed % len(LIVES)]:
        while True:
            had, n_logged = (
                rows(out, "answers", "key, payload"),
                len(log.read_text()) if log.exists() else 0,
            )
            if (
                sessions.session(out, log, phase, moments.uniform(0, PHASES[phase]))
                == -signal.SIGKILL
            ):
                break
            # It came to its end before the moment: what it wrote is as good, and the run starts
            # anew.
            assert results(out) == results(whole)
            shutil.rmtree(out)
            log.unlink()
        killed[phase] += 1
        assert set(had) <= set(rows(out, "answers", "key, payload")), (
            "an answer was lost or changed"
        )
        asked = log.read_text()[n_logged:].split() if log.exists() else []
        assert {key for (key, _) in had}.isdisjoint(asked), "asked for what the store had"
        assert len(asked) == len(set(asked))
    assert killed.total() == len(LIVES[seed % len(LIVES)])
    assert sessions.session(out, log) == 0
    assert results(out) == results(whole)
    assert rows(out, "answers", "key, payload") == rows(whole, "answers", "key, payload")
    assert rows(out, "asked", "*") == rows(whole, "asked", "*")


def test_the_kills_reach_every_phase_and_are_fifty_and_more() -> None:
    planned = Counter(phase for seed in range(N_RUNS) for phase in LIVES[seed % len(LIVES)])
    assert set(planned) == set(PHASES)
    assert planned.total() >= 50
