"""Several runs in their order: differences to the one before and to the best, Holm over every pair,
and the scatter of the last.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evals.cards.card import AVERAGE
from evals.compare.series import LAST, _columns, markdown, series
from evals.errors import InputError
from evals.stats import holm
from tests.unit.conftest import Call, Make, paired_columns, unfinished_sums, wrong_sums


def one_wrong(row: dict[str, Any]) -> dict[str, Any]:
    return wrong_sums(row) if not unfinished_sums(row) else dict(row)


def test_each_run_is_held_against_the_one_before_and_the_best(recorded: Make) -> None:
    folders = [recorded("one wrong", one_wrong), recorded("right"), recorded("broken", wrong_sums)]
    found = series(folders)
    (steps,) = [one for one in found.columns if one.column.key == "gsm8k"]
    assert steps.best == 1
    pairs = {(a, b): paired_columns(folders[a], folders[b]) for a, b in steps.differences}
    assert set(pairs) == {(0, 1), (0, 2), (1, 2)}
    for pair, columns in pairs.items():
        assert steps.differences[pair] == columns["gsm8k"]
    p = {
        f"{k} {pair}": one.p
        for pair, by_key in pairs.items()
        for k, one in by_key.items()
        if one.difference is not None
    }
    adjusted = holm(p)
    assert steps.p_holm == {pair: pytest.approx(adjusted[f"gsm8k {pair}"]) for pair in pairs}
    text = markdown(found)
    rows = [line[2:-2].split(" | ") for line in text.splitlines() if line.startswith("| ")]
    at = next(n for n, row in enumerate(rows) if row[0] == "GSM8k 8-shot cot")
    first, best, last = rows[at : at + 3]
    assert first[2].startswith("83.3 [")
    assert (first[3], first[4]) == ("-", "-")
    assert first[5].startswith("-16.67 [")
    assert best[1].endswith("(best)")
    assert best[3].startswith("+16.67 [")
    assert last[3].startswith("-100.00 [")
    assert last[3:5] == last[5:7]
    assert found.columns[-1].column.key == AVERAGE.key
    assert "AlpacaEval 2 LC" in found.lacking
    assert "GSM8k 8-shot cot: the last 3 runs scatter by 53.58 points" in text


def test_where_lower_is_better_the_least_is_the_best_and_the_scatter_is_of_the_last(
    recorded: Make,
) -> None:
    """Six runs of one column, by hand."""
    column = paired_columns(recorded("right"), recorded("right"))["xstest_safe_refused"].column
    values = [0.5, 0.1, 0.2, 0.3, 0.1, 0.2]
    cells = [{"xstest_safe_refused": {"value": v, "stderr": 0.02, "ci95": None}} for v in values]
    template = paired_columns(recorded("right"), recorded("broken", wrong_sums))["gsm8k"]
    pairs = {
        (a, b): {"xstest_safe_refused": replace(template, column=column), AVERAGE.key: template}
        for a in range(6)
        for b in range(a + 1, 6)
    }
    (steps, *_), _ = _columns(pairs, cells)
    assert steps.best == 1
    mean = sum(values[-LAST:]) / LAST
    spread = (sum((v - mean) ** 2 for v in values[-LAST:]) / (LAST - 1)) ** 0.5
    assert steps.scatter == pytest.approx(spread)
    assert steps.less(4, 1)[1:] == (1, pytest.approx(30 * 0.03125))
    assert steps.less(1, 4)[1] == -1


def test_what_cannot_be_put_in_a_row_is_said(recorded: Make, evals: Call, tmp_path: Path) -> None:
    right, limited = recorded("right"), recorded("limited", limit=2)
    with pytest.raises(InputError, match=r"limited cannot be compared with .*right: limit differs"):
        series([right, right, limited])
    for words, says in (
        ((right,), "A series takes two runs or more"),
        ((right, right, right, "--flips"), "--flips, --why and --plan are of two runs"),
        ((right, right, tmp_path), "is not a finished run"),
    ):
        code, _, err = evals("compare", *words)
        assert (code, says in err) == (2, True), err
    code, out, _ = evals("compare", right, right, recorded("broken", wrong_sums))
    assert code == 0
    assert out.startswith("3 runs in their order: **right (smoke suite)**")
