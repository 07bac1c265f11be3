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
    gpu_gb: int | None = None
    facts: str = ""
    read: date | None = None
    unverified: str = ""
    ends: date | None = None
    source: str = ""

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
class KnownRole:
    """What the table says of a role; its fields are explained there."""

    asked: str
    read: str
    row: tuple[int, int, int]
    without: str


@dataclass(frozen=True, slots=True)
class KnownJudges:
    """The table. by_name: in its order.  sets: name -> role -> judge's name.  roles: by name; one
    of somebody else's benchmark has no entry.
    """

    by_name: Mapping[str, KnownJudge]
    sets: Mapping[str, Mapping[str, str]]
    roles: Mapping[str, KnownRole]

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
    return KnownJudges(
        {name: KnownJudge(name, **_plain(entry)) for name, entry in table["judge"].items()},
        table["set"],
        {name: KnownRole(**_plain(entry)) for name, entry in table["role"].items()},
    )


def _plain(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(v) if isinstance(v, list) else v for key, v in entry.items()}
