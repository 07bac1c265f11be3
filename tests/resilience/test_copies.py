"""Copies of an engine: real processes, keepers and connections around an engine without weights.
All is answered once whatever dies, and nothing outlives the run.
"""

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from evals.errors import EnvironmentFault, InputError
from evals.generators import EngineSettings
from evals.generators.copies import CopiesGenerator
from evals.generators.copy_process import Start
from evals.generators.keeper import room_for_sockets
from evals.generators.placing import Places
from evals.records import Completion
from tests.fake_copy import COMMAND, ROOT
from tests.openai_requests import ids_request

PLACES = Places("FAKE_DEVICES", ("0,1", "2,3"), "GPU", 4)


def copies(folder: Path, places: Places = PLACES, **how: Any) -> CopiesGenerator:
    start = Start(json.dumps(how | {"log": str(folder)}), EngineSettings(seed=7))
    silent_s = 3.0 if how.get("load") == "waits" else 60.0
    return CopiesGenerator(start, places, folder / "logs", silent_s=silent_s, command=COMMAND)


def answers(engine: CopiesGenerator, n: int, first: int = 0) -> dict[int, list[str]]:
    """By request, what the copy said that answered: place, seed, adapter, processes, memory, and
    how many it had answered."""
    found: dict[int, list[str]] = {}
    requests = [ids_request(number) for number in range(first, first + n)]
    for done in engine.stream(requests):
        for request, answer in done:
            number = next(i for i, one in enumerate(requests) if one is request)
            assert number not in found
            assert isinstance(answer, Completion)
            found[number] = answer.text.split("/")
    assert len(found) == n
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone(pids: set[int], memory: set[str], within_s: float = 120.0) -> bool:
    deadline = time.monotonic() + within_s
    while any(map(alive, pids)) or any(Path("/dev/shm", name).exists() for name in memory):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_each_request_is_answered_once_by_copies_on_devices_of_their_own(tmp_path: Path) -> None:
    engine = copies(tmp_path)
    try:
        found = answers(engine, 100)
        assert {tuple(one[:2]) for one in found.values()} == {("0,1", "7"), ("2,3", "1000010")}
        engine.serve("a")
        assert {one[2] for one in answers(engine, 10).values()} == {"a"}
        with pytest.raises(InputError, match="cannot serve it"):
            engine.serve("broken")
    finally:
        engine.close()
    assert all("closed in order" in log.read_text() for log in (tmp_path / "logs").iterdir())


def test_on_a_cpu_each_copy_keeps_to_its_own_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_PLACES", raising=False)
    copies(tmp_path, Places("FAKE_DEVICES", ("0,1", "2"), "core", 3)).close()
    logs = sorted((tmp_path / "logs").iterdir())
    assert [log.read_text().splitlines()[0] for log in logs] == [
        "OMP_PLACES is {0,1}",
        "OMP_PLACES is {2}",
    ]


def test_what_a_dead_copy_left_goes_to_the_others_and_it_is_started_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    engine = copies(tmp_path, dies_at=10, step_s=0.02)
    try:
        engine.serve("a")
        found = answers(engine, 300)
        # Started again they draw other samples, and answer with the same adapter.
        assert {one[1] for one in found.values()} == {str(7 + n * 1_000_003) for n in range(4)}
        assert {one[2] for one in found.values()} == {"a"}
    finally:
        engine.close()
    assert [line for line in caplog.messages if "is ready again" in line]
    lost = [line for line in caplog.messages if "is lost" in line]
    assert len(lost) == 2
    assert all("It is started again; the " in line for line in lost)


def test_when_none_is_left_it_is_one_error_with_the_end_of_the_log(tmp_path: Path) -> None:
    engine = copies(tmp_path, dies_at=10, deaths=2, deaths_say="It ran out of memory.")
    try:
        with pytest.raises(EnvironmentFault, match=r"memory\. No copy is left") as caught:
            answers(engine, 400)
    finally:
        engine.close()
    assert "INFO Starting to load model" in str(caught.value)


@pytest.mark.parametrize(
    ("load", "error", "says"),
    [
        ("fails", InputError, r"Copy 2 of 2 \(GPU 2,3\): vLLM cannot load it\. Its log is "),
        ("ends", EnvironmentFault, "its process ended"),
        ("waits", EnvironmentFault, "nothing in its log for"),
    ],
)
def test_a_copy_that_does_not_start_is_one_error_and_ends_the_others(
    load: str, error: type[Exception], says: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=says) as caught:
        copies(tmp_path, load=load, at="2,3")
    assert str(caught.value).splitlines()[-1].strip() == (
        "the root of it" if load == "fails" else "INFO Starting to load model"
    )


def test_a_stream_that_is_left_is_dropped_and_the_next_has_answers_of_its_own(
    tmp_path: Path,
) -> None:
    engine = copies(tmp_path, step_s=0.05)
    try:
        stream = engine.stream([ids_request(number) for number in range(1000)])
        next(stream)
        stream.close()
        answers(engine, 4, first=5000)
        told = [int(one[5]) for one in answers(engine, 40, first=6000).values()]
        assert max(told) < 250  # of the thousand a copy would have answered half
    finally:
        engine.close()


RUN = """
import os, sys
sys.path.insert(0, {root!r})
from pathlib import Path
from tests.resilience.test_copies import copies, ids_request
engine = copies(Path({folder!r}), lasting=True, step_s=0.02)
for done in engine.stream([ids_request(number) for number in range(100000)]):
    for _, answer in done:
        print(answer.text, flush=True)
"""


@pytest.mark.parametrize("is_killed", [True, False])
def test_nothing_outlives_the_run(*, is_killed: bool, tmp_path: Path, short_folder: Path) -> None:
    """A copy is killed, then the run, both with processes in sessions of their own; or it is
    stopped in the middle. No process, shared memory or socket's folder is left.
    """
    scratch = short_folder
    code = RUN.format(root=str(ROOT), folder=str(tmp_path))
    run = subprocess.Popen(
        [sys.executable, "-c", code],
        env=os.environ | {"TMPDIR": str(scratch)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert run.stdout is not None
    pids: set[int] = set()
    engines: set[int] = set()
    memory: set[str] = set()
    while len(engines) < 2:
        *_, listed, name, _ = run.stdout.readline().strip().split("/")
        own = list(map(int, listed.split(",")))
        engines.add(own[0])
        pids.update(own, children(own[1]))
        memory.add(name)
    assert all(map(alive, pids))
    assert len(pids) == 6
    assert len(list(scratch.glob("evals-engine-*"))) == 2
    if is_killed:
        victim = min(engines)
        os.kill(victim, signal.SIGKILL)
        # Its own are ended while the run goes on; the other copy's are not.
        deadline = time.monotonic() + 120
        while sum(map(alive, pids)) > 3 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert sum(map(alive, pids)) == 3
        assert run.poll() is None
    run.send_signal(signal.SIGKILL if is_killed else signal.SIGINT)
    run.stdout.close()
    run.wait(timeout=300)
    assert gone(pids, memory)
    deadline = time.monotonic() + 120
    while list(scratch.glob("evals-engine-*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not list(scratch.glob("evals-engine-*"))


def test_sockets_of_an_engine_have_room_where_temporary_files_have_long_names(
    tmp_path: Path, short_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A socket is opened below it under a name as long as vLLM's; the kernel's limit is 107."""
    long = tmp_path / ("a" * 80)
    long.mkdir()
    for usual in (long, short_folder):
        monkeypatch.setattr(tempfile, "tempdir", str(usual))
        with room_for_sockets() as folder, socket.socket(socket.AF_UNIX) as one:
            one.bind(f"{folder}/{uuid.uuid4()}")
            assert (Path(folder).parent == usual) is (usual == short_folder)
        assert not Path(folder).exists()


def children(pid: int) -> set[int]:
    """A process's own, once it has one."""
    while not (found := Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
        time.sleep(0.01)
    return set(map(int, found))
