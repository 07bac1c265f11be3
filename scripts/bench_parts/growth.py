"""Plan, run, grade and report from a thousand items to a million, with generated items and answers:
straight lines or better.
"""

import json
import math
import sys
import time
from typing import Any

from evals.generators.fake import FakeGenerator
from evals.plan.make import make_plan
from evals.plan.settings import RunSettings
from evals.report.run_row import row_from_summary
from evals.report.table import markdown
from evals.runs.progress import Progress
from evals.runs.session import execute
from scripts.bench_parts import Figures, Options, child, options_of, peak_mb, toy

_SERVER = "openai:fake@http://127.0.0.1:9/v1"
"""A model without a tokenizer; its server is never called."""


def measure(options: Options) -> Figures:
    """Exponents between neighbouring sizes (1 is a straight line), and memory for each further
    item.
    """
    sizes = (100, 1000) if options.quick else (1_000, 10_000, 100_000, 1_000_000)
    found = {n: child("scripts.bench_parts.growth", options, str(n)) for n in sizes}
    big, small = sizes[-1], sizes[-2]
    rows: list[dict[str, Any]] = []
    for part in ("plan", "run", "again", "report"):
        exponent = math.log(found[big][part] / found[small][part]) / math.log(big / small)
        rows.append(
            {
                "what": f"exponent of {part} time, {small:,} to {big:,} items",
                "value": exponent,
                "target": "<= 1.05",
            }
        )
    per_item = (found[big]["peak_mb"] - found[small]["peak_mb"]) * 1024 / (big - small)
    rows.append(
        {
            "what": f"memory for each further item, {small:,} to {big:,}",
            "value": per_item,
            "unit": " KB",
        }
    )
    rows.append(
        {
            "what": "items per second, plan to report, at the largest size",
            "value": big / sum(found[big][p] for p in ("plan", "run")),
        }
    )
    return {"rows": rows, "raw": found}


def one_size(options: Options, n: int) -> Figures:
    """Seconds of each part at n items, and this process's peak."""
    toy.register()
    data = toy.write_data(options.work / f"data-{n}", n)
    settings = RunSettings(
        _SERVER, suite="full", tasks=("toy",), data=data, out=options.work / f"run-{n}"
    )
    walls: Figures = {}
    for part in ("run", "again"):
        start = time.monotonic()
        plan = make_plan(settings)
        # The first plan alone: the second finds a run already there.
        walls.setdefault("plan", time.monotonic() - start)
        start = time.monotonic()
        result = execute(plan, Progress(quiet=True), lambda _: FakeGenerator(toy.answer, 16))
        walls[part] = time.monotonic() - start
    start = time.monotonic()
    markdown([row_from_summary(json.loads((plan.out / "summary.json").read_text()))])
    walls["report"] = time.monotonic() - start
    if not result.is_complete:
        raise RuntimeError("the run is not complete")
    return walls | {"peak_mb": peak_mb()}


if __name__ == "__main__":
    print("\n" + json.dumps(one_size(options_of(sys.argv[1]), int(sys.argv[2]))))
