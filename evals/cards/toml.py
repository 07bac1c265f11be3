"""TOML of files that may be a stranger's: cards, and whatever else is written so."""

import tomllib
from typing import Any

_MOST_DOTS = 500
"""In a line: a key of so many parts is nobody's, and the parser's time for one grows with their
square, to hours for a file of a megabyte.
"""


def read_toml(text: str) -> dict[str, Any]:
    """The tables of a text. Raises ValueError or RecursionError where it is no TOML."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.count(".") > _MOST_DOTS:
            raise ValueError(f"line {number}: more than {_MOST_DOTS} dots")
    return tomllib.loads(text)
