"""What vLLM is told so that it serves LoRA adapters, and what its workers are asked about them."""

from typing import Any

from evals.models.adapters import vllm_rank


def lora_arguments(rank: int) -> dict[str, Any]:
    """The engine's, for adapters of at most this rank, one at a time: a place for more would take
    memory from the cache, and a request waits for no other adapter's.
    """
    return {
        "enable_lora": True,
        "max_loras": 1,
        "max_lora_rank": vllm_rank(rank),
        "worker_extension_cls": f"{LoraWorker.__module__}.{LoraWorker.__qualname__}",
    }


class LoraWorker:
    """Mixed into vLLM's workers, wherever they run."""

    model_runner: Any

    def modules_without_effect(self, adapter: int) -> list[str]:
        """The adapter's matrices that no module of this worker's takes: vLLM is silent of them.
        Those of experts have names of their own, and are not told.
        """
        manager = self.model_runner.lora_manager._adapter_manager
        held = manager.get_adapter(adapter).loras
        return sorted(name for name in held if name not in manager.modules and "expert" not in name)
