"""What an engine's log tells whoever waits for it: where its start is, and how it ended."""

import re
from pathlib import Path

_PHASES = (
    (re.compile(r"Captur\w+ CUDA graph|Graph captur|cudagraph"), "capturing graphs"),
    (re.compile(r"torch\.compile|Dynamo|[Cc]ompiling|warm(ing|-)?\s?up", re.I), "compiling"),
    (re.compile(r"Available KV cache|GPU KV cache|# (GPU|CPU) blocks"), "making room"),
    (re.compile(r"Model loading took|Loading weights took"), "weights loaded"),
    (
        re.compile(r"Starting to load model|Loading safetensors|checkpoint shards"),
        "loading weights",
    ),
    (re.compile(r"Downloading|Fetching \d+ files", re.I), "downloading weights"),
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
