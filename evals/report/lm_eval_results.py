"""Result files of lm-evaluation-harness as rows beside ours: same benchmarks, another protocol, and
marked so in every cell.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evals.cards.average import AVERAGE
from evals.errors import InputError
from evals.report.table import TableCell, TableRow, percent
from evals.stats import Z95

_METRICS: Mapping[str, tuple[tuple[str, str], ...]] = {
    # The harness writes a metric and the filter of its answers as one key, "metric,filter".
    "mmlu": (("mmlu", "acc,none"),),
    "gsm8k": (
        ("gsm8k_cot", "exact_match,flexible-extract"),
        ("gsm8k", "exact_match,flexible-extract"),
        ("gsm8k_cot", "exact_match,strict-match"),
        ("gsm8k", "exact_match,strict-match"),
    ),
    "bbh": (("bbh_cot_fewshot", "exact_match,get-answer"), ("bbh", "exact_match,get-answer")),
    "humaneval": (("humaneval", "pass@10,create_test"), ("humaneval_64", "pass@10,create_test")),
    "ifeval": (("ifeval", "prompt_level_loose_acc,none"),),
}
"""Cell key -> the harness's tasks and metrics that measure the same thing, first choice first;
TruthfulQA's are other quantities.
"""


def read_row(path: Path) -> TableRow:
    """The row of one `results_….json`, named after its model. Intervals are the harness's standard
    errors times 1.96, within 0 and 1.

    Raises InputError when the file is none of its result files, or holds nothing that the table has
    a column for.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        results = content["results"]
        cells = {
            key: cell for key in _METRICS if (cell := _cell(content, results, key)) is not None
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{path} is no result file of lm-evaluation-harness ({error!r}). RUN is a run folder or"
            " its results_….json."
        ) from error
    if not cells:
        raise InputError(
            f"{path} holds no task that the table has a column for; it has"
            f" {', '.join(map(str, results)) or 'none'}."
        )
    name = str(content.get("model_name") or path.stem)
    notes = {AVERAGE.key: "not made from cells of another protocol"}
    return TableRow(f"{name} (lm-evaluation-harness)", cells, "lm-eval", notes)


def _cell(content: Mapping[str, Any], results: Mapping[str, Any], key: str) -> TableCell | None:
    for task, metric in _METRICS[key]:
        value = results.get(task, {}).get(metric)
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1:
            name, _, chosen = metric.partition(",")
            shots = content.get("n-shot", {}).get(task)
            words = [
                f"task {task}",
                f"{name} ({chosen})" if chosen != "none" else name,
                *([f"{shots}-shot"] if shots is not None else []),
            ]
            version = content.get("lm_eval_version")
            mark = (
                f"lm-evaluation-harness{f' {version}' if version else ''}, {', '.join(words)}:"
                " another protocol than the card's"
            )
            return TableCell(
                percent(value),
                (mark,),
                _interval(value, results[task].get(f"{name}_stderr,{chosen}")),
            )
    return None


def _interval(value: float, stderr: object) -> tuple[str, str] | None:
    if not isinstance(stderr, int | float) or isinstance(stderr, bool) or not 0 <= stderr <= 1:
        return None
    return percent(max(0.0, value - Z95 * stderr)), percent(min(1.0, value + Z95 * stderr))
