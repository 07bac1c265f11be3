"""What is said of an error of the engine: that the same command goes on only where it does."""

from collections.abc import Callable

import pytest

from evals.errors import EnvironmentFault, EvalsError, InputError
from evals.generators.engine_errors import answering_error, load_error


def torch_out_of_memory() -> Exception:
    import torch

    return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def dead() -> Exception:
    from vllm.v1.engine.exceptions import EngineDeadError

    return EngineDeadError()


def refused_request() -> Exception:
    from vllm.exceptions import VLLMValidationError

    return VLLMValidationError("The decoder prompt is too long", parameter="prompt")


def too_long() -> Exception:
    return ValueError("The decoder prompt (length 1300) is longer than the maximum model length")


def no_cache() -> Exception:
    return ValueError(
        "To serve at least one request with the model's max seq len (131072), (16 GiB KV cache is"
        " needed, which is larger than the available KV cache memory (3 GiB)."
    )


def lacks_weights() -> Exception:
    return ValueError("Following weights were not initialized from checkpoint: {'lm_head.weight'}")


def no_download() -> Exception:
    return ConnectionResetError("Connection reset by peer")


def kernel() -> Exception:
    return RuntimeError("CUDA error: an illegal memory access was encountered")


Make = Callable[[], Exception]
LOAD: list[tuple[Make, type[EvalsError], str, bool]] = [
    (no_cache, EnvironmentFault, "a smaller --max-model-len", False),
    (torch_out_of_memory, EnvironmentFault, "does not fit this machine", False),
    (MemoryError, EnvironmentFault, "does not fit this machine: MemoryError", False),
    (lacks_weights, InputError, "vLLM cannot load out/m: Following weights", False),
    (lambda: NotImplementedError("Unsupported"), InputError, "cannot load out/m: Unsup", False),
    (no_download, EnvironmentFault, "did not come: Connection reset", True),
]
ANSWERING: list[tuple[Make, type[EvalsError], str, bool]] = [
    (dead, EnvironmentFault, "its process ended. Nothing is lost", True),
    (lambda: RuntimeError("its process ended"), EnvironmentFault, "Nothing is lost", True),
    (torch_out_of_memory, EnvironmentFault, "--max-num-seqs", False),
    (lambda: RuntimeError("HIP out of memory."), EnvironmentFault, "--max-num-seqs", False),
    (refused_request, InputError, "The decoder prompt is too long", False),
    (too_long, InputError, "longer than the maximum model length", False),
    (lambda: KeyError("lm_head"), InputError, "would be asked the same again", False),
    (kernel, EnvironmentFault, "The engine failed: CUDA error", False),
]


@pytest.mark.parametrize(("make", "raised", "says", "goes_on"), LOAD)
def test_at_load(make: Make, raised: type[EvalsError], says: str, goes_on: bool) -> None:
    held(load_error("out/m", make()), raised, says, goes_on)


@pytest.mark.parametrize(("make", "raised", "says", "goes_on"), ANSWERING)
def test_while_answering(make: Make, raised: type[EvalsError], says: str, goes_on: bool) -> None:
    held(answering_error(make()), raised, says, goes_on)


def held(found: EvalsError, raised: type[EvalsError], says: str, goes_on: bool) -> None:
    assert type(found) is raised
    assert found.exit_code == (2 if raised is InputError else 4)
    assert says in str(found)
    assert ("same command goes on" in str(found)) == goes_on
    assert "\n" not in str(found)
