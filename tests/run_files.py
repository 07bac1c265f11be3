"""Contents of summary.json and run.json that have every part their schemas ask for; a test names
what it is about.
"""

from collections.abc import Mapping
from typing import Any

HEADER: dict[str, Any] = {
    "schema": 1,
    "protocol": "p/1",
    "suite": "card",
    "limit": None,
    "seed": 0,
    "chat_format": "tulu",
    "bos_tokens": 1,
    "prompts_by": "tokenizer",
    "judges": {},
    "data": {},
    "model": {
        "name": "m",
        "id": "m",
        "fingerprint": "f",
        "revision": None,
        "dtype": "float32",
        "quantization": None,
    },
}
RECORD: dict[str, Any] = {
    "summary_header": HEADER,
    "run_key": "k",
    "capped": {},
    "skipped": {},
    "tasks": [],
    "store": None,
    "data": None,
    "sessions": [{"phases": {}, "versions": {}}],
}
_METRIC = {
    "value": None,
    "n": 0,
    "n_items": 0,
    "stderr": None,
    "ci95": None,
    "estimator": "",
    "reason": None,
    "marks": [],
}


def summary(cells: Mapping[str, Mapping[str, Any]], **changes: Any) -> dict[str, Any]:
    """A summary with these cells, each filled up, and an Average without a value unless it is among
    them.
    """
    filled = {key: _METRIC | dict(cell) for key, cell in {"average": {}, **cells}.items()}
    return HEADER | {"cells": filled, "metrics": {}, "tasks": {}} | changes
