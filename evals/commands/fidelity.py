"""`evals replay` and `evals judge calibrate`: parse, call, print. Heavy imports stay inside."""

from pathlib import Path
from typing import Annotated

import typer

from evals.commands.options import (
    DataOption,
    MaxLenOption,
    OfflineOption,
    PriceOption,
    TensorParallelOption,
)
from evals.errors import CheckFailed


def replay(
    corpus: Annotated[
        Path,
        typer.Argument(
            metavar="CORPUS",
            help="Folder of recorded outputs with its README.json, or a folder of such folders.",
        ),
    ],
    data: DataOption = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write every line to FILE too.")
    ] = None,
) -> None:
    """Score recorded outputs again, beside the published figures."""
    from evals.fidelity.replay import as_text, tally, write
    from evals.fidelity.replay import replay as replay_corpora

    lines = []
    for line in replay_corpora(corpus, data):
        lines.append(line)
        print(as_text(line), flush=True)
    print(tally(lines))
    if json_file is not None:
        write(json_file, lines)
    if n_differ := sum(line.state == "differs" for line in lines):
        raise CheckFailed(
            f"{n_differ} published figures did not come back; the lines above that begin with"
            " `differs` name them."
        )


def judge_calibrate(
    judge: Annotated[
        list[str],
        typer.Option(
            metavar="ROLE=MODEL", help="As for `evals run`; a server, weights, or xstest=strmatch."
        ),
    ],
    data: DataOption = None,
    replay: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            envvar="EVALS_REPLAY",
            help="Folder with xstest/ and alpaca_eval/ as their authors released them.",
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(metavar="N", help="N recorded answers of each role, spread by a fixed seed."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help=(
                "Default: results/calibration, where `evals run` looks for what to say beside a"
                " cell."
            ),
        ),
    ] = None,
    store: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Store of verdicts (default: in the output folder)."),
    ] = None,
    price: PriceOption = None,
    offline: OfflineOption = False,
    tensor_parallel_size: TensorParallelOption = None,
    dtype: Annotated[
        str,
        typer.Option(help="auto, bfloat16, float16 or float32; as in the runs it shall speak for."),
    ] = "auto",
    max_model_len: MaxLenOption = None,
) -> None:
    """Hold a judge against recorded verdicts.

    Prints agreement, Cohen's kappa, the shift it puts on the column, cost and time.
    """
    from evals.fidelity.calibration import calibrate
    from evals.generators import EngineSettings
    from evals.plan.settings import RunSettings
    from evals.runs.progress import Progress

    engine = EngineSettings(tensor_parallel_size, dtype=dtype, max_model_len=max_model_len)
    settings = RunSettings(
        "",
        data=data,
        out=out,
        limit=limit,
        judges=tuple(judge),
        store=store,
        offline=offline,
        engine=engine,
    )
    print(*calibrate(settings, replay, price or (), Progress()), sep="\n")
