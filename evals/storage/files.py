"""Reading lines of files that may be a stranger's, and writing what stays one line for whoever
reads it.
"""

import gzip
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MAX_LINE = 32 << 20
MAX_FILE = 1 << 30
"""Bytes of a line, and of all lines of a file once it is unpacked: several times what the largest
benchmark's answers take.
"""


class TooMuchError(ValueError):
    """A file holds more than any of ours: a stranger's must not fill the machine."""


def bounded_lines(file: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a plain or gzipped file that are not blank, numbered from 1.

    Raises TooMuchError past MAX_LINE or MAX_FILE, and OSError, EOFError or zlib.error when the file
    cannot be read to its end.
    """
    number = n_bytes = 0
    with gzip.open(file, "rb") if file.suffix == ".gz" else file.open("rb") as stream:
        while line := stream.readline(MAX_LINE + 1):
            number, n_bytes = number + 1, n_bytes + len(line)
            if len(line) > MAX_LINE:
                raise TooMuchError(f"line {number}: longer than {MAX_LINE >> 20} MB")
            if n_bytes > MAX_FILE:
                raise TooMuchError(f"line {number}: more than {MAX_FILE >> 20:,} MB up to here")
            if line.strip():
                yield number, line


# JSON itself escapes every other character at which a line ends for somebody (str.splitlines, Java,
# JavaScript): all below U+0020, U+000B, U+000C and U+001C to U+001E among them. These three it
# leaves as they are, and of a lone surrogate UTF-8 has no bytes.
_RAW_IN_JSON = re.compile("[\u0085\u2028\u2029\ud800-\udfff]")


def line_safe(text: str) -> str:
    """JSON text with those characters escaped that end a line for some reader, or cannot be
    written as UTF-8; the same value to whoever reads the JSON.
    """
    return _RAW_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def json_line(value: Any) -> str:
    """A JSON value as one line, without its end. No line of JSON is written otherwise: a model's
    words may hold any character.
    """
    return line_safe(json.dumps(value, ensure_ascii=False))


def one_line(text: str) -> str:
    """Any text as one printable line: controls, line ends, lone surrogates and direction marks
    become single spaces.
    """
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def visible(text: str) -> str:
    """Text with control characters written out, so that others' words cannot steer the terminal;
    line ends and tabs stay.
    """
    return "".join(
        c if c in "\n\t" or c.isprintable() else c.encode("unicode_escape").decode("ascii")
        for c in text
    )
