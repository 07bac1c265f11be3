"""What `evals data` says of each dataset, and bringing it."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from evals.data.dataset import Dataset
from evals.data.files import FileRecord
from evals.data.hub import fetch
from evals.data.load import data_folder, fetched_folder, load_card_data
from evals.errors import InputError
from evals.registry import BENCHMARKS, benchmark_class


def _datasets(names: Sequence[str] = ()) -> list[Dataset]:
    return [benchmark_class(name).dataset for name in names or BENCHMARKS]


def listing(data: Path | None) -> str:
    """One paragraph a dataset: hub id, revision, licence, address, files with checksums and rows,
    and where it was found.
    """
    folder = data_folder(data)
    lines = []
    for dataset in _datasets():
        lines.append(f"{dataset.name}: {_state(dataset, folder)}")
        lines.append(
            f"  hub {dataset.hub_id} at"
            f" {dataset.revision or 'the revision recorded at the first fetch'} · licence"
            f" {dataset.licence}"
        )
        lines.append(f"  public files: {dataset.url}")
        for table in dataset.tables.values():
            records = [
                (table.path_of(part), dataset.record(table.path_of(part))) for part in table.parts
            ]
            rows = sum(record.rows or 0 for _, record in records if record)
            name = table.path if len(records) > 1 else records[0][0]
            proof = _checksum([one for _, one in records])
            optional = " (optional)" if table.optional else ""
            lines.append(f"  {name}: {rows or '?'} rows, {proof}{optional}")
    return "\n".join(lines)


def _checksum(records: Sequence[FileRecord | None]) -> str:
    pinned = [record.sha256 for record in records if record]
    if len(pinned) < len(records):
        return "no checksum pinned"
    return (
        f"sha256 {pinned[0]}" if len(pinned) == 1 else f"{len(pinned)} files, each with its sha256"
    )


def _state(dataset: Dataset, folder: Path | None) -> str:
    try:
        source = load_card_data([dataset], folder)[dataset.name]
    except InputError as error:
        # Missing and damaged data are one class of error: only the words tell them apart.
        text = str(error)
        return (
            "not on this machine"
            if text.startswith("No data")
            else f"damaged: {text.splitlines()[0]}"
        )
    where = {
        "folder": f"in {folder}",
        "hub": f"fetched, in {fetched_folder()}",
        "package": "shipped with an installed package",
    }
    return f"here ({where.get(source.origin, source.origin)})"


def verify(data: Path | None) -> str:
    """Load every dataset with all checks; raises InputError listing everything missing
    or damaged.
    """
    sources = load_card_data(_datasets(), data_folder(data))
    rows = {
        name: sum(int(table["rows"]) for table in source.edition.values())
        for name, source in sources.items()
    }
    return "\n".join(f"{name}: {count:,} rows, as published" for name, count in rows.items())


def fetch_all(names: Sequence[str], mirror: Path | None) -> Iterator[str]:
    """Fetch datasets one by one, saying what came. Raises InputError at the first that cannot be
    had.
    """
    for dataset in _datasets(names):
        source = fetch(dataset, mirror)
        rows = sum(int(table["rows"]) for table in source.edition.values())
        absent = [table.path for name, table in dataset.tables.items() if name not in source.tables]
        without = f", without {', '.join(absent)}, which could not be read" if absent else ""
        yield (
            f"{dataset.name}: {rows:,} rows from {dataset.hub_id} at"
            f" {source.revision or 'the mirror’s revision'}{without}"
        )
