"""The store: what is committed stays, what is damaged says so, nothing in it is run."""

import contextlib
import json
import math
import os
import pickle
import shutil
import sqlite3
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evals.errors import EnvironmentFault
from evals.records import Completion, ItemId, Outcome, Output
from evals.storage.store import SCHEMA, Store

COMPLETION = Completion(
    (Output("a\x00\u2028ß😀", "length", (1, 2, 3)), Output("", "stop", ())),
    choice_logprobs={"A": -0.1, "B": -math.inf},
    top_logprobs={"m": -0.25},
    n_prompt_tokens=7,
    n_cached_tokens=4,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.sqlite"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    store = Store(path)
    yield store
    store.close()


def refusal(path: Path) -> str:
    """What opening the store says."""
    with pytest.raises(EnvironmentFault) as caught:
        Store(path).close()
    assert caught.value.exit_code == 4
    assert str(path) in str(caught.value)
    return str(caught.value)


def written(path: Path, *answers: tuple[str, Completion | Outcome]) -> Path:
    """A closed store holding answers."""
    store = Store(path)
    store.put(answers)
    store.close()
    return path


def edit(path: Path, statement: str, *values: object) -> None:
    """Change the file behind the store's back."""
    with sqlite3.connect(path) as other:
        other.execute(statement, values)
    other.close()


def test_an_answer_comes_back_as_it_was_put_also_after_reopening(path: Path) -> None:
    written(path, ("k", COMPLETION), ("p", Outcome("exception", "ValueError: \ud800")))
    store = Store(path)
    assert store.get("k") == COMPLETION
    assert store.get("p") == Outcome("exception", "ValueError: \ud800")
    assert store.get("absent") is None
    assert store.count() == 2
    store.close()


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None
)
@given(st.lists(st.text(st.characters(), max_size=30), max_size=3), st.floats(allow_nan=False))
def test_any_text_and_number_survives(store: Store, texts: list[str], logprob: float) -> None:
    answer = Completion(tuple(Output(text) for text in texts), {"A": logprob})
    key = repr((texts, logprob))
    store.put([(key, answer)])
    assert store.get(key) == answer


def test_the_first_answer_to_a_key_is_kept(store: Store) -> None:
    store.put([("k", Outcome("passed"))])
    store.put([("k", Outcome("time")), ("l", Outcome("time"))])
    assert store.get("k") == Outcome("passed")
    assert store.known(["l", "m", "k", "k"]) == {"k", "l"}


def test_known_takes_more_keys_than_one_query_may_hold(store: Store) -> None:
    store.put((str(n), Outcome("passed")) for n in range(0, 3000, 2))
    assert store.known(map(str, range(3000))) == {str(n) for n in range(0, 3000, 2)}


def test_answers_of_a_run_come_by_item_with_who_gave_them(store: Store) -> None:
    store.put([("k", COMPLETION), ("v", Outcome("passed"))])
    store.link(
        "run", [(ItemId("b/2"), "", "k", "", "prompt"), (ItemId("b/10"), "", "missing", "", "p")]
    )
    store.link("run", [(ItemId("b/2"), "sample/0", "v", "sandbox", "")])
    store.link("other", [(ItemId("b/3"), "", "k", "", "p")])
    assert list(store.answers("run")) == [
        ("b/2", "", "", COMPLETION),
        ("b/2", "sample/0", "sandbox", Outcome("passed")),
    ]
    assert store.prompts("run", ItemId("b/2")) == {"": "prompt", "sample/0": ""}


def test_a_later_link_of_the_same_question_replaces_the_earlier(store: Store) -> None:
    store.put([("old", Outcome("time")), ("new", Outcome("passed"))])
    for key in ("old", "new"):
        store.link("run", [(ItemId("b/1"), "c", key, key, "")])
    assert list(store.answers("run")) == [("b/1", "c", "new", Outcome("passed"))]


def test_a_prompt_that_is_no_text_sqlite_takes_does_not_stop_a_run(store: Store) -> None:
    store.link("run", [(ItemId("b/1"), "", "k", "", "half a pair: \ud83d")])
    assert store.prompts("run", ItemId("b/1")) == {"": "half a pair: ?"}


def test_a_transaction_that_breaks_off_leaves_nothing_of_itself(store: Store) -> None:
    def answers() -> Iterator[tuple[str, Outcome]]:
        yield "k", Outcome("passed")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.put(answers())
    assert store.count() == 0
    store.put([("k", Outcome("time"))])
    assert store.get("k") == Outcome("time")


def test_two_stores_on_one_file_see_each_others_answers(path: Path, store: Store) -> None:
    second = Store(path)
    store.put([("k", Outcome("passed"))])
    assert second.get("k") == Outcome("passed")
    second.close()


def test_a_file_locked_by_another_is_said_to_be_in_use(path: Path) -> None:
    written(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    assert "in use by another process" in refusal(path)
    other.execute("ROLLBACK")
    other.close()
    Store(path).close()


def test_a_file_of_another_schema_is_refused_by_number(path: Path) -> None:
    edit(written(path), f"PRAGMA user_version={SCHEMA + 1}")
    assert f"schema {SCHEMA + 1}" in refusal(path)


@pytest.mark.parametrize(
    "raw",
    [
        b"x",
        b"note\n",
        b"SQLite format 3\x00",
        b"SQLite format 3\x00" + b"\x01" * 400,
        b"not a database at all, " * 300,
        pickle.dumps({"k": 1}) * 300,
        b"SQLite format 3\x00" + b"\xff" * 9000,
    ],
)
def test_a_file_that_is_no_store_is_said_to_be_damaged(path: Path, raw: bytes) -> None:
    path.write_bytes(raw)
    assert "damaged" in refusal(path)
    assert path.read_bytes() == raw


@pytest.mark.parametrize("version", [0, SCHEMA, 7])
def test_a_database_of_another_program_is_refused_and_left_as_it_is(
    path: Path, version: int
) -> None:
    with contextlib.closing(sqlite3.connect(path)) as theirs:
        theirs.executescript(f"CREATE TABLE bookmarks (url TEXT); PRAGMA user_version={version}")
    raw = path.read_bytes()
    assert "of another program" in refusal(path)
    assert path.read_bytes() == raw
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_an_empty_file_is_an_empty_store(path: Path) -> None:
    path.touch()
    assert written(path, ("k", Outcome("passed"))).stat().st_size > 0


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_a_store_cut_short_is_said_to_be_damaged(path: Path, share: float) -> None:
    written(path, *((f"key {n}", Completion((Output(os.urandom(200).hex()),))) for n in range(500)))
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * share)])
    assert "damaged" in refusal(path)


def packed(kind: object, fields: object) -> bytes:
    """A payload as the store writes it, of any content."""
    return zlib.compress(json.dumps([kind, fields]).encode())


PAYLOADS = {
    "not compressed": b"\x80\x04K\x01.",
    "a pickle": zlib.compress(pickle.dumps(COMPLETION)),
    "cut short": zlib.compress(b"[" * 500)[:12],
    "no pair": zlib.compress(b"{}"),
    "unknown fields": packed("outcome", {"status": "passed", "colour": "red"}),
    "fields that are none": packed("completion", 7),
    "an output without text": packed("completion", {"outputs": [{}]}),
    "outputs that are no list": packed("completion", {"outputs": 5}),
    "deep": zlib.compress(b"[" * 100_000),
    "a bomb": zlib.compress(b"[" + b" " * (80 << 20) + b"]"),
    "text, not bytes": "text",
}


@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS)
def test_an_answer_that_is_none_is_damage_and_nothing_else(path: Path, payload: object) -> None:
    edit(written(path, ("k", Outcome("passed"))), "UPDATE answers SET payload = ?", payload)
    store = Store(path)
    store.link("run", [(ItemId("b/1"), "", "k", "", "")])
    with pytest.raises(EnvironmentFault, match="damaged"):
        store.get("k")
    with pytest.raises(EnvironmentFault, match="damaged"):
        list(store.answers("run"))
    store.close()


def test_a_store_that_is_removed_meanwhile_is_said_so_at_the_next_answer(store: Store) -> None:
    store.put([("k", COMPLETION)])
    store.path.unlink()
    with pytest.raises(EnvironmentFault, match="was removed while it was written"):
        store.put([("l", COMPLETION)])


READS = """
import sys
from pathlib import Path
from evals.storage.store import Store
print(Store(Path(sys.argv[1]), read_only=True).get("k"))
"""


@pytest.mark.skipif(
    not shutil.which("bwrap"),
    reason="bubblewrap (bwrap) is not installed: no read-only file system can be made",
)
def test_a_store_on_a_read_only_file_system_is_read_but_not_without_what_waits_in_its_log(
    path: Path,
) -> None:
    def read() -> str:
        jail = ["bwrap", "--ro-bind", "/", "/", "--dev", "/dev", "--"]
        command = [*jail, sys.executable, "-c", READS, str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.stdout + done.stderr

    written(path, ("k", Outcome("passed", "first")))
    assert "first" in read()
    log = path.with_name(path.name + "-wal")
    log.write_bytes(b"answers")
    assert "EnvironmentFault" in read()


def test_a_place_where_no_file_can_be_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    assert "cannot be written" in refusal(tmp_path / "file" / "store.sqlite")
    assert "cannot be written" in refusal(tmp_path / "folder")
