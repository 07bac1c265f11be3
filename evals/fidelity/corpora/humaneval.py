"""HumanEval programs of models, one a problem, each with the verdict its authors released.

A file of the form of WizardCoder's: `completion` is the whole function, `passed` the verdict.  Of
Reflexion's: `solution` is the program, `is_solved` the verdict.
The programs run in the sandbox, after the problem's prompt as every completion does.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from evals.data.files import read_jsonl
from evals.fidelity.corpora import Figure, Recording, agreement, metric, released
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
    for record in about["published"]:
        file = _file_of(record["model"], about["files"])
        rows = {
            row["task_id"].lower(): row for row in read_jsonl((folder / file["path"]).read_bytes())
        }
        text, verdict = _form(file["path"], list(rows.values()))
        if missing := sorted(item.id for item in items if item.id not in rows):
            raise ValueError(f"{file['path']} has no row for {missing[0]}")
        answers = {
            item.id: Recorded(
                Completion((Output(rows[item.id][text]),)), released(rows[item.id][verdict])
            )
            for item in items
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


def _file_of(model: str, files: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The file whose path has the model's name, its first word, in it."""
    name = model.split()[0].lower()
    found = [file for file in files if name in file["path"].lower()]
    if len(found) != 1:
        raise ValueError(f"{len(found)} of its files have {name!r} in their path; one should")
    return found[0]


def _form(path: str, rows: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    for form in _FORMS:
        if all(row.keys() >= set(form) for row in rows):
            return form
    raise ValueError(f"{path}: no form that is known: {' or '.join(map(' + '.join, _FORMS))}")
