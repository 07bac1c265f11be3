"""Result files of lm-evaluation-harness as rows beside ours: same benchmarks, another protocol, and
marked so in every cell, with everything the file says of how its numbers came about.

Read from version 0.4.0 on; what an older file does not hold yet is not said. What the keys mean:
lm_eval/result_schema.py.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

from evals.cards.card import AVERAGE
from evals.cards.published import shipped
from evals.errors import InputError
from evals.registry import variants
from evals.report.table import LIMITED, TableCell, TableRow, percent
from evals.stats import Z95
from evals.storage.files import one_line

_HARNESS = "lm-evaluation-harness"
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


_BY_LIKELIHOOD = ("mmlu",)
"""The cells for which nothing is generated, so that settings of generation do not reach them."""
# Where and how fast a model ran, and with whose key: none of it changes a number, and some of it
# must not stand in a public table.
_NOT_SAID = re.compile(
    r"((use_auth|auth|hf)_)?token|api_key|header|base_url|(verify|ca)_cert\w*|(cache|download)_dir"
    r"|offload_folder|device\w*|parallelize|max_memory\w*|max_cpu_memory|gpus|\w+_parallel_size"
    r"|gpu_memory_utilization|swap_space|(max_)?batch_size|num_concurrent|max_retries|timeout"
    r"|trust_remote_code|disable_log_stats"
)
"""Model arguments that are left out of the marks; any other is said, known here or not."""
_LONGEST = 120
"""Characters of a text that the file brings into a mark."""


def read_row(path: Path) -> TableRow:
    """The row of one `results_….json`, named after its model. Intervals are the harness's standard
    errors times 1.96, within 0 and 1.  A run on a part of the items is limited, as ours are: it
    stands apart and says so in its name.

    Raises InputError when the file is none of its result files, or holds nothing that the table has
    a column for.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        results = content["results"]
        cells = {
            key: cell for key in _METRICS if (cell := _cell(content, results, key)) is not None
        }
        words = [_HARNESS, *_limits(content, results)]
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
    name = _placeless(str(content.get("model_name") or path.stem))
    notes = {AVERAGE.key: "not made from cells of another protocol"}
    group = LIMITED if len(words) > 1 else "lm-eval"
    return TableRow(f"{name} ({', '.join(words)})", cells, group, notes)


def _cell(content: Mapping[str, Any], results: Mapping[str, Any], key: str) -> TableCell | None:
    found = _found(results, key)
    if found is None:
        return None
    task, metric, value = found
    name, _, chosen = metric.partition(",")
    return TableCell(
        percent(value),
        tuple(_marks(content, key, task, metric)),
        _interval(value, results[task].get(f"{name}_stderr,{chosen}")),
    )


def _found(results: Mapping[str, Any], key: str) -> tuple[str, str, float] | None:
    """The task, metric and value that fill a cell; None where the file has none."""
    for task, metric in _METRICS[key]:
        value = results.get(task, {}).get(metric)
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1:
            return task, metric, value
    return None


def _interval(value: float, stderr: object) -> tuple[str, str] | None:
    if not isinstance(stderr, int | float) or isinstance(stderr, bool) or not 0 <= stderr <= 1:
        return None
    return percent(max(0.0, value - Z95 * stderr)), percent(min(1.0, value + Z95 * stderr))


# --- what the file says of its numbers ------------------------------------------------------------


def _limits(content: Mapping[str, Any], results: Mapping[str, Any]) -> list[str]:
    """What makes the run a limited one, for the row's name: the limit, else (it ran on items that
    were named one by one) that some of a cell's items are lacking.
    """
    limit = _part(content, "config").get("limit")
    if limit is not None:
        return [f"limit {_text(limit)}"]
    found = [found for key in _METRICS if (found := _found(results, key))]
    counts = [_n_items(content, task, metric) for task, metric, _ in found]
    return ["a part of the items"] if any(n and n[0] < n[1] for n in counts) else []


def _marks(content: Mapping[str, Any], key: str, task: str, metric: str) -> Iterator[str]:
    """Everything in which the cell differs, or may differ, from the card's protocol, in words."""
    shots = _n_shots(content, task)
    yield _what(content, key, task, metric, shots)
    limit = _part(content, "config").get("limit")
    if limit is not None:
        yield f"a limited run: limit {_text(limit)} of each task"
    counts = _n_items(content, task, metric)
    if counts is not None and counts[0] != counts[1]:
        yield f"task {task}: {counts[0]:,} of its {counts[1]:,} items"
    yield from _prompts(content, shots)
    yield from _model(content)
    settings = _said(_part(content, "config").get("gen_kwargs"))
    if settings and key not in _BY_LIKELIHOOD:
        yield f"generation settings of its own: {settings}"


def _what(content: Mapping[str, Any], key: str, task: str, metric: str, shots: list[str]) -> str:
    """Whose task and metric it is, in which versions, with how many shots."""
    name, _, chosen = metric.partition(",")
    words = [
        f"task {task}",
        *_version(_part(content, "versions").get(task), "version"),
        f"{name} ({chosen})" if chosen != "none" else name,
    ]
    if shots:
        of_card = _shots_of_card(key)
        other = "" if shots == [str(of_card)] else f" where the card has {of_card}-shot"
        words.append(f"{' and '.join(shots)}-shot{other}")
    # Before 0.4.3 a file names the commit alone.
    harness = _version(content.get("lm_eval_version"), "") or _version(
        content.get("git_hash"), "commit"
    )
    return f"{' '.join([_HARNESS, *harness])}, {', '.join(words)}: another protocol than the card's"


def _version(value: object, word: str) -> list[str]:
    return [] if value is None else [f"{word} {_text(value)}".strip()]


def _prompts(content: Mapping[str, Any], shots: list[str]) -> Iterator[str]:
    """How messages became prompts. Files before 0.4.3 do not say it."""
    if content.get("chat_template") or content.get("chat_template_sha"):
        sha = content.get("chat_template_sha")
        known = f" (SHA-256 {_text(sha)[:12]})" if sha else ""
        turns = content.get("fewshot_as_multiturn")
        has_shots = turns is not None and shots not in ([], ["0"])
        how = "as turns of their own" if turns else "in one turn"
        yield f"prompts by a chat template{known}{f', the shots {how}' if has_shots else ''}"
    elif "chat_template" in content:
        yield "prompts as raw text, without a chat template"
    if content.get("system_instruction") or content.get("system_instruction_sha"):
        text = content.get("system_instruction") or content["system_instruction_sha"]
        yield f"with a system instruction: {_text(text)}"


def _model(content: Mapping[str, Any]) -> Iterator[str]:
    """What ran the model, and how its weights were held."""
    config = _part(content, "config")
    source = content.get("model_source") or config.get("model")
    arguments = _said(config.get("model_args"), content.get("model_name"))
    if source or arguments:
        by = f" through {_text(source)}" if source else ""
        yield f"the model ran{by}{f' with {arguments}' if arguments else ''}"
    dtype = str(config.get("model_dtype") or "").removeprefix("torch.")
    if dtype not in ("", "bfloat16"):
        yield f"weights in {_text(dtype)}; the card's were in bfloat16"


def _shots_of_card(key: str) -> int:
    """How many solved questions stand before a question of the card's column."""
    found = next(one for one in variants(shipped()).values() if key in [c.key for c in one.columns])
    return getattr(found.settings, "shots", 0)


def _n_shots(content: Mapping[str, Any], task: str) -> list[str]:
    """The shots of a task, of a group those of its tasks; none where the file does not say."""
    shots = _part(content, "n-shot")
    names = [task] if shots.get(task) is not None else _leaves(content, task)
    found = {_text(shots[name]) for name in names if shots.get(name) is not None}
    return sorted(found)


def _n_items(content: Mapping[str, Any], task: str, metric: str) -> tuple[int, int] | None:
    """How many items the metric was taken of, and how many the task has; None where the file does
    not say (before 0.4.3).
    """
    samples = _part(content, "n-samples")
    counts = [samples[name] for name in _leaves(content, task) if name in samples]
    # Of a limit below 1, a share, older versions wrote the share itself for the count.
    effective, original = (
        [n for count in counts if isinstance(n := count[which], int)]
        for which in ("effective", "original")
    )
    if not counts or len(effective) < len(counts) or len(original) < len(counts):
        return None
    # A group's metric may lack items that its tasks count.
    scored = _part(content["results"][task], "sample_count").get(metric)
    return scored if isinstance(scored, int) else sum(effective), sum(original)


def _leaves(content: Mapping[str, Any], task: str) -> list[str]:
    """The tasks that a group is made of; the task itself where it is none."""
    inner = _part(content, "group_subtasks")
    found, seen, waiting = list[str](), set[str](), [task]
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += inner.get(name) or []
            found += [] if inner.get(name) else [name]
    return found


def _said(arguments: object, known: object = None) -> str:
    """Arguments, an object or "a=b,c=d", as text, less those of _NOT_SAID and the one that the row
    is named after.
    """
    if isinstance(arguments, Mapping):
        pairs = [(str(name), str(value)) for name, value in arguments.items() if value is not None]
    else:
        parts = [part.partition("=") for part in str(arguments or "").split(",") if part]
        pairs = [(name.strip(), value) for name, _, value in parts]
    return _text(
        ", ".join(
            f"{name}={_placeless(value)}"
            for name, value in pairs
            if not _NOT_SAID.fullmatch(name) and value != known
        )
    )


def _placeless(text: str) -> str:
    """The text, of a path only its last part: where somebody's folders lie is nobody's affair."""
    return PurePath(text).name if text.startswith(("/", "~", ".")) else text


def _part(content: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """An object of the file, empty where it has none. Raises TypeError where it is none."""
    found = content.get(name)
    if found is None:
        return {}
    if not isinstance(found, Mapping):
        raise TypeError(f"{name} is no object")
    return found


def _text(value: object) -> str:
    """Anything of the file as a short line; a whole number as one, whatever its type."""
    text = f"{value:g}" if isinstance(value, float) else one_line(str(value))
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
