"""The help: commands in groups; of `evals run` the options too, the everyday ones explained, and by
--help-all every one; examples at the end of each.
"""

import textwrap
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from typer import Context
from typer.core import TyperCommand, TyperGroup

GROUPS = {
    "model": "Model",
    "suite": "What is asked",
    "out": "The run",
    "chat_format": "Prompts and answers",
    "judge": "Judges and programs",
    "tensor_parallel_size": "Engine",
    "help_all": "Help",
}
"""The first of each group, by parameter, in the order of the function's."""

EXAMPLES = {
    "": """
evals run smollm2 --suite smoke               the embedded model; no data, no key
evals report results/smollm2-135m-instruct-smoke --html page.html
evals run --help                              every command has help of its own""",
    "run": """
evals run out/my-8b --suite smoke             a few items of ours, in minutes; no data
evals run out/my-8b --dry-run                 what it would ask, about how long
evals run out/my-8b --judge current           the card's row
evals run out/my-8b --tasks mmlu,gsm8k --limit 100
evals run out/my-lora --base out/my-8b        an adapter, unmerged
evals run openai:NAME@http://localhost:8000/v1 --tokenizer out/my-8b""",
    "watch": """
evals watch out/train --suite card --limit 200 --log wandb
evals watch out/train --once --against best""",
    "prompts": """
evals prompts gsm8k --model out/my-8b""",
    "score": """
evals score results/my-8b-card
evals score results/my-8b-card --reasoning keep""",
    "replay": """
evals replay CORPUS_DIR --json figures.json""",
    "lm-eval": """
evals lm-eval --tasks hellaswag --model_args pretrained=out/my-8b,dtype=float32""",
    "report": """
evals report results/my-8b-card --published          the row below the card's
evals report results/*-card --html page.html         every prompt and answer
evals report results/my-8b-card --delta-to published""",
    "show": """
evals show results/my-8b-card gsm8k/817""",
    "card": """
evals card README.md --run results/my-8b-card
evals card --push me/my-8b --run results/my-8b-full --dry-run""",
    "export": """
evals export results/my-8b-card items.parquet
evals export results/my-8b-card --format inspect""",
    "compare": """
evals compare results/step_1000-card results/step_2000-card --why
evals compare results/step_*-card --html steps.html""",
    "check": """
evals check --baseline results/step_1000-card --candidate results/step_2000-card
evals check --init --baseline results/step_1000-card > gate.toml""",
    "cards": """
evals cards mine.toml""",
    "tasks": """
evals tasks mmlu
evals tasks lm-eval:hellaswag
evals tasks sums --new .                      a benchmark of your own, to begin with""",
    "data": """
export EVALS_DATA=/data/evals
evals data fetch""",
    "data list": """
evals data list --data /data/evals""",
    "data verify": """
evals data verify --data /data/evals""",
    "data fetch": """
evals data fetch mmlu gsm8k""",
    "judge": """
evals judge list
evals judge calibrate --judge truth=MODEL""",
    "judge list": """
evals judge list""",
    "judge sample": """
evals judge sample results/my-8b-card --n 100 --out labels.csv""",
    "judge labels": """
evals judge labels results/my-8b-card labels.csv""",
    "judge calibrate": """
evals judge calibrate --judge xstest=strmatch --replay REPLAY_DIR""",
}
"""Of each command, by its words."""


def examples(command: str) -> str:
    """What stands at the end of its help."""
    # The first line keeps the others from being filled as a paragraph is.
    return "\b\nExamples:" + EXAMPLES[command].replace("\n", "\n  ")


EVERYDAY = ("model", "suite", "card", "tasks", "data", "limit", "out", "dry_run", "chat_format",
            "judge", "tensor_parallel_size", "data_parallel_size", "help", "help_all")  # fmt: skip
"""What --help explains, on one screen; it only names the others."""


class CommandGroups(TyperGroup):
    """Commands that are listed under the panel they were given."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """See TyperGroup."""
        panels = defaultdict[str, list[tuple[str, str]]](list)
        width = max(map(len, self.commands))
        for name, command in self.commands.items():
            sentence = command.get_short_help_str(formatter.width)
            panels[getattr(command, "rich_help_panel", None) or "Commands"].append(
                (name.ljust(width), sentence)
            )
        for heading, rows in panels.items():
            with formatter.section(heading):
                formatter.write_dl(rows)


class Grouped(TyperCommand):
    """A command whose parameters are listed under GROUPS."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """See TyperCommand."""
        groups = defaultdict[str, list[Any]](list)
        heading = ""
        for one in self.get_params(ctx):
            heading = GROUPS.get(one.name or "", heading)
            groups[heading].append(one)
        shown = None if ctx.meta.get(_ALL) else EVERYDAY
        for heading, members in groups.items():
            told = [one for one in members if shown is None or one.name in shown]
            with formatter.section(heading):
                if records := _records(ctx, told):
                    formatter.write_dl(records)
                if rest := ", ".join(one.opts[0] for one in members if one not in told):
                    formatter.write(_wrapped(f"and {rest}" if records else rest, formatter))


def _wrapped(text: str, formatter: Any) -> str:
    """Like its write_text, which would part an option's name at a hyphen."""
    indent = " " * formatter.current_indent
    return (
        textwrap.fill(
            text,
            formatter.width,
            initial_indent=indent,
            subsequent_indent=indent,
            break_on_hyphens=False,
        )
        + "\n"
    )


def _records(ctx: Any, parameters: Iterable[Any]) -> list[tuple[str, str]]:
    return [record for one in parameters if (record := one.get_help_record(ctx))]


_ALL = "evals.help_all"


def show_all(ctx: Context, asked: bool) -> None:
    """What --help-all does."""
    if asked:
        ctx.meta[_ALL] = True
        print(ctx.get_help())
        ctx.exit()
