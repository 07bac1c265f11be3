"""Programs that a task's metric would execute in this process: they become checks for the sandbox,
and the metric is told how they ended.

Stands in for code_eval of the package `evaluate`, by which lm-evaluation-harness' HumanEval and
MBPP grade. Source: evaluate's code_eval and its execute.py (the test stands behind the candidate,
three seconds each); pass@k is Chen et al. 2021, eq. 1.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.util import LazyLoader, find_spec, module_from_spec
from statistics import fmean
from typing import Any

from evals.records import Program
from evals.stats import pass_at_k

Ask = Callable[[Program], bool]
"""Whether a program passes."""
_asking: list[Ask] = []
_standing_in: list[bool] = []


class CodeEval:
    """The metric. Outside `asked` nothing passes, for nothing is executed: its modules try it when
    they are imported.
    """

    def compute(
        self,
        *,
        references: Sequence[str],
        predictions: Sequence[Sequence[str]],
        k: Sequence[int] = (1, 10, 100),
        num_workers: int = 4,
        timeout: float = 3.0,
    ) -> tuple[dict[str, float], dict[int, list[tuple[int, dict[str, Any]]]]]:
        """pass@k over problems, for each k of which all have so many candidates; and by problem
        how each candidate ended.
        """
        del num_workers
        ended = [
            [_passes(Program(f"{one}\n{test}", wall_s=timeout)) for one in candidates]
            for test, candidates in zip(references, predictions, strict=True)
        ]
        rates = {
            f"pass@{n}": fmean(pass_at_k(len(one), sum(one), n) for one in ended)
            for n in k
            if ended and all(len(one) >= n for one in ended)
        }
        return rates, {
            at: [(number, {"task_id": at, "completion_id": number, "passed": passed,
                           "result": "passed" if passed else "failed"})
                 for number, passed in enumerate(one)]
            for at, one in enumerate(ended)
        }  # fmt: skip


def _passes(program: Program) -> bool:
    return bool(_asking) and _asking[-1](program)


@contextlib.contextmanager
def asked(ask: Ask) -> Iterator[None]:
    """Have the metric learn from `ask` what becomes of a program."""
    _asking.append(ask)
    try:
        yield
    finally:
        _asking.pop()


@contextlib.contextmanager
def in_the_place_of_code_eval() -> Iterator[None]:
    """Whatever loads code_eval meanwhile has ours."""
    _imported_when_used("evaluate").load = _load
    _standing_in.append(True)
    try:
        yield
    finally:
        _standing_in.pop()


def _load(name: str, *args: Any, **more: Any) -> Any:
    """evaluate.load, which is this one from then on."""
    if name == "code_eval" and _standing_in:
        return CodeEval()
    from evaluate.loading import load

    return load(name, *args, **more)


def _imported_when_used(name: str) -> Any:
    """A module that is executed when something of it is first asked for: `evaluate` takes seconds,
    and few tasks ask. As importlib's documentation has it, "Implementing lazy imports".
    """
    if name in sys.modules:
        return sys.modules[name]
    spec = find_spec(name)
    assert spec is not None
    assert spec.loader is not None
    spec.loader = LazyLoader(spec.loader)
    module = sys.modules[name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
