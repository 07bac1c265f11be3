"""What a dataset is, and the proof that its rows are the right ones.

A benchmark declares a `Dataset`: its tables, each with its path in a local folder (the public
files' own formats) and its place on the hub. Both roads give the same canonical rows, held to the
same content hash.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import IO, Any, Protocol

from evals.data.files import FileRecord, Row


@dataclass(frozen=True)
class HubTable:
    """Where a table lives on the hub: config and split, or one file; `part_field` names the column
    that tells the parts apart.

    adapt: a hub row -> the canonical row.  config may hold "{part}".
    """

    split: str = "test"
    config: str | None = None
    file: str | None = None
    part_field: str | None = None
    adapt: Callable[[Row], Row] = dict


@dataclass(frozen=True)
class Table:
    """One table of a dataset.

    path: file below the data folder, "{part}" standing for each of `parts` (subjects, tasks).
    read: that file, open -> rows, maybe one by one.  fields: those the protocol uses; canonical
    rows hold exactly these, and "part".
    """

    path: str
    fields: tuple[str, ...]
    read: Callable[[IO[bytes]], Iterable[Row]]
    hub: HubTable
    parts: tuple[str, ...] = ("",)
    optional: bool = False

    def path_of(self, part: str) -> str:
        """The path of one part below the data folder."""
        return self.path.replace("{part}", part)

    def canonical(self, row: Row, part: str) -> Row:
        """The row reduced to the fields used. Raises KeyError naming a missing field."""
        return {"part": part} | {name: row[name] for name in self.fields}


@dataclass(frozen=True)
class Dataset:
    """A benchmark's data: tables by name, the hub repository with its pinned revision (None: not
    known yet), the licence.

    files: checksums by path; those of the card's eight benchmarks are in tasks/checksums.json.
    package_file: finds a copy that an installed package ships; smoke_rows: how many of its rows the
    smoke suite takes.  home: the folder of a benchmark of the user's own: its smoke items lie in
    `smoke` there, its data in `data`, at the tables' paths.
    own: brings the rows in a way of its own, in every suite.
    """

    name: str
    hub_id: str
    licence: str
    url: str
    tables: Mapping[str, Table]
    revision: str | None = None
    files: Mapping[str, FileRecord] | None = None
    package_file: Callable[[], Path] | None = None
    smoke_rows: int | None = None
    home: Path | None = None
    own: Callable[[], "LoadedSource"] | None = None

    def record(self, path: str) -> FileRecord | None:
        """The expected checksum and rows of a file."""
        if self.files is not None:
            return self.files.get(path)
        entry = _checksums()["files"].get(path)
        return FileRecord(*entry) if entry else None

    def content_sha256(self, table: str) -> str | None:
        """The expected hash over a table's canonical rows."""
        found: str | None = _checksums()["content"].get(f"{self.name}/{table}")
        return found


class Source(Protocol):
    """Rows of one dataset, already verified."""

    def rows(self, table: str) -> Sequence[Row]:
        """Canonical rows of a table, parts in the declared order, rows in file order."""


@dataclass(frozen=True)
class LoadedSource:
    """Rows with their provenance: origin, revision, and per table the rows and the content hash."""

    tables: Mapping[str, Sequence[Row]]
    origin: str
    revision: str | None = None
    edition: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @classmethod
    def of(
        cls, tables: Mapping[str, Sequence[Row]], origin: str, revision: str | None = None
    ) -> "LoadedSource":
        """These tables, each that holds anything counted and hashed."""
        edition = {
            name: {"rows": len(rows), "sha256": content_hash(rows)}
            for name, rows in tables.items()
            if rows
        }
        return cls(tables, origin, revision, edition)

    def rows(self, table: str) -> Sequence[Row]:
        """See Source."""
        return self.tables.get(table, ())


def content_hash(rows: Iterable[Row]) -> str:
    """SHA-256 over canonical rows in order: the same for a local file and for the
    hub's copy of it.
    """
    digest = hashlib.sha256()
    for row in rows:
        digest.update(
            json.dumps(row, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode(
                "utf-8", "surrogatepass"
            )
        )
        digest.update(b"\n")
    return digest.hexdigest()


@cache
def _checksums() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(
        resources.files("tasks").joinpath("checksums.json").read_text("utf-8")
    )
    return loaded
