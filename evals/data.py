"""Where benchmark rows come from, and the proof that they are the right ones.

A benchmark declares a `Dataset`: its tables, each with its path in a local folder (the public files' own formats) and its
place on the hub. Both roads give the same canonical rows, held to the same content hash. The only module that imports `datasets`.
"""

import hashlib
import io
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import IO, Any, Protocol

from evals.errors import EnvironmentFault, InputError
from evals.files import UNREADABLE, FileRecord, Hashed, Row, difference, first_line, read_csv, read_json, read_jsonl, read_jsonl_gz
from evals.spool import Spool

__all__ = ["Dataset", "FileRecord", "HubTable", "LoadedSource", "Row", "Source", "Table", "content_hash", "data_folder", "fetch"]
__all__ += ["fetched_folder", "load_card_data", "load_smoke_data", "read_csv", "read_json", "read_jsonl", "read_jsonl_gz"]


@dataclass(frozen=True)
class HubTable:
    """Where a table lives on the hub: config and split, or one file; `part_field` names the column that tells the parts apart.

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
    read: that file, open -> rows, maybe one by one.  fields: those the protocol uses; canonical rows hold exactly these, and "part".
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
    """A benchmark's data: tables by name, the hub repository with its pinned revision (None: not known yet), the licence.

    files: checksums by path; those of the card's eight benchmarks are in tasks/checksums.json.
    package_file: finds a copy that an installed package ships; smoke_rows: how many of its rows the smoke suite takes.
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

    def rows(self, table: str) -> Sequence[Row]:
        """See Source."""
        return self.tables.get(table, ())


def content_hash(rows: Iterable[Row]) -> str:
    """SHA-256 over canonical rows in order: the same for a local file and for the hub's copy of it."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass"))
        digest.update(b"\n")
    return digest.hexdigest()


@cache
def _checksums() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(resources.files("tasks").joinpath("checksums.json").read_text("utf-8"))
    return loaded


def data_folder(data: Path | None) -> Path | None:
    """The user's data folder: the argument, else EVALS_DATA, else None. Raises InputError when it is not a folder."""
    chosen = data or (Path(os.environ["EVALS_DATA"]) if os.environ.get("EVALS_DATA") else None)
    if chosen is not None and not os.path.isdir(chosen):
        raise InputError(f"The data folder {chosen} is not a folder. Give --data or EVALS_DATA one as `evals data list` lays it out.")
    return chosen


def fetched_folder() -> Path:
    """Where `evals data fetch` keeps what it brought."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "evals" / "data"


def load_card_data(datasets: Sequence[Dataset], data: Path | None) -> dict[str, LoadedSource]:
    """Every dataset, verified; by name.

    Looks in the data folder first, then among fetched data, then in the package that ships the data.
    Raises InputError listing everything missing or damaged at once, with the command that brings it.
    """
    folder = data_folder(data)
    problems: list[str] = []
    missing: list[Dataset] = []
    loaded: dict[str, LoadedSource] = {}
    for dataset in datasets:
        before = len(problems)
        source = _first_found(dataset, folder, problems)
        if source is not None:
            loaded[dataset.name] = source
        elif len(problems) == before:
            missing.append(dataset)
    if missing:
        where = f" in {folder}" if folder else ""
        wanted = ", ".join(f"{dataset.name} ({_wanted_files(dataset)})" for dataset in missing)
        problems.append(
            f"No data{where} for {wanted}. Bring it with: evals data fetch {' '.join(dataset.name for dataset in missing)} — "
            f"or name a folder that has it with --data."
        )
    if problems:
        raise InputError("\n".join(problems))
    return loaded


def _first_found(dataset: Dataset, folder: Path | None, problems: list[str]) -> LoadedSource | None:
    """The first copy there is. A damaged one is reported, never passed over for the next."""
    before = len(problems)
    source = _from_folder(dataset, folder, problems) if folder is not None else None
    if source is None and len(problems) == before:
        source = _from_fetched(dataset, fetched_folder(), problems)
    if source is None and len(problems) == before:
        source = _from_package(dataset, problems)
    return source


def _wanted_files(dataset: Dataset) -> str:
    first, *others = [table.path_of(part) for table in dataset.tables.values() if not table.optional for part in table.parts]
    return f"{first} and {len(others)} more" if others else first


def load_smoke_data(dataset: Dataset) -> LoadedSource:
    """The smoke items shipped with the program, in the public files' own formats."""
    if dataset.smoke_rows is not None:
        problems: list[str] = []
        whole = _from_package(dataset, problems)
        if whole is None:
            raise InputError("\n".join(problems) or f"The package that ships {dataset.name} is not installed.")
        tables = {name: Spool(rows[: dataset.smoke_rows]) for name, rows in whole.tables.items()}
        return _loaded(tables, "package")
    root = Path(str(resources.files("tasks"))) / "smoke"
    tables = {}
    for name, table in dataset.tables.items():
        parts = [part for part in table.parts if (root / table.path_of(part)).is_file()]
        if not parts and not table.optional:
            raise InputError(f"The smoke items of {dataset.name} ({table.path}) are not in this installation. Install it again.")
        tables[name] = Spool()
        for part in parts:
            with (root / table.path_of(part)).open("rb") as file:
                tables[name].extend(table.canonical(row, part) for row in table.read(file))
    return _loaded(tables, "smoke")


def _loaded(tables: Mapping[str, Sequence[Row]], origin: str, revision: str | None = None) -> LoadedSource:
    edition = {name: {"rows": len(rows), "sha256": content_hash(rows)} for name, rows in tables.items() if rows}
    return LoadedSource(tables, origin, revision, edition)


def _from_folder(dataset: Dataset, folder: Path, problems: list[str]) -> LoadedSource | None:
    """The dataset from a local folder; None when the folder has none of it. Damage is appended to `problems`."""
    paths = [(name, table, part) for name, table in dataset.tables.items() for part in table.parts]
    if not any((folder / table.path_of(part)).exists() for _, table, part in paths):
        return None
    before = len(problems)
    tables: dict[str, Spool[Row]] = {name: Spool() for name in dataset.tables}
    for name, table, part in paths:
        path = table.path_of(part)
        if not (folder / path).exists() and table.optional:
            continue
        _read_file(dataset, table, part, folder / path, tables[name], problems)
    return _loaded(tables, "folder") if len(problems) == before else None


def _read_file(dataset: Dataset, table: Table, part: str, file: Path, rows: Spool[Row], problems: list[str]) -> None:
    """Append a file's canonical rows to those there are, and what is wrong with it to the problems."""
    path = table.path_of(part)
    label = path if path.startswith(f"{dataset.name}/") else f"{dataset.name}/{path}"
    expected = dataset.record(path)
    before = len(rows)
    try:
        with file.open("rb", buffering=0) as opened:
            hashed = Hashed(opened)
            stream = io.BufferedReader(hashed)
            flaw = _parse(table, part, stream, rows)
            while stream.read(1 << 20):
                pass  # what a flaw left unread belongs to the hash
        n_rows = len(rows) - before
        if expected is not None and hashed.digest.hexdigest() != expected.sha256:
            what = difference(file.read_bytes(), n_rows, flaw, expected)
            problems.append(f"{label} is damaged or another edition: {what}. Replace it with the public file.")
        elif flaw is not None or not n_rows:
            what = flaw or "it holds no rows"
            problems.append(f"{label} cannot be read as this benchmark's file: {what}. Replace it with the public file.")
    except FileNotFoundError:
        problems.append(f"{label} is missing from {file.parent}. Put the public file there (evals data list says where it comes from).")
    except OSError as error:
        problems.append(f"{label} cannot be read: {error.strerror or error}.")


def _parse(table: Table, part: str, file: IO[bytes], rows: Spool[Row]) -> str | None:
    """Append the canonical rows, and say why they cannot be read where that is so."""
    try:
        rows.extend(table.canonical(row, part) for row in table.read(file))
    except KeyError as error:
        return f"there is no field {error}"
    except UNREADABLE as error:
        return first_line(error)
    return None


def _from_package(dataset: Dataset, problems: list[str]) -> LoadedSource | None:
    if dataset.package_file is None:
        return None
    try:
        file = dataset.package_file()
    except (ImportError, FileNotFoundError):
        return None
    ((name, table),) = dataset.tables.items()
    before = len(problems)
    rows: Spool[Row] = Spool()
    _read_file(dataset, table, "", file, rows, problems)
    return _loaded({name: rows}, "package") if len(problems) == before else None


def _from_fetched(dataset: Dataset, folder: Path, problems: list[str]) -> LoadedSource | None:
    home = folder / dataset.name
    record = home / "fetched.json"
    if not record.is_file():
        return None
    copy, again = f"{dataset.name}: the fetched copy in {home}", f"Fetch it again: evals data fetch {dataset.name}"
    tables: dict[str, Spool[Row]] = {}
    try:
        fetched = json.loads(record.read_text("utf-8"))
        revision, hashes = fetched["revision"], {name: fetched["tables"][name]["sha256"] for name in fetched["tables"]}
        for name in dataset.tables.keys() & hashes.keys():
            with (home / f"{name}.jsonl").open("rb") as file:
                tables[name] = Spool(read_jsonl(file))
    except UNREADABLE as error:
        problems.append(f"{copy} cannot be read ({first_line(error)}). {again}")
        return None
    for name, table in dataset.tables.items():
        found = content_hash(tables[name]) if name in tables else None
        if found is None and not table.optional:
            problems.append(f"{copy} lacks {name}. {again}")
        elif found != hashes.get(name):
            problems.append(f"{copy} has changed ({name}.jsonl). {again}")
        elif found is not None and dataset.content_sha256(name) not in (None, found):
            problems.append(f"{copy} is not the edition the protocol uses ({name}.jsonl). {again}")
        else:
            continue
        return None
    return _loaded(tables, "hub", revision)


def fetch(dataset: Dataset, mirror: Path | None = None, into: Path | None = None) -> LoadedSource:
    """Bring a dataset from the hub at its pinned revision (or the newest, whose revision is then recorded) and keep it.

    mirror: a folder that holds hub repositories as `<owner>/<name>`, read instead of the hub; its revision is not known.
    Raises InputError when the hub cannot be reached or when the rows are not the ones the protocol was written for,
    EnvironmentFault when the copy cannot be kept.
    """
    revision = None if mirror else _resolved_revision(dataset)
    if mirror is not None and not (mirror / dataset.hub_id).is_dir():
        raise InputError(f"The mirror {mirror} has no folder {dataset.hub_id}. Lay it out as the hub's repositories: owner/name/files.")
    tables: dict[str, list[Row]] = {}
    with tempfile.TemporaryDirectory() as cache_dir:
        for name, table in dataset.tables.items():
            try:
                tables[name] = _hub_rows(dataset, table, mirror, revision, cache_dir)
            except Exception as error:  # `datasets` raises anything; the user gets one sentence
                if table.optional:
                    continue
                raise InputError(
                    f"{dataset.hub_id} ({name}) could not be read from {mirror or 'the hub'}: {first_line(error)}. "
                    f"Check the connection, or use the public file through --data."
                ) from error
    for name, rows in tables.items():
        if dataset.content_sha256(name) not in (None, content_hash(rows)):
            raise InputError(
                f"{dataset.hub_id} ({name}, {len(rows):,} rows) is not the edition the protocol uses: its content differs from the "
                f"public file's. Use the public file through --data instead."
            )
    loaded = _loaded(tables, "hub", revision)
    _keep(loaded, (into or fetched_folder()) / dataset.name)
    return loaded


def _keep(loaded: LoadedSource, home: Path) -> None:
    """Write the tables, and last the record that makes them count."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        for name, rows in loaded.tables.items():
            _replace(home / f"{name}.jsonl", "".join(json.dumps(row, ensure_ascii=True) + "\n" for row in rows))
        _replace(home / "fetched.json", json.dumps({"revision": loaded.revision, "tables": loaded.edition}, indent=1))
    except OSError as error:
        raise EnvironmentFault(f"{home} cannot be written: {error.strerror}. Free it, or set XDG_CACHE_HOME to another folder.") from error


def _replace(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def _resolved_revision(dataset: Dataset) -> str | None:
    """The commit behind the pinned revision, or behind the newest; asked first, so that a hub out of reach is known at once."""
    from huggingface_hub import HfApi

    try:
        revision: str | None = HfApi().dataset_info(dataset.hub_id, revision=dataset.revision).sha
    except Exception as error:  # network errors of every kind
        raise InputError(
            f"The hub has no answer for {dataset.hub_id} ({first_line(error)}). Check the connection, or use a local folder with --data."
        ) from error
    return revision


def _hub_rows(dataset: Dataset, table: Table, mirror: Path | None, revision: str | None, cache_dir: str) -> list[Row]:
    hub = table.hub
    repository = str(mirror / dataset.hub_id) if mirror else dataset.hub_id
    if hub.file is not None:
        if mirror is not None:
            path = mirror / dataset.hub_id / hub.file
        else:
            from huggingface_hub import hf_hub_download

            path = Path(hf_hub_download(repository, hub.file, repo_type="dataset", revision=revision))
        with path.open("rb") as file:
            return [table.canonical(hub.adapt(row), "") for row in table.read(file)]
    from datasets import load_dataset

    def load(config: str | None) -> Iterable[Row]:
        rows: Iterable[Row] = load_dataset(repository, config, split=hub.split, revision=revision, cache_dir=cache_dir)
        return rows

    if hub.part_field is None:
        return [
            table.canonical(hub.adapt(row), part)
            for part in table.parts
            for row in load(hub.config.replace("{part}", part) if hub.config else None)
        ]
    by_part: dict[str, list[Row]] = {part: [] for part in table.parts}
    for row in load(hub.config):
        by_part[row[hub.part_field]].append(table.canonical(hub.adapt(row), row[hub.part_field]))
    return [row for part in table.parts for row in by_part[part]]
