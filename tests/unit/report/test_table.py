"""Rows of ours beside published ones: marks, footnotes, notes, hostile names, differences, the
stored card.
"""

import re
import shutil
import subprocess
import sys
from dataclasses import replace
from html import unescape
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from evals.cards import published
from evals.cards.average import average_metric
from evals.cards.published import published_rows, row_of_short_name, shipped, shipped_folder
from evals.errors import EnvironmentFault
from evals.records import Json, Metric
from evals.report import table
from evals.report.run_row import CARD_WOULD_OMIT, row_from_summary
from evals.report.table import (
    TableCell,
    TableRow,
    as_markdown,
    delta_table,
    escape,
    markdown,
    percent,
    rows_from_published,
)

MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])
ROOT = Path(published.__file__).parents[2]
HOSTILE = (
    'evil|name\n| x |\r\n# <script>alert("&")</script> [link](javascript:x) ![i](x)[^1] '
    "`code` *b* __u__ \\| \\ ~s~ $m$ \u202e\x00\ud800\u2028z"
)


def cell(
    value: float | None, *marks: str, reason: str | None = None, n: int = 10, n_items: int = 10
) -> dict[str, Json]:
    return {
        "value": value,
        "n": n,
        "n_items": n_items,
        "stderr": None,
        "ci95": None,
        "estimator": "Wilson",
        "reason": reason,
        "marks": list(marks),
    }


def summary(cells: dict[str, Json], **changes: Json) -> dict[str, Json]:
    base: dict[str, Json] = {
        "schema": 1,
        "protocol": "2024-08-19",
        "suite": "card",
        "limit": None,
        "model": {"name": "SmolLM2-135M-Instruct", "id": "smollm2", "fingerprint": "f"},
        "cells": cells,
    }
    return base | changes


def all_cells(**changes: dict[str, Json]) -> dict[str, Json]:
    full: dict[str, Json] = {key: cell(0.5) for key in shipped().keys}
    return full | dict(changes)


def body(text: str) -> list[list[str]]:
    """Cells of the table's rows, split where GitHub splits them."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[part.strip() for part in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


@pytest.mark.parametrize(
    ("fraction", "text"),
    [
        (0.655, "65.5"),
        (0.0, "0.0"),
        (1.0, "100.0"),
        (1 / 3, "33.3"),
        (0.3125, "31.3"),
        (0.0005, "0.1"),
        (0.00049, "0.0"),
        (1e-9, "0.0"),
    ],
)
def test_fractions_print_as_percent_with_one_decimal_and_halves_go_up(
    fraction: float, text: str
) -> None:
    assert percent(fraction) == text


def test_a_cell_of_no_registered_benchmark_keeps_a_column() -> None:
    row = row_from_summary(summary(all_cells(gone=cell(0.25))))
    columns = table.table_columns([row])
    assert [column.heading for column in columns[-2:]] == ["gone", "Average"]
    assert [line[-2] for line in body(markdown([row]))][-1] == "25.0"


def test_columns_are_the_cards() -> None:
    columns = table.table_columns()
    assert columns == shipped().printed
    assert tuple(column.key for column in columns) == shipped().keys


def test_a_ninth_benchmark_is_shown_only_where_a_row_has_it() -> None:
    assert "ninth" not in markdown(rows_from_published())
    text = markdown(
        [*rows_from_published(), row_from_summary(summary(all_cells(ninth=cell(0.25, "new"))))]
    )
    assert "| ninth | Average |" in text
    assert [row[-2] for row in body(text)] == ["-"] * 8 + ["25.0[^1]"]


def test_a_row_of_ours_prints_its_numbers_and_dashes_with_their_reasons() -> None:
    cells = all_cells(
        mmlu=cell(0.243),
        ifeval=cell(None, n=3, n_items=541),
        truthfulqa=cell(None, reason="the judges are not here"),
        alpaca_eval_1=cell(None, reason="the judges are not here"),
        average=cell(None, reason="no value for truthfulqa, ifeval"),
    )
    text = markdown([row_from_summary(summary(cells))])
    assert body(text) == [
        [
            "SmolLM2-135M-Instruct",
            "24.3",
            "50.0",
            "50.0",
            "50.0",
            "-",
            "50.0",
            "-",
            "-",
            "50.0",
            "50.0",
            "-",
        ]
    ]
    assert "- IFEval loose acc of SmolLM2-135M-Instruct: 3 of 541 items scored\n" in text
    assert (
        "- AlpacaEval 1, TruthfulQA %Info+True of SmolLM2-135M-Instruct: the judges are not here\n"
        in text
    )
    assert "- Average of SmolLM2-135M-Instruct: no value for truthfulqa, ifeval\n" in text


def test_a_benchmark_left_out_of_a_run_prints_a_dash_and_says_not_run() -> None:
    text = markdown([row_from_summary(summary({"mmlu": cell(0.25)}))])
    assert body(text)[0][1:] == ["25.0", *["-"] * 10]
    assert "GSM8k 8-shot cot, BBH 3-shot cot" in text
    assert ": not run\n" in text


def test_equal_marks_share_one_footnote_and_follow_the_number_directly() -> None:
    cells = all_cells(
        mmlu=cell(0.243, "another judge"),
        bbh=cell(0.1, "other items", "another judge"),
        ifeval=cell(0.2, "other items"),
    )
    rows = [
        row_from_summary(summary(cells)),
        row_from_summary(summary(all_cells(gsm8k=cell(0.3, "another judge"))), name="second"),
    ]
    text = markdown(rows)
    first, second = body(text)
    assert (first[1], first[3], first[8]) == ("24.3[^1]", "10.0[^1][^2]", "20.0[^2]")
    assert second[2] == "30.0[^1]"
    assert text.endswith("\n\n[^1]: another judge\n[^2]: other items\n")


def test_a_dash_carries_no_footnote() -> None:
    text = markdown(
        [row_from_summary(summary(all_cells(mmlu=cell(None, "another judge", reason="no judge"))))]
    )
    assert body(text)[0][1] == "-"
    assert "another judge" not in text


def test_the_average_carries_the_marks_of_what_it_is_made_of_and_no_others() -> None:
    row = row_from_summary(
        summary(
            all_cells(
                xstest_safe_refused=cell(0.5, "rule judge"), alpaca_eval_1=cell(0.5, "other judge")
            )
        )
    )
    assert row.cell("average") == TableCell("50.0", ("rule judge",))


def test_our_average_is_marked_where_the_card_would_print_a_dash() -> None:
    no_judge = all_cells(alpaca_eval_1=cell(None, reason="no judge"))
    row = row_from_summary(summary(no_judge))
    assert row.cell("average") == TableCell("50.0", (CARD_WOULD_OMIT,))
    assert row_from_summary(summary(all_cells())).cell("average") == TableCell("50.0")


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "SmolLM2-135M-Instruct"),
        ({"suite": "smoke"}, "SmolLM2-135M-Instruct (smoke suite)"),
        ({"limit": 20}, "SmolLM2-135M-Instruct (limit 20)"),
        ({"suite": "full", "limit": 0}, "SmolLM2-135M-Instruct (full suite, limit 0)"),
    ],
)
def test_what_marks_a_whole_row_is_in_its_name(changes: dict[str, Json], name: str) -> None:
    assert row_from_summary(summary(all_cells(), **changes)).name == name


def test_a_given_name_keeps_the_rows_marks() -> None:
    assert (
        row_from_summary(summary(all_cells(), suite="smoke"), name="mine").name
        == "mine (smoke suite)"
    )


def test_hostile_names_marks_and_reasons_stay_inside_their_place() -> None:
    cells = all_cells(mmlu=cell(0.5, HOSTILE), gsm8k=cell(None, reason=HOSTILE))
    row = row_from_summary(summary(cells, model={"name": HOSTILE, "id": "x", "fingerprint": "f"}))
    text = markdown([row, *rows_from_published()])
    assert {len(line) for line in body(text)} == {12}
    clean = markdown(
        [
            row_from_summary(summary(all_cells(mmlu=cell(0.5, "m"), gsm8k=cell(None, reason="r")))),
            *rows_from_published(),
        ]
    )
    assert len(text.splitlines()) == len(clean.splitlines())
    text.encode("utf-8")
    html = MARKDOWN.render(text)
    assert set(re.findall(r"</?(\w+)", html)) == {
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "ul",
        "li",
        "p",
    }
    assert set(re.findall(r"(?<!\\)\[\^?\w*", text)) == {"[^1", "[^2"}


@given(st.text(st.sampled_from("ab1 _*`~[]()!<>&;#|\\\n\"'$+-=.:^\u202e\u00e9")))
def test_escaped_text_is_shown_as_it_is_in_a_table_cell_and_in_a_list(text: str) -> None:
    shown = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    first, second = re.findall(
        r"<td>(.*?)</td>",
        MARKDOWN.render(f"| h | h |\n| --- | --- |\n| {escape(text)} | x |"),
        re.S,
    )
    assert (unescape(first), second) == (shown, "x")
    (listed,) = re.findall(r"<li>(.*?)</li>", MARKDOWN.render(f"- {escape(text)}"), re.S)
    assert unescape(listed) == shown


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("SmolLM2_135M-Instruct", "SmolLM2_135M-Instruct"),
        ("a|b", "a\\|b"),
        ("a\\|b", "a&#92;\\|b"),
        ("_a_ b__c", "\\_a\\_ b\\_\\_c"),
        ("# head", "\\# head"),
        ("1. one", "1\\. one"),
        ("- item", "\\- item"),
        (" a\n\tb ", "a b"),
        ("a & <b>", "a &amp; &lt;b&gt;"),
        ("&lt;", "&amp;lt;"),
        ("", ""),
    ],
)
def test_escaping_keeps_what_is_harmless_and_defuses_the_rest(text: str, escaped: str) -> None:
    assert escape(text) == escaped


def test_notes_on_distrusted_published_cells_name_row_and_column_and_leave_the_cell_alone() -> None:
    text = markdown(rows_from_published())
    assert "[^" not in text
    assert re.search(r"^- Codex HumanEval Pass@10 of Llama 3\.1 70b base: unverified", text, re.M)
    assert re.search(r"^- TruthfulQA %Info\+True of Llama 3\.1 8b instruct: unverified", text, re.M)
    assert not re.search(r"^- ", markdown(rows_from_published()[2:4]), re.M)


def test_a_table_without_rows_is_its_header() -> None:
    assert markdown([]).count("\n") == 2


def test_differences_are_signed_points_of_the_printed_numbers() -> None:
    published = {row.name: row for row in rows_from_published()}["Llama 3.1 70b base"]
    ours = row_from_summary(
        summary(
            all_cells(
                mmlu=cell(0.78849),
                gsm8k=cell(0.9, "other items"),
                bbh=cell(0.8285),
                ifeval=cell(0.1),
            )
        )
    )
    text = as_markdown(delta_table([ours], [published]))
    assert text.startswith("In points, against the published row Llama 3.1 70b base:\n\n| Model |")
    assert body(text)[0] == [
        "SmolLM2-135M-Instruct",
        "+0.0",
        "+4.5[^1]",
        "+0.0",
        "-44.5",
        *["-"] * 3,
        "-0.9",
        "+37.6",
        "+9.0",
        "-",
    ]
    assert "[^1]: other items\n" in text
    assert "- Codex HumanEval Pass@10 of Llama 3.1 70b base: unverified" in text


def test_a_published_row_does_not_differ_from_itself() -> None:
    row = rows_from_published()[-1]
    assert body(as_markdown(delta_table([row], [row])))[0][1:] == ["+0.0"] * 11


def test_a_difference_needs_both_numbers() -> None:
    base, instruct = rows_from_published()[:2]
    dashes = [
        key
        for key, text in zip(
            shipped().keys, body(as_markdown(delta_table([instruct], [base])))[0][1:], strict=True
        )
        if text == "-"
    ]
    assert dashes == ["alpaca_eval_1", "alpaca_eval_2_lc", "average"]


def test_the_average_names_its_missing_inputs_and_counts_xstest_once() -> None:
    metrics = {key: Metric(0.5, 10, 10, 0.1) for key in shipped().keys[:-1]}
    assert (
        average_metric(shipped().average, metrics).n
        == average_metric(shipped().average, metrics).n_items
        == 7
    )
    metrics["xstest_safe_refused"] = Metric(None, 3, 10, reason="3 of 10 items scored")
    del metrics["bbh"]
    found = average_metric(shipped().average, metrics)
    assert (found.value, found.n, found.n_items, found.stderr, found.ci95) == (
        None,
        5,
        7,
        None,
        None,
    )
    assert found.reason == "no value for bbh, xstest_safe_refused"
    assert average_metric(shipped().average, {}).n == 0


def test_an_average_of_cells_without_error_has_a_value_and_no_interval() -> None:
    metrics = {key: Metric(0.5, 10, 10, 0.1) for key in shipped().keys[:-1]}
    metrics["mmlu"] = replace(metrics["mmlu"], stderr=None)
    found = average_metric(shipped().average, metrics)
    assert (found.value, found.stderr, found.ci95) == (0.5, None, None)


def test_short_names_find_their_row_with_how_the_model_is_prompted() -> None:
    facts = {
        row.short_name: (row.hub_id, row.chat_format, row.bos_tokens, row.size, row.kind)
        for row in published_rows()
    }
    assert facts == {
        "llama-3.1-8b": ("meta-llama/Meta-Llama-3.1-8B", "none", 1, "8b", "base"),
        "llama-3.1-8b-instruct": (
            "meta-llama/Meta-Llama-3.1-8B-Instruct",
            "tokenizer",
            2,
            "8b",
            "instruct",
        ),
        "tulu-2-llama-3.1-8b": ("allenai/llama-3.1-tulu-2-8b", "tulu", 1, "8b", "sft"),
        "tulu-2-llama-3.1-8b-dpo": ("allenai/llama-3.1-tulu-2-dpo-8b", "tulu", 1, "8b", "dpo"),
        "llama-3.1-70b": ("meta-llama/Meta-Llama-3.1-70B", "none", 1, "70b", "base"),
        "llama-3.1-70b-instruct": (
            "meta-llama/Meta-Llama-3.1-70B-Instruct",
            "tokenizer",
            2,
            "70b",
            "instruct",
        ),
        "tulu-2-llama-3.1-70b": ("allenai/llama-3.1-tulu-2-70b", "tulu", 1, "70b", "sft"),
        "tulu-2-llama-3.1-70b-dpo": ("allenai/llama-3.1-tulu-2-dpo-70b", "tulu", 1, "70b", "dpo"),
    }
    assert all(row_of_short_name(row.short_name) is row for row in published_rows())
    assert row_of_short_name("llama-3.1-9b") is None


def test_every_published_row_says_what_it_was_made_with_and_how_sure_that_is() -> None:
    for row in published_rows():
        assert {"engine", "mode", "template"} <= row.settings.keys()
        assert all(re.search(r"\[[KIU]\]", text) for text in row.settings.values())


def test_an_installed_wheel_reads_the_copy_inside_the_package(tmp_path: Path) -> None:
    package = tmp_path / "evals"
    (package / "_published").mkdir(parents=True)
    shutil.copytree(ROOT / "evals" / "cards", package / "cards")
    for name in ("errors.py", "records.py"):
        shutil.copy(ROOT / "evals" / name, package)
    shutil.copy(
        shipped_folder("published") / "llama-3.1-tulu-2.toml",
        package / "_published",
    )
    code = (
        "from evals.cards.published import published_rows; print([row.short_name for row in"
        " published_rows()])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": "."},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == f"{[row.short_name for row in published_rows()]}\n", done.stderr


def test_an_installation_without_the_card_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(published, "__file__", str(tmp_path / "evals" / "cards" / "published.py"))
    with pytest.raises(EnvironmentFault, match="cannot be read"):
        published._read.__wrapped__(published.DEFAULT)


def test_printing_a_table_imports_nothing_heavy() -> None:
    code = (
        "import sys; from evals.report.table import markdown, rows_from_published;"
        " markdown(rows_from_published());print(sorted({'torch', 'pandas', 'numpy', 'datasets',"
        " 'vllm', 'lm_eval', 'alpaca_eval', 'nltk', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stdout == "[]\n", done.stderr


def test_a_row_prints_a_dash_for_a_cell_it_does_not_have() -> None:
    assert body(markdown([TableRow("bare", {})]))[0] == ["bare", *["-"] * 11]
