"""Fetched data: a copy from the hub is the public file, held to the same content, under the
revision that was read.
"""

import gzip
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from evals.data.dataset import HubTable, LoadedSource, Table, content_hash
from evals.data.files import read_csv, read_json, read_jsonl
from evals.data.hub import fetch
from evals.data.load import fetched_folder, load_card_data
from evals.errors import EnvironmentFault
from evals.registry import BENCHMARKS
from tests.toydata import LINES, ROWS, TOY, dataset_of, failure, mirrored

NAMES = list(BENCHMARKS)


@pytest.fixture(autouse=True)
def _own_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("EVALS_DATA", raising=False)


def _parquet(home: Path, config: str, split: str, rows: list[dict[str, Any]]) -> str:
    import pandas as pd

    (home / config).mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_parquet(home / config / f"{split}-00000-of-00001.parquet", index=False)
    return (
        f"  - config_name: {config}\n    data_files:\n    - split: {split}\n      path:"
        f" {config}/{split}-*\n"
    )


def _readme(home: Path, configs: list[str]) -> None:
    (home / "README.md").write_text("---\nconfigs:\n" + "".join(configs) + "---\n")


def _mirror_mmlu(home: Path, source: LoadedSource, data_dir: Path) -> None:
    for split in ("test", "dev"):
        rows = [
            {
                "question": row["question"],
                "subject": row["part"],
                "choices": row["choices"],
                "answer": "ABCD".index(row["answer"]),
            }
            for row in source.rows(split)
        ]
        _parquet(home, "all", split, rows)
    files = "".join(
        f"    - split: {split}\n      path: all/{split}-*\n" for split in ("test", "dev")
    )
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
    hub_rows = [
        {"type": row["Type"], "question": row["Question"], "best_answer": row["Best Answer"]}
        for row in rows
    ]
    _readme(home, [_parquet(home, "generation", "validation", hub_rows)])


def _mirror_ifeval(home: Path, source: LoadedSource, data_dir: Path) -> None:
    home.mkdir(parents=True)
    (home / "ifeval_input_data.jsonl").write_bytes(
        (data_dir / "ifeval" / "input_data.jsonl").read_bytes()
    )


def _mirror_xstest(home: Path, source: LoadedSource, data_dir: Path) -> None:
    home.mkdir(parents=True)
    (home / "xstest_prompts.csv").write_bytes(
        (data_dir / "xstest" / "xstest_prompts.csv").read_bytes()
    )


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
    dataset = dataset_of(name)
    local = load_card_data([dataset], data_dir)[name]
    MIRRORS[name](tmp_path / "mirror" / dataset.hub_id, local, data_dir)
    fetched = fetch(dataset, mirror=tmp_path / "mirror")
    again = load_card_data([dataset], None)[name]
    assert (fetched.origin, again.origin) == ("hub", "hub")
    for table in (name for name, table in dataset.tables.items() if not table.optional):
        assert fetched.edition[table] == again.edition[table] == local.edition[table]
        assert list(again.rows(table)) == list(local.rows(table))
    assert set(os.listdir(fetched_folder() / name)) == {
        "fetched.json",
        *(f"{table}.jsonl" for table in fetched.tables),
    }


def test_another_edition_on_the_hub_is_refused_and_nothing_is_kept(tmp_path: Path) -> None:
    home = tmp_path / "openai" / "gsm8k"
    _readme(home, [_parquet(home, "main", "test", [{"question": "1+1?", "answer": "#### 2"}])])
    message = failure(lambda: fetch(dataset_of("gsm8k"), mirror=tmp_path))
    assert "openai/gsm8k (test, 1 rows) is not the edition the protocol uses" in message
    assert not fetched_folder().exists()


@pytest.mark.parametrize(
    ("raw", "said"),
    [(b"{", "JSONDecodeError"), (b'{"question": 1}', "'answer'"), (None, "FileNotFoundError")],
    ids=["text", "field", "file"],
)
def test_a_hub_table_that_cannot_be_read_is_a_sentence(
    raw: bytes | None, said: str, tmp_path: Path
) -> None:
    mirrored(tmp_path, raw or b"")
    if raw is None:
        (tmp_path / "me/toy/rows.jsonl").unlink()
    message = failure(lambda: fetch(TOY, mirror=tmp_path))
    assert "me/toy (rows) could not be read" in message
    assert said in message
    assert len(message.splitlines()) == 1


def test_a_mirror_without_the_repository_is_named(tmp_path: Path) -> None:
    assert "has no folder me/toy" in failure(lambda: fetch(TOY, mirror=tmp_path))


def test_a_table_that_is_optional_may_be_absent_from_the_hub(tmp_path: Path) -> None:
    extra = Table("toy/extra.csv", ("x",), read_csv, HubTable(file="extra.csv"), optional=True)
    dataset = replace(TOY, tables={**TOY.tables, "extra": extra})
    assert set(fetch(dataset, mirror=mirrored(tmp_path, LINES)).tables) == {"rows"}
    (tmp_path / "me/toy/extra.csv").write_text("x,y\n1,2\n")
    assert load_card_data([dataset], None)["toy"].rows("extra") == ()
    fetch(dataset, mirror=tmp_path)
    assert list(load_card_data([dataset], None)["toy"].rows("extra")) == [{"part": "", "x": "1"}]


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


@pytest.mark.parametrize(
    "damage",
    [
        _break_rows,
        _break_json,
        _lose_rows,
        _break_record,
        _empty_record,
        _forget_revision,
        _forget_table,
    ],
)
def test_a_damaged_fetched_copy_is_said_so_and_fetching_again_repairs_it(
    damage: Callable[[Path], None], tmp_path: Path
) -> None:
    mirrored(tmp_path / "mirror", LINES)
    fetch(TOY, mirror=tmp_path / "mirror")
    damage(fetched_folder() / "toy")
    message = failure(lambda: load_card_data([TOY], None))
    assert str(fetched_folder() / "toy") in message
    assert "evals data fetch toy" in message
    fetch(TOY, mirror=tmp_path / "mirror")
    assert list(load_card_data([TOY], None)["toy"].rows("rows")) == [
        {"part": ""} | row for row in ROWS
    ]


def test_a_fetched_copy_whose_record_was_changed_along_with_it_is_refused(data_dir: Path) -> None:
    dataset = dataset_of("gsm8k")
    home = fetched_folder() / "gsm8k"
    home.mkdir(parents=True)
    rows = [{"part": "", "question": "1+1?", "answer": "#### 2"}]
    (home / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (home / "fetched.json").write_text(
        json.dumps(
            {"revision": None, "tables": {"test": {"rows": 1, "sha256": content_hash(rows)}}}
        )
    )
    assert "not the edition the protocol uses" in failure(lambda: load_card_data([dataset], None))


def test_a_copy_that_cannot_be_kept_is_the_environments_fault(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EnvironmentFault, match="cannot be written") as caught:
        fetch(TOY, mirror=mirrored(tmp_path / "mirror", LINES), into=tmp_path / "file")
    assert caught.value.exit_code == 4


# The hub itself, played by a server on this machine that speaks its protocol.

NEWEST = "9" * 40


class _Hub(BaseHTTPRequestHandler):
    asked: list[str]

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        type(self).asked.append(self.path)
        api, _, resolve = self.path.partition("/resolve/")
        revision, _, name = resolve.partition("/")
        if self.path.startswith("/api/datasets/me/toy"):
            commit = self.path.partition("/revision/")[2] or NEWEST
            content, kind = (
                json.dumps({"id": "me/toy", "sha": commit, "siblings": []}).encode(),
                "application/json",
            )
        elif api == "/datasets/me/toy" and name == "rows.jsonl":
            content, kind = LINES, "text/plain"
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
from evals.data.dataset import Dataset, HubTable, Table
from evals.data.hub import fetch
from evals.data.files import read_jsonl
from evals.errors import InputError
table = Table("toy/rows.jsonl", ("question", "answer"), read_jsonl, HubTable(file="rows.jsonl"))
try:
    revision = sys.argv[1] or None
    toy = Dataset("toy", "me/toy", "MIT", "here", {"rows": table}, revision=revision, files={})
    print(fetch(toy).revision)
except InputError as error:
    sys.exit(str(error))
"""


def _fetch_from(address: str, revision: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "HF_ENDPOINT": address,
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    environment |= {"HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    root = Path(__file__).resolve().parents[3]
    command = [sys.executable, "-c", FETCH, revision]
    return subprocess.run(
        command, env=environment, cwd=root, capture_output=True, text=True, timeout=600, check=False
    )


@pytest.mark.parametrize("pinned", ["", "1" * 40], ids=["newest", "pinned"])
def test_the_revision_that_was_read_is_the_one_recorded(
    pinned: str, hub: tuple[str, list[str]], tmp_path: Path
) -> None:
    address, asked = hub
    done = _fetch_from(address, pinned, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == (pinned or NEWEST)
    source = load_card_data([TOY], None)["toy"]
    assert source.revision == (pinned or NEWEST)
    assert list(source.rows("rows")) == [{"part": ""} | row for row in ROWS]
    assert all(f"/resolve/{pinned or NEWEST}/" in path for path in asked if "/resolve/" in path)


@pytest.mark.parametrize("pinned", ["", "1" * 40], ids=["newest", "pinned"])
def test_a_hub_out_of_reach_is_one_sentence(pinned: str, tmp_path: Path) -> None:
    done = _fetch_from("http://127.0.0.1:9", pinned, tmp_path)
    assert done.returncode == 1
    assert "me/toy" in done.stderr
    assert "--data" in done.stderr
    assert "Traceback" not in done.stderr
