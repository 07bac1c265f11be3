"""The engine's prefix cache: what it held of the prompts, against the best any order allows."""

from typing import Any

import evals.generators.vllm as vllm_generator
from evals.plan.prefix import cached_tokens
from evals.records import Completion
from scripts.bench_parts import (
    Figures,
    Options,
    first,
    in_our_order,
    plan_of,
    spread,
    start_engine,
    subjects,
)

_SMALL = 400 << 20
"""Bytes of a small cache: about 17,000 tokens of SmolLM2, some 20 prompts."""


def measure(options: Options) -> Figures:
    """Cached tokens / the best possible, with a large cache and a small one."""
    n = 2 if options.quick else 40
    take: dict[str, Any] = {
        "mmlu": spread(4, 3) if options.quick else subjects,
        "gsm8k": first(n),
        "bbh": spread(n // 2, 4),
    }
    plan = plan_of(options, "queue", take, max_new=8)
    ordered = in_our_order([request for task in plan.tasks for request in plan.render(task)])
    best = cached_tokens((request.token_ids for request in ordered), vllm_generator._CPU_BLOCK)
    prompt = sum(len(request.token_ids) for request in ordered)
    share, found = vllm_generator._CPU_KV_CACHE_SHARE, {}
    for name, size in {"large cache": 4 << 30, "small cache": _SMALL}.items():
        # Not a setting: the generator gives a share of the free memory, so a size is a share too.
        vllm_generator._CPU_KV_CACHE_SHARE = size / vllm_generator._free_memory()
        engine = start_engine(plan)
        vllm_generator._CPU_KV_CACHE_SHARE = share
        answers = [answer for batch in engine.stream(ordered) for _, answer in batch]
        found[name] = sum(
            answer.n_cached_tokens for answer in answers if isinstance(answer, Completion)
        )
        engine.close()
    rows = [
        {"what": f"cached / best possible, {name}", "value": cached / best, "target": ">= 0.98"}
        for name, cached in found.items()
    ]
    rows.append(
        {"what": "best possible share of the prompts", "value": 100 * best / prompt, "unit": " %"}
    )
    return {"rows": rows, "raw": {"prompt_tokens": prompt, "best": best, **found}}
