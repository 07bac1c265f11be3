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
from evals.storage.run_folder import RunFolder, to_json
from tests.run_files import RECORD, summary

ROWS: list[dict[str, Any]] = [
    {"id": "a/1", "outputs": ["x\r\u2028\u0085y\ud800", "😀"]},
    {"outputs": [], "id": "a/2"},
]

LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
JSON = st.recursive(
    LEAVES,
    lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=3), x, max_size=3),
    max_leaves=8,
)


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
    assert (
        to_json({"b": 1 / 3, "a": (1, 0.1 + 0.2, math.nan, -math.inf)}, indent=None)
        == '{"a": [1, 0.3, null, null], "b": 0.3333333333}'
    )


@given(JSON)
@example(sys.float_info.max)
def test_json_is_stable_once_written(value: Any) -> None:
    once = to_json(value)
    assert to_json(json.loads(once)) == once


def test_a_second_run_on_the_folder_is_refused_while_the_first_works(tmp_path: Path) -> None:
    other = "import sys\nfrom pathlib import Path\nfrom evals.storage.run_folder import RunFolder\n"
    other += "with RunFolder(Path(sys.argv[1])).locked(): pass"
    with RunFolder(tmp_path).locked():
        with (
            pytest.raises(EnvironmentFault, match="Another run is working"),
            RunFolder(tmp_path).locked(),
        ):
            raise AssertionError
        beside = subprocess.run(
            [sys.executable, "-c", other, str(tmp_path)],
            capture_output=True,
            text=True,
            check=False,
        )
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
    def said(folder: Path) -> str:
        return failure(lambda: RunFolder(folder).read_json("summary.json"))

    assert "is not a finished run: there is no such folder" in said(tmp_path / "none")
    assert "is not a finished run: it has no summary.json" in said(tmp_path)
    for name in "ab":
        RunFolder(tmp_path / name).write_json("summary.json", summary({"mmlu": {"value": 0.5}}))
    assert f"it is a folder of 2 runs. Name them: {tmp_path / 'a'}" in said(tmp_path)


BAD_JSON = {
    "not json": b"{",
    "no object": b"[1]",
    "not text": b"\xff\xfe\x00",
    "deep": b"[" * 100_000,
    "empty": b"",
}


@pytest.mark.parametrize("raw", BAD_JSON.values(), ids=BAD_JSON)
@pytest.mark.parametrize("name", ["summary.json", "run.json"])
def test_a_damaged_file_is_named_with_what_to_do(tmp_path: Path, name: str, raw: bytes) -> None:
    (tmp_path / name).write_bytes(raw)
    said = failure(lambda: RunFolder(tmp_path).read_json(name))
    assert str(tmp_path / name) in said
    # `evals score` itself reads run.json, so it cannot make that one again.
    assert ("evals score" in said) == (name == "summary.json")


@pytest.mark.parametrize("part", [part for part in RECORD if part not in ("store", "data")])
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
    damaged = [
        whole[:-20],
        whole[:60] + bytes(80) + whole[140:],
        b"plain text",
        gzip.compress(b'{"id": '),
        gzip.compress(b"[" * 100_000),
    ]
    for raw in damaged:
        path.write_bytes(raw)
        assert "evals score" in failure(lambda: list(folder.samples("a")))


WRONG = [
    (("schema",), "1", "schema: 1 was expected"),
    (("cells",), 3, "cells: 3 is not of type 'object'"),
    (("cells", "mmlu"), 0.5, "cells.mmlu: 0.5 is not of type 'object'"),
    (("cells", "mmlu", "value"), "0.5", "cells.mmlu.value: '0.5' is not"),
    (("cells", "mmlu", "value"), True, "cells.mmlu.value: True is not"),
    (("cells", "mmlu", "value"), 7.5, "cells.mmlu.value: 7.5 is greater than the maximum of 1"),
    (("cells", "mmlu", "value"), 10**400, "cells.mmlu.value: 1000"),
    (("cells", "mmlu", "marks"), "abc", "cells.mmlu.marks: 'abc' is not"),
    (("cells", "mmlu", "n"), 4.0, "cells.mmlu.n: 4.0 is not of type 'integer'"),
    (("model",), "m", "model: 'm' is not"),
    (("judges",), [], "judges: [] is not"),
    (("data", "mmlu"), [], "data.mmlu: [] is not"),
]


@pytest.mark.parametrize(("where", "value", "says"), WRONG)
def test_a_summary_of_another_form_is_named_with_the_place_and_can_be_made_again(
    tmp_path: Path, where: tuple[str, ...], value: Any, says: str
) -> None:
    content = json.loads(json.dumps(summary({"mmlu": {"value": 0.5}})))
    place = content
    for key in where[:-1]:
        place = place[key]
    place[where[-1]] = value
    folder = RunFolder(tmp_path)
    folder.write_json("summary.json", content)
    said = failure(lambda: folder.read_json("summary.json"))
    assert said.startswith(f"{tmp_path / 'summary.json'} is damaged ({says}")
    assert said.endswith(f"evals score {tmp_path}")
    assert len(said) < 400


def test_a_summary_of_another_version_is_not_called_damaged(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_json("summary.json", {**summary({"mmlu": {"value": 0.5}}), "schema": 99})
    said = failure(lambda: folder.read_json("summary.json"))
    assert "is of another version of this program (schema 99, this one reads 1)" in said
    assert "damaged" not in said


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_what_is_no_number_is_read_from_no_file(tmp_path: Path, number: str) -> None:
    folder = RunFolder(tmp_path)
    folder.write_json("summary.json", summary({"mmlu": {"value": 0.5}}))
    whole = (tmp_path / "summary.json").read_text()
    (tmp_path / "summary.json").write_text(whole.replace("0.5", number))
    assert "is no number" in failure(lambda: folder.read_json("summary.json"))
    folder.samples_path("a").parent.mkdir()
    folder.samples_path("a").write_bytes(
        gzip.compress(f'{{"id": "a/1", "score": {number}}}'.encode())
    )
    assert "is no number" in failure(lambda: list(folder.samples("a")))


ROW: dict[str, Any] = {
    "id": "a/1",
    "outputs": ["x"],
    "finish_reasons": ["stop"],
    "n_tokens": [3],
    "score": 1.0,
    "findings": {},
}
WRONG_ROWS = {
    "id": [5, None, ["a/1"]],
    "outputs": ["x", [1], None],
    "finish_reasons": [[], "stop", [None], ["stop", "stop"]],
    "n_tokens": [["x"], [-1], [10**30], [], [True]],
    "score": ["1", 2, -0.1, True, [1]],
    "findings": [[], {"sample/0": "passed"}, {"xstest": {"text": "x"}}],
}  # fmt: skip


@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field, values in WRONG_ROWS.items() for value in values]
)
def test_a_line_whose_field_is_of_another_kind_is_named(
    tmp_path: Path, field: str, value: Any
) -> None:
    folder = RunFolder(tmp_path)
    folder.write_samples("a", [ROW, ROW | {"id": "a/2", field: value}])
    assert f"(line 2 is no graded item: its {field})" in failure(lambda: list(folder.samples("a")))


def test_a_line_that_is_no_item_and_an_item_that_is_there_twice_are_named(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_samples("a", [ROW, ROW])
    assert "line 2: a/1 is there twice" in failure(lambda: list(folder.samples("a")))
    folder.samples_path("b").write_bytes(gzip.compress(b"[1]"))
    assert "(line 1 is no graded item)" in failure(lambda: list(folder.samples("b")))


@pytest.mark.parametrize("name", [".", "/", ".."])
def test_a_place_that_is_no_files_is_said_in_one_sentence(name: str) -> None:
    with pytest.raises(EnvironmentFault, match="could not be written"):
        RunFolder(Path(name).parent).write_bytes(Path(name).name, b"x")


def test_a_store_is_not_here_where_it_cannot_be_looked_for(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.store_of({"store": str(tmp_path / ("x" * 300))}) is None
    assert folder.store_of({"store": str(tmp_path / "x\0y")}) is None
    assert folder.store_of({"store": None}) is None
    folder.store_path.write_bytes(b"")
    assert folder.store_of({}) == folder.store_path
