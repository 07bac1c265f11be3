"""A run's numbers on the leaderboards of the Hugging Face hub: .eval_results/*.yaml, a file a
benchmark, only of what leaderboards.toml, or a table of one's own like it, says belongs there.

Sources: the hub's page "Evaluation Results"; huggingface_hub's EvalResultEntry.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from evals.benchmark import other_settings
from evals.cards.toml import read_toml
from evals.errors import InputError, first_line, nearest
from evals.registry import Variant, benchmark_class, off_card, read_settings, variants
from evals.report.run_row import cells_under
from evals.report.table import MISSING, TableRow

PREFIX = "evals-"
"""How our files in .eval_results begin."""


@dataclass(frozen=True, slots=True)
class Leaderboard:
    """A registered Benchmark's task, and what of ours belongs to it; see leaderboards.toml."""

    dataset: str
    task: str
    n: int
    benchmark: str
    metric: str
    notes: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    scale: float = 100.0
    config: str = ""
    split: str = ""
    read: str = ""
    sources: Sequence[str] = ()


def leaderboards(own: Path | None = None) -> tuple[Leaderboard, ...]:
    """The leaderboards that are known, and those of a table of one's own, which come before ours of
    the same task. Raises InputError where that table cannot be read or names what there is not.
    """
    text = resources.files("evals.report").joinpath("leaderboards.toml").read_text("utf-8")
    found = {(one.dataset, one.task): one for one in _table(text, "leaderboards.toml")}
    if own is not None:
        try:
            text = own.read_text("utf-8")
        except (OSError, ValueError) as error:
            raise InputError(f"{own} cannot be read ({first_line(error)}).") from error
        found |= {(one.dataset, one.task): one for one in _table(text, str(own))}
    return tuple(found.values())


def _table(text: str, file: str) -> Iterator[Leaderboard]:
    try:
        rows = read_toml(text)["leaderboard"]
        assert all(isinstance(row, dict) for row in rows)
    except (ValueError, KeyError, AssertionError, TypeError, RecursionError) as error:
        raise InputError(
            f"{file} is no table of leaderboards ({first_line(error)}). Write [[leaderboard]] and"
            " below it dataset, task, n, benchmark, metric, notes."
        ) from error
    for number, row in enumerate(rows, 1):
        try:
            yield _leaderboard(row)
        except InputError as error:
            raise InputError(f"{file}, leaderboard {number}: {error}") from error


def _leaderboard(row: Mapping[str, Any]) -> Leaderboard:
    from pydantic import TypeAdapter, ValidationError

    names = [one.name for one in fields(Leaderboard)]
    for name in row:
        if name not in names:
            raise InputError(f"there is no {name!r}. {nearest(name, names)}")
    try:
        found = TypeAdapter(Leaderboard).validate_python(row)
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"{first['loc'][0]}: {first['msg'].lower()}.") from None
    cls = benchmark_class(found.benchmark)
    read_settings(cls, found.settings)
    metrics = [one.name for one in cls.metrics]
    if found.metric not in metrics:
        raise InputError(
            f"{cls.name} has no metric {found.metric!r}. {nearest(found.metric, metrics)}"
        )
    return found


class Results(NamedTuple):
    """entries: by benchmark, in the hub's form.  left_out: a sentence for each number that is not
    among them.
    """

    entries: Mapping[str, list[dict[str, Any]]]
    left_out: Sequence[str]


def results(
    summary: Mapping[str, Any],
    row: TableRow,
    date: str | None,
    source: str | None,
    own: Path | None = None,
) -> Results:
    """What of a run belongs on leaderboards.

    row: as printed; its numbers are taken.  date: when it was measured, YYYY-MM-DD.  source: where
    the items can be looked up.  own: see leaderboards.
    """
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    entries: dict[str, list[dict[str, Any]]] = {}
    left_out: list[str] = []
    unknown: dict[str, None] = {}
    known = leaderboards(own)
    for variant, column in _columns(summary, row):
        key = column.key
        boards = [
            one for one in known if (one.benchmark, one.metric) == (variant.cls.name, column.metric)
        ]
        if not boards:
            data = variant.cls.dataset
            # What a task of lm-evaluation-harness calls its data may be a form of file: json.
            unknown[data.hub_id if data.url else data.name] = None
        assert row.card is not None
        cell = cells_under(row.card, summary)[key]
        for board in boards:
            if why := _why_not(board, variant, cell):
                left_out.append(f"{key} is not for {board.dataset}'s leaderboard: {why}")
                continue
            low_high = row.cell(key).ci95
            notes = [board.notes, f"chat format {summary['chat_format']}"]
            notes += [f"95 % interval {low_high[0]} to {low_high[1]}"] if low_high else []
            printed = float(row.cell(key).text) * (100 if column.unit == "fraction" else 1)
            entry = EvalResultEntry(
                board.dataset,
                board.task,
                # As printed, so that it and the table cannot disagree.
                round(printed * board.scale / 100, 6),
                date=date,
                source_url=source,
                source_name="evals" if source else None,
                notes="; ".join(notes),
            )
            entries.setdefault(variant.cls.name, []).extend(eval_result_entries_to_yaml([entry]))
    if unknown:
        left_out.append(
            f"no leaderboard of the hub is known for {', '.join(unknown)}"
            " (more: --leaderboards FILE)"
        )
    return Results(entries, left_out)


def _columns(summary: Mapping[str, Any], row: TableRow) -> Iterator[tuple[Variant, Any]]:
    """The columns with a number."""
    assert row.card is not None
    for variant in variants(row.card, off_card(summary)).values():
        for column in variant.columns:
            if row.cell(column.key).text != MISSING:
                yield variant, column


def _why_not(board: Leaderboard, variant: Variant, cell: Mapping[str, Any]) -> str:
    """Why a number is none of the leaderboard's; "" where it is one."""
    wanted = _how(read_settings(variant.cls, board.settings))
    if (asked := _how(variant.settings)) != wanted:
        names = sorted(name for name in {*asked, *wanted} if asked.get(name) != wanted.get(name))
        said = ", ".join(f"{name} = {getattr(variant.settings, name)}" for name in names)
        return f"it was asked with {said}"
    if cell["n"] != board.n:
        return (
            f"it is of {cell['n']:,} of the {board.n:,} items; evals run asks all with --suite full"
        )
    return f"{cell['marks'][0]}" if cell["marks"] else ""


def _how(settings: Any) -> dict[str, Any]:
    """What is not the protocol's own but for the number of items, which n tells."""
    return {name: value for name, value in other_settings(settings).items() if name != "items"}


def as_yaml(entries: Sequence[Mapping[str, Any]]) -> str:
    """A result file."""
    import yaml

    # width: PyYAML would fold a long note.  A date it quotes, being a text.
    return str(yaml.safe_dump(list(entries), sort_keys=False, allow_unicode=True, width=1000))
