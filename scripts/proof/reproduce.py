"""scripts/reproduce: the card's rows, measured again, with the difference to the published table in
every cell.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from evals.cards.card import PublishedRow
from evals.cards.published import card_named, row_of_short_name, shipped
from evals.commands.run import described, measured
from evals.errors import EvalsError, Incomplete
from evals.generators import EngineSettings
from evals.plan.settings import RunSettings
from evals.report.run_row import row_from_summary
from evals.report.table import TableRow, as_markdown, delta_table, markdown, rows_from_published
from evals.storage.run_folder import default_folder


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the rows one after the other (resumable), print each one's table and differences; returns
    the exit code.
    """
    options = _parser().parse_args(arguments)
    of_card = card_named(options.card).rows
    rows = options.rows or [row.short_name for row in of_card if row.short_name]
    done: list[tuple[TableRow, PublishedRow | None]] = []
    worst = 0
    for name in rows:
        row = row_of_short_name(name)
        settings = _settings(options, name, row)
        try:
            if options.dry_run:
                print(described(settings) + "\n")
                continue
            done.append((_measure(settings), row))
        except EvalsError as error:
            print(f"evals: {name}: {error}", file=sys.stderr)
            worst = max(worst, error.exit_code)
    if done:
        print(markdown([row for row, _ in done]))
    for ours, published in done:
        if published is not None:
            print(f"Difference to the published row of {published.name}:\n")
            print(as_markdown(delta_table([ours], [_published_row(published)])))
    return worst


def _measure(settings: RunSettings) -> TableRow:
    result = measured(settings)
    if not result.is_complete:
        raise Incomplete(
            f"{result.n_missing} answers or verdicts are missing; the same command asks for them"
            " again."
        )
    return row_from_summary(result.summary)


def _published_row(row: PublishedRow) -> TableRow:
    rows = rows_from_published(shipped(row.card))
    return next(found for found in rows if found.name == row.name)


def _settings(options: argparse.Namespace, name: str, row: PublishedRow | None) -> RunSettings:
    engine = EngineSettings(
        tensor_parallel_size=options.tensor_parallel_size,
        dtype=options.dtype,
        max_model_len=options.max_model_len,
    )
    settings = RunSettings(
        model=name,
        suite=options.suite,
        data=options.data,
        out=options.out / default_folder(name, options.suite),
        limit=options.limit,
        judges=tuple(options.judge),
        offline=options.offline,
        engine=engine,
        card=options.card,
    )
    if row is not None and options.models is not None:
        # A folder tells neither the card's row nor its chat format, as the short name would have.
        return replace(
            settings,
            model=str(options.models / row.hub_id),
            name=row.name,
            chat_format=row.chat_format,
        )
    return settings


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/reproduce", description=__doc__)
    parser.add_argument(
        "rows",
        nargs="*",
        help="short names of the card's rows, or any model (default: all its rows)",
    )
    parser.add_argument("--card", help="the card, as for evals run (default: the model's own)")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="say what would be asked, with token counts, and stop",
    )
    parser.add_argument(
        "--models",
        type=Path,
        help="folder holding the weights as DIR/<owner>/<name>, instead of the hub",
    )
    parser.add_argument(
        "--data", type=Path, help="folder with the public data files (default: $EVALS_DATA)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("results"),
        help="where the run folders go (default: results)",
    )
    parser.add_argument(
        "--judge",
        action="append",
        default=[],
        help="ROLE=MODEL or card, as for evals run; nothing is spent unasked",
    )
    parser.add_argument("--suite", default="card", help="card (default), full or smoke")
    parser.add_argument("--limit", type=int, help="items of each benchmark")
    parser.add_argument("--tensor-parallel-size", type=int, help="GPUs the weights are split over")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--max-model-len", type=int)
    parser.add_argument("--offline", action="store_true")
    return parser


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print(
            "\nevals: stopped. What was answered is kept; the same command goes on.",
            file=sys.stderr,
        )
        sys.exit(130)
