"""The gate's policy: what each column is held to, and what the whole is. A TOML file, checked
strictly:

drop = 1.0                       # points, for every column
[columns]
gsm8k = 3.0                      # points, for this one
mmlu = {tier = "critical", required = true, relative_drop = 2.0, floor = 60.0}
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from evals.cards.published import card_named, card_of_run, shipped
from evals.cards.toml import read_toml
from evals.errors import InputError, first_line, nearest
from evals.records import Column, Json
from evals.registry import BENCHMARKS, benchmark_class
from evals.report.run_row import kept_columns
from evals.storage.run_folder import RunFolder

Tier = Literal["critical", "supporting", "advisory"]
By = Literal["interval", "estimate"]
Measure = Literal["score", "probability"]

READY = Path(__file__).parent / "policies"
"""The folder of the policies that come with the program, NAME.toml."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What one column is held to; shares are fractions of 1.

    drop: how far it may fall.  relative_drop: the same as a share of the baseline's value; where
    both are given the stricter counts.  floor, ceiling: values the candidate may not lie below or
    above.
    tier: a critical column decides, and may not be undecided; so many supporting ones as the policy
    says may be; an advisory one is shown, and decides nothing.
    required: without a comparison of this column there is no verdict, whatever its tier.
    by: the 95 % interval decides, or the estimate alone, which is never undecided and has no bound
    on its false alarms.
    measure: what the drop is one of: the column's score, or its finer measure (MMLU's probability
    of the right letter).
    """

    drop: float = 0.01
    relative_drop: float | None = None
    floor: float | None = None
    ceiling: float | None = None
    tier: Tier = "critical"
    required: bool = False
    by: By = "interval"
    measure: Measure = "score"

    def allowed(self, baseline: float | None) -> float:
        """The drop that is allowed from this value of the baseline, a fraction."""
        if self.relative_drop is None or baseline is None:
            return self.drop
        return min(self.drop, self.relative_drop * baseline)


@dataclass(frozen=True, slots=True)
class Policy:
    """rest: the rule of every column that has none of its own.  columns: the others, by cell key.

    undecided: whether a gate that could not decide fails.  undecided_supporting: how many
    supporting columns may be undecided in a gate that passes.
    pooled_drop: how far the critical columns together may fall, a fraction.  pooled_decides:
    whether that decides too; else it is only shown.
    """

    rest: Rule = Rule()
    columns: Mapping[str, Rule] = field(default_factory=dict)
    undecided: Literal["pass", "fail"] = "pass"
    undecided_supporting: int = 0
    pooled_drop: float = 0.01
    pooled_decides: bool = False

    def rule(self, key: str) -> Rule:
        """What the column `key` is held to."""
        return self.columns.get(key, self.rest)


def read_policy(path: Path, run: Path | None = None, card: str | None = None) -> Policy:
    """The policy in a file, or the ready one of that name, for runs of a card, as --card names it,
    else of the card of `run`. A ready one is of the default card, and leaves out what another card
    has not.

    Raises InputError naming the file and the first thing in it that is wrong.
    """
    try:
        found: dict[str, Json] = read_toml(policy_text(path))
        repr(found)  # dotted keys nest deeper than any message can show
    except (OSError, ValueError, RecursionError) as error:
        ready = ", ".join(ready_policies())
        raise InputError(
            f"The policy {path} cannot be read ({first_line(error)}). It is a TOML file with `drop`"
            f" and `[columns]`, or one of the ready ones: {ready}. `evals check --init` writes one."
        ) from None
    _hold_to_names(path, "", found, (*_OF_ALL, *_OF_THE_WHOLE, "columns", "pooled"))
    pooled = found.get("pooled", {})
    if not isinstance(pooled, dict):
        raise InputError(f"{path}: pooled is no table. Write [pooled], and under it drop = 0.5.")
    _hold_to_names(path, "pooled.", pooled, tuple(_OF_POOLED))
    given = {
        f"pooled_{key}": _OF_POOLED[key](path, f"pooled.{key}", value)
        for key, value in pooled.items()
    }
    given |= {
        key: _OF_THE_WHOLE[key](path, key, found[key]) for key in _OF_THE_WHOLE if key in found
    }
    rest = replace(Rule(), **_read(path, "", {k: found[k] for k in _OF_ALL if k in found}))
    return Policy(
        rest, _columns(path, found.get("columns", {}), rest, known_columns(run, card)), **given
    )


def policy_text(path: Path) -> str:
    """The text of a policy file, or of the ready one of that name. Raises OSError, ValueError."""
    ready = READY / f"{path}.toml"
    return (ready if not path.exists() and str(path) in ready_policies() else path).read_text(
        encoding="utf-8-sig"
    )


def ready_policies() -> tuple[str, ...]:
    """The names of the policies that come with the program."""
    return tuple(sorted(file.stem for file in READY.glob("*.toml")))


def known_columns(run: Path | None = None, card: str | None = None) -> dict[str, Column]:
    """Every column that a policy can name, by cell key: the card's, those that the run asked
    besides, then registered benchmarks'.
    """
    summary = RunFolder(run).read_json("summary.json") if run else None
    of_run = card_of_run(summary) if summary else shipped()
    shown = card_named(card) if card else of_run
    besides = kept_columns(summary) if summary else []
    off_card = [one for name in BENCHMARKS for one in benchmark_class(name).own_columns()]
    found: dict[str, Column] = {}
    for column in (*shown.printed, *besides, *off_card):
        found.setdefault(column.key, column)
    return found


def _columns(path: Path, found: Json, rest: Rule, known: Mapping[str, Column]) -> dict[str, Rule]:
    if not isinstance(found, dict):
        raise InputError(
            f"{path}: columns is no table. Write [columns], and under it a line like gsm8k = 3.0."
        )
    rules = {}
    is_ready = not path.exists() and str(path) in ready_policies()
    for key, given in found.items():
        if key not in known and is_ready:
            continue
        if key not in known:
            raise InputError(f"{path}: unknown column {key!r}. {nearest(key, known)}")
        own = given if isinstance(given, dict) else {"drop": given}
        _hold_to_names(path, f"columns.{key}.", own, tuple(_OF_A_COLUMN))
        where = f"columns.{key}." if isinstance(given, dict) else f"columns.{key}"
        rules[key] = replace(rest, **_read(path, where, own))
        _hold_to_column(path, known[key], own)
    return rules


def _hold_to_names(
    path: Path, where: str, found: Mapping[str, Json], known: tuple[str, ...]
) -> None:
    for key in found:
        if key not in known:
            raise InputError(f"{path}: unknown key {where + key!r}. {nearest(key, known)}")


def _hold_to_column(path: Path, column: Column, own: Mapping[str, Json]) -> None:
    """Refuse what the column has not, or what makes no sense in its sense of better."""
    if own.get("measure") == "probability":
        if not (column.benchmark and column.metric in benchmark_class(column.benchmark).finer):
            raise InputError(
                f"{path}: columns.{column.key}.measure is 'probability', which this column has not."
                ' Write measure = "score".'
            )
        if "relative_drop" in own:
            raise InputError(
                f"{path}: columns.{column.key} has a relative_drop, which is of the score, and"
                ' measure = "probability". Give drop, in points.'
            )
    better, no = ("lower", "floor") if column.lower_is_better else ("higher", "ceiling")
    if no in own:
        raise InputError(
            f"{path}: columns.{column.key} has a {no}, but {better} is better there. Give a"
            f" {'ceiling' if no == 'floor' else 'floor'}."
        )
    # Of what is no share the least is not 0, and nothing else can hold it.
    if column.lower_is_better and column.is_share and "relative_drop" in own:
        raise InputError(
            f"{path}: columns.{column.key} has a relative_drop, but lower is better there: it would"
            " allow the least to the best. Give drop, in points."
        )


def _read(path: Path, where: str, given: Mapping[str, Json]) -> dict[str, Any]:
    """The values of a rule's keys, checked. where: what stands before a key's name in a message."""
    return {
        key: _OF_A_COLUMN[key](path, where if where and where[-1] != "." else where + key, value)
        for key, value in given.items()
    }


# --- values ---------------------------------------------------------------------------------------


def _fraction(what: str) -> Callable[[Path, str, Json], float]:
    """A reader of points or percent as a fraction."""

    def read(path: Path, where: str, value: Json) -> float:
        # A bool is an int to Python: `drop = true` would be one point.
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 100:
            raise InputError(f"{path}: {where} is {value!r}. Give {what}, a number from 0 to 100.")
        return value / 100

    return read


def _one_of(*known: str) -> Callable[[Path, str, Json], str]:
    def read(path: Path, where: str, value: Json) -> str:
        if not isinstance(value, str) or value not in known:
            raise InputError(f"{path}: {where} is {value!r}. Known are {', '.join(known)}.")
        return value

    return read


def _bool(path: Path, where: str, value: Json) -> bool:
    if not isinstance(value, bool):
        raise InputError(f"{path}: {where} is {value!r}. Write true or false.")
    return value


def _count(path: Path, where: str, value: Json) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InputError(f"{path}: {where} is {value!r}. Give a number of columns, 0 or more.")
    return value


_OF_ALL: Mapping[str, Callable[[Path, str, Json], Any]] = {
    "drop": _fraction("the allowed drop in points"),
    "tier": _one_of(*get_args(Tier)),
    "required": _bool,
    "by": _one_of(*get_args(By)),
}
"""What can be said of every column at once, and how it is read."""
_OF_A_COLUMN: Mapping[str, Callable[[Path, str, Json], Any]] = {
    **_OF_ALL,
    "relative_drop": _fraction("the allowed drop in percent of the baseline's value"),
    "floor": _fraction("the least value allowed, in percent"),
    "ceiling": _fraction("the greatest value allowed, in percent"),
    "measure": _one_of(*get_args(Measure)),
}
_OF_THE_WHOLE: Mapping[str, Callable[[Path, str, Json], Any]] = {
    "undecided": _one_of("pass", "fail"),
    "undecided_supporting": _count,
}
_OF_POOLED: Mapping[str, Callable[[Path, str, Json], Any]] = {
    "drop": _fraction("the allowed drop in points"),
    "decides": _bool,
}
