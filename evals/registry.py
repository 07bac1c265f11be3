"""Benchmark names and where they live; one line each, in the card's column order."""

from importlib import import_module
from typing import Any

from evals.benchmark import Benchmark
from evals.errors import InputError, nearest

# As texts: whoever lists the names imports no benchmark.
BENCHMARKS = {
    "mmlu": "tasks.mmlu:MMLU",
    "gsm8k": "tasks.gsm8k:GSM8K",
    "bbh": "tasks.bbh:BBH",
    "humaneval": "tasks.humaneval:HumanEval",
    "alpaca_eval": "tasks.alpaca_eval:AlpacaEval",
    "truthfulqa": "tasks.truthfulqa:TruthfulQA",
    "ifeval": "tasks.ifeval:IFEval",
    "xstest": "tasks.xstest:XSTest",
}


def benchmark_class(name: str) -> type[Benchmark[Any]]:
    """The benchmark registered under `name`. Raises InputError with the nearest names when there is
    none.
    """
    try:
        module, _, cls = BENCHMARKS[name].partition(":")
    except KeyError:
        raise InputError(f"Unknown task {name!r}. {nearest(name, BENCHMARKS)}") from None
    found: type[Benchmark[Any]] = getattr(import_module(module), cls)
    return found
