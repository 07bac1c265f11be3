"""A run as logs of Inspect, a JSON file a benchmark, of log version 2: for its viewer and whatever
reads its logs.

The field names are those of inspect_ai.log.EvalLog.
"""

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from evals.report.exported import ExportedItem, ExportedRun, ExportedTask, doc, whole
from evals.storage.run_folder import RunFolder, to_json

VERSION = 2
_STOPS = {
    "stop": "stop",
    "length": "max_tokens",
    "filtered": "content_filter",
    "refused": "content_filter",
    "tool_call": "tool_calls",
}
"""How an output ended, here -> in Inspect; any other end is "unknown" there."""


def write(run: ExportedRun, folder: Path) -> list[Path]:
    """Write one log a benchmark; the paths. Equal runs give equal bytes."""
    # Its viewer lists the files whose names begin with a time, and takes task and id from the rest.
    stamp = run.ended.isoformat(timespec="seconds").replace(":", "-")
    files = []
    for task in run.tasks:
        name = f"{stamp}_{task.name.replace('_', '-')}_{run.key(task.name)[:22]}.json"
        # Its header is read as a stream, from the version up to the samples: the order counts.
        parts = [f'"{key}": {to_json(part, indent=1)}' for key, part in _log(run, task).items()]
        RunFolder(folder).write_bytes(name, ("{" + ",\n".join(parts) + "}\n").encode())
        files.append(folder / name)
    return files


def _log(run: ExportedRun, task: ExportedTask) -> dict[str, Any]:
    """The log, its parts in the order in which Inspect writes them."""
    counts, model = run.summary["tasks"][task.name], run.summary["model"]
    dataset, sampling = task.benchmark.dataset, task.sampling()
    ended = run.ended.isoformat(timespec="seconds")
    # As far as it is known: the time that the last session's phases took.
    phases = run.record["sessions"][-1]["phases"].values()
    started = run.ended - timedelta(seconds=sum(phase["wall_s"] for phase in phases))
    is_whole = counts["n_answered"] == counts["n_items"]
    about = {
        "protocol": run.summary["protocol"],
        "suite": run.suite,
        "chat_format": run.summary["chat_format"],
        "prompts_by": run.summary["prompts_by"],
        "judges": run.summary["judges"],
        "data": run.summary["data"].get(task.name),
        "warnings": counts["warnings"],
    }
    generate = (
        {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
            "stop_seqs": list(sampling.stop),
            "num_choices": sampling.n,
        }
        if sampling
        else {}
    )
    log = {
        "version": VERSION,
        "status": "success" if is_whole else "cancelled",
        "eval": {
            "eval_id": run.key(f"eval {task.name}")[:22],
            "run_id": run.key("run")[:22],
            "task_id": run.key(task.name)[:22],
            "created": ended,
            "task": f"evals/{task.name}",
            "task_display_name": f"{task.name} ({run.suite})",
            "dataset": {
                "name": dataset.name,
                "location": dataset.hub_id,
                "samples": counts["n_items"],
                "shuffled": False,
            },
            "model": model["name"],
            "model_generate_config": generate,
            "config": {},
            "packages": dict(run.versions),
            "metadata": about | {"model": model},
        },
        "plan": {"name": "evals", "steps": [], "config": generate},
        "results": {
            "total_samples": counts["n_items"],
            "completed_samples": counts["n_answered"],
            "scores": [
                {
                    "name": column.key,
                    "scorer": column.key,
                    "scored_samples": cell["n"],
                    "unscored_samples": cell["n_items"] - cell["n"],
                    "metrics": _metrics(column.heading, cell),
                    "metadata": {
                        "ci95": cell["ci95"],
                        "estimator": cell["estimator"],
                        "reason": cell["reason"],
                        "marks": cell["marks"],
                        "lower_is_better": column.lower_is_better,
                    },
                }
                for column, cell in task.cells
            ],
        },
        "stats": {"started_at": started.isoformat(timespec="seconds"), "completed_at": ended},
        "samples": [_sample(item, model["name"]) for item in task.items()],
    }
    return {key: whole(part) for key, part in log.items()}


def _metrics(heading: str, cell: Mapping[str, Any]) -> dict[str, Any]:
    """Value and standard error as fractions; none where the table prints `-`."""
    values = {heading: cell["value"], "stderr": cell["stderr"]}
    return {
        name: {"name": name, "value": value} for name, value in values.items() if value is not None
    }


def _sample(item: ExportedItem, model: str) -> dict[str, Any]:
    asked = [{"role": one.role, "content": one.content} for one in item.request.messages]
    n = len(item.row["outputs"])
    said = [
        {
            "message": {
                "role": "assistant",
                "content": _content(text, thought),
                "source": "generate",
            },
            "stop_reason": _STOPS.get(reason, "unknown"),
        }
        for text, thought, reason in zip(
            item.row["outputs"],
            item.row.get("reasoning") or [None] * n,
            item.row.get("finish_reasons", ["other"] * n),
            strict=True,
        )
    ]
    if item.is_choice:
        message = {"role": "assistant", "content": item.answer or "", "source": "generate"}
        said = [{"message": message, "stop_reason": "stop"}]
    evidence = {
        name: value
        for name, value in item.row.items()
        if name not in ("id", "outputs", "scores", "reasoning")
    }
    sample: dict[str, Any] = {
        "id": item.id,
        "epoch": 1,
        "input": item.question,
        "target": item.gold,
        "messages": [*asked, *(one["message"] for one in said[:1])],
        "output": {"model": model, "choices": said},
        "scores": {
            key: {"value": score, "answer": item.answer, "metadata": evidence}
            for key, score in item.scores.items()
            if score is not None
        },
        "metadata": doc(item) | ({"prompt": item.prompt} if item.is_sent and item.prompt else {}),
    }
    return sample | ({"choices": list(item.choices)} if item.choices else {})


def _content(text: str, thought: str | None) -> str | list[dict[str, str]]:
    """A message; what the model reasoned before it is a block of its own."""
    if thought is None:
        return text
    return [{"type": "reasoning", "reasoning": thought}, {"type": "text", "text": text}]
