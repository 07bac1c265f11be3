"""The contract between a benchmark and the engine.

A benchmark is data and pure functions: no I/O beyond the rows it is handed, no clock, no
randomness, no engine. What it needs from the world it declares (a request, a check); the result
comes back as an argument.
"""

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, ClassVar, Generic, TypeVar

from evals.data.dataset import Dataset, Source
from evals.records import (
    Check,
    Column,
    Completion,
    Findings,
    Grade,
    Item,
    ItemId,
    Json,
    Measure,
    Metric,
    Request,
)

ItemT = TypeVar("ItemT", bound=Item)
ANY_NUMBER = range(1, 1_000_000)


@dataclass(frozen=True)
class NoSettings:
    """The settings of a benchmark that has none."""


def setting(default: Json, words: str, *may: object, chat: Sequence[object] = ()) -> Any:
    """A field of a benchmark's settings. default: the protocol's.  words: what it is.  may: the
    values that may be set, texts, numbers, ranges of whole numbers, a pair for what lies between
    them, or `str` for any text.  chat: those under which only a chat can be asked, no base model.
    """
    return field(default=default, metadata={"words": words, "may": may, "chat": chat})


class Benchmark(ABC, Generic[ItemT]):
    """One benchmark under one prompt style.

    chat: True when prompts are rendered by a chat format, False for base models (raw text).
    settings: an instance of `Settings`; None: the protocol's.  columns: those of a card that it
    fills; None: one for each headline
    metric.
    name: the class's own; with other settings than the protocol's they are part of it, and of the
    items' ids, so that two variants stand side by side.
    A subclass is one file in tasks/ and one line in evals/registry.py.
    """

    name: str
    metrics: ClassVar[tuple[Measure, ...]]
    """What it can measure; each is in `summarize`, under its name."""
    Settings: ClassVar[type[Any]] = NoSettings
    """A frozen dataclass of `setting`s whose defaults are the protocol."""
    dataset: ClassVar[Dataset]
    judge_roles: ClassVar[tuple[str, ...]] = ()
    """Roles that decide this benchmark's columns; without them its cells are `-`."""
    rules: ClassVar[Mapping[str, Callable[[str], str]]] = {}
    """Judges that are a rule, not a model: name -> function from the answer's text to the label."""
    runs_on_base: ClassVar[bool] = True
    """False where the card has no cell for base models (AlpacaEval)."""

    headline: ClassVar[tuple[str, ...]] = ()
    """The metrics that stand for the benchmark where no card says which; an item has one of them as
    its `score` in samples. Default: the first.
    """

    finer: ClassVar[Mapping[str, str]] = {}
    """By metric, what `finer_scores` gives of it, in words after a column's heading."""

    items_of: ClassVar[Mapping[str, int]] = {}
    """By metric, how many of the public file's items it is of, where that is not all of them."""

    runs_programs: ClassVar[bool] = False
    """True where `checks` gives programs: the sandbox is then ready before the model is asked."""

    parts: ClassVar[str] = "parts"
    """What its items' groups are, in words."""
    usual_tokens: ClassVar[int] = 0
    """Of an output, about: the middle of the instruct models whose recorded outputs this project
    replays (UTF-8 bytes / 4.2). A small or broken model writes on until the limit, which stands
    where nothing is known (0).
    """
    labels: ClassVar[Mapping[str, Mapping[str, float]]] = {}
    """By judge role, what people may say in its place, 0 to 1; see `labelled`."""

    judge_prompts: ClassVar[Mapping[str, Sequence[str]]] = {}
    """Prompts by which a role's judge may be asked in place of the card's: their names, by role."""
    prompts: Mapping[str, str] = {}
    """Those in use; a role that is not there has the card's."""

    def __init__(
        self, *, chat: bool, settings: Any = None, columns: tuple[Column, ...] | None = None
    ) -> None:
        self.chat = chat
        self.settings = self.Settings() if settings is None else settings
        self.name = variant_name(type(self), self.settings)
        self.columns = self.own_columns() if columns is None else columns

    @classmethod
    def own_columns(cls) -> tuple[Column, ...]:
        """A column for each headline metric, for who asks it without a card."""
        return tuple(
            Column(one.name, one.name, one.lower_is_better, cls.name, one.name)
            for one in cls.metrics
            if one.name in (cls.headline or (cls.metrics[0].name,))
        )

    def take_prompts(self, prompts: Mapping[str, str]) -> None:
        """Ask the judges of these roles by these prompts, and read them so. Raises LookupError
        where a role has none of that name.
        """
        for role, name in prompts.items():
            known = self.judge_prompts.get(role, ())
            if name not in known:
                listed = f"It has: {', '.join(known)}." if known else "It has the card's only."
                raise LookupError(f"{role} has no judge's prompt called {name!r}. {listed}")
        self.prompts = dict(prompts)

    def prompts_model(self, role: str) -> str:
        """The model that the prompt in use for a role was made for, "" where it names none."""
        return ""

    @abstractmethod
    def items(self, source: Source) -> Iterable[ItemT]:
        """All items in the public file's order; a benchmark of very many yields them."""

    def lacks(self) -> Sequence[str]:
        """Columns that its data cannot give although their judges can be asked, a sentence each:
        the judge's role, what is missing, and how it comes. Known once `items` were read.
        """
        return ()

    def named_items(self, source: Source) -> Iterator[ItemT]:
        """The items under ids that begin with this variant's name."""
        own = f"{type(self).name}/"
        for item in self.items(source):
            if self.name != type(self).name:
                item = replace(item, id=ItemId(f"{self.name}/{item.id.removeprefix(own)}"))
            yield item

    def drawn(self, items: Sequence[ItemT]) -> Sequence[ItemT]:
        """The items that the protocol takes, in its order; all of them unless it draws some."""
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
        """Metrics by name, those of `metrics` and any others."""

    def row_scores(self, row: Mapping[str, Any]) -> Mapping[str, float | None]:
        """The scores of one line of samples, by metric."""
        scores = row.get("scores")
        if scores is None:
            return {self.metrics[0].name: row["score"]}
        return {
            one.name: scores[role]
            for one in self.metrics
            for role in scores
            if f"{one.name}_".startswith(f"{role}_")
        }

    def column_scores(self, row: Mapping[str, Any]) -> dict[str, float | None]:
        """The same by the key of the column; None where a verdict could not be read. Raises
        KeyError where the line has no score.
        """
        scores = self.row_scores(row)
        found = {one.key: scores[one.metric] for one in self.columns if one.metric in scores}
        return {key: None if score is None else float(score) for key, score in found.items()}

    def replicates(self, grades: Sequence[Grade]) -> Mapping[str, Sequence[float]]:
        """Bootstrap values of the metrics that are no mean of their items' scores, by name; equal
        items are drawn equally for every run.

        Two runs are compared by the spread of their replicates' differences.  A metric listed here
        has the estimator "bootstrap".
        """
        return {}

    def finer_scores(
        self, item: ItemT, answer: Completion, findings: Findings
    ) -> Mapping[str, float]:
        """By metric, a score in [0, 1] of what a model, or its judge, was about to answer: two
        models whose scores are equal may differ in it. A metric of `finer` is left out where the
        answer lacks what it takes.
        """
        return {}

    def labelled(self, role: str, value: float, row: Mapping[str, Any]) -> tuple[str, float]:
        """The metric that a person's label of a line of samples is of, and its score there."""
        return next(one.name for one in self.metrics if role in roles_of(self, one.name)), value

    def notes(self) -> Sequence[str]:
        """What its cells say of how it was asked, where its name and settings do not."""
        return ()

    def gold(self, item: ItemT) -> str:
        """The reference answer as `evals show` prints it ("" where there is none)."""
        return ""


def roles_of(benchmark: Benchmark[Any] | type[Benchmark[Any]], metric: str) -> Sequence[str]:
    """The judge roles that decide a metric: the role it is named after (alpaca_eval_2_lc:
    alpaca_eval_2), else all of them.
    """
    # "_" behind both: a metric alpaca_eval_10 would not be alpaca_eval_1's.
    named = [role for role in benchmark.judge_roles if f"{metric}_".startswith(f"{role}_")]
    return named or benchmark.judge_roles


def roles_needed(
    benchmark: Benchmark[Any] | type[Benchmark[Any]], columns: Sequence[Column]
) -> tuple[str, ...]:
    """The judge roles that decide these columns; of several variants each has its own."""
    needed = {role for one in columns for role in roles_of(benchmark, one.metric)}
    return tuple(role for role in benchmark.judge_roles if role in needed)


def unusable(cls: type[Benchmark[Any]]) -> str:
    """What a class lacks of what the engine reads before anything is asked; "" where it has all."""
    if lacking := sorted(getattr(cls, "__abstractmethods__", ())):
        return f"it has no {' and no '.join(lacking)}"
    name, metrics = getattr(cls, "name", None), getattr(cls, "metrics", None)
    if not isinstance(name, str) or not re.fullmatch(r"[a-z]\w{,59}", name, re.ASCII):
        may = "take 60 small letters, digits and _ at most, the first a letter"
        return f"its name is {str(name)[:80]!r}; {may}"
    measures = metrics if isinstance(metrics, tuple) else ()
    if not measures or any(not isinstance(one, Measure) for one in measures):
        return "its metrics are no tuple of Measure"
    if strange := set(cls.headline) - {one.name for one in measures}:
        return f"its headline has {min(strange)}, which is none of its metrics"
    if not isinstance(getattr(cls, "dataset", None), Dataset):
        return "its dataset is no Dataset"
    if not is_dataclass(cls.Settings) or any(not one.metadata for one in fields(cls.Settings)):
        return "its Settings are no dataclass of setting(...)"
    return ""


# --- settings -------------------------------------------------------------------------------------


def other_settings(settings: Any) -> dict[str, Json]:
    """Those that are not the protocol's own, by name."""
    found = {one.name: (getattr(settings, one.name), one.default) for one in fields(settings)}
    return {name: value for name, (value, usual) in found.items() if value != usual}


def apart(cls: type[Benchmark[Any]], own: Any, cards: Any) -> str:
    """In which settings a benchmark was asked otherwise than a card says, "" where in none: gsm8k:
    shots 4, the card's 8.
    """
    pairs = [(n.name, getattr(own, n.name), getattr(cards, n.name)) for n in fields(cls.Settings)]
    words = [f"{name} {one}, the card's {other}" for name, one, other in pairs if one != other]
    return f"{cls.name}: {'; '.join(words)}" if words else ""


def undrawn(settings: Any) -> Any:
    """The settings with every item asked: those that may be "all" are."""
    able = [one.name for one in fields(settings) if "all" in one.metadata["may"]]
    return replace(settings, **dict.fromkeys(able, "all"))


def chat_only(settings: Any) -> str:
    """The settings under which only a chat can be asked, "" where none is: turns = True."""
    found = [(one, getattr(settings, one.name)) for one in fields(settings)]
    return ", ".join(
        f"{one.name} = {value}" for one, value in found if value in one.metadata["chat"]
    )


def variant_name(cls: type[Benchmark[Any]], settings: Any) -> str:
    """What a benchmark under these settings is called: mmlu, mmlu.shots-0."""
    words = [f".{name}-{_brief(value)}" for name, value in other_settings(settings).items()]
    found = re.sub(r"[^\w.-]", "_", "".join(words)).lower()
    return cls.name + (found if len(found.encode()) <= _LONGEST else f".settings-{_brief(found)}")


_LONGEST = 160
"""Bytes of a variant's settings in its name, which is a file's too: of such a one 255 are taken."""


def _brief(value: Json) -> str:
    """A setting's value in a name; of a text that is long, what stands for it."""
    text = str(value)
    return text if len(text) <= 40 else hashlib.sha256(text.encode()).hexdigest()[:8]
