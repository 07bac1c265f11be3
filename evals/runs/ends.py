"""Outputs that are no answer: a filter, a refusal by the service, a tool call or an error ended
them, they came without a text, or they ended inside their reasoning.

Such an output is kept as it came and keeps its place in the denominator. It never counts for the
model: where the protocol has a worst score it gets that one, as a wrong answer would; where a judge
tells refusals from compliance (XSTest) it is neither, both being good in one of the columns, so it
stays unscored and the cell has no number.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from evals.benchmark import Benchmark
from evals.records import Check, Completion, Finding, Findings, Grade, Item, Json, Program

NOBODY = "no answer"
"""Who decided what no judge was asked, because there was no answer to judge."""
KEY = "no_answer"
"""Where a grade's details name the ends of the outputs that are no answer."""
_WORDS = {
    "filtered": "filtered by the server",
    "refused": "refused by the server",
    "tool_call": "calls of a tool",
    "error": "ended by an error",
    "no_text": "without a text",
    "reasoning": "ended inside their reasoning",
    "other": "ended in a way the server has no known word for",
}


def checks(benchmark: Benchmark[Any], item: Item, answer: Completion) -> Sequence[Check]:
    """What the world must decide about an answer: programs always, judges only where there is an
    answer to judge.
    """
    return [
        check
        for check in benchmark.checks(item, _as_read(answer))
        if answer.is_answer or isinstance(check.ask, Program)
    ]


def grade(
    benchmark: Benchmark[Any], item: Item, answer: Completion, findings: Findings
) -> tuple[Grade, Findings]:
    """The item's grade, and what decided it."""
    if answer.is_answer:
        return benchmark.grade(item, answer, findings), findings
    # A recording may bring a verdict on a text that is no answer.
    kept = {name: found for name, found in findings.items() if name not in benchmark.judge_roles}
    decided: Findings = {**kept, **_worst(benchmark)}
    found = benchmark.grade(item, _as_read(answer), decided)
    ends = sorted({one.finish_reason for one in answer.outputs if not one.is_answer})
    scores = found.scores
    if not any(one.is_answer for one in answer.outputs):
        # Not what a scorer makes of an empty text: it is the right one for some items of BBH.
        scores = {} if _is_lower_better(benchmark) else dict.fromkeys(scores, 0.0)
    missing = found.missing if scores else f"no answer ({', '.join(ends)})"
    details = {**found.details, KEY: list[Json](ends)}
    return replace(found, scores=scores, details=details, missing=missing), decided


def _as_read(answer: Completion) -> Completion:
    """The answer as scorers read it: nothing is read out of an output that is none."""
    if answer.is_answer:
        return answer
    outputs = (one if one.is_answer else replace(one, text="") for one in answer.outputs)
    read = replace(answer, outputs=tuple(outputs))
    return read if read.choice_logprobs is None else replace(read, choice_logprobs={})


def _worst(benchmark: Benchmark[Any]) -> Findings:
    """What stands for the verdicts on no answer: the least a judge can say. Nothing where a lower
    number is better: any verdict could then be the best one.
    """
    if _is_lower_better(benchmark):
        return {}
    least = Finding(NOBODY, probability=0.0, preference=1.0)
    return dict.fromkeys(benchmark.judge_roles, least)


def _is_lower_better(benchmark: Benchmark[Any]) -> bool:
    return any(one.lower_is_better for one in benchmark.metrics)


def count(answer: Completion) -> Counter[str]:
    """How many of its outputs ended otherwise than models do, by kind."""
    ordinary = ("stop", "length")
    return Counter(one.finish_reason for one in answer.outputs if one.finish_reason not in ordinary)


def in_words(ends: Mapping[str, int], n_outputs: int) -> str:
    """The counts as a cell's mark has them: "3 of 200 outputs: 2 filtered by the server, …"."""
    kinds = ", ".join(f"{n:,} {_WORDS.get(kind, kind)}" for kind, n in sorted(ends.items()))
    return f"{sum(ends.values()):,} of {n_outputs:,} outputs are no ordinary answers: {kinds}"
