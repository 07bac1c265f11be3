"""The harness against a bare `vllm.LLM.generate` on the same requests: from the first request to
the last grade written.
"""

import shutil
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from evals.generators.vllm import VllmGenerator, _sampling_params
from evals.plan.make import Plan
from scripts.bench_parts import (
    Figures,
    Options,
    averaged,
    first,
    in_our_order,
    plan_of,
    spread,
    start_engine,
    timed_run,
)

_PAIRS = 4


def measure(options: Options) -> Figures:
    """Mean ratio of wall times with its 95 % interval, pairs in turns (ours, bare, bare, ours); our
    time outside the engine's calls.
    """
    n = 2 if options.quick else 8 * options.scale
    mixed = {
        "mmlu": spread(12 * n, 3),
        "gsm8k": first(n),
        "bbh": spread(n // 2, 3),
        "ifeval": first(n),
        "xstest": first(n),
    }
    max_new = 8 if options.quick else 256
    plans = {
        "mixed": plan_of(options, "mixed", mixed, max_new=max_new),
        "humaneval": plan_of(
            options,
            "humaneval",
            {"humaneval": first(1 if options.quick else 4 * options.scale)},
            max_new=max_new,
        ),
    }
    engine = start_engine(plans["mixed"], max_num_seqs=64 * options.scale)
    for plan in plans.values():  # imports, the sandbox's files, and the engine's first steps
        our_time(
            engine, plan_of(options, "warm", {name: first(2) for name in plan.tasks}, max_new=32)
        )
    found = {
        name: compared(engine, plan, 2 if options.quick else _PAIRS) for name, plan in plans.items()
    }
    rows: list[Figures] = []
    for name, one in found.items():
        about = {"what": f"our wall time / bare engine, {name} queue", "target": "<= 1.03"}
        rows.append(about | averaged(one["ratios"]))
        outside = 100 * statistics.mean(one["outside_s"]) / statistics.mean(one["ours_s"])
        rows.append(
            {
                "what": f"our time outside the engine's calls, {name} queue",
                "value": outside,
                "unit": " %",
            }
        )
    return {"rows": rows, "raw": found}


def compared(engine: VllmGenerator, plan: Plan, pairs: int, first_turn: int = 0) -> Figures:
    """Both sides in turns, from the same random state, so that they sample the same texts."""
    import torch

    ours, theirs, outside = [], [], []
    for turn in range(first_turn, first_turn + pairs):
        for mine in (True, False) if turn % 2 == 0 else (False, True):
            torch.manual_seed(0)
            if mine:
                with seconds_inside(engine) as inside:
                    ours.append(our_time(engine, plan))
                outside.append(ours[-1] - sum(inside))
            else:
                theirs.append(bare(engine, plan))
    ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
    return {"ratios": ratios, "ours_s": ours, "bare_s": theirs, "outside_s": outside}


@contextmanager
def seconds_inside(engine: VllmGenerator) -> Iterator[list[float]]:
    """Seconds of each of the engine's calls."""
    inside: list[float] = []
    core = engine._engine
    step, add = core.step, core.add_request

    def timed(call: Any) -> Any:
        def called(*args: Any, **named: Any) -> Any:
            start = time.monotonic()
            try:
                return call(*args, **named)
            finally:
                inside.append(time.monotonic() - start)

        return called

    core.step, core.add_request = timed(step), timed(add)
    try:
        yield inside
    finally:
        core.step, core.add_request = step, add


def our_time(engine: VllmGenerator, plan: Plan) -> float:
    """Seconds of a run into an empty folder."""
    shutil.rmtree(plan.out, ignore_errors=True)
    return timed_run(plan, engine)


def bare(engine: VllmGenerator, plan: Plan) -> float:
    """Seconds of one call with everything, in our order."""
    ordered = in_our_order([request for task in plan.tasks for request in plan.render(task)])
    prompts: list[Any] = [{"prompt_token_ids": list(request.token_ids)} for request in ordered]
    sampling = [_sampling_params(request) for request in ordered]
    engine._llm.reset_prefix_cache()
    start = time.monotonic()
    engine._llm.generate(prompts, sampling, use_tqdm=False)
    return time.monotonic() - start
