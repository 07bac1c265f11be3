"""Run folders to look at: six items of each of two runs with everything that can go wrong, and one
of 20,000 items.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evals import stats
from evals.records import Metric
from evals.runs.summary import metric_json
from evals.storage.run_folder import RunFolder

HOSTILE = (
    "</script><script>hacked = 1</script><img src=x onerror='hacked = 2'>&lt;b&gt; &amp;"
    " \"'`${hacked = 3}<!-- ]]> \u2028\u202e\x00\x1b[31m<svg onload=alert(1)> javascript:alert(1)"
    " {{ 7 * 7 }} \ud83d\ude00 \ud800 <style>*{display:none}</style> \\u003c"
)
SHOWN = HOSTILE.replace("\ud83d\ude00", "\U0001f600")
"""The same as a browser holds it: two halves of a pair are one character."""
NAME = "<img src=x onerror=hacked=4>"
N_LARGE = 20_000
NEEDLE_AT = 17_777
WORDS = (
    "we",
    "add",
    "the",
    "two",
    "numbers",
    "then",
    "divide",
    "by",
    "count",
    "of",
    "apples",
    "and",
    "so",
    "find",
    "how",
    "many",
    "each",
)


def row(
    at: int,
    output: str,
    score: float,
    *,
    unparsed: bool = False,
    reason: str = "stop",
    extracted: str | None = None,
) -> dict[str, Any]:
    """One graded item of GSM8K as samples hold it."""
    return {
        "id": f"gsm8k/{at}",
        "outputs": [output],
        "finish_reasons": [reason],
        "n_tokens": [len(output.split())],
        "extracted": extracted or None,
        "score": score,
        "unparsed": unparsed,
    }


def write_run(
    folder: Path,
    name: str,
    samples: Mapping[str, Sequence[Mapping[str, Any]]],
    suite: str = "smoke",
) -> Path:
    """A run folder with these samples and the summary that belongs to them."""
    head = {
        "schema": 1,
        "protocol": "llama-3.1-tulu-2/1",
        "suite": suite,
        "limit": None,
        "seed": 0,
        "chat_format": "tulu",
        "bos_tokens": 1,
        "model": {
            "name": name,
            "id": name,
            "fingerprint": "f" * 64,
            "revision": None,
            "dtype": "auto",
            "quantization": None,
        },
        "prompts_by": "tokenizer",
        "judges": {"xstest": {"name": NAME, "card": False, "notes": []}},
        "data": {},
    }
    cells, metrics, tasks = (
        {
            "average": (
                metric_json(Metric(None, 0, 7, reason="not every input has a value"))
                | {"marks": []}
            )
        },
        {},
        {},
    )
    for task, rows in samples.items():
        metric = metric_json(stats.proportion([float(row["score"]) for row in rows], len(rows)))
        cells[task] = metric | {"marks": [f"mark by {name}"]}
        metrics[task] = {task: metric}
        tasks[task] = {
            "n_items": len(rows),
            "n_scored": len(rows),
            "n_answered": len(rows),
            "capped": 0,
            "warnings": [f"warned by {name}"],
            "truncated": 0.25,
            "unparsed": 0.25,
            "empty": 0.0,
        }
        RunFolder(folder).write_samples(task, rows)
    phases = {
        "generate": {"wall_s": 61.5, "prompt_tokens": 9000.0, "output_tokens": 300.0},
        f"load {name}": {"wall_s": 2.0},
    }
    record = {
        "summary_header": head,
        "run_key": "k",
        "capped": {},
        "skipped": {},
        "tasks": list(samples),
        "data": None,
        "store": None,
        "sessions": [{"phases": phases, "versions": {"vllm": "0.32.0"}}],
    }
    RunFolder(folder).write_json(
        "summary.json", {**head, "cells": cells, "metrics": metrics, "tasks": tasks}
    )
    RunFolder(folder).write_json("run.json", record)
    return folder


def small_runs(folder: Path) -> tuple[Path, Path]:
    """Two runs of the smoke suite's items; the first has an item of every kind, hostile texts among
    them.
    """
    ours = [
        row(0, "Quokkas: 22 or 12. So the answer is 12.", 1.0, extracted="12"),
        row(1, "No quokkas. So the answer is 7.", 0.0, extracted="7"),
        row(2, "Quite unsayable, unknowable.", 0.0, unparsed=True),
        row(3, "First we count, then we count, then", 0.0, reason="length", extracted="3"),
        row(4, " \n", 0.0, unparsed=True),
        row(5, HOSTILE, 1.0, extracted=HOSTILE),
    ]
    theirs = [
        {**one, "score": float(at in (1, 5)), "outputs": [f"theirs {at}"]}
        for at, one in enumerate(ours)
    ]
    choices = [
        {
            "id": f"mmlu/astronomy/{at}",
            "outputs": [],
            "choice_logprobs": {"A": -0.2, "B": -2.0, "C": -3.0, "D": -4.0},
            "extracted": "A",
            "score": float(at == 0),
            "unparsed": False,
        }
        for at in range(2)
    ]
    kinds = ["punctuation:no_comma", "length_constraints:number_words"]
    instructions = [
        {
            **row(at, "no, comma", 0.0),
            "id": f"ifeval/{at}",
            "instructions": kinds,
            "loose": [at == 1, False],
            "strict": [False, False],
        }
        for at in (1, 2)
    ]
    write_run(folder / "ours", "My 8B", {"gsm8k": ours, "mmlu": choices, "ifeval": instructions})
    write_run(folder / "theirs", NAME, {"gsm8k": theirs})
    return folder / "ours", folder / "theirs"


def large_run(folder: Path) -> Path:
    """One run of N_LARGE items, one of which holds a word that no other has."""
    rows = []
    for at in range(N_LARGE):
        words = [WORDS[(at * 7 + k * (at % 11 + 1)) % len(WORDS)] for k in range(60)]
        words += ["XYLOPHONE"] if at == NEEDLE_AT else []
        rows.append(
            row(
                at,
                f"{' '.join(words)}. So the answer is {at}.",
                float(at % 3 == 0),
                extracted=str(at),
            )
        )
    return write_run(folder / "large", "My 8B, large", {"gsm8k": rows}, "card")
