"""How many copies of a model run, and on which devices each: of those that this process may use."""

import contextlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec

from evals.errors import InputError
from evals.generators import EngineSettings
from evals.generators.checkpoint import prepare_import

_CPU_BIND = "VLLM_CPU_OMP_THREADS_BIND"
_NOT_A_LIST = ("auto", "nobind")


@dataclass(frozen=True, slots=True)
class Places:
    """variable: of the environment, by which an engine is told its devices.  each: what it is told,
    by copy; one empty text where a single engine takes what there is.
    kind: what a device is called.  n_devices: those there are, 0 where that is not known.
    name, memory: of a GPU, and its bytes; "" and 0 where they are not known.
    """

    variable: str
    each: tuple[str, ...]
    kind: str
    n_devices: int
    name: str = ""
    memory: int = 0

    @property
    def is_split(self) -> bool:
        """Whether there is more than one copy."""
        return len(self.each) > 1

    def line(self) -> str:
        """For `--dry-run`, and a run's start."""
        n = f"{len(self.each)} copies" if self.is_split else "1 copy"
        return f"{n} of the model: {self.kind} {' | '.join(self.each)}"


ONE = Places("", ("",), "", 0)


def places(settings: EngineSettings) -> Places:
    """Where the copies that are asked for run; without --data-parallel-size as many as the visible
    GPUs hold. ONE where vLLM is not installed, or splits its engine over machines itself.

    Raises InputError where there are not devices enough.
    """
    if settings.distributed_executor_backend == "ray":
        if (settings.data_parallel_size or 1) > 1:
            raise InputError(
                "--data-parallel-size with Ray: copies that Ray places are servers' (vllm serve"
                " MODEL --data-parallel-size N --data-parallel-backend ray); evaluate"
                " openai:NAME@URL."
            )
        if find_spec("ray") is None:
            raise InputError(
                "--distributed-executor-backend ray needs Ray, which is not installed: pip install"
                " ray here and on every node, and ray start there."
            )
        return ONE
    prepare_import(settings)
    try:
        from vllm.platforms import current_platform
    except ImportError:
        return ONE
    if current_platform.is_cpu():
        return on_cores(settings, sorted(os.sched_getaffinity(0)), os.environ.get(_CPU_BIND, ""))
    if current_platform.is_unspecified():
        # vLLM for GPUs on a machine that has none, where a run may still be planned; an engine is
        # refused there.
        return on_gpus(settings, [], "")
    variable = current_platform.device_control_env_var
    # An empty list hides every device; vLLM itself takes it for none that was set.
    listed = [one.strip() for one in os.environ.get(variable, "").split(",") if one.strip()]
    # Where there is no GPU a run may still be planned; what the driver does not say is not known.
    with contextlib.suppress(NotImplementedError, AttributeError, RuntimeError, ValueError):
        visible = listed or list(map(str, range(current_platform.device_count())))
        found = on_gpus(settings, visible, variable)
        if not visible:
            return found
        # By the driver's library: nothing is begun on the GPU by this process.
        return replace(
            found,
            name=current_platform.get_device_name(),
            memory=current_platform.get_device_total_memory(),
        )
    return on_gpus(settings, listed, variable)


def own_batch(settings: EngineSettings) -> tuple[int, int]:
    """Sequences and tokens that vLLM itself takes at a time for a copy on this machine."""
    from vllm.engine.arg_utils import EngineArgs
    from vllm.usage.usage_lib import UsageContext

    tokens, sequences = EngineArgs.get_batch_defaults(devices_of_a_copy(settings))
    return sequences[UsageContext.LLM_CLASS], tokens[UsageContext.LLM_CLASS]


def on_gpus(settings: EngineSettings, visible: Sequence[str], variable: str) -> Places:
    """The visible GPUs, by number or name, dealt out in their order. See places."""
    per_copy = devices_of_a_copy(settings)
    n = settings.data_parallel_size or max(1, len(visible) // per_copy)
    if not visible:
        return Places(variable, ("",) * n, "GPU", 0)
    if n * per_copy > len(visible):
        raise InputError(
            f"{_asked(settings)} needs {n * per_copy} GPUs; visible are {len(visible)}"
            f" ({variable}={','.join(visible)}). Ask fewer, or make more visible."
        )
    dealt = [",".join(visible[i * per_copy : (i + 1) * per_copy]) for i in range(n)]
    return Places(variable, tuple(dealt), "GPU", len(visible))


def on_cores(settings: EngineSettings, cores: Sequence[int], bound: str) -> Places:
    """A CPU's cores, split evenly; or the parts that vLLM's variable (bound) names, with | between
    them, a part a worker. See places.
    """
    n, per_copy = settings.data_parallel_size or 1, devices_of_a_copy(settings)
    if n == 1:
        return Places(_CPU_BIND, ("",), "core", len(cores))
    if bound == "nobind":
        return Places(_CPU_BIND, ("nobind",) * n, "core", len(cores))
    n_parts = n * per_copy
    if bound and bound not in _NOT_A_LIST:
        parts = bound.split("|")
        if len(parts) != n_parts:
            raise InputError(
                f"{_asked(settings)} needs {n_parts} parts in {_CPU_BIND}={bound}, with | between"
                f" them; there are {len(parts)}."
            )
    elif n_parts > len(cores):
        raise InputError(
            f"{_asked(settings)} needs {n_parts} cores on a CPU; this process may use {len(cores)}."
            f" Ask fewer, or let them share: {_CPU_BIND}=nobind."
        )
    else:
        at = [len(cores) * i // n_parts for i in range(n_parts + 1)]
        parts = [",".join(map(str, cores[at[i] : at[i + 1]])) for i in range(n_parts)]
    dealt = ["|".join(parts[i * per_copy : (i + 1) * per_copy]) for i in range(n)]
    return Places(_CPU_BIND, tuple(dealt), "core", len(cores))


def threads(place: str) -> dict[str, str]:
    """Variables by which a copy's process keeps to these cores of a CPU: vLLM itself binds only the
    processes that it starts, and a copy that computes in its own would take a thread for each of
    the machine's cores. Nothing for cores that are not named, which is vLLM's to refuse.
    """
    cores = set[int]()
    for part in place.replace("|", ",").split(","):
        named = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        if named is None:
            return {}
        cores.update(range(int(named[1]), int(named[2] or named[1]) + 1))
    one_place = ",".join(map(str, sorted(cores)))
    return {
        "OMP_NUM_THREADS": str(len(cores)),
        "OMP_PLACES": f"{{{one_place}}}",
        "OMP_PROC_BIND": "true",
    }


def devices_of_a_copy(settings: EngineSettings) -> int:
    """Over how many one copy is split."""
    return (settings.tensor_parallel_size or 1) * (settings.pipeline_parallel_size or 1)


def _asked(settings: EngineSettings) -> str:
    names = ("data_parallel_size", "tensor_parallel_size", "pipeline_parallel_size")
    given = [(name, value) for name in names if (value := getattr(settings, name)) is not None]
    return " ".join(f"--{name.replace('_', '-')} {value}" for name, value in given)
