"""Bringing a dataset from the hub, once, into the user's cache. The only module that imports
`datasets`.
"""

import json
import tempfile
from collections.abc import Iterable
from pathlib import Path

from evals.data.dataset import Dataset, LoadedSource, Table, content_hash
from evals.data.files import Row
from evals.data.load import fetched_folder
from evals.errors import EnvironmentFault, InputError, first_line
from evals.storage.files import json_line


def fetch(dataset: Dataset, mirror: Path | None = None, into: Path | None = None) -> LoadedSource:
    """Bring a dataset from the hub at its pinned revision (or the newest, whose revision is then
    recorded) and keep it.

    mirror: a folder that holds hub repositories as `<owner>/<name>`, read instead of the hub; its
    revision is not known.
    Raises InputError when the hub cannot be reached or when the rows are not the ones the protocol
    was written for, EnvironmentFault when the copy cannot be kept.
    """
    revision = None if mirror else _resolved_revision(dataset)
    if mirror is not None and not (mirror / dataset.hub_id).is_dir():
        raise InputError(
            f"The mirror {mirror} has no folder {dataset.hub_id}. Lay it out as the hub's"
            " repositories: owner/name/files."
        )
    tables: dict[str, list[Row]] = {}
    # What `datasets` writes for itself is of no use once the rows are kept in their own form.
    with tempfile.TemporaryDirectory() as cache_dir:
        for name, table in dataset.tables.items():
            try:
                tables[name] = _hub_rows(dataset, table, mirror, revision, cache_dir)
            except Exception as error:  # `datasets` raises anything; the user gets one sentence
                if table.optional:
                    continue
                raise InputError(
                    f"{dataset.hub_id} ({name}) could not be read from {mirror or 'the hub'}:"
                    f" {first_line(error)}. Check the connection, or use the public file through"
                    " --data."
                ) from error
    for name, rows in tables.items():
        if dataset.content_sha256(name) not in (None, content_hash(rows)):
            raise InputError(
                f"{dataset.hub_id} ({name}, {len(rows):,} rows) is not the edition the protocol"
                " uses: its content differs from the public file's. Use the public file through"
                " --data instead."
            )
    loaded = LoadedSource.of(tables, "hub", revision)
    _keep(loaded, (into or fetched_folder()) / dataset.name)
    return loaded


def _keep(loaded: LoadedSource, home: Path) -> None:
    """Write the tables, and last the record that makes them count."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        for name, rows in loaded.tables.items():
            _replace(home / f"{name}.jsonl", "".join(json_line(row) + "\n" for row in rows))
        _replace(
            home / "fetched.json",
            json.dumps({"revision": loaded.revision, "tables": loaded.edition}, indent=1),
        )
    except OSError as error:
        raise EnvironmentFault(
            f"{home} cannot be written: {error.strerror}. Free it, or set XDG_CACHE_HOME to another"
            " folder."
        ) from error


def _replace(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def _resolved_revision(dataset: Dataset) -> str | None:
    """The commit behind the pinned revision, or behind the newest; asked first, so that a hub out
    of reach is known at once.
    """
    from huggingface_hub import HfApi

    try:
        revision: str | None = HfApi().dataset_info(dataset.hub_id, revision=dataset.revision).sha
    except Exception as error:  # network errors of every kind
        raise InputError(
            f"The hub has no answer for {dataset.hub_id} ({first_line(error)}). Check the"
            " connection, or use a copy: a mirror with `evals data fetch --from DIR`, or the public"
            " files with `evals run --data DIR`."
        ) from error
    return revision


def _hub_rows(
    dataset: Dataset, table: Table, mirror: Path | None, revision: str | None, cache_dir: str
) -> list[Row]:
    hub = table.hub
    repository = str(mirror / dataset.hub_id) if mirror else dataset.hub_id
    if hub.file is not None:
        if mirror is not None:
            path = mirror / dataset.hub_id / hub.file
        else:
            from huggingface_hub import hf_hub_download

            path = Path(
                hf_hub_download(repository, hub.file, repo_type="dataset", revision=revision)
            )
        with path.open("rb") as file:
            return [table.canonical(hub.adapt(row), "") for row in table.read(file)]
    from datasets import load_dataset

    def load(config: str | None) -> Iterable[Row]:
        rows: Iterable[Row] = load_dataset(
            repository, config, split=hub.split, revision=revision, cache_dir=cache_dir
        )
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
