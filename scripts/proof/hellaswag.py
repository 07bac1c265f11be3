"""HellaSwag with no shots, to stand beside a published figure, and how far what is unlike can move
it: contexts that lack a capital letter, and weights of four bits.

    python -m scripts.proof.hellaswag VALIDATION WORK [--seeds 0,1] [--limit 2000]

VALIDATION: the rows as query, choices and gold, gzipped JSON lines. WORK takes a run folder each of
all rows; of those whose last sentence begins small, with its capital; and, for each seed, of the
first rows on weights moved once more by as much as quantisation to four bits moves them. What is
there is gone on with. Prints a Markdown table.

lm-eval's HellaSwag capitalises the last sentence of a context; the files' rows have it as it was.
A Q4_1 block is 32 weights on 16 steps from its least to its largest: uniform noise of a step's
width is what rounding to it does. By symmetry the move from these weights to noisier ones is as
large, in size, as that from the unquantised to these.
"""

import argparse
import gzip
import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from evals.models.embedded import embedded_folder
from evals.stats import Z95
from evals.storage.run_folder import RunFolder

_TASK = """task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    validation: {file}
output_type: multiple_choice
validation_split: validation
doc_to_text: "{{{{query}}}}"
doc_to_target: gold
doc_to_choice: choices
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
  - metric: acc_norm
    aggregation: mean
    higher_is_better: true
metadata:
  version: 1.0
"""
_SMALL = re.compile(r"""^(.*[.!?]["')]*\s)([a-z][^.!?]*)$""", re.DOTALL)
_METRICS = ("acc", "acc_norm")
_BLOCK, _STEPS = 32, 15


def with_capital(query: str) -> str | None:
    """The context with its last sentence begun by a capital; None where nothing is to do."""
    found = _SMALL.match(query)
    return found and found[1] + found[2][0].upper() + found[2][1:]


def quantise_again(source: Path, out: Path, seed: int) -> int:
    """A copy of a folder whose matrices of 16 steps a block are moved by noise of a step's width;
    how many there are.
    """
    import torch
    from safetensors.torch import load_file, save_file

    drawn = torch.Generator().manual_seed(seed)
    shutil.copytree(source, out, ignore=shutil.ignore_patterns("*.safetensors"))
    n_moved = 0
    for file in sorted(source.glob("*.safetensors")):
        tensors = load_file(file)
        for name in sorted(tensors):
            exact = tensors[name]
            if exact.dim() != 2 or exact.shape[1] % _BLOCK:
                continue
            blocks = exact.float().reshape(-1, _BLOCK)
            if any(len(block.unique()) > _STEPS + 1 for block in blocks[:200]):
                continue
            low, high = blocks.aminmax(dim=1, keepdim=True)
            noise = torch.rand(blocks.shape, generator=drawn) - 0.5
            moved = blocks + noise * (high - low) / _STEPS
            tensors[name] = moved.reshape(exact.shape).to(exact.dtype)
            n_moved += 1
        save_file(tensors, out / file.name, {"format": "pt"})
    return n_moved


def _run(
    work: Path, model: str, task: str, out: str, *more: str
) -> Mapping[str, Mapping[str, Any]]:
    """A run's rows by id, made unless it is there."""
    folder = work / out
    if not (folder / "summary.json").exists():
        environment = os.environ | {"EVALS_INCLUDE_PATH": str(work / "tasks")}
        run = ["run", model, "--tasks", f"lm-eval:{task}", "--offline", *more]
        command = [sys.executable, "-m", "evals", *run, "--out", str(folder)]
        subprocess.run(command, env=environment, check=True)
    rows = RunFolder(folder).samples(f"lm-eval.{task}")
    return {row["id"].rpartition("/")[2]: row["metrics"] for row in rows}


def _line(words: str, scores: Sequence[Sequence[float]], sign: str = "") -> str:
    """A row of the table, percent or points. scores: by metric."""
    cells = []
    for values in scores:
        value, half = 100 * fmean(values), 100 * Z95 * stdev(values) / math.sqrt(len(values))
        cells.append(f"{value:{sign}.2f} ({value - half:{sign}.2f} to {value + half:{sign}.2f})")
    return f"| {words} | {len(scores[0]):,} | {' | '.join(cells)} |"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("validation", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--limit", type=int, default=2000)
    given = parser.parse_args()
    with gzip.open(given.validation, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    small = {at: query for at, row in enumerate(rows) if (query := with_capital(row["query"]))}
    tasks = given.work / "tasks"
    tasks.mkdir(parents=True, exist_ok=True)
    files = {
        "hellaswag_local": rows,
        "hellaswag_capital": [{**rows[at], "query": query} for at, query in small.items()],
    }
    for name, content in files.items():
        path = tasks / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in content), "utf-8")
        (tasks / f"{name}.yaml").write_text(_TASK.format(name=name, file=path.resolve()), "utf-8")

    whole = _run(given.work, "smollm2", "hellaswag_local", "whole")
    capital = _run(given.work, "smollm2", "hellaswag_capital", "capital")
    lines = [_line("all items", [[row[m] for row in whole.values()] for m in _METRICS])]
    both = [(capital[str(n)], whole[str(at)]) for n, at in enumerate(small)]
    moved = [[new[m] - old[m] for new, old in both] for m in _METRICS]
    still = [0.0] * (len(whole) - len(both))
    lines += [
        _line("with the capital, of contexts that lack it: points", moved, "+"),
        _line("with the capital, of all: points", [values + still for values in moved], "+"),
    ]
    for seed in given.seeds.split(","):
        folder = given.work / f"noised-weights-{seed}"
        if not folder.exists():
            quantise_again(embedded_folder(), folder, int(seed))
        limit = ("--limit", str(given.limit))
        noised = _run(given.work, str(folder), "hellaswag_local", f"noised-{seed}", *limit)
        moved = [[row[m] - whole[at][m] for at, row in noised.items()] for m in _METRICS]
        lines.append(_line(f"quantised once more, seed {seed}: points", moved, "+"))
    print("| | items | acc [95 %] | acc_norm [95 %] |\n| --- | ---: | ---: | ---: |")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
