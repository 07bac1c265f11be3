"""`evals tasks` and `evals data`: what the benchmarks are, whether their data is here, and bringing
it.
"""

from pathlib import Path
from typing import Annotated

import typer

from evals.commands.options import DataOption


def list_tasks() -> None:
    """List the benchmarks and the cells of the card they fill."""
    from evals.registry import BENCHMARKS, benchmark_class

    for name in BENCHMARKS:
        cls = benchmark_class(name)
        judges = f"  judged: {', '.join(cls.judge_roles)}" if cls.judge_roles else ""
        print(f"{name:12} {' | '.join(column.heading for column in cls.columns)}{judges}")


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
