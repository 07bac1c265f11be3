"""How long until something happens: commands that need no model, and the first token."""

import os
import subprocess
import sys
import time
from pathlib import Path

from scripts.bench_parts import Figures, Options, all_cores

_FIRST_TOKEN = """
import sys
from vllm import LLM, SamplingParams
eager, quiet = sys.argv[2] == "eager", {"disable_log_stats": True}
llm = LLM(model=sys.argv[1], enforce_eager=eager, kv_cache_memory_bytes=1 << 30, **quiet)
llm.generate([{"prompt_token_ids": [1, 2, 3]}], SamplingParams(max_tokens=1), use_tqdm=False)
"""


def measure(options: Options) -> Figures:
    """Commands over an empty Python; a run's first token over the bare engine's; a compiled
    engine's second start over its first.
    """
    from evals.models.resolve import resolve

    folder = resolve(options.model).source
    python = median([sys.executable, "-c", "pass"], 1 if options.quick else 7)
    walls = {"python -c pass": python}
    for name, command in {
        "--help": ["--help"],
        "run --help": ["run", "--help"],
        "report --published": ["report", "--published"],
    }.items():
        walls[f"evals {name}"] = median(
            [sys.executable, "-m", "evals", *command], 1 if options.quick else 7
        )
    one_item = [
        "-m",
        "evals",
        "run",
        options.model,
        "--suite",
        "smoke",
        "--tasks",
        "mmlu",
        "--limit",
        "1",
        "--out",
    ]
    n = 1 if options.quick else 3
    walls["evals, first token"] = min(
        wall([sys.executable, *one_item, str(options.work / f"run-{index}")]) for index in range(n)
    )
    walls["bare engine, first token"] = min(
        wall([sys.executable, "-c", _FIRST_TOKEN, folder, "eager"]) for _ in range(n)
    )
    rows = [
        {"what": f"evals {name} / python -c pass", "value": walls[f"evals {name}"] / python}
        for name in ("--help", "run --help", "report --published")
    ]
    rows += [
        {"what": "evals --help", "value": walls["evals --help"], "unit": " s", "target": "< 0.5"}
    ]
    rows += [
        {
            "what": "evals' first token / bare engine's",
            "value": walls["evals, first token"] / walls["bare engine, first token"],
        }
    ]
    if not options.quick:
        cache = options.work / "compile-cache"
        for name in ("cold", "warm"):
            walls[f"compiled, {name}"] = wall(
                [sys.executable, "-c", _FIRST_TOKEN, folder, "compiled"], cache
            )
        rows += [
            {
                "what": f"compiled start / eager start, {name} cache",
                "value": walls[f"compiled, {name}"] / walls["bare engine, first token"],
            }
            for name in ("cold", "warm")
        ]
    return {"rows": rows, "raw": {"walls_s": walls}}


def wall(command: list[str], cache: Path | None = None) -> float:
    """Seconds a command takes."""
    environment = os.environ | all_cores()
    if cache:
        environment |= {
            "VLLM_CACHE_ROOT": str(cache),
            "TORCHINDUCTOR_CACHE_DIR": str(cache / "inductor"),
        }
    start = time.monotonic()
    subprocess.run(
        command, check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    return time.monotonic() - start


def median(command: list[str], n: int) -> float:
    """The middle of n times."""
    return sorted(wall(command) for _ in range(n))[n // 2]
