"""`evals judge list`, `sample` and `labels`: parse, call, print. Heavy imports stay inside."""

from pathlib import Path
from typing import Annotated

import typer

from evals.commands.options import DataOption, RunArgument

RoleOption = Annotated[
    str, typer.Option(metavar="ROLE", help="xstest, alpaca_eval_1 or alpaca_eval_2.")
]


def judge_list() -> None:
    """List each role's judges: which live, what they need and cost."""
    from datetime import date

    from evals.fidelity.listing import listing

    print(*listing(date.today()), sep="\n")


def judge_sample(
    run_folder: RunArgument,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The CSV file to write.")],
    role: RoleOption = "xstest",
    n: Annotated[int, typer.Option("--n", help="Answers to label, 20 or more.")] = 100,
    data: DataOption = None,
) -> None:
    """Draw a sample of a run's answers for people to label.

    `evals judge labels` reads it back.
    """
    from evals.fidelity.labels import allowed, sample

    count = sample(run_folder, role, n, out, data)
    labels = ", ".join(allowed(role)[1])
    print(f"{count} answers in {out}: fill the column label with one of {labels}")
    print(f"then: evals judge labels {run_folder} {out} --role {role}")


def judge_labels(
    run_folder: RunArgument,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A labelled sample.")],
    role: RoleOption = "xstest",
    data: DataOption = None,
) -> None:
    """Keep people's labels in the run's folder.

    `evals report --estimate` takes them.
    """
    from evals.fidelity.labels import take

    print(f"{take(run_folder, role, file, data)} labels of {role} kept in {run_folder}")
