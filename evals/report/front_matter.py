"""The YAML at the top of a model card, with one key of it replaced and every other byte kept."""

import re
from dataclasses import dataclass
from typing import Any

from evals.errors import InputError

_BLOCK = re.compile(r"^(\s*---(?:\r\n|\r|\n))([\S\s]*?)((?:\r\n|\r|\n)---[ \t]*(?:\r\n|\n|$))")
"""As the hub finds it; huggingface_hub.repocard.REGEX_YAML_BLOCK is the same."""
_BOM = "\ufeff"


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
        import yaml

        mark = _BOM if card.startswith(_BOM) else ""
        found = _BLOCK.match(card[len(mark) :])
        if found is None:
            return cls(mark, "", "", card[len(mark) :], {})
        try:
            data = yaml.safe_load(found[2])
        # ValueError: a date that is none
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise InputError(
                f"The card's metadata is no valid YAML: {' '.join(str(error).split())}"
            ) from error
        if not isinstance(data, dict | None):
            raise InputError(
                "The card's metadata is no YAML mapping: its lines should read `key: value`."
            )
        return cls(mark + found[1], found[2], found[3], card[len(mark) + found.end() :], data or {})

    def value(self, key: str) -> Any:
        """What the metadata says under a key; None where it does not."""
        return self.data.get(key)

    def with_value(self, key: str, value: Any, end: str) -> str:
        """Head, metadata and tail with one key's value replaced, in its place, or added as the
        last; None takes it away.

        end: the card's line end.  Equal values leave every byte; the card without metadata gets
        some, unless there is nothing to say.
        Raises InputError where the one key cannot be replaced without touching another.
        """
        if self.data.get(key) == value:
            return self.head + self.text + self.tail
        new = "" if value is None else _dump(key, value, end)
        if not self.tail:
            return f"{self.head}---{end}{new}{end}---{end}"
        start, stop = self._span(key)
        before, after = self.text[:start], self.text[stop:]
        # The last line's end belongs to the tail, so the new key would go on in that line.
        if start == len(self.text) and before.strip() and not before.endswith(("\n", "\r")):
            before += end
        text = before + new + after
        if not new:
            text = before + after.lstrip("\r\n") if after.strip() else before.rstrip("\r\n")
        self._verify(text, key, value)
        return self.head + text + self.tail

    def _span(self, key: str) -> tuple[int, int]:
        """Where the key's lines begin and end, without the comments and blank lines after them; the
        text's end where it has none.
        """
        import yaml

        root = yaml.compose(self.text, Loader=yaml.SafeLoader)
        if root is None:
            return len(self.text), len(self.text)
        if not isinstance(root, yaml.MappingNode) or root.flow_style:
            raise InputError(
                "The card's metadata is written in braces. Write it one `key: value` a line."
            )
        found = [(name, content) for name, content in root.value if name.value == key]
        if not found:
            return len(self.text), len(self.text)
        if len(found) > 1:
            raise InputError(f"The card's metadata has {key} twice. Remove one.")
        start, stop = found[0][0].start_mark.index, found[0][1].end_mark.index
        # PyYAML lets a block end after the comments and blank lines behind it.
        lines = self.text[start:stop].splitlines(keepends=True)
        while len(lines) > 1 and (not lines[-1].strip() or lines[-1].lstrip().startswith("#")):
            lines.pop()
        return start, start + len("".join(lines).rstrip("\r\n"))

    def _verify(self, text: str, key: str, value: Any) -> None:
        """The edited text must say the same under every other key."""
        import yaml

        try:
            after = yaml.safe_load(text) or {}
        except yaml.YAMLError:
            after = None
        wanted = {name: content for name, content in self.data.items() if name != key} | (
            {} if value is None else {key: value}
        )
        if after != wanted:
            raise InputError(
                f"The card's metadata is written so that {key} cannot be replaced alone (an"
                " anchor?). Write it without."
            )


def _dump(key: str, value: Any, end: str) -> str:
    import yaml

    # width: PyYAML would fold long texts.
    text = yaml.safe_dump({key: value}, sort_keys=False, allow_unicode=True, width=1000).rstrip(
        "\n"
    )
    return str(text).replace("\n", end)
