"""Options that several commands share."""

from pathlib import Path
from typing import Annotated, Any

import typer

DataOption = Annotated[Path | None, typer.Option(metavar="DIR", help="Folder with the public data files (default: $EVALS_DATA).")]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="The folder that `evals run --out` wrote.")]


def choice(option: str, value: str, known: tuple[str, ...]) -> Any:
    """The value, if it is one of those known. Raises typer's BadParameter with the known ones."""
    if value not in known:
        raise typer.BadParameter(f"{option} {value}: known are {', '.join(known)}.")
    return value
