"""`evals report`, `export` and `show`, as evals.commands.app offers them: parse, call, print. Heavy
imports stay inside.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from evals.commands.options import CardOption, DataOption, RunArgument, choice


def report(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[RUN]...",
            help=(
                "Run folders, or result files of lm-evaluation-harness, in the order to print them."
            ),
        ),
    ] = None,
    published: Annotated[
        bool, typer.Option("--published", help="Print the card's published rows first.")
    ] = False,
    layout: Annotated[
        str | None,
        typer.Option(
            "--format",
            help=(
                "markdown, html, latex, csv or json (default: a table on a terminal, else"
                " markdown)."
            ),
        ),
    ] = None,
    with_ci: Annotated[bool, typer.Option("--with-ci", help="Print 95 % intervals.")] = False,
    bold: Annotated[
        bool, typer.Option("--bold", help="Set the best value of each group in bold.")
    ] = False,
    by_size: Annotated[
        bool, typer.Option("--by-size", help="Sort and group by the size in a row's name.")
    ] = False,
    delta_to: Annotated[
        str | None,
        typer.Option(
            metavar="ROW",
            help=(
                "Print differences in points to a row: `published`, the model's own, or a short"
                " name."
            ),
        ),
    ] = None,
    estimate: Annotated[
        bool,
        typer.Option(
            "--estimate",
            help=(
                "In columns of their own: what the card's judge would have said, with 95 %"
                " intervals."
            ),
        ),
    ] = False,
    html: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write one self-contained page instead: table, parts, plots, every item.",
        ),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN", help="With --html: the run whose items the others' are held against."
        ),
    ] = None,
    card: CardOption = None,
    data: DataOption = None,
) -> None:
    """Print the card's table, or write a page to look at with --html."""
    if html is not None or against is not None:
        if html is None or not runs:
            raise typer.BadParameter(
                "--html FILE needs at least one run folder, --against RUN needs --html FILE."
            )
        from evals.compare.runs import compare
        from evals.compare.text import markdown
        from evals.report.html import write_report

        others = [run for run in runs if against is not None and run != against]
        texts = [markdown(compare(against, run, data, card)) for run in others if against]
        write_report(html, runs, against, data, card, texts)
        print(html)
        return
    from evals.report.formats import FORMATS
    from evals.report.rows import Layout, report_table

    if layout is not None:
        choice("--format", layout, tuple(FORMATS))
    if not runs and (not published or delta_to):
        raise typer.BadParameter("name at least one run folder, or --published.")
    if published and delta_to:
        raise typer.BadParameter("--delta-to prints differences only; leave --published out.")
    table = report_table(
        runs or (), published, Layout(with_ci, bold, by_size, delta_to, card), data
    )
    if estimate:
        from evals.fidelity.estimates import estimates
        from evals.report.rows import is_limited, with_estimates

        if delta_to:
            raise typer.BadParameter("--estimate and --delta-to: an estimate has no published row.")
        in_order = sorted(runs or (), key=is_limited)
        table = with_estimates(table, [list(estimates(run)) for run in in_order])
    show_table(table, layout)


def export(
    run_folder: RunArgument,
    to: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FILE|DIR]",
            help=(
                "A name that ends in .parquet or .csv; with --format a folder (default: one in RUN"
                " called after the format)."
            ),
        ),
    ] = None,
    layout: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="eee (Every Eval Ever), inspect (Inspect's logs) or lm-eval, for other tools.",
        ),
    ] = None,
    data: DataOption = None,
) -> None:
    """Write a run's graded items as a table, or for another tool."""
    if layout is None:
        if to is None:
            raise typer.BadParameter("name a FILE that ends in .parquet or .csv, or give --format.")
        from evals.report.export import write_items

        print(f"{write_items(run_folder, to):,} items in {to}")
        return
    from evals.report.export import FORMATS, write_format

    files, left_out = write_format(
        choice("--format", layout, tuple(FORMATS)), run_folder, to or run_folder / layout, data
    )
    from evals.storage.files import visible

    for sentence in left_out:
        print(visible(f"without a number: {sentence}"), file=sys.stderr)
    print(*files, sep="\n")


def show(
    run_folder: RunArgument,
    item_id: Annotated[str, typer.Argument(metavar="ITEM_ID")],
    data: DataOption = None,
) -> None:
    """Print all that is behind one item: prompt, output, gold, grade.

    Also the answer as extracted, and the judge's words.
    """
    import os
    import secrets

    from evals.report.show import describe_item

    text = describe_item(run_folder, item_id, data)
    if os.environ.get("GITHUB_ACTIONS") == "true":
        # A line that begins with "::" is an order to the workflow's runner, whoever wrote it.
        word = secrets.token_hex(16)
        text = f"::stop-commands::{word}\n{text}\n::{word}::"
    print(text)


def show_rows(summaries: Sequence[Any]) -> None:
    """The rows of some runs, from their parsed summaries."""
    from evals.report.run_row import row_from_summary
    from evals.report.table import make_table

    show_table(make_table([row_from_summary(summary) for summary in summaries]), None)


def show_table(table: Any, layout: str | None) -> None:
    """In the format asked for; without one, laid out for a terminal where there is one, else
    Markdown.
    """
    import os

    if layout is None and sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
        from rich.console import Console

        from evals.report.terminal import renderables

        # Names and remarks are strangers' words: no markup, and nothing in them to colour.
        console = Console(
            highlight=False,
            markup=False,
            color_system=None if os.environ.get("NO_COLOR") else "auto",
        )
        console.print(*renderables(table, console.width), sep="\n")
        return
    from evals.report.formats import FORMATS

    print(FORMATS[layout or "markdown"](table), end="")
