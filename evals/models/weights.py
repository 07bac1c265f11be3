"""Whether files of weights are whole, as far as their headers tell: a copy that broke off, or a Git
LFS pointer, would else be met only after the engine has started.
"""

import json
from pathlib import Path

_LONGEST_HEADER = 100 << 20
"""Bytes; safetensors itself refuses a longer one."""


def broken_file(folder: Path) -> str | None:
    """The first *.safetensors file of a folder that is not whole, and why; None where all are.
    Raises OSError when one cannot be read.
    """
    for file in sorted(folder.glob("*.safetensors")):
        if (flaw := _flaw(file)) is not None:
            return f"{file.name} {flaw}"
    return None


def _flaw(file: Path) -> str | None:
    """The format: eight bytes, the header's length; the header, JSON; the tensors' bytes."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        head = stream.read(8)
        if head.startswith(b"version "):
            return "is a Git LFS pointer, not the file itself"
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
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return "has no header of the format"
    wanted = 8 + length + max(ends, default=0)
    return None if size == wanted else f"has {size:,} bytes, its header says {wanted:,}"
