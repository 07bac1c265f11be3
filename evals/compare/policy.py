"""The gate's policy: how far each column may drop. A TOML file, checked strictly:

drop = 1.0            # points, for every column
[columns]
gsm8k = 3.0           # points, for this one
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from evals.cards.published import card_named, card_of_run, shipped
from evals.errors import InputError, first_line, nearest
from evals.records import Json
from evals.registry import BENCHMARKS, benchmark_class
from evals.storage.run_folder import RunFolder

_KEYS = ("drop", "columns")


@dataclass(frozen=True, slots=True)
class Policy:
    """Allowed drops as fractions. drop: every column's; columns: by cell key, where it is another
    one.
    """

    drop: float = 0.01
    columns: Mapping[str, float] = field(default_factory=dict)

    def allowed(self, key: str) -> float:
        """The drop allowed in the column `key`, a fraction in [0, 1]."""
        return self.columns.get(key, self.drop)


def read_policy(path: Path, run: Path | None = None, card: str | None = None) -> Policy:
    """The policy in a file, for runs of a card, as --card names it, else of the card of `run`.

    Raises InputError naming the file and the first thing in it that is wrong.
    """
    try:
        found: dict[str, Json] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"The policy {path} cannot be read ({first_line(error)}). It is a TOML file with `drop`"
            " and `[columns]`."
        ) from None
    for key in found:
        if key not in _KEYS:
            raise InputError(f"{path}: unknown key {key!r}. {nearest(key, _KEYS)}")
    columns = found.get("columns", {})
    if not isinstance(columns, dict):
        raise InputError(
            f"{path}: columns is no table. Write [columns], and under it a line like gsm8k = 3.0."
        )
    of_run = card_of_run(RunFolder(run).read_json("summary.json")) if run else shipped()
    keys = card_named(card).keys if card else of_run.keys
    off_card = [one.key for name in BENCHMARKS for one in benchmark_class(name).own_columns()]
    known = dict.fromkeys((*keys, *off_card))
    for key in columns:
        if key not in known:
            raise InputError(f"{path}: unknown column {key!r}. {nearest(key, known)}")
    by_column = {key: _fraction(path, f"columns.{key}", value) for key, value in columns.items()}
    return Policy(_fraction(path, "drop", found.get("drop", 1.0)), by_column)


def _fraction(path: Path, where: str, value: Json) -> float:
    """Points as a fraction."""
    # A bool is an int to Python: `drop = true` would be one point.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 100:
        raise InputError(
            f"{path}: {where} is {value!r}. Give the allowed drop in points, a number from 0 to"
            " 100."
        )
    return value / 100
