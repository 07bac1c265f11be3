"""How the command line ends when it is made to: Ctrl-C once and twice, a reader that hangs up."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from evals.data.load import load_smoke_data
from evals.registry import benchmark_class
from tests.openai_server import Body, Reply, chat, serving
from tests.real_engine import answers_in

ROOT = Path(__file__).resolve().parents[3]


# --- how it ends when it is made to ---------------------------------------------------------------


def started(*arguments: object, cwd: Path) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OPENAI_API_KEY": "sk-x"}
    command = [sys.executable, "-m", "evals", *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_an_interrupt_that_passed_through_an_exec_has_the_same_exit_code(tmp_path: Path) -> None:
    """As one does that comes while a dataclass is being made; CPython remembers it, and would end
    by the signal.
    """
    interrupted = (
        "from evals.commands import app\n"
        "app.app = lambda **_: exec('raise KeyboardInterrupt')\napp.main()\n"
    )
    (tmp_path / "interrupted.py").write_text(interrupted)
    command = [sys.executable, "-m", "interrupted"]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 130
    assert "evals: stopped." in done.stderr


def test_an_interrupt_while_the_interpreter_ends_shows_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "late.py").write_text(
        "import atexit, os, signal, sys\n"
        "atexit.register(lambda: os.kill(os.getpid(), signal.SIGINT))\n"
        "from evals.commands.app import main\n"
        "sys.argv = ['evals', '--version']\nmain()\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "late"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")
    assert done.stdout.strip()  # what was printed is not lost


@pytest.mark.parametrize(
    "sent", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "a scheduler's SIGTERM"]
)
def test_ctrl_c_ends_a_run_at_once_and_what_was_answered_is_kept(
    tmp_path: Path, sent: signal.Signals
) -> None:
    stuck = threading.Event()

    def script(body: Body, before: int) -> Reply:
        if "bread" not in body["messages"][0]["content"]:
            stuck.wait(900)
        return chat(body, "Some text.")

    with serving(script) as server:
        command = (
            "run",
            f"openai:m@{server.url}",
            "--suite",
            "smoke",
            "--tasks",
            "ifeval",
            "--out",
            tmp_path / "run",
        )
        process = started(*command, cwd=tmp_path)
        deadline = time.monotonic() + 300
        # All were asked, and the one that is answered is kept.
        while (
            (len(server.asked) < 6 or answers_in(tmp_path / "run" / "store.sqlite") < 1)
            and time.monotonic() < deadline
            and process.poll() is None
        ):
            time.sleep(0.05)
        process.send_signal(sent)
        out, err = process.communicate(timeout=600)
        assert process.returncode == 130, err
        assert "evals: stopped. What was answered is kept; the same command goes on." in err
        assert "Traceback" not in err
        assert (tmp_path / "run" / "run.json").exists()
        stuck.set()
        again = started(*command, cwd=tmp_path)
        out, err = again.communicate(timeout=600)
        assert again.returncode == 0, err
        assert "IFEval" in out
        assert sorted(server.times.values()) == [1, 2, 2, 2, 2, 2]


def test_a_second_ctrl_c_stops_at_once_and_leaves_no_process(tmp_path: Path) -> None:
    """The first one waits for the programs under way, which take three seconds each; the second
    does not.
    """
    # Equal programs run once.
    endless = {"outputs": [f"    while True: {n}" for n in range(20)]}
    item_ids = [
        item.id
        for item in benchmark_class("humaneval")(chat=False).items(
            load_smoke_data(benchmark_class("humaneval").dataset)
        )
    ]
    recording = tmp_path / "endless.jsonl"
    recording.write_text(
        "".join(json.dumps(endless | {"id": item_id}) + "\n" for item_id in item_ids)
    )
    command = (
        "run",
        f"replay:{recording}",
        "--suite",
        "smoke",
        "--tasks",
        "humaneval",
        "--out",
        tmp_path / "run",
    )
    process = started(*command, cwd=tmp_path)
    # Before a program is under way there is nothing that the first one waits for.
    while not is_at_work(process.pid) and process.poll() is None:
        time.sleep(0.05)
    servers = children_of(process.pid)
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    said = ""
    while "once more" not in said:
        said += (line := process.stderr.readline())
        assert line, said
    process.send_signal(signal.SIGINT)
    said += process.communicate(timeout=600)[1]
    assert process.returncode == 130
    assert said.rstrip().endswith(
        "evals: stopped at once. What was answered is kept; the same command goes on."
    )
    assert "Traceback" not in said
    deadline = time.monotonic() + 120
    while (left := [pid for pid in servers if is_running(pid)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left


def is_running(pid: int) -> bool:
    """Whether a process still runs; one that ended and waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def children_of(pid: int) -> list[int]:
    """Processes that a process started."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # it has ended
            found += map(int, task.read_text().split())
    return found


def is_at_work(pid: int) -> bool:
    """Whether a process below it has used more processor time than its start takes."""
    for child in children_of(pid):
        try:
            fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        used_s = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        if used_s > 0.5 or is_at_work(child):
            return True
    return False


def test_a_server_that_slams_the_door_is_an_error_and_no_silent_death(tmp_path: Path) -> None:
    listener = socket.create_server(("127.0.0.1", 0))

    def slam() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connection.close()  # before the request is written: the writer gets a broken pipe

    threading.Thread(target=slam, daemon=True).start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    process = started(
        "run",
        f"openai:m@{url}",
        "--suite",
        "smoke",
        "--tasks",
        "gsm8k",
        "--out",
        tmp_path / "run",
        cwd=tmp_path,
    )
    _, err = process.communicate(timeout=600)
    listener.close()
    assert process.returncode == 4, err
    assert "cannot be reached" in err
    assert "Traceback" not in err


def test_a_reader_who_closes_the_pipe_gets_no_traceback(tmp_path: Path, data_dir: Path) -> None:
    process = started("prompts", "gsm8k", "--model", "smollm2", "--data", data_dir, cwd=tmp_path)
    assert process.stdout is not None
    assert process.stderr is not None
    assert json.loads(process.stdout.readline())["id"] == "gsm8k/1309"
    process.stdout.close()
    err = process.stderr.read()
    assert process.wait(600) == 1
    assert err == ""
