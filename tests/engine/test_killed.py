"""The real engine and vLLM's own servers, killed: what was answered is kept, and nothing is asked
twice.
"""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from evals.records import Completion
from evals.storage.store import Store
from tests.real_engine import ROOT, SHORT, answers_in, cut_short, evals, vllm_server


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The embedded one cut short, which is asked as much and takes less."""
    return str(cut_short(tmp_path_factory.mktemp("models") / "small", 4))


@pytest.fixture(scope="module")
def command(model: str) -> list[str]:
    asked = ["--suite", "smoke", "--tasks", "mmlu,gsm8k", *SHORT]
    return [sys.executable, "-m", "evals", "run", model, *asked]


@pytest.fixture(scope="module")
def whole(command: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nobody killed."""
    run = tmp_path_factory.mktemp("whole") / "run"
    subprocess.run(
        [*command, "--out", str(run)], cwd=ROOT, check=True, capture_output=True, timeout=900
    )
    return run


def test_killed_in_the_middle_it_goes_on_and_ends_with_the_same_summary(
    command: list[str], whole: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    victim = subprocess.Popen(
        [*command, "--out", str(broken)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 600
    while (
        answers_in(broken / "store.sqlite") < 3
        and victim.poll() is None
        and time.monotonic() < deadline
    ):
        time.sleep(0.05)
    os.killpg(victim.pid, signal.SIGKILL)
    victim.wait()
    kept = answers_in(broken / "store.sqlite")
    assert 3 <= kept < answers_in(whole / "store.sqlite"), (
        "the kill came too late to prove anything"
    )
    subprocess.run(
        [*command, "--out", str(broken)], cwd=ROOT, check=True, capture_output=True, timeout=900
    )
    assert (broken / "summary.json").read_bytes() == (whole / "summary.json").read_bytes()
    phases = json.loads((broken / "run.json").read_text())["sessions"][-1]["phases"]
    assert phases["generate"]["requests"] + kept == answers_in(whole / "store.sqlite")


@pytest.mark.skipif(
    "EVALS_TEST_COPIES" not in os.environ,
    reason="two engines more beside those of the suite: EVALS_TEST_COPIES=1 runs it, alone",
)
def test_two_copies_answer_as_one_engine_does_and_a_killed_run_leaves_nothing_behind(
    command: list[str], whole: Path, tmp_path: Path
) -> None:
    """As on GPUs, each copy's engine has processes of its own, below the copy's; its temporary
    files have longer names than a socket may. Both on one core: test processes side by side have
    no more.
    """
    run, scratch = tmp_path / "run", tmp_path / ("a" * 60)
    scratch.mkdir()
    core = min(os.sched_getaffinity(0))
    more = {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "1",
        "VLLM_CPU_OMP_THREADS_BIND": f"{core}|{core}",
        "TMPDIR": str(scratch),
    }
    said = tmp_path / "said"
    with said.open("wb") as written:
        victim = subprocess.Popen(
            [*command, "--data-parallel-size", "2", "--out", str(run)],
            cwd=ROOT,
            env=os.environ | more,
            stdout=subprocess.DEVNULL,
            stderr=written,
        )
    deadline = time.monotonic() + 600
    while answers_in(run / "store.sqlite") < 2 and time.monotonic() < deadline:
        assert victim.poll() is None, said.read_text()
        time.sleep(0.05)
    below = processes_below(victim.pid)
    variable = b"VLLM_RPC_BASE_PATH="
    variables = [
        one for pid in below for one in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    ]
    sockets = {
        Path(os.fsdecode(one.removeprefix(variable)))
        for one in variables
        if one.startswith(variable)
    }
    assert len(sockets) == 2
    assert all(list(folder.iterdir()) for folder in sockets)
    assert sum("EngineCore" in Path(f"/proc/{pid}/cmdline").read_text() for pid in below) == 2
    victim.kill()
    victim.wait()
    deadline = time.monotonic() + 120
    while any(Path(f"/proc/{pid}").exists() for pid in below) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for pid in below if Path(f"/proc/{pid}").exists()]
    while any(folder.exists() for folder in sockets) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [folder for folder in sockets if folder.exists()]
    assert {"copy-1.log", "copy-2.log"} == {log.name for log in run.glob("logs/*/*.log")}
    kept, all_of_it = stored(run), stored(whole)
    assert len(kept) >= 2
    assert kept.items() <= all_of_it.items()


def stored(run: Path) -> dict[str, str]:
    """A run's answers by their keys, but for what they cost."""
    store = Store(run / "store.sqlite")
    try:
        keys = [key for (key,) in store._db.execute("SELECT key FROM answers")]
        found = {key: store.get(key) for key in keys}
    finally:
        store.close()
    assert all(isinstance(answer, Completion) for answer in found.values())
    return {
        key: repr(replace(answer, n_cached_tokens=0))
        for key, answer in found.items()
        if isinstance(answer, Completion)
    }


def processes_below(pid: int) -> set[int]:
    """Children, and theirs."""
    found: set[int] = set()
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        found.update(map(int, task.read_text().split()))
    return found.union(*map(processes_below, found))


def test_an_engine_whose_process_is_killed_is_one_sentence_and_the_same_command_goes_on(
    model: str, tmp_path: Path
) -> None:
    """vLLM itself leaves its caller waiting for ever then; out of memory, the kernel ends the
    engine so.
    """
    run = tmp_path / "run"
    command = [
        sys.executable,
        "-m",
        "evals",
        "run",
        model,
        "--suite",
        "smoke",
        "--tasks",
        "gsm8k",
        "--limit",
        "1",
        *SHORT,
    ]
    command += ["--out", str(run)]
    environment = os.environ | {"VLLM_ENABLE_V1_MULTIPROCESSING": "1"}
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
    while "generate: 1 to do" not in said:
        line = process.stderr.readline()
        assert line, said
        said += line
    for engine in engines_of(process.pid):
        os.kill(engine, signal.SIGKILL)
    out, rest = process.communicate(timeout=300)
    assert process.returncode == 4, said + rest
    assert (
        "evals: The engine died: its process ended. Nothing is lost; the same command goes on."
        in rest.splitlines()
    )
    assert out == ""
    assert not (run / "summary.json").exists()
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=900)
    assert answers_in(run / "store.sqlite") == 1


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


def test_of_two_servers_one_is_killed_and_the_other_finishes_the_row(
    served: str, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    with vllm_server(tmp_path / "second.log") as (url, second):
        command = [
            sys.executable,
            "-m",
            "evals",
            "run",
            f"{served},{url}",
            "--tokenizer",
            "smollm2",
            "--suite",
            "smoke",
            "--tasks",
            "mmlu,gsm8k,bbh",
            "--offline",
            "--out",
            str(run),
        ]
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        deadline = time.monotonic() + 600
        while (
            answers_in(run / "store.sqlite") < 3
            and process.poll() is None
            and time.monotonic() < deadline
        ):
            time.sleep(0.05)
        os.killpg(second.pid, signal.SIGKILL)
        kept = answers_in(run / "store.sqlite")
        _, said = process.communicate(timeout=900)
    assert process.returncode == 0, said
    assert said.count(f"{url} is lost") == 1
    tasks = json.loads((run / "summary.json").read_text())["tasks"]
    assert all(task["n_answered"] == task["n_items"] for task in tasks.values())
    n_items = sum(task["n_items"] for task in tasks.values())
    assert 3 <= kept < n_items, "the kill came too late to prove anything"
    generated = json.loads((run / "run.json").read_text())["sessions"][-1]["phases"]["generate"]
    assert generated["requests"] == n_items  # each answered once


def test_vllms_own_server_is_calibrated_as_a_judge(
    served: str, data_dir: Path, replay_dir: Path, tmp_path: Path
) -> None:
    command = [
        "judge",
        "calibrate",
        "--judge",
        f"xstest={served}",
        "--judge",
        f"truth={served}",
        "--limit",
        "8",
        "--price",
        "all=1,2",
        "--replay",
        str(replay_dir),
        "--data",
        str(data_dir),
        "--offline",
        "--out",
        str(tmp_path),
    ]
    said = evals(*command).stdout
    for role in ("xstest", "truth"):
        record = json.loads((tmp_path / f"openai-small-own-server-{role}.json").read_text())
        assert (
            record["recorded"]["n"],
            record["cost"]["requests"],
            record["cost"]["is_exact_in"],
        ) == (8, 8, True)
        assert all(sum(map(sum, held["table"])) == 8 for held in record["against"].values())
        assert record["time"]["requests"] == 16
    assert said.count("at 1 in and 2 out per million") == 2
