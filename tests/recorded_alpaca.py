"""The recorded GPT-4 annotations of AlpacaEval, and grades made from them."""

import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from evals.records import Completion, Finding, Grade, Output
from tasks.alpaca_eval import AlpacaEval, AlpacaItem

ROLES = ("alpaca_eval_1", "alpaca_eval_2")
FOLDERS = {"alpaca_eval_1": "alpaca_eval_gpt4", "alpaca_eval_2": "weighted_alpaca_eval_gpt4_turbo"}
MODELS = {
    "alpaca_eval_1": (
        "tulu-2-dpo-7b",
        "llama-2-13b-chat-hf",
        "zephyr-7b-beta",
        "gpt-3.5-turbo-0301",
        "text_davinci_001",
    ),
    "alpaca_eval_2": (
        "FuseChat-Llama-3.1-8B-Instruct",
        "gpt-3.5-turbo-1106",
        "vicuna-7b-v1.5",
        "alpaca-7b",
    ),
}


@cache
def read_recorded(path: Path) -> Any:
    """A JSON file, zipped or not."""
    raw = path.read_bytes()
    return json.loads(gzip.decompress(raw) if path.suffix == ".gz" else raw)


def annotations(replay: Path, role: str, model: str) -> list[dict[str, Any]]:
    """One model's annotations by the judge of this role, as released."""
    (file,) = (replay / "alpaca_eval" / FOLDERS[role] / model).glob("annotations.json*")
    rows: list[dict[str, Any]] = read_recorded(file)
    return rows


def published_row(replay: Path, model: str) -> dict[str, Any]:
    """What the leaderboard published for a model."""
    found: dict[str, Any] = next(
        row
        for row in read_recorded(replay / "alpaca_eval" / "README.json")["published"]
        if row["model"] == model
    )
    return found


def said(text: str) -> Completion:
    """A completion of one text."""
    return Completion((Output(text),))


def only(item: AlpacaItem, role: str) -> AlpacaItem:
    """The item with the reference of one role."""
    return replace(item, references={role: item.references[role]})


def graded(
    items: Mapping[str, AlpacaItem],
    role: str,
    rows: Sequence[dict[str, Any]],
    findings: Sequence[Finding],
) -> list[Grade]:
    """One grade an annotation, the finding standing for what its judge said."""
    benchmark = AlpacaEval(chat=True)
    pairs = zip(rows, findings, strict=True)
    return [
        benchmark.grade(
            only(items[row["instruction"]], role), said(row["output_2"]), {role: finding}
        )
        for row, finding in pairs
    ]
