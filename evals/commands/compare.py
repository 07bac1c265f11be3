"""`evals compare` and `evals check`, as evals.commands.app offers them: parse, call, print. Heavy
imports stay inside.
"""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from evals.commands.options import CardOption, DataOption
from evals.errors import CheckFailed, Incomplete


def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="A B…",
            help="Run folders: the second held against the first; or more, steps in their order.",
        ),
    ],
    flips: Annotated[
        bool,
        typer.Option(
            "--flips",
            help="List every item whose score changed: prompt, gold, both answers.",
        ),
    ] = False,
    why: Annotated[
        bool,
        typer.Option(
            "--why",
            help=(
                "Say what else differs: settings, versions, prompts, stop reasons, lengths,"
                " unparsed answers; at the end what changed, in a sentence."
            ),
        ),
    ] = False,
    plan: Annotated[
        float | None,
        typer.Option(
            metavar="POINTS",
            help="Say what to ask more to find a drop of so many points, cheapest first.",
        ),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write the runs in their order as a page: steps of a training run."
        ),
    ] = None,
    data: DataOption = None,
    card: CardOption = None,
) -> None:
    """Say what differs between runs, and how sure that is.

    Exit 3 where they are not comparable, and why.
    """
    from evals.compare import flips as flipped
    from evals.compare import spend
    from evals.compare import text as compare_report
    from evals.compare.runs import compare as compare_runs

    if len(runs) != 2 or html is not None:
        _several(runs, flips or why or plan is not None, html, data, card)
        return
    baseline, candidate = runs
    found = compare_runs(baseline, candidate, data, card)
    print(compare_report.markdown(found), end="")
    if why:
        from evals.compare.why import why as explain

        print("\n" + explain(baseline, candidate, data), end="")
    if found.comparable.reason is not None:
        raise Incomplete(f"{baseline} and {candidate} are {compare_report.headline(found)}")
    if plan is not None:
        print("\n" + spend.markdown(spend.plan(baseline, candidate, found, plan, card)), end="")
    for flip in flipped.flips(baseline, candidate, found, data) if flips else ():
        print("\n" + flip)


def _several(
    runs: list[Path], of_two: bool, html: Path | None, data: Path | None, card: str | None
) -> None:
    """Print several runs in their order, and write their page."""
    from evals.compare.series import markdown, series
    from evals.compare.series_page import write_page

    if of_two:
        raise typer.BadParameter(
            "--flips, --why and --plan are of two runs; give two, without --html"
        )
    found = write_page(html, runs, data, card) if html else series(runs, data, card)
    print(markdown(found), end="")


def check(
    baseline: Annotated[
        Path | None, typer.Option(metavar="RUN", help="The run folder to hold against.")
    ] = None,
    candidate: Annotated[
        Path | None, typer.Option(metavar="RUN", help="The run folder of the new checkpoint.")
    ] = None,
    policy: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help=(
                "TOML: `drop = 1.0` (points), and by column under [columns]; or a ready one:"
                " release, quantised, nightly."
            ),
        ),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Undecided is a failure too.")] = False,
    init: Annotated[
        bool,
        typer.Option(
            "--init",
            help=(
                "Print a policy with comments, and stop: for every column, or the ready one that"
                " --policy names; with what the items of --baseline can find."
            ),
        ),
    ] = False,
    junit: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write JUnit XML to FILE.")
    ] = None,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Write everything to FILE as JSON."),
    ] = None,
    data: DataOption = None,
    card: CardOption = None,
) -> None:
    """Say whether the candidate fell by more than is allowed.

    Exit 0: no, or undecided; 1: yes; 3: incomplete or incomparable.
    """
    from evals.compare import gate_files, gate_report
    from evals.compare.gate import check as check_runs
    from evals.compare.policy import Policy, policy_text, read_policy
    from evals.compare.policy_init import ready, starter

    rules = read_policy(policy, baseline, card) if policy else Policy()
    if init:
        own = ready(policy_text(policy), rules, baseline, card) if policy else None
        print(own or starter(baseline, card), end="")
        return
    if baseline is None or candidate is None:
        lacking = "--baseline" if baseline is None else "--candidate"
        raise typer.BadParameter(f"Missing option '{lacking}', a run folder")
    gate = check_runs(baseline, candidate, rules, data=data, strict=strict, card=card)
    text = gate_report.markdown(gate)
    print(text, end="")
    gate_files.write(gate, junit, json_file)
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        gate_report.append(Path(summary), text)
    if os.environ.get("GITHUB_ACTIONS") == "true":
        print(*gate_report.annotations(gate), sep="\n", file=sys.stderr)
    elif gate.verdict == "undecided":
        print(f"warning: {gate_report.headline(gate)}", file=sys.stderr)
    if gate.exit_code:
        raise (CheckFailed if gate.exit_code == 1 else Incomplete)(gate_report.headline(gate))
