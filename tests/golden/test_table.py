"""The published table: printed as on the card, its Averages recomputed, its cells held to the item
counts of the protocol.
"""

from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest

from evals.cards.average import average
from evals.cards.published import published_rows, shipped
from evals.report.table import markdown, percent, rows_from_published

CARD = Path(__file__).resolve().parents[3] / "shared" / "MODEL_CARD.txt"
HEADINGS = (
    "MMLU 5-shot",
    "GSM8k 8-shot cot",
    "BBH 3-shot cot",
    "Codex HumanEval Pass@10",
    "AlpacaEval 1",
    "AlpacaEval 2 LC",
    "TruthfulQA %Info+True",
    "IFEval loose acc",
    "XSTest safe but ref.",
    "XSTest unsafe but follow",
    "Average",
)
PRINTED = """\
Llama 3.1 8b base 65.5 57.0 65.6 61.6 - - 32.7 11.1 17.2 44.0 -
Llama 3.1 8b instruct 65.6 84.5 68.5 84.5 94.8 26.0 31.1 75.6 8.8 5.5 71.8
Tulu 2 Llama 3.1 8b 61.4 68.0 59.2 67.9 80.6 9.0 56.2 46.4 11.2 13.0 63.9
Tulu 2 Llama 3.1 8b DPO 62.0 66.5 60.6 69.1 93.5 14.7 70.3 52.3 8.4 15.5 67.0
Llama 3.1 70b base 78.8 85.5 82.9 94.5 - - - 10.9 12.4 41.0 -
Llama 3.1 70b instruct 81.4 96.0 83.1 94.5 96.0 35.8 69.0 87.1 5.6 11.5 86.1
Tulu 2 Llama 3.1 70b 76.0 83.5 78.5 84.1 85.9 13.2 59.7 59.1 13.6 15.5 75.2
Tulu 2 Llama 3.1 70b DPO 76.0 88.5 79.9 89.0 96.8 24.8 78.3 63.6 9.2 14.0 80.5
""".splitlines()

MEANS = {
    "Llama 3.1 8b base": "51.843",
    "Llama 3.1 8b instruct": "71.807",
    "Tulu 2 Llama 3.1 8b": "63.857",
    "Tulu 2 Llama 3.1 8b DPO": "66.979",
    "Llama 3.1 70b instruct": "86.079",
    "Tulu 2 Llama 3.1 70b": "75.193",
    "Tulu 2 Llama 3.1 70b DPO": "80.529",
}
COUNTS = {
    ("gsm8k", 200): (114, 169, 136, 133, 171, 192, 167, 177),
    ("xstest_safe_refused", 250): (43, 22, 28, 21, 31, 14, 34, 23),
    ("xstest_unsafe_followed", 200): (88, 11, 26, 31, 82, 23, 31, 28),
    ("ifeval", 541): (60, 409, 251, 283, 59, 471, 320, 344),
    ("truthfulqa", 817): (267, 254, 459, 574, None, 564, 488, 640),
}
MISFITS = {
    ("ifeval", 834): {"11.1", "75.6", "63.6"},
    ("truthfulqa", 790): {"78.3"},
    ("humaneval", 164): {"84.5", "67.9", "69.1"},
    ("alpaca_eval_1", 805): {"85.9"},
}


def fractions_of(name: str) -> dict[str, float | None]:
    (row,) = (row for row in published_rows() if row.name == name)
    return {
        key: None if text == "-" else float(Decimal(text) / 100) for key, text in row.cells.items()
    }


def mean_percent(values: list[float]) -> str:
    return percent(sum(values) / len(values))


def fitting_counts(cell: str, n_items: int) -> list[int]:
    """Every k for which k of n_items prints as the cell, ties allowed to go either way."""
    value = Fraction(cell)
    return [
        k for k in range(n_items + 1) if abs(Fraction(100 * k, n_items) - value) <= Fraction(1, 20)
    ]


def test_every_published_row_is_printed_as_on_the_card() -> None:
    printed = [
        " ".join(line.strip("| ").split(" | "))
        for line in markdown(rows_from_published()).splitlines()
    ]
    assert printed[0] == " ".join(("Model", *HEADINGS))
    assert printed[2 : 2 + len(PRINTED)] == PRINTED


def test_every_published_cell_stands_in_its_own_column() -> None:
    header, _, *lines = markdown(rows_from_published()).splitlines()
    assert header.strip("| ").split(" | ") == ["Model", *HEADINGS]
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("|")]
    assert [row[1:] for row in rows] == [line.split()[-11:] for line in PRINTED]


def test_the_card_itself_says_what_this_file_says() -> None:
    if not CARD.is_file():
        pytest.skip("the model card's text is not beside the repository")
    lines = CARD.read_text(encoding="utf-8").splitlines()
    start = lines.index(" ".join(("Model", *HEADINGS)))
    rows = [
        " ".join(line.replace("(this model)", "").replace("*", "").split())
        for line in lines[start + 1 : start + 9]
    ]
    assert rows == PRINTED


@pytest.mark.parametrize("row", published_rows(), ids=lambda row: row.short_name)
def test_the_published_average_is_the_mean_of_seven(row) -> None:  # type: ignore[no-untyped-def]
    value = average(shipped().average, fractions_of(row.name))
    if row.cells["average"] != "-":
        assert value is not None
        assert percent(value) == row.cells["average"]
    if row.name in MEANS:
        assert value is not None
        assert f"{100 * value:.3f}" == MEANS[row.name]
    else:
        assert value is None


def test_the_8b_base_row_prints_no_average_though_its_seven_inputs_are_there() -> None:
    assert average(shipped().average, fractions_of("Llama 3.1 8b base")) is not None
    (row,) = (row for row in published_rows() if row.name == "Llama 3.1 8b base")
    assert row.cells["average"] == "-"


def test_rejected_averages_do_not_give_the_published_figure() -> None:
    cells = {
        key: value
        for key, value in fractions_of("Llama 3.1 8b instruct").items()
        if value is not None
    }
    six = [cells[key] for key in ("mmlu", "gsm8k", "bbh", "humaneval", "truthfulqa", "ifeval")]
    safe, unsafe = 1 - cells["xstest_safe_refused"], 1 - cells["xstest_unsafe_followed"]
    seven = [*six, (safe + unsafe) / 2]
    refused_wrongly, refused_rightly, followed_wrongly = 22, 189, 11
    refusal_f1 = 2 * refused_rightly / (2 * refused_rightly + refused_wrongly + followed_wrongly)
    rivals = {
        "no XSTest": (mean_percent(six), "68.3"),
        "the two complements apart": (mean_percent([*six, safe, unsafe]), "74.4"),
        "with AlpacaEval 1": (mean_percent([*seven, cells["alpaca_eval_1"]]), "74.7"),
        "with AlpacaEval 2": (mean_percent([*seven, cells["alpaca_eval_2_lc"]]), "66.1"),
        "with both": (
            mean_percent([*seven, cells["alpaca_eval_1"], cells["alpaca_eval_2_lc"]]),
            "69.3",
        ),
        "XSTest as refusal F1": (mean_percent([*six, refusal_f1]), "71.7"),
    }
    assert {name: got for name, (got, _) in rivals.items()} == {
        name: figure for name, (_, figure) in rivals.items()
    }
    assert "71.8" not in {got for got, _ in rivals.values()}


def test_xstest_weighted_by_items_fails_the_70b_dpo_row() -> None:
    cells = {
        key: value
        for key, value in fractions_of("Tulu 2 Llama 3.1 70b DPO").items()
        if value is not None
    }
    six = [cells[key] for key in ("mmlu", "gsm8k", "bbh", "humaneval", "truthfulqa", "ifeval")]
    by_items = (
        250 * (1 - cells["xstest_safe_refused"]) + 200 * (1 - cells["xstest_unsafe_followed"])
    ) / 450
    assert mean_percent([*six, by_items]) == "80.6"


@pytest.mark.parametrize(("key", "n_items"), COUNTS)
def test_published_cells_fit_the_protocols_item_counts(key: str, n_items: int) -> None:
    for row, count in zip(published_rows(), COUNTS[key, n_items], strict=True):
        if count is None:
            assert row.cells[key] == "-"
        else:
            assert fitting_counts(row.cells[key], n_items) == [count]
            assert percent(count / n_items) == row.cells[key]


@pytest.mark.parametrize(("key", "n_items"), MISFITS)
def test_rival_item_counts_cannot_print_some_published_cells(key: str, n_items: int) -> None:
    printed = {row.cells[key] for row in published_rows()} - {"-"}
    assert {cell for cell in printed if not fitting_counts(cell, n_items)} == MISFITS[key, n_items]


def test_every_row_has_every_cell_and_a_distinct_name() -> None:
    rows = published_rows()
    assert all(tuple(row.cells) == shipped().keys for row in rows)
    assert len({row.short_name for row in rows}) == len({row.hub_id for row in rows}) == 8
