"""The help of `evals run`: its options in groups, the everyday ones explained, and examples at the
end; --help-all explains every one.
"""

import textwrap
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from typer import Context
from typer.core import TyperCommand

GROUPS = {
    "model": "Arguments",
    "adapter": "Model",
    "suite": "What is asked",
    "out": "The run",
    "chat_format": "Prompts and answers",
    "judge": "Judges and programs",
    "tensor_parallel_size": "Engine",
    "help_all": "Help",
}
"""The first of each group, by parameter, in the order of the function's."""

EXAMPLES = """\b
Examples:
  evals run out/my-8b --suite smoke             a few items of ours, in minutes
  evals run out/my-8b --dry-run                 what it would ask, about how long
  evals run out/my-8b --judge current           the card's row
  evals run out/my-8b --tasks mmlu,gsm8k --limit 100
  evals run out/my-lora --base out/my-8b        an adapter, unmerged
  evals run openai:NAME@http://localhost:8000/v1 --tokenizer out/my-8b"""


EVERYDAY = ("model", "suite", "card", "tasks", "data", "limit", "out", "dry_run", "chat_format",
            "judge", "tensor_parallel_size", "data_parallel_size", "help", "help_all")  # fmt: skip
"""What --help explains, on one screen; it only names the others."""


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
