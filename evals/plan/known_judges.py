"""Judges that are known by name, and what became of them: judges.toml, read."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import cache
from importlib import resources
from typing import Any

Price = tuple[float, float]
"""Money for a million tokens in, and for a million tokens out."""


@dataclass(frozen=True, slots=True)
class KnownJudge:
    """One judge of the table; its fields are explained there."""

    name: str
    model: str
    provider: str
    also: tuple[str, ...] = ()
    prompt: str = ""
    roles: tuple[str, ...] = ()
    context: int | None = None
    price: Price | None = None
    priced: date | None = None
    ends: date | None = None
    source: str = ""
    gpu_gb: int | None = None

    def is_gone(self, today: date) -> bool:
        """Whether nobody can ask it any more where it was served."""
        return self.ends is not None and self.ends <= today

    def life(self, today: date) -> str:
        """What is known of its end, in words."""
        if self.ends is None:
            return "alive"
        word = "gone since" if self.is_gone(today) else "alive, ends"
        return f"{word} {self.ends} ({self.source})"


@dataclass(frozen=True, slots=True)
class KnownJudges:
    """The table. by_name: in its order.  sets: name -> role -> judge's name.  without: role -> what
    is lost where it has no judge.  row: role -> requests of a row, tokens in and out of one.
    """

    by_name: Mapping[str, KnownJudge]
    sets: Mapping[str, Mapping[str, str]]
    without: Mapping[str, str]
    row: Mapping[str, tuple[int, int, int]]

    def of_model(self, model: str) -> KnownJudge | None:
        """The judge that a model argument means; None for a model that has no entry, and for one
        of that name at somebody's own address.
        """
        return next((one for one in self.by_name.values() if model in (one.model, *one.also)), None)


@cache
def known_judges() -> KnownJudges:
    """The table of judges."""
    text = (resources.files("evals") / "plan" / "judges.toml").read_text("utf-8")
    table = tomllib.loads(text)
    by_name = {
        name: KnownJudge(name, **{key: _plain(value) for key, value in entry.items()})
        for name, entry in table["judge"].items()
    }
    return KnownJudges(by_name, table["set"], table["without"], table["row"])


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
