"""What an engine's log tells whoever waits for it: where its start is, and how it ended."""

import re
from pathlib import Path

_PHASES = tuple(
    (re.compile(told), name)
    for told, name in (
        (r"Capturing CUDA graphs|Graph capturing finished", "capturing graphs"),
        (r"Dynamo bytecode transform|Compiling a graph|torch\.compile took", "compiling"),
        (r"KV cache size: |Warming up", "warming up"),
        (r"Model loading took|Loading weights took", "weights loaded"),
        (r"Starting to load model|Loading safetensors checkpoint shards", "loading weights"),
        (r"Fetching \d+ files|Downloading ", "downloading weights"),
    )
)
"""By what vLLM says of each, the latest first."""
_TAIL = 64 << 10
_LINES = 8
_LONGEST = 300


def phase(log: Path) -> str:
    """The last phase that the log tells of."""
    lines = reversed(_tail(log))
    return next((name for line in lines for told, name in _PHASES if told.search(line)), "starting")


def last_lines(log: Path) -> str:
    """Where the log is, and how it ends."""
    lines = [line.rstrip()[:_LONGEST] for line in _tail(log) if line.strip()][-_LINES:]
    said = "".join(f"\n    {line}" for line in lines)
    return f"Its log is {log}" + (f"; it ends:{said}" if said else ", and empty.")


def _tail(log: Path) -> list[str]:
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, log.stat().st_size - _TAIL))
            return stream.read().decode("utf-8", "replace").replace("\r", "\n").splitlines()
    except OSError:
        return []
