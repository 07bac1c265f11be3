"""The run folder: one process at a time, files whole or not at all, equal rows in equal bytes."""

import gzip
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from evals.errors import EnvironmentFault, InputError
from evals.run_folder import RunFolder, to_json

ROWS: list[dict[str, Any]] = [{"id": "a/1", "outputs": ["x\r\u2028\u0085y\ud800", "😀"]}, {"outputs": [], "id": "a/2"}]
HEADER = {"suite": "smoke", "chat_format": "none", "limit": None, "model": {}, "judges": {}}
RECORD = {"summary_header": HEADER, "run_key": "k", "capped": {}, "skipped": {}, "tasks": [], "sessions": []}


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
JSON = st.recursive(LEAVES, lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=3), x, max_size=3), max_leaves=8)


def failure(call: Any) -> str:
    """The sentence of the InputError that `call` raises."""
    with pytest.raises(InputError) as caught:
        call()
    return str(caught.value)


def test_samples_come_back_as_they_were_written(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_samples("a", ROWS)
    assert list(folder.samples("a")) == ROWS
    gzip.decompress(folder.samples_path("a").read_bytes()).decode("utf-8")


def test_equal_rows_give_equal_bytes_whatever_the_order_of_their_fields(tmp_path: Path) -> None:
    first, second = RunFolder(tmp_path / "one"), RunFolder(tmp_path / "two")
    first.write_samples("a", ROWS)
    second.write_samples("a", [dict(reversed(row.items())) for row in ROWS])
    assert first.samples_path("a").read_bytes() == second.samples_path("a").read_bytes()


def test_json_has_sorted_keys_ten_digits_and_no_numbers_json_lacks() -> None:
    assert to_json({"b": 1 / 3, "a": (1, 0.1 + 0.2, math.nan, -math.inf)}, indent=None) == '{"a": [1, 0.3, null, null], "b": 0.3333333333}'


@given(JSON)
@example(sys.float_info.max)
def test_json_is_stable_once_written(value: Any) -> None:
    once = to_json(value)
    assert to_json(json.loads(once)) == once


def test_a_second_run_on_the_folder_is_refused_while_the_first_works(tmp_path: Path) -> None:
    other = "import sys; from pathlib import Path; from evals.run_folder import RunFolder\nwith RunFolder(Path(sys.argv[1])).locked(): pass"
    with RunFolder(tmp_path).locked():
        with pytest.raises(EnvironmentFault, match="Another run is working"), RunFolder(tmp_path).locked():
            raise AssertionError
        beside = subprocess.run([sys.executable, "-c", other, str(tmp_path)], capture_output=True, text=True, check=False)
        assert "EnvironmentFault: Another run is working" in beside.stderr
    with RunFolder(tmp_path).locked():
        pass


def test_a_lock_is_given_back_when_its_run_fails(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), RunFolder(tmp_path).locked():
        raise ZeroDivisionError
    with RunFolder(tmp_path).locked():
        pass


def test_a_place_where_no_folder_can_be_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(EnvironmentFault, match="cannot be written"), RunFolder(path).locked():
            raise AssertionError


def test_a_file_that_cannot_be_replaced_leaves_no_part_behind(tmp_path: Path) -> None:
    (tmp_path / "summary.json").mkdir()
    with pytest.raises(EnvironmentFault, match=r"summary\.json could not be written"):
        RunFolder(tmp_path).write_json("summary.json", {})
    assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]


def test_a_folder_without_a_summary_is_no_finished_run(tmp_path: Path) -> None:
    assert "is not a finished run: it has no summary.json" in failure(lambda: RunFolder(tmp_path).read_json("summary.json"))


BAD_JSON = {"not json": b"{", "no object": b"[1]", "not text": b"\xff\xfe\x00", "deep": b"[" * 100_000, "empty": b""}


@pytest.mark.parametrize("raw", BAD_JSON.values(), ids=BAD_JSON)
@pytest.mark.parametrize("name", ["summary.json", "run.json"])
def test_a_damaged_file_is_named_with_what_to_do(tmp_path: Path, name: str, raw: bytes) -> None:
    (tmp_path / name).write_bytes(raw)
    said = failure(lambda: RunFolder(tmp_path).read_json(name))
    assert str(tmp_path / name) in said
    # `evals score` itself reads run.json, so it cannot make that one again.
    assert ("evals score" in said) == (name == "summary.json")


@pytest.mark.parametrize("part", RECORD)
def test_a_record_that_lacks_a_part_is_damaged(tmp_path: Path, part: str) -> None:
    folder = RunFolder(tmp_path)
    folder.write_json("run.json", RECORD)
    assert folder.read_json("run.json") == RECORD
    folder.write_json("run.json", {**RECORD, part: None})
    assert "run.json is damaged" in failure(lambda: folder.read_json("run.json"))


def test_samples_that_cannot_be_read_are_named_with_what_to_do(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    path = folder.samples_path("a")
    assert str(path) in failure(lambda: list(folder.samples("a")))
    folder.write_samples("a", [{"id": f"a/{n}", "outputs": [str(n) * n]} for n in range(200)])
    whole = path.read_bytes()
    damaged = [whole[:-20], whole[:60] + bytes(80) + whole[140:], b"plain text", gzip.compress(b'{"id": '), gzip.compress(b"[" * 100_000)]
    for raw in damaged:
        path.write_bytes(raw)
        assert "evals score" in failure(lambda: list(folder.samples("a")))


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"schema": "1"},
        {"schema": 1, "cells": 3},
        {"schema": 1, "cells": {"mmlu": 0.5}},
        {"schema": 1, "cells": {"mmlu": {"value": "x"}}},
    ],
)
def test_a_summary_without_schema_or_numbers_is_damaged_and_can_be_made_again(tmp_path: Path, content: dict[str, Any]) -> None:
    folder = RunFolder(tmp_path)
    folder.write_json("summary.json", content)
    said = failure(lambda: folder.read_json("summary.json"))
    assert f"{tmp_path / 'summary.json'} is damaged" in said
    assert f"evals score {tmp_path}" in said
