"""The contract between a benchmark and the engine.

A benchmark is data and pure functions: no I/O beyond the rows it is handed, no clock, no
randomness, no engine. What it needs from the world it declares (a request, a check); the result
comes back as an argument.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar

from evals.data.dataset import Dataset, Source
from evals.records import Check, Column, Completion, Findings, Grade, Item, Metric, Request

ItemT = TypeVar("ItemT", bound=Item)


class Benchmark(ABC, Generic[ItemT]):
    """One benchmark under one prompt style.

    chat: True when prompts are rendered by a chat format, False for base models (raw text).
    A subclass is one file in tasks/ and one line in evals/registry.py.
    """

    name: ClassVar[str]
    columns: ClassVar[tuple[Column, ...]]
    dataset: ClassVar[Dataset]
    judge_roles: ClassVar[tuple[str, ...]] = ()
    """Roles that decide this benchmark's columns; without them its cells are `-`."""
    rules: ClassVar[Mapping[str, Callable[[str], str]]] = {}
    """Judges that are a rule, not a model: name -> function from the answer's text to the label."""
    runs_on_base: ClassVar[bool] = True
    """False where the card has no cell for base models (AlpacaEval)."""

    runs_programs: ClassVar[bool] = False
    """True where `checks` gives programs: the sandbox is then ready before the model is asked."""

    def __init__(self, *, chat: bool) -> None:
        self.chat = chat

    @abstractmethod
    def items(self, source: Source) -> Iterable[ItemT]:
        """All items in the public file's order; a benchmark of very many yields them."""

    def card_subset(self, items: Sequence[ItemT]) -> Sequence[ItemT]:
        """The items the card used, in its order; all of them unless the protocol draws some."""
        return items

    @abstractmethod
    def request(self, item: ItemT) -> Request:
        """What to ask the model."""

    def checks(self, item: ItemT, answer: Completion) -> Sequence[Check]:
        """What judges or the sandbox must decide about the answer."""
        return ()

    @abstractmethod
    def grade(self, item: ItemT, answer: Completion, findings: Findings) -> Grade:
        """The item's score; pure."""

    @abstractmethod
    def summarize(self, grades: Sequence[Grade]) -> Mapping[str, Metric]:
        """Metrics by name; a metric named like a column's key is that cell."""

    def replicates(self, grades: Sequence[Grade]) -> Mapping[str, Sequence[float]]:
        """Bootstrap values, by key, of the columns that are no mean of their items' scores; equal
        items are drawn equally for every run.

        Two runs are compared by the spread of their replicates' differences.  A column listed here
        has the estimator "bootstrap".
        """
        return {}

    def gold(self, item: ItemT) -> str:
        """The reference answer as `evals show` prints it ("" where there is none)."""
        return ""


def roles_of_column(benchmark: Benchmark[Any] | type[Benchmark[Any]], column: str) -> Sequence[str]:
    """The judge roles that decide a column: the role it is named after (alpaca_eval_2_lc:
    alpaca_eval_2), else all of them.
    """
    # "_" behind both: a column alpaca_eval_10 would not be alpaca_eval_1's.
    named = [role for role in benchmark.judge_roles if f"{column}_".startswith(f"{role}_")]
    return named or benchmark.judge_roles
