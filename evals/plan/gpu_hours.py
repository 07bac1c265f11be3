"""What a run will take on GPUs, before it is paid for: a roofline over prompt tokens to compute
and tokens to generate, and the start of the engines, which load beside each other.

Prompts are bound by arithmetic, 2 FLOP a parameter and token; decoding by memory, since each step
reads the weights once and the keys and values of every sequence in the batch. The shares of a GPU's
figures that an engine reaches are those of vLLM 0.32 with a dense model of 7.4 billion parameters
on an H200 (results/bench/h200.json); other GPUs are assumed to reach the same. An estimate, good
for deciding between one GPU and eight.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evals.errors import InputError
from evals.plan.work import Work

_COMPUTE_SHARE = 0.6
"""Of the dense bfloat16 peak."""
_MEMORY_SHARE = 0.75
"""Of the memory bandwidth, in decoding."""
_SPLIT_SHARE = 0.8
"""What is left of each GPU when weights are split over several."""
_LOAD_BYTES_S = 1e9
_START_S = 90.0
"""Compiling and capturing graphs, once a start; as measured with an empty compile cache."""
_STEP_S = 4.4e-3
"""The engine's own part of a step, which a model of some hundred million parameters does not get
below.
"""
_BATCH = 256
SHARE = 0.92
"""Of a GPU's memory an engine takes, where --gpu-memory-utilization does not say: vLLM 0.32's own
default, which a run leaves as it is.
"""
_WEIGHTS_ROOM = 0.75
"""Of the GPU's memory: weights that take more leave too little for keys and values."""
_KV_BYTES_8B, _KV_GROWTH = 131_072, 0.4217
"""Keys and values of a token in Llama 3.1 8B, and the power of the size by which 70B has more."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU's data sheet: memory in bytes, memory bandwidth in bytes/s, dense bfloat16 FLOP/s."""

    name: str
    memory: float
    bandwidth: float
    flops: float


GPUS = (
    Gpu("L40S 48 GB", 48e9, 0.864e12, 362e12),
    Gpu("A100 80 GB", 80e9, 2.04e12, 312e12),
    Gpu("H100 80 GB", 80e9, 3.35e12, 989e12),
    Gpu("H200 141 GB", 141e9, 4.8e12, 989e12),
)


@dataclass(frozen=True, slots=True)
class Shape:
    """A dense decoder's size. kv_bytes: keys and values of one token.  vocabulary: 0 where it is
    not known.
    """

    parameters: float
    kv_bytes: float
    vocabulary: int = 0

    @property
    def weight_bytes(self) -> float:
        """In 16 bits a parameter."""
        return 2 * self.parameters


@dataclass(frozen=True, slots=True)
class Estimate:
    """Wall time of copies on n GPUs each, in seconds. holds: whether n hold the weights."""

    gpu: Gpu
    n: int
    load_s: float
    prefill_s: float
    decode_s: float
    holds: bool
    copies: int = 1

    @property
    def gpu_hours(self) -> float:
        """Of all copies."""
        return self.n * self.copies * self.wall_s / 3600

    @property
    def where(self) -> str:
        """The GPUs."""
        each = f", {self.copies} copies" if self.copies > 1 else ""
        return f"{self.n * self.copies} x {self.gpu.name}{each}"

    @property
    def wall_s(self) -> float:
        """From start to last token."""
        return self.load_s + self.prefill_s + self.decode_s

    def text(self) -> str:
        """One line."""
        if not self.holds:
            return f"{self.n} x {self.gpu.name}: no room for the weights"
        return f"{self.where}: about {self.gpu_hours:.2g} GPU-hours, {self.wall_s / 60:.0f} min"


def shape_of(files: Path | None, lora_rank: int = 0) -> Shape | None:
    """The size of the model whose config.json lies in `files`; None where it is not known (no file,
    not a dense decoder).

    lora_rank: that for which the engine keeps room beside every matrix; 0 without an adapter.
    """
    if files is None or not (files / "config.json").is_file():
        return None
    config = json.loads((files / "config.json").read_text("utf-8"))
    inner = config.get("text_config") or config
    # A mixture of experts computes with a part of its weights only.
    if any("expert" in name for name in inner):
        return None
    try:
        return _shape(inner, lora_rank)
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None


def _shape(config: Mapping[str, Any], lora_rank: int) -> Shape:
    hidden, layers, heads = (
        config["hidden_size"],
        config["num_hidden_layers"],
        config["num_attention_heads"],
    )
    kv_heads, head = (
        config.get("num_key_value_heads") or heads,
        config.get("head_dim") or hidden // heads,
    )
    # Queries and output, keys and values; then gate, up and down of the feed-forward part.
    layer = 2 * hidden * head * (heads + kv_heads) + 3 * hidden * config["intermediate_size"]
    vocabulary = config["vocab_size"] * hidden * (1 if config.get("tie_word_embeddings") else 2)
    # Inputs and outputs of the matrices above, each of which gets two of the rank.
    ends = layers * (
        2 * (hidden + heads * head)
        + 2 * (hidden + kv_heads * head)
        + 3 * (hidden + config["intermediate_size"])
    ) + 2 * (config["vocab_size"] + hidden)
    parameters = layers * layer + vocabulary + lora_rank * ends
    # Keys and values, two bytes a number.
    kv_bytes = 2 * 2 * layers * kv_heads * head
    return Shape(float(parameters), float(kv_bytes), config["vocab_size"])


def shape_of_size(size: str) -> Shape:
    """A model of which only the number of parameters is known, as people write it: 70b, 1.5B, 350m.
    Raises InputError for anything else.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([mb])", size.strip().lower())
    if not found or not float(found[1]):
        raise InputError(f"--parameters {size}: write a number of parameters, e.g. 70b or 350m.")
    parameters = float(found[1]) * {"m": 1e6, "b": 1e9}[found[2]]
    return Shape(parameters, _KV_BYTES_8B * (parameters / 8.03e9) ** _KV_GROWTH)


def gpu_named(name: str) -> Gpu | None:
    """The GPU that a driver calls so; None for one whose data sheet is not here."""
    return next((gpu for gpu in GPUS if gpu.name.split()[0] in name), None)


def estimate(shape: Shape, work: Work, gpu: Gpu, n: int | None = None, copies: int = 1) -> Estimate:
    """Time for `work` shared by copies on n GPUs each (None: the smallest power of two that holds
    the weights with room for keys and values).
    """
    n = n or fewest(shape, gpu)
    share = _SPLIT_SHARE if n > 1 else 1.0
    flops, bandwidth = (
        gpu.flops * _COMPUTE_SHARE * share * n,
        gpu.bandwidth * _MEMORY_SHARE * share * n,
    )
    usable = gpu.memory * n * SHARE
    room = max(usable - shape.weight_bytes, shape.kv_bytes * work.held)
    batch = max(1.0, min(_BATCH, room / max(shape.kv_bytes * work.held, 1.0)))
    step_s = max(
        _STEP_S,
        (shape.weight_bytes + batch * work.held * shape.kv_bytes) / bandwidth
        + 2 * shape.parameters * batch / flops,
    )
    return Estimate(
        gpu,
        n,
        load_s=_START_S + shape.weight_bytes / _LOAD_BYTES_S,
        prefill_s=2 * shape.parameters * work.prompt / flops / copies,
        decode_s=work.new / batch * step_s / copies,
        holds=shape.weight_bytes < usable,
        copies=copies,
    )


def fewest(shape: Shape, gpu: Gpu) -> int:
    """GPUs, a power of two, that hold the weights with room for keys and values."""
    n = 1
    while shape.weight_bytes > gpu.memory * n * _WEIGHTS_ROOM:
        n *= 2
    return n
