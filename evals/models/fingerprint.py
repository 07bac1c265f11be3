"""The identity of a folder of weights: a hash over the content of every file that determines a
model's answers.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

_WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.pth")
_CONFIG = ("*.json", "*.model", "*.jinja", "*.tiktoken", "*.txt")


def has_weights(folder: Path, but: str = "nothing") -> bool:
    """True when the folder holds weight files. but: not counting those whose name begins so."""
    files = (file for pattern in _WEIGHTS for file in folder.glob(pattern))
    return any(not file.name.startswith(but) for file in files)


def recorded_files(path: Path) -> list[Path]:
    """The files of recorded outputs that a replay path means: itself, or a folder's JSON-lines
    files.
    """
    return sorted([*path.glob("*.jsonl"), *path.glob("*.jsonl.gz")]) if path.is_dir() else [path]


def file_sha256(file: Path) -> str:
    """SHA-256 of a file's content, of which a part at a time is in memory. Raises OSError when it
    cannot be read.
    """
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def folder_fingerprint(folder: Path) -> str:
    """SHA-256 over names and contents of weights, config and tokenizer files.

    A file's hash is remembered in the user's cache by path, size and modification time, so a 140 GB
    folder is read once.
    Raises OSError when a file cannot be read.
    """
    return files_fingerprint({p for pattern in (*_WEIGHTS, *_CONFIG) for p in folder.glob(pattern)})


def files_fingerprint(files: Iterable[Path]) -> str:
    """The same over some files. Raises OSError when one cannot be read."""
    memory = _RememberedHashes()
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(f"{file.name} {memory.hash_of(file)}\n".encode())
    memory.save()
    return digest.hexdigest()


class _RememberedHashes:
    """File hashes by (path, size, mtime), kept in the user's cache; losing it costs time only."""

    def __init__(self) -> None:
        self.path = (
            Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
            / "evals"
            / "hashes.json"
        )
        try:
            loaded = json.loads(self.path.read_text())
        except (OSError, ValueError, RecursionError):
            loaded = {}
        self.known: dict[str, str] = loaded if isinstance(loaded, dict) else {}
        self.is_changed = False

    def hash_of(self, file: Path) -> str:
        stat = file.stat()
        name = f"{file.resolve()}|{stat.st_size}|{stat.st_mtime_ns}"
        if name not in self.known:
            self.known[name] = file_sha256(file)
            self.is_changed = True
        return self.known[name]

    def save(self) -> None:
        if not self.is_changed:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Runs that start together share the file: each writes a part of its own.
            part = self.path.with_suffix(f".{os.getpid()}.part")
            part.write_text(json.dumps(self.known))
            part.replace(self.path)
        except OSError:
            return
