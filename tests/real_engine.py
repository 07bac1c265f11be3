"""The program as a user starts it, on vLLM and SmolLM2-135M-Instruct; and vLLM's own server with
that model.
"""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.openai_server import reserved_port

ROOT = Path(__file__).resolve().parents[1]
SERVED_LEN = 1536
"""The context that the server is given."""
SHORT = ["--dtype", "float32", "--offline"]


def evals(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "evals", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert not check or done.returncode == 0, done.stderr
    return done


def answers_in(store: Path) -> int:
    if not store.exists():
        return 0
    try:
        with sqlite3.connect(f"file:{store}?mode=ro", uri=True, timeout=5) as database:
            (count,) = database.execute("SELECT count(*) FROM answers").fetchone()
            return int(count)
    except sqlite3.OperationalError:
        return 0


def own_sampling(folder: Path) -> Path:
    """The small model as a checkpoint that wants to be sampled in a way of its own: in an empty
    folder, which is returned.
    """
    from evals.models.embedded import embedded_folder

    for file in embedded_folder().iterdir():
        (folder / file.name).symlink_to(file)
    (folder / "generation_config.json").unlink()
    wants = {"temperature": 0.7, "top_k": 20, "repetition_penalty": 1.3, "presence_penalty": 1.5}
    ends = {"do_sample": True, "eos_token_id": [2, 0], "bos_token_id": 1, "pad_token_id": 2}
    (folder / "generation_config.json").write_text(json.dumps(wants | ends))
    return folder


def cut_short(folder: Path, n_layers: int) -> Path:
    """The embedded model's first layers: what is soon loaded, and soon trained."""
    from safetensors.torch import load_file, save_file

    from evals.models.embedded import embedded_folder

    shutil.copytree(embedded_folder(), folder)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": n_layers}))
    weights = load_file(folder / "model.safetensors")
    layer = {name: int(name.split(".")[2]) for name in weights if name.startswith("model.layers.")}
    kept = {name: one for name, one in weights.items() if layer.get(name, 0) < n_layers}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@contextmanager
def vllm_server(
    log: Path, folder: Path | None = None
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """vLLM's own OpenAI server with the small model, or that of a folder: its URL and its process;
    gone afterwards, with its engine.
    """
    with reserved_port() as port:
        yield from _served(log, port, folder)


def _served(
    log: Path, port: int, folder: Path | None
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    from evals.models.embedded import embedded_folder

    environment = os.environ | {
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "HF_HUB_OFFLINE": "1",
    }
    server = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "vllm.entrypoints.openai.api_server",
            "--model",
            str(folder or embedded_folder()),
            "--served-model-name",
            "small",
            "--dtype",
            "float32",
            "--max-model-len",
            str(SERVED_LEN),
            "--enforce-eager",
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
        ],
        env=environment,
        stdout=log.open("w"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        wait_for(f"http://127.0.0.1:{port}/health", server, log)
        yield f"http://127.0.0.1:{port}/v1", server
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=300)


def wait_for(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        assert server.poll() is None, log.read_text()[-2000:]
        try:
            urllib.request.urlopen(url, timeout=2).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    raise AssertionError(f"the server did not start: {log.read_text()[-2000:]}")
