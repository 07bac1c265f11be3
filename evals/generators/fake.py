"""A generator for unit tests only: answers come from a function, and its name says so wherever it
appears.
"""

from collections.abc import Callable, Iterator, Sequence

from evals.generators import Failure
from evals.models.prompts import Rendered
from evals.records import Completion


class FakeGenerator:
    """Answers every request with `answer(request)`, `batch` at a time; counts what it was asked."""

    def __init__(self, answer: Callable[[Rendered], Completion | Failure], batch: int = 7) -> None:
        self.answer = answer
        self.batch = batch
        self.asked: list[Rendered] = []

    def stream(
        self, requests: Sequence[Rendered]
    ) -> Iterator[list[tuple[Rendered, Completion | Failure]]]:
        """See Generator."""
        for start in range(0, len(requests), self.batch):
            part = list(requests[start : start + self.batch])
            self.asked.extend(part)
            yield [(request, self.answer(request)) for request in part]

    def close(self) -> None:
        """Nothing to free."""
