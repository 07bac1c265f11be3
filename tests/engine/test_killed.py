"""The real engine and vLLM's own servers, killed: what was answered is kept, and nothing is asked
twice.
"""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.real_engine import ROOT, SHORT, answers_in

COMMAND = [
    sys.executable,
    "-m",
    "evals",
    "run",
    "smollm2",
    "--suite",
    "smoke",
    "--tasks",
    "mmlu,gsm8k",
    *SHORT,
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nobody killed."""
    run = tmp_path_factory.mktemp("whole") / "run"
    subprocess.run(
        [*COMMAND, "--out", str(run)], cwd=ROOT, check=True, capture_output=True, timeout=900
    )
    return run


DIES = """
import os, signal, sys
from evals.commands.app import main
from evals.storage.store import Store
put, most = Store.put, int(sys.argv.pop(1))
def put_and_die(self, answers):
    put(self, answers)
    if self.count() >= most:
        os.kill(os.getpid(), signal.SIGKILL)
Store.put = put_and_die
main()
"""
"""The program, killed once its store holds so many answers."""


def test_killed_in_the_middle_it_goes_on_and_ends_with_the_same_summary(
    whole: Path, tmp_path: Path
) -> None:
    """The program is killed first. Then, under the same command, its engine's process is, as out of
    memory the kernel does it; vLLM itself leaves its caller waiting for ever then. Then it ends.
    """
    broken = tmp_path / "broken"
    store = broken / "store.sqlite"
    command = [*COMMAND, "--out", str(broken)]
    dies = [sys.executable, "-c", DIES, "3", *command[3:]]
    died = subprocess.run(dies, cwd=ROOT, capture_output=True, timeout=900, check=False)
    assert died.returncode == -signal.SIGKILL, died.stderr
    kept = answers_in(store)
    assert 3 <= kept < answers_in(whole / "store.sqlite")

    kill_the_engine(command)
    now = answers_in(store)
    assert kept <= now < answers_in(whole / "store.sqlite")
    assert not (broken / "summary.json").exists()

    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=900)
    assert (broken / "summary.json").read_bytes() == (whole / "summary.json").read_bytes()
    phases = json.loads((broken / "run.json").read_text())["sessions"][-1]["phases"]
    assert phases["generate"]["requests"] + now == answers_in(whole / "store.sqlite")


def kill_the_engine(command: list[str]) -> None:
    """Run the command, and kill its engine's process when it begins to generate: one sentence."""
    environment = os.environ | {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
    }
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr
    said = ""
    while not re.search(r"generate: \d+ to do", said):
        line = process.stderr.readline()
        assert line, said
        said += line
    for engine in engines_of(process.pid):
        os.kill(engine, signal.SIGKILL)
    out, rest = process.communicate(timeout=900)
    assert process.returncode == 4, said + rest
    assert (
        "evals: The engine died: its process ended. Nothing is lost; the same command goes on."
        in rest.splitlines()
    )
    assert out == ""


def engines_of(pid: int) -> list[int]:
    """The engine processes that a process started, as vLLM names them."""
    children = [
        int(word)
        for task in Path(f"/proc/{pid}/task").glob("*/children")
        for word in task.read_text().split()
    ]
    names = {
        child: Path(f"/proc/{child}/comm").read_text() + Path(f"/proc/{child}/cmdline").read_text()
        for child in children
    }
    named = [child for child, name in names.items() if "EngineCore" in name]
    assert named, "no engine process was found"
    return named
