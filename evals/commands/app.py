"""The command line: every command in the order in which the help lists them, and how a process
ends.
"""

import os
import sys
from collections import namedtuple
from collections.abc import Callable
from importlib import metadata
from typing import Annotated, Any, NoReturn

import typer
from typer.exceptions import TyperException

from evals.commands import interrupt
from evals.commands.card import card
from evals.commands.compare import check, compare
from evals.commands.data import cards, data_fetch, data_list, data_verify, list_tasks
from evals.commands.fidelity import judge_calibrate, replay
from evals.commands.grouped import CommandGroups, Grouped, examples
from evals.commands.harness import lm_eval
from evals.commands.judges import judge_labels, judge_list, judge_sample
from evals.commands.report import export, report, show
from evals.commands.run import prompts, run, score
from evals.commands.watch import watch
from evals.errors import EvalsError

_LONGEST = 20_000
"""Characters of an error: a stranger's file may hold a name of megabytes."""

MEASURE, READ = "Measure", "Look at it, and publish it"
COMPARE, KNOW = "Is it worse?", "What there is"

app = typer.Typer(
    name="evals",
    cls=CommandGroups,
    epilog=examples(""),
    help="Give it a model, get the model card's row: eight benchmarks, one vLLM engine, one table.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    # formatting the help with rich takes longer than everything else it does
    rich_markup_mode=None,
    context_settings={"max_content_width": 100},
)
data_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    epilog=examples("data"),
    help="Where the benchmarks' data comes from, and whether it is here.",
)
judge_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    epilog=examples("judge"),
    help="Which judges there are, and what their verdicts are worth.",
)


@app.callback(invoke_without_command=True)
def main_options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True)
    ] = False,
) -> None:
    """Options of the program itself."""
    if version:
        print(metadata.version("model-card-evals"))
        raise typer.Exit


def _add(to: typer.Typer, words: str, function: Callable[..., None], **how: Any) -> None:
    to.command(words.split()[-1], epilog=examples(words), **how)(function)


# What these two do not know are options of `run`, and lm-evaluation-harness' own.
PASSING_ON = {"allow_extra_args": True, "ignore_unknown_options": True}
_add(app, "run", run, rich_help_panel=MEASURE, cls=Grouped)
_add(app, "watch", watch, rich_help_panel=MEASURE, context_settings=PASSING_ON)
_add(app, "prompts", prompts, rich_help_panel=MEASURE)
_add(app, "score", score, rich_help_panel=MEASURE)
_add(app, "replay", replay, rich_help_panel=MEASURE)
_add(app, "lm-eval", lm_eval, rich_help_panel=MEASURE, context_settings=PASSING_ON)
_add(app, "report", report, rich_help_panel=READ)
_add(app, "show", show, rich_help_panel=READ)
_add(app, "card", card, rich_help_panel=READ)
_add(app, "export", export, rich_help_panel=READ)
_add(app, "compare", compare, rich_help_panel=COMPARE)
_add(app, "check", check, rich_help_panel=COMPARE)
_add(app, "cards", cards, rich_help_panel=KNOW)
_add(app, "tasks", list_tasks, rich_help_panel=KNOW)
app.add_typer(data_app, name="data", rich_help_panel=KNOW)
app.add_typer(judge_app, name="judge", rich_help_panel=KNOW)
_add(judge_app, "judge list", judge_list)
_add(judge_app, "judge calibrate", judge_calibrate)
_add(judge_app, "judge sample", judge_sample)
_add(judge_app, "judge labels", judge_labels)
_add(data_app, "data list", data_list)
_add(data_app, "data verify", data_verify)
_add(data_app, "data fetch", data_fetch)


def main() -> None:
    """The console command: shows an error as one sentence and exits with its code."""
    # Before any library brings torch, which reads it once.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    # Tokenizers are all we take of transformers; without torch it warns that models are missing.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    try:
        # Not standalone: typer then raises what is wrong with the words of a command, and returns
        # 130 for Ctrl-C.
        with interrupt.watched():
            code = app(prog_name="evals", standalone_mode=False)
    except EvalsError as error:
        if os.environ.get("EVALS_TRACEBACK"):
            raise
        from evals.storage.files import visible

        text = visible(f"evals: {error}")
        print(text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …", file=sys.stderr)
        sys.exit(error.exit_code)
    except TyperException as error:
        print(_wrong_words(error), file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        code = interrupt.EXIT_CODE
    finally:
        interrupt.at_exit()
    if code == interrupt.EXIT_CODE:
        _stopped()
    sys.exit(code or 0)


def _wrong_words(error: TyperException) -> str:
    """One sentence for what is wrong with a command's words, and where its help is; the help itself
    where there are no words.
    """
    command = getattr(getattr(error, "ctx", None), "command_path", "evals")
    sentence = " ".join(error.format_message().split()).removeprefix("Invalid value: ").rstrip(".")
    # Where there are no words at all, typer's message is the whole help.
    return (
        error.message if "Usage:" in error.message else f"evals: {sentence}. See: {command} --help"
    )


def _stopped() -> NoReturn:
    print("\nevals: stopped. What was answered is kept; the same command goes on.", file=sys.stderr)
    # Where the interrupt passed through the standard library's compiling of source (a dataclass
    # being made), CPython remembers it although it was caught, and ends the process by SIGINT in
    # place of our status, unless source is compiled and run again.
    namedtuple("Forgotten", "")
    sys.exit(interrupt.EXIT_CODE)


if __name__ == "__main__":
    main()
