"""The table in every format, held against a parser of that format; what is best, sizes, intervals,
differences, the terminal.
"""

import csv
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.console import Console
from typer.testing import CliRunner

from evals.cards.card import Card
from evals.cards.published import shipped
from evals.commands.app import app
from evals.errors import InputError
from evals.records import Column
from evals.report import rows as report_table
from evals.report.formats import FORMATS, by_size, size_of, with_best
from evals.report.rows import Layout
from evals.report.table import Table, TableCell, TableRow, make_table, rows_from_published
from evals.report.terminal import renderables
from evals.storage.files import one_line
from evals.storage.run_folder import RunFolder
from tests.run_files import HEADER, summary

ROOT = Path(__file__).resolve().parents[3]
HOSTILE = (
    '</td><script>x</script> | \\input{x} $x$ & 5% _a_ {b} #c ~d^e\n=cmd() "q" `t` [z]'
    " \x1b[31m\u202e\ud800 <!-- -->"
)
OURS = TableRow(
    "My 8B, step 2000",
    {
        "mmlu": TableCell("62.0", (), ("61.2", "62.8")),
        "gsm8k": TableCell("70.5", ("other items",), ("63.8", "76.4")),
        "xstest_safe_refused": TableCell("3.2", (), ("1.6", "6.2")),
        "average": TableCell("-"),
    },
    "ours",
    {"bbh": "9 of 1080 items answered", "ifeval": "9 of 1080 items answered"},
)


@pytest.fixture
def table() -> Table:
    return with_best(replace(make_table(by_size([*rows_from_published(), OURS])), with_ci=True))


class Cells(HTMLParser):
    """The rows of an HTML table as texts, the tags met, the texts in bold."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.tags: set[str] = set()
        self.bold: list[str] = []
        self._within: list[str] = []
        self.feed(text)
        self.close()
        assert self._within == [], "every element is closed"

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)
        self._within.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._within.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"td", "th"} & set(self._within):
            self.rows[-1][-1] += data
        if "strong" in self._within:
            self.bold.append(data)


# --- every format says the same -------------------------------------------------------------------


def from_markdown(text: str) -> list[list[str]]:
    html = (
        MarkdownIt("commonmark")
        .enable("table")
        .render(text)
        .replace("<em>", "")
        .replace("</em>", "")
    )
    return Cells(html).rows


def from_latex(text: str) -> list[list[str]]:
    inside = text.partition(r"\toprule")[2].partition(r"\bottomrule")[0].replace("\\midrule\n", "")
    rows = [line.removesuffix(r" \\").split(" & ") for line in inside.strip().splitlines()]
    stacked = re.compile(r"\\shortstack\[r\]\{(.*)\}")
    rows = [[stacked.sub(r"\1", cell).replace(r"\\", " ") for cell in row] for row in rows]
    rows = [[re.sub(r"\{\\scriptsize (.*)\}", r"\1", cell) for cell in row] for row in rows]
    plain = [[re.sub(r"\\textbf\{([^}]*)\}", r"\1", cell) for cell in row] for row in rows]
    plain = [
        [re.sub(r"\\textsuperscript\{(\d+)\}", r"[^\1]", cell) for cell in row] for row in plain
    ]
    return [
        [re.sub(r"\\([%&$#_{}])", r"\1", cell.replace(r"\textendash{}", "–")) for cell in row]
        for row in plain
    ]


def test_markdown_html_and_latex_hold_the_same_rows_cells_marks_and_intervals(table: Table) -> None:
    markdown = from_markdown(FORMATS["markdown"](table))
    assert [row[0] for row in markdown] == ["Model", *(row.name for row in table.rows)]
    assert {len(row) for row in markdown} == {12}
    ours = (
        markdown[-1]
        if markdown[-1][0] == OURS.name
        else next(row for row in markdown if row[0] == OURS.name)
    )
    assert ours[:3] == [OURS.name, "62.0 (61.2–62.8)", "70.5[^1] (63.8–76.4)"]
    assert from_latex(FORMATS["latex"](table)) == markdown
    html = [
        [re.sub(r"\[\^(\d+)\]", r"\1", cell).replace(" (", " ").replace(")", "") for cell in row]
        for row in markdown
    ]
    assert Cells(FORMATS["html"](table)).rows == html


def test_bold_is_the_same_in_every_format_that_has_it(table: Table) -> None:
    bold = Cells(FORMATS["html"](table)).bold
    assert (
        re.findall(r"\*\*(.*?)\*\*", FORMATS["markdown"](table))
        == bold
        == re.findall(r"\\textbf\{(.*?)\}", FORMATS["latex"](table))
    )
    content = json.loads(FORMATS["json"](table))
    cells = [
        row["cells"][column["key"]] for row in content["rows"] for column in content["columns"]
    ]
    assert [f"{cell['value']:.1f}" for cell in cells if cell["best"]] == bold


def test_csv_has_bare_numbers_intervals_and_the_words_in_the_last_column(table: Table) -> None:
    rows = list(csv.DictReader(io.StringIO(FORMATS["csv"](table))))
    ours = next(row for row in rows if row["Model"] == OURS.name)
    assert (ours["MMLU 5-shot"], ours["MMLU 5-shot 95% low"], ours["MMLU 5-shot 95% high"]) == (
        "62.0",
        "61.2",
        "62.8",
    )
    assert (ours["Average"], ours["BBH 3-shot cot"]) == ("", "")
    assert ours["Remarks"].startswith(
        "GSM8k 8-shot cot: other items; BBH 3-shot cot: 9 of 1080 items answered; "
    )
    base = next(row for row in rows if row["Model"] == "Llama 3.1 8b base")
    assert (base["MMLU 5-shot"], base["MMLU 5-shot 95% low"]) == ("65.5", "")
    assert "95%" not in FORMATS["csv"](replace(table, with_ci=False))


def test_json_holds_numbers_marks_and_remarks(table: Table) -> None:
    content = json.loads(FORMATS["json"](table))
    assert (content["schema"], content["caption"]) == (1, "percent")
    ours = next(row for row in content["rows"] if row["name"] == OURS.name)["cells"]
    assert ours["gsm8k"] == {
        "value": 70.5,
        "ci95": [63.8, 76.4],
        "best": False,
        "marks": ["other items"],
        "note": None,
    }
    assert ours["bbh"] == {
        "value": None,
        "ci95": None,
        "best": False,
        "marks": [],
        "note": "9 of 1080 items answered",
    }
    assert [column["key"] for column in content["columns"]] == list(shipped().keys)


@pytest.mark.parametrize("name", FORMATS)
def test_the_same_runs_print_the_same_bytes_in_another_process(name: str) -> None:
    command = [
        "report",
        "--published",
        "--bold",
        "--by-size",
        "--with-ci",
        "--format",
        name,
        str(ROOT / "results/smollm2-135m-instruct-card"),
    ]
    printed = {
        subprocess.run(
            [sys.executable, "-m", "evals", *command],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(printed) == 1
    assert b"SmolLM2-135M-Instruct" in next(iter(printed))


# --- hostile texts --------------------------------------------------------------------------------


@pytest.fixture
def hostile() -> Table:
    row = TableRow(HOSTILE, {"mmlu": TableCell("1.0", (HOSTILE,))}, "ours", {"bbh": HOSTILE})
    return replace(make_table([row]), caption=HOSTILE)


def test_hostile_text_stays_text_in_html_and_csv(hostile: Table) -> None:
    html = FORMATS["html"](hostile)
    assert Cells(html).tags == {
        "table",
        "caption",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "sup",
        "ul",
        "li",
        "ol",
    }
    rows = list(csv.reader(io.StringIO(FORMATS["csv"](hostile))))
    assert [len(row) for row in rows] == [13, 13]
    for text in (html, FORMATS["csv"](hostile), FORMATS["latex"](hostile)):
        text.encode("utf-8")
        assert "\x1b" not in text


_LATEX_WRITTEN = (
    r"\\text(?:backslash|asciitilde|asciicircum|less|greater|bar)\{\}"
    r"|\\[{}$&#%_]|\{\[\}|\{\]\}|(?<=-)\{\}(?=-)"
)
"""What a text's own characters become."""


@given(st.text(st.sampled_from('ab \\{}$&#%_~^<>|"`[]-\n\u202e\u00e9\ud800'), max_size=30))
def test_latex_has_no_command_brace_or_cell_border_of_a_text(text: str) -> None:
    printed = FORMATS["latex"](make_table([TableRow(text, {})]))
    line = printed.splitlines()[5]
    name = re.sub(_LATEX_WRITTEN, "", line.removesuffix(" & -" * 11 + r" \\"))
    assert line.endswith(" & -" * 11 + r" \\")
    assert not re.search(r"[\\{}$&#%_~^<>|\[\]]", name)
    assert len(printed.splitlines()) == 8


hostile_headings = st.text(
    st.sampled_from("ab <>&\"'`*_~[]()!|\\{}$#%^=+-@:;.\u00e9\u202e"), min_size=1, max_size=24
).filter(str.strip)


@given(st.lists(hostile_headings, min_size=2, max_size=3))
def test_a_cards_heading_is_only_text_in_every_format(headings: list[str]) -> None:
    columns = tuple(Column(f"c{n}", heading) for n, heading in enumerate(headings))
    row = TableRow("m", {"c0": TableCell("1.0")}, card=Card("x", "X", "x/1", columns))
    table = make_table([row])
    shown = ["Model", *(" ".join(one_line(one).split()) for one in headings), "Average"]
    assert [" ".join(one.split()) for one in from_markdown(FORMATS["markdown"](table))[0]] == shown
    read = Cells(FORMATS["html"](table))
    assert read.tags == {"table", "thead", "tbody", "tr", "th", "td"}
    assert [" ".join(one.removesuffix(" ↓").split()) for one in read.rows[0]] == shown
    assert len(read.rows[1]) == len(columns) + 2
    head = FORMATS["latex"](table).splitlines()[3]
    inside = re.sub(
        _LATEX_WRITTEN, "", head.removeprefix("Model & ").removesuffix(r" \\").replace(r"\\", "")
    )
    cells = [re.fullmatch(r"\\shortstack\[r\]\{(.*)\}", cell) for cell in inside.split(" & ")]
    assert len(cells) == len(columns) + 1
    for cell in cells:
        assert cell, head
        assert not re.search(r"[\\{}$&#%_~^<>|\[\]]", cell[1]), head
    written = next(csv.reader(io.StringIO(FORMATS["csv"](table))))
    assert len(written) == len(columns) + 3
    assert not any(one.startswith(("=", "+", "-", "@")) for one in written)
    json.loads(FORMATS["json"](table))


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@x"])
def test_no_name_is_a_formula_to_a_spreadsheet(name: str) -> None:
    _, row = csv.reader(io.StringIO(FORMATS["csv"](make_table([TableRow(name, {})]))))
    assert row[0] == "'" + name


# --- best, sizes ----------------------------------------------------------------------------------


def row(name: str, group: str, **cells: str) -> TableRow:
    return TableRow(
        name,
        {
            key: TableCell(text.rstrip("*"), ("m",) if "*" in text else ())
            for key, text in cells.items()
        },
        group,
    )


def test_best_is_highest_in_its_group_lowest_where_lower_is_better_and_ties_are_all_best() -> None:
    rows = [
        row("a", "8b", mmlu="9.5", bbh="-", xstest_safe_refused="8.8"),
        row("b", "8b", mmlu="10.0", bbh="50.0", xstest_safe_refused="8.4"),
        row("c", "8b", mmlu="10.0", xstest_safe_refused="10.0"),
        row("d", "70b", mmlu="1.0"),
    ]
    assert with_best(make_table(rows)).best == {
        (1, "mmlu"),
        (2, "mmlu"),
        (1, "xstest_safe_refused"),
    }


def test_a_marked_number_is_not_compared() -> None:
    rows = [row("a", "8b", mmlu="9.5"), row("b", "8b", mmlu="99.0*"), row("c", "8b", mmlu="9.0")]
    assert with_best(make_table(rows)).best == {(0, "mmlu")}


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("Llama 3.1 8b base", 8.0),
        ("Tulu 2 Llama 3.1 70b DPO", 70.0),
        ("SmolLM2-135M-Instruct", 0.135),
        ("My 8B, step 2000", 8.0),
        ("Qwen2.5-0.5B", 0.5),
        ("my-model", None),
        ("8bit-thing", None),
        ("3.1", None),
    ],
)
def test_a_size_is_read_from_the_name(name: str, size: float | None) -> None:
    assert size_of(name) == size


def test_rows_are_sorted_by_size_in_the_cards_order_and_unknown_sizes_come_last() -> None:
    published = list(rows_from_published())
    mixed = [
        TableRow("mystery", {}),
        *published[4:],
        TableRow("SmolLM2-135M", {}),
        *published[:4],
        TableRow("Mine 70b", {}),
    ]
    names = [one.name for one in by_size(mixed)]
    assert names == ["SmolLM2-135M", *(one.name for one in published), "Mine 70b", "mystery"]
    assert [one.group for one in by_size(mixed)] == ["0.135b", *["8b"] * 4, *["70b"] * 5, ""]
    assert by_size(published) == published


# --- what a user names ----------------------------------------------------------------------------


def run_folder(folder: Path, **model: str) -> Path:
    content = summary(
        {"mmlu": {"value": 0.64, "n": 9, "n_items": 9, "ci95": [0.6, 0.7]}},
        model=HEADER["model"] | model,
    )
    RunFolder(folder).write_json("summary.json", content)
    return folder


@pytest.mark.parametrize(
    "model", [{"id": "allenai/llama-3.1-tulu-2-dpo-8b"}, {"name": "tulu-2-llama-3.1-8b-dpo"}]
)
def test_a_run_of_a_published_model_is_held_against_its_own_row(
    tmp_path: Path, model: dict[str, str]
) -> None:
    table = report_table.report_table(
        [run_folder(tmp_path, **model)], False, Layout(delta_to="published", with_ci=True)
    )
    assert table.caption == "In points, against the published row Tulu 2 Llama 3.1 8b DPO:"
    assert table.rows[0].cell("mmlu") == TableCell("+2.0", (), ("-2.0", "+8.0"))
    assert "| +2.0 (-2.0 to +8.0) | - |" in FORMATS["markdown"](table)


def test_runs_of_several_models_keep_their_own_rows_when_sorted_by_size(tmp_path: Path) -> None:
    large = run_folder(tmp_path / "a", name="Mine 70b", id="meta-llama/Meta-Llama-3.1-70B")
    small = run_folder(tmp_path / "b", name="Mine 8b", id="meta-llama/Meta-Llama-3.1-8B")
    table = report_table.report_table(
        [large, small], False, Layout(delta_to="published", by_size=True)
    )
    assert [(one.name, one.cell("mmlu").text) for one in table.rows] == [
        ("Mine 8b", "-1.5"),
        ("Mine 70b", "-14.8"),
    ]
    assert table.caption == "In points, against each row's own published row:"
    assert [note.row for note in table.notes() if "unverified" in note.text] == [
        "Llama 3.1 70b base"
    ]


def test_a_model_that_is_not_on_the_card_needs_the_name_of_a_row(tmp_path: Path) -> None:
    run = run_folder(tmp_path)
    with pytest.raises(
        InputError, match=r"no row of .* Name one: --delta-to tulu-2-llama-3\.1-8b-dpo"
    ):
        report_table.report_table([run], False, Layout(delta_to="published"))
    assert (
        report_table.report_table([run], False, Layout(delta_to="llama-3.1-8b"))
        .rows[0]
        .cell("mmlu")
        .text
        == "-1.5"
    )
    with pytest.raises(InputError, match=r"Did you mean .*llama-3\.1-8b"):
        report_table.report_table([run], False, Layout(delta_to="llama-3.1-9b"))


@pytest.mark.parametrize(
    "arguments",
    [
        ["--format", "xml", "--published"],
        ["--delta-to", "published"],
        ["--published", "--delta-to", "published", "x"],
        [],
    ],
)
def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    assert CliRunner().invoke(app, ["report", *arguments]).exit_code == 2


# --- the terminal ---------------------------------------------------------------------------------


def shown(table: Table, width: int, **settings: object) -> str:
    console = Console(
        file=io.StringIO(),
        width=width,
        force_terminal=True,
        highlight=False,
        markup=False,
        **settings,
    )  # type: ignore[arg-type]
    console.print(*renderables(table, width), sep="\n")
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize("width", [40, 80, 120, 200])
def test_no_number_is_cut_at_any_width_and_no_line_is_longer(table: Table, width: int) -> None:
    text = shown(table, width, color_system=None)
    assert max(map(len, text.splitlines())) <= width
    words = text.split()
    for one in table.rows:
        for column in table.columns:
            cell = one.cell(column.key)
            if cell.text != "-":
                assert cell.text + "".join("[1]" for _ in cell.marks) in words
                assert not cell.ci95 or f"{cell.ci95[0]}–{cell.ci95[1]}" in words
    assert "…" not in text


def test_eighty_columns_take_two_tables_and_wide_ones_take_one(table: Table) -> None:
    plain = replace(table, with_ci=False)
    assert [
        shown(plain, width, color_system=None).count("Llama 3.1 8b base") for width in (80, 160)
    ] == [2, 1]


def test_a_terminal_without_colours_gets_no_control_and_hostile_text_stays_text(
    table: Table, hostile: Table
) -> None:
    assert "\x1b" not in shown(table, 80, color_system=None)
    assert "\x1b[1m" in shown(table, 80, color_system="standard")
    assert "\x1b" not in shown(hostile, 80, color_system=None)
    assert "[z]" in shown(hostile, 80, color_system=None)


@pytest.fixture
def on_a_terminal() -> Callable[..., str]:
    """What `evals report --published` writes to a terminal of 80 columns."""

    def call(**environment: str) -> str:
        import pty

        ours, theirs = pty.openpty()
        env = {
            name: value
            for name, value in os.environ.items()
            if name not in ("NO_COLOR", "TERM", "COLUMNS")
        }
        env |= {"TERM": "xterm", "COLUMNS": "80"} | environment
        with subprocess.Popen(
            [sys.executable, "-m", "evals", "report", "--published", "--bold"],
            stdout=theirs,
            env=env,
            cwd=ROOT,
        ) as process:
            os.close(theirs)
            said = b""
            while True:
                try:
                    piece = os.read(ours, 65536)
                except OSError:  # the other end is closed
                    break
                if not piece:
                    break
                said += piece
        assert process.returncode == 0
        os.close(ours)
        return said.decode()

    return call


def test_a_terminal_gets_a_table_in_bold_no_color_one_without_and_a_dumb_one_markdown(
    on_a_terminal: Callable[..., str],
) -> None:
    assert "\x1b[1m" in (text := on_a_terminal())
    assert "| --- |" not in text
    assert "\x1b" not in (text := on_a_terminal(NO_COLOR="1"))
    assert "Llama 3.1 70b instruct" in text
    assert "| --- |" not in text
    assert "| --- |" in on_a_terminal(TERM="dumb")


def test_limited_runs_stand_apart_in_every_format_and_are_never_best() -> None:
    few = row("few (limit 20)", "limited", mmlu="99.0", xstest_safe_refused="0.0")
    rows = [
        few,
        row("a 8b", "ours", mmlu="9.5"),
        row("b 8b", "ours", mmlu="9.0"),
        row("few more 8b (limit 20)", "limited", mmlu="98.0"),
    ]
    table = with_best(make_table(by_size(rows)))
    assert [one.group for one in table.rows] == ["8b", "8b", "limited", "limited"]
    assert table.best == {(0, "mmlu")}
    assert (
        FORMATS["markdown"](table).index("| b 8b |")
        < FORMATS["markdown"](table).index("Limited runs")
        < FORMATS["markdown"](table).index("| few")
    )
    assert FORMATS["html"](table).count("<tbody>") == 2
    assert FORMATS["latex"](table).count(r"\midrule") == 2
