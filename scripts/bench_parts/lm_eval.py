"""lm-evaluation-harness with its vLLM backend on the same items, both as whole processes, start-up
included.
"""

import csv
import importlib.metadata
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from evals.data.files import read_jsonl
from evals.generators.vllm import _CPU_BLOCK
from evals.models.resolve import resolve
from evals.runs.progress import Progress
from evals.runs.session import execute
from scripts.bench_parts import (
    SUBJECTS,
    Figures,
    Options,
    all_cores,
    first,
    options_of,
    plan_of,
    spec_of,
    subjects,
)

_MAX_NEW = 256
_BBH_TASK = "navigate"
_N = 24


def measure(options: Options) -> Figures:
    """Their wall time over ours: MMLU 5-shot (387 items), GSM8K 8-shot (24), BBH 3-shot (24), each
    alone and all together.
    """
    mix = ("gsm8k",) if options.quick else ("mmlu", "gsm8k", "bbh", "mmlu,gsm8k,bbh")
    walls: dict[str, dict[str, float]] = {}
    said: dict[str, Any] = {}
    for tasks in mix:
        for side in ("ours", "theirs"):
            environment = (
                os.environ
                | all_cores()
                | {
                    "HF_DATASETS_OFFLINE": "1",
                    "HF_HUB_OFFLINE": "1",
                    # GiB; vLLM's own default takes most of the memory.
                    "VLLM_CPU_KVCACHE_SPACE": "4",
                }
            )
            spec = spec_of(replace(options, work=options.work / f"{side}-{tasks}"))
            command = [sys.executable, "-m", "scripts.bench_parts.lm_eval", spec, side, tasks]
            start = time.monotonic()
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, check=False
            )
            walls.setdefault(tasks, {})[side] = time.monotonic() - start
            if done.returncode:
                raise RuntimeError(f"{side} {tasks}: {done.stderr[-2000:]}")
            said.setdefault(tasks, {})[side] = json.loads(done.stdout.splitlines()[-1])
    names = {"mmlu": "MMLU", "gsm8k": "GSM8K", "bbh": "BBH", "mmlu,gsm8k,bbh": "all together"}
    targets = {"mmlu": ">= 15", "mmlu,gsm8k,bbh": ">= 6"}
    rows = [
        {
            "what": f"lm-eval's wall time / ours: {names[tasks]}",
            "value": wall["theirs"] / wall["ours"],
            "target": targets.get(tasks, ""),
        }
        for tasks, wall in walls.items()
    ]
    return {"rows": rows, "raw": {"walls_s": walls, "scores": said}}


def ours(options: Options, tasks: str) -> dict[str, Any]:
    """A run of ours; its scores."""
    bbh = {"bbh": lambda items: [item for item in items if item.group == _BBH_TASK][:_N]}
    take = {"mmlu": subjects, "gsm8k": first(4 if options.quick else _N), **bbh}
    plan = plan_of(
        options, "run", {name: take[name] for name in tasks.split(",")}, max_new=_MAX_NEW
    )
    summary = execute(plan, Progress(quiet=True)).summary
    return {
        name: next(iter(metrics.values()))["value"] for name, metrics in summary["metrics"].items()
    }


def theirs(options: Options, tasks: str) -> dict[str, Any]:
    """A run of lm-eval with all that makes it fast here: batch size auto, prefix cache, our cache
    blocks, all cores, only its tasks.
    """
    # On a CPU the distribution is called vllm-cpu; lm-eval looks for one named vllm.
    version = importlib.metadata.version
    importlib.metadata.version = lambda name: (
        f"{version('vllm-cpu')}+cpu" if name == "vllm" else version(name)
    )  # type: ignore[assignment]
    import lm_eval
    import torch

    options.work.mkdir(parents=True, exist_ok=True)
    model = resolve(options.model)
    wanted = [task for name in tasks.split(",") for task in _TASKS[name](options)]
    found = lm_eval.simple_evaluate(
        model="vllm",
        model_args={
            "pretrained": model.source,
            "dtype": options.dtype,
            "enforce_eager": True,
            "enable_prefix_caching": True,
            "max_gen_toks": _MAX_NEW,
            **({} if torch.cuda.is_available() else {"block_size": _CPU_BLOCK}),
        },
        tasks=wanted,
        batch_size="auto",
        # With its own tasks it would index 14,683 names first, which takes six seconds.
        task_manager=lm_eval.tasks.TaskManager(include_defaults=False),
        bootstrap_iters=0,
    )
    assert found is not None
    return {
        name: {k: v for k, v in metrics.items() if isinstance(v, float)}
        for name, metrics in found["results"].items()
    }


def _config(name: str) -> dict[str, Any]:
    """A task file that lm-eval ships, without its tags."""
    import lm_eval
    import yaml

    loaded: dict[str, Any] = yaml.safe_load(
        (Path(lm_eval.__file__).parent / "tasks" / name).read_text()
    )
    # What leads to other files or to the hub: here the task is whole, and local.
    for key in ("tag", "group", "include", "dataset_name"):
        loaded.pop(key, None)
    return loaded


def _local(
    config: dict[str, Any], options: Options, name: str, splits: dict[str, list[dict[str, Any]]]
) -> dict[str, Any]:
    """The task with local files in place of the hub's."""
    files = {}
    for split, rows in splits.items():
        path = options.work / f"{name}-{split}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        files[split] = str(path)
    return {
        **config,
        "task": f"bench_{name}",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": files},
    }


def _mmlu(options: Options) -> Iterator[dict[str, Any]]:
    for subject in SUBJECTS:
        splits = {
            split: [
                {"question": row[0], "choices": row[1:5], "answer": "ABCD".index(row[5])}
                for row in csv.reader(
                    (options.data / "mmlu" / split / f"{subject}_{split}.csv").open(
                        encoding="utf-8", newline=""
                    )
                )
            ]
            for split in ("dev", "test")
        }
        about = (
            "The following are multiple choice questions (with answers) about"
            f" {subject.replace('_', ' ')}.\n\n"
        )
        config = {
            **_config("mmlu/default/_default_template_yaml"),
            "description": about,
            "num_fewshot": 5,
        }
        yield _local(config, options, subject, splits)


def _gsm8k(options: Options) -> Iterator[dict[str, Any]]:
    rows = read_jsonl((options.data / "gsm8k" / "test.jsonl").read_bytes())
    config = _config("gsm8k/gsm8k-cot.yaml")
    config["generation_kwargs"]["max_gen_toks"] = _MAX_NEW
    yield _local(config, options, "gsm8k", {"test": list(islice(rows, 4 if options.quick else _N))})


def _bbh(options: Options) -> Iterator[dict[str, Any]]:
    rows = json.loads((options.data / "bbh" / "bbh" / f"{_BBH_TASK}.json").read_text("utf-8"))[
        "examples"
    ][:_N]
    config = {
        **_config("bbh/cot_fewshot/_cot_fewshot_template_yaml"),
        **_config(f"bbh/cot_fewshot/{_BBH_TASK}.yaml"),
    }
    config["generation_kwargs"]["max_gen_toks"] = _MAX_NEW
    yield _local(config, options, "bbh", {"test": rows})


_TASKS = {"mmlu": _mmlu, "gsm8k": _gsm8k, "bbh": _bbh}


if __name__ == "__main__":
    given = options_of(sys.argv[1])
    print("\n" + json.dumps((ours if sys.argv[2] == "ours" else theirs)(given, sys.argv[3])))
