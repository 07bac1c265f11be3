"""`evals compare --why`: what two runs do not have in common, from settings to answers. Reads
files; judges nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from evals.cards.published import card_of_run
from evals.compare.answers import read_answers
from evals.compare.conclusion import Both, conclusion
from evals.compare.prompt_diff import Asked, describe
from evals.errors import InputError
from evals.registry import n_draws, off_card, variants
from evals.report.table import MISSING, escape
from evals.storage.run_folder import RunFolder, to_json

_HEADER = (
    "protocol",
    "suite",
    "limit",
    "seed",
    "model",
    "chat_format",
    "bos_tokens",
    "prompts_by",
    "judges",
    "data",
)
_SESSION = ("engine", "host", "versions", "git_commit", "sandbox")
_NOT_SETTINGS = ("versions", "host", "git_commit")


def why(baseline: Path, candidate: Path, data: Path | None = None) -> str:
    """Settings, versions, prompts, and how the answers ended, side by side, as Markdown; the last
    line says in a sentence what changed.

    Raises InputError where a folder is no run. What is not on this machine is said to be missing.
    """
    runs = RunFolder(baseline), RunFolder(candidate)
    summaries = runs[0].read_json("summary.json"), runs[1].read_json("summary.json")
    records, lacks = _records(runs)
    facts = _facts(summaries[0], records[0]), _facts(summaries[1], records[1])
    # Where one side has no record, all that only a record holds would seem to differ.
    known = [
        name
        for name in {**facts[0], **facts[1]}
        if None not in records or all(name in side for side in facts)
    ]
    settings, versions = (
        [name for name in known if _is_version(name) is about] for about in (False, True)
    )
    order = variants(card_of_run(summaries[0]), off_card(summaries[0]))
    answers = {}
    for task, variant in order.items():
        if all(task in summary["tasks"] for summary in summaries):
            first, second = (
                read_answers(run, variant.make(chat=True), n_draws(summary["tasks"], task))
                for run, summary in zip(runs, summaries, strict=True)
            )
            answers[task] = [(one, second[key]) for key, one in first.items() if key in second]
    parts = [
        "### Settings",
        *lacks,
        *_differing(settings, facts),
        "",
        "### Versions",
        *_differing(versions, facts),
    ]
    parts += [
        "",
        "### Prompts",
        *_prompts(runs, records, answers, data),
        "",
        "### Answers",
        *_answers(answers),
        "",
        escape(conclusion(answers)),
    ]
    return "\n".join(parts) + "\n"


def _records(runs: Sequence[RunFolder]) -> tuple[list[dict[str, Any] | None], list[str]]:
    records: list[dict[str, Any] | None] = []
    lacks = []
    for name, run in zip("AB", runs, strict=True):
        try:
            records.append(run.read_json("run.json"))
        except InputError as error:
            records.append(None)
            lacks.append(
                f"- {name}: engine settings and versions are not known: {escape(str(error))}"
            )
    return records, lacks


def _facts(summary: Mapping[str, Any], record: Mapping[str, Any] | None) -> dict[str, str]:
    """Every setting and version by its path; one that changed between the sessions of a run shows
    all its values.
    """
    found = {path: value for name in _HEADER for path, value in _flat(name, summary.get(name))}
    found |= dict(_flat("reasoning", summary.get("reasoning", {})))
    sessions: dict[str, list[str]] = {}
    for session in record["sessions"] if record else ():
        for path, value in (pair for name in _SESSION for pair in _flat(name, session.get(name))):
            seen = sessions.setdefault(path, [])
            seen += [value] if value not in seen else []
    return found | {path: ", then ".join(values) for path, values in sessions.items()}


def _flat(path: str, value: Any) -> Iterator[tuple[str, str]]:
    """(path, value as text) of everything in nested objects."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _flat(f"{path}.{name}", inner)
    else:
        yield path, value if isinstance(value, str) else to_json(value, indent=None)


def _is_version(path: str) -> bool:
    return path.partition(".")[0] in _NOT_SETTINGS


def _differing(
    names: Sequence[str], facts: tuple[Mapping[str, str], Mapping[str, str]]
) -> list[str]:
    rows = [(name, facts[0].get(name, MISSING), facts[1].get(name, MISSING)) for name in names]
    rows = [row for row in rows if row[1] != row[2]]
    if not rows:
        return [f"All {len(names)} are the same."]
    return [
        "| What | A | B |",
        "| --- | --- | --- |",
        *(f"| {' | '.join(map(escape, row))} |" for row in rows),
    ]


def _prompts(
    runs: Sequence[RunFolder],
    records: Sequence[Mapping[str, Any] | None],
    answers: Mapping[str, Both],
    data: Path | None,
) -> list[str]:
    if records[0] is None or records[1] is None:
        return ["Not known: see the settings."]
    asked = Asked(runs[0], records[0], data), Asked(runs[1], records[1], data)
    lines = [
        f"- {name}: compared word by word, no tokenizer ({one.lacks})"
        for name, one in zip("AB", asked, strict=True)
        if one.lacks
    ]
    found = [
        describe(task, [str(one.row["id"]) for one, _ in both], asked)
        for task, both in answers.items()
    ]
    return [*lines, "```text", *(line for task in found for line in task), "```"]


def _answers(answers: Mapping[str, Both]) -> list[str]:
    """Per task, over all answers to the items that both runs have, A -> B."""
    heads = (
        "Task",
        "Items",
        "Same answer",
        "Stopped by length",
        "Tokens, mean",
        "Characters, mean",
        "Unparsed",
        "Empty",
    )
    lines = [f"| {' | '.join(heads)} |", "| --- |" + " ---: |" * (len(heads) - 1)]
    for task, both in answers.items():
        sides = [[row for pair in both for row in pair[at].rows] for at in (0, 1)]
        same = sum(one.says_the_same(other) for one, other in both)
        cells = [" -> ".join(figures) for figures in zip(*map(_figures, sides), strict=True)]
        lines.append(f"| {task} | {len(both):,} | {same:,} | {' | '.join(cells)} |")
    return lines


def _figures(rows: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Shares and means over one run's outputs of a task."""
    outputs = [text for row in rows for text in row.get("outputs", ())]
    ended = [reason for row in rows for reason in row.get("finish_reasons", ())]
    tokens = [n for row in rows for n in row.get("n_tokens", ())]
    return (
        _share([reason == "length" for reason in ended]),
        # Recorded outputs may come without token ids and then count none.
        f"{fmean(tokens):.1f}" if any(tokens) else MISSING,
        f"{fmean(map(len, outputs)):.1f}" if outputs else MISSING,
        _share([bool(row.get("unparsed")) for row in rows]),
        _share([not text.strip() for text in outputs]),
    )


def _share(claims: Sequence[bool]) -> str:
    return f"{100 * fmean(claims):.1f} %" if claims else MISSING
