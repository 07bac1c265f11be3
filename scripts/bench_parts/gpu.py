"""scripts/bench --gpu: what only a GPU can show, in a budget of seconds, most important first.

One engine answers for all parts; after each pass of a part its figures are written, and the same
command goes on where they end. The model has a real one's shape and random weights, so that nothing
but this clone, the data and vLLM need be there.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from evals.errors import EvalsError
from scripts.bench_parts import Figures

NAME = "gpu.json"
WORKER = ("-m", "scripts.bench_parts.gpu")


@dataclass(frozen=True, slots=True)
class Part:
    """share: of the time, beside the others'.  passes: that are enough."""

    name: str
    share: int
    passes: int


PARTS = (
    Part("overhead mixed", 40, 6),
    Part("overhead humaneval", 12, 4),
    Part("overhead mmlu", 10, 4),
    Part("order", 15, 3),
    Part("cache", 4, 1),
    Part("sleep", 8, 1),
    Part("tasks", 11, 3),
)
"""In the order of their importance."""


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


# --- time -----------------------------------------------------------------------------------------


def next_part(kept: Mapping[str, Any], left_s: float) -> tuple[Part, float] | None:
    """What to measure next, and for how long: what was never begun comes before what broke off, and
    each has its share of the time that is left to what is not done.
    """
    open_ = [part for part in PARTS if not kept.get(part.name, {}).get("done")]
    open_ = sorted(open_, key=lambda part: bool(kept.get(part.name, {}).get("tries")))
    # Twice begun and never ended: it does not work here.
    open_ = [part for part in open_ if kept.get(part.name, {}).get("tries", 0) < 2]
    if not open_ or left_s <= 0:
        return None
    return open_[0], left_s * open_[0].share / sum(part.share for part in open_)


def passes(part: Part, until: float, clock: Any = time.monotonic) -> Iterator[int]:
    """Numbers of the passes that there is time for; the first in any case, each further one where
    the longest before it would end in time.
    """
    longest, begun = 0.0, clock()
    for turn in count():
        if turn == part.passes or (turn and begun + longest > until):
            return
        yield turn
        now = clock()
        longest, begun = max(longest, now - begun), now


# --- the process with the engine ------------------------------------------------------------------


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
    """Our wall time over the bare engine's, by pairs in turns."""
    from scripts.bench_parts import averaged
    from scripts.bench_parts.overhead import compared

    plan = bench.mixed("run") if take is None else bench.plan("run", take)
    compared(bench.engine, bench.plan("warm", dict.fromkeys(plan.tasks, 2)), 1)
    pairs: list[Figures] = []
    for turn in turns:
        pairs.append(compared(bench.engine, plan, 1, first_turn=turn))
        ratios = [pair["ratios"][0] for pair in pairs]
        row: Figures = {"what": "our wall time / bare engine", "target": "<= 1.03"}
        row |= averaged(ratios) if len(ratios) > 1 else {"value": ratios[0]}
        yield {"rows": [row], "raw": pairs}


def order(bench: Bench, turns: Iterator[int]) -> Iterator[Any]:
    """Wall time of other orders of the queue over ours."""
    from scripts.bench_parts.order import ORDERS

    plan = bench.mixed("order")
    requests = [request for task in plan.tasks for request in plan.render(task)]
    walls: dict[str, list[float]] = {name: [] for name in ORDERS}
    for turn in turns:
        for name in list(ORDERS) if turn % 2 == 0 else list(ORDERS)[::-1]:
            walls[name].append(_wall(bench.engine, ORDERS[name](requests))[0])
        rows = [
            {"what": f"wall time / ours: {name}", "value": sum(own) / sum(walls["ours"]),
             "target": ">= 1"}
            for name, own in walls.items() if name != "ours"
        ]  # fmt: skip
        yield {"rows": rows, "raw": walls}


def cache(bench: Bench, turns: Iterator[int]) -> Iterator[Any]:
    """Prompt tokens that the prefix cache held, over the best that any order allows."""
    from evals.plan.prefix import cached_tokens
    from scripts.bench_parts import in_our_order

    n = bench.shape.n
    plan = bench.plan("cache", {"mmlu": n, "gsm8k": n, "bbh": n})
    ordered = in_our_order([request for task in plan.tasks for request in plan.render(task)])
    block = bench.engine._engine.vllm_config.cache_config.block_size
    best = cached_tokens((request.token_ids for request in ordered), block)
    for _ in turns:
        _, held = _wall(bench.engine, ordered)
        row = {"what": "cached / best possible", "value": held / max(best, 1), "target": ">= 0.98"}
        yield {"rows": [row], "raw": {"cached": held, "best": best}}


def sleep(bench: Bench, turns: Iterator[int]) -> Iterator[Any]:
    """Seconds to free an engine, to start one again, and to put one to sleep and wake it."""
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
        walls["start again, what was compiled is there"] = again
        rows = [{"what": name, "value": wall, "unit": " s"} for name, wall in walls.items()]
        yield {"rows": rows, "raw": walls}


def tasks(bench: Bench, turns: Iterator[int]) -> Iterator[Any]:
    """Tasks of lm-evaluation-harness, by its own vLLM backend over ours, on the same engine."""
    from scripts.bench_parts import Options
    from scripts.bench_parts.tasks import CASES, asker, rows_of

    scale = max(1, bench.shape.n // 100)
    ask = asker(Options(bench.data, bench.work, str(bench.model), scale=scale), bench.engine)
    seconds: dict[str, list[list[float]]] = {case.name: [] for case in CASES}
    for turn in turns:
        for name, one in ask(turn).items():
            seconds[name].append(one["seconds"])
        yield {"rows": rows_of(seconds), "raw": seconds}


def measured(bench: Bench, part: Part, until: float) -> Iterator[Figures]:
    """A part's figures, after each pass."""
    turns = passes(part, until)
    kind, _, queue = part.name.partition(" ")
    n = bench.shape.n
    takes = {"humaneval": {"humaneval": max(1, n // 25)}, "mmlu": {"mmlu": 2 * n}}
    if kind == "overhead":
        return overhead(bench, turns, takes.get(queue))
    return {"order": order, "cache": cache, "sleep": sleep, "tasks": tasks}[kind](bench, turns)


def _wall(engine: Any, requests: Sequence[Any]) -> tuple[float, int]:
    """Seconds to answer them from an empty prefix cache, and the tokens that it held."""
    engine._llm.reset_prefix_cache()
    begun = time.monotonic()
    answers = [answer for done in engine.stream(requests) for _, answer in done]
    return time.monotonic() - begun, sum(answer.n_cached_tokens for answer in answers)


def work_through(spec: Mapping[str, Any]) -> None:
    """Measure what is to be measured, and write it, until the time is up."""
    from scripts.bench_parts import Options
    from scripts.bench_parts.__main__ import machine

    out, end = Path(spec["out"]), time.monotonic() + spec["left_s"]
    model = made(out / "model", SHAPES[spec["shape"]], spec["tokenizer"])
    bench = Bench(Path(spec["data"]), Path(spec["work"]), model, SHAPES[spec["shape"]])
    start_s = bench.start()
    about = machine(Options(bench.data, bench.work, f"{spec['shape']}'s shape, random weights"))
    while (found := next_part(read(out), end - time.monotonic())) is not None:
        part, seconds = found
        before = read(out).get(part.name, {})
        tries = before.get("tries", 0) + 1
        write(out, part.name, before | {"tries": tries})
        print(f"bench: {part.name}, {seconds:.0f} s", file=sys.stderr, flush=True)
        figures: Figures = {}
        for figures in measured(bench, part, time.monotonic() + seconds):
            figures |= {"machine": about, "start_s": start_s, "tries": tries}
            write(out, part.name, figures)
        write(out, part.name, figures | {"done": True})
    with suppress(Exception):
        bench.engine.close()


# --- the command ----------------------------------------------------------------------------------


def read(out: Path) -> Figures:
    """What was measured so far."""
    found: Figures = json.loads((out / NAME).read_text()) if (out / NAME).exists() else {}
    return found


def write(out: Path, part: str, figures: Figures) -> None:
    """A part's figures beside the others': whole or not at all, whatever ends this process."""
    kept = read(out) | {part: figures}
    (out / f"{NAME}.part").write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
    (out / f"{NAME}.part").replace(out / NAME)


def page(kept: Figures) -> str:
    """The table, in the order of the parts."""
    from scripts.bench_parts.__main__ import table

    return table(kept, [part.name for part in PARTS])


def main(asked: argparse.Namespace) -> int:
    """Measure within the budget, in a process of its own that is ended with it."""
    end, out = time.monotonic() + asked.budget, Path(asked.out)
    out.mkdir(parents=True, exist_ok=True)
    while (left_s := end - time.monotonic()) > 0 and next_part(before := read(out), left_s):
        spec = {"out": str(out), "data": str(Path(asked.data).resolve()), "shape": asked.shape,
                "work": str(out / "work"), "tokenizer": asked.model, "left_s": left_s}  # fmt: skip
        command = [sys.executable, *WORKER, json.dumps(spec)]
        # A group of its own: with it end the engine's processes.
        worker = subprocess.Popen(command, start_new_session=True)
        try:
            if worker.wait(timeout=left_s) == 0:
                break
            if read(out) == before:
                return 1  # the engine does not start; why stands above
        except subprocess.TimeoutExpired:
            break
        finally:
            _end(worker)
    kept = read(out)
    (out / NAME).with_suffix(".md").write_text(f"# scripts/bench --gpu\n\n{page(kept)}\n")
    print(page(kept))
    left = [part.name for part in PARTS if not kept.get(part.name, {}).get("done")]
    if left:
        print(f"bench: not done: {', '.join(left)}; the same command goes on.", file=sys.stderr)
    return 3 if left else 0


def _end(worker: "subprocess.Popen[bytes]") -> None:
    import os
    import signal

    with suppress(ProcessLookupError):
        os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()


if __name__ == "__main__":
    work_through(json.loads(sys.argv[1]))
