"""The help of `evals run`: its options in groups, and examples at the end."""

from collections import defaultdict
from typing import Any

from typer.core import TyperCommand

GROUPS = {
    "model": "Arguments",
    "adapter": "Model",
    "suite": "What is asked",
    "out": "The run",
    "chat_format": "Prompts and answers",
    "judge": "Judges and programs",
    "tensor_parallel_size": "Engine",
    "help": "Help",
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


class Grouped(TyperCommand):
    """A command whose parameters are listed under GROUPS."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """See TyperCommand."""
        groups = defaultdict[str, list[tuple[str, str]]](list)
        heading = ""
        for one in self.get_params(ctx):
            heading = GROUPS.get(one.name or "", heading)
            if record := one.get_help_record(ctx):
                groups[heading].append(record)
        for heading, records in groups.items():
            with formatter.section(heading):
                formatter.write_dl(records)
