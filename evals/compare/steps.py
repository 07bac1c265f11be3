"""The runs of a training run's checkpoints: which is the best, and what their page shows."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from evals.cards.card import AVERAGE
from evals.cards.published import card_of_run
from evals.compare.series import Series, steps_of
from evals.report.run_row import cells_under, kept_columns, row_from_summary
from evals.report.table import TableRow, table_columns
from evals.storage.run_folder import RunFolder

Step = tuple[int, Path, str, str | None]
"""A checkpoint's step, its run folder, the gate's verdict and the run it was held against."""


def best_run(runs: Sequence[Path]) -> Path:
    """The run with the best mean of the columns that all of them have a number in, each in its own
    sense of better; the Average, where all have it and it is a share. Of equal ones, and without
    any such column, the last.
    """
    summaries = [RunFolder(run).read_json("summary.json") for run in runs]
    values = [
        {key: cell["value"] for key, cell in one["cells"].items() if cell["value"] is not None}
        for one in summaries
    ]
    columns = [*card_of_run(summaries[0]).printed, *kept_columns(summaries[0])]
    lower = {one.key for one in columns if one.lower_is_better}
    # What is no share would outweigh all others.
    no_share = {one.key for one in columns if not one.is_share}
    shares = ({k for k, value in one.items() if 0 <= value <= 1} for one in values)
    shared = set.intersection(*shares) - no_share

    def worth(at: int) -> tuple[float, int]:
        if AVERAGE.key in shared or not shared:
            return values[at].get(AVERAGE.key, 0.0), at
        return fmean(-values[at][key] if key in lower else values[at][key] for key in shared), at

    return runs[max(range(len(runs)), key=worth)]


def watched(steps: Sequence[Step]) -> tuple[Series, list[TableRow]]:
    """The runs of a watch as a series without differences, which `evals compare` has, and their
    rows. Raises InputError where a folder is no run.
    """
    summaries = [RunFolder(run).read_json("summary.json") for _, run, _, _ in steps]
    rows = [row_from_summary(summary) for summary in summaries]
    cells = [cells_under(card_of_run(one), one) for one in summaries]
    found = (
        steps_of(column, [one.get(column.key, {}) for one in cells])
        for column in table_columns(rows)
    )
    shown = tuple(one for one in found if one is not None)
    return Series(tuple(run.name for _, run, _, _ in steps), shown, (), ()), rows
