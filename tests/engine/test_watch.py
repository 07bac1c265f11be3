"""A training run followed on the real engine: two checkpoints, each in a process of its own."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from safetensors.torch import load_file, save_file

from tests.real_engine import cut_short

ROOT = Path(__file__).resolve().parents[2]


def test_each_checkpoint_is_measured_gated_and_in_the_page(tmp_path: Path) -> None:
    training = tmp_path / "train"
    training.mkdir()
    first = cut_short(training / "checkpoint-10", 2)
    second = shutil.copytree(first, training / "checkpoint-20")
    weights = load_file(second / "model.safetensors")
    moved = {name: one * 1.01 for name, one in weights.items()}
    save_file(moved, second / "model.safetensors", metadata={"format": "pt"})
    # Still being written, and never finished.
    shutil.copytree(first, training / "checkpoint-30")
    (training / "checkpoint-30" / "model.safetensors").write_bytes(b"\1" * 9)
    for file in training.glob("*/*"):
        os.utime(file, (time.time() - 3600,) * 2)
    command = [
        sys.executable, "-m", "evals", "watch", str(training), "--out", str(tmp_path / "out"),
        "--once", "--suite", "smoke", "--tasks", "mmlu", "--limit", "2", "--dtype", "float32",
        "--offline",
    ]  # fmt: skip

    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "checkpoint-10: step 10: the first"
    assert lines[1].startswith("checkpoint-20: step 20: ")
    assert lines[1].endswith(" against checkpoint-10")
    assert lines[2].startswith("checkpoint-30: waits: model.safetensors breaks off")
    out = tmp_path / "out"
    models = [
        json.loads((out / name / "summary.json").read_text())["model"]
        for name in ("checkpoint-10", "checkpoint-20")
    ]
    assert [model["name"] for model in models] == ["checkpoint-10", "checkpoint-20"]
    assert models[0]["fingerprint"] != models[1]["fingerprint"]
    page = (out / "watch.html").read_text("utf-8")
    assert '<th scope="row">10</th>' in page
    assert '<th scope="row">20</th>' in page
