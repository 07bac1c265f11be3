"""The form of a card's file, read strictly: whatever is wrong gets one sentence with the file, the
key and the nearest known word.

title = "…"             # of the card
source = "…"            # its address
protocol = "mine/1"     # name and version; without it, a hash over the columns
[[column]]
key = "xstest"          # the cell's key in summary.json
heading = "XSTest"      # as printed
benchmark = "xstest"    # `evals tasks` lists them; "package.module:Class" for one of your own;
                        # none where nobody here can measure it: then `reason` says why
metric = "refusal_f1"   # one of the benchmark's (default: the key)
settings = {}           # of the benchmark's, where they are others than its own
inferred = "…"          # what of this is not known for certain: marks a run's cells
lower_is_better = true
unit = "percent"        # or "fraction", or "own" of what is no share; decimals = 1
[average]
of = ["a", ["b", "c"]]  # an inner list is averaged first; left out where the rule is not known
complement = ["c"]      # enters as 100 - x
optional = ["a"]        # a row without it is averaged over the rest
dash = "members"        # or "any": any - in a row, a member's or not, makes its Average -
[[row]]
name = "…"              # published rows, their cells as printed
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from evals.cards.card import AVERAGE, Average, Card, PublishedRow
from evals.cards.toml import read_toml
from evals.errors import InputError, first_line, nearest
from evals.records import Column

_MAX_BYTES = 1 << 20
_MAX_COLUMNS = 100
_LONGEST = 2000
_KEY = re.compile(r"[A-Za-z]\w{0,63}", re.ASCII)
_CELL = re.compile(r"-|-?\d{1,4}(\.\d{1,4})?", re.ASCII)
_CARD = ("title", "source", "protocol", "tags", "settings", "column", "average", "row", "notes")
_COLUMN = ("key", "heading", "benchmark", "metric", "settings", "lower_is_better", "unit",
           "decimals", "reason", "inferred")  # fmt: skip
_AVERAGE = ("heading", "of", "complement", "optional", "dash", "unit", "decimals")
_ROW = ("name", "short_name", "hub_id", "revision", "chat_format", "bos_tokens", "size", "kind",
        "cells", "hidden", "source", "settings", "notes")  # fmt: skip
_FORMATS = ("none", "tokenizer", "tulu")
_KINDS = ("base", "instruct", "sft", "dpo", "rl")


def read_card(path: Path) -> Card:
    """The card in a file. Raises InputError with one sentence for anything that is wrong in it."""
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_BYTES + 1)
        if len(raw) > _MAX_BYTES:
            raise ValueError(f"more than {_MAX_BYTES >> 20} MB")
        content = read_toml(raw.decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"The card {path} cannot be read ({first_line(error)}). It is a TOML file with a title"
            " and a [[column]] for each column."
        ) from None
    return card_from(content, str(path), path.stem)


def card_from(content: Mapping[str, Any], where: str, name: str) -> Card:
    """The card of a parsed file. where: what to call it in an error."""
    card = _Table(where, content, _CARD)
    columns = tuple(
        _column(card.inner(f"[[column]] {n}", one, _COLUMN))
        for n, one in enumerate(card.list("column"), start=1)
    )
    if not 0 < len(columns) <= _MAX_COLUMNS:
        raise card.wrong("column", f"is there {len(columns)} times", "Give 1 to 100 [[column]].")
    _refuse_twice(card, "key", [column.key for column in columns])
    average = _average(card.inner("[average]", card.get("average", {}), _AVERAGE), columns)
    shared = card.texts("settings")
    card.texts("tags")
    card.texts("notes")
    keys = tuple(column.key for column in (*columns, average.column))
    rows = tuple(
        _row(card.inner(f"[[row]] {n}", one, _ROW), keys, shared, name)
        for n, one in enumerate(card.list("row"), start=1)
    )
    _refuse_twice(card, "row's name", [row.name for row in rows])
    _refuse_twice(card, "short_name", [row.short_name for row in rows if row.short_name])
    made = Card(name, card.text("title"), "", columns, average, rows, card.text("source", ""))
    protocol = card.text("protocol", f"{name}/{made.hash[:12]}")
    return Card(name, made.title, protocol, columns, average, rows, made.source)


class _Table:
    """One table of a card, and what to say of it."""

    def __init__(self, where: str, content: object, known: Sequence[str]) -> None:
        self.where = where
        if not isinstance(content, Mapping):
            raise InputError(f"{where} is {_shown(content)}, no table. Keys: {', '.join(known)}.")
        for key in content:
            if key not in known:
                mend = nearest(str(key)[:99], known)
                if key in _CARD:
                    mend = "It belongs to the card: put it above the first [[column]]."
                raise InputError(f"{where}: unknown key {_shown(key)}. {mend}")
        self.content = content

    def wrong(self, key: str, what: str, mend: str) -> InputError:
        """The error of a key."""
        return InputError(f"{self.where}: {key} {what}. {mend}")

    def inner(self, name: str, content: object, known: Sequence[str]) -> "_Table":
        """A table within."""
        return _Table(f"{self.where}, {name}", content, known)

    def get(self, key: str, default: Any) -> Any:
        """A value as it stands there."""
        return self.content.get(key, default)

    def list(self, key: str) -> Sequence[Any]:
        """An array; empty where there is none."""
        found = self.get(key, [])
        if not isinstance(found, list):
            mend = f"Write [[{key}]]." if isinstance(found, Mapping) else "Give a list."
            raise self.wrong(key, f"is {_shown(found)}", mend)
        return found

    def text(self, key: str, default: str | None = None) -> str:
        """A text of one line; needed where there is no default."""
        found = self.get(key, default)
        if found is None:
            raise self.wrong(key, "is missing", f'Write {key} = "…".')
        if not isinstance(found, str) or (not found.strip() and default is None):
            raise self.wrong(key, f"is {_shown(found)}", "Give a text, in quotes.")
        if len(found) > _LONGEST or not found.isprintable():
            raise self.wrong(key, "is too long or holds what cannot be printed", "Give one line.")
        return found

    def name(self, key: str, default: str = "") -> str:
        """What something is called elsewhere."""
        found = self.text(key, default)
        if len(found) > 200:
            raise self.wrong(key, f"is {_shown(found)}", "No name is that long.")
        return found

    def key(self, key: str, default: str | None = None) -> str:
        """A name of letters, digits and _."""
        found = self.text(key, default)
        if found and not _KEY.fullmatch(found):
            raise self.wrong(key, f"is {_shown(found)}", "Use letters, digits and _, at most 64.")
        return found

    def one_of(self, key: str, known: Sequence[str], default: str) -> str:
        """One of a few words."""
        found = self.text(key, default)
        if found not in known:
            raise self.wrong(key, f"is {_shown(found)}", nearest(found[:99], known))
        return found

    def flag(self, key: str) -> bool:
        """true or false; false where it is not said."""
        found = self.get(key, False)
        if not isinstance(found, bool):
            raise self.wrong(key, f"is {_shown(found)}", "Write true or false.")
        return found

    def number(self, key: str, default: int | None, most: int) -> int | None:
        """A whole number from 0 to `most`."""
        found = self.get(key, default)
        if found is not None and (type(found) is not int or not 0 <= found <= most):
            raise self.wrong(key, f"is {_shown(found)}", f"Give a whole number from 0 to {most}.")
        return found

    def texts(self, key: str) -> Mapping[str, str]:
        """A table of texts."""
        content = self.get(key, {})
        if not isinstance(content, Mapping):
            raise self.wrong(key, f"is {_shown(content)}", 'Write a table of texts: name = "…".')
        inner = self.inner(key, content, tuple(content))
        return MappingProxyType({str(name): inner.text(name) for name in inner.content})


def _column(table: _Table) -> Column:
    key = table.key("key")
    if key == AVERAGE.key:
        raise table.wrong("key", f"is {AVERAGE.key}", "The Average has a table of its own.")
    settings = table.get("settings", {})
    if not isinstance(settings, Mapping):
        raise table.wrong("settings", f"is {_shown(settings)}", "Write settings = { shots = 0 }.")
    for name, value in settings.items():
        if not isinstance(value, str | int | float):
            what = f"has {_shown(name)} = {_shown(value)}"
            raise table.wrong("settings", what, "Give a number, a text, true or false.")
    benchmark, reason = table.name("benchmark"), table.text("reason", "")
    if bool(benchmark) == bool(reason):
        raise table.wrong(
            "benchmark",
            "and reason are both there" if reason else "is missing",
            "Name what measures the column (`evals tasks` lists them), or give the reason why"
            " nobody here can.",
        )
    return Column(
        key,
        table.text("heading"),
        table.flag("lower_is_better"),
        benchmark,
        table.name("metric", key),
        dict(settings),
        *_unit(table),
        reason,
        table.text("inferred", ""),
    )


def _unit(table: _Table) -> tuple[str, int]:
    decimals = table.number("decimals", 1, 4)
    assert decimals is not None
    return table.one_of("unit", ("percent", "fraction", "own"), "percent"), decimals


def _average(table: _Table, columns: Sequence[Column]) -> Average:
    known = [column.key for column in columns]
    members = []
    for member in table.list("of"):
        inner = member if isinstance(member, list) else [member]
        if any(not isinstance(key, str) for key in inner) or not inner:
            raise table.wrong(
                "of", f"has {_shown(member)}", "Name columns, or lists of columns in it."
            )
        members.append(tuple(_known(table, "of", key, known) for key in inner))
    rule = Average(
        Column(AVERAGE.key, table.text("heading", AVERAGE.heading), False, "", "", {},
               *_unit(table)),
        tuple(members),
        frozenset(_known(table, "complement", key, known) for key in table.list("complement")),
        table.one_of("dash", ("members", "any"), "members") == "any",
        frozenset(_known(table, "optional", key, known) for key in table.list("optional")),
    )  # fmt: skip
    _refuse_twice(table, "member", rule.inputs)
    for name, keys in (("complement", rule.complement), ("optional", rule.optional)):
        for key in sorted(keys - set(rule.inputs)):
            raise table.wrong(name, f"has {key}, which is no member", "Name members of `of`.")
    for key in sorted(rule.complement & {one.key for one in columns if not one.is_share}):
        raise table.wrong(
            "complement",
            f"has {key}, which is no share",
            "Leave it out there: 100 - x is of a share.",
        )
    return rule


def _row(table: _Table, keys: Sequence[str], shared: Mapping[str, str], card: str) -> PublishedRow:
    cells, hidden, notes = table.texts("cells"), table.texts("hidden"), table.texts("notes")
    for name, part in (("cells", cells), ("notes", notes)):
        for key in part:
            _known(table, name, key, keys)
    for key in hidden:
        if key in keys:
            raise table.wrong("hidden", f"has {key}, which the card prints", "Leave it out there.")
    for key, text in (*cells.items(), *hidden.items()):
        if not _CELL.fullmatch(text):
            raise table.wrong(key, f"is {_shown(text)}", "Give a number as printed, or -.")
    if lacking := [key for key in keys if key not in cells]:
        raise table.wrong("cells", f"lacks {lacking[0]}", "Write - where the card does.")
    return PublishedRow(
        table.text("name"),
        table.text("short_name", ""),
        table.text("hub_id", ""),
        table.text("revision", "") or None,
        table.one_of("chat_format", _FORMATS, "tokenizer"),
        table.number("bos_tokens", None, 9),
        table.text("size", ""),
        table.one_of("kind", _KINDS, "instruct"),
        MappingProxyType({key: cells[key] for key in keys}),
        table.text("source", ""),
        MappingProxyType({**shared, **table.texts("settings")}),
        notes,
        hidden,
        card,
    )


def _known(table: _Table, where: str, key: object, known: Sequence[str]) -> str:
    if key not in known:
        raise table.wrong(where, f"has {_shown(key)}", nearest(str(key)[:99], known))
    return str(key)


def _refuse_twice(table: _Table, what: str, names: Sequence[str]) -> None:
    for at, name in enumerate(names):
        if name in names[:at]:
            raise table.wrong(what, f"{_shown(name)} is there twice", "Each needs its own.")


def _shown(value: object) -> str:
    try:
        text = repr(value)
    except RecursionError:
        text = "something too deep"
    return text if len(text) <= 60 else f"{text[:57]}..."
