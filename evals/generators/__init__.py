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
from evals.storage.files import json_line


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


MOST_BYTES = 7 << 20
"""Of all texts of one answer, in JSON: a thousand times the longest that a protocol asks for. What
is read out of it, and what two judges say of it, may be as long: all that is still a line that is
read back (MAX_LINE of evals.storage.files).
"""
_MOST_OF_A_CHARACTER = 6


def texts_of(answer: Completion) -> list[str]:
    """What it holds for people: its outputs, and the reasoning before them."""
    return [text for one in answer.outputs for text in (one.reasoning, one.text) if text]


def n_bytes(texts: Sequence[str]) -> int:
    """How many bytes the texts take in a line of JSON; where that is surely not too many, at
    least.
    """
    n = sum(map(len, texts))
    if n * _MOST_OF_A_CHARACTER <= MOST_BYTES:
        return n
    return sum(len(json_line(text).encode()) for text in texts)


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
