"""Lists and tables that would fill the memory lie in temporary files: nobody else can open them,
and they are gone with the process.
"""

import os
import pickle
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar, overload

from evals.errors import EnvironmentFault, InputError, first_line, no_files_left

T = TypeVar("T")
_BLOCK = 16


class Scratch:
    """One table in a temporary file, called `rows`. Raises EnvironmentFault when that file cannot
    be written or read.
    """

    def __init__(self, columns: str) -> None:
        # No name: a file of SQLite's own, made when a few pages are full, gone with the connection.
        # Used by one thread at a time, not always the one that made it.
        self._db = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        # KB; values are asked for about in their order, and seldom twice
        self.ask("PRAGMA cache_size = -256")
        self.ask(f"CREATE TABLE rows ({columns})")
        # Never committed: nobody else reads the file, and each statement would else be a
        # transaction of its own.
        self.ask("BEGIN")

    def ask(self, query: str, *values: object) -> sqlite3.Cursor:
        """What SQLite answers."""
        try:
            return self._db.execute(query, values)
        except sqlite3.Error as error:
            where = "SQLITE_TMPDIR" if os.environ.get("SQLITE_TMPDIR") else "TMPDIR"
            if fault := no_files_left():
                raise fault from error
            raise EnvironmentFault(
                f"A temporary file cannot be written or read ({error}). Set {where} to a folder"
                " with room; the same command then goes on."
            ) from error


class Spool(Sequence[T]):
    """A list whose values lie in a temporary file. In memory is one block of neighbours, the last
    one used.

    values: of classes that can be pickled, so not of one defined in a function.  What is read
    equals what was put in, but need not be the same object: values are not to be changed.  Raises
    EnvironmentFault as Scratch does, InputError for other values.
    """

    def __init__(self, values: Iterable[T] = ()) -> None:
        self._blocks = Scratch("number INTEGER PRIMARY KEY, packed BLOB NOT NULL")
        self._n = 0
        self._open: list[T] = []
        self._number = 0
        self._is_changed = False
        self.extend(values)

    def append(self, value: T) -> None:
        """One more value at the end."""
        self._turn_to(self._n // _BLOCK)
        self._open.append(value)
        self._is_changed = True
        self._n += 1

    def extend(self, values: Iterable[T]) -> None:
        """More values at the end."""
        for value in values:
            self.append(value)

    def __setitem__(self, at: int, value: T) -> None:
        number, place = divmod(range(self._n)[at], _BLOCK)
        self._turn_to(number)
        self._open[place] = value
        self._is_changed = True

    @overload
    def __getitem__(self, at: int) -> T: ...
    @overload
    def __getitem__(self, at: slice) -> list[T]: ...
    def __getitem__(self, at: int | slice) -> T | list[T]:
        if isinstance(at, slice):
            return [self[place] for place in range(self._n)[at]]
        number, place = divmod(range(self._n)[at], _BLOCK)
        self._turn_to(number)
        return self._open[place]

    def __iter__(self) -> Iterator[T]:
        # The block that is open stays open, and is gone through as a copy: others may change the
        # list meanwhile.
        for number in range(-(-self._n // _BLOCK)):
            yield from list(self._open) if number == self._number else self._read(number)

    def __len__(self) -> int:
        return self._n

    def _turn_to(self, number: int) -> None:
        """Have this block open; the one that was is kept as it is now."""
        if number == self._number:
            return
        if self._is_changed:
            self._blocks.ask(
                "INSERT OR REPLACE INTO rows VALUES (?, ?)", self._number, _packed(self._open)
            )
        self._open, self._number, self._is_changed = self._read(number), number, False

    def _read(self, number: int) -> list[T]:
        """A block as it was kept last; an empty one where the list ends."""
        found = self._blocks.ask("SELECT packed FROM rows WHERE number = ?", number).fetchone()
        # Only what this process wrote: nobody else can open the file.
        values: list[T] = pickle.loads(found[0]) if found else []
        return values


def put_away(values: T) -> T:
    """Values as a spool gives them back. Raises InputError as a spool does."""
    found: T = pickle.loads(_packed(values))
    return found


def _packed(values: object) -> bytes:
    try:
        return pickle.dumps(values, pickle.HIGHEST_PROTOCOL)
    except (pickle.PicklingError, AttributeError, TypeError, RecursionError) as error:
        raise InputError(
            "A benchmark's rows and items must be plain values and dataclasses of its module's top"
            f" level: {first_line(error)}."
        ) from error
