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
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from scripts.bench_parts import Figures
from scripts.bench_parts.gpu_parts import PARTS, SHAPES, Bench, Part, made

NAME = "gpu.json"
WORKER = ("-m", "scripts.bench_parts.gpu")


# --- time -----------------------------------------------------------------------------------------


def open_parts(kept: Mapping[str, Any]) -> list[Part]:
    """What is to be measured: what was never begun comes before what broke off. What was begun
    twice without a pass does not work here.
    """
    found = [part for part in PARTS if not kept.get(part.name, {}).get("done")]
    found = [part for part in found if kept.get(part.name, {}).get("tries", 0) < 2]
    return sorted(found, key=lambda part: bool(kept.get(part.name, {}).get("tries")))


def next_part(kept: Mapping[str, Any], left_s: float) -> tuple[Part, float] | None:
    """What to measure next, and for how long: each has its share of the time that is left to what
    is not done.
    """
    found = open_parts(kept)
    if not found or left_s <= 0:
        return None
    return found[0], left_s * found[0].share / sum(part.share for part in found)


def passes(most: int, until: float, n_done: int = 0, clock: Any = time.monotonic) -> Iterator[int]:
    """Numbers of the passes that there is time for, after those that are done; the first in any
    case, each further one where the longest before it would end in time.
    """
    longest, begun = 0.0, clock()
    for turn in count(n_done):
        if turn >= most or (turn > n_done and begun + longest > until):
            return
        yield turn
        now = clock()
        longest, begun = max(longest, now - begun), now


def measured(bench: Bench, part: Part, raw: list[Any], until: float) -> Iterator[Figures]:
    """A part's figures after each pass. raw: what the passes before found; theirs joins it."""
    for found in part.each(bench, passes(part.passes, until, len(raw))):
        raw.append(found)
        yield {"rows": part.rows(raw), "raw": raw, "tries": 1}


# --- the process with the engine ------------------------------------------------------------------


def work_through(spec: Mapping[str, Any]) -> None:
    """Measure what is to be measured, and write it, until the time is up."""
    from scripts.bench_parts import Options
    from scripts.bench_parts.__main__ import machine

    out, work, shape = Path(spec["out"]), Path(spec["work"]), SHAPES[spec["shape"]]
    model = made(work / "model", shape, spec["tokenizer"])
    bench = Bench(Path(spec["data"]), work, model, shape)
    start_s = bench.start()
    about = machine(Options(bench.data, work, f"{spec['shape']}'s shape, random weights"))
    while (found := next_part(read(out), spec["end"] - time.monotonic())) is not None:
        part, seconds = found
        before = read(out).get(part.name, {})
        figures = before | {"tries": before.get("tries", 0) + 1}
        write(out, part.name, figures)
        print(f"bench: {part.name}, {seconds:.0f} s", file=sys.stderr, flush=True)
        try:
            for one in measured(bench, part, before.get("raw", []), time.monotonic() + seconds):
                figures = one | {"machine": about, "start_s": start_s}
                write(out, part.name, figures)
            write(out, part.name, figures | {"done": True})
        except ImportError as error:  # which another engine would not mend
            print(f"bench: {part.name}: {error}", file=sys.stderr, flush=True)
            write(out, part.name, figures | {"tries": 2})
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
    """Measure within the budget, in a process of its own that is ended with it. Returns 3 where the
    same command would go on.
    """
    end, out = time.monotonic() + asked.budget, Path(asked.out)
    out.mkdir(parents=True, exist_ok=True)
    while (left_s := end - time.monotonic()) > 0 and open_parts(before := read(out)):
        with TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as work:
            # The clock is the machine's: the process knows by it when this one ends it.
            spec = {"out": str(out), "data": str(Path(asked.data).resolve()), "work": work,
                    "shape": asked.shape, "tokenizer": asked.model, "end": end}  # fmt: skip
            command = [sys.executable, *WORKER, json.dumps(spec)]
            # A group of its own: with it end the engine's processes.
            worker = subprocess.Popen(command, start_new_session=True)
            try:
                if worker.wait(timeout=left_s) == 0:
                    break
                if read(out) == before:
                    return 1  # the engine does not start; why stands above
            except subprocess.TimeoutExpired:
                forgive(out, before)
            finally:
                _end(worker)
    kept = read(out)
    (out / NAME).with_suffix(".md").write_text(f"# scripts/bench --gpu\n\n{page(kept)}\n")
    print(page(kept))
    left = [part.name for part in open_parts(kept)]
    without = [part.name for part in PARTS if not kept.get(part.name, {}).get("done")
               and part.name not in left]  # fmt: skip
    if left:
        print(f"bench: not done: {', '.join(left)}; the same command goes on.", file=sys.stderr)
    if without:
        print(f"bench: does not work here: {', '.join(without)}.", file=sys.stderr)
    return 3 if left else 1 if without else 0


def forgive(out: Path, before: Figures) -> None:
    """What the budget broke off may yet work."""
    for name, one in read(out).items():
        if one != before.get(name) and not one.get("done"):
            write(out, name, one | {"tries": 1})


def _end(worker: "subprocess.Popen[bytes]") -> None:
    import os
    import signal

    with suppress(ProcessLookupError):
        os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()


if __name__ == "__main__":
    work_through(json.loads(sys.argv[1]))
