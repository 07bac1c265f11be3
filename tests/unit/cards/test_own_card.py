"""A card of one's own: two variants of a benchmark side by side, one question asked once, and what
a run of one card has of another's columns.
"""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evals.benchmark import setting, variant_name
from evals.cards.card import Average, Card
from evals.cards.form import read_card
from evals.cards.published import card_of_run, shipped, shipped_names
from evals.compare.runs import compare
from evals.data.load import load_smoke_data
from evals.errors import InputError
from evals.plan.judges import CARD_JUDGES
from evals.plan.settings import RunSettings
from evals.records import Column, Grade, Metric
from evals.registry import Variant, bound, variants
from evals.report.rows import Layout, report_table
from evals.report.run_row import row_from_summary
from evals.report.table import aligned, as_markdown, delta_table, make_table, rows_from_published
from evals.runs.contract import Tried, answer_to, findings_for
from evals.runs.grading import Grading, grade_task
from evals.runs.session import run
from evals.runs.summary import summarize
from tasks.mmlu import MMLU
from tests.unit.conftest import Call

HEAD = 'title = "Mine"\n'
COLUMNS = {
    "five": 'heading = "MMLU 5"\nbenchmark = "mmlu"\nmetric = "mmlu"',
    "none": 'heading = "MMLU 0"\nbenchmark = "mmlu"\nmetric = "mmlu"\nsettings = { shots = 0 }',
    "again": 'heading = "Again"\nbenchmark = "mmlu"\nmetric = "mmlu"\nsettings = { shots = 5 }',
    "grade": 'heading = "GSM"\nbenchmark = "gsm8k"\nmetric = "gsm8k"\nsettings = { shots = 4 }',
    "f1": 'heading = "XSTest F1"\nbenchmark = "xstest"\nmetric = "refusal_f1"',
    "toxic": 'heading = "ToxiGen"\nreason = "no classifier here"\nlower_is_better = true',
}
AVERAGE = '[average]\nof = ["five", "f1"]\n'


def written(folder: Path, keys: list[str], average: str = "") -> Path:
    """A card of these columns."""
    text = HEAD + "".join(f'[[column]]\nkey = "{key}"\n{COLUMNS[key]}\n' for key in keys)
    (folder / "mine.toml").write_text(text + average, "utf-8")
    return folder / "mine.toml"


def recording(folder: Path, card: Path) -> Path:
    """An answer to every smoke item of the card's benchmarks, with a verdict."""
    rng, lines = random.Random(0), []
    for variant in variants(bound(read_card(card))).values():
        benchmark = variant.make(chat=True)
        for item in benchmark.named_items(load_smoke_data(benchmark.dataset)):
            line: dict[str, Any] = {"id": item.id}
            if benchmark.judge_roles:
                label = rng.choice(["refusal", "following"])
                line |= {"outputs": ["So?"], "findings": {"xstest": label}}
            elif isinstance(benchmark, MMLU):
                line["choice_logprobs"] = {letter: -rng.random() for letter in "ABCD"}
            else:
                line["outputs"] = [f"So the answer is {rng.randint(1, 9)}."]
            lines.append(json.dumps(line))
    (folder / "said.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    return folder / "said.jsonl"


def ran(folder: Path, card: Path | None, said: Path, name: str = "run") -> Mapping[str, Any]:
    """The summary of a replayed smoke run."""
    asked = RunSettings(
        f"replay:{said}", suite="smoke", out=folder / name, card=str(card) if card else None
    )
    return run(asked).summary


def test_two_variants_stand_side_by_side_and_an_equal_column_is_not_asked_again(
    tmp_path: Path,
) -> None:
    card = written(tmp_path, ["five", "none", "again", "f1", "toxic"], AVERAGE)
    summary = ran(tmp_path, card, recording(tmp_path, card))
    assert sorted(file.name for file in (tmp_path / "run" / "samples").iterdir()) == [
        "mmlu.jsonl.gz", "mmlu.shots-0.jsonl.gz", "xstest.jsonl.gz"
    ]  # fmt: skip
    cells = summary["cells"]
    assert cells["five"]["value"] == cells["again"]["value"] != cells["none"]["value"]
    assert set(summary["tasks"]) == {"mmlu", "mmlu.shots-0", "xstest"}
    assert cells["average"]["value"] == pytest.approx(
        (cells["five"]["value"] + cells["f1"]["value"]) / 2
    )
    text = as_markdown(make_table([row_from_summary(summary)]))
    assert text.startswith("| Model | MMLU 5 | MMLU 0 | Again | XSTest F1 | ToxiGen | Average |")
    assert "ToxiGen of said (smoke suite): no classifier here" in text
    assert summary["card"]["title"] == "Mine"
    assert summary["protocol"].startswith("mine/")


def test_columns_in_any_order_and_without_one_give_the_same_cells(tmp_path: Path) -> None:
    keys = ["five", "none", "grade", "f1"]
    said = recording(tmp_path, written(tmp_path, keys))
    whole = ran(tmp_path, written(tmp_path, keys), said, "whole")["cells"]
    turned = ran(tmp_path, written(tmp_path, keys[::-1]), said, "turned")["cells"]
    assert turned == whole
    only = [json.loads(line) for line in said.read_text().splitlines()]
    said.write_text("".join(json.dumps(o) + "\n" for o in only if "shots-0" not in o["id"]))
    fewer = ran(tmp_path, written(tmp_path, ["five", "grade", "f1"]), said, "fewer")["cells"]
    assert fewer == {key: cell for key, cell in whole.items() if key != "none"}


MEASURED = {
    f"c{n}": replace(column, key=f"c{n}", metric=column.metric or column.key)
    for n, column in enumerate(
        column for name in shipped_names() for column in shipped(name).columns if column.benchmark
    )
}


def cells_of(keys: Sequence[str], chat: bool) -> Mapping[str, Any]:
    """The cells of a card of these columns, of the same answers for each."""
    card = bound(Card("mine", "Mine", "mine/1", tuple(MEASURED[key] for key in keys)))
    judges = {role: {"name": name, "card": True, "notes": []} for role, name in CARD_JUDGES.items()}
    head = {"card": card.as_json(), "judges": judges, "prompts_by": "tokenizer"}
    results = []
    for variant in variants(card).values():
        benchmark, items = Tried(variant, chat).new()
        answers = {item.id: answer_to(benchmark, item, f"So {item.id[-1]}.") for item in items}
        findings = {item.id: findings_for(benchmark, item, answers[item.id]) for item in items}
        results.append(grade_task(benchmark, items, answers, findings))
    cells = summarize(head, results, {})["cells"]
    return {key: cells[key] for key in keys}


@cache
def all_cells(chat: bool) -> Mapping[str, Any]:
    return cells_of(list(MEASURED), chat)


@settings(max_examples=6, deadline=None)
@given(
    st.lists(st.sampled_from(list(MEASURED)), min_size=1, max_size=9, unique=True), st.booleans()
)
def test_any_columns_in_any_order_have_the_cells_that_they_have_among_all(
    keys: list[str], chat: bool
) -> None:
    assert cells_of(keys, chat) == {key: all_cells(chat)[key] for key in keys}


def test_a_run_of_another_card_shares_only_the_columns_that_are_the_same(tmp_path: Path) -> None:
    card = written(tmp_path, ["five", "none", "f1"], AVERAGE)
    said = recording(tmp_path, card)
    mine = ran(tmp_path, card, said, "mine")
    lines = [json.loads(line) for line in said.read_text().splitlines()]
    said.write_text("".join(json.dumps(one) + "\n" for one in lines if "shots-0" not in one["id"]))
    ours = ran(tmp_path, None, said, "ours")
    rows, columns = aligned([row_from_summary(ours), row_from_summary(mine)])
    headings = [column.heading for column in columns]
    assert headings[:11] == [column.heading for column in shipped().printed]
    assert headings[11:] == ["MMLU 0", "XSTest F1", "Average (Mine)"]
    assert rows[1].cell("mmlu").text == rows[0].cell("mmlu").text != "-"
    assert rows[0].cell("none").text == "-"
    # What the default card's run has of the other's columns, and what it would still ask.
    held = row_from_summary(ours, card=bound(read_card(card)))
    assert held.cell("five").text == rows[1].cell("mmlu").text
    assert held.cell("f1").text == row_from_summary(mine).cell("f1").text != "-"
    assert held.notes["none"].startswith("not asked: evals run asks for it")
    assert held.cell("average").text == row_from_summary(mine).cell("average").text
    found = compare(tmp_path / "ours", tmp_path / "mine")
    assert {one.key for one in found.columns if one.n and one.reason is None} == {
        "mmlu", "xstest_safe_refused", "xstest_unsafe_followed"
    }  # fmt: skip
    assert any("of two cards" in note for note in found.comparable.notes)
    backwards = compare(tmp_path / "mine", tmp_path / "ours")
    assert {one.key for one in backwards.columns if one.n and one.reason is None} == {
        "five", "f1", "average"
    }  # fmt: skip


def summary_of(card: Card, suite: str = "card", **values: float) -> dict[str, Any]:
    """A run of the card with these cells."""
    cells = {
        key: {"value": value, "n": 9, "n_items": 9, "stderr": None, "ci95": None, "reason": None}
        | {"marks": ["its own"]}
        for key, value in values.items()
    }
    head = {"card": bound(card).as_json(), "suite": suite, "limit": None, "model": {"name": "m"}}
    return {**head, "data": {}, "metrics": {}, "cells": cells}


def test_what_a_run_asked_otherwise_than_a_card_is_said_by_the_settings(tmp_path: Path) -> None:
    mine = read_card(written(tmp_path, ["none", "grade"]))
    held = row_from_summary(summary_of(mine, none=0.4, grade=0.5), card=bound(shipped()))
    assert (held.cell("mmlu").text, held.cell("gsm8k").text) == ("-", "-")
    assert held.notes["mmlu"].endswith("the run was of Mine, mmlu: shots 0, the card's 5")
    assert held.notes["gsm8k"].endswith("the run was of Mine, gsm8k: shots 4, the card's 8")
    assert held.notes["bbh"].endswith("the run was of Mine")


@pytest.mark.parametrize("card", [None, "llama-3.1-tulu-2", "olmoe-1b-7b-0924"])
def test_every_item_in_place_of_those_that_a_card_draws_is_a_mark(card: str | None) -> None:
    columns = tuple(one for one in shipped().columns if one.key in ("gsm8k", "bbh", "ifeval"))
    fewer = replace(shipped(), columns=columns, average=Average())
    own = shipped() if card == shipped().name else fewer
    shown = bound(shipped(card)) if card else None
    values = {"gsm8k": 0.5, "bbh": 0.5, "ifeval": 0.5}
    row = row_from_summary(summary_of(own, "full", **values), card=shown)
    assert row.cell("gsm8k").marks == ("its own", "gsm8k: items all, the card's 200")
    assert row.cell("bbh").marks == ("its own", "bbh: items all, the card's 40")
    assert row.cell("ifeval").marks == ("its own",)
    of_the_card = row_from_summary(summary_of(own, **values), card=shown)
    assert of_the_card.cell("gsm8k").marks == ("its own",)
    if own is not fewer:
        assert row.notes["humaneval"] == "not run"


def test_a_difference_to_a_row_of_another_card_is_taken_where_both_ask_the_same() -> None:
    ours = row_from_summary(summary_of(shipped(), mmlu=0.6, gsm8k=0.3, ifeval=0.2, average=0.5))
    card = bound(shipped("olmoe-1b-7b-0924"))
    (theirs,) = (row for row in rows_from_published(card) if row.name == "OLMo-7B (0724) +SFT")
    table = delta_table([ours], [theirs])
    (row,) = table.rows
    assert [column.key for column in table.columns] == list(shipped().keys)
    assert (row.cell("gsm8k").text, row.cell("ifeval").text) == ("+5.0", "-19.7")
    assert (row.cell("mmlu").text, row.cell("average").text) == ("-", "-")
    said = "asked otherwise than OLMo-7B (0724) +SFT: mmlu: shots 5, the card's 0"
    assert row.notes["mmlu"] == said


def test_numbers_of_cards_in_percent_and_in_fractions_stand_in_one_unit() -> None:
    ours = row_from_summary(summary_of(shipped(), mmlu=0.6, gsm8k=0.3, ifeval=0.2, average=0.5))
    thirds = shipped("llama-3-tulu-2")
    (theirs,) = (one for one in rows_from_published(thirds) if one.name == "Llama 3 Tulu 2 8b")
    assert (theirs.cell("mmlu").text, theirs.cell("alpaca_eval_1").text) == ("0.606", "79.40")
    percent, fractions = aligned([ours, theirs])[0], aligned([theirs, ours])[0]
    assert [row.cell("mmlu").text for row in percent] == ["60.0", "60.6"]
    assert [row.cell("mmlu").text for row in fractions] == ["0.606", "0.600"]
    assert percent[1].cell("alpaca_eval_1").text == "79.40"
    table = delta_table([ours], [theirs])
    (row,) = table.rows
    assert (row.cell("mmlu").text, row.cell("gsm8k").text) == ("-0.6", "-31.0")
    assert table.caption.startswith("In points, ")
    own = row_from_summary(summary_of(shipped(), mmlu=0.6), card=bound(thirds))
    table = delta_table([own], [theirs])
    assert (table.rows[0].cell("mmlu").text, table.caption[:22]) == (
        "-0.006",
        "In each column's unit,",
    )
    interval = replace(ours.cell("mmlu"), text="+60.0", ci95=("-1.5", "+2.5"))
    shifted = aligned([theirs, replace(ours, cells={"mmlu": interval})])[0][1].cell("mmlu")
    assert (shifted.text, shifted.ci95) == ("+0.600", ("-0.015", "+0.025"))


def test_published_rows_are_not_those_of_another_protocol_under_the_same_title() -> None:
    ours = shipped("olmoe-1b-7b-0924")
    assert card_of_run({"card": bound(ours).as_json()}).rows == ours.rows
    renamed = replace(ours.columns[0], heading="Another word")
    headed = replace(ours, columns=(renamed, *ours.columns[1:]))
    assert card_of_run({"card": headed.as_json()}).rows == ours.rows
    first, *others = ours.columns
    changed = [replace(first, settings={"shots": 1}), replace(first, key="m", metric=first.metric)]
    own = [replace(ours, columns=(one, *others), average=Average()) for one in changed]
    own += [replace(ours, columns=(changed[0], *others)), replace(ours, average=Average())]
    assert {card_of_run({"card": one.as_json()}).rows for one in own} == {()}


def test_two_settings_of_one_name_are_refused() -> None:
    @dataclass(frozen=True)
    class Words:
        words: str = setting("", "what is said before", str)

    class Spoken(MMLU):
        Settings = Words

    def column(key: str, words: str) -> Column:
        return Column(key, key, benchmark="mmlu", metric="mmlu", settings={"words": words})

    def asked(*words: str) -> list[str]:
        columns = tuple(column(f"c{n}", one) for n, one in enumerate(words))
        return list(variants(Card("mine", "Mine", "mine/1", columns)))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("evals.registry.benchmark_class", lambda name: Spoken)
        assert asked("a b", "c", "a b") == ["mmlu.words-a_b", "mmlu.words-c"]
        for other in ("a_b", "A b"):
            with pytest.raises(InputError, match=r"called mmlu\.words-a_b: columns c0 and c1"):
                asked("a b", other)


def test_a_benchmark_that_cannot_be_made_is_one_sentence() -> None:
    class Unmade(MMLU):
        def __init__(self, **given: Any) -> None:
            raise ValueError("no\nluck")

    with pytest.raises(InputError, match=r"^The benchmark mmlu cannot be made \(ValueError: no\)"):
        Variant("mmlu", Unmade, MMLU.Settings(), ()).make(chat=True)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "is missing"),
        (None, "is missing"),
        (7.5, "is 7.5, not"),
        (float("nan"), "is nan, no number"),
    ],
)
def test_what_is_no_share_is_never_printed_as_percent(given: Any, words: str) -> None:
    class Odd(MMLU):
        def summarize(self, grades: Sequence[Grade]) -> Mapping[str, Metric]:
            return {"mmlu": Metric(given, 3, 3)} if isinstance(given, float) else given

    with pytest.raises(InputError, match=f"^mmlu: the metric mmlu {words}"):
        Grading(Odd(chat=True), {}).result()


def test_a_run_is_held_against_a_row_under_a_card_that_is_named(tmp_path: Path) -> None:
    card = written(tmp_path, ["five", "none"])
    summary = ran(tmp_path, card, recording(tmp_path, card))
    named = Layout(delta_to="olmo-7b-0724-sft", card="olmoe-1b-7b-0924")
    row = report_table([tmp_path / "run"], False, named).rows[0]
    value = row_from_summary(summary).cell("none").text
    assert row.cell("mmlu").text == f"{Decimal(value) - Decimal('54.2'):+}"
    with pytest.raises(InputError, match=r"Did you mean .*olmo-7b-0724"):
        report_table([tmp_path / "run"], False, Layout(delta_to="olmo-7b-0724-sf"))


def test_a_folder_keeps_to_its_card(tmp_path: Path) -> None:
    card = written(tmp_path, ["five"])
    said = recording(tmp_path, card)
    ran(tmp_path, card, said)
    with pytest.raises(InputError, match="holds a run of the card 'Mine'"):
        ran(tmp_path, None, said)


def test_settings_that_are_the_protocols_own_change_no_name() -> None:
    assert variant_name(MMLU, MMLU.Settings()) == "mmlu"
    assert variant_name(MMLU, MMLU.Settings(shots=5)) == "mmlu"
    assert variant_name(MMLU, MMLU.Settings(shots=2)) == "mmlu.shots-2"


def test_any_command_holds_runs_to_a_card_that_is_named(tmp_path: Path, evals: Call) -> None:
    card = written(tmp_path, ["five", "f1"], AVERAGE)
    said = recording(tmp_path, card)
    for name in ("one", "two"):
        ran(tmp_path, None, said, name)
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    code, out, err = evals("compare", one, two, "--card", str(card), "--flips")
    assert code == 0, err
    assert "XSTest F1" in out
    assert "GSM8k" not in out
    (tmp_path / "gate.toml").write_text("[columns]\nf1 = 3.0\n")
    runs = ("--baseline", one, "--candidate", two, "--card", str(card))
    code, out, err = evals("check", *runs, "--policy", str(tmp_path / "gate.toml"))
    assert code == 0, err
    (tmp_path / "README.md").write_text("# Mine\n")
    code, out, err = evals("card", str(tmp_path / "README.md"), "--run", one, "--card", str(card))
    assert code == 0, err
    assert "| Model | MMLU 5 | XSTest F1 | Average |" in (tmp_path / "README.md").read_text()
    code, out, err = evals("report", one, "--card", str(card), "--html", str(tmp_path / "p.html"))
    assert code == 0, err
    code, out, err = evals("run", f"replay:{said}", "--card", str(card), "--suite", "smoke",
                           "--dry-run", "--out", str(tmp_path / "dry"))  # fmt: skip
    assert (code, "\nmmlu " in out, "\nxstest " in out, "gsm8k" in out) == (0, True, True, False)
