"""Answers to the IFEval prompts with what was published about them: GPT-4's, from Google, and
models' of M-IFEval.

Rows are in the order of the prompts. GPT-4's come with the paper's four accuracies, and with
verdicts from somebody's re-run of Google's code without prompt 2785; M-IFEval's with verdicts too.
A verdict that is another than ours is unsettled where the item says why: its prompt was edited
since, or it is decided by a draw, unseeded there, and another draw gives the released verdict. With
the released ones in their place, and no others, every released count has to come back. No verdicts
were released with the paper's accuracies: there the prompts that draw what they ask for are
unsettled. All four come back when, of 1122 and 1129, which pass here, one fails strictly and both
fail loosely; had 2785 passed, no draw would give the loose two.
"""

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from glob import escape
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from evals.data.files import Row, read_jsonl
from evals.fidelity.corpora import (
    Figure,
    Recording,
    Released,
    Scored,
    Value,
    listed,
    one_of,
    read_rows,
)
from evals.generators.replay import Recorded
from evals.records import Completion, ItemId, Output
from evals.registry import benchmark_class

Verdicts = Mapping[ItemId, Sequence[bool]]

_ANSWERS = "input_response_data_*.jsonl"
_VERDICTS = {
    "google": "*_eval_results_{mode}*.jsonl.gz",
    "m-ifeval": "m-ifeval/{model}/eval_results_{mode}.jsonl.gz",
}
_DRAWS = 40
"""Other draws that are tried: of forty, one that comes with a probability of a tenth is missed once
in seventy times.
"""
_AS_SIMILAR = 0.9
"""The least likeness (difflib's ratio, 0 to 1) of a prompt and its earlier edition; 2785's is 0.99.
"""
_EDITED = "was asked in other words then"
_DRAWN = "asks for a letter that is none: one is drawn"
_LANGUAGE = "has an answer on which language detection, unseeded there, is a draw"


class Prompt(Protocol):
    """What is read of an item."""

    id: ItemId
    prompt: str


def _task() -> Any:
    """The benchmark's module: what decides a verdict, and whether by a draw."""
    return import_module(benchmark_class("ifeval").__module__)


def recordings(
    folder: Path, about: Mapping[str, Any], items: Sequence[Prompt]
) -> Iterator[Recording]:
    """One recording a model. Raises ValueError when a row is about another prompt than
    the data's.
    """
    addresses = {
        "m-ifeval" if "/" in file["path"] else "google": file["source"]["repository"]
        for file in about["files"]
    }
    for record in about["published"]:
        rows, address = released_rows(folder, about, record, items), addresses[record["set"]]
        answered = (
            _joined(items, read_rows(listed(folder, about, _ANSWERS), read_jsonl))
            if record["set"] == "google"
            else rows["strict"]
        )
        answers = {
            item_id: Recorded(Completion((Output(row.take("response", str)),)), {})
            for item_id, row in answered.items()
        }
        figures: list[Figure] = []
        for mode in rows:
            figures += _figures(record, mode, rows[mode], address)
        yield Recording(record["model"], answers, figures)


def released_rows(
    folder: Path, about: Mapping[str, Any], record: Row, items: Sequence[Prompt]
) -> dict[str, dict[ItemId, Released]]:
    """Mode, strict or loose -> the rows released with verdicts for one entry of README.json."""
    pattern, found = _VERDICTS[one_of(record["set"], _VERDICTS)], {}
    for mode in ("strict", "loose"):
        path = pattern.format(mode=mode, model=escape(record["model"]))
        found[mode] = _joined(items, read_rows(listed(folder, about, path), read_jsonl))
        for row in found[mode].values():
            if not all(isinstance(one, bool) for one in row.take("follow_instruction_list", list)):
                raise ValueError(f"{row.where}: a verdict is neither true nor false")
    return found


def _joined(items: Sequence[Prompt], rows: Sequence[Released]) -> dict[ItemId, Released]:
    """Item id -> its row, by the prompt; what is left over then, in order, is an earlier edition of
    the prompt, or of a prompt that the rows leave out. Raises ValueError for rows about others.
    """
    left = {item.prompt: item.id for item in items}
    edited, found = [], {}
    for row in rows:
        if (item_id := left.pop(row.take("prompt", str), None)) is None:
            edited.append(row)
        else:
            found[item_id] = row
    for row in edited:
        alike = [prompt for prompt in left if _likeness(prompt, row["prompt"]) >= _AS_SIMILAR]
        if not alike:
            raise ValueError(
                f"{row.where} is about another prompt, or one twice: {row['prompt'][:60]!r}"
            )
        found[left.pop(alike[0])] = row
    return {item.id: found[item.id] for item in items if item.id in found}


def _likeness(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one, other, autojunk=False).ratio()


def _unsettled(mode: str, rows: Mapping[ItemId, Row], scored: Scored) -> dict[ItemId, str]:
    """Of the items whose released verdict is another than ours, those that say why."""
    items: dict[ItemId, Any] = {item.id: item for item in scored.items}
    found = {}
    for grade in scored.result.grades:
        row = rows.get(grade.id)
        if row is None or grade.details[mode] == row["follow_instruction_list"]:
            continue
        answer = scored.answers[grade.id].completion.text
        if why := _reason(items[grade.id], mode, row, answer):
            found[grade.id] = why
    return found


def _reason(item: Prompt, mode: str, row: Row, answer: str) -> str:
    """Why a verdict cannot come back; nothing where neither prompt nor draws account for it."""
    if row["prompt"] != item.prompt:
        return _EDITED
    index = ("strict", "loose").index(mode)
    is_reached = any(
        list(_task().follow(item, answer, draw)[index]) == row["follow_instruction_list"]
        for draw in range(1, _DRAWS + 1)
    )
    return (_DRAWN if _task().is_drawn(item) else _LANGUAGE) if is_reached else ""


def _figures(record: Row, mode: str, rows: Mapping[ItemId, Row], address: str) -> Iterator[Figure]:
    """Accuracies in percent; prompts and instructions followed, as the released flags say; the
    prompts whose verdicts come back.
    """
    released: Verdicts = {item_id: row["follow_instruction_list"] for item_id, row in rows.items()}
    # One scored recording has several figures.
    unsettled = _once(partial(_unsettled, mode, rows))
    source = f"{record['where']}, {address}"
    for what in ("prompt", "instruction", "verdict"):
        ours = partial(_share, what, mode, released, {})
        settled = partial(_settled, what, mode, released, unsettled)
        flags = _flags(what, released, released)
        count = record.get(f"{mode}_flags", {}).get(f"{what}s_followed", sum(flags))
        title = "released verdicts that come back" if what == "verdict" else f"{what}s followed"
        yield Figure(
            f"{mode}: {title}",
            count,
            0,
            f"released verdicts, {address}",
            ours,
            len(flags),
            unsettled=unsettled,
            settled=settled,
        )
        if (name := f"published_english_{what}_{mode}") in record:
            yield Figure(name, record[name], 1, source, ours, unsettled=unsettled, settled=settled)
        if (name := f"{what}_{mode}") in record:
            yield Figure(
                name,
                record[name],
                2,
                source,
                partial(_share, what, mode, {}, {}),
                unsettled=_drawn,
            )


def _once(
    of: Callable[[Scored], Mapping[ItemId, str]],
) -> Callable[[Scored], Mapping[ItemId, str]]:
    known: list[Mapping[ItemId, str]] = []

    def found(scored: Scored) -> Mapping[ItemId, str]:
        if not known:
            known.append(of(scored))
        return known[0]

    return found


def _drawn(scored: Scored) -> dict[ItemId, str]:
    return {item.id: _DRAWN for item in scored.items if _task().is_drawn(item)}


def _settled(
    what: str,
    mode: str,
    released: Verdicts,
    unsettled: Callable[[Scored], Mapping[ItemId, str]],
    scored: Scored,
) -> Value:
    known = {item_id: released[item_id] for item_id in unsettled(scored)}
    return _share(what, mode, released, known, scored)


def _share(what: str, mode: str, released: Verdicts, known: Verdicts, scored: Scored) -> Value:
    """The share of true flags under our verdicts, those of `known` items replaced; over items with
    released verdicts if there are any.
    """
    ours: dict[ItemId, Any] = {
        grade.id: grade.details[mode]
        for grade in scored.result.grades
        if not released or grade.id in released
    }
    flags = _flags(what, {**ours, **known}, released)
    return Value(sum(flags) / len(flags) if flags else None, len(flags))


def _flags(what: str, verdicts: Verdicts, released: Verdicts) -> list[bool]:
    """A flag for each prompt (all followed), each instruction, or each prompt (all verdicts as
    released).
    """
    if what == "instruction":
        return [followed for each in verdicts.values() for followed in each]
    return [
        all(each) if what == "prompt" else each == released[item_id]
        for item_id, each in verdicts.items()
    ]
