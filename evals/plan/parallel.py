"""On which GPUs a model will run, and whether they can hold it, before anything is loaded."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from evals.errors import InputError
from evals.generators import EngineSettings
from evals.generators.placing import ONE, Places, devices_of_a_copy, places
from evals.models.adapters import vllm_rank
from evals.models.resolve import Model, model_json
from evals.plan.gpu_hours import SHARE, Estimate, Shape, estimate, gpu_named, shape_of
from evals.plan.work import Work

_FLOAT32 = ("float32", "float")
_LEAST_OF_QUANTIZED = 4
"""A quantization made while loading leaves of 16 bits a weight at least 4."""
_WEIGHTS_ROOM = 0.8
"""Of that, weights that take more leave too little for keys and values to advise it."""
_BESIDE, ACTIVATIONS = 9e9, 3e9
"""What an engine that shares a GPU needs beside its weights, and what of a GPU is neither weights
nor cache."""
_GB = 1e9


def placed(model: Model, settings: EngineSettings) -> Places:
    """Where the model's copies run; ONE where somebody else runs it.

    Raises InputError where there are not devices enough, or not the memory for the weights.
    """
    if model.kind != "weights":
        return ONE
    where = places(settings)
    if where.memory and model.files is not None:
        weights = bytes_in_memory(model.files, settings.dtype, settings.quantization)
        check_memory(model.argument, weights, settings, where)
    return where


def for_judge(model: Model, settings: EngineSettings) -> EngineSettings:
    """The engine's settings for a judge: one that fits a GPU runs as copies on all that the
    evaluated model may use, over however many that one is split.
    """
    if model.kind != "weights" or model.files is None or devices_of_a_copy(settings) == 1:
        return settings
    try:
        where = places(settings)
    except InputError:
        return settings  # the run is refused for it
    weights = bytes_in_memory(model.files, settings.dtype, settings.quantization)
    return unsplit(weights, settings, where)


def unsplit(weights: int, settings: EngineSettings, where: Places) -> EngineSettings:
    """The settings for a model of so many bytes on the same GPUs, see for_judge; unchanged where
    its size or theirs is not known.
    """
    room = where.memory * (settings.gpu_memory_utilization or SHARE) * _WEIGHTS_ROOM
    if not 0 < weights < room:
        return settings
    n = len(where.each) * devices_of_a_copy(settings)
    return replace(
        settings, tensor_parallel_size=None, pipeline_parallel_size=None, data_parallel_size=n
    )


def side_by_side(
    weights: Sequence[int], settings: EngineSettings, where: Places
) -> list[tuple[Places, EngineSettings]]:
    """Where models of so many bytes are loaded at the same time, and how: as many of the first as
    can be, nothing where that is one. On several GPUs each has its own; on a single one each has a
    part of the memory.

    On a CPU none are: its cores are the same for all, and an engine in this process loads in a
    quarter of the time that one in its own takes.
    """
    devices = [device for each in where.each for device in each.split(",") if device]
    room = where.memory * (settings.gpu_memory_utilization or SHARE)
    if where.kind != "GPU" or not devices or not where.memory:
        return []
    if len(devices) > 1:
        fit = [0 < one < room * _WEIGHTS_ROOM for one in weights[: len(devices)]]
        n = fit.index(False) if False in fit else len(fit)
        return [] if n < 2 else [
            _alone(settings, where, devices[i * len(devices) // n : (i + 1) * len(devices) // n])
            for i in range(n)
        ]  # fmt: skip
    for n in range(len(weights), 1, -1):
        left = (room - sum(weights[:n])) / n
        if min(weights) > 0 and left >= _BESIDE:
            return [_part(settings, where, one + left, left - ACTIVATIONS) for one in weights[:n]]
    return []


def _alone(
    settings: EngineSettings, where: Places, devices: Sequence[str]
) -> tuple[Places, EngineSettings]:
    """A copy on each of these devices."""
    own = replace(
        settings,
        tensor_parallel_size=None,
        pipeline_parallel_size=None,
        data_parallel_size=len(devices),
    )
    return replace(where, each=tuple(devices)), own


def _part(
    settings: EngineSettings, where: Places, memory: float, cache: float
) -> tuple[Places, EngineSettings]:
    """An engine with so many bytes of the single GPU, of which so many for keys and values: said,
    since what it would find free while another loads beside it would mean nothing.
    """
    more = json.loads(settings.engine_args or "{}") | {"kv_cache_memory_bytes": int(cache)}
    own = replace(
        settings,
        gpu_memory_utilization=memory / where.memory,
        engine_args=json.dumps(more, sort_keys=True),
    )
    return where, own


def split_of(settings: EngineSettings, where: Places) -> tuple[int | None, int]:
    """GPUs of a copy, None where nobody says, and copies."""
    sizes = (settings.tensor_parallel_size, settings.pipeline_parallel_size)
    each = (sizes[0] or 1) * (sizes[1] or 1) if any(sizes) else None
    return each, settings.data_parallel_size or len(where.each)


def shape_for(model: Model) -> Shape | None:
    """Its size, with the room that its adapter takes; None where it is not known."""
    return shape_of(model.files, vllm_rank(model.adapter.rank) if model.adapter else 0)


def expected(model: Model, settings: EngineSettings, where: Places, work: Work) -> Estimate | None:
    """What the work will take on this machine; None where its GPU, or the model's size, is
    not known.
    """
    gpu = gpu_named(where.name)
    shape = shape_for(model) if gpu else None
    if gpu is None or shape is None:
        return None
    n, copies = split_of(settings, where)
    return estimate(shape, work, gpu, n or 1, copies)


def check_memory(name: str, weights: int, settings: EngineSettings, where: Places) -> None:
    """Raise InputError where a copy's GPUs cannot hold the weights, in bytes; with the split that
    can.
    """
    tensor, stages = settings.tensor_parallel_size or 1, settings.pipeline_parallel_size or 1
    room = where.memory * (settings.gpu_memory_utilization or SHARE)
    if weights < room * tensor * stages:
        return
    needed = tensor
    while weights > room * _WEIGHTS_ROOM * needed * stages:
        needed *= 2
    each = needed * stages
    way_out = f"Give --tensor-parallel-size {needed}"
    if each > where.n_devices:
        way_out = f"It needs {each} such GPUs, and {where.n_devices} are visible: take more nodes"
    raise InputError(
        f"The weights of {name} take {weights / _GB:,.0f} GB, and an engine has"
        f" {room * tensor * stages / _GB:,.0f} GB on {tensor * stages} x {where.name or 'GPU'}."
        f" {way_out}, or a --quantization."
    )


def bytes_in_memory(folder: Path, dtype: str, quantization: str | None) -> int:
    """What the weights of a folder take at least, loaded in this precision: by an index, which may
    be there without them, or the files' sizes; 0 where neither is there.
    """
    sizes = [_indexed(file) for file in sorted(folder.glob("*.safetensors.index.json"))]
    for pattern in ("*.safetensors", "*.bin"):
        files = [file for file in folder.glob(pattern) if not file.name.startswith("adapter_")]
        sizes.append(sum(file.stat().st_size for file in files))
    stored = min(filter(None, sizes), default=0)
    if not stored:
        return 0
    config = model_json(folder / "config.json")
    if (config.get("dtype") or config.get("torch_dtype")) == "float32" and dtype not in _FLOAT32:
        stored //= 2
    return stored // _LEAST_OF_QUANTIZED if quantization else stored


def _indexed(index: Path) -> int:
    metadata = model_json(index).get("metadata")
    size = metadata.get("total_size") if isinstance(metadata, dict) else None
    return int(size) if isinstance(size, int | float) else 0
