"""A run on disk: lock, samples, summary.json (what two equal runs share) and run.json (what varies)."""

import contextlib
import gzip
import io
import json
import math
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from evals.errors import EnvironmentFault, InputError
from evals.files import MAX_LINE, TooMuchError, bounded_lines


class RunFolder:
    """The folder of one run. Files are written whole, under a temporary name, then renamed."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def store_path(self) -> Path:
        """Where the run's own store lies."""
        return self.path / "store.sqlite"

    def store_path_of(self, record: Mapping[str, Any]) -> Path:
        """Where the run of this run.json kept its answers: the store it shared with others, else the folder's own."""
        return Path(record["store"]) if record.get("store") else self.store_path

    def samples_path(self, task: str) -> Path:
        """Where a task's graded items lie."""
        return self.path / "samples" / f"{task}.jsonl.gz"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for this process. Raises EnvironmentFault when another run has it or it cannot be written."""
        from filelock import FileLock, Timeout

        try:
            (self.path / "samples").mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / ".lock", timeout=0)
            lock.acquire()
        except Timeout:
            raise EnvironmentFault(f"Another run is working in {self.path}. Wait for it, or choose another --out.") from None
        except OSError as error:
            raise EnvironmentFault(f"{self.path} cannot be written ({error.strerror or error}). Choose another --out.") from error
        try:
            yield
        finally:
            lock.release()

    def write_samples(self, task: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write one task's graded items; the same rows give the same bytes."""
        buffer = io.BytesIO()
        with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0, compresslevel=6) as stream:
            for row in rows:
                stream.write(_bytes(to_json(row, indent=None)))
        self._write(self.samples_path(task), buffer.getvalue())

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Write summary.json or run.json."""
        self._write(self.path / name, _bytes(to_json(content)))

    def write_bytes(self, name: str, content: bytes) -> None:
        """Write any other file."""
        self._write(self.path / name, content)

    def read_json(self, name: str) -> dict[str, Any]:
        """Read summary.json or run.json. Raises InputError when the folder is no run or the file is damaged."""
        path = self.path / name
        try:
            with path.open("rb") as stream:
                raw = stream.read(MAX_LINE + 1)
            if len(raw) > MAX_LINE:
                raise TooMuchError(f"it is longer than {MAX_LINE >> 20} MB")
            loaded = json.loads(raw)
        except (FileNotFoundError, NotADirectoryError):
            raise InputError(
                f"{self.path} is not a finished run: it has no {name}. RUN is the folder that `evals run --out` wrote."
            ) from None
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"{path} cannot be read ({error}). {self._remedy(name)}") from error
        is_ours = {"run.json": _is_record, "summary.json": _is_summary}.get(name, lambda _: True)
        if not isinstance(loaded, dict) or not is_ours(loaded):
            raise InputError(f"{path} is damaged: it lacks what this program writes there. {self._remedy(name)}")
        return loaded

    def _remedy(self, name: str) -> str:
        if name == "run.json":
            return "Move it away; the command that made the run writes it again and asks for nothing that is there."
        return f"Make it again with: evals score {self.path}"

    def samples(self, task: str) -> Iterator[dict[str, Any]]:
        """The task's graded items. Raises InputError when the file is missing or damaged."""
        path = self.samples_path(task)
        try:
            for _, line in bounded_lines(path):
                yield json.loads(line)
        except (OSError, EOFError, ValueError, RecursionError, zlib.error) as error:
            raise InputError(f"{path} cannot be read ({error}). Make it again with: evals score {self.path}") from error

    def _write(self, path: Path, content: bytes) -> None:
        part = path.with_name(path.name + ".part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            part.write_bytes(content)
            part.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            raise EnvironmentFault(
                f"{path} could not be written ({error.strerror or error}). The same command goes on once that is mended."
            ) from error


def _bytes(line: str) -> bytes:
    # Only lone surrogates cannot be encoded; their backslash form is the same text to whoever reads the JSON.
    return (line + "\n").encode("utf-8", "backslashreplace")


def _is_record(loaded: Mapping[str, Any]) -> bool:
    """Whether run.json has the parts that resuming, scoring and showing read, of the right kinds."""
    parts = {"summary_header": dict, "run_key": str, "capped": dict, "skipped": dict, "tasks": list, "sessions": list}
    if not all(isinstance(loaded.get(name), kind) for name, kind in parts.items()):
        return False
    head = loaded["summary_header"]
    judges = head.get("judges")
    return (
        all(isinstance(loaded.get(name), str | None) for name in ("store", "data"))
        and all(isinstance(task, str) for task in loaded["tasks"])
        and all(isinstance(session, dict) for session in loaded["sessions"])
        and isinstance(head.get("suite"), str)
        and isinstance(head.get("chat_format"), str)
        and isinstance(head.get("limit"), int | None)
        and isinstance(head.get("model"), dict)
        and isinstance(judges, dict)
        and all(isinstance(judge, dict) and isinstance(judge.get("name"), str) for judge in judges.values())
    )


def _is_summary(loaded: Mapping[str, Any]) -> bool:
    """Whether summary.json names its schema and has cells with a number or null each."""
    cells = loaded.get("cells", {})
    return (
        isinstance(loaded.get("schema"), int)
        and isinstance(cells, dict)
        and all(isinstance(cell, dict) and isinstance(cell.get("value"), int | float | None) for cell in cells.values())
    )


def to_json(value: Any, indent: int | None = 1) -> str:
    """JSON with sorted keys and floats at ten significant digits, so that equal results are equal bytes."""
    return json.dumps(_fixed(value), sort_keys=True, ensure_ascii=False, indent=indent, allow_nan=False)


def _fixed(value: Any) -> Any:
    if isinstance(value, float):
        rounded = float(f"{value:.10g}")
        return rounded if math.isfinite(rounded) else None
    if isinstance(value, Mapping):
        return {str(key): _fixed(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_fixed(entry) for entry in value]
    return value
