"""Recorded outputs of real models, in the formats they were released in, beside the figures
published for them.

One module a benchmark, named like it, with one function `recordings(folder, about, items)`: folder
holds the released files, about is the folder's README.json, items are all of the benchmark's items.
A reader turns a format into our ids and completions; it never scores, except by a rule under which
a figure was published and that it declares beside that figure.
"""

import gzip
import math
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib import import_module
from pathlib import Path
from types import UnionType
from typing import Any, NamedTuple, NoReturn

from evals.data.files import UNREADABLE
from evals.errors import InputError, first_line, nearest
from evals.generators.replay import Recorded
from evals.records import Finding, Item, ItemId, Outcome
from evals.registry import BENCHMARKS
from evals.runs.grading import TaskResult

_HUNDRED = 100.0
_DIGITS_OF_A_FLOAT = 9


class Value(NamedTuple):
    """A figure computed here: a fraction (None where it cannot be had) over n items. why: what has
    to be said beside it.
    """

    value: float | None
    n: int
    why: str = ""


@dataclass(frozen=True, slots=True)
class Scored:
    """A recording after grading, as a figure sees it. data: the folder of the benchmarks' data, as
    the user named it.
    """

    items: Sequence[Item]
    answers: Mapping[ItemId, Recorded]
    result: TaskResult
    data: Path | None = None

    def metric(self, name: str) -> Value:
        """The adapter's metric of that name over all recorded items."""
        metric = self.result.metrics[name]
        return Value(metric.value, metric.n, metric.reason or "")

    def mean(self, name: str, ids: Sequence[ItemId] | None = None) -> Value:
        """Mean of the adapter's item score of that name over `ids` (default:
        all recorded items).
        """
        wanted = None if ids is None else set(ids)
        scores = [
            grade.scores[name]
            for grade in self.result.grades
            if (wanted is None or grade.id in wanted) and name in grade.scores
        ]
        return Value(math.fsum(scores) / len(scores) if scores else None, len(scores))


@dataclass(frozen=True, slots=True)
class Figure:
    """One published number about a recording, and how to compute it.

    printed: the number as published, in `unit` (100: percent, 1: fraction, or the n that a count is
    out of).
    decimals: how many it was printed with.  ours: from the graded recording, under the card's rule
    or under `rule`, the corpus's own, in words.  card: the card rule's figure, where `rule` is
    another.
    unsettled: of the graded recording, the items whose recorded verdict cannot come back, with the
    reason; the figure may differ by as many items and no more.
    settled: the figure with the recorded verdicts of those items in place of ours; where it is
    given, it has to read as printed.
    why: what has to be said beside it; where ours has no value, the reason.
    """

    name: str
    printed: float
    decimals: int
    source: str
    ours: Callable[[Scored], Value]
    unit: float = _HUNDRED
    rule: str = ""
    card: Callable[[Scored], Value] | None = None
    unsettled: Callable[[Scored], Mapping[ItemId, str]] = lambda _: {}
    settled: Callable[[Scored], Value] | None = None
    why: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.printed, int | float):
            raise ValueError(f"the published {self.name} is {self.printed!r}, not a number")

    def agrees(self, ours: Value, slack: int = 0) -> bool:
        """True when ours, give or take `slack` items, reads as printed. Numbers printed as a whole
        float are compared at nine decimals.
        """
        if ours.value is None:
            return False
        half = 0.5 * 10.0 ** -min(self.decimals, _DIGITS_OF_A_FLOAT)
        room = half + (slack / ours.n * self.unit if ours.n else 0.0)
        # A hair more than half a digit: an exact tie counts, whichever way its floats fell.
        return math.isclose(
            ours.value * self.unit, self.printed, rel_tol=0.0, abs_tol=room * (1 + 1e-9)
        )


@dataclass(frozen=True, slots=True)
class Recording:
    """One model's recorded outputs by our item ids, and what was published about them. chat: how
    the adapter is set up.
    """

    name: str
    answers: Mapping[ItemId, Recorded]
    figures: Sequence[Figure]
    chat: bool = True


def recordings(
    benchmark: str, folder: Path, about: Mapping[str, Any], items: Sequence[Item]
) -> Iterator[Recording]:
    """The recordings of one corpus folder. Raises InputError when nothing here reads that
    benchmark's recordings.
    """
    if benchmark not in BENCHMARKS:
        raise InputError(
            f"{folder} holds recordings of {benchmark!r}. {nearest(benchmark, BENCHMARKS)}"
        )
    found: Iterator[Recording] = import_module(f"evals.fidelity.corpora.{benchmark}").recordings(
        folder, about, items
    )
    return found


class Released(dict[str, Any]):
    """A row of a released file, an object in one, or one of README.json. where: what names it."""

    def __init__(self, row: Mapping[str, Any], where: str) -> None:
        super().__init__(row)
        self.where = where

    def __missing__(self, name: str) -> NoReturn:
        raise ValueError(f"{self.where} has no {name!r}")

    def take(self, name: str, kind: type | UnionType) -> Any:
        """The field of that name. Raises ValueError where it is of another kind."""
        value = self[name]
        if not isinstance(value, kind):
            wanted = getattr(kind, "__name__", kind)
            raise ValueError(f"{self.where}: {name!r} is {value!r:.60}, not a {wanted}")
        return Released(value, f"{self.where}, {name!r}") if isinstance(value, dict) else value


def listed(folder: Path, about: Mapping[str, Any], pattern: str) -> Path:
    """The file of README.json that a pattern is of, whatever model is in its name: no other was
    checked. Raises ValueError where it lists none, or several.
    """
    found: list[Path] = [
        folder / file["path"] for file in about["files"] if fnmatchcase(file["path"], pattern)
    ]
    if len(found) != 1:
        raise ValueError(
            f"README.json lists {len(found)} files called {pattern}; it should list one"
        )
    return found[0]


def one_of(name: str, known: Collection[str]) -> str:
    """A name in README.json that has to be one of these. Raises ValueError where it is not."""
    if name not in known:
        raise ValueError(f"README.json has {name!r}. {nearest(str(name), known)}")
    return name


def read_rows(file: Path, read: Callable[[bytes], Iterable[Any]]) -> list[Released]:
    """The rows of a released file, gzipped where its name says so. Raises ValueError where it
    cannot be read.
    """
    with named(file):
        raw = file.read_bytes()
        rows = list(read(gzip.decompress(raw) if file.suffix == ".gz" else raw))
        if not rows:
            raise ValueError("it holds no row")
        for number, row in enumerate(rows, 1):
            if not isinstance(row, dict):
                raise ValueError(f"row {number} is {row!r:.60}, not an object")
    return [Released(row, f"{file}, row {number}") for number, row in enumerate(rows, 1)]


def by_item(
    file: Path,
    read: Callable[[bytes], Iterable[Any]],
    keys: Mapping[ItemId, Hashable],
    key: Callable[[Released], Hashable],
    *,
    partly: bool = False,
) -> dict[ItemId, Released]:
    """Each item's row of a released file, by the key that both have. Raises ValueError for two rows
    of one key, one about no item, and an item without one. partly: an item may have none.
    """
    found: dict[Hashable, Released] = {}
    wanted = set(keys.values())
    for row in read_rows(file, read):
        if (about := key(row)) not in wanted:
            raise ValueError(f"{row.where} is about no item of the benchmark")
        if about in found:
            raise ValueError(f"{row.where} is about the same item as {found[about].where}")
        found[about] = row
    missing = [item_id for item_id, about in keys.items() if about not in found]
    if missing and not partly:
        raise ValueError(f"{file} has no row about {missing[0]}")
    return {item_id: found[about] for item_id, about in keys.items() if about in found}


@contextmanager
def named(what: object) -> Iterator[None]:
    """What is found wrong in here is said of `what`, a file or a row of one."""
    try:
        yield
    except UNREADABLE as error:
        raise ValueError(f"{what}: {said(error)}") from error


def said(error: BaseException) -> str:
    """What an exception says, in words for one who has only the files."""
    if isinstance(error, KeyError):
        return f"there is no {str(error)[:120]}"
    if isinstance(error, TypeError | AttributeError):
        return f"a value is of another kind: {error}"
    return str(error) if type(error) is ValueError else first_line(error)


_RELEASED = "released"


def released(verdict: bool) -> dict[str, Finding]:
    """The verdict released with an answer, as a finding that no adapter asks for."""
    return {
        _RELEASED: Finding(by="released", outcome=Outcome("passed" if verdict else "wrong_answer"))
    }


def released_verdict(answer: Recorded) -> bool:
    """The verdict released with an answer. Raises KeyError when there is none."""
    return answer.findings[_RELEASED].outcome == Outcome("passed")


def metric(name: str) -> Callable[[Scored], Value]:
    """The adapter's metric of that name, for `ours` or `card`."""
    return lambda scored: scored.metric(name)


def share(verdicts: Collection[bool]) -> Callable[[Scored], Value]:
    """The share of a reader's own verdicts that are True, for `ours` under the corpus's rule."""
    found = Value(sum(verdicts) / len(verdicts) if verdicts else None, len(verdicts))
    return lambda scored: found


def agreement(name: str) -> Callable[[Scored], Value]:
    """The share of items whose score of that name, 0 or 1, is the verdict released with the answer,
    for `ours` or `card`.
    """

    def ours(scored: Scored) -> Value:
        return share(
            [
                grade.scores.get(name) == released_verdict(scored.answers[grade.id])
                for grade in scored.result.grades
            ]
        )(scored)

    return ours
