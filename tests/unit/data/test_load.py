"""Benchmark data in a local folder: every kind of damage is caught and named."""

import gzip
import hashlib
import json
import pickle
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evals.data.dataset import Dataset, HubTable, Table, content_hash
from evals.data.files import FileRecord, Row, read_jsonl, read_jsonl_gz
from evals.data.hub import fetch
from evals.data.load import load_card_data, load_smoke_data
from evals.errors import InputError
from evals.registry import BENCHMARKS
from tests.toydata import LINES, ROWS, TOY, dataset_of, failure, mirrored, toy, toy_folder

NAMES = list(BENCHMARKS)
BOM = b"\xef\xbb\xbf"


@pytest.fixture(autouse=True)
def _own_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("EVALS_DATA", raising=False)


def _first_path(dataset: Dataset) -> str:
    table = next(iter(dataset.tables.values()))
    return table.path_of(table.parts[0])


def _linked(dataset: Dataset, data_dir: Path, folder: Path) -> Path:
    """A data folder of links to the real files of one dataset; a link can be replaced by a damaged
    copy.
    """
    for table in dataset.tables.values():
        for path in map(table.path_of, table.parts):
            if (data_dir / path).exists():
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).symlink_to(data_dir / path)
    return folder


# A local folder.


Damage = Callable[[bytes, str], bytes]


def _change_a_byte(raw: bytes, field: str) -> bytes:
    middle = raw.index(b"e", len(raw) // 2)
    return raw[:middle] + b"E" + raw[middle + 1 :]


def _drop_a_row(raw: bytes, field: str) -> bytes:
    if raw.lstrip(BOM)[:1] in (b"[", b"{") and b"\n{" not in raw.replace(b"\n{}", b""):
        parsed = json.loads(raw)
        (parsed["examples"] if isinstance(parsed, dict) else parsed).pop()
        return json.dumps(parsed).encode()
    return b"".join(raw.splitlines(keepends=True)[:-1])


def _rename_a_column(raw: bytes, field: str) -> bytes:
    quoted, first_line = f'"{field}"'.encode(), raw.partition(b"\n")[0]
    if quoted in raw:
        return raw.replace(quoted, b'"wrong"')
    if field.encode() in first_line:
        return raw.replace(field.encode(), b"wrong", 1)
    return raw.replace(b",", b";")


def _other_line_ends(raw: bytes, field: str) -> bytes:
    return raw.replace(b"\r\n", b"\n") if b"\r\n" in raw else raw.replace(b"\n", b"\r\n")


def _other_mark(raw: bytes, field: str) -> bytes:
    return raw.removeprefix(BOM) if raw.startswith(BOM) else BOM + raw


def _as_utf_16(raw: bytes, field: str) -> bytes:
    return raw.decode("utf-8-sig").encode("utf-16")


def _as_nothing(raw: bytes, field: str) -> bytes:
    return b""


def _as_pointer(raw: bytes, field: str) -> bytes:
    return b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"


DAMAGES: dict[Damage, str] = {
    _change_a_byte: "SHA-256",
    _drop_a_row: "rows, the public file",
    _rename_a_column: "",
    _other_line_ends: "line ends",
    _other_mark: "byte-order mark",
    _as_utf_16: "UTF-16",
    _as_nothing: "it is empty",
    _as_pointer: "Git LFS pointer",
}


# A file of BBH is a single line without an end, so its line ends cannot be changed.
DAMAGED = [
    (name, damage)
    for name in NAMES
    for damage in DAMAGES
    if (name, damage) != ("bbh", _other_line_ends)
]


@pytest.mark.parametrize(
    ("name", "damage"), DAMAGED, ids=lambda value: getattr(value, "__name__", value).strip("_")
)
def test_a_damaged_file_is_named_with_what_happened_to_it(
    name: str, damage: Damage, data_dir: Path, tmp_path: Path
) -> None:
    dataset = dataset_of(name)
    path = _first_path(dataset)
    folder = _linked(dataset, data_dir, tmp_path / "data")
    public = (data_dir / path).read_bytes()
    field = next(iter(dataset.tables.values())).fields[-1]
    zipped = path.endswith(".gz")
    plain = gzip.decompress(public) if zipped else public
    damaged = damage(plain, field)
    assert damaged != plain
    (folder / path).unlink()
    (folder / path).write_bytes(gzip.compress(damaged) if zipped else damaged)
    message = failure(lambda: load_card_data([dataset], folder))
    assert path in message
    assert "Replace it with the public file" in message
    assert zipped or DAMAGES[damage] in message


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_file_among_present_ones_is_named(
    name: str, data_dir: Path, tmp_path: Path
) -> None:
    dataset = dataset_of(name)
    paths = [
        table.path_of(part)
        for table in dataset.tables.values()
        if not table.optional
        for part in table.parts
    ]
    folder = _linked(dataset, data_dir, tmp_path / "data")
    (folder / paths[-1]).unlink()
    if len(paths) == 1:
        (folder / paths[-1]).mkdir()
    message = failure(lambda: load_card_data([dataset], folder))
    assert paths[-1] in message
    assert ("is missing" if len(paths) > 1 else "cannot be read") in message


@pytest.mark.parametrize("name", [name for name in NAMES if name != "humaneval"])
def test_an_empty_folder_names_the_files_and_the_command(name: str, tmp_path: Path) -> None:
    dataset = dataset_of(name)
    message = failure(lambda: load_card_data([dataset], tmp_path))
    assert _first_path(dataset) in message
    assert str(tmp_path) in message
    assert f"evals data fetch {name}" in message


def test_humaneval_needs_no_folder_because_a_package_ships_it(data_dir: Path) -> None:
    dataset = dataset_of("humaneval")
    shipped = load_card_data([dataset], None)["humaneval"]
    local = load_card_data([dataset], data_dir)["humaneval"]
    assert (shipped.origin, local.origin) == ("package", "folder")
    assert shipped.edition == local.edition


def test_all_problems_are_listed_at_once(data_dir: Path, tmp_path: Path) -> None:
    datasets = [
        dataset_of(name) for name in ("gsm8k", "xstest", "alpaca_eval", "bbh", "truthfulqa")
    ]
    for dataset in datasets[:4]:
        _linked(dataset, data_dir, tmp_path)
    gsm8k, xstest, alpaca = (tmp_path / _first_path(dataset) for dataset in datasets[:3])
    gsm8k.unlink()
    gsm8k.write_bytes(b"{}")
    xstest.unlink()
    xstest.write_bytes(b"\xff\xfe")
    alpaca.unlink()
    message = failure(lambda: load_card_data(datasets, tmp_path))
    for path in (
        "gsm8k/test.jsonl",
        "xstest/xstest_prompts.csv",
        "alpaca_eval/alpaca_eval.json",
        "truthfulqa/TruthfulQA.csv",
    ):
        assert path in message
    assert "bbh" not in message
    assert len(message.splitlines()) == 4


@pytest.mark.parametrize("name", NAMES)
def test_the_public_files_are_accepted_and_their_content_is_the_recorded_one(
    name: str, data_dir: Path
) -> None:
    dataset = dataset_of(name)
    source = load_card_data([dataset], data_dir)[name]
    assert source.origin == "folder"
    for table, entry in source.edition.items():
        assert dataset.tables[table].optional or entry["sha256"] == dataset.content_sha256(table)
        assert entry["rows"] == len(source.rows(table)) > 0


def test_a_folder_that_is_none_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.touch()
    for wrong in (file, tmp_path / "nowhere"):
        assert f"{wrong} is not a folder" in failure(
            lambda wrong=wrong: load_card_data([TOY], wrong)
        )  # type: ignore[misc]
    monkeypatch.setenv("EVALS_DATA", str(file))
    assert "EVALS_DATA" in failure(lambda: load_card_data([TOY], None))


# Toy data: no checksum known, or one of our own.


def test_unusual_line_separators_inside_json_strings_do_not_end_a_row(tmp_path: Path) -> None:
    source = load_card_data([TOY], toy_folder(tmp_path, LINES))["toy"]
    assert list(source.rows("rows")) == [{"part": ""} | row for row in ROWS]


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "no rows"),
        (b"\n\n", "no rows"),
        (b'{"question": "?"}', "no field 'answer'"),
        (b"[1]", "TypeError"),
        (b"null", "TypeError"),
        (b"{", "JSONDecodeError"),
        (b"[" * 100_000, "RecursionError"),
        (BOM + LINES, "BOM"),
        (LINES.decode().encode("utf-16"), "UnicodeDecodeError"),
    ],
)
def test_a_file_without_a_known_checksum_must_still_hold_the_fields(
    raw: bytes, said: str, tmp_path: Path
) -> None:
    message = failure(lambda: load_card_data([TOY], toy_folder(tmp_path, raw)))
    assert "toy/rows.jsonl cannot be read as this benchmark's file" in message
    assert said in message


def is_kept(text: str) -> bool:
    with suppress(RecursionError):
        return bool(pickle.dumps(json.loads(text)))
    return False


def test_rows_that_can_be_read_but_not_kept_are_told_with_their_file(tmp_path: Path) -> None:
    nested = next(text for n in range(100, 20_000, 100) if not is_kept(text := "[" * n + "]" * n))
    assert json.loads(nested)  # how deep is Python's version's to say
    line = f'{{"question": "?", "answer": {nested}}}\n'.encode()
    message = failure(lambda: load_card_data([TOY], toy_folder(tmp_path, line * 40)))
    assert "toy/rows.jsonl cannot be read as this benchmark's file" in message
    assert "RecursionError" in message


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(position=st.integers(0, len(LINES) - 1), byte=st.integers(0, 255))
def test_any_single_changed_byte_is_caught(position: int, byte: int, tmp_path: Path) -> None:
    dataset = toy(files={"toy/rows.jsonl": FileRecord(hashlib.sha256(LINES).hexdigest(), 3)})
    changed = LINES[:position] + bytes([byte]) + LINES[position + 1 :]
    folder = toy_folder(tmp_path, changed)
    if changed == LINES:
        assert load_card_data([dataset], folder)["toy"].rows("rows")
    else:
        assert "toy/rows.jsonl is damaged" in failure(lambda: load_card_data([dataset], folder))


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    raw=st.binary(max_size=60)
    | st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass"))
)
@pytest.mark.parametrize("name", NAMES)
def test_arbitrary_bytes_are_a_sentence_never_a_traceback(
    name: str, raw: bytes, tmp_path: Path
) -> None:
    table = next(iter(dataset_of(name).tables.values()))
    dataset = Dataset(
        "toy",
        "me/toy",
        "MIT",
        "here",
        {"rows": replace(table, path="toy/rows.jsonl", parts=("",))},
        files={},
    )
    said, rows = "", []
    try:
        rows = list(load_card_data([dataset], toy_folder(tmp_path, raw))["toy"].rows("rows"))
    except InputError as error:
        said = str(error)
    assert rows or "toy/rows.jsonl" in said
    assert all(set(row) == {"part", *table.fields} for row in rows)


def test_a_zipped_file_that_is_cut_or_corrupt_is_named(tmp_path: Path) -> None:
    whole = gzip.compress(LINES)
    for raw in (whole[:-9], whole[:20] + b"\x00\x00" + whole[22:], b"plain text"):
        message = failure(
            lambda raw=raw: load_card_data([toy(read_jsonl_gz)], toy_folder(tmp_path, raw))
        )  # type: ignore[misc]
        assert "toy/rows.jsonl" in message


def test_damage_in_one_dataset_does_not_hide_another_ones_fetched_copy(tmp_path: Path) -> None:
    other = replace(
        toy(),
        name="other",
        tables={
            "rows": Table(
                "other/rows.jsonl", ("question",), read_jsonl, HubTable(file="rows.jsonl")
            )
        },
    )
    mirrored(tmp_path / "mirror", LINES)
    fetch(other, mirror=tmp_path / "mirror")
    message = failure(lambda: load_card_data([TOY, other], toy_folder(tmp_path / "data", b"{")))
    assert "toy/rows.jsonl" in message
    assert "other" not in message


def test_content_hashes_depend_on_every_value_and_on_order_but_not_on_key_order() -> None:
    rows: list[Row] = [{"a": 1, "b": "x"}, {"a": 2, "b": "\ud800"}]
    assert content_hash(rows) == content_hash([dict(reversed(row.items())) for row in rows])
    different: list[list[Row]] = [
        rows[::-1],
        rows[:1],
        [{"a": "1", "b": "x"}, rows[1]],
        [{"a": 1.0, "b": "x"}, rows[1]],
    ]
    assert len({content_hash(rows), *[content_hash(other) for other in different]}) == 5


@pytest.mark.parametrize("name", NAMES)
def test_smoke_items_have_the_public_files_fields(name: str) -> None:
    dataset = dataset_of(name)
    source = load_smoke_data(dataset)
    for table, declared in dataset.tables.items():
        assert source.rows(table) or declared.optional
        assert all(set(row) == {"part", *declared.fields} for row in source.rows(table))
