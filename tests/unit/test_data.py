"""Benchmark data: every kind of damage is caught and named, and a fetched copy is the public file."""

import gzip
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evals.data import (
    Dataset,
    FileRecord,
    HubTable,
    LoadedSource,
    Table,
    content_hash,
    fetch,
    fetched_folder,
    load_card_data,
    load_smoke_data,
    read_csv,
    read_json,
    read_jsonl,
)
from evals.errors import EnvironmentFault, InputError
from evals.registry import BENCHMARKS, benchmark_class

NAMES = list(BENCHMARKS)
BOM = b"\xef\xbb\xbf"


@pytest.fixture(autouse=True)
def _own_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("EVALS_DATA", raising=False)


def _dataset(name: str) -> Dataset:
    return benchmark_class(name).dataset


def _first_path(dataset: Dataset) -> str:
    table = next(iter(dataset.tables.values()))
    return table.path_of(table.parts[0])


def _linked(dataset: Dataset, data_dir: Path, folder: Path) -> Path:
    """A data folder of links to the real files of one dataset; a link can be replaced by a damaged copy."""
    for table in dataset.tables.values():
        for path in map(table.path_of, table.parts):
            if (data_dir / path).exists():
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).symlink_to(data_dir / path)
    return folder


def _failure(call: Callable[[], object]) -> str:
    with pytest.raises(InputError) as caught:
        call()
    assert caught.value.exit_code == 2
    return str(caught.value)


# A local folder.


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


DAMAGES = {
    _change_a_byte: "SHA-256",
    _drop_a_row: "rows, the public file",
    _rename_a_column: "",
    _other_line_ends: "line ends",
    _other_mark: "byte-order mark",
    _as_utf_16: "UTF-16",
    _as_nothing: "it is empty",
    _as_pointer: "Git LFS pointer",
}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__.strip("_"))
@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_file_is_named_with_what_happened_to_it(
    name: str, damage: Callable[[bytes, str], bytes], data_dir: Path, tmp_path: Path
) -> None:
    dataset = _dataset(name)
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
    message = _failure(lambda: load_card_data([dataset], folder))
    assert path in message
    assert "Replace it with the public file" in message
    assert zipped or DAMAGES[damage] in message


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_file_among_present_ones_is_named(name: str, data_dir: Path, tmp_path: Path) -> None:
    dataset = _dataset(name)
    paths = [table.path_of(part) for table in dataset.tables.values() if not table.optional for part in table.parts]
    folder = _linked(dataset, data_dir, tmp_path / "data")
    (folder / paths[-1]).unlink()
    if len(paths) == 1:
        (folder / paths[-1]).mkdir()
    message = _failure(lambda: load_card_data([dataset], folder))
    assert paths[-1] in message
    assert ("is missing" if len(paths) > 1 else "cannot be read") in message


@pytest.mark.parametrize("name", [name for name in NAMES if name != "humaneval"])
def test_an_empty_folder_names_the_files_and_the_command(name: str, tmp_path: Path) -> None:
    dataset = _dataset(name)
    message = _failure(lambda: load_card_data([dataset], tmp_path))
    assert _first_path(dataset) in message
    assert str(tmp_path) in message
    assert f"evals data fetch {name}" in message


def test_humaneval_needs_no_folder_because_a_package_ships_it(data_dir: Path) -> None:
    dataset = _dataset("humaneval")
    shipped = load_card_data([dataset], None)["humaneval"]
    local = load_card_data([dataset], data_dir)["humaneval"]
    assert (shipped.origin, local.origin) == ("package", "folder")
    assert shipped.edition == local.edition


def test_all_problems_are_listed_at_once(data_dir: Path, tmp_path: Path) -> None:
    datasets = [_dataset(name) for name in ("gsm8k", "xstest", "alpaca_eval", "bbh", "truthfulqa")]
    for dataset in datasets[:4]:
        _linked(dataset, data_dir, tmp_path)
    gsm8k, xstest, alpaca = (tmp_path / _first_path(dataset) for dataset in datasets[:3])
    gsm8k.unlink()
    gsm8k.write_bytes(b"{}")
    xstest.unlink()
    xstest.write_bytes(b"\xff\xfe")
    alpaca.unlink()
    message = _failure(lambda: load_card_data(datasets, tmp_path))
    for path in ("gsm8k/test.jsonl", "xstest/xstest_prompts.csv", "alpaca_eval/alpaca_eval.json", "truthfulqa/TruthfulQA.csv"):
        assert path in message
    assert "bbh" not in message
    assert len(message.splitlines()) == 4


@pytest.mark.parametrize("name", NAMES)
def test_the_public_files_are_accepted_and_their_content_is_the_recorded_one(name: str, data_dir: Path) -> None:
    dataset = _dataset(name)
    source = load_card_data([dataset], data_dir)[name]
    assert source.origin == "folder"
    for table, entry in source.edition.items():
        assert dataset.tables[table].optional or entry["sha256"] == dataset.content_sha256(table)
        assert entry["rows"] == len(source.rows(table)) > 0


def test_a_folder_that_is_none_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.touch()
    for wrong in (file, tmp_path / "nowhere"):
        assert f"{wrong} is not a folder" in _failure(lambda wrong=wrong: load_card_data([TOY], wrong))  # type: ignore[misc]
    monkeypatch.setenv("EVALS_DATA", str(file))
    assert "EVALS_DATA" in _failure(lambda: load_card_data([TOY], None))


# Toy data: no checksum known, or one of our own.


def _toy(read: Callable[[bytes], Any] = read_jsonl, *, files: Mapping[str, FileRecord] | None = None, **settings: Any) -> Dataset:
    table = Table("toy/rows.jsonl", ("question", "answer"), read, HubTable(file="rows.jsonl"))
    return Dataset("toy", "me/toy", "MIT", "here", {"rows": table}, files=files or {}, **settings)


TOY = _toy()
ROWS = [{"question": f"{n}\u2028+\u00851?", "answer": n + 1} for n in range(3)]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()


def _toy_folder(folder: Path, raw: bytes) -> Path:
    (folder / "toy").mkdir(exist_ok=True, parents=True)
    (folder / "toy" / "rows.jsonl").write_bytes(raw)
    return folder


def test_unusual_line_separators_inside_json_strings_do_not_end_a_row(tmp_path: Path) -> None:
    source = load_card_data([TOY], _toy_folder(tmp_path, LINES))["toy"]
    assert source.rows("rows") == [{"part": ""} | row for row in ROWS]


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
def test_a_file_without_a_known_checksum_must_still_hold_the_fields(raw: bytes, said: str, tmp_path: Path) -> None:
    message = _failure(lambda: load_card_data([TOY], _toy_folder(tmp_path, raw)))
    assert "toy/rows.jsonl cannot be read as this benchmark's file" in message
    assert said in message


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, len(LINES) - 1), byte=st.integers(0, 255))
def test_any_single_changed_byte_is_caught(position: int, byte: int, tmp_path: Path) -> None:
    dataset = _toy(files={"toy/rows.jsonl": FileRecord(hashlib.sha256(LINES).hexdigest(), 3)})
    changed = LINES[:position] + bytes([byte]) + LINES[position + 1 :]
    folder = _toy_folder(tmp_path, changed)
    if changed == LINES:
        assert load_card_data([dataset], folder)["toy"].rows("rows")
    else:
        assert "toy/rows.jsonl is damaged" in _failure(lambda: load_card_data([dataset], folder))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(raw=st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass")))
@pytest.mark.parametrize("name", NAMES)
def test_arbitrary_bytes_are_a_sentence_never_a_traceback(name: str, raw: bytes, tmp_path: Path) -> None:
    table = next(iter(_dataset(name).tables.values()))
    dataset = Dataset("toy", "me/toy", "MIT", "here", {"rows": replace(table, path="toy/rows.jsonl", parts=("",))}, files={})
    try:
        source = load_card_data([dataset], _toy_folder(tmp_path, raw))["toy"]
    except InputError as error:
        assert "toy/rows.jsonl" in str(error)
    else:
        assert all(set(row) == {"part", *table.fields} for row in source.rows("rows"))


def test_a_zipped_file_that_is_cut_or_corrupt_is_named(tmp_path: Path) -> None:
    from evals.data import read_jsonl_gz

    whole = gzip.compress(LINES)
    for raw in (whole[:-9], whole[:20] + b"\x00\x00" + whole[22:], b"plain text"):
        message = _failure(lambda raw=raw: load_card_data([_toy(read_jsonl_gz)], _toy_folder(tmp_path, raw)))  # type: ignore[misc]
        assert "toy/rows.jsonl" in message


def test_damage_in_one_dataset_does_not_hide_another_ones_fetched_copy(tmp_path: Path) -> None:
    other = replace(
        _toy(), name="other", tables={"rows": Table("other/rows.jsonl", ("question",), read_jsonl, HubTable(file="rows.jsonl"))}
    )
    _mirrored(tmp_path / "mirror", LINES)
    fetch(other, mirror=tmp_path / "mirror")
    message = _failure(lambda: load_card_data([TOY, other], _toy_folder(tmp_path / "data", b"{")))
    assert "toy/rows.jsonl" in message
    assert "other" not in message


def test_content_hashes_depend_on_every_value_and_on_order_but_not_on_key_order() -> None:
    rows = [{"a": 1, "b": "x"}, {"a": 2, "b": "\ud800"}]
    assert content_hash(rows) == content_hash([dict(reversed(row.items())) for row in rows])
    different = [rows[::-1], rows[:1], [{"a": "1", "b": "x"}, rows[1]], [{"a": 1.0, "b": "x"}, rows[1]]]
    assert len({content_hash(rows), *map(content_hash, different)}) == 5


# Fetched copies.


def _mirrored(mirror: Path, raw: bytes, repository: str = "me/toy") -> Path:
    (mirror / repository).mkdir(parents=True, exist_ok=True)
    (mirror / repository / "rows.jsonl").write_bytes(raw)
    return mirror


def _parquet(home: Path, config: str, split: str, rows: list[dict[str, Any]]) -> str:
    import pandas as pd

    (home / config).mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_parquet(home / config / f"{split}-00000-of-00001.parquet", index=False)
    return f"  - config_name: {config}\n    data_files:\n    - split: {split}\n      path: {config}/{split}-*\n"


def _readme(home: Path, configs: list[str]) -> None:
    (home / "README.md").write_text("---\nconfigs:\n" + "".join(configs) + "---\n")


def _mirror_mmlu(home: Path, source: LoadedSource, data_dir: Path) -> None:
    for split in ("test", "dev"):
        rows = [
            {"question": row["question"], "subject": row["part"], "choices": row["choices"], "answer": "ABCD".index(row["answer"])}
            for row in source.rows(split)
        ]
        _parquet(home, "all", split, rows)
    files = "".join(f"    - split: {split}\n      path: all/{split}-*\n" for split in ("test", "dev"))
    _readme(home, [f"  - config_name: all\n    data_files:\n{files}"])


def _mirror_gsm8k(home: Path, source: LoadedSource, data_dir: Path) -> None:
    _readme(home, [_parquet(home, "main", "test", list(map(dict, source.rows("test"))))])


def _mirror_bbh(home: Path, source: LoadedSource, data_dir: Path) -> None:
    tasks = {row["part"]: [] for row in source.rows("test")}  # type: dict[str, list[dict[str, Any]]]
    for row in source.rows("test"):
        tasks[row["part"]].append({"input": row["input"], "target": row["target"]})
    _readme(home, [_parquet(home, task, "test", rows) for task, rows in tasks.items()])


def _mirror_humaneval(home: Path, source: LoadedSource, data_dir: Path) -> None:
    rows = read_jsonl(gzip.decompress((data_dir / "humaneval" / "HumanEval.jsonl.gz").read_bytes()))
    _readme(home, [_parquet(home, "openai_humaneval", "test", rows)])


def _mirror_alpaca_eval(home: Path, source: LoadedSource, data_dir: Path) -> None:
    home.mkdir(parents=True)
    for name in ("alpaca_eval", "alpaca_eval_gpt4_baseline"):
        rows = read_json((data_dir / "alpaca_eval" / f"{name}.json").read_bytes())
        (home / f"{name}.json").write_text(json.dumps(rows, indent=3))


def _mirror_truthfulqa(home: Path, source: LoadedSource, data_dir: Path) -> None:
    rows = read_csv((data_dir / "truthfulqa" / "TruthfulQA.csv").read_bytes())
    hub_rows = [{"type": row["Type"], "question": row["Question"], "best_answer": row["Best Answer"]} for row in rows]
    _readme(home, [_parquet(home, "generation", "validation", hub_rows)])


def _mirror_ifeval(home: Path, source: LoadedSource, data_dir: Path) -> None:
    home.mkdir(parents=True)
    (home / "ifeval_input_data.jsonl").write_bytes((data_dir / "ifeval" / "input_data.jsonl").read_bytes())


def _mirror_xstest(home: Path, source: LoadedSource, data_dir: Path) -> None:
    home.mkdir(parents=True)
    (home / "xstest_prompts.csv").write_bytes((data_dir / "xstest" / "xstest_prompts.csv").read_bytes())


MIRRORS: Mapping[str, Callable[[Path, LoadedSource, Path], None]] = {
    "mmlu": _mirror_mmlu,
    "gsm8k": _mirror_gsm8k,
    "bbh": _mirror_bbh,
    "humaneval": _mirror_humaneval,
    "alpaca_eval": _mirror_alpaca_eval,
    "truthfulqa": _mirror_truthfulqa,
    "ifeval": _mirror_ifeval,
    "xstest": _mirror_xstest,
}


@pytest.mark.parametrize("name", NAMES)
def test_a_fetched_copy_is_the_public_file(name: str, data_dir: Path, tmp_path: Path) -> None:
    dataset = _dataset(name)
    local = load_card_data([dataset], data_dir)[name]
    MIRRORS[name](tmp_path / "mirror" / dataset.hub_id, local, data_dir)
    fetched = fetch(dataset, mirror=tmp_path / "mirror")
    again = load_card_data([dataset], None)[name]
    assert (fetched.origin, again.origin) == ("hub", "hub")
    for table in (name for name, table in dataset.tables.items() if not table.optional):
        assert fetched.edition[table] == again.edition[table] == local.edition[table]
        assert list(again.rows(table)) == list(local.rows(table))
    assert set(os.listdir(fetched_folder() / name)) == {"fetched.json", *(f"{table}.jsonl" for table in fetched.tables)}


@pytest.mark.parametrize("name", NAMES)
def test_smoke_items_have_the_public_files_fields(name: str) -> None:
    dataset = _dataset(name)
    source = load_smoke_data(dataset)
    for table, declared in dataset.tables.items():
        assert source.rows(table) or declared.optional
        assert all(set(row) == {"part", *declared.fields} for row in source.rows(table))


def test_another_edition_on_the_hub_is_refused_and_nothing_is_kept(tmp_path: Path) -> None:
    home = tmp_path / "openai" / "gsm8k"
    _readme(home, [_parquet(home, "main", "test", [{"question": "1+1?", "answer": "#### 2"}])])
    message = _failure(lambda: fetch(_dataset("gsm8k"), mirror=tmp_path))
    assert "openai/gsm8k (test, 1 rows) is not the edition the protocol uses" in message
    assert not fetched_folder().exists()


@pytest.mark.parametrize(
    ("raw", "said"),
    [(b"{", "JSONDecodeError"), (b'{"question": 1}', "'answer'"), (None, "FileNotFoundError")],
    ids=["text", "field", "file"],
)
def test_a_hub_table_that_cannot_be_read_is_a_sentence(raw: bytes | None, said: str, tmp_path: Path) -> None:
    _mirrored(tmp_path, raw or b"")
    if raw is None:
        (tmp_path / "me/toy/rows.jsonl").unlink()
    message = _failure(lambda: fetch(TOY, mirror=tmp_path))
    assert "me/toy (rows) could not be read" in message
    assert said in message
    assert len(message.splitlines()) == 1


def test_a_mirror_without_the_repository_is_named(tmp_path: Path) -> None:
    assert "has no folder me/toy" in _failure(lambda: fetch(TOY, mirror=tmp_path))


def test_a_table_that_is_optional_may_be_absent_from_the_hub(tmp_path: Path) -> None:
    extra = Table("toy/extra.csv", ("x",), read_csv, HubTable(file="extra.csv"), optional=True)
    dataset = replace(TOY, tables={**TOY.tables, "extra": extra})
    assert set(fetch(dataset, mirror=_mirrored(tmp_path, LINES)).tables) == {"rows"}
    (tmp_path / "me/toy/extra.csv").write_text("x,y\n1,2\n")
    assert load_card_data([dataset], None)["toy"].rows("extra") == ()
    fetch(dataset, mirror=tmp_path)
    assert load_card_data([dataset], None)["toy"].rows("extra") == [{"part": "", "x": "1"}]


def _break_rows(home: Path) -> None:
    (home / "rows.jsonl").write_text('{"part": "", "question": "?", "answer": 1}\n')


def _break_json(home: Path) -> None:
    (home / "rows.jsonl").write_bytes(b"\xff")


def _lose_rows(home: Path) -> None:
    (home / "rows.jsonl").unlink()


def _break_record(home: Path) -> None:
    (home / "fetched.json").write_text("{")


def _empty_record(home: Path) -> None:
    (home / "fetched.json").write_text("[]")


def _forget_revision(home: Path) -> None:
    (home / "fetched.json").write_text('{"tables": {}}')


def _forget_table(home: Path) -> None:
    (home / "fetched.json").write_text('{"revision": null, "tables": {}}')


@pytest.mark.parametrize("damage", [_break_rows, _break_json, _lose_rows, _break_record, _empty_record, _forget_revision, _forget_table])
def test_a_damaged_fetched_copy_is_said_so_and_fetching_again_repairs_it(damage: Callable[[Path], None], tmp_path: Path) -> None:
    _mirrored(tmp_path / "mirror", LINES)
    fetch(TOY, mirror=tmp_path / "mirror")
    damage(fetched_folder() / "toy")
    message = _failure(lambda: load_card_data([TOY], None))
    assert str(fetched_folder() / "toy") in message
    assert "evals data fetch toy" in message
    fetch(TOY, mirror=tmp_path / "mirror")
    assert load_card_data([TOY], None)["toy"].rows("rows") == [{"part": ""} | row for row in ROWS]


def test_a_fetched_copy_whose_record_was_changed_along_with_it_is_refused(data_dir: Path) -> None:
    dataset = _dataset("gsm8k")
    home = fetched_folder() / "gsm8k"
    home.mkdir(parents=True)
    rows = [{"part": "", "question": "1+1?", "answer": "#### 2"}]
    (home / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (home / "fetched.json").write_text(json.dumps({"revision": None, "tables": {"test": {"rows": 1, "sha256": content_hash(rows)}}}))
    assert "not the edition the protocol uses" in _failure(lambda: load_card_data([dataset], None))


def test_a_copy_that_cannot_be_kept_is_the_environments_fault(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EnvironmentFault, match="cannot be written") as caught:
        fetch(TOY, mirror=_mirrored(tmp_path / "mirror", LINES), into=tmp_path / "file")
    assert caught.value.exit_code == 4


# The hub itself, played by a server on this machine that speaks its protocol.

NEWEST = "9" * 40


@cache
def _hub_files() -> Mapping[str, bytes]:
    return {"rows.jsonl": LINES}


class _Hub(BaseHTTPRequestHandler):
    asked: list[str]

    def do_HEAD(self) -> None:  # noqa: N802
        self._answer(body=False)

    def do_GET(self) -> None:  # noqa: N802
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        type(self).asked.append(self.path)
        api, _, resolve = self.path.partition("/resolve/")
        revision, _, name = resolve.partition("/")
        if self.path.startswith("/api/datasets/me/toy"):
            content, kind = json.dumps({"id": "me/toy", "sha": NEWEST, "siblings": []}).encode(), "application/json"
        elif api == "/datasets/me/toy" and name in _hub_files():
            content, kind = _hub_files()[name], "text/plain"
        else:
            content, kind = b"", ""
        self.send_response(200 if kind else 404)
        self.send_header("Content-Type", kind or "text/plain")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", revision or NEWEST)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[tuple[str, list[str]]]:
    """Its address, and the paths it was asked for."""
    handler = type("Hub", (_Hub,), {"asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", handler.asked  # type: ignore[attr-defined]
    server.shutdown()
    thread.join()
    server.server_close()


FETCH = """
import sys
from evals.data import Dataset, HubTable, Table, fetch, read_jsonl
from evals.errors import InputError
table = Table("toy/rows.jsonl", ("question", "answer"), read_jsonl, HubTable(file="rows.jsonl"))
try:
    print(fetch(Dataset("toy", "me/toy", "MIT", "here", {"rows": table}, revision=sys.argv[1] or None, files={})).revision)
except InputError as error:
    sys.exit(str(error))
"""


def _fetch_from(address: str, revision: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_TELEMETRY": "1"}
    environment |= {"HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", FETCH, revision]
    return subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("pinned", ["", "1" * 40], ids=["newest", "pinned"])
def test_the_revision_that_was_read_is_the_one_recorded(pinned: str, hub: tuple[str, list[str]], tmp_path: Path) -> None:
    address, asked = hub
    done = _fetch_from(address, pinned, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == (pinned or NEWEST)
    source = load_card_data([TOY], None)["toy"]
    assert source.revision == (pinned or NEWEST)
    assert source.rows("rows") == [{"part": ""} | row for row in ROWS]
    assert all(f"/resolve/{pinned or NEWEST}/" in path for path in asked if "/resolve/" in path)


@pytest.mark.parametrize("pinned", ["", "1" * 40], ids=["newest", "pinned"])
def test_a_hub_out_of_reach_is_one_sentence(pinned: str, tmp_path: Path) -> None:
    done = _fetch_from("http://127.0.0.1:9", pinned, tmp_path)
    assert done.returncode == 1
    assert "me/toy" in done.stderr
    assert "--data" in done.stderr
    assert "Traceback" not in done.stderr
