"""The harness against a bare `vllm.LLM.generate` on the same requests: from the first request to the last grade written."""

import shutil
import statistics
import time
from typing import Any

from evals.generators.vllm import VllmGenerator, _sampling_params
from evals.plan import Plan
from scripts.bench_parts import Figures, Options, first, plan_of, spread, start_engine, timed_run

_ROUNDS = 1


def measure(options: Options) -> Figures:
    """Mean ratio of wall times, pairs in turns (ours, bare, bare, ours)."""
    n = 2 if options.quick else 12
    mixed = {"mmlu": spread(12 * n, 3), "gsm8k": first(n), "bbh": spread(n // 2, 3), "ifeval": first(n), "xstest": first(n)}
    plans = {
        "mixed": plan_of(options, "mixed", mixed, max_new=8 if options.quick else 256),
        "humaneval": plan_of(options, "humaneval", {"humaneval": first(1 if options.quick else 2)}, max_new=8 if options.quick else 256),
    }
    engine = start_engine(plans["mixed"], max_num_seqs=64)
    for plan in plans.values():  # imports, and the engine's first steps
        our_time(engine, plan_of(options, "warm", {name: first(1) for name in plan.tasks}, max_new=2))
    found = {name: compared(engine, plan) for name, plan in plans.items()}
    rows = [
        {"what": f"our wall time / bare engine, {name} queue", "value": one["ratio"], "target": "<= 1.03"} for name, one in found.items()
    ]
    return {"rows": rows, "raw": found}


def compared(engine: VllmGenerator, plan: Plan) -> Figures:
    """Both, in turns."""
    ours, theirs = [], []
    for turn in range(2 * _ROUNDS):
        order = (ours, theirs) if turn % 2 == 0 else (theirs, ours)
        for side in order:
            side.append(our_time(engine, plan) if side is ours else bare(engine, plan))
    ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
    return {"ratio": statistics.mean(ratios), "ratios": ratios, "ours_s": ours, "bare_s": theirs}


def our_time(engine: VllmGenerator, plan: Plan) -> float:
    """Seconds of a run into an empty folder."""
    shutil.rmtree(plan.out, ignore_errors=True)
    return timed_run(plan, engine)


def bare(engine: VllmGenerator, plan: Plan) -> float:
    """Seconds of one call with everything, in our order."""
    requests = [request for task in plan.tasks for request in plan.render(task)]
    requests.sort(key=lambda request: -request.max_new_tokens * request.sampling.n)
    prompts: list[Any] = [{"prompt_token_ids": list(request.token_ids)} for request in requests]
    sampling = [_sampling_params(request) for request in requests]
    engine._llm.reset_prefix_cache()
    start = time.monotonic()
    engine._llm.generate(prompts, sampling, use_tqdm=False)
    return time.monotonic() - start
