"""HumanEval programs of models, one a problem, each with the verdict its authors released.

A file of the form of WizardCoder's: `completion` is the whole function, `passed` the verdict.  Of
Reflexion's: `solution` is the program, `is_solved` the verdict.
The programs run in the sandbox, after the problem's prompt as every completion does.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from evals.data.files import read_jsonl
from evals.fidelity.corpora import Figure, Recording, Released, agreement, by_item, metric, released
from evals.generators.replay import Recorded
from evals.records import Completion, Item, Output

_FORMS = (("completion", "passed"), ("solution", "is_solved"))
"""What a file calls a program and its verdict."""


def recordings(
    folder: Path, about: Mapping[str, Any], items: Sequence[Item]
) -> Iterator[Recording]:
    """One recording a model: pass@1 where it was published, the number passed, the verdicts problem
    by problem.
    """
    names = [record["model"].partition(" ")[0].lower() for record in about["published"]]
    for record, name in zip(about["published"], names, strict=True):
        file = _file_of(name, names, about["files"])
        ids = {item.id: item.id for item in items}
        rows = by_item(
            folder / file["path"], read_jsonl, ids, lambda row: row.take("task_id", str).lower()
        )
        text, verdict = _form(next(iter(rows.values())))
        answers = {
            item_id: Recorded(
                Completion((Output(row.take(text, str)),)), released(row.take(verdict, bool))
            )
            for item_id, row in rows.items()
        }
        address, passed, n = file["source"]["repository"], metric("pass@1"), record["n"]
        source = f"{record['where']}, {address}"
        figures = (
            [Figure("pass@1", record["pass_at_1"], 1, source, passed)]
            if "pass_at_1" in record
            else []
        )
        figures.append(Figure("problems passed", record["n_passed"], 0, source, passed, unit=n))
        figures.append(
            Figure(
                "released verdicts that come back",
                n,
                0,
                f"{verdict} flags, {address}",
                agreement("pass@1"),
                unit=n,
            )
        )
        yield Recording(record["model"], answers, figures)


def _file_of(
    name: str, names: Sequence[str], files: Sequence[Mapping[str, Any]]
) -> Mapping[str, Any]:
    """The file in whose path this is the longest of the models' names."""
    found = [
        file
        for file in files
        if name == max((one for one in names if one in file["path"].lower()), key=len, default="")
    ]
    if len(found) != 1:
        raise ValueError(
            f"README.json lists {len(found)} files with {name!r} in their path; it should list one"
        )
    return found[0]


def _form(row: Released) -> tuple[str, str]:
    for form in _FORMS:
        if row.keys() >= set(form):
            return form
    raise ValueError(
        f"{row.where} is of no form that is known: {' or '.join(map(' + '.join, _FORMS))}"
    )
