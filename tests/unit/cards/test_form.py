"""A card's file read strictly: whatever is wrong in it is one sentence."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evals.cards.card import Card
from evals.cards.form import card_from, read_card
from evals.cards.published import card_named, card_of_run, shipped, shipped_names
from evals.errors import EvalsError, InputError
from evals.registry import bound, variants
from evals.report.formats import FORMATS
from evals.report.pages import card_page
from evals.report.run_row import row_from_summary
from evals.report.table import make_table, rows_from_published

SMALL = """
title = "Mine"
[[column]]
key = "mmlu"
heading = "MMLU"
benchmark = "mmlu"
settings = { shots = 0 }
[[column]]
key = "safe"
heading = "Safe"
benchmark = "xstest"
metric = "xstest_safe_refused"
lower_is_better = true
[average]
of = ["mmlu", "safe"]
complement = ["safe"]
[[row]]
name = "Somebody's"
cells = { mmlu = "50.0", safe = "10", average = "70.0" }
"""
ROW = SMALL[SMALL.index("[[row]]") :]


def many(n: int) -> str:
    """A card of n columns."""
    column = '[[column]]\nkey = "c{}"\nheading = "C"\nreason = "r"\n'
    return 'title = "Mine"\n' + "".join(column.format(at) for at in range(n))


def card(folder: Path, text: str) -> Card:
    file = folder / "mine.toml"
    file.write_text(text, "utf-8")
    return read_card(file)


def test_a_card_is_read_and_goes_through_a_runs_summary_and_back(tmp_path: Path) -> None:
    found = bound(card(tmp_path, SMALL))
    assert [one.identity for one in found.columns] == [
        ("mmlu", "mmlu", {"shots": 0}),
        ("xstest", "xstest_safe_refused", {}),
    ]
    assert found.protocol == f"mine/{found.hash[:12]}"
    back = card_of_run({"card": found.as_json()})
    assert (back.columns, back.average, back.hash) == (found.columns, found.average, found.hash)
    assert "70.0" in make_table(rows_from_published(found)).rows[0].cell("average").text


@pytest.mark.parametrize("name", shipped_names())
def test_our_own_cards_ask_what_there_is_and_come_back_from_a_summary(name: str) -> None:
    found = bound(shipped(name))
    assert variants(found)
    back = card_of_run({"card": found.as_json()})
    assert (back.columns, back.average) == (found.columns, found.average)
    assert back.rows == found.rows


WRONG = {
    "no TOML": ('title = "a"\n= 3', "at line 2", "TOML"),
    "a key twice": ('title = "a"\ntitle = "b"', "Cannot overwrite", "mine.toml"),
    "unknown key": (SMALL.replace("heading", "headin", 1), "[[column]] 1", "heading or"),
    "unknown benchmark": (SMALL.replace('"mmlu"\nsettings', '"mmlo"\nsettings'), "mmlu?", "mmlo"),
    "unknown metric": (SMALL.replace("xstest_safe_refused", "xstest_safe"), "safe_refused", "safe"),
    "unknown setting": (SMALL.replace("shots", "shot"), "shots?", "mmlu has no setting 'shot'"),
    "impossible setting": (SMALL.replace("shots = 0", "shots = 6"), "0 to 5", "shots = 6"),
    "a flag for a number": (SMALL.replace("shots = 0", "shots = true"), "0 to 5", "mmlu"),
    "other direction": (SMALL.replace("lower_is_better = true", ""), "lower is better", "safe"),
    "settings in a date": (SMALL.replace("shots = 0", "shots = 2024-01-01"), "settings has", "1"),
    "settings in a list": (SMALL.replace("shots = 0", "shots = [0]"), "a number, a text", "1"),
    "one bracket": (SMALL.replace('[[row]]', "[row]"), "Write [[row]]", "mine.toml"),
    "a key too low": (SMALL + 'title = "b"', "above the first [[column]]", "[[row]] 1"),
    "capitals": (SMALL.replace('"mmlu"\nsettings', '"MMLU"\nsettings'), "mean mmlu?", "MMLU"),
    "hidden, printed": (SMALL + 'hidden = { mmlu = "1" }', "which the card prints", "[[row]] 1"),
    "notes": ("notes = 3\n" + SMALL, "notes", "mine.toml"),
    "column twice": (SMALL.replace('key = "safe"', 'key = "mmlu"'), "mmlu", "there twice"),
    "key average": (SMALL.replace('key = "safe"', 'key = "average"'), "[[column]] 2", "table"),
    "member unknown": (SMALL.replace('of = ["mmlu"', 'of = ["mmly"'), "[average]", "mmlu?"),
    "member twice": (SMALL.replace('of = ["mmlu"', 'of = [["mmlu", "mmlu"]'), "mmlu", "twice"),
    "list in a list": (SMALL.replace('of = ["mmlu"', 'of = [[["mmlu"]]'), "[average]", "lists"),
    "average of itself": (SMALL.replace('of = ["mmlu"', 'of = ["average"'), "[average]", "of has"),
    "complement, no member": (SMALL.replace('["mmlu", "safe"]', '["mmlu"]'), "safe", "no member"),
    "complement, no share": (
        SMALL.replace("= true", '= true\nunit = "own"'), "safe, which is no share", "100 - x"
    ),
    "no columns": ('title = "a"', "column", "1 to 100"),
    "a column too many": (many(101), "is there 101 times", "1 to 100"),
    "a letter too many": (SMALL.replace('"MMLU"', f'"{"a" * 2001}"'), "too long", "heading"),
    "a name too long": (SMALL.replace('"xstest_safe_refused"', f'"{"a" * 201}"'), "that long", "2"),
    "a key too long": (SMALL.replace('"safe"', f'"{"a" * 65}"', 1), "at most 64", "[[column]] 2"),
    "a key with a dash": (SMALL.replace('"safe"', '"sa-fe"', 1), "letters, digits", "sa-fe"),
    "no heading": (SMALL.replace('"MMLU"', '" "'), "heading is ' '", "in quotes"),
    "five decimals": (SMALL.replace("[average]", "decimals = 5\n[average]"), "0 to 4", "2"),
    "fewer decimals than none": (SMALL.replace("[average]", "decimals = -1\n[average]"), "-1", "4"),
    "a truth of decimals": (SMALL.replace("[average]", "decimals = true\n[average]"), "True", "4"),
    "a unit": (SMALL.replace("[average]", 'unit = "percents"\n[average]'), "percent?", "unit"),
    "a dash": (SMALL.replace("[[row]]", 'dash = "some"\n[[row]]'), "[average]", "dash is 'some'"),
    "optional, no member": (
        SMALL.replace('"safe"]\ncomplement', ']\noptional'), "optional has safe", "no member"
    ),
    "benchmark and reason": (SMALL.replace("[average]", 'reason = "r"\n[average]'), "both", "2"),
    "settings in a text": (SMALL.replace("{ shots = 0 }", '"0"'), "settings = {", "[[column]] 1"),
    "a text for a flag": (SMALL.replace("= true", '= "true"'), "true or false", "[[column]] 2"),
    "a name twice": (SMALL + ROW, "row's name", "there twice"),
    "a short name twice": (
        f'{SMALL}short_name = "s"\n{ROW.replace("Some", "No")}short_name = "s"',
        "short_name 's'", "there twice"
    ),
    "begin tokens": (SMALL + "bos_tokens = 10", "0 to 9", "[[row]] 1"),
    "no title": (SMALL.replace('title = "Mine"', ""), "title", "missing"),
    "neither benchmark nor reason": (SMALL.replace('benchmark = "xstest"', ""), "2", "reason"),
    "cell no number": (SMALL.replace('"50.0"', '"50 %"'), "[[row]] 1", "50 %"),
    "cell in digits of Arabic": (SMALL.replace('"50.0"', '"٥٠"'), "[[row]] 1", "a number"),
    "cell lacking": (SMALL.replace('safe = "10", ', ""), "[[row]] 1", "lacks safe"),
    "cell unknown": (SMALL.replace('safe = "10"', 'save = "10"'), "[[row]] 1", "safe or"),
    "two lines": (SMALL.replace('"MMLU"', '"a\\nb"'), "heading", "cannot be printed"),
    "direction mark": (SMALL.replace('"MMLU"', '"a\\u202eb"'), "heading", "cannot be printed"),
    "too large": ("#" * (1 << 20) + SMALL, "more than 1 MB", "mine.toml"),
    "a key of many parts": (f"a{'.a' * 20_000} = 1", "mine.toml", "line 1: more than 500 dots"),
    "deep": ("title = " + "[" * 5000, "mine.toml", "cannot be read"),
    "foreign class": (
        SMALL.replace('benchmark = "xstest"', 'benchmark = "os:path"'), "os:path", "subclass"
    ),
    "foreign module": (
        SMALL.replace('benchmark = "xstest"', 'benchmark = "no_such_1:A"'), "imported", "no_such_1"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said_in_one_sentence_that_names_it(case: str, tmp_path: Path) -> None:
    text, *words = WRONG[case]
    with pytest.raises(InputError) as caught:
        bound(card(tmp_path, text))
    said = str(caught.value)
    assert all(word in said for word in words), said
    assert "\n" not in said
    assert len(said) < 600


def test_what_is_as_large_as_may_be_is_read(tmp_path: Path) -> None:
    assert len(card(tmp_path, many(100)).columns) == 100
    text = SMALL.replace('"MMLU"', f'"{"a" * 2000}"').replace("xstest_safe_refused", "m" * 200)
    text = text.replace('"safe"', f'"{"k" * 64}"').replace("safe =", f"{'k' * 64} =")
    first, second = card(tmp_path, text + "bos_tokens = 9").columns
    assert (len(first.heading), len(second.metric), len(second.key)) == (2000, 200, 64)
    space = (1 << 20) - len(SMALL)
    assert card(tmp_path, SMALL + "#" * space).title == "Mine"


@pytest.mark.parametrize("decimals", [0, 4])
def test_a_column_has_up_to_four_decimals(decimals: int, tmp_path: Path) -> None:
    found = card(tmp_path, SMALL.replace("[average]", f"decimals = {decimals}\n[average]"))
    assert [one.decimals for one in found.columns] == [1, decimals]


def test_a_file_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_bytes(b"\xef\xbb\xbf" + SMALL.replace("\n", "\r\n").encode())
    assert read_card(tmp_path / "mine.toml").title == "Mine"


def test_what_is_wrong_with_a_columns_benchmark_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(SMALL.replace("shots = 0", "shots = 6"))
    with pytest.raises(InputError, match=r"mine\.toml: Column mmlu .* shots = 6 cannot be"):
        card_page(str(tmp_path / "mine.toml"))


def test_a_name_that_is_no_card_is_answered_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r"Did you mean llama-3\.1-tulu-2"):
        card_named("llama-3.1-tulu2")
    with pytest.raises(InputError, match="cannot be read"):
        card_named("nowhere/mine.toml")


HOSTILE = "<script>alert(1)</script>|`$\\x[^1]=cmd()"


@pytest.mark.parametrize("layout", FORMATS)
def test_a_hostile_heading_is_only_text(layout: str, tmp_path: Path) -> None:
    text = SMALL.replace('"MMLU"', f"'{HOSTILE}'").replace('"Mine"', f"'{HOSTILE}'")
    found = card(tmp_path, text)
    assert "<script>" in card_page(str(tmp_path / "mine.toml"))
    printed = FORMATS[layout](make_table(rows_from_published(found)))
    if layout in ("markdown", "html"):
        assert "<script>" not in printed
    assert printed.splitlines()[0].count(" | ") <= 4
    dangerous = FORMATS[layout](
        make_table(rows_from_published(card(tmp_path, SMALL.replace('"MMLU"', '"=1+1"'))))
    )
    assert layout != "csv" or dangerous.startswith("Model,'=1+1,")


# Whatever TOML can hold, in the places of a card's own keys and in others.
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
names = st.sampled_from(
    ["title", "column", "average", "row", "key", "heading", "benchmark", "metric", "settings",
     "lower_is_better", "unit", "decimals", "reason", "of", "complement", "optional", "dash",
     "name", "cells", "hidden", "notes", "mmlu", "xstest", "average", "any", "shots"]
)  # fmt: skip
values = st.recursive(
    scalars | names,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=5),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(names, values, max_size=6), st.booleans())
def test_anything_in_a_cards_place_is_a_card_or_one_sentence(
    content: dict[str, Any], near: bool
) -> None:
    """near: laid over a card that is right, so that what is behind the first check is reached."""
    right = {
        "title": "Mine",
        "column": [{"key": "mmlu", "heading": "MMLU", "benchmark": "mmlu"}],
        "average": {"of": ["mmlu"]},
    }
    if near and isinstance(content.get("column"), dict):
        content["column"] = [{**right["column"][0], **content["column"]}]  # type: ignore[dict-item]
    said, found = "", None
    try:
        found = bound(card_from({**right, **content} if near else content, "mine.toml", "mine"))
    except EvalsError as error:
        said = str(error)
    assert "\n" not in said
    assert bool(found) != bool("mine.toml" in said or "Column" in said), said
    if found is not None:
        kept = {"cells": {}, "metrics": {}, "model": {"name": "m"}, "card": found.as_json()}
        assert row_from_summary(kept).cells


NEW = ["", '"', "[", "]]", "{", "= ", "\n", "\n\n[average]\n", "\\", "#", "'" * 3, "1e999",
       "[[row]]\n", "true", "\x00", "key", "9" * 400]  # fmt: skip
edits = st.lists(
    st.tuples(
        st.integers(0, len(SMALL)), st.integers(0, 12), st.sampled_from(NEW) | st.text(max_size=4)
    ),
    min_size=1,
    max_size=4,
)


@settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(edits)
def test_a_file_that_was_mangled_is_a_card_or_one_sentence_that_names_it(
    tmp_path: Path, changes: list[tuple[int, int, str]]
) -> None:
    text = SMALL
    for at, n, new in changes:
        text = text[:at] + new + text[at + n :]
    said = ""
    try:
        found = bound(card(tmp_path, text))
    except InputError as error:
        said = str(error)
    assert "\n" not in said
    assert len(said) < 900
    if said:
        assert "mine.toml" in said or said.startswith("Column ")
    else:
        assert bound(card_of_run({"card": found.as_json()})).columns == found.columns
