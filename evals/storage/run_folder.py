"""A run on disk: lock, samples, summary.json (what two equal runs share) and run.json (what
varies).
"""

import contextlib
import errno
import gzip
import json
import math
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import IO, Any

from evals.errors import EnvironmentFault, InputError
from evals.storage.files import MAX_LINE, TooMuchError, bounded_lines, line_safe
from evals.storage.forms import from_json, newer_form, what_is_wrong, wrong_field


class RunFolder:
    """The folder of one run. Files are written whole, under a temporary name, then renamed."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def store_path(self) -> Path:
        """Where the run's own store lies."""
        return self.path / "store.sqlite"

    def store_of(self, record: Mapping[str, Any]) -> Path | None:
        """The store with the answers of this run.json: the one it shared with others, else the
        folder's own; None where it is not here.
        """
        path = Path(record["store"]) if record.get("store") else self.store_path
        # Path.exists raises where a folder may not be looked into
        return path if os.path.exists(path) else None

    def samples_path(self, task: str) -> Path:
        """Where a task's graded items lie."""
        return self.path / "samples" / f"{task}.jsonl.gz"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for this process. Raises EnvironmentFault when another run has it or it
        cannot be written.
        """
        from filelock import FileLock, Timeout

        try:
            (self.path / "samples").mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / ".lock", timeout=0)
            lock.acquire()
        except Timeout:
            raise EnvironmentFault(
                f"Another run is working in {self.path}. Wait for it, or choose another --out."
            ) from None
        except OSError as error:
            raise EnvironmentFault(
                f"{self.path} cannot be written ({error.strerror or error}). Choose another --out."
            ) from error
        try:
            yield
        finally:
            lock.release()

    def write_samples(
        self, task: str, rows: Iterable[Mapping[str, Any]], ahead: "Packed | None" = None
    ) -> None:
        """Write one task's graded items; the same rows give the same bytes. ahead: the first of
        them, written before.
        """
        with self._writing(self.samples_path(task)) as file:
            packed = ahead or Packed(file)
            packed.write(rows)
            packed.finish(file)

    def write_lines(self, name: str, rows: Iterable[Mapping[str, Any]]) -> int:
        """Write a file of JSON lines; how many there were."""
        n = 0
        with self._writing(self.path / name) as file:
            for row in rows:
                file.write(_bytes(to_json(row, indent=None)))
                n += 1
        return n

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Write summary.json or run.json."""
        self._write(self.path / name, _bytes(to_json(content)))

    def write_bytes(self, name: str, content: bytes) -> None:
        """Write any other file."""
        self._write(self.path / name, content)

    def read_json(self, name: str) -> dict[str, Any]:
        """Read summary.json or run.json. Raises InputError when the folder is no run or the file is
        not of its form.
        """
        path = self.path / name
        try:
            with path.open("rb") as stream:
                raw = stream.read(MAX_LINE + 1)
            if len(raw) > MAX_LINE:
                raise TooMuchError(f"it is longer than {MAX_LINE >> 20} MB")
            loaded = from_json(raw)
            if name == "summary.json" and (newer := newer_form(loaded)) is not None:
                raise InputError(
                    f"{path} is of another version of this program ({newer}). Use that version, or"
                    f" make it again with this one: evals score {self.path}"
                )
            wrong = what_is_wrong(name, loaded)
        except (OSError, ValueError, RecursionError) as error:
            if isinstance(error, OSError) and error.errno in (
                errno.ENOENT,
                errno.ENOTDIR,
                errno.ENAMETOOLONG,
            ):
                raise InputError(
                    f"{self.path} is not a finished run: {self._what_it_is(name)}"
                ) from None
            raise InputError(f"{path} cannot be read ({error}). {self._remedy(name)}") from error
        if wrong is not None:
            raise InputError(f"{path} is damaged ({wrong}). {self._remedy(name)}")
        return dict(loaded)

    def _what_it_is(self, missing: str) -> str:
        """What stands where a run's folder should, and what to do."""
        try:
            inside = sorted(file.parent.name for file in self.path.glob("*/summary.json"))
        except OSError:
            inside = []
        if inside:
            return f"it is a folder of {len(inside):,} runs. Name them: {self.path / inside[0]} …"
        what = f"it has no {missing}" if os.path.isdir(self.path) else "there is no such folder"
        return f"{what}. RUN is the folder that `evals run --out` wrote."

    def _remedy(self, name: str) -> str:
        if name == "run.json":
            return (
                "Move it away; the command that made the run writes it again and asks for nothing"
                " that is there."
            )
        return f"Make it again with: evals score {self.path}"

    def samples(self, task: str) -> Iterator[dict[str, Any]]:
        """The task's graded items. Raises InputError when the file is missing or damaged, or has an
        item twice.
        """
        path = self.samples_path(task)
        seen = set[str]()
        try:
            for number, line in bounded_lines(path):
                row = from_json(line)
                if (field := wrong_field(row)) is not None:
                    raise ValueError(f"line {number} is no graded item{field and ': its ' + field}")
                if row["id"] in seen:
                    raise ValueError(f"line {number}: {row['id']} is there twice")
                seen.add(row["id"])
                yield row
        except (OSError, EOFError, ValueError, RecursionError, zlib.error) as error:
            raise InputError(
                f"{path} cannot be read ({error}). Make it again with: evals score {self.path}"
            ) from error

    def _write(self, path: Path, content: bytes) -> None:
        with self._writing(path) as file:
            file.write(content)

    @contextlib.contextmanager
    def _writing(self, path: Path) -> Iterator[IO[bytes]]:
        """A file that takes the path's place once it is whole."""
        part = path.parent / f"{path.name}.part"  # with_name would raise on "." and "/"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # A stranger's links lead out of the folder: none within it is followed.
            if path.parent != self.path and path.parent.is_symlink():
                raise OSError(errno.ELOOP, f"{path.parent} is a link; put a folder in its place")
            part.unlink(missing_ok=True)
            with part.open("xb") as file:
                yield file
            part.replace(path)
        except BaseException as error:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            if not isinstance(error, OSError):
                raise
            raise EnvironmentFault(
                f"{path} could not be written ({error.strerror or error}). The same command goes on"
                " once that is mended."
            ) from error


class Packed:
    """Graded items as they lie in a run's folder, in a file, or in a temporary one until they are
    put into theirs. Raises OSError.
    """

    def __init__(self, file: IO[bytes] | None = None) -> None:
        self._file = file or tempfile.TemporaryFile()  # noqa: SIM115 - closed in finish
        # A gzip header holds a name and a time: equal rows would not be equal bytes.
        self._stream = gzip.GzipFile("", "wb", 6, self._file, mtime=0)

    def write(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Further rows."""
        for row in rows:
            self._stream.write(_bytes(to_json(row, indent=None)))

    def finish(self, file: IO[bytes]) -> None:
        """No more rows come; all of them into their file, where they are not."""
        self._stream.close()
        if self._file is not file:
            self._file.seek(0)
            shutil.copyfileobj(self._file, file)
            self._file.close()


def _bytes(line: str) -> bytes:
    return (line + "\n").encode("utf-8")


def to_json(value: Any, indent: int | None = 1) -> str:
    """JSON with sorted keys and floats at ten significant digits, so that equal results are equal
    bytes; without an indent it is one line, whatever the texts in it hold.
    """
    return line_safe(_encoder(indent).encode(_fixed(value)))


@cache
def _encoder(indent: int | None) -> json.JSONEncoder:
    return json.JSONEncoder(sort_keys=True, ensure_ascii=False, indent=indent, allow_nan=False)


def _fixed(value: Any) -> Any:
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, float):
        rounded = float(f"{value:.10g}")
        return rounded if math.isfinite(rounded) else None
    if isinstance(value, (dict, Mapping)):  # of a dict the abstract class is not asked
        return {str(key): _fixed(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_fixed(entry) for entry in value]
    return value


def default_folder(name: str, suite: str) -> str:
    """The run folder's name: the model's and the suite."""
    return f"{safe(name)}-{suite}"


def safe(name: str) -> str:
    """A model's name in lower case and safe as a file's."""
    kept = "".join(c if c.isalnum() or c in "._-" else "-" for c in name.lower()).strip("-.")
    return kept or "model"
