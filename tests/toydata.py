"""A toy dataset for tests of evals/data/, and the error a user would see."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from evals.data.dataset import Dataset, HubTable, Table
from evals.data.files import FileRecord, read_jsonl
from evals.errors import InputError
from evals.registry import benchmark_class


def dataset_of(name: str) -> Dataset:
    """The data a registered benchmark declares."""
    return benchmark_class(name).dataset


def failure(call: Callable[[], object]) -> str:
    """The message of the InputError that `call` raises."""
    with pytest.raises(InputError) as caught:
        call()
    assert caught.value.exit_code == 2
    return str(caught.value)


def toy(
    read: Callable[[bytes], Any] = read_jsonl, *, files: Mapping[str, FileRecord] | None = None
) -> Dataset:
    """A dataset of one table; no checksum is known unless `files` has it."""
    table = Table("toy/rows.jsonl", ("question", "answer"), read, HubTable(file="rows.jsonl"))
    return Dataset("toy", "me/toy", "MIT", "here", {"rows": table}, files=files or {})


TOY = toy()
ROWS = [{"question": f"{n}\u2028+\u00851?", "answer": n + 1} for n in range(3)]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()


def toy_folder(folder: Path, raw: bytes) -> Path:
    """A data folder whose toy file holds `raw`."""
    (folder / "toy").mkdir(exist_ok=True, parents=True)
    (folder / "toy" / "rows.jsonl").write_bytes(raw)
    return folder


def mirrored(mirror: Path, raw: bytes, repository: str = "me/toy") -> Path:
    """A mirror of the hub whose toy repository holds `raw`."""
    (mirror / repository).mkdir(parents=True, exist_ok=True)
    (mirror / repository / "rows.jsonl").write_bytes(raw)
    return mirror
