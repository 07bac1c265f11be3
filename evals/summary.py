"""summary.json: what two equal runs have in common, and nothing else. Fractions everywhere; schema 1."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from evals.grading import TaskResult, cell_marks, roles_of_column
from evals.judges import Judge
from evals.plan import PROTOCOL_VERSION, Plan, no_judge
from evals.records import Column, Metric
from evals.table import average_metric

SCHEMA = 1


def header(plan: Plan, n_bos: int | None, judge_notes: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """What the run is: everything of the summary but its numbers."""
    return {
        "schema": SCHEMA,
        "protocol": PROTOCOL_VERSION,
        "suite": plan.settings.suite,
        "limit": plan.settings.limit,
        "seed": plan.settings.engine.seed,
        "model": {
            "name": plan.model.name,
            "id": plan.model.source if plan.model.revision else plan.model.argument.split("@")[0].rstrip("/").split("/")[-1],
            "fingerprint": plan.fingerprint,
            "revision": plan.model.revision,
            "dtype": plan.settings.engine.dtype,
            "quantization": plan.settings.engine.quantization,
        },
        "chat_format": plan.chat_format,
        "bos_tokens": n_bos,
        "judges": {
            role: {"name": judge.model, "card": judge.is_card, "notes": list(judge_notes.get(role, ()))}
            for role, judge in plan.judges.items()
        },
        "data": {name: {"tables": task.source.edition, "revision": task.source.revision} for name, task in plan.tasks.items()},
    }


def summarize(
    head: Mapping[str, Any], results: Sequence[TaskResult], skipped: Mapping[str, tuple[Sequence[Column], int, str]]
) -> dict[str, Any]:
    """The whole summary. skipped: task -> (its columns, its items, why nothing was asked)."""
    judges = {role: Judge(role, entry["name"], is_rule=entry["name"] == "strmatch") for role, entry in head["judges"].items()}
    cells: dict[str, dict[str, Any]] = {}
    metrics: dict[str, Metric] = {}
    for result in results:
        for column in result.benchmark.columns:
            metric = _with_reason(result, column.key, judges)
            metrics[column.key] = metric
            cells[column.key] = metric_json(metric) | {
                "marks": cell_marks(result, column.key, judges, head) if metric.value is not None else []
            }
    for columns, n_items, reason in skipped.values():
        for column in columns:
            metrics[column.key] = Metric(None, 0, n_items, reason=reason)
            cells[column.key] = metric_json(metrics[column.key]) | {"marks": []}
    mean = average_metric(metrics)
    marks = sorted({mark for key in metrics for mark in cells[key]["marks"] if not key.startswith("alpaca")})
    cells["average"] = metric_json(mean) | {"marks": marks if mean.value is not None else []}
    return {
        **head,
        "cells": cells,
        "metrics": {result.benchmark.name: {name: metric_json(metric) for name, metric in result.metrics.items()} for result in results},
        "tasks": {result.benchmark.name: _task_json(result) for result in results},
    }


def _with_reason(result: TaskResult, key: str, judges: Mapping[str, Judge]) -> Metric:
    metric = result.metrics[key]
    if metric.value is not None or metric.reason is None or not result.is_complete:
        return (
            replace(metric, value=None, reason=f"{result.n_answered} of {len(result.grades)} items answered")
            if not result.is_complete
            else metric
        )
    roles = [role for role in roles_of_column(result.benchmark, key) if role not in judges]
    has_findings = any(grade.scores for grade in result.grades)
    return replace(metric, reason=no_judge(roles, result.benchmark.rules)) if roles and not has_findings else metric


def metric_json(metric: Metric) -> dict[str, Any]:
    """A metric as the summary holds it."""
    return {
        "value": metric.value,
        "n": metric.n,
        "n_items": metric.n_items,
        "stderr": metric.stderr,
        "ci95": list(metric.ci95) if metric.ci95 else None,
        "estimator": metric.estimator,
        "reason": metric.reason,
    }


def _task_json(result: TaskResult) -> dict[str, Any]:
    return {
        "n_items": len(result.grades),
        "n_scored": sum(bool(grade.scores) for grade in result.grades),
        "n_answered": result.n_answered,
        "capped": result.capped,
        "warnings": result.warnings,
        **result.shares,
    }
