"""The cards that travel with the program: printed as published, their Averages made again by their
rules.
"""

import json
from pathlib import Path

import pytest

from evals.cards.average import off_by
from evals.cards.published import shipped, shipped_names, shipped_rows
from evals.registry import bound, variants
from evals.report.table import as_markdown, make_table, rows_from_published

FACTS = Path(__file__).resolve().parents[3] / "shared" / "cards"
CARDS = {
    # name: rows, columns, Averages as printed, more within the rounding of the cells, others
    "llama-3.1-tulu-2": (8, 10, 6, 0, []),
    "llama-3-tulu-2": (8, 11, 5, 3, []),
    "olmo-1b-0724": (3, 10, 3, 0, []),
    "olmo-2": (17, 10, 16, 1, []),
    "olmoe-1b-7b-0924": (15, 7, 7, 1, ["JetMoE-2B-9B +SFT"]),
    "tulu-3": (15, 12, 15, 0, []),
}


def test_these_are_all() -> None:
    assert set(shipped_names()) == set(CARDS)
    assert len({shipped(name).title for name in CARDS}) == len(CARDS)


@pytest.mark.parametrize("name", CARDS)
def test_the_published_averages_come_out_of_the_rule(name: str) -> None:
    n_rows, n_columns, n_exact, n_near, others = CARDS[name]
    card = shipped(name)
    assert (len(card.rows), len(card.columns)) == (n_rows, n_columns)
    off = {row.name: found for row in card.rows if (found := off_by(card, row)) is not None}
    assert sum(one.by <= one.printed for one in off.values()) == n_exact
    near = [one for one in off.values() if one.printed < one.by <= one.printed + one.cells]
    assert len(near) == n_near
    rest = {key: one for key, one in off.items() if one.by > one.printed + one.cells}
    assert list(rest) == others
    noted = {row.name: row.notes.get("average", "") for row in card.rows}
    assert all("does not come out" in noted[row] for row in others)


@pytest.mark.parametrize("name", [name for name in CARDS if name != "llama-3.1-tulu-2"])
def test_every_row_is_printed_as_on_the_card(name: str) -> None:
    if not FACTS.is_dir():
        pytest.skip("the cards' facts are not beside the repository")
    facts = json.loads((FACTS / f"{name}.json").read_text("utf-8"))
    card = shipped(name)
    assert [one.heading for one in card.printed] == [one["heading"] for one in facts["columns"]]
    assert [one.unit for one in card.printed] == [one["unit"] for one in facts["columns"]]
    lower = [one["lower_is_better"] for one in facts["columns"]]
    assert [one.lower_is_better for one in card.printed] == lower
    assert [(row.name, row.hub_id or None, dict(row.cells)) for row in card.rows] == [
        (row["name"], row["hub_id"], row["cells"]) for row in facts["rows"]
    ]
    printed = as_markdown(make_table(rows_from_published(card))).splitlines()
    rows = [line.strip("| ").split(" | ") for line in printed if line.startswith("| ")][2:]
    assert [row[1:] for row in rows] == [list(row["cells"].values()) for row in facts["rows"]]


def test_what_nobody_can_measure_says_why_and_the_rest_is_asked() -> None:
    for name in CARDS:
        card = bound(shipped(name))
        asked = {one.key for variant in variants(card).values() for one in variant.columns}
        assert asked == {one.key for one in card.columns if not one.reason}
    assert list(variants(bound(shipped("olmoe-1b-7b-0924")))) == [
        "mmlu.shots-0", "gsm8k", "bbh", "humaneval", "alpaca_eval", "xstest", "ifeval"
    ]  # fmt: skip
    sums, words = "gsm8k.items-all.turns-true.grading-olmes", "mmlu.shots-0.ask-cot-summarize"
    puzzles = "bbh.items-all.turns-true.grading-olmes_cot"
    assert list(variants(bound(shipped("tulu-3")))) == [
        words, puzzles, sums, "humaneval.ask-opened", "ifeval", "alpaca_eval"
    ]  # fmt: skip
    assert list(variants(bound(shipped("olmo-2")))) == [
        "alpaca_eval", f"{puzzles}-v1", sums, "ifeval", words
    ]  # fmt: skip
    judged = {name: one.roles for name, one in variants(bound(shipped("olmo-1b-0724"))).items()}
    assert judged["alpaca_eval"] == ("alpaca_eval_1",)
    assert judged["alpaca_eval.max_new_tokens-4096"] == ("alpaca_eval_2",)


def test_what_is_inferred_of_a_protocol_has_its_evidence_on_the_card() -> None:
    for name in CARDS:
        for column in shipped(name).columns:
            said = shipped(name).rows[0].settings.get(column.key, "")
            assert not column.inferred or "[I" in said or "I that" in said or "[U]" in said


def test_a_short_name_is_one_row_s_and_brings_its_hub_id() -> None:
    rows = [row for row in shipped_rows() if row.short_name]
    assert len({row.short_name for row in rows}) == len(rows)
    assert all(row.hub_id and row.card in CARDS for row in rows)
    kinds = {(row.kind, row.chat_format) for row in rows if row.kind == "base"}
    assert kinds == {("base", "none")}
