"""`evals tasks` and `evals data`: what the benchmarks are, whether their data is here, and bringing
it.
"""

from pathlib import Path
from typing import Annotated

import typer

from evals.commands.options import DataOption


def list_tasks(
    name: Annotated[
        str | None, typer.Argument(metavar="[TASK]", help="Say everything of this one.")
    ] = None,
    new: Annotated[
        Path | None,
        typer.Option(
            "--new", metavar="DIR", help="Write a benchmark called TASK, to begin with, into DIR."
        ),
    ] = None,
) -> None:
    """List the benchmarks and the columns of the default card that they fill; or say what one
    measures, its metrics, settings, judges, licence and cards.
    """
    from evals.registry import write_skeleton
    from evals.report.pages import task_page, tasks_list

    if new is not None:
        if name is None:
            raise typer.BadParameter(
                "--new DIR needs the benchmark's name: evals tasks NAME --new DIR."
            )
        print(*write_skeleton(name, new), sep="\n")
        return
    print(tasks_list() if name is None else task_page(name))


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
    """List every dataset: hub id, revision, licence, public address, files, and
    whether it is here.
    """
    from evals.commands.data_listing import listing

    print(listing(data))


def data_verify(data: DataOption = None) -> None:
    """Check every file against its checksum and row count; list everything missing or damaged at
    once.
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
    """Bring datasets from the hub at their pinned revisions and keep them in the user's cache."""
    from evals.commands.data_listing import fetch_all

    for line in fetch_all(names or [], mirror):
        print(line)
