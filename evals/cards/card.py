"""A card as the program has it: columns, how they are averaged, the rows published under it.

A card is data, one TOML file (evals/cards/form.py reads it): which benchmarks, under which
settings, fill which columns. Nothing in the code names a column or a member of an average.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from evals.records import Column

AVERAGE = Column("average", "Average")
"""The Average's cell key in every summary, and its usual heading."""
Member = tuple[str, ...]
"""Column keys whose mean enters an average as one value."""


@dataclass(frozen=True, slots=True)
class Average:
    """How a card's Average is made.

    members: each a value of the mean; none where the rule is not known.  complement: columns that
    enter as 100 - x.  any_dash: whether a card prints "-" as soon as any cell of the row is "-",
    a member's or not.  optional: columns without which a row is averaged all the same.
    """

    column: Column = AVERAGE
    members: tuple[Member, ...] = ()
    complement: frozenset[str] = frozenset()
    any_dash: bool = False
    optional: frozenset[str] = frozenset()

    @property
    def inputs(self) -> tuple[str, ...]:
        """The columns that enter, in order."""
        return tuple(key for member in self.members for key in member)


@dataclass(frozen=True, slots=True)
class PublishedRow:
    """One row of a card.

    name: as printed, less the marks of "this model".  short_name: how a user names the model here.
    revision: hub commit, None where unknown.  bos_tokens: how many a prompt in `chat_format` starts
    with, None where unknown.
    cells: cell key -> text exactly as printed, or "-".  hidden: values that entered the printed
    Average and are not printed, by name.
    settings: what it was made with; [K] read from the source, [I] inferred from the numbers, [U]
    assumed.
    notes: cell key -> why the printed cell is to be distrusted.
    """

    name: str
    short_name: str
    hub_id: str
    revision: str | None
    chat_format: str
    bos_tokens: int | None
    size: str
    kind: str
    cells: Mapping[str, str]
    source: str
    settings: Mapping[str, str]
    notes: Mapping[str, str]
    hidden: Mapping[str, str] = field(default_factory=dict)
    card: str = ""


@dataclass(frozen=True, slots=True)
class Card:
    """A card. name: its file's, without the ending.  protocol: name and version of what its columns
    are asked under, as its author calls it.  columns: without the Average.
    """

    name: str
    title: str
    protocol: str
    columns: tuple[Column, ...]
    average: Average = Average()
    rows: tuple[PublishedRow, ...] = ()
    source: str = ""

    @property
    def printed(self) -> tuple[Column, ...]:
        """The columns in the card's order, the Average last."""
        return (*self.columns, self.average.column)

    @property
    def keys(self) -> tuple[str, ...]:
        """The cell keys in that order."""
        return tuple(column.key for column in self.printed)

    @property
    def hash(self) -> str:
        """Over what decides the columns' numbers: benchmark, metric and settings of each. Headings
        and rows may change.
        """
        asked = sorted(json.dumps(one.identity, sort_keys=True) for one in self.columns)
        return hashlib.sha256("\n".join(asked).encode()).hexdigest()

    def as_json(self) -> dict[str, Any]:
        """The card less its rows, in the form of its file, for a run's summary."""
        rule = self.average
        return {
            "title": self.title,
            "protocol": self.protocol,
            "column": [column_json(column) for column in self.columns],
            "average": {
                "heading": rule.column.heading,
                "of": [list(one) if len(one) > 1 else one[0] for one in rule.members],
                "complement": sorted(rule.complement),
                "optional": sorted(rule.optional),
                "dash": "any" if rule.any_dash else "members",
                "unit": rule.column.unit,
                "decimals": rule.column.decimals,
            },
        }


def column_json(column: Column) -> dict[str, Any]:
    """A column in the form of a card's file, what is as usual left out."""
    usual = Column(column.key, column.heading)
    names = ("benchmark", "lower_is_better", "unit", "decimals", "reason", "inferred")
    found = {name: getattr(column, name) for name in names}
    found |= {"metric": column.metric} if column.metric != column.key else {}
    found |= {"settings": dict(column.settings)} if column.settings else {}
    return {"key": column.key, "heading": column.heading} | {
        name: value for name, value in found.items() if value != getattr(usual, name)
    }
