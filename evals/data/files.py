"""Reading the public data files, and saying how one differs from what it should be."""

import csv
import gzip
import hashlib
import io
import json
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import IO, Any

from evals.errors import first_line

Row = dict[str, Any]
Raw = bytes | IO[bytes]
"""What a file holds, or the open file."""
UNREADABLE = (
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    OSError,
    EOFError,
    RecursionError,
    csv.Error,
    zlib.error,
)
"""What reading a damaged file may raise."""

_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class FileRecord:
    """What a public file must be: its SHA-256 and its rows (None: not known)."""

    sha256: str
    rows: int | None


def read_jsonl(raw: Raw) -> Iterator[Row]:
    """Rows of a JSON-lines file, read as they are taken."""
    return _rows(_stream(raw))


def read_jsonl_gz(raw: Raw) -> Iterator[Row]:
    """Rows of a gzipped JSON-lines file, read as they are taken."""
    return _rows(gzip.open(_stream(raw)))


def _rows(lines: Iterable[bytes]) -> Iterator[Row]:
    # Only \n ends a line: str.splitlines would also cut at U+2028 and U+0085, which JSON strings
    # may hold.
    for number, line in enumerate(lines, 1):
        try:
            text = line.decode("utf-8")
            if text.strip():
                yield json.loads(text)
        except ValueError as error:
            raise ValueError(f"line {number}: {first_line(error)}") from error


def read_json(raw: Raw) -> list[Row]:
    """Rows of a JSON array."""
    rows: list[Row] = json.loads(_stream(raw).read().decode("utf-8"))
    return rows


def read_csv(raw: Raw) -> Iterator[Row]:
    """Rows of a CSV file with a header; a leading byte-order mark is dropped, cells are kept as
    they are.
    """
    return csv.DictReader(io.StringIO(_stream(raw).read().decode("utf-8-sig"), newline=""))


def _stream(raw: Raw) -> IO[bytes]:
    return io.BytesIO(raw) if isinstance(raw, bytes) else raw


class Hashed(io.RawIOBase):
    """An open file whose content is hashed as it is read, so that what was checked is what was
    parsed.
    """

    def __init__(self, file: io.FileIO) -> None:
        self.file = file
        self.digest = hashlib.sha256()

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """See io.RawIOBase."""
        n = self.file.readinto(buffer) or 0
        self.digest.update(memoryview(buffer)[:n])
        return n


def difference(raw: bytes, n_rows: int, flaw: str | None, expected: FileRecord) -> str:
    """How a file differs from the public one, as far as its bytes tell: what copying and saving do
    to files, by name.
    """
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
    return (
        f"its SHA-256 is {hashlib.sha256(raw).hexdigest()[:12]}…, the public file's"
        f" {expected.sha256[:12]}…"
    )
