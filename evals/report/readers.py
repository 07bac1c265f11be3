"""Sentences in words for those who read a card, a page or a paper and have no command line."""

import re
from dataclasses import replace

from evals.report.table import Table, TableRow

COMMANDS = (
    "card|cards|check|compare|data|export|judge|lm-eval|prompts|replay|report|run|score|show|tasks"
    "|watch"
)
_OPTION = re.compile(r"(?<![\w-])--([A-Za-z][\w-]*)")
_TYPED = rf"(?:(?<![\w-])--[a-z]|\bevals (?:{COMMANDS})\b)"
_REST = r"(?:(?!; |\. | \| ).)*"
"""Of a clause; the next begins a new thought, or is another cell's."""
# A clause that says what to type, as in "no judge: set --judge truth=MODEL", or what a command
# does.
_ADVICE = re.compile(
    r"(?:[.:;,] |^)(?:or )?"
    r"(?:(?:add|ask|bring|choose|give|leave|make|name|pass|see|set|start|try|use)\b"
    rf"{_REST}?{_TYPED}|`?evals (?:{COMMANDS})\b){_REST}",
    re.IGNORECASE,
)
_IN_BRACKETS = re.compile(rf" \([^()]*`?\bevals (?:{COMMANDS})\b[^()]*\)")
_FILE = re.compile(r"(?<![\w./-])(run|summary)\.json\b")
_PLAIN = {"no judge": "no judge was used"}


def plain_words(text: str) -> str:
    """A sentence without what to type: advice goes, an option that states a fact becomes words, a
    file of a run what it holds.
    """
    text = _FILE.sub(lambda found: {"run": "record", "summary": "summary"}[found[1]], text)
    if not re.search(_TYPED, text, re.IGNORECASE):
        return text
    kept = _ADVICE.sub("", _IN_BRACKETS.sub("", text)).removeprefix("; ")
    return _OPTION.sub(lambda found: found[1].replace("-", " "), _PLAIN.get(kept, kept))


def for_readers(row: TableRow) -> TableRow:
    """The row with its marks and notes in plain words."""
    cells = {
        key: replace(cell, marks=tuple(dict.fromkeys(map(plain_words, cell.marks))))
        for key, cell in row.cells.items()
    }
    return replace(
        row, cells=cells, notes={key: plain_words(note) for key, note in row.notes.items()}
    )


def table_for_readers(table: Table) -> Table:
    """The table with all its rows so."""
    return replace(
        table,
        rows=tuple(map(for_readers, table.rows)),
        bases=tuple(map(for_readers, table.bases)),
    )
