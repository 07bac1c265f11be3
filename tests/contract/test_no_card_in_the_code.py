"""A card is data: nothing in evals/ names a column of a card that travels with it."""

import ast
from pathlib import Path

import pytest

from evals.cards.published import shipped, shipped_names

EVALS = Path(__file__).resolve().parents[2] / "evals"
NAMES_OF_OTHERS = (
    "registry.py",  # the benchmarks, a line each; a column may be called as its benchmark
    "fidelity/corpora/",  # what lies in recordings of others, and
    "fidelity/calibration_data.py",
    "report/lm_eval_results.py",  # in another harness' files
)
MEASURED = {
    word
    for name in shipped_names()
    for column in shipped(name).columns
    if column.benchmark
    for word in (column.key, column.heading)
}


def named(source: str) -> list[str]:
    """The columns that a module's literals are."""
    constants = (one.value for one in ast.walk(ast.parse(source)) if isinstance(one, ast.Constant))
    return [one for one in constants if isinstance(one, str) and one in MEASURED]


def test_the_walk_sees_a_key_and_a_heading() -> None:
    assert {"gsm8k", "xstest_f1", "MMLU 5-shot"} <= MEASURED
    assert named("at = cells['gsm8k']\nhead = {'MMLU 5-shot': 1}\nx = 'gsm8k shots'") == [
        "gsm8k", "MMLU 5-shot"
    ]  # fmt: skip


@pytest.mark.parametrize(
    "file",
    [
        file
        for file in sorted(EVALS.rglob("*.py"))
        if not file.relative_to(EVALS).as_posix().startswith(NAMES_OF_OTHERS)
    ],
    ids=lambda file: file.relative_to(EVALS).as_posix(),
)
def test_no_column_of_a_card_is_named(file: Path) -> None:
    assert named(file.read_text("utf-8")) == []
