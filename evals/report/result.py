"""A run's outcome as `evals.run` gives it to a program."""

from dataclasses import dataclass

from evals.report.table import markdown, row_from_summary
from evals.runs.writing import RunResult


@dataclass(frozen=True, slots=True)
class Result(RunResult):
    """A run's folder and summary, and its row."""

    def table(self) -> str:
        """The card's table with this row, in Markdown."""
        return markdown([row_from_summary(self.summary)])
