"""Orders of the queue on one engine, and how full each keeps the batch."""

import os
import time
from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Any

from evals.generators.vllm import VllmGenerator
from scripts.bench_parts import (
    Figures,
    Options,
    averaged,
    first,
    in_our_order,
    plan_of,
    spread,
    start_engine,
)

_BATCH = 16
"""Small against the queue's 36 generations, as an engine's is against a card's 15,000."""
_PASSES = 4


def queue_of(options: Options) -> dict[str, Any]:
    """A modest mix."""
    n = 2 if options.quick else 8 * options.scale
    return {
        "mmlu": spread(6 * n, 3),
        "gsm8k": first(n),
        "bbh": spread(n // 2, 3),
        "ifeval": first(n),
        "xstest": first(n),
    }


def by_task(requests: Sequence[Any]) -> dict[str, list[Any]]:
    """One list a benchmark."""
    tasks: dict[str, list[Any]] = {}
    for request in requests:
        tasks.setdefault(request.item_id.split("/")[0], []).append(request)
    return tasks


def interleaved(requests: Sequence[Any]) -> list[Any]:
    """One of each benchmark in turn."""
    return [
        one for turn in zip_longest(*by_task(requests).values()) for one in turn if one is not None
    ]


ORDERS: dict[str, Callable[[Sequence[Any]], Sequence[Any]]] = {
    "ours": in_our_order,
    "as the benchmarks come": list,
    "interleaved": interleaved,
}


def measure(options: Options) -> Figures:
    """Wall time of each order over ours, mean and 95 % interval over passes; share of the time with
    the batch less than half full.
    """
    plan = plan_of(options, "queue", queue_of(options), max_new=8 if options.quick else 256)
    requests = [request for task in plan.tasks for request in plan.render(task)]
    batch = _BATCH * options.scale
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # the scheduler is looked at from here
    engine = start_engine(plan, max_num_seqs=batch)
    queues: dict[str, list[Sequence[Any]]] = {
        name: [order(requests)] for name, order in ORDERS.items()
    }
    queues["one phase per benchmark"] = [in_our_order(part) for part in by_task(requests).values()]
    # the first pass touches the cache's memory and is slower, whatever its order
    drained(engine, in_our_order(requests), batch)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in queues}
    for turn in range(2 if options.quick else _PASSES):
        # There and back: what drifts meanwhile meets all orders alike.
        for name in list(queues) if turn % 2 == 0 else list(queues)[::-1]:
            parts = [drained(engine, part, batch) for part in queues[name]]
            times[name].append((sum(wall for wall, _ in parts), sum(thin for _, thin in parts)))
    walls = {name: [wall for wall, _ in passes] for name, passes in times.items()}
    thin = {
        name: sum(thin for _, thin in passes) / sum(walls[name]) for name, passes in times.items()
    }
    engine.close()
    rows: list[Figures] = []
    for name in list(queues)[1:]:
        ratios = [other / ours for other, ours in zip(walls[name], walls["ours"], strict=True)]
        rows.append({"what": f"wall time / ours: {name}", "target": ">= 1"} | averaged(ratios))
    rows += [
        {
            "what": f"time with the batch less than half full: {name}",
            "value": 100 * share,
            "unit": " %",
        }
        for name, share in thin.items()
    ]
    return {"rows": rows, "raw": {"passes_s": times}}


def drained(engine: VllmGenerator, requests: Sequence[Any], batch: int) -> tuple[float, float]:
    """Seconds until everything is answered, from an empty prefix cache, and those of them with less
    than half a batch running.
    """
    engine._llm.reset_prefix_cache()
    step, scheduler = engine._engine.step, engine._engine.engine_core.engine_core.scheduler
    thin = 0.0

    def stepped() -> Any:
        nonlocal thin
        start = time.monotonic()
        out = step()
        if len(scheduler.running) < batch / 2:
            thin += time.monotonic() - start
        return out

    engine._engine.step = stepped
    start = time.monotonic()
    try:
        for _ in engine.stream(requests):
            pass
    finally:
        engine._engine.step = step
    return time.monotonic() - start, thin
