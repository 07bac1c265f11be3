"""What those read who have no command line: no sentence of ours tells them what to type."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from evals.commands.app import app
from evals.report.formats import as_html, as_latex
from evals.report.readers import COMMANDS, plain_words
from evals.report.table import TableCell, TableRow, as_markdown, make_table

ROOT = Path(__file__).resolve().parents[3]
SPOKEN = ("compare", "models", "plan", "runs", "fidelity", "report", "cards")
"""Rooms whose sentences a cell, a note or a page can hold, beside the tasks'."""
TYPED = re.compile(rf"(?<![\w-])--[a-z]|\bevals (?:{COMMANDS})\b", re.IGNORECASE)
OF_THE_TERMINAL = {"policy_init.py", "power.py"}
"""A file to be edited, and a note before a run."""


def sentences(file: Path) -> Iterator[str]:
    """The texts of a module, as far as they are no documentation and not raised as an error; what
    is put into them is X.
    """
    tree = ast.parse(file.read_text("utf-8"))
    left_out: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr | ast.Raise):
            left_out |= set(ast.walk(node))
        elif isinstance(node, ast.JoinedStr):
            left_out |= set(ast.walk(node)) - {node}
    for node in set(ast.walk(tree)) - left_out:
        if isinstance(node, ast.JoinedStr):
            yield "".join(
                str(part.value) if isinstance(part, ast.Constant) else "X" for part in node.values
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def typed() -> list[str]:
    files = [*(ROOT / "tasks").rglob("*.py")]
    files += [file for room in SPOKEN for file in (ROOT / "evals" / room).rglob("*.py")]
    told = {text for file in files if file.name not in OF_THE_TERMINAL for text in sentences(file)}
    return sorted(text for text in told if TYPED.search(text))


def test_whatever_the_program_says_can_be_said_without_what_to_type() -> None:
    said = typed()
    assert len(said) > 30
    assert [text for text in said if TYPED.search(plain_words(text))] == []


def test_the_commands_are_those_that_there_are() -> None:
    assert set(COMMANDS.split("|")) == set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("said", "plain"),
    [
        (
            "9 of 100 items have a verdict that could not be read: such a judge decides nothing;"
            " evals show says what it wrote; set --judge xstest=MODEL to one that answers as asked",
            "9 of 100 items have a verdict that could not be read: such a judge decides nothing",
        ),
        (
            "not asked: evals run asks for it; the run was of Mine, shots 0, the card's 5",
            "not asked; the run was of Mine, shots 0, the card's 5",
        ),
        (
            "samples have 9 scored items where summary.json has 8; make them again with evals"
            " score",
            "samples have 9 scored items where summary has 8",
        ),
        (
            "gsm8k: 9 of 100 outputs ended inside their reasoning: give it room with"
            " --reasoning-tokens N, or grade it with --reasoning keep",
            "gsm8k: 9 of 100 outputs ended inside their reasoning",
        ),
        ("| MMLU | its data is not here: give --data | 3 |", "| MMLU | its data is not here | 3 |"),
        ("3 items -- of 4; one --or-so", "3 items -- of 4; one or so"),
        (
            "X/run.json-like and the baseline's run.json",
            "X/run.json-like and the baseline's record",
        ),
    ],
)
def test_what_is_stated_stays(said: str, plain: str) -> None:
    assert plain_words(said) == plain


def test_html_and_latex_are_for_readers_and_markdown_is_as_it_was() -> None:
    said = "no judge: set --judge xstest=MODEL"
    marks = ("asked otherwise (--stop TEXT); see: evals report RUN", "asked otherwise (stop TEXT)")
    cells = {"gsm8k": TableCell("1.0", marks), "mmlu": TableCell()}
    table = make_table([TableRow("m", cells, "ours", {"mmlu": said})])
    for made in (as_html(table), as_latex(table)):
        assert not TYPED.search(made)
        assert "no judge was used" in made
        # Two marks that are one to a reader are one footnote.
        assert made.count("asked otherwise (stop TEXT)") == 1
    assert said in as_markdown(table)
    assert marks[0] in as_markdown(table)
