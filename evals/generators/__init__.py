"""Generators: whatever answers requests. In-process vLLM, OpenAI-compatible servers, recorded
outputs.

The seam where the outside world enters: one method that streams answers back as they finish.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Protocol

from evals.models.prompts import Rendered
from evals.records import Completion


@dataclass(frozen=True, slots=True)
class Failure:
    """A request that got no answer, and why. It keeps its place in every count and is asked again
    next time.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """Settings handed through to the engine; None leaves the engine's own default.

    engine_args: more of them by vLLM's own names, a JSON object or "" (see engine_args.py).

    Those that change the numbers (dtype, quantization) are part of the model's fingerprint; the
    others never are.
    """

    tensor_parallel_size: int | None = None
    pipeline_parallel_size: int | None = None
    data_parallel_size: int | None = None
    dtype: str = "auto"
    max_model_len: int | None = None
    gpu_memory_utilization: float | None = None
    quantization: str | None = None
    max_num_seqs: int | None = None
    enforce_eager: bool | None = None
    distributed_executor_backend: str | None = None
    seed: int = 0
    trust_remote_code: bool = False
    batch_invariant: bool = False
    engine_args: str = ""

    def arguments(self) -> dict[str, Any]:
        """As vLLM's engine takes them."""
        given = {name: value for name, value in asdict(self).items() if value is not None}
        del given["batch_invariant"]  # a variable of the environment
        given.pop("data_parallel_size", None)  # copies are engines of their own
        more: dict[str, Any] = json.loads(given.pop("engine_args") or "{}")
        return given | more


MOST_CHARACTERS = 4 << 20
"""Of all texts of one answer: a thousand times the longest that a protocol asks for, and with each
character escaped still a line that is read back.
"""


def n_characters(answer: Completion) -> int:
    """Of all its texts."""
    return sum(len(output.text) for output in answer.outputs)


class Text(NamedTuple):
    """A text that an engine writes, of a request that is not answered yet.

    is_over: it is finished; the request asks for several.
    """

    kind: str
    n_tokens: int
    is_over: bool = False


class Moved(list[tuple[Rendered, Completion | Failure]]):
    """No answers, but a sign of life. texts: how many there are of each."""

    def __init__(self, texts: Mapping[Text, int]) -> None:
        super().__init__()
        self.texts = texts


class Generator(Protocol):
    """Answers requests in whatever order they finish."""

    def stream(
        self, requests: Sequence[Rendered]
    ) -> Iterator[list[tuple[Rendered, Completion | Failure]]]:
        """Yield the answers that finished since the last yield, now and then a Moved; each request
        is answered exactly once.
        """

    def close(self) -> None:
        """Free the engine."""
