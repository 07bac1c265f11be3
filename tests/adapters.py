"""LoRA folders as peft writes them, built for a test."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

CONFIG: Mapping[str, Any] = {
    "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": "me/base",
    "r": 4, "lora_alpha": 12, "target_modules": ["q_proj"], "bias": "none", "lora_dropout": 0.05,
    "use_rslora": False, "use_dora": False, "init_lora_weights": True, "modules_to_save": None,
    "rank_pattern": {}, "alpha_pattern": {}, "inference_mode": True, "revision": None,
    "fan_in_fan_out": False, "layers_to_transform": None, "loftq_config": {},
    "qalora_group_size": 16, "megatron_core": "megatron.core", "peft_version": "0.18.0",
}  # fmt: skip


def random_pair(
    module: str, shape: tuple[int, int], rank: int, random: np.random.Generator, size: float = 0.1
) -> dict[str, np.ndarray[Any, Any]]:
    """The two matrices of a module whose weight has this shape."""
    name = f"base_model.model.{module}"
    return {
        f"{name}.lora_A.weight": _normal(random, (rank, shape[1]), size),
        f"{name}.lora_B.weight": _normal(random, (shape[0], rank), size),
    }


def _normal(
    random: np.random.Generator, shape: tuple[int, ...], size: float
) -> np.ndarray[Any, Any]:
    return (random.standard_normal(shape) * size).astype(np.float32)


def write_adapter(folder: Path, tensors: Mapping[str, np.ndarray[Any, Any]], **config: Any) -> Path:
    """A folder with these matrices and this config, over the one above, which names their
    modules.
    """
    folder.mkdir(parents=True, exist_ok=True)
    save_file(dict(tensors), folder / "adapter_model.safetensors")
    named = {"target_modules": sorted({name.split(".lora_")[0].split(".")[-1] for name in tensors})}
    (folder / "adapter_config.json").write_text(json.dumps({**CONFIG, **named, **config}))
    return folder


def merge(weights: Path, adapter: Path, scale: Callable[[str], float]) -> dict[str, Any]:
    """W + scale·B·A for every module of the adapter, in float32: what peft's merge computes."""
    from safetensors.torch import load_file

    merged = {name: weight.float() for name, weight in load_file(weights).items()}
    matrices = load_file(adapter / "adapter_model.safetensors")
    for name, weight in merged.items():
        module = name.removesuffix(".weight")
        key = f"base_model.model.{module}.lora_"
        if f"{key}A.weight" in matrices:
            change = matrices[f"{key}B.weight"] @ matrices[f"{key}A.weight"]
            merged[name] = weight + scale(module) * change
    return merged
