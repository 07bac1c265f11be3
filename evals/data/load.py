"""Bringing a dataset's rows into a run: from the user's folder, from what was fetched, from the
package that ships them.

Nothing damaged is passed over for another copy, and everything missing is told at once.
"""

import io
import json
import os
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import IO

from evals.data.dataset import Dataset, LoadedSource, Table, content_hash
from evals.data.files import UNREADABLE, Hashed, Row, difference, read_jsonl
from evals.errors import InputError, first_line
from evals.storage.spool import Spool


def data_folder(data: Path | None) -> Path | None:
    """The user's data folder: the argument, else EVALS_DATA, else None. Raises InputError when it
    is not a folder.
    """
    chosen = data or (Path(os.environ["EVALS_DATA"]) if os.environ.get("EVALS_DATA") else None)
    if chosen is not None and not os.path.isdir(chosen):
        raise InputError(
            f"The data folder {chosen} is not a folder. Give --data or EVALS_DATA one as `evals"
            " data list` lays it out."
        )
    return chosen


def fetched_folder() -> Path:
    """Where `evals data fetch` keeps what it brought."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "evals" / "data"


def load_card_data(datasets: Sequence[Dataset], data: Path | None) -> dict[str, LoadedSource]:
    """Every dataset, verified; by name.

    Looks in the data folder first, then among fetched data, then in the package that ships the
    data.
    Raises InputError listing everything missing or damaged at once, with the command that brings
    it.
    """
    folder = data_folder(data)
    problems: list[str] = []
    missing: list[Dataset] = []
    loaded: dict[str, LoadedSource] = {}
    for dataset in datasets:
        before = len(problems)
        source = dataset.own() if dataset.own else _first_found(dataset, folder, problems)
        if source is not None:
            loaded[dataset.name] = source
        elif len(problems) == before:
            missing.append(dataset)
    if missing:
        where = f" in {folder}" if folder else ""
        wanted = ", ".join(f"{dataset.name} ({_wanted_files(dataset)})" for dataset in missing)
        problems.append(
            f"No data{where} for {wanted}. Bring it with: evals data fetch"
            f" {' '.join(dataset.name for dataset in missing)} — or name a folder that has it with"
            " --data."
        )
    if problems:
        raise InputError("\n".join(problems))
    return loaded


def _first_found(dataset: Dataset, folder: Path | None, problems: list[str]) -> LoadedSource | None:
    """The first copy there is. A damaged one is reported, never passed over for the next."""
    before = len(problems)
    source = _from_folder(dataset, folder, problems) if folder is not None else None
    if source is None and dataset.home is not None and len(problems) == before:
        source = _from_folder(dataset, dataset.home / "data", problems)
    if source is None and len(problems) == before:
        source = _from_fetched(dataset, fetched_folder(), problems)
    if source is None and len(problems) == before:
        source = _from_package(dataset, problems)
    return source


def _wanted_files(dataset: Dataset) -> str:
    first, *others = [
        table.path_of(part)
        for table in dataset.tables.values()
        if not table.optional
        for part in table.parts
    ]
    return f"{first} and {len(others)} more" if others else first


def load_smoke_data(dataset: Dataset) -> LoadedSource:
    """The smoke items shipped with the program, in the public files' own formats."""
    if dataset.own:
        return dataset.own()
    if dataset.smoke_rows is not None:
        problems: list[str] = []
        whole = _from_package(dataset, problems)
        if whole is None:
            raise InputError(
                "\n".join(problems) or f"The package that ships {dataset.name} is not installed."
            )
        tables = {name: Spool(rows[: dataset.smoke_rows]) for name, rows in whole.tables.items()}
        return LoadedSource.of(tables, "package")
    root = (dataset.home or Path(str(resources.files("tasks")))) / "smoke"
    tables = {}
    for name, table in dataset.tables.items():
        parts = [part for part in table.parts if (root / table.path_of(part)).is_file()]
        if not parts and not table.optional:
            where, mend = ("this installation", "Install it again.")
            if dataset.home:
                where, mend = (str(root), "Put a few rows there, in the form of the whole data.")
            raise InputError(
                f"The smoke items of {dataset.name} ({table.path}) are not in {where}. {mend}"
            )
        tables[name] = Spool()
        for part in parts:
            path = root / table.path_of(part)
            with path.open("rb") as file:
                if flaw := _parse(table, part, file, tables[name]):
                    raise InputError(f"{path} cannot be read as this benchmark's file: {flaw}.")
    return LoadedSource.of(tables, "smoke")


def _from_folder(dataset: Dataset, folder: Path, problems: list[str]) -> LoadedSource | None:
    """The dataset from a local folder; None when the folder has none of it. Damage is appended to
    `problems`.
    """
    paths = [(name, table, part) for name, table in dataset.tables.items() for part in table.parts]
    if not any((folder / table.path_of(part)).exists() for _, table, part in paths):
        return None
    before = len(problems)
    tables: dict[str, Spool[Row]] = {name: Spool() for name in dataset.tables}
    for name, table, part in paths:
        path = table.path_of(part)
        if not (folder / path).exists() and table.optional:
            tables[name] = _fetched_table(dataset, name)
            continue
        _read_file(dataset, table, part, folder / path, tables[name], problems)
    return LoadedSource.of(tables, "folder") if len(problems) == before else None


def _fetched_table(dataset: Dataset, name: str) -> Spool[Row]:
    """An optional table that the user's folder lacks, from what `evals data fetch` brought; empty
    where that has none, or not the one it wrote.
    """
    home = fetched_folder() / dataset.name
    try:
        wanted = json.loads((home / "fetched.json").read_text("utf-8"))["tables"][name]["sha256"]
        with (home / f"{name}.jsonl").open("rb") as file:
            rows = Spool(read_jsonl(file))
    except (OSError, LookupError, TypeError, *UNREADABLE):
        return Spool()
    return rows if content_hash(rows) == wanted else Spool()


def _read_file(
    dataset: Dataset, table: Table, part: str, file: Path, rows: Spool[Row], problems: list[str]
) -> None:
    """Append a file's canonical rows to those there are, and what is wrong with it to
    the problems.
    """
    path = table.path_of(part)
    label = path if path.startswith(f"{dataset.name}/") else f"{dataset.name}/{path}"
    expected = dataset.record(path)
    before = len(rows)
    try:
        # One buffer only, behind the hash: what is parsed is what was hashed.
        with file.open("rb", buffering=0) as opened:
            hashed = Hashed(opened)
            stream = io.BufferedReader(hashed)
            flaw = _parse(table, part, stream, rows)
            while stream.read(1 << 20):
                pass  # what a flaw left unread belongs to the hash
        n_rows = len(rows) - before
        if expected is not None and hashed.digest.hexdigest() != expected.sha256:
            what = difference(file.read_bytes(), n_rows, flaw, expected)
            problems.append(
                f"{label} is damaged or another edition: {what}. Replace it with the public file."
            )
        elif flaw is not None or not n_rows:
            what = flaw or "it holds no rows"
            problems.append(
                f"{label} cannot be read as this benchmark's file: {what}. Replace it with the"
                " public file."
            )
    except FileNotFoundError:
        problems.append(
            f"{label} is missing from {file.parent}. Put the public file there (evals data list"
            " says where it comes from)."
        )
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
    except InputError as error:  # rows that can be read, but not kept
        return str(error)
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
    return LoadedSource.of({name: rows}, "package") if len(problems) == before else None


def _from_fetched(dataset: Dataset, folder: Path, problems: list[str]) -> LoadedSource | None:
    home = folder / dataset.name
    record = home / "fetched.json"
    if not record.is_file():
        return None
    copy, again = (
        f"{dataset.name}: the fetched copy in {home}",
        f"Fetch it again: evals data fetch {dataset.name}",
    )
    tables: dict[str, Spool[Row]] = {}
    try:
        fetched = json.loads(record.read_text("utf-8"))
        revision, hashes = (
            fetched["revision"],
            {name: fetched["tables"][name]["sha256"] for name in fetched["tables"]},
        )
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
    return LoadedSource.of(tables, "hub", revision)
