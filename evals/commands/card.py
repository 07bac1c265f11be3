"""`evals card`: parse, call, print. Heavy imports stay inside."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evals.commands.options import CardOption
from evals.errors import CheckFailed

if TYPE_CHECKING:
    from evals.report.publish import Items


def card(
    run: Annotated[
        list[Path],
        typer.Option(
            metavar="RUN",
            help="Run folder; the first is this card's model, more are rows beside it.",
        ),
    ],
    readme: Annotated[
        Path | None,
        typer.Argument(
            metavar="[README]",
            help="The model card, a README.md with or without metadata; with --push the hub's.",
        ),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Where the results can be looked up; goes into the metadata."
        ),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit 1 when the card is stale.")
    ] = False,
    push: Annotated[
        str | None,
        typer.Option(metavar="REPO", help="Open a pull request to the model's card on the hub."),
    ] = None,
    logs: Annotated[
        str | None,
        typer.Option(
            metavar="DATASET_REPO",
            help="Put the first run's items into this data set of the hub, and its address into the"
            " metadata.",
        ),
    ] = None,
    public: Annotated[
        bool, typer.Option("--public", help="With --logs: for everybody to see.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="With --push: print the diff, and send nothing.")
    ] = False,
    columns: CardOption = None,
    leaderboards: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Leaderboards of the hub beside those that are known, as leaderboards.toml.",
        ),
    ] = None,
) -> None:
    """Put the table and the hub's metadata into a model card.

    Here or on the hub, with .eval_results/ beside it; all else stays byte for byte.
    """
    if (readme is None) == (push is None):
        raise typer.BadParameter("give README for a card here, or --push REPO for one on the hub.")
    if check and (push or logs):
        raise typer.BadParameter("--check is for a card here; leave --push and --logs out.")
    if dry_run and not push:
        raise typer.BadParameter("--dry-run goes with --push; for a card here there is --check.")
    if logs and source:
        raise typer.BadParameter("--logs gives the source its address; leave --source out.")
    if public and not logs:
        raise typer.BadParameter("--public goes with --logs.")
    items = None
    if logs:
        from evals.report.publish import items_of

        items = items_of(run[0], logs)
        source = items.url
        _say(items.left_out)
    if push:
        _push(push, run, source, columns, leaderboards, items, public, send=not dry_run)
    elif readme:
        _here(readme, run, source, columns, leaderboards, items, public, write=not check)


def _here(
    readme: Path,
    run: list[Path],
    source: str | None,
    columns: str | None,
    boards: Path | None,
    items: "Items | None",
    public: bool,
    *,
    write: bool,
) -> None:
    from evals.report.card import read_card, renewed, update

    _say(renewed(read_card(readme), run, source, columns, boards).left_out)
    if items:
        _upload(items, public)
    changed = update(readme, run, source, write=write, card=columns, boards=boards)
    if changed and not write:
        raise CheckFailed(
            f"stale: {', '.join(map(str, changed))}. To renew: the same command without --check."
        )
    print(*map(str, changed), sep="\n") if changed else print("up to date")


def _push(
    repo: str,
    run: list[Path],
    source: str | None,
    columns: str | None,
    boards: Path | None,
    items: "Items | None",
    public: bool,
    *,
    send: bool,
) -> None:
    from evals.report.publish import open_request, propose, require_token
    from evals.storage.files import visible

    if send:
        require_token()
    # Before anything is sent: the card may be one that is refused.
    proposal = propose(repo, run, source, columns, boards)
    _say(proposal.left_out)
    if not send:
        if items:
            print(f"would upload {', '.join(items.files)} to {items.url}", file=sys.stderr)
        print(visible(proposal.diff()) or "up to date\n", end="")
        return
    if items:
        _upload(items, public)
    print(open_request(proposal) if proposal.changes else "up to date")


def _upload(items: "Items", public: bool) -> None:
    from evals.report.publish import upload

    upload(items, public=public)
    seen = "everybody" if public else "those who may see the data set, which is private"
    print(f"items: {items.url} (for {seen})", file=sys.stderr)


def _say(left_out: Iterable[str]) -> None:
    from evals.storage.files import visible

    for sentence in left_out:
        print(visible(f"left out: {sentence}"), file=sys.stderr)
