"""The YAML at the top of a model card, with a key added or our text spliced in and every other byte
kept.
"""

import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

from evals.errors import InputError

_BLOCK = re.compile(r"^(\s*---(?:\r\n|\r|\n))([\S\s]*?)((?:\r\n|\r|\n)---[ \t]*(?:\r\n|\n|$))")
"""As the hub finds it; huggingface_hub.repocard.REGEX_YAML_BLOCK is the same."""
_EMPTY = re.compile(r"^(\s*---(?:\r\n|\r|\n))(---[ \t]*(?:\r\n|\n|$))")
"""No line between the dashes: nothing to the hub, and the place where metadata belongs."""
_BOM = "\ufeff"
NOT_A_VALUE = (ValueError, TypeError, AttributeError, LookupError, RecursionError)
"""What PyYAML lets out beside its own errors where its constructors meet a date that is none,
`!!int` and `!!timestamp` of a word, or nesting without end.
"""
_MOST = 10_000_000
"""Characters and values of metadata with its aliases written out."""


@dataclass(frozen=True, slots=True)
class FrontMatter:
    """A card in pieces: head + text + tail + body is the whole of it. head, tail: the lines of
    dashes, "" where there is no metadata.
    """

    head: str
    text: str
    tail: str
    body: str
    data: dict[str, Any]

    @classmethod
    def of(cls, card: str) -> "FrontMatter":
        """Take a card apart. Raises InputError when its metadata is no YAML mapping."""
        mark = _BOM if card.startswith(_BOM) else ""
        rest = card[len(mark) :]
        if found := _BLOCK.match(rest):
            return cls(mark + found[1], found[2], found[3], rest[found.end() :], load(found[2]))
        if found := _EMPTY.match(rest):
            return cls(mark + found[1], "", found[2], rest[found.end() :], {})
        return cls(mark, "", "", rest, {})

    def value(self, key: str) -> Any:
        """What the metadata says under a key; None where it does not."""
        return self.data.get(key)

    def whole(self, text: str | None = None) -> str:
        """Head, metadata and tail; with another text for the metadata."""
        return self.head + (self.text if text is None else text) + self.tail

    def with_key(self, key: str, value: Any, end: str) -> str:
        """Head, metadata and tail with one key more, as the last.

        end: the card's line end.  The card without metadata gets some.
        Raises InputError where the key cannot be added without touching another.
        """
        lines = dump({key: value}, end)
        if not self.tail:
            return f"{self.head}---{end}{lines}{end}---{end}"
        wanted = reading(self.data | {key: value})
        return self.first_right(
            self._with_lines(lines, end), lambda data: reading(data) == wanted, key
        )

    def first_right(
        self, texts: Iterable[str], is_right: Callable[[dict[str, Any]], bool], key: str
    ) -> str:
        """Head, metadata and tail with the first of the texts that reads as it should.

        Raises InputError, naming the key, when none does.
        """
        for text in texts:
            # What the hub will find in the card, which the text alone need not be.
            try:
                found = FrontMatter.of(self.whole(text) + self.body)
                if found.body == self.body and is_right(found.data):
                    return self.whole(text)
            except InputError:
                continue
        raise InputError(
            f"The card's metadata is written so that {key} cannot be replaced alone (an anchor or"
            " alias?). Write it without."
        )

    def _with_lines(self, lines: str, end: str) -> Iterator[str]:
        """The text with lines at its end, else before its last key."""
        root = root_of(self.text)
        indent = " " * (root.start_mark.column if root else 0)
        new = indent + lines.replace(end, end + indent)
        before = self.text
        # The last line's end belongs to the tail, so the new key would go on in that line.
        if before.strip() and not before.endswith(("\n", "\r")):
            before += end
        # Without a line between the dashes the tail has no line end before it.
        yield before + new + ("" if self.tail.startswith(("\n", "\r")) else end)
        # Block text that ends the metadata is without its line end there, to the hub too; nor can
        # anything follow the mark of the document's end.
        at = self._start_of_last_key(root)
        yield self.text[:at] + new + end + self.text[at:]

    def _start_of_last_key(self, root: Any) -> int:
        """Where the last key's line begins, or the comments right above it."""
        at = root.value[-1][0].start_mark.index if root and root.value else 0
        lines = re.split(r"(?<=\n)|(?<=\r)(?!\n)", self.text[:at])
        lines.pop()
        while lines and lines[-1].lstrip().startswith("#"):
            lines.pop()
        return len("".join(lines))


def read_yaml(text: str) -> Any:
    """What a stranger's YAML says. Raises yaml.YAMLError or one of NOT_A_VALUE when it cannot be
    read, ValueError also where its aliases make some hundred bytes stand for gigabytes.
    """
    import yaml

    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if root is not None and _size(root, {}) > _MOST:
        raise ValueError(f"written out, its aliases have more than {_MOST:,} characters")
    return yaml.safe_load(text)


def _size(node: Any, known: dict[int, int]) -> int:
    """Characters and values of a node, aliases written out; known: by id, those looked at."""
    if id(node) not in known:
        known[id(node)] = 1  # where it holds itself
        if isinstance(node.value, str):
            known[id(node)] = 1 + len(node.value)
        else:  # nodes, or pairs of them
            inner = chain.from_iterable(n if isinstance(n, tuple) else (n,) for n in node.value)
            known[id(node)] = 1 + sum(_size(one, known) for one in inner)
    return known[id(node)]


def load(text: str) -> dict[str, Any]:
    """The metadata as the hub reads it. Raises InputError when it is no YAML mapping."""
    import yaml

    try:
        data = read_yaml(text)
    except (yaml.YAMLError, *NOT_A_VALUE) as error:
        is_said = isinstance(error, yaml.YAMLError | ValueError)
        what = " ".join(str(error).split()) if is_said else "a value is not what its `!!` tag says"
        raise InputError(f"The card's metadata is no valid YAML: {what}. Mend it first.") from error
    if not isinstance(data, dict | None):
        raise InputError(
            "The card's metadata is no YAML mapping: its lines should read `key: value`."
        )
    return data or {}


def dump(value: Any, end: str, *, flow: bool = False) -> str:
    """The value in block or flow style, without the last line's end."""
    import yaml

    text = yaml.safe_dump(
        value,
        sort_keys=False,
        allow_unicode=True,
        default_flow_style=flow,
        # PyYAML would fold long texts.
        width=math.inf,
    )
    return str(text).rstrip("\n").replace("\n", end)


def root_of(text: str) -> Any:
    """The mapping with the places of its parts; None where there is nothing but comments."""
    import yaml

    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if root is not None and (not isinstance(root, yaml.MappingNode) or root.flow_style):
        raise InputError(
            "The card's metadata is written in braces. Write it one `key: value` a line."
        )
    return root


def pair(mapping: Any, key: str) -> tuple[Any, Any] | None:
    """A key of a mapping and its value, with their places. Raises InputError when it has two."""
    found = [one for one in mapping.value if one[0].value == key]
    if len(found) > 1:
        raise InputError(f"The card's metadata has {key} twice. Remove one.")
    return found[0] if found else None


def reading(data: dict[str, Any]) -> dict[str, str]:
    """By key, for comparing: as text, since .nan is not equal to itself and 1 is to True."""
    return {repr(key): repr(value) for key, value in data.items()}
