"""Benchmark names and where they live, one line each; those of others; and the benchmarks that a
card asks.
"""

import contextlib
import json
import os
import re
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache, partial, partialmethod
from importlib import import_module, metadata
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from types import FunctionType
from typing import Any

from evals.benchmark import (
    ANY_NUMBER,
    Benchmark,
    other_settings,
    roles_needed,
    unusable,
    variant_name,
)
from evals.cards.card import Card
from evals.cards.published import card_named, card_of_run
from evals.errors import EvalsError, InputError, first_line, nearest
from evals.records import (
    Check,
    Choose,
    Column,
    Generate,
    Grade,
    Item,
    Metric,
    Sampling,
    Score,
)

# As texts: whoever lists the names imports no benchmark.
BENCHMARKS = {
    "mmlu": "tasks.mmlu:MMLU",
    "gsm8k": "tasks.gsm8k:GSM8K",
    "bbh": "tasks.bbh:BBH",
    "humaneval": "tasks.humaneval:HumanEval",
    "alpaca_eval": "tasks.alpaca_eval:AlpacaEval",
    "truthfulqa": "tasks.truthfulqa:TruthfulQA",
    "ifeval": "tasks.ifeval:IFEval",
    "xstest": "tasks.xstest:XSTest",
}

GROUP = "evals.benchmarks"
"""The entry points under which a package declares benchmarks: name = "package.module:Class"."""


HARNESS = ("lm-eval:", "lm-eval.")
"""How a task of lm-evaluation-harness is named: by a user, and in ids and file names."""


@dataclass(frozen=True, slots=True)
class Variant:
    """A benchmark under settings, and the columns of a card that it fills."""

    name: str
    cls: type[Benchmark[Any]]
    settings: Any
    columns: tuple[Column, ...]

    @property
    def roles(self) -> tuple[str, ...]:
        """The judges that decide its columns."""
        return roles_needed(self.cls, self.columns)

    def make(self, *, chat: bool) -> Benchmark[Any]:
        """The benchmark itself. Raises InputError for what its class makes of this."""
        try:
            cls = self.cls if _is_ours(self.cls) else _guarded(self.cls)
            found = cls(chat=chat, settings=self.settings, columns=self.columns)
        except EvalsError:
            raise
        except Exception as error:  # another's code
            raise InputError(
                f"The benchmark {self.name} cannot be made ({first_line(error)}). Its __init__"
                " takes what evals.benchmark.Benchmark's does."
            ) from error
        found.name = self.name
        return found

    def drawn(self, draw: int) -> "Variant":
        """The same, asked for another answer to each item under ids of its own."""
        return replace(self, name=draw_name(self.name, draw))


def _is_ours(cls: type[Benchmark[Any]]) -> bool:
    return BENCHMARKS.get(cls.name) == f"{cls.__module__}:{cls.__name__}"


def benchmark_class(name: str) -> type[Benchmark[Any]]:
    """The benchmark registered under `name`, the one that an installed package declares under it,
    or the one at "package.module:Class". Raises InputError with the nearest names when there is
    none, and for one that cannot be used.
    """
    if name.startswith(HARNESS):
        of_harness: type[Benchmark[Any]] = _harness().benchmark_class(name)
        return of_harness
    if name in BENCHMARKS:
        found: type[Benchmark[Any]] = _imported(BENCHMARKS[name], "Install this program anew.")
        return found
    if ":" in name:
        return _of_others(name)
    places = declared().get(name, {})
    if not places:
        raise InputError(f"Unknown task {name!r}. {nearest(name, [*BENCHMARKS, *declared()])}")
    if len(places) > 1:
        raise InputError(
            f"The benchmark {name} is declared by {' and by '.join(sorted(places.values()))}. Name"
            f" one by its class: {' or '.join(sorted(places))}."
        )
    ((place, package),) = places.items()
    other = _of_others(place, package)
    if other.name != name:
        raise InputError(
            f"The package {package} declares {place} as the benchmark {name}, but it calls itself"
            f" {other.name}: they must be one name."
        )
    return other


def _harness() -> Any:
    return import_module("tasks.harness.task")


def harness_tasks(name: str) -> list[str]:
    """lm-eval:NAME as the benchmarks it stands for, of a tag or group its tasks. Raises InputError
    where lm-evaluation-harness has no such name.
    """
    found: list[str] = _harness().expanded(name)
    return found


def harness_sampling(where: str, how: Mapping[str, Any]) -> Sampling:
    """Generation arguments of lm-evaluation-harness as a Sampling of one answer. Raises InputError,
    which `where` begins, for one that is not known here.
    """
    found: Sampling = import_module("tasks.harness.build").sampling_of(where, how, 1)
    return found


def declared() -> dict[str, dict[str, str]]:
    """The benchmarks that installed packages declare as entry points of the group evals.benchmarks:
    name -> package.module:Class -> package. What is called as one of ours is left out.
    """
    found: dict[str, dict[str, str]] = {}
    for name, place, package in _entry_points():
        if name not in BENCHMARKS:
            found.setdefault(name, {}).setdefault(place, package)
    return found


def refused() -> list[str]:
    """What is wrong with declarations themselves, a sentence each."""
    return [
        f"The package {package} declares {place} as the benchmark {name}, which is one of ours:"
        " ours is used. Its card can name the class itself."
        for name, place, package in _entry_points()
        if name in BENCHMARKS
    ]


@cache
def _entry_points() -> tuple[tuple[str, str, str], ...]:
    """Name, place and package of each. One by one: a package whose metadata is broken hides no
    other.
    """
    found = {}
    for package in metadata.distributions():
        with contextlib.suppress(Exception):
            for one in package.entry_points.select(group=GROUP):
                found[one.name, one.value] = str(package.metadata["Name"])
    return tuple((name, place, package) for (name, place), package in sorted(found.items()))


def _imported(place: str, mend: str) -> Any:
    """What is at a place. Raises InputError, which `mend` ends, where its module is not whole."""
    module, _, attribute = place.partition(":")
    try:
        return getattr(import_module(module), attribute)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a module may leave by SystemExit
        raise InputError(
            f"The benchmark {place} cannot be imported ({first_line(error)}). {mend}"
        ) from error


def _in_a_run(module: str) -> str | None:
    """The file of a module that lies within a run's folder, which may be a stranger's."""
    with contextlib.suppress(ImportError, ValueError):
        # Of the outermost package: to find one within it would execute it.
        found = find_spec(module.partition(".")[0])
        places = (found.origin, *(found.submodule_search_locations or ())) if found else ()
        for file in filter(None, places):
            if any((folder / "run.json").exists() for folder in Path(file).parents):
                return str(file)
    return None


def _of_others(place: str, package: str = "") -> type[Benchmark[Any]]:
    """The class at a place, if it can be used. package: which declares it."""
    mend = "Write package.module:Class, and give the command where Python finds the module."
    # A module of the user's own may lie where the command is given.
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    if file := _in_a_run(place.partition(":")[0]):
        raise InputError(
            f"The benchmark {place} is {file}, within a run's folder: nothing there is executed."
            " If you trust the module, copy it elsewhere and give the command there."
        )
    found = _imported(place, f"Install its package, {package}, anew." if package else mend)
    if not (isinstance(found, type) and issubclass(found, Benchmark)):
        raise InputError(f"{place} is no subclass of evals.benchmark.Benchmark.")
    wrong = unusable(found)
    if not wrong and found.name in BENCHMARKS:
        wrong = f"its name is {found.name}, which is one of ours; take another"
    if wrong:
        raise InputError(f"The benchmark {place} cannot be used: {wrong}.")
    return found


def card_to_ask(argument: str | None) -> Card:
    """The card that --card names, held against the benchmarks. Raises InputError that names it."""
    card = card_named(argument)
    try:
        return bound(card)
    except InputError as error:
        raise InputError(f"{argument or card.name}: {error}") from error


def bound(card: Card) -> Card:
    """The card with each column's settings held against its benchmark's: those that are the
    protocol's own are left out, so that equal columns are equal. What is no share is in its own
    unit, and so is an Average with such a member.

    Raises InputError for an unknown benchmark, metric or setting, with what there is.
    """
    columns, average = tuple(_bound(card, column) for column in card.columns), card.average
    if any(one.key in average.inputs and not one.is_share for one in columns):
        average = replace(average, column=_in_own_unit(average.column))
    return replace(card, columns=columns, average=average)


def _in_own_unit(column: Column) -> Column:
    decimals = 3 if column.unit == "percent" else column.decimals
    return replace(column, unit="own", decimals=decimals)


def _bound(card: Card, column: Column) -> Column:
    if not column.benchmark:
        return column
    try:
        cls = benchmark_class(column.benchmark)
        known = {one.name: one for one in cls.metrics}
        # A task that cannot be read has none; whoever asks it says why.
        if known and column.metric not in known:
            raise InputError(
                f"{cls.name} has no metric {column.metric!r}. {nearest(column.metric, known)}"
            )
        lower = known[column.metric].lower_is_better if known else column.lower_is_better
        if column.lower_is_better != lower:
            better = "lower" if lower else "higher"
            raise InputError(f"of {column.metric}, {better} is better: set lower_is_better so.")
        settings = other_settings(read_settings(cls, column.settings))
    except InputError as error:
        raise InputError(f"Column {column.key} of the card {card.title!r}: {error}") from error
    if known and not known[column.metric].is_share:
        column = _in_own_unit(column)
    return replace(column, settings=settings)


def variants(card: Card, more: Sequence[str] = ()) -> dict[str, Variant]:
    """What a card asks, by name, in its columns' order: columns of one benchmark and settings
    together.

    more: registered benchmarks that are asked besides; off the card they have a column for each
    headline metric.
    """
    found: dict[str, Variant] = {}
    for column in bound(card).columns:
        if not column.benchmark:
            continue
        cls = benchmark_class(column.benchmark)
        settings = read_settings(cls, column.settings)
        name = variant_name(cls, settings)
        before = found.get(name)
        if before is not None and (before.cls is not cls or before.settings != settings):
            raise InputError(
                f"The card {card.title!r} asks two things that are called {name}: columns"
                f" {before.columns[0].key} and {column.key}. Give a card of its own to one."
            )
        columns = (*before.columns, column) if before else (column,)
        found[name] = Variant(name, cls, settings, columns)
    for name in more:
        if name not in found:
            cls = benchmark_class(name)
            found[name] = Variant(name, cls, cls.Settings(), cls.own_columns())
    return found


def off_card(summary: Mapping[str, Any]) -> list[str]:
    """The registered benchmarks that a run asked besides its card's."""
    of_harness = [name for name in summary.get("data", ()) if name.startswith(HARNESS)]
    if of_harness:
        on_card = variants(card_of_run(summary))
        of_harness = [name for name in of_harness if name not in on_card]
    return [*(name for name in BENCHMARKS if name in summary.get("data", ())), *of_harness]


def task_variant(summary: Mapping[str, Any], task: str) -> Variant:
    """What a run's task is, by its summary or its header. Raises InputError where there is no such
    benchmark any more.
    """
    card, (name, draw) = card_of_run(summary), of_draw(task)
    known = variants(card)
    return (known[name] if name in known else variants(card, [name])[name]).drawn(draw)


def draw_name(name: str, draw: int) -> str:
    """What a variant's further draw is called: gsm8k, gsm8k@2."""
    return name if draw == 1 else f"{name}@{draw}"


def of_draw(task: str) -> tuple[str, int]:
    """The variant that a task is a draw of, and which of its draws, from 1."""
    name, _, draw = task.partition("@")
    return (name, int(draw)) if re.fullmatch(r"[1-9]\d{0,3}", draw, re.ASCII) else (task, 1)


def n_draws(tasks: Iterable[str], name: str) -> int:
    """How many draws of a variant are among these tasks; 1 where it is not there."""
    return max((draw for found, draw in map(of_draw, tasks) if found == name), default=1)


# --- those of others ------------------------------------------------------------------------------

_GIVES: Mapping[str, tuple[type, ...]] = {"request": (Generate, Choose, Score), "grade": (Grade,),
                                          "summarize": (Mapping,)}  # fmt: skip
_GIVES_EACH: Mapping[str, type] = {"items": Item, "drawn": Item, "checks": Check,
                                   "lacks": str, "notes": str}  # fmt: skip


@cache
def _guarded(cls: type[Benchmark[Any]]) -> type[Benchmark[Any]]:
    """Another's class, whose own methods and rules raise InputError, one sentence that says what
    and where, for whatever goes wrong in them, and where they give what is not of its form.
    """
    own: dict[str, Any] = {"__doc__": cls.__doc__, "__module__": cls.__module__}
    for name in vars(Benchmark):
        method = getattr(cls, name)
        is_own = isinstance(method, FunctionType) and method is not getattr(Benchmark, name)
        if is_own and not name.startswith("_"):
            own[name] = partialmethod(_call, cls, name, method)
    own["rules"] = {
        name: partial(_call, None, cls, f"rule {name}", lambda _, text, rule=rule: rule(text))
        for name, rule in cls.rules.items()
    }
    made: Any = type(cls)
    found: type[Benchmark[Any]] = made(cls.__name__, (cls,), own)
    return found


def _call(self: Any, cls: type[Any], what: str, method: Any, *args: Any, **named: Any) -> Any:
    item = next((one for one in args if isinstance(one, Item)), None)
    at = f" of {item.id}" if item else ""
    with _telling(cls, what, at):
        found = method(self, *args, **named)
        if what == "items":
            return _each(cls, iter(found))
        if what in _GIVES_EACH:
            found = list(found)
        _check_form(what, item, found)
    return found


def _each(cls: type[Any], items: Iterator[Any]) -> Iterator[Any]:
    """The items as they are taken: a method that yields them goes wrong then."""
    while True:
        with _telling(cls, "items", ""):
            taken = list(islice(items, 1))
            _check_form("items", None, taken)
        if not taken:
            return
        yield taken[0]


def _check_form(what: str, item: Item | None, found: Any) -> None:
    """Raise TypeError where what a method gives is not of its form, ValueError for a grade that
    is another item's or cannot be written.
    """
    kinds = _GIVES.get(what)
    if kinds and not isinstance(found, kinds):
        known = " nor ".join(kind.__name__ for kind in kinds)
        raise TypeError(f"a {type(found).__name__}, neither {known}")
    each = Metric if what == "summarize" else _GIVES_EACH.get(what)
    for one in found.values() if what == "summarize" else found if each else ():
        if each and not isinstance(one, each):
            raise TypeError(f"a {type(one).__name__} where a {each.__name__} belongs")
    if what == "grade" and item:
        if (found.id, found.group) != (item.id, item.group):
            raise ValueError(f"the grade has the id or group of another item: {found.id}")
        json.dumps([found.details, found.extracted])  # as samples will hold them


@contextlib.contextmanager
def _telling(cls: type[Any], what: str, at: str) -> Iterator[None]:
    try:
        yield
    except (EvalsError, KeyboardInterrupt):
        raise
    except BaseException as error:  # a method may leave by SystemExit
        frames = traceback.extract_tb(error.__traceback__)
        module = getattr(sys.modules.get(cls.__module__), "__file__", None)
        line = next((f", line {one.lineno}" for one in frames[::-1] if one.filename == module), "")
        raise InputError(
            f"The benchmark {cls.name} goes wrong in {cls.__name__}.{what}{at}"
            f" ({first_line(error)[:300]}{line}). What was answered is kept; once it is mended, the"
            " same command goes on."
        ) from error


# --- settings -------------------------------------------------------------------------------------


def read_settings(cls: type[Benchmark[Any]], given: Mapping[str, Any]) -> Any:
    """The benchmark's settings with these in place of the protocol's.

    Raises InputError for one that it does not have or that may not be so, with what may be set.
    """
    known = {one.name: one.metadata["may"] for one in fields(cls.Settings)}
    given = {
        # 1 and 1.0 are one setting, and one variant's name; so are 0.0 and -0.0.
        name: _fraction(value) if _is_of_fractions(known.get(name)) else value
        for name, value in given.items()
    }
    for name, value in given.items():
        if name not in known:
            may = nearest(name, known) if known else "It has none."
            raise InputError(f"{cls.name} has no setting {name[:99]!r}. {may}")
        if not any(_may_be(value, one) for one in known[name]):
            raise InputError(
                f"{cls.name}: {name} = {repr(value)[:99]} cannot be. It may be"
                f" {in_words(known[name])}."
            )
    return cls.Settings(**given)


def in_words(may: Sequence[object]) -> str:
    """What may be set."""
    return " or ".join(
        "a text"
        if one is str
        else (f"{one[0]} to {one[-1]}" if one is not ANY_NUMBER else "a whole number from 1")
        if isinstance(one, range | tuple)
        else str(one).lower() if isinstance(one, bool) else repr(one)
        for one in may
    )  # fmt: skip


def _fraction(value: object) -> object:
    is_one = type(value) is float or (type(value) is int and abs(value) <= ANY_NUMBER[-1])
    return value + 0.0 if is_one and isinstance(value, int | float) else value


def _is_of_fractions(may: Sequence[object] | None) -> bool:
    return any(isinstance(one, tuple) for one in may or ())


def _may_be(value: object, may: object) -> bool:
    if isinstance(may, tuple):
        return type(value) is float and may[0] <= value <= may[1]
    if isinstance(may, range):
        return type(value) is int and value in may
    # Of the same type too: to Python 1 is True.
    return type(value) is str if may is str else type(value) is type(may) and value == may
