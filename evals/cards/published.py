"""The cards that travel with the program, and any other by its file.

`results/published/*.toml` in a clone, `evals/_published/*.toml` in an installed wheel.
"""

import os
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from evals.cards.card import Card, PublishedRow
from evals.cards.form import card_from, read_card
from evals.errors import EnvironmentFault, InputError, nearest

DEFAULT = "llama-3.1-tulu-2"


def shipped(name: str = DEFAULT) -> Card:
    """One of our own cards. Raises EnvironmentFault when the installation lacks it."""
    return _read(name)


@cache
def _read(name: str) -> Card:
    path = shipped_folder("published") / f"{name}.toml"
    try:
        return read_card(path)
    except InputError as error:
        raise EnvironmentFault(f"{error} Install the package again.") from error


def shipped_names() -> tuple[str, ...]:
    """The names of our own cards, the default first."""
    folder = shipped_folder("published")
    others = sorted(path.stem for path in folder.glob("*.toml") if path.stem != DEFAULT)
    return (DEFAULT, *others)


def card_named(argument: str | None) -> Card:
    """The card that --card names: one of ours, or a file's. Raises InputError for any other."""
    if argument is None or argument in shipped_names():
        return shipped(argument or DEFAULT)
    path = Path(os.path.expanduser(argument))
    if path.suffix == ".toml" or os.path.exists(path):
        return read_card(path)
    raise InputError(
        f"--card {argument}: no card of that name, and no file."
        f" {nearest(argument, shipped_names())}"
    )


def card_of_run(summary: Mapping[str, Any]) -> Card:
    """The card of a run, as its summary or its header has it; the default one for runs of the time
    before there were others.
    """
    kept = summary.get("card")
    if kept is None:
        return shipped()
    card = card_from(kept, "The run's card in summary.json", str(kept.get("protocol")))
    ours = [shipped(name) for name in shipped_names()]
    # A title of ours may head other columns or another average, which no published row is of.
    return replace(card, rows=next((one.rows for one in ours if _one_protocol(one, card)), ()))


def _one_protocol(one: Card, other: Card) -> bool:
    asked = ({column.key: column.identity for column in card.columns} for card in (one, other))
    return (one.title, one.average, next(asked)) == (other.title, other.average, next(asked))


def published_rows() -> tuple[PublishedRow, ...]:
    """The default card's rows, top to bottom."""
    return shipped().rows


def row_of_short_name(name: str) -> PublishedRow | None:
    """The row of the model a user calls `name`, on any of our cards; None when none has it."""
    return next((row for row in shipped_rows() if row.short_name == name), None)


def shipped_rows() -> tuple[PublishedRow, ...]:
    """The rows of all our cards, the default's first."""
    return tuple(row for name in shipped_names() for row in shipped(name).rows)


def shipped_folder(name: str) -> Path:
    """Where this program has its `results/NAME`: inside the package (wheel), else beside it
    (clone).
    """
    package = Path(__file__).resolve().parents[1]
    inside = package / f"_{name}"
    return inside if inside.is_dir() else package.parent / "results" / name
