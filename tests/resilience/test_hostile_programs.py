"""The hostile corpus, at both levels: no program passes, and nothing of it is left."""

import contextlib
import ctypes
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from evals.records import Outcome, Program
from evals.sandbox.launch import _BOOT, Level
from evals.sandbox.pool import Sandbox
from tests.resilience.hostile import CORPUS, PATIENT_S, Attack

GOOD = Program(
    "import os\nassert os.listdir('.') == []\ndef double(x):\n    return x + x",
    "assert double(2) == 4",
    wall_s=PATIENT_S,
)
_PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True)
class Aftermath:
    """What the corpus came to, and what it left."""

    outcomes: dict[str, Outcome]
    outside: dict[str, tuple[int, bytes]]
    server_mb: float
    alive_after: list[int]
    good: list[Outcome]


def children() -> list[int]:
    """Processes below this one."""
    found, todo = [], [os.getpid()]
    while todo:
        pid = todo.pop()
        for task in Path(f"/proc/{pid}/task").glob("*/children"):
            try:
                below = [int(word) for word in task.read_text().split()]
            except OSError:
                continue
            found += below
            todo += below
    return found


def resident_mb(pids: list[int]) -> float:
    """Memory that these processes hold in RAM."""
    total = 0
    for pid in pids:
        try:
            status = Path(f"/proc/{pid}/status").read_text()
        except OSError:
            continue
        total += sum(
            int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon")
        )
    return total / 1024


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Mode and bytes of every file."""
    return {
        str(path.relative_to(folder)): (path.lstat().st_mode, path.read_bytes())
        for path in folder.rglob("*")
    }


@pytest.fixture(scope="module", autouse=True)
def adoption() -> Iterator[None]:
    """Orphans come to this process instead of the machine's first one, so that none can be
    overlooked; only while this file runs.
    """
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    yield
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


@pytest.fixture(scope="module", params=["namespace", "process"])
def aftermath(request: pytest.FixtureRequest) -> Iterator[Aftermath]:
    level: Level = request.param
    if level == "namespace" and not shutil.which("bwrap"):
        pytest.skip("bubblewrap (bwrap) is not installed: the namespace level is not tested")
    before = set(children())
    outside = Path(tempfile.mkdtemp(prefix="evals-outside-"))
    (outside / "canary").write_text("sings")
    (outside / "canary").chmod(0o666)
    outside.chmod(0o777)
    with Sandbox(level=level) as sandbox:
        assert sandbox.level == level
        futures = [(attack.name, sandbox.submit(attack.program(str(outside)))) for attack in CORPUS]
        outcomes = {name: future.result() for name, future in futures}
        good = sandbox.map([GOOD] * 10)
        server_mb = resident_mb([pid for pid in children() if pid not in before])
    _reap(before)
    yield Aftermath(
        outcomes,
        contents(outside),
        server_mb,
        [pid for pid in children() if pid not in before],
        good,
    )
    shutil.rmtree(outside)


def _reap(keep: set[int]) -> None:
    """Waits for those that were killed: on a busy machine a process takes a while to die."""
    until = time.monotonic() + 120
    while (left := set(children()) - keep) and time.monotonic() < until:
        for pid in left:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        time.sleep(0.01)


@pytest.mark.parametrize("attack", CORPUS, ids=lambda attack: attack.name)
def test_hostile_program_gets_its_verdict(aftermath: Aftermath, attack: Attack) -> None:
    outcome = aftermath.outcomes[attack.name]
    assert outcome.status in attack.verdicts, outcome


def test_corpus_names_are_unique_and_no_attack_may_pass() -> None:
    assert len({attack.name for attack in CORPUS}) == len(CORPUS) >= 60
    assert not [attack.name for attack in CORPUS if "passed" in attack.verdicts]


def test_no_attack_took_its_runner_down(aftermath: Aftermath) -> None:
    assert not [
        name for name, outcome in aftermath.outcomes.items() if "runner down" in outcome.detail
    ]


def test_nothing_outside_was_changed(aftermath: Aftermath) -> None:
    assert aftermath.outside == {"canary": (0o100666, b"sings")}


def test_no_process_is_left(aftermath: Aftermath) -> None:
    assert aftermath.alive_after == []


def test_memory_is_given_back(aftermath: Aftermath) -> None:
    assert aftermath.server_mb < 400


def test_honest_programs_find_an_empty_folder_and_pass_after_the_corpus(
    aftermath: Aftermath,
) -> None:
    assert {outcome.status for outcome in aftermath.good} == {"passed"}


DAEMONS = """
import posix, time
for _ in range(3):
    if posix.fork() == 0:
        posix.setsid()
        time.sleep(600)
"""


@pytest.mark.parametrize("level", ["namespace", "process"])
def test_without_filters_and_file_rules_daemons_and_mass_murder_still_end_with_their_program(
    monkeypatch: pytest.MonkeyPatch, level: Level
) -> None:
    if level == "namespace" and not shutil.which("bwrap"):
        pytest.skip("bubblewrap (bwrap) is not installed: the namespace level is not tested")
    older = (
        "from jail import confine; confine._ARCHITECTURES = {}; confine.landlock_version ="
        " lambda: 0; "
    )
    monkeypatch.setattr(
        "evals.sandbox.launch._BOOT",
        _BOOT.replace("from jail import server", older + "from jail import server"),
    )
    before = set(children())
    with Sandbox(level=level, workers=1) as sandbox:
        if "namespaces" not in sandbox.level_reason:
            pytest.skip(
                "this kernel gives no process namespace, without which daemons are not contained"
            )
        assert "seccomp" not in sandbox.level_reason
        assert "landlock" not in sandbox.level_reason
        idle = len(children())
        assert sandbox.run(Program(DAEMONS, wall_s=PATIENT_S)).status == "passed"
        assert len(children()) == idle
        outcome = sandbox.run(Program("import posix\nposix.kill(-1, 9)", wall_s=PATIENT_S))
        assert outcome.status in ("exited", "passed", "forbidden", "exception"), outcome
        assert sandbox.run(Program("import posix\nposix.kill(1, 9)\nraise LookupError")).status in (
            "exception",
            "forbidden",
        )
        assert sandbox.map([GOOD] * 3) == [Outcome("passed")] * 3
    _reap(before)
    assert not set(children()) - before
