"""The items whose score changed between two runs, each with what decides it: prompt, reference
answer, both answers, and of an instruction-following item the instructions that broke or mended.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from evals.cards.published import card_of_run
from evals.compare.answers import Answer, read_answers
from evals.compare.runs import Comparison
from evals.errors import InputError
from evals.records import Json
from evals.registry import n_draws, variants
from evals.report.items import Background
from evals.storage.files import visible
from evals.storage.run_folder import RunFolder, to_json

_PROMPT_END = 700
"""Characters of a prompt that are shown: its end, where the question is."""


def flips(
    baseline: Path, candidate: Path, found: Comparison, data: Path | None = None
) -> Iterator[str]:
    """Every item whose score changed, column by column; safe to print on a terminal.

    data: folder of the public data, for reference answers. What is not here is said once a task.
    """
    runs = RunFolder(baseline), RunFolder(candidate)
    compared = {one.key: one for one in found.columns if one.n and one.reason is None}
    summaries = [run.read_json("summary.json") for run in runs]
    card = card_of_run(summaries[0])
    of = tuple(one.column for one in compared.values() if one.column.benchmark)
    for name, variant in variants(replace(card, columns=of)).items():
        columns = [compared[one.key] for one in variant.columns if one.key in compared]
        benchmark = variant.make(chat=True)
        changed = any(one.n_better + one.n_worse for one in columns)
        behind = _background(runs[1], name, data) if changed else None
        sides = [
            read_answers(run, benchmark, n_draws(summary["tasks"], name))
            for run, summary in zip(runs, summaries, strict=True)
        ]
        for one in columns:
            yield (
                f"== {one.column.heading}: {one.n_better} better, {one.n_worse} worse, of {one.n:,}"
                " items"
            )
            for item_id, before in sides[0].items():
                after = sides[1].get(item_id)
                if after is not None and _moved(before, after, one.key):
                    yield _flip(item_id, before, after, one.key, behind)
        if behind:
            yield from behind.lacks if changed else ()
            behind.close()


def _background(run: RunFolder, task: str, data: Path | None) -> Background | None:
    try:
        return Background(run, run.read_json("run.json"), task, data)
    except InputError:
        return None


def _moved(before: Answer, after: Answer, key: str) -> bool:
    old, new = before.scores.get(key), after.scores.get(key)
    return old is not None and new is not None and old != new


def _flip(item_id: str, before: Answer, after: Answer, key: str, behind: Background | None) -> str:
    lines = [f"{item_id}  {before.scores[key]:g} -> {after.scores[key]:g}"]
    prompt = behind.prompt(item_id)[0] if behind else ""
    if prompt:
        end = prompt if len(prompt) <= _PROMPT_END else f"…{prompt[-_PROMPT_END:]}"
        lines.append(f"── prompt\n{end}")
    if gold := behind.gold(item_id) if behind else None:
        lines.append(f"── gold\n{gold}")
    lines += [f"── {line}" for line in _instructions(before.row, after.row)]
    lines += [
        f"── {name}{f' {at}' if len(answer.rows) > 1 else ''}, {_read(row)}\n{_output(row)}"
        for name, answer in (("A", before), ("B", after))
        for at, row in enumerate(answer.rows, 1)
    ]
    return visible("\n".join(lines) + "\n")


def _instructions(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    """Of IFEval, which instructions one run kept and the other did not."""
    rows = zip(
        before.get("instructions", ()),
        before.get("loose", ()),
        after.get("loose", ()),
        strict=False,
    )
    for name, old, new in rows:
        if old != new:
            yield f"{name}: {'kept' if old else 'broken'} -> {'kept' if new else 'broken'}"


def _read(row: Mapping[str, Any]) -> str:
    """The answer as the scorer read it, in a few words."""
    extracted: Json = row.get("extracted")
    outputs = row.get("outputs", ())
    texts = f"first of {len(outputs)} outputs, " if len(outputs) > 1 else ""
    return f"{texts}read as {to_json(extracted, indent=None)}"


def _output(row: Mapping[str, Any]) -> str:
    """The first output; the log-probabilities of a choice."""
    outputs = row.get("outputs", ())
    return str(outputs[0]) if outputs else to_json(row.get("choice_logprobs"), indent=None)
