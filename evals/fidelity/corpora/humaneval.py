"""HumanEval programs of three models, one a problem, each with the verdict its authors released.

wizardcoder: `completion` is the whole function, `passed` the verdict.  reflexion: `solution` is the
program, `is_solved` the verdict.
The programs run in the sandbox, after the problem's prompt as every completion does.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from evals.data.files import read_jsonl
from evals.fidelity.corpora import Figure, Recording, agreement, metric, released
from evals.generators.replay import Recorded
from evals.records import Completion, Item, Output

_FIELDS = {"wizardcoder": ("completion", "passed"), "gpt": ("solution", "is_solved")}


def recordings(
    folder: Path, about: Mapping[str, Any], items: Sequence[Item]
) -> Iterator[Recording]:
    """One recording a model: pass@1 where it was published, the number passed, the verdicts problem
    by problem.
    """
    for record in about["published"]:
        model = record["model"].split()[0].lower()
        (file,) = [entry for entry in about["files"] if model in entry["path"].lower()]
        text, verdict = _FIELDS[model.partition("-")[0]]
        rows = {
            row["task_id"].lower(): row for row in read_jsonl((folder / file["path"]).read_bytes())
        }
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
