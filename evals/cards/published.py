"""The published rows: what the model card prints, and how each row was made.

One JSON file holds them, `results/published/card.json` in a clone, `evals/_published/card.json` in
an installed wheel.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from evals.errors import EnvironmentFault

# Written out, not read from the registry: a benchmark that is added there is not on the card.
CELL_KEYS = (
    "mmlu",
    "gsm8k",
    "bbh",
    "humaneval",
    "alpaca_eval_1",
    "alpaca_eval_2_lc",
    "truthfulqa",
    "ifeval",
    "xstest_safe_refused",
    "xstest_unsafe_followed",
    "average",
)
"""The card's cells in its column order."""


@dataclass(frozen=True, slots=True)
class PublishedRow:
    """One row of the card.

    name: as printed, less the marks of "this model".  short_name: how a user names the model here.
    revision: hub commit, None where unknown.  bos_tokens: how many a prompt in `chat_format` starts
    with.
    cells: cell key -> text exactly as printed, percent with one decimal or "-".
    settings: what it was made with; [K] read from the source, [I] inferred from the numbers, [U]
    assumed.
    notes: cell key -> why the printed cell is to be distrusted.
    """

    name: str
    short_name: str
    hub_id: str
    revision: str | None
    chat_format: Literal["none", "tokenizer", "tulu"]
    bos_tokens: int
    size: Literal["8b", "70b"]
    kind: Literal["base", "instruct", "sft", "dpo"]
    cells: Mapping[str, str]
    source: str
    settings: Mapping[str, str]
    notes: Mapping[str, str]


@cache
def published_rows() -> tuple[PublishedRow, ...]:
    """The card's eight rows, top to bottom. Raises EnvironmentFault when the installation lacks
    them.
    """
    path = published_folder(Path(__file__).resolve().parents[1]) / "card.json"
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        why = type(error).__name__
        raise EnvironmentFault(
            f"The published rows cannot be read from {path} ({why}). Install the package again."
        ) from error
    return tuple(_row(raw, card["settings"]) for raw in card["rows"])


def row_of_short_name(name: str) -> PublishedRow | None:
    """The row of the model a user calls `name`; None when the card has none."""
    return next((row for row in published_rows() if row.short_name == name), None)


def published_folder(package: Path) -> Path:
    """Where the package in folder `package` keeps published numbers: inside it (wheel), else beside
    it (clone).
    """
    inside = package / "_published"
    return inside if inside.is_dir() else package.parent / "results" / "published"


def _row(raw: Mapping[str, Any], shared_settings: Mapping[str, str]) -> PublishedRow:
    return PublishedRow(
        name=raw["name"],
        short_name=raw["short_name"],
        hub_id=raw["hub_id"],
        revision=raw["revision"],
        chat_format=raw["chat_format"],
        bos_tokens=raw["bos_tokens"],
        size=raw["size"],
        kind=raw["kind"],
        cells=MappingProxyType({key: raw["cells"][key] for key in CELL_KEYS}),
        source=raw["source"],
        settings=MappingProxyType({**shared_settings, **raw["settings"]}),
        notes=MappingProxyType(dict(raw["notes"])),
    )
