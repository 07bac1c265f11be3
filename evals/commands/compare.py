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
    baseline: Annotated[Path, typer.Argument(metavar="A", help="A run folder.")],
    candidate: Annotated[
        Path, typer.Argument(metavar="B", help="The run folder to hold against it.")
    ],
    flips: Annotated[
        bool,
        typer.Option("--flips", help="List every item whose score changed, with both outputs."),
    ] = False,
    why: Annotated[
        bool,
        typer.Option(
            "--why",
            help=(
                "Say what else differs: settings, versions, prompts, stop reasons, lengths,"
                " unparsed answers."
            ),
        ),
    ] = False,
    card: CardOption = None,
    data: DataOption = None,
) -> None:
    """Say whether two runs are comparable, what differs and how sure that is. Exit 3 where they are
    not.
    """
    from evals.compare import text as compare_report
    from evals.compare.runs import compare as compare_runs

    found = compare_runs(baseline, candidate, data, card)
    print(compare_report.markdown(found), end="")
    if why:
        from evals.compare.why import why as explain

        print("\n" + explain(baseline, candidate, data), end="")
    if found.comparable.reason is not None:
        raise Incomplete(f"{baseline} and {candidate} are {compare_report.headline(found)}")
    for flip in compare_report.flips(baseline, candidate, found) if flips else ():
        print("\n" + flip)


def check(
    baseline: Annotated[Path, typer.Option(metavar="RUN", help="The run folder to hold against.")],
    candidate: Annotated[
        Path, typer.Option(metavar="RUN", help="The run folder of the new checkpoint.")
    ],
    policy: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="TOML: `drop = 1.0` (points), and by column under [columns]."
        ),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Undecided is a failure too.")] = False,
    junit: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write JUnit XML to FILE.")
    ] = None,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Write everything to FILE as JSON."),
    ] = None,
    card: CardOption = None,
    data: DataOption = None,
) -> None:
    """Say whether the candidate fell by more than is allowed: exit 0 no (or undecided), 1 yes, 3
    incomplete or incomparable.
    """
    from evals.compare import gate_report as check_report
    from evals.compare.gate import check as check_runs
    from evals.compare.policy import Policy, read_policy
    from evals.storage.run_folder import RunFolder

    allowed = read_policy(policy, baseline, card) if policy else Policy()
    gate = check_runs(baseline, candidate, allowed, data=data, strict=strict, card=card)
    text = check_report.markdown(gate)
    print(text, end="")
    if json_file is not None:
        RunFolder(json_file.parent).write_json(json_file.name, check_report.as_json(gate))
    if junit is not None:
        RunFolder(junit.parent).write_bytes(junit.name, check_report.junit(gate))
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        check_report.append(Path(summary), text)
    if os.environ.get("GITHUB_ACTIONS") == "true":
        print(*check_report.annotations(gate), sep="\n", file=sys.stderr)
    elif gate.verdict == "undecided":
        print(f"warning: {check_report.headline(gate)}", file=sys.stderr)
    if gate.exit_code:
        raise (CheckFailed if gate.exit_code == 1 else Incomplete)(check_report.headline(gate))
