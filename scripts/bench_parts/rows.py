"""The price of a row: minutes and GPU-hours of the whole card by the estimate of a dry run, and
beside it what was measured, never one for the other.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from evals.plan.gpu_hours import GPUS, Estimate, estimate, fewest, shape_of_size
from evals.plan.make import make_plan
from evals.plan.settings import RunSettings
from evals.plan.work import Work, work_of

FIGURES = Path("results/bench/rows.json")
PAGE = Path("results/bench/rows.md")
SIZES = ("1b", "8b", "70b")
_GPUS = tuple(gpu for gpu in GPUS if gpu.name.startswith("H"))
_NODE = 8


def counted(data: Path) -> Work:
    """What the card asks, in the tokens of the embedded model's tokenizer."""
    settings = RunSettings("smollm2", data=data, chat_format="tulu", out=Path("results/none"))
    plan = make_plan(settings, need_weights=False)
    return sum((work_of(plan.render(name)) for name in plan.tasks), Work())


def page(figures: Mapping[str, Any]) -> str:
    """The page of the figures: work, and a list of measured rows (size, gpus, minutes, source)."""
    work = Work(**figures["work"])
    measured = {(one["size"], one["gpus"]): one for one in figures["measured"]}
    lines = [
        "# The price of a row",
        "",
        "`scripts/rows` writes this page. The whole card, all eight benchmarks, without its judges:"
        f" {work.prompt / 1e6:.2f} million prompt tokens",
        f"to compute and about {work.new / 1e6:.2f} million to generate, counted with SmolLM2's"
        " tokenizer in the Tulu format, outputs as long as",
        "those of the instruct models whose recordings are replayed. Estimated is what `evals run"
        " --dry-run --parameters SIZE` would say: from",
        "start to last token, with compiling and loading; that each copy computes shared beginnings"
        " for itself is left out. Measured is a run;",
        "where there was none stands `-`. The estimate has been held against two queues of a 7.4B"
        " model on one H200 ([h200.md](h200.md)), without",
        "the start: it was within 5 and 15 % of what they took. Several GPUs have not been tried.",
        "",
        "| Size | GPUs | Copies | Estimated min | Estimated GPU-hours | Measured min |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for size in SIZES:
        for found in _estimates(size, work):
            gpus = f"{found.n * found.copies} x {found.gpu.name}"
            run = measured.get((size, gpus))
            took = f"{run['minutes']:.0f} ({run['source']})" if run else "-"
            lines.append(
                f"| {size.upper()} | {gpus} | {found.copies} | {found.wall_s / 60:.0f} |"
                f" {found.gpu_hours:.2g} | {took} |"
            )
    return "\n".join(lines) + "\n"


def _estimates(size: str, work: Work) -> list[Estimate]:
    """On the fewest GPUs that hold it, and on a node of eight."""
    shape = shape_of_size(size)
    found = []
    for gpu in _GPUS:
        n = fewest(shape, gpu)
        found += [estimate(shape, work, gpu, n, copies) for copies in (1, _NODE // n)]
    return found


def main(arguments: list[str]) -> None:
    """Count where that is asked for, and write the page."""
    if arguments[:1] == ["--count"]:
        before = json.loads(FIGURES.read_text()) if FIGURES.exists() else {"measured": []}
        work = asdict(counted(Path(arguments[1])))
        figures = before | {"work": {one: work[one] for one in ("prompt", "new", "held")}}
        FIGURES.write_text(json.dumps(figures, indent=1, sort_keys=True) + "\n")
    PAGE.write_text(page(json.loads(FIGURES.read_text())))


if __name__ == "__main__":
    main(sys.argv[1:])
