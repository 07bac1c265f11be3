"""The parts of scripts/bench --gpu: a model with a real one's shape and random weights, and what is
measured with it, in passes, on one engine.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evals.errors import EvalsError
from scripts.bench_parts import Figures


@dataclass(frozen=True, slots=True)
class Shape:
    """A model's, and how much it is asked. config: what differs from Llama's defaults.  n: items of
    a benchmark at most.  max_new: tokens of an answer.
    """

    config: Mapping[str, Any]
    n: int
    max_new: int


SHAPES: Mapping[str, Shape] = {
    "8b": Shape(
        {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
         "num_attention_heads": 32, "num_key_value_heads": 8, "rope_theta": 500_000.0},
        500, 256,
    ),
    "tiny": Shape(
        {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2,
         "num_attention_heads": 2, "num_key_value_heads": 1},
        2, 8,
    ),
}  # fmt: skip


def made(folder: Path, shape: Shape, tokenizer: str) -> Path:
    """A model's folder: config, the tokenizer of another's folder (or of the embedded model), and a
    file in the weights' place, which the engine makes up by itself.
    """
    import shutil

    import torch
    from safetensors.torch import save_file

    from evals.models.embedded import EMBEDDED, embedded_folder

    folder.mkdir(parents=True, exist_ok=True)
    source = embedded_folder() if tokenizer == EMBEDDED else Path(tokenizer)
    for file in source.glob("*.json"):
        shutil.copy(file, folder)
    own = json.loads((folder / "config.json").read_text("utf-8"))
    config = {name: own[name] for name in ("vocab_size", "bos_token_id", "eos_token_id")} | {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16",
        "hidden_act": "silu", "rms_norm_eps": 1e-5, "max_position_embeddings": 8192,
        "tie_word_embeddings": False, **shape.config,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    save_file({"none": torch.zeros(1)}, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@dataclass
class Bench:
    """What the parts share. engine: loaded for the first of them."""

    data: Path
    work: Path
    model: Path
    shape: Shape
    engine: Any = None

    def start(self, **more: Any) -> float:
        """Have an engine; the seconds that this took."""
        from scripts.bench_parts import start_engine

        begun = time.monotonic()
        if self.engine is None or more:
            plan = self.plan("start", {"gsm8k": 2})
            arguments = {"load_format": "dummy", **more}
            self.engine = start_engine(plan, engine_args=json.dumps(arguments))
        return time.monotonic() - begun

    def plan(self, out: str, take: Mapping[str, int]) -> Any:
        """A run of some benchmarks, with so many items each; of MMLU and BBH as many of each
        subject as come to that.
        """
        from scripts.bench_parts import Options, first, plan_of, spread

        options = Options(self.data, self.work, str(self.model))
        of = {name: spread(max(1, n // 20), 20) if name in ("mmlu", "bbh") else first(n)
              for name, n in take.items()}  # fmt: skip
        return plan_of(options, out, of, max_new=self.shape.max_new)

    def mixed(self, out: str) -> Any:
        """A queue of several benchmarks."""
        n = self.shape.n
        return self.plan(out, {"mmlu": n, "gsm8k": n, "bbh": n, "ifeval": n, "xstest": n})


def overhead(bench: Bench, turns: Iterator[int], take: Mapping[str, int] | None) -> Iterator[Any]:
    """A pass: our wall time and the bare engine's, in turns."""
    from scripts.bench_parts.overhead import compared

    plan = bench.mixed("run") if take is None else bench.plan("run", take)
    compared(bench.engine, bench.plan("warm", dict.fromkeys(plan.tasks, 2)), 1)
    for turn in turns:
        yield compared(bench.engine, plan, 1, first_turn=turn)


def overhead_rows(pairs: Sequence[Any]) -> list[Figures]:
    """Their ratio."""
    from scripts.bench_parts import averaged

    ratios = [pair["ratios"][0] for pair in pairs]
    row = {"what": "our wall time / bare engine", "target": "<= 1.03"}
    return [row | (averaged(ratios) if len(ratios) > 1 else {"value": ratios[0]})]


def mixed(bench: Bench, turns: Iterator[int]) -> Iterator[Any]:
    """Of several benchmarks."""
    return overhead(bench, turns, None)


def humaneval(bench: Bench, turns: Iterator[int]) -> Iterator[Any]:
    """Of programs, which run meanwhile."""
    return overhead(bench, turns, {"humaneval": max(1, bench.shape.n // 25)})


def mmlu(bench: Bench, turns: Iterator[int]) -> Iterator[Any]:
    """Of answers of one token."""
    return overhead(bench, turns, {"mmlu": 2 * bench.shape.n})


def order(bench: Bench, turns: Iterator[int]) -> Iterator[Any]:
    """A pass: wall time of each order of the queue."""
    from scripts.bench_parts.order import ORDERS

    plan = bench.mixed("order")
    requests = [request for task in plan.tasks for request in plan.render(task)]
    for turn in turns:
        names = list(ORDERS) if turn % 2 == 0 else list(ORDERS)[::-1]
        yield {name: _wall(bench.engine, ORDERS[name](requests))[0] for name in names}


def order_rows(walls: Sequence[Any]) -> list[Figures]:
    """Other orders' time over ours."""
    return [
        {"what": f"wall time / ours: {name}", "target": ">= 1",
         "value": sum(one[name] for one in walls) / sum(one["ours"] for one in walls)}
        for name in walls[0] if name != "ours"
    ]  # fmt: skip


def cache(bench: Bench, turns: Iterator[int]) -> Iterator[Any]:
    """A pass: prompt tokens that the prefix cache held, and the most that any order allows."""
    from evals.plan.prefix import cached_tokens
    from scripts.bench_parts import in_our_order

    n = bench.shape.n
    plan = bench.plan("cache", {"mmlu": n, "gsm8k": n, "bbh": n})
    ordered = in_our_order([request for task in plan.tasks for request in plan.render(task)])
    block = bench.engine._engine.vllm_config.cache_config.block_size
    best = cached_tokens((request.token_ids for request in ordered), block)
    for _ in turns:
        yield {"cached": _wall(bench.engine, ordered)[1], "best": best}


def cache_rows(passes: Sequence[Any]) -> list[Figures]:
    """The one over the other."""
    value = passes[-1]["cached"] / max(passes[-1]["best"], 1)
    return [{"what": "cached / best possible", "value": value, "target": ">= 0.98"}]


def sleep(bench: Bench, turns: Iterator[int]) -> Iterator[Any]:
    """A pass: seconds to free an engine, to start one again, to put one to sleep and wake it."""
    for _ in turns:
        begun = time.monotonic()
        bench.engine.close()
        walls = {"free the engine": time.monotonic() - begun}
        try:
            again = bench.start(enable_sleep_mode=True)
            llm = bench.engine._llm
            for name, call in {"fall asleep": llm.sleep, "wake": llm.wake_up}.items():
                begun = time.monotonic()
                call()
                walls[name] = time.monotonic() - begun
        except EvalsError as error:  # on a CPU, or by another vLLM
            print(f"bench: no sleep here: {error}", file=sys.stderr, flush=True)
            bench.engine = None
            again = bench.start()
        yield walls | {"start again, what was compiled is there": again}


def sleep_rows(passes: Sequence[Any]) -> list[Figures]:
    """As they are."""
    return [{"what": name, "value": wall, "unit": " s"} for name, wall in passes[-1].items()]


def tasks(bench: Bench, turns: Iterator[int]) -> Iterator[Any]:
    """A pass: tasks of lm-evaluation-harness by this program and by its own vLLM backend, on the
    same engine; seconds of both.
    """
    from scripts.bench_parts import Options
    from scripts.bench_parts.tasks import asker

    scale = max(1, bench.shape.n // 100)
    ask = asker(Options(bench.data, bench.work, str(bench.model), scale=scale), bench.engine)
    for turn in turns:
        yield {name: one["seconds"] for name, one in ask(turn).items()}


def tasks_rows(seconds: Sequence[Any]) -> list[Figures]:
    """Its time over ours."""
    from scripts.bench_parts.tasks import CASES

    return [
        {"what": f"lm-eval's time / ours: {case.words}", "target": case.target,
         "value": sum(one[case.name][1] for one in seconds)
         / sum(one[case.name][0] for one in seconds)}
        for case in CASES
    ]  # fmt: skip


def _wall(engine: Any, requests: Sequence[Any]) -> tuple[float, int]:
    """Seconds to answer them from an empty prefix cache, and the tokens that it held."""
    engine._llm.reset_prefix_cache()
    begun = time.monotonic()
    answers = [answer for done in engine.stream(requests) for _, answer in done]
    return time.monotonic() - begun, sum(answer.n_cached_tokens for answer in answers)


@dataclass(frozen=True, slots=True)
class Part:
    """share: of the time, beside the others'.  passes: that are enough.  each: what a pass finds,
    by the passes' numbers.  rows: what all that were found come to.
    """

    name: str
    share: int
    passes: int
    each: Callable[[Bench, Iterator[int]], Iterator[Any]]
    rows: Callable[[Sequence[Any]], list[Figures]]


PARTS = (
    Part("overhead mixed", 40, 6, mixed, overhead_rows),
    Part("overhead humaneval", 12, 4, humaneval, overhead_rows),
    Part("overhead mmlu", 10, 4, mmlu, overhead_rows),
    Part("order", 15, 3, order, order_rows),
    Part("cache", 4, 1, cache, cache_rows),
    Part("sleep", 8, 1, sleep, sleep_rows),
    Part("tasks", 11, 3, tasks, tasks_rows),
)
"""In the order of their importance."""
