"""Reading the public data files, and saying how one differs from what it should be."""

import csv
import gzip
import hashlib
import io
import json
import zlib
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]
UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, OSError, EOFError, RecursionError, csv.Error, zlib.error)
"""What reading a damaged file may raise."""

_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class FileRecord:
    """What a public file must be: its SHA-256 and its rows (None: not known)."""

    sha256: str
    rows: int | None


def read_jsonl(raw: bytes) -> list[Row]:
    """Rows of a JSON-lines file."""
    # Only \n ends a line: str.splitlines would also cut at U+2028 and U+0085, which JSON strings may hold.
    return [json.loads(line) for line in raw.decode("utf-8").split("\n") if line.strip()]


def read_jsonl_gz(raw: bytes) -> list[Row]:
    """Rows of a gzipped JSON-lines file."""
    return read_jsonl(gzip.decompress(raw))


def read_json(raw: bytes) -> list[Row]:
    """Rows of a JSON array."""
    rows: list[Row] = json.loads(raw.decode("utf-8"))
    return rows


def read_csv(raw: bytes) -> list[Row]:
    """Rows of a CSV file with a header; a leading byte-order mark is dropped, cells are kept as they are."""
    return list(csv.DictReader(io.StringIO(raw.decode("utf-8-sig"), newline="")))


def difference(raw: bytes, n_rows: int, flaw: str | None, expected: FileRecord) -> str:
    """How a file differs from the public one, as far as its bytes tell: what copying and saving do to files, by name."""
    if not raw:
        return "it is empty"
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "it is UTF-16 text, the public file is UTF-8"
    if raw.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer, not the file itself"
    lf = raw.replace(b"\r\n", b"\n")
    for what, restored in (
        ("it begins with a byte-order mark, the public file does not", raw.removeprefix(_BOM)),
        ("its byte-order mark is gone", _BOM + raw),
        ("its line ends became CRLF", lf),
        ("its line ends became LF", lf.replace(b"\n", b"\r\n")),
    ):
        if hashlib.sha256(restored).hexdigest() == expected.sha256:
            return what
    if flaw is not None:
        return flaw
    if expected.rows not in (None, n_rows):
        return f"it holds {n_rows:,} rows, the public file {expected.rows:,}"
    return f"its SHA-256 is {hashlib.sha256(raw).hexdigest()[:12]}…, the public file's {expected.sha256[:12]}…"


def first_line(error: BaseException) -> str:
    """An exception in one line: its type and the first line of its message."""
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
