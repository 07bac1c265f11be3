"""summary.json: what two equal runs have in common, and nothing else. Fractions everywhere; schema
1.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from evals.benchmark import roles_of
from evals.cards.average import average_metric
from evals.cards.card import column_json
from evals.cards.published import card_of_run
from evals.models.bases import adapter_marks, adapter_record
from evals.models.resolve import public_name
from evals.plan.draws import is_greedy
from evals.plan.items import no_judge
from evals.plan.judges import (
    COUNTED_AS_UNREADABLE,
    Judge,
    calibration_notes,
    judge_of_record,
)
from evals.plan.make import Plan
from evals.plan.reasoning import reasoning_record
from evals.records import Column, Metric
from evals.registry import of_draw
from evals.runs import ends, reasoned
from evals.runs.draws import by_variant, mean_of
from evals.runs.draws import marks as marks_of_draws
from evals.runs.grading import (
    MOST_UNREADABLE,
    TaskResult,
    VerdictCounts,
    cell_marks,
    verdict_counts,
)
from evals.storage.forms import SCHEMA


def header(
    plan: Plan, n_bos: int | None, judge_notes: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """What the run is: everything of the summary but its numbers."""
    return {
        "schema": SCHEMA,
        "protocol": plan.card.protocol,
        "card": plan.card.as_json(),
        # Only where there are any: a row is printed without their benchmarks.
        **({"off_card": off} if (off := _off_card(plan)) else {}),
        "suite": plan.settings.suite,
        "limit": plan.settings.limit,
        "seed": plan.settings.engine.seed,
        "model": {
            "name": plan.model.name,
            "id": plan.model.public_id,
            "fingerprint": plan.fingerprint,
            "revision": plan.model.own_revision,
            **_precision(plan),
            # Only where there is one: any other run's files have the form they always had.
            **({"adapter": adapter} if (adapter := adapter_record(plan.model)) else {}),
        },
        "chat_format": plan.chat_format,
        "bos_tokens": n_bos,
        "prompts_by": _prompts_by(plan),
        "differs": _differs(plan),
        **reasoning_record(plan.reader),
        # Only where one was given: an ordinary run's file has the form it always had.
        **({"sampling": sampling} if (sampling := _sampling(plan)) else {}),
        "judges": {
            role: {
                "name": public_name(judge.model),
                "card": judge.is_card,
                "notes": [
                    note.replace(judge.model, public_name(judge.model))
                    for note in judge_notes.get(role, ())
                ]
                + (calibration_notes(judge, judge.rule_fingerprint) if judge.is_rule else []),
            }
            | judge.record()
            for role, judge in plan.judges.items()
        },
        "data": {
            name: {"tables": task.source.edition, "revision": task.source.revision}
            for name, task in plan.tasks.items()
            if of_draw(name)[1] == 1
        },
    }


def _off_card(plan: Plan) -> list[dict[str, Any]]:
    """The columns of what was asked besides the card's benchmarks."""
    own = {one.key for one in plan.card.columns}
    columns = (one for task in plan.tasks.values() for one in task.benchmark.columns)
    return [column_json(one) for one in {c.key: c for c in columns if c.key not in own}.values()]


def _sampling(plan: Plan) -> dict[str, Any]:
    """The temperature that was given, and the benchmarks that it made other than the protocol."""
    if plan.settings.temperature is None:
        return {}
    tasks = [n for n, one in plan.tasks.items() if of_draw(n)[1] == 1 and is_greedy(one)]
    return {"temperature": plan.settings.temperature, "tasks": tasks}


def _precision(plan: Plan) -> dict[str, Any]:
    """What it was computed in; "auto" where that is another's affair."""
    quantization = _quantization(plan)
    checkpoint = plan.view.checkpoint
    if checkpoint is None:
        return {"dtype": plan.settings.engine.dtype, "quantization": quantization}
    # Only where it is not the same: an ordinary run's file has the form it always had.
    cache = {"kv_cache_dtype": checkpoint.cache_dtype} if checkpoint.cache_dtype else {}
    return {"dtype": checkpoint.dtype, "quantization": quantization, **cache}


def _quantization(plan: Plan) -> str | None:
    """How the weights are quantized: as asked for where they are loaded here, else as they are."""
    asked = plan.settings.engine.quantization if plan.model.kind == "weights" else None
    return asked or plan.model.own_quantization


def _prompts_by(plan: Plan) -> str:
    """Who turned requests into prompts: our tokenizer, a chat server, or whoever made the
    recording.
    """
    if plan.model.kind == "replay":
        return "recording"
    return "tokenizer" if plan.renderer.tokenizer is not None else "server"


def _differs(plan: Plan) -> list[str]:
    """What was asked for that the card did otherwise, in every cell of the run."""
    differs = []
    if (how := _quantization(plan)) is not None:
        differs.append(f"weights quantized ({how}); the card's were not")
    if plan.view.checkpoint is not None:
        differs += plan.view.checkpoint.marks()
    row_format, row_bos = plan.model.row_format, plan.model.row_bos
    if row_format not in (None, plan.chat_format):
        differs.append(f"chat format {plan.chat_format}; the card's row had {row_format}")
    elif row_bos is not None and (n_bos := plan.renderer.bos_habit()) != row_bos:
        differs.append(f"prompts start with {n_bos} BOS tokens; the card's row had {row_bos}")
    differs += plan.settings.prompts.marks()
    differs += adapter_marks(plan.model)
    if plan.renderer.reads_clock:
        differs.append(f"the chat template asks the time: it was told {plan.clock} throughout")
    return differs


def summarize(
    head: Mapping[str, Any],
    results: Sequence[TaskResult],
    skipped: Mapping[str, tuple[Sequence[Column], int, str]],
) -> dict[str, Any]:
    """The whole summary. skipped: task -> (its columns, its items, why nothing was asked)."""
    judges = {role: judge_of_record(role, entry) for role, entry in head["judges"].items()}
    cells: dict[str, dict[str, Any]] = {}
    metrics: dict[str, Metric] = {}
    of_draws = by_variant(results)
    for draws in of_draws:
        for column in draws[0].benchmark.columns:
            metric, about = mean_of(
                draws,
                column.metric,
                [_with_reason(one, column.metric, judges, head) for one in draws],
            )
            metrics[column.key] = metric
            counts = [found for one in draws if (found := verdict_counts(one, column.metric))]
            said = [mark for one in draws for mark in cell_marks(one, column.metric, judges, head)]
            if said_of_draws := marks_of_draws(draws, head):
                said = list(dict.fromkeys([*said, *said_of_draws]))
            said += filter(None, [column.inferred])
            cells[column.key] = metric_json(metric) | {
                "marks": said if metric.value is not None else [],
                "n_judged": sum(one.judged for one in counts) if counts else None,
                "n_unparsable": sum(one.unreadable for one in counts) if counts else None,
                **({"draws": about} if about else {}),
            }
    for columns, n_items, reason in skipped.values():
        for column in columns:
            metrics[column.key] = Metric(None, 0, n_items, reason=reason)
            cells[column.key] = metric_json(metrics[column.key]) | {"marks": []}
    rule = card_of_run(head).average
    mean = average_metric(rule, metrics)
    marks = sorted({mark for key in rule.inputs if key in cells for mark in cells[key]["marks"]})
    cells["average"] = metric_json(mean) | {"marks": marks if mean.value is not None else []}
    return {
        **head,
        "cells": cells,
        "metrics": {
            draws[0].benchmark.name: {
                name: metric_json(
                    mean_of(
                        draws,
                        name,
                        [_readable(one, name, one.metrics[name], head) for one in draws],
                    )[0]
                )
                for name in draws[0].metrics
            }
            for draws in of_draws
        },
        "tasks": {result.benchmark.name: _task_json(result) for result in results},
    }


def _with_reason(
    result: TaskResult, key: str, judges: Mapping[str, Judge], head: Mapping[str, Any]
) -> Metric:
    metric = result.metrics[key]
    if not result.is_complete:
        reason = f"{result.n_answered} of {len(result.grades)} items answered"
        return _without_value(metric, reason)
    roles = [role for role in roles_of(result.benchmark, key) if role not in judges]
    if metric.value is None and not result.benchmark.judge_roles:
        why = {grade.missing for grade in result.grades if grade.missing}
        if len(why) == 1:
            return replace(
                metric, reason=f"{metric.n} of {metric.n_items} items scored: {why.pop()}"
            )
    if metric.value is None and not roles and result.ends:
        said = ends.in_words(result.ends, result.n_outputs)
        return replace(metric, reason=f"{metric.n} of {metric.n_items} items scored: {said}")
    lacks_verdicts = metric.value is None and metric.n < metric.n_items
    if lacks_verdicts:
        return replace(metric, reason=no_judge(roles, result.benchmark.rules)) if roles else metric
    return _readable(result, key, metric, head)


def _without_value(metric: Metric, reason: str) -> Metric:
    return replace(metric, value=None, stderr=None, ci95=None, reason=reason)


def _readable(result: TaskResult, name: str, metric: Metric, head: Mapping[str, Any]) -> Metric:
    """The metric, without its value where its judges' verdicts could mostly not be read.

    name: of a column, or of what one judge says ("truth", "alpaca_eval_2_win_rate"); other metrics
    are no judge's, and the shares of unreadable verdicts are what they are.
    """
    roles = result.benchmark.judge_roles
    is_column = name in {column.metric for column in result.benchmark.columns}
    is_roles = any(f"{name}_".startswith(f"{role}_") for role in roles)
    if not (is_column or is_roles) or name.endswith("_unparsable"):
        return metric
    counts = verdict_counts(result, name)
    if counts is None or not counts.decide_nothing:
        return metric
    return _without_value(metric, _unreadable(counts, head["judges"]))


def _unreadable(counts: VerdictCounts, judges: Mapping[str, Mapping[str, Any]]) -> str:
    """Why a judge's verdicts make no number: how many could not be read, whose, and what to do."""
    whose = [
        f"{n} by {judges[role]['name'] if role in judges else 'an unknown judge'} as {role}"
        for role, n in counts.by_role.items()
    ]
    too_long = [
        note
        for role in counts.by_role
        for note in judges.get(role, {}).get("notes", ())
        if note.endswith(COUNTED_AS_UNREADABLE)
    ]
    flags = " ".join(f"--judge {role}=MODEL" for role in counts.by_role)
    return "; ".join(
        [
            f"{counts.unreadable} of {counts.judged} items have a verdict that could not be read"
            f" ({', '.join(whose)}), more than {MOST_UNREADABLE:.0%}: such a judge decides nothing",
            *too_long,
            f"evals show says what it wrote; set {flags} to one that answers as asked",
        ]
    )


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
        "n_scored": result.n_scored,
        "n_answered": result.n_answered,
        "capped": result.capped,
        "warnings": result.warnings,
        **result.shares,
        **({"ends": dict(sorted(result.ends.items()))} if result.ends else {}),
        **reasoned.counts(result.reasoned),
    }
