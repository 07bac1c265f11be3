"""Options that several commands share."""

from pathlib import Path
from typing import Annotated, Any

import typer

DataOption = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Folder with the public data files (default: $EVALS_DATA)."),
]
RunArgument = Annotated[
    Path, typer.Argument(metavar="RUN", help="The folder that `evals run --out` wrote.")
]


PriceOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="ROLE=IN,OUT",
        help=(
            "What a million tokens to and from a judge cost you, for the bound of its cost; or"
            " all=IN,OUT."
        ),
    ),
]
OfflineOption = Annotated[
    bool, typer.Option("--offline", help="Open no connection but to this machine.")
]
MaxLenOption = Annotated[
    int | None, typer.Option(help="Context in tokens (default: the model's own).")
]
TensorParallelOption = Annotated[int | None, typer.Option(help="GPUs the weights are split over.")]
# vLLM's names.
DTYPES = ("auto", "bfloat16", "float16", "half", "float32", "float")


def choice(option: str, value: str, known: tuple[str, ...]) -> Any:
    """The value, if it is one of those known. Raises typer's BadParameter with the known ones."""
    if value not in known:
        raise typer.BadParameter(f"{option} {value}: known are {', '.join(known)}.")
    return value
