"""Recorded verdicts in the formats they were published in, as items, answers and findings of our
benchmarks.

A benchmark's own `items` reads the recorded rows, so a candidate judge is asked exactly what its
`checks` ask in a live run.
"""

import gzip
import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from evals.benchmark import Benchmark
from evals.data.dataset import LoadedSource
from evals.data.files import UNREADABLE, Row, read_csv, read_json, read_jsonl
from evals.data.load import data_folder
from evals.errors import InputError, first_line
from evals.records import Completion, Finding, Findings, Item, ItemId, Output
from evals.registry import BENCHMARKS, benchmark_class

_CLASSES = {
    "1_full_compliance": "following",
    "2_full_refusal": "refusal",
    "3_partial_refusal": "refusal",
}
"""XSTest's three classes as the card's two; any other label is a verdict that cannot be read."""
_ANNOTATORS = {
    "alpaca_eval_1": ("alpaca_eval_gpt4", "gpt-4"),
    "alpaca_eval_2": ("weighted_alpaca_eval_gpt4_turbo", "gpt-4-1106-preview"),
}

Line = tuple[Mapping[str, Row], str, str, str, Mapping[str, Findings]]
"""Table -> the row its item is made of; the answer; the question; the answer's author; who judged
-> what they found, the card's first.
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """One recorded answer. by: who judged it -> what they found, the card's judge first.  The rest:
    see agreement.Pair.
    """

    item: Item
    answer: Completion
    question: str
    author: str
    by: Mapping[str, Findings]


@dataclass(frozen=True, slots=True)
class Verdicts:
    """Recorded verdicts of one role. files: below the folder the user named; sha256: over their
    names and contents.
    """

    benchmark: Benchmark[Any]
    answers: Sequence[Answer]
    files: Sequence[str]
    sha256: str


def read_verdicts(role: str, data: Path | None, replay: Path | None) -> Verdicts:
    """The role's recorded verdicts. Raises InputError saying which files are wanted where, or which
    cannot be read.
    """
    home, pattern = _place(role, data, replay)
    found = sorted(home.glob(pattern))
    reader = (
        _xstest
        if role == "xstest"
        else partial(_truthfulqa if role in ("truth", "info") else _alpaca, role)
    )
    digest, lines = hashlib.sha256(), list[Line]()
    for path in found:
        try:
            raw = path.read_bytes()
            digest.update(f"{path.relative_to(home)} {hashlib.sha256(raw).hexdigest()}\n".encode())
            for line in reader(path, gzip.decompress(raw) if path.suffix == ".gz" else raw):
                # Here the file can still be named; a benchmark would trip over a null only later.
                if not all(
                    isinstance(text, str)
                    for text in (
                        line[1],
                        *(text for row in line[0].values() for text in row.values()),
                    )
                ):
                    raise TypeError("a question or an answer is not a text")
                lines.append(line)
        except UNREADABLE as error:
            raise InputError(
                f"{path} cannot be read as recorded verdicts ({first_line(error)}). Replace it with"
                " the public file."
            ) from error
    if not lines:
        raise InputError(
            f"{home} has no {pattern} with recorded verdicts of {role}. Name the folder that has"
            " them."
        )
    cls = next(cls for name in BENCHMARKS if role in (cls := benchmark_class(name)).judge_roles)
    # chat: a base model's answers would be cut before they are judged, these were judged whole.
    benchmark: Benchmark[Any] = cls(chat=True)
    items = benchmark.items(
        LoadedSource({name: [line[0][name] for line in lines] for name in lines[0][0]}, "recorded")
    )
    answers = []
    for item, (_, text, question, author, by) in zip(items, lines, strict=True):
        # Several models answered one prompt, and several roles count their rows from 0.
        unique = replace(item, id=ItemId(f"{author or role}/{item.id}"))
        answers.append(Answer(unique, Completion((Output(text),)), question, author, by))
    return Verdicts(
        benchmark, answers, [str(path.relative_to(home)) for path in found], digest.hexdigest()
    )


def _place(role: str, data: Path | None, replay: Path | None) -> tuple[Path, str]:
    """The folder a role's verdicts are in, and the files' pattern there."""
    if role in ("truth", "info"):
        folder = data_folder(data)
        if folder is None:
            raise InputError(
                f"People's labels for {role} are truthfulqa/finetune_{role}_dev.jsonl of the data:"
                " name its folder with --data."
            )
        return folder, "truthfulqa/finetune_*_dev.jsonl"
    if role != "xstest" and role not in _ANNOTATORS:
        raise InputError(
            f"No recorded verdicts of {role} are known. Known: xstest, {', '.join(_ANNOTATORS)},"
            " truth, info."
        )
    if replay is None or not os.path.isdir(replay):
        raise InputError(
            f"The recorded verdicts of {role} are among recorded outputs: name their folder with"
            " --replay DIR or EVALS_REPLAY."
        )
    return (
        replay,
        (
            "xstest/*_gpteval.csv"
            if role == "xstest"
            else f"alpaca_eval/{_ANNOTATORS[role][0]}/*/annotations.json*"
        ),
    )


def _xstest(path: Path, raw: bytes) -> Iterator[Line]:
    """GPT-4's labels, under the authors' own prompt of three classes, and people's."""
    author = path.stem.removeprefix("xstest_v2_completions_").removesuffix("_gpteval")
    for row in read_csv(raw):
        # The csv module's sign for a row with too few cells.
        if None in row.values():
            raise ValueError("a row is cut short")
        number = row["id"].removeprefix("v2-")
        # GPT-4 also answered in words of its own; people chose a class: any other is damage.
        labels = {
            "gpt-4 (three classes)": _CLASSES.get(row["gpt4_label"], row["gpt4_label"]),
            "people": _CLASSES[row["final_label"]],
        }
        by = {who: {"xstest": Finding(who, text=label)} for who, label in labels.items()}
        yield (
            {"prompts": {"id": number, "prompt": row["prompt"], "type": row["type"]}},
            row["completion"],
            number,
            author,
            by,
        )


def _alpaca(role: str, path: Path, raw: bytes) -> Iterator[Line]:
    """Preferences for the model's answer over the reference's; null is a verdict that could not be
    read.
    """
    who = _ANNOTATORS[role][1]
    for row in read_json(raw):
        reference = {
            "dataset": row["dataset"],
            "instruction": row["instruction"],
            "output": row["output_1"],
        }
        finding = (
            Finding(who, text="")
            if row["preference"] is None
            else Finding(who, preference=float(row["preference"]))
        )
        # A file is of one role, but an item is made of both roles' references.
        by = {who: {role: finding}}
        yield (
            {"references_1": reference, "references_2": reference},
            row["output_2"],
            row["instruction"],
            path.parent.name,
            by,
        )


def _truthfulqa(role: str, path: Path, raw: bytes) -> Iterator[Line]:
    """People's labels; where the other role's set has the same answer its label too, so that the
    column can be had.
    """
    own, other = (
        f"finetune_{name}_dev.jsonl" for name in (role, "info" if role == "truth" else "truth")
    )
    # The other role's file is listed for the checksum alone: labels are taken from it below.
    if path.name != own:
        return
    beside = path.with_name(other)
    known = (
        dict(_labelled(row) for row in read_jsonl(beside.read_bytes())) if beside.exists() else {}
    )
    for row in read_jsonl(raw):
        (question, answer), label = _labelled(row)
        findings = {role: label} | (
            {other.split("_")[1]: known[question, answer]} if (question, answer) in known else {}
        )
        yield {"questions": {"Question": question}}, answer, question, "", {"people": findings}


def _labelled(row: Row) -> tuple[tuple[str, str], Finding]:
    """Question and answer in a line of the judges' training format, and its label."""
    # The question ends where the first line opens an answer; an answer may have such lines, too.
    found = re.fullmatch(r"Q: (.*?)\nA: (.*)\n(?:True|Helpful):", row["prompt"], re.DOTALL)
    if found is None:
        raise ValueError("a prompt is not of the judges' form")
    return (found[1], found[2]), Finding(
        "people", probability={" yes": 1.0, " no": 0.0}[row["completion"]]
    )
