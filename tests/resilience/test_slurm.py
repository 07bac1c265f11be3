"""scripts/slurm as a job runs it: Slurm's two commands are stand-ins, the server speaks the
protocol, the program is the real one.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.openai_server import Body, OpenAIServer, Reply, completion, serving
from tests.real_engine import answers_in

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = ("--suite", "smoke", "--tasks", "xstest", "--judge", "xstest=strmatch", "--offline")


TOLD = {"/v1/models": {"data": [{"id": "smollm2", "max_model_len": 8192}]}}
"""As vLLM's server says it: a server that says none has vLLM itself asked about the tokenizer's
folder, whose import takes seconds.
"""


def start(
    folder: Path, server: OpenAIServer | None, *arguments: str, **more: str
) -> subprocess.Popen[str]:
    """The job on two nodes, both this machine. The server is there already, so srun has only to
    stay; without one it ends at once.
    """
    commands = folder / "bin"
    commands.mkdir(exist_ok=True)
    stay = 'trap "exit 0" TERM; while true; do sleep 0.05; done' if server else "exit 1"
    for name, does in {
        "srun": f'echo "$@" > {folder}/srun; {stay}',
        "scontrol": "echo localhost; echo 127.0.0.1",
    }.items():
        (commands / name).write_text(f"#!/bin/bash\n{does}\n")
        (commands / name).chmod(0o755)
    port = server.server_address[1] if server else 9
    environment: Mapping[str, str] = {
        **os.environ,
        "PATH": f"{commands}:{os.environ['PATH']}",
        "SLURM_JOB_NODELIST": "n[1-2]",
        "SLURM_SUBMIT_DIR": str(ROOT),
        "SLURM_GPUS_ON_NODE": "8",
        "EVALS_PYTHON": sys.executable,
        "EVALS_PORT": str(port),
        "EVALS_LOG": str(folder / "log"),
        "EVALS_POLL_S": "0.1",
        **more,
    }
    command = ["bash", str(ROOT / "scripts" / "slurm"), *arguments]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_one_queue_goes_to_every_node_and_the_job_ends_with_the_row(tmp_path: Path) -> None:
    with serving(lambda body, _: completion(body)) as server:
        server.about = TOLD
        job = start(tmp_path, server, "smollm2", *OPTIONS, "--out", str(tmp_path / "run"))
        out, err = job.communicate(timeout=600)
        assert job.returncode == 0, err
    assert any(line.startswith("| smollm2") for line in out.splitlines())
    asked = (tmp_path / "srun").read_text()
    assert "--model smollm2 --served-model-name smollm2" in asked
    assert "--data-parallel-size 8" in asked
    tasks = json.loads((tmp_path / "run" / "summary.json").read_text())["tasks"]
    assert tasks["xstest"]["n_answered"] == len(server.asked) == tasks["xstest"]["n_items"]


def test_near_the_time_limit_the_job_keeps_what_it_has_and_goes_on_when_submitted_again(
    tmp_path: Path,
) -> None:
    lock, n_given, is_second = threading.Lock(), 0, False

    def slow(body: Body, before: int) -> Reply:
        nonlocal n_given
        with lock:
            is_given = is_second or n_given < 3
            n_given += is_given
        return Reply(completion(body).body, wait_s=0.0 if is_given else 600.0)

    with serving(slow) as server:
        server.about = TOLD
        arguments = ("smollm2", *OPTIONS, "--out", str(tmp_path / "run"))
        job = start(tmp_path, server, *arguments)
        deadline = time.monotonic() + 300
        store = tmp_path / "run" / "store.sqlite"
        # A fourth is waited for, and the three that were answered are kept.
        while (
            (len(server.asked) < 4 or answers_in(store) < 3)
            and job.poll() is None
            and time.monotonic() < deadline
        ):
            time.sleep(0.05)
        job.send_signal(signal.SIGTERM)
        assert job.wait(timeout=600) != 0
        is_second = True
        first = len(server.asked)
        again = start(tmp_path, server, *arguments)
        _, err = again.communicate(timeout=600)
        assert again.returncode == 0, err
    n_items = json.loads((tmp_path / "run" / "summary.json").read_text())["tasks"]["xstest"][
        "n_items"
    ]
    assert len(server.asked) - first == n_items - 3  # what had been answered was not asked again


def test_servers_that_do_not_answer_are_given_up_after_a_time(tmp_path: Path) -> None:
    with serving(lambda body, _: completion(body)) as server:
        pass  # its port is nobody's now
    job = start(tmp_path, server, "m", EVALS_WAIT="0")
    _, err = job.communicate(timeout=600)
    assert job.returncode == 2
    assert err.startswith("slurm: localhost did not answer within 0 s (EVALS_WAIT); ")


@pytest.mark.parametrize(
    ("arguments", "more", "says"),
    [
        ((), {}, "name the model"),
        (("m",), {"SLURM_JOB_NODELIST": ""}, "submit it with sbatch"),
        (("m",), {"EVALS_PYTHON": "no/python"}, "there is no no/python"),
        (("m",), {}, "the servers ended before they answered"),
    ],
)
def test_what_is_wrong_is_one_sentence(
    tmp_path: Path, arguments: tuple[str, ...], more: dict[str, str], says: str
) -> None:
    job = start(tmp_path, None, *arguments, **more)
    _, err = job.communicate(timeout=600)
    assert job.returncode == 2
    assert says in err
    assert len(err.splitlines()) == 1
