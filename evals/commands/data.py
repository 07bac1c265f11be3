"""`evals tasks` and `evals data`: what the benchmarks are, whether their data is here, and bringing
it.
"""

from pathlib import Path
from typing import Annotated

import typer

from evals.commands.options import DataOption
from evals.errors import CheckFailed


def list_tasks(
    name: Annotated[
        str | None, typer.Argument(metavar="[TASK]", help="A name, or package.module:Class.")
    ] = None,
    new: Annotated[
        Path | None,
        typer.Option(
            "--new", metavar="DIR", help="Write a benchmark called TASK, to begin with, into DIR."
        ),
    ] = None,
    check: Annotated[
        bool,
        typer.Option("--check", help="Try on TASK's smoke items what is expected of a benchmark."),
    ] = False,
) -> None:
    """List the benchmarks, or say what one measures.

    Ours and those of installed packages; of one its metrics, settings, judges, licence and cards.
    """
    from evals.report.pages import check_page, task_page, tasks_list
    from evals.runs.contract import write_skeleton

    if name is None and (check or new is not None):
        raise typer.BadParameter("--new and --check need the benchmark's name, TASK.")
    if name is None:
        print(tasks_list())
    elif new is not None:
        print(*write_skeleton(name, new), sep="\n")
    elif not check:
        print(task_page(name))
    else:
        text, n_broken = check_page(name)
        print(text)
        if n_broken:
            raise CheckFailed(f"{name} breaks {n_broken} of the rules.")


def cards(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME|FILE]", help="One of ours, or a TOML file of yours."),
    ] = None,
) -> None:
    """List our cards; or check one and say what a run of it asks."""
    from evals.report.pages import card_page, cards_list

    print(cards_list() if name is None else card_page(name))


def data_list(data: DataOption = None) -> None:
    """List every dataset, and whether it is here.

    With hub id, revision, licence, public address and files.
    """
    from evals.commands.data_listing import listing

    print(listing(data))


def data_verify(data: DataOption = None) -> None:
    """Check every file against its checksum and row count.

    All that is missing or damaged is listed at once.
    """
    from evals.commands.data_listing import verify

    print(verify(data))


def data_fetch(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[TASK]...", help="Default: all.")
    ] = None,
    mirror: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="DIR",
            help="Read hub repositories from DIR/<owner>/<name> instead of the hub.",
        ),
    ] = None,
) -> None:
    """Bring datasets from the hub at their pinned revisions."""
    from evals.commands.data_listing import fetch_all

    for line in fetch_all(names or [], mirror):
        print(line)
