"""The store: every answer and finding, content-addressed, committed as it arrives; it survives a
kill.

Two tables: `answers` (key -> what came back) and `asked` (which item of which run asked for which
key, with the prompt's text).
Payloads are zlib-compressed JSON: a store from a stranger is data and runs nothing.
"""

import contextlib
import json
import math
import os
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields as dataclass_fields
from itertools import islice
from pathlib import Path
from typing import Any

from evals.errors import EnvironmentFault, no_files_left
from evals.records import Completion, ItemId, Outcome, Output, Scored

SCHEMA = 1
_MAGIC = b"SQLite format 3\x00"
_SMALLEST_PAGE = 512
"""Bytes of the smallest SQLite page: a shorter file SQLite takes for an empty one, and writes over
it.
"""
_MAX_PAYLOAD = 64 << 20
_KEYS_AT_ONCE = 500
"""Keys looked up at a time."""
_LOG_PAGES = 8000
"""Of 4 kB, at most beside the file while a run writes."""
_TABLES = """
CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, payload BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS asked (
    run TEXT NOT NULL, item TEXT NOT NULL, "check" TEXT NOT NULL, key TEXT NOT NULL,
    by TEXT NOT NULL, prompt TEXT NOT NULL,
    PRIMARY KEY (run, item, "check")
) WITHOUT ROWID;
"""

Answer = Completion | Outcome
_ENCODER = json.JSONEncoder(ensure_ascii=False)
_NAMES = {
    one: [field.name for field in dataclass_fields(one)] for one in (Completion, Output, Outcome)
}


class Store:
    """A SQLite file in WAL mode. Raises EnvironmentFault with one sentence when it is locked,
    damaged, read-only or the disk is full.

    read_only: for a file that a stranger's run names: nothing is made or changed.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path = path
        with self._guard():
            if not read_only:
                path.parent.mkdir(parents=True, exist_ok=True)
            _refuse_foreign_file(path)
            address = path.absolute().as_uri() + (_reading(path) if read_only else "?mode=rwc")
            self._db = sqlite3.connect(
                address, uri=True, timeout=5.0, isolation_level=None, check_same_thread=False
            )
            try:
                self._prepare(read_only)
            except BaseException:
                self._db.close()
                raise

    def _prepare(self, read_only: bool) -> None:
        self._refuse_foreign_tables()
        if not read_only:
            self._db.execute("PRAGMA journal_mode=WAL")
            # A kill loses no commit this way, a power cut may lose the last ones; FULL would wait
            # for the disk at each.
            self._db.execute("PRAGMA synchronous=NORMAL")
            # Keys are random, so that answers of one commit lie in as many pages: brought into the
            # file after a thousand, as is usual, each page would be written and waited for anew
            # every few commits.
            self._db.execute(f"PRAGMA wal_autocheckpoint={_LOG_PAGES}")
        # Damage is named before anything is asked, not hours later.
        if self._db.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
            raise sqlite3.DatabaseError("its pages do not agree")
        if not read_only:
            self._db.executescript(_TABLES)
            self._db.execute(f"PRAGMA user_version={SCHEMA}")

    def _refuse_foreign_tables(self) -> None:
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        tables = {
            name
            for (name,) in self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        }
        if tables - {"answers", "asked"}:
            raise EnvironmentFault(
                f"{self.path} is a database of another program. Choose another --out or --store."
            )
        if version not in (0, SCHEMA):
            raise EnvironmentFault(
                f"{self.path} was written by another version of this program (schema {version})."
                " Choose another --out or --store."
            )

    def known(self, keys: Iterable[str]) -> set[str]:
        """Those of `keys` that have an answer."""
        wanted = list(dict.fromkeys(keys))
        found: set[str] = set()
        with self._guard():
            for start in range(0, len(wanted), _KEYS_AT_ONCE):
                part = wanted[start : start + _KEYS_AT_ONCE]
                marks = ",".join("?" * len(part))
                found.update(
                    key
                    for (key,) in self._db.execute(
                        f"SELECT key FROM answers WHERE key IN ({marks})", part
                    )
                )
        return found

    def put(self, answers: Iterable[tuple[str, Answer]]) -> None:
        """Commit answers in one transaction; an answer already there is kept."""
        rows = [(key, _pack(answer)) for key, answer in answers]
        with self._transaction():
            self._db.executemany("INSERT OR IGNORE INTO answers VALUES (?, ?)", rows)

    def link(self, run: str, rows: Iterable[tuple[ItemId, str, str, str, str]]) -> None:
        """Record which keys a run asked: (item id, check name, key, by whom, prompt text); replaces
        earlier links of those items.
        """
        # The prompt is kept for reading only; a lone surrogate, which SQLite refuses, must not stop
        # a run.
        kept = [
            (run, *row[:-1], row[-1].encode("utf-8", "replace").decode("utf-8")) for row in rows
        ]
        with self._transaction():
            self._db.executemany("INSERT OR REPLACE INTO asked VALUES (?, ?, ?, ?, ?, ?)", kept)

    def get(self, key: str) -> Answer | None:
        """The answer under a key."""
        ((_, answer),) = self.get_each([key])
        return answer

    def get_each(self, keys: Iterable[str]) -> Iterator[tuple[str, Answer | None]]:
        """Each key with its answer, in the order given; of the answers one is in memory, and the
        packed ones of a part.
        """
        waiting = iter(keys)
        while part := list(islice(waiting, _KEYS_AT_ONCE)):
            with self._guard():
                marks = ",".join("?" * len(part))
                found = dict(
                    self._db.execute(
                        f"SELECT key, payload FROM answers WHERE key IN ({marks})", part
                    )
                )
            for key in part:
                with self._guard():
                    answer = _unpack(found[key]) if key in found else None
                yield key, answer

    def answers(self, run: str) -> Iterator[tuple[ItemId, str, str, Answer]]:
        """All answers of a run: (item id, check name, by whom, answer)."""
        query = (
            'SELECT item, "check", by, payload FROM asked JOIN answers USING (key) WHERE run = ?'
            ' ORDER BY item, "check"'
        )
        with self._guard():
            for item, check, by, payload in self._db.execute(query, (run,)):
                yield ItemId(item), check, by, _unpack(payload)

    def prompts(self, run: str, item: ItemId) -> dict[str, str]:
        """Prompt texts of one item by check name; "" is the question itself."""
        with self._guard():
            return dict(
                self._db.execute(
                    'SELECT "check", prompt FROM asked WHERE run = ? AND item = ?', (run, item)
                ).fetchall()
            )

    def count(self) -> int:
        """How many answers the store holds."""
        with self._guard():
            (n,) = self._db.execute("SELECT count(*) FROM answers").fetchone()
            return int(n)

    @property
    def is_there(self) -> bool:
        """Whether the file still has its name: SQLite goes on in one that was removed, and all is
        lost at the end.
        """
        return self.path.exists()

    def close(self) -> None:
        """Close the file; what was committed stays."""
        with contextlib.suppress(sqlite3.Error):
            self._db.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        if not self.is_there:
            raise EnvironmentFault(
                f"{self.path} was removed while it was written: the answers in it are lost. The"
                " same command begins anew."
            )
        with self._guard():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                # On a full disk SQLite may have rolled back by itself.
                with contextlib.suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    @contextlib.contextmanager
    def _guard(self) -> Iterator[None]:
        try:
            yield
        except (
            sqlite3.Error,
            zlib.error,
            OSError,
            ValueError,
            KeyError,
            TypeError,
            RecursionError,
        ) as error:
            raise _fault(self.path, error) from error


def _reading(path: Path) -> str:
    """How SQLite opens a store to read it only. Beside one in WAL mode it would make files, which
    a folder of somebody else's may not allow: such a one is read as it lies there, unless answers
    wait in its log, which would then be left out.
    """
    wal = path.with_name(path.name + "-wal")
    is_whole = not wal.exists() or wal.stat().st_size == 0
    return "?immutable=1" if is_whole and not os.access(path.parent, os.W_OK) else "?mode=ro"


def _refuse_foreign_file(path: Path) -> None:
    """Raise DatabaseError on a file that is no SQLite file. An empty one may be a store whose maker
    was killed.
    """
    if path.is_file() and path.stat().st_size > 0:
        with path.open("rb") as opened:
            head = opened.read(_SMALLEST_PAGE)
        if len(head) < _SMALLEST_PAGE or not head.startswith(_MAGIC):
            raise sqlite3.DatabaseError("file is not a database")


def _fault(path: Path, error: Exception) -> EnvironmentFault:
    if fault := no_files_left():
        return fault
    text = str(error).lower()
    # By its words first: a full disk may also be an OSError.
    if "full" in text or "no space" in text:
        return EnvironmentFault(
            f"The disk is full: {path} could not be written. Free some space; the same command"
            " goes on."
        )
    if "locked" in text or "busy" in text:
        return EnvironmentFault(
            f"{path} is in use by another process. Wait for it, or choose another --out or --store."
        )
    if isinstance(error, OSError) or "readonly" in text or "unable to open" in text:
        return EnvironmentFault(
            f"{path} cannot be written ({error}). Check the folder's permissions, or choose another"
            " --out."
        )
    if "i/o error" in text:
        return EnvironmentFault(
            f"{path} could not be read or written ({error}): check the disk and its quota. The same"
            " command goes on."
        )
    return EnvironmentFault(
        f"{path} is damaged ({error}). Move it away; the same command then starts with an empty"
        " store."
    )


def _pack(answer: Answer) -> bytes:
    # dataclasses.asdict would copy every token id: 0.7 ms for each hundred.
    if isinstance(answer, Outcome):
        kind, fields = "outcome", _shallow(answer)
    else:
        kind, fields = (
            "completion",
            _shallow(answer) | {"outputs": [_lean(output) for output in answer.outputs]},
        )
        # What most answers lack is not written: earlier versions read them, too.
        if not answer.unasked:
            del fields["unasked"]
        if answer.scores is None:
            del fields["scores"]
        else:
            fields["scores"] = scores_json(answer.scores)
    return zlib.compress(_ENCODER.encode([kind, fields]).encode("utf-8", "surrogatepass"), 6)


def _shallow(record: Completion | Output | Outcome) -> dict[str, Any]:
    return {name: getattr(record, name) for name in _NAMES[type(record)]}


def _lean(output: Output) -> dict[str, Any]:
    fields = _shallow(output)
    for name in ("reasoning", "n_reasoning"):
        if fields[name] is None:
            del fields[name]
    return fields


def _unpack(payload: bytes) -> Answer:
    inflate = zlib.decompressobj()
    raw = inflate.decompress(payload, _MAX_PAYLOAD)
    if inflate.unconsumed_tail:
        raise ValueError("an answer is larger than any model gives")
    kind, fields = json.loads(raw.decode("utf-8", "surrogatepass"))
    if kind == "outcome":
        return Outcome(**fields)
    return completion_from_json(fields)


def completion_from_json(fields: dict[str, Any]) -> Completion:
    """A Completion from its JSON form. Raises KeyError or TypeError when the form is not one."""
    outputs = tuple(
        Output(
            one["text"],
            one["finish_reason"],
            tuple(one["token_ids"]),
            one.get("reasoning"),
            one.get("n_reasoning"),
        )
        for one in fields["outputs"]
    )
    unasked = tuple(fields.get("unasked", ()))
    scores = scored_from_json(fields.get("scores"))
    return Completion(**{**fields, "outputs": outputs, "unasked": unasked, "scores": scores})


def scores_json(scores: Sequence[Scored]) -> list[Any]:
    """Log-likelihoods as JSON has them: the sum, whether each token was the likeliest, how many.
    One that is not finite is a text, which float() reads back.
    """
    finite = (one.logprob if math.isfinite(one.logprob) else str(one.logprob) for one in scores)
    return [[sum_, one.is_greedy, one.n_tokens] for sum_, one in zip(finite, scores, strict=True)]


def scored_from_json(rows: Any) -> tuple[Scored, ...] | None:
    """Log-likelihoods from their JSON form; None where there are none. Raises TypeError or
    ValueError when the form is not one.
    """
    if rows is None:
        return None
    return tuple(Scored(float(logprob), bool(is_greedy), int(n)) for logprob, is_greedy, n in rows)
