"""The engine's prefix cache: what it held of the prompts, against the best any order allows."""

from functools import partial
from typing import Any

import vllm

from evals.prefix import cached_tokens
from evals.records import Completion
from scripts.bench_parts import Figures, Options, first, in_our_order, plan_of, spread, start_engine, subjects

_CACHES = {"large cache": 4 << 30, "small cache": 400 << 20}
"""Bytes; the small one holds about 17,000 tokens of SmolLM2, some 20 prompts."""


def measure(options: Options) -> Figures:
    """Cached tokens / the best possible, with a large cache and a small one."""
    n = 2 if options.quick else 40
    take: dict[str, Any] = {"mmlu": spread(4, 3) if options.quick else subjects, "gsm8k": first(n), "bbh": spread(n // 2, 4)}
    plan = plan_of(options, "queue", take, max_new=8)
    ordered = in_our_order([request for task in plan.tasks for request in plan.render(task)])
    prompt = sum(len(request.token_ids) for request in ordered)
    load, found, block = vllm.LLM, {}, 0
    for name, size in _CACHES.items():
        vllm.LLM = partial(load, kv_cache_memory_bytes=size)
        engine = start_engine(plan, gpu_memory_utilization=0.5)  # what else is given is not used beside the size
        block = engine._engine.vllm_config.cache_config.block_size
        answers = [answer for batch in engine.stream(ordered) for _, answer in batch]
        found[name] = sum(answer.n_cached_tokens for answer in answers if isinstance(answer, Completion))
        engine.close()
    best = cached_tokens((request.token_ids for request in ordered), block)
    rows = [{"what": f"cached / best possible, {name}", "value": cached / best, "target": ">= 0.98"} for name, cached in found.items()]
    rows.append({"what": "best possible share of the prompts", "value": 100 * best / prompt, "unit": " %"})
    return {"rows": rows, "raw": {"prompt_tokens": prompt, "block": block, "best": best, **found}}
