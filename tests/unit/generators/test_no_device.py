"""vLLM built for GPUs on a machine that has none, as a cluster's login node: a run may be planned
there, and none is carried out.
"""

import os
import subprocess
import sys
from pathlib import Path

LOGIN_NODE = """
import importlib.metadata, sys
version = importlib.metadata.version
# By its own name vLLM finds, once a process, what it runs on: this one was not built for CPUs.
importlib.metadata.version = lambda name: "0.32.0" if name == "vllm" else version(name)
from evals.commands.app import main
run = ["evals", "run", "smollm2", "--suite", "smoke", "--tasks", "mmlu", "--out", sys.argv[1]]
for more in (["--dry-run"], []):
    sys.argv = [*run, *more]
    try:
        main()
    except SystemExit as ended:
        print("ended with", ended.code, flush=True)
"""


def test_without_a_device_a_run_is_planned_and_then_refused_by_one_sentence(
    tmp_path: Path,
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOGIN_NODE, str(tmp_path / "run")],
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr
    planned, refused = done.stdout.split("ended with ")[:2]
    assert "1 x H100 80 GB: about" in planned
    assert refused.startswith("0\n")
    assert done.stdout.endswith("ended with 4\n")
    (said,) = [line for line in done.stderr.splitlines() if line.startswith("evals: ")]
    assert said.startswith("evals: vLLM finds no device here that it was built for: see whether")
