"""Answers to the IFEval prompts with what was published about them: GPT-4's, from Google, and four
models' of M-IFEval.

Rows are in the order of the prompts. GPT-4's come with the paper's four accuracies, and with
verdicts from somebody's re-run of Google's code without prompt 2785; M-IFEval's with verdicts too.
`_UNSETTLED` names by key the verdicts that cannot come back: with the released ones in their place,
and no others, every released count has to. No verdicts were released with the paper's accuracies.
All four come back when, of 1122 and 1129, which pass here, one fails strictly and both fail
loosely; had 2785 passed, no draw would give the loose two.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from evals.data.files import Row, read_jsonl, read_jsonl_gz
from evals.fidelity.corpora import Figure, Recording, Scored, Value
from evals.generators.replay import Recorded
from evals.records import Completion, ItemId, Output

Verdicts = Mapping[ItemId, Sequence[bool]]

_ANSWERS = "input_response_data_gpt4_20231107_145030.jsonl"
_VERDICTS = {
    "google": "gpt4_20231107_eval_results_{mode}.540rows.jsonl.gz",
    "m-ifeval": "m-ifeval/{model}/eval_results_{mode}.jsonl.gz",
}
_DRAWN, _EDITED = ("1122", "1129"), "2785"
_UNSETTLED: Mapping[str, Mapping[str, Sequence[str]]] = {
    "GPT-4 (responses of 2023-11-07)": {"strict": _DRAWN, "loose": _DRAWN},
    "Qwen__Qwen2.5-7B-Instruct-GPTQ-Int4": {
        "strict": (*_DRAWN, _EDITED),
        "loose": (_EDITED, "3456"),
    },
    "claude-3-haiku-20240307": {"strict": ("1122", _EDITED), "loose": ("1122", _EDITED)},
    "hugging-quants__Meta-Llama-3.1-8B-Instruct-AWQ-INT4": {
        "strict": (_EDITED,),
        "loose": (_EDITED, "3617"),
    },
    "mistralai__Mistral-7B-Instruct-v0.3": {"strict": ("1122",), "loose": ("1259", "2309", "3112")},
}
_LANGUAGE = "has an answer on which language detection, unseeded there, is a draw"
_REASONS = {
    _EDITED: "asked for one placeholder then, not 3",
    **dict.fromkeys(_DRAWN, "asks for a letter that is none: one is drawn"),
}


class Prompt(Protocol):
    """What is read of an item."""

    id: ItemId
    key: str
    prompt: str


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
        rows, address = released_rows(folder, record, items), addresses[record["set"]]
        answered = (
            _joined(items, list(read_jsonl((folder / _ANSWERS).read_bytes())))
            if record["set"] == "google"
            else rows["strict"]
        )
        answers = {
            item_id: Recorded(Completion((Output(row["response"]),)), {})
            for item_id, row in answered.items()
        }
        figures: list[Figure] = []
        for mode in rows:
            released = {
                item_id: row["follow_instruction_list"] for item_id, row in rows[mode].items()
            }
            figures += _figures(record, mode, released, address)
        yield Recording(record["model"], answers, figures)


def released_rows(
    folder: Path, record: Row, items: Sequence[Prompt]
) -> dict[str, dict[ItemId, Row]]:
    """Mode, strict or loose -> the rows released with verdicts for one entry of README.json."""
    files = {
        mode: folder / _VERDICTS[record["set"]].format(mode=mode, model=record["model"])
        for mode in ("strict", "loose")
    }
    return {
        mode: _joined(items, list(read_jsonl_gz(file.read_bytes()))) for mode, file in files.items()
    }


def _joined(items: Sequence[Prompt], rows: Sequence[Row]) -> dict[ItemId, Row]:
    # Prompt 2785 was edited: one set of verdicts leaves it out, the others have its earlier words.
    known = [item for item in items if len(rows) == len(items) or item.key != _EDITED]
    for item, row in zip(known, rows, strict=True):
        if row["prompt"] != item.prompt and item.key != _EDITED:
            raise ValueError(f"the row for {item.id} is about another prompt")
    return {item.id: row for item, row in zip(known, rows, strict=True)}


def _figures(record: Row, mode: str, released: Verdicts, address: str) -> Iterator[Figure]:
    """Accuracies in percent; prompts and instructions followed, as the released flags say; the
    prompts whose verdicts come back.
    """
    unsettled = {
        ItemId(f"ifeval/{key}"): _REASONS.get(key, _LANGUAGE)
        for key in _UNSETTLED[record["model"]][mode]
    }
    source = f"{record['where']}, {address}"
    for what in ("prompt", "instruction", "verdict"):
        ours = partial(_share, what, mode, released, {})
        settled = partial(
            _share, what, mode, released, {item_id: released[item_id] for item_id in unsettled}
        )
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
                unsettled=unsettled,
            )


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
    return Value(sum(flags) / len(flags), len(flags))


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
