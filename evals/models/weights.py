"""Whether files of a model are whole, as far as their headers tell: a copy that broke off, or a Git
LFS pointer, would else be met only after the engine has started.
"""

import json
import zipfile
from pathlib import Path

_LONGEST_HEADER = 100 << 20
"""Bytes; safetensors itself refuses a longer one."""


_POINTER = "is a Git LFS pointer, not the file itself"


def broken_file(folder: Path) -> str | None:
    """The first file of weights of a folder that is not whole, and why; None where all are.
    Raises OSError when one cannot be read.
    """
    for file in sorted(folder.glob("*.safetensors")):
        if (flaw := _flaw(file)) is not None:
            return f"{file.name} {flaw}"
    for file in sorted(folder.glob("pytorch_model*.bin")):
        if (flaw := _flaw_of_archive(file)) is not None:
            return f"{file.name} {flaw}"
    return None


def broken_json(folder: Path) -> str | None:
    """The first *.json file of a folder that is none; None where all are."""
    for file in sorted(folder.glob("*.json")):
        try:
            json.loads(file.read_bytes())
        except (OSError, ValueError, RecursionError):
            return file.name
    return None


def _flaw_of_archive(file: Path) -> str | None:
    """What torch.save writes is a zip archive, whose table stands at its end; of its older format,
    a bare pickle, nothing is known.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        head = stream.read(8)
    if head.startswith(b"version "):
        return _POINTER
    is_cut = head.startswith(b"PK\x03\x04") and not zipfile.is_zipfile(file)
    return f"breaks off ({size:,} bytes)" if is_cut or not size else None


def _flaw(file: Path) -> str | None:
    """The format: eight bytes, the header's length; the header, JSON; the tensors' bytes."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        head = stream.read(8)
        if head.startswith(b"version "):
            return _POINTER
        length = int.from_bytes(head, "little")
        if len(head) < 8 or length > min(_LONGEST_HEADER, size - 8):
            return f"breaks off within its header ({size:,} bytes)"
        raw = stream.read(length)
    try:
        ends = [
            int(one["data_offsets"][1])
            for name, one in json.loads(raw).items()
            if name != "__metadata__"
        ]
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError):
        return "has no header of the format"
    wanted = 8 + length + max(ends, default=0)
    return None if size == wanted else f"has {size:,} bytes, its header says {wanted:,}"
