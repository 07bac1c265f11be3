"""A run as lm-evaluation-harness 0.4.13 writes its own: one results_<time>.json, and
samples_<task>_<time>.jsonl a benchmark.

The names are those of its result_schema.py. Tasks are called after ours and the suite
(evals_gsm8k_card), so that nobody takes a number for one of the harness's own protocol.
"""

import hashlib
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from evals.records import Choose, Generate, Request, Score
from evals.report.exported import ExportedItem, ExportedRun, ExportedTask, doc, whole
from evals.storage.run_folder import RunFolder, to_json

FILTER = "none"
"""The harness's name for answers that were not filtered by one of its own filters."""


def write(run: ExportedRun, folder: Path) -> list[Path]:
    """Write the files into a folder named after the model, as the harness does; the paths."""
    home = _sanitized(run).strip(".") or "_"
    stamp = run.ended.replace(tzinfo=None).isoformat(timespec="microseconds").replace(":", "-")
    to = RunFolder(folder / home)
    files, hashes = [f"results_{stamp}.json"], {}
    for task in run.tasks:
        digest = hashlib.sha256()
        name = f"samples_{_name(run, task)}_{stamp}.jsonl"

        def rows(task: ExportedTask = task, digest: Any = digest) -> Iterator[dict[str, Any]]:
            for at, item in enumerate(task.items()):
                row = _sample(at, item)
                digest.update((row["doc_hash"] + row["prompt_hash"] + row["target_hash"]).encode())
                yield whole(row)

        to.write_lines(name, rows())
        hashes[_name(run, task)] = digest.hexdigest()
        files.append(name)
    to.write_json(files[0], whole(_results(run, hashes)))
    return [to.path / name for name in files]


def _sanitized(run: ExportedRun) -> str:
    """The model's id as the harness's utils make a folder's name of it."""
    return re.sub(r'["<>:/|\\?*\[\]]+', "__", run.summary["model"]["id"])


def _name(run: ExportedRun, task: ExportedTask) -> str:
    return re.sub(r"\W", "_", f"evals_{task.name}_{run.suite}")


def _results(run: ExportedRun, hashes: dict[str, str]) -> dict[str, Any]:
    model, tasks = run.summary["model"], {_name(run, task): task for task in run.tasks}
    return {
        "results": {name: _metrics(run, name, task) for name, task in tasks.items()},
        "group_subtasks": {name: [] for name in tasks},
        "configs": {name: _config(run, name, task) for name, task in tasks.items()},
        "versions": dict.fromkeys(tasks, run.summary["protocol"]),
        "n-shot": {},
        "higher_is_better": {
            name: {column.key: not column.lower_is_better for column, _ in task.cells}
            for name, task in tasks.items()
        },
        "n-samples": {
            name: {
                "original": run.summary["tasks"][task.name]["n_items"],
                "effective": run.summary["tasks"][task.name]["n_answered"],
            }
            for name, task in tasks.items()
        },
        "config": {
            "model": "evals",
            "model_args": {"pretrained": model["id"], "revision": model["revision"]},
            "model_dtype": model["dtype"],
            "limit": run.summary["limit"],
            "random_seed": run.summary["seed"],
        },
        "git_hash": run.record["sessions"][-1].get("git_commit"),
        "date": run.ended.timestamp(),
        "model_source": "evals",
        "model_name": model["id"],
        "model_name_sanitized": _sanitized(run),
        "transformers_version": run.versions.get("transformers"),
        "task_hashes": hashes,
    }


def _metrics(run: ExportedRun, name: str, task: ExportedTask) -> dict[str, Any]:
    """Values and standard errors as fractions; a column without a number is left out."""
    found: dict[str, Any] = {
        "alias": name,
        "name": name,
        "sample_len": run.summary["tasks"][task.name]["n_answered"],
    }
    for column, cell in task.cells:
        if cell["value"] is not None:
            stderr = "N/A" if cell["stderr"] is None else cell["stderr"]
            found[f"{column.key},{FILTER}"] = cell["value"]
            found[f"{column.key}_stderr,{FILTER}"] = stderr
    return found


def _config(run: ExportedRun, name: str, task: ExportedTask) -> dict[str, Any]:
    dataset = task.benchmark.dataset
    found: dict[str, Any] = {
        "task": name,
        "dataset_path": dataset.hub_id,
        "output_type": _kind(task.request()),
        "metadata": {
            "protocol": run.summary["protocol"],
            "suite": run.suite,
            "marks": {column.key: cell["marks"] for column, cell in task.cells},
            "data": run.summary["data"].get(task.name),
        },
    }
    if sampling := task.sampling():
        found["repeats"] = sampling.n
        found["generation_kwargs"] = {
            "until": list(sampling.stop),
            "max_gen_toks": sampling.max_tokens,
            "do_sample": sampling.temperature > 0,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
        }
    return found


def _kind(request: Request | None) -> str:
    if isinstance(request, Score) and len(request.continuations) == 1:
        return "loglikelihood_rolling" if request.rolling else "loglikelihood"
    return "generate_until" if isinstance(request, Generate) else "multiple_choice"


def _sample(at: int, item: ExportedItem) -> dict[str, Any]:
    row, request = item.row, item.request
    scores = {key: score for key, score in item.scores.items() if score is not None}
    if isinstance(request, Choose):
        seen = row.get("choice_logprobs") or {}
        asked: list[tuple[Any, ...]] = [(item.prompt, text) for _, text in request.candidates]
        # One entry a candidate: its log-probability, and whether it is the answer.
        filtered: list[Any] = [
            [str(seen.get(label)), str(label == row.get("extracted"))]
            for label, _ in request.candidates
        ]
        said: list[Any] = [[one] for one in filtered]
    elif isinstance(request, Score):
        seen = row.get("loglikelihoods") or []
        contexts = ["\n\n".join(one.content for one in context) for context in request.contexts]
        asked = [(contexts[at], rest) for at, rest in request.continuations]
        filtered = [[str(logprob), str(is_greedy)] for logprob, is_greedy, _ in seen]
        if request.rolling:  # one number a text, however many windows it took
            asked = [(rest,) for _, rest in request.continuations]
            filtered = [str(math.fsum(float(logprob) for logprob, _, _ in seen))]
        said = [[one] for one in filtered]
    else:
        sampling = request.sampling
        settings = {
            "until": list(sampling.stop),
            "max_gen_toks": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
        }
        asked = [(item.prompt, settings)]
        said, filtered = [list(row["outputs"])], [item.answer or ""]
    content = doc(item)
    return {
        "doc_id": at,
        "doc": content,
        "target": item.gold,
        "arguments": {
            f"gen_args_{i}": {f"arg_{j}": part for j, part in enumerate(one)}
            for i, one in enumerate(asked)
        },
        "resps": said,
        "filtered_resps": filtered,
        "filter": FILTER,
        "metrics": sorted(scores),
        "doc_hash": _hash(to_json(content, indent=None)),
        "prompt_hash": _hash(item.prompt),
        "target_hash": _hash(item.gold),
        **scores,
    }


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()
