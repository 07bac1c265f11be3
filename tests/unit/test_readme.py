"""Every document says what the program says: commands, options, paths, links, numbers, tables."""

import inspect
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from datetime import date
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from typer.testing import CliRunner

from evals import stats
from evals.benchmark import Benchmark
from evals.cards.published import published_rows, shipped
from evals.commands.app import app
from evals.data.load import load_smoke_data
from evals.plan.known_judges import known_judges
from evals.plan.naming_judges import gone, judges_of
from evals.records import Grade, Item, Metric
from evals.registry import BENCHMARKS, benchmark_class
from evals.report.table import table_columns
from tests.contract.test_imports_one_way import ROOMS

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = (
    "*",
    ".github/*",
    "evals/*",
    "tasks/*",
    "scripts/*",
    "tests/*",
    "results/*",
    "results/bench/*",
    "results/gate/*",
)
DOCUMENTS = [
    file.relative_to(ROOT).as_posix()
    for folder in FOLDERS
    for file in sorted(ROOT.glob(f"{folder}.md"))
]
WRITTEN = [name for name in DOCUMENTS if name.endswith(("README.md", "CONTRIBUTING.md"))]
MEASURED = ROOT / "results" / "smollm2-135m-instruct-card"
SOURCES = {
    "reproduce": ["scripts/proof/reproduce.py"],
    "bench": ["scripts/bench_parts/__main__.py"],
    "demo": ["evals/commands/run.py"],
    "slurm": ["evals/commands/run.py"],
}
"""Where the options of a script are defined that hands them on."""

every_document = pytest.mark.parametrize("name", DOCUMENTS)


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(text: str) -> str:
    """The lines of a document's code blocks: fenced ones, and those that are indented behind a
    dollar sign.
    """
    fenced = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return "".join(fenced) + "".join(
        f"{line}\n" for line in re.findall(r"^    \$ (.*)$", text, re.MULTILINE)
    )


def spans(text: str) -> list[str]:
    """What stands in backticks outside of code blocks."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"`([^`\n]+)`", prose)


def commands(text: str) -> Iterator[str]:
    """Every command line in code blocks, less its comment and the variables before it, and every
    one in backticks.
    """
    for line in [*blocks(text).splitlines(), *spans(text)]:
        yield re.sub(
            r"^(?:[A-Z_]+=\S+ )*(?:\./|\.venv/bin/)?", "", re.sub(r"(^|\s+)#.*", "", line)
        ).strip()


def section(text: str, heading: str) -> str:
    """What stands under a heading, up to the next one."""
    (found,) = re.findall(
        rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL
    )
    return str(found)


def rows(text: str, *head: str) -> list[list[str]]:
    """The cells of the table with this head."""
    (found,) = re.findall(
        rf"^\| {re.escape(' | '.join(head))} \|\n\|[-: |]+\|\n((?:\|.*\|\n)+)", text, re.MULTILINE
    )
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in found.splitlines()]


def numbers(text: str) -> set[int]:
    return {
        int(number.replace(",", ""))
        for number in re.findall(r"(?<![\w.-])\d[\d,]*(?![\w-])(?!\.\d)", text)
    }


# --- commands, paths, links -----------------------------------------------------------------------


def test_the_documents_are_found() -> None:
    written = {
        "README.md",
        ".github/CONTRIBUTING.md",
        "evals/README.md",
        "tasks/README.md",
        "scripts/README.md",
        "results/README.md",
    }
    assert set(WRITTEN) == written
    assert {"results/REPRODUCTION.md", "results/gate/damaged.md"} <= set(DOCUMENTS)
    assert (
        sum(line.startswith("evals ") for name in DOCUMENTS for line in commands(text_of(name)))
        > 40
    )


@every_document
def test_every_evals_command_and_option_it_names_exists(name: str) -> None:
    for line in commands(text_of(name)):
        words = shlex.split(line) if line.startswith("evals ") else []
        if not words:
            continue
        command = words[1:3] if words[1] in ("data", "judge") else words[1:2]
        whole = "--help-all" if command == ["run"] else "--help"
        shown = CliRunner().invoke(app, [*command, whole], env={"COLUMNS": "300"}).output
        assert "Usage:" in shown, line
        for option in (word for word in words if word.startswith("--")):
            assert option in shown.split(), f"{line}: {option} is not in its help"


@every_document
def test_every_option_in_backticks_is_one_of_a_command_or_script_here(name: str) -> None:
    known = "".join(file.read_text("utf-8") for file in (ROOT / "evals" / "commands").glob("*.py"))
    known += (ROOT / "scripts" / "setup").read_text("utf-8") + (
        ROOT / "evals" / "generators" / "__init__.py"
    ).read_text("utf-8")
    foreign = {"--data-parallel-backend"}  # vLLM's own server's
    for option in {
        span.split()[0] for span in spans(text_of(name)) if span.startswith("--")
    } - foreign:
        parameter = option.removeprefix("--").replace("-", "_")
        assert f'"{option}' in known or re.search(rf"\b{parameter}\b", known), option


@every_document
def test_every_script_it_calls_exists_and_has_the_options_it_is_given(name: str) -> None:
    for line in commands(text_of(name)):
        before, script, after = line.partition("scripts/")
        if not script or not (before == "" or before.startswith("sbatch ")):
            continue
        called, *words = shlex.split(after)
        assert (ROOT / "scripts" / called).exists(), line
        defined = "".join(
            (ROOT / source).read_text("utf-8")
            for source in (f"scripts/{called}", *SOURCES.get(called, ()))
            if words
        )
        for option in (word for word in words if word.startswith("--")):
            assert option in defined or option[2:].replace("-", "_") in defined, (
                f"{line}: {option} is nowhere in it"
            )


@every_document
def test_every_path_of_ours_it_names_is_there(name: str) -> None:
    ours = re.compile(r"^(?:evals|tasks|scripts|results|tests|\.github)/\S*$")
    named = [span for span in spans(text_of(name)) if ours.match(span)]
    called = [
        word
        for line in blocks(text_of(name)).splitlines()
        for word in line.split()
        if re.match(r"tests/\S+$", word)
    ]
    assert [path for path in {*named, *called} if not list(ROOT.glob(path.rstrip("/")))] == []


@every_document
def test_every_link_leads_somewhere(name: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(name)):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / name).parent / path if path else ROOT / name
        assert file.exists(), target
        assert file.resolve().is_relative_to(ROOT), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text("utf-8"), re.MULTILINE)
            assert anchor in {
                re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings
            }, target


# --- tables and numbers ---------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "n_tables"), [("README.md", 2), ("results/README.md", 4)])
def test_every_table_is_what_its_command_prints(name: str, n_tables: int) -> None:
    """To renew them: scripts/readme-table."""
    found = re.findall(
        r"<!-- table: evals (.*?) -->\n(.*?)<!-- /table -->", text_of(name), re.DOTALL
    )
    assert len(found) == n_tables
    for command, table in found:
        arguments = [
            str(ROOT / word) if word.startswith("results/") else word
            for word in shlex.split(command)
        ]
        printed = CliRunner().invoke(app, arguments)
        assert printed.exit_code == 0, printed.output
        assert table == printed.stdout


def test_the_glossary_has_every_column_as_printed_with_the_side_that_is_better() -> None:
    glossed = [
        (heading, better)
        for heading, better, _ in rows(text_of("README.md"), "Column", "Better", "What it measures")
    ]
    assert glossed == [
        (column.heading, "↓ lower" if column.lower_is_better else "↑ higher")
        for column in table_columns()
    ]


def test_folded_markdown_has_the_blank_lines_that_github_wants() -> None:
    for name in WRITTEN:
        text = text_of(name)
        opened = re.findall(r"\n\n<details><summary>[^\n]*</summary>\n\n", text)
        closed = re.findall(r"\n\n</details>\n\n", text)
        assert text.count("<details>") == len(opened) == len(closed)


def test_the_way_of_a_checkpoint_begins_with_the_smoke_items() -> None:
    shown = blocks(section(text_of("README.md"), "Your own checkpoint")).splitlines()
    first, *others = [line for line in shown if line.startswith("evals ")]
    assert first.startswith("evals run out/my-8b --suite smoke ")
    assert "--judge" not in first.split("#")[0]
    assert [line.split()[1] for line in others] == [
        "run",
        "run",
        "report",
        "report",
        "card",
        "check",
    ]


def test_every_benchmark_is_described_with_its_items_and_its_columns() -> None:
    text = text_of("tasks/README.md")
    files = json.loads((ROOT / "tasks" / "checksums.json").read_text("utf-8"))["files"]
    cells = json.loads((MEASURED / "summary.json").read_text("utf-8"))["cells"]
    described = dict(
        re.findall(
            r"^## \S+\n\n(?:- .*\n)*?- What: .*`tasks/(\w+)\.py`\n((?:[- ] .*\n)+)",
            text,
            re.MULTILINE,
        )
    )
    assert list(described) == list(BENCHMARKS)
    for name, lines in described.items():
        benchmark = benchmark_class(name)
        table, *_ = (
            table
            for table in benchmark.dataset.tables.values()
            if table.path.partition("/")[2] != "dev/{part}_dev.csv"
        )
        counts = {sum(files[table.path_of(part)][1] for part in table.parts)}
        columns = [one for one in shipped().columns if one.benchmark == name]
        counts |= {cells[column.key]["n_items"] for column in columns}
        if len(table.parts) > 1:
            counts.add(len(table.parts))
        (items,) = re.findall(r"^- Items: (.*)$", lines, re.MULTILINE)
        per_part = {cells[name]["n_items"] // len(table.parts)} if name == "bbh" else set()
        assert numbers(items) - {2024} == counts | per_part, name
        said = [
            (heading, better)
            for heading, better in re.findall(
                r"^- Metric, `(.+?)`:[^`]*? (Higher|Lower) is better\.$", lines, re.M
            )
        ]
        assert said == [
            (column.heading, "Lower" if column.lower_is_better else "Higher") for column in columns
        ]


def test_what_the_author_of_a_benchmark_had_to_guess_is_said_of_what_there_is() -> None:
    text = (ROOT / "tasks" / "README.md").read_text("utf-8")
    rows = {
        line.split(" | ")[0].strip("| "): set(re.findall(r"`(\w+)`", line))
        for line in text.partition("## A benchmark of your own")[2].splitlines()
        if line.startswith("| ")
    }
    assert rows["an item's `id`, `group`"] >= {field.name for field in fields(Item)}
    assert rows["`Grade`"] >= {field.name for field in fields(Grade)} - {"id", "group"}
    estimators = {
        name
        for name, one in vars(stats).items()
        if inspect.isfunction(one)
        and get_type_hints(one).get("return") in (Metric, dict[str, Metric])
        and not name.startswith("_")
    }
    assert rows["estimators in `evals.stats`"] >= estimators - {"unfinished"}
    assert {"messages", "Sampling", "stop", "max_tokens"} <= rows["`Generate`"]
    assert {"messages", "candidates"} <= rows["`Choose`"]
    assert "`chat`, `opening`" in rows


def test_the_card_takes_what_is_said_and_the_smoke_suite_has_so_many_items() -> None:
    suites = dict(rows(text_of("tasks/README.md"), "`--suite`", "items"))
    assert list(suites) == ["`card`", "`full`", "`smoke`"]
    cells = json.loads((MEASURED / "summary.json").read_text("utf-8"))["cells"]
    assert numbers(suites["`card`"]) == {cells["gsm8k"]["n_items"], cells["bbh"]["n_items"] // 27}
    assert numbers(suites["`smoke`"]) == {
        sum(map(n_smoke_items, map(benchmark_class, BENCHMARKS))),
        256,
    }


def n_smoke_items(benchmark: type[Benchmark[Any]]) -> int:
    return len(list(benchmark(chat=True).items(load_smoke_data(benchmark.dataset))))


@pytest.mark.parametrize("name", WRITTEN)
def test_the_benchmarks_and_the_cards_rows_are_counted_right(name: str) -> None:
    words = {8: "eight"}
    counts = {"benchmarks": len(BENCHMARKS), "rows": len(published_rows())}
    for adjective, noun in re.findall(
        r"\b(two|three|four|five|six|seven|eight|nine|ten)(?: own)? (benchmarks|rows)\b",
        text_of(name),
    ):
        assert adjective == words[counts[noun]]


def test_the_figures_scored_again_are_so_many() -> None:
    figures = json.loads((ROOT / "results" / "reproduction" / "figures.json").read_text("utf-8"))[
        "figures"
    ]
    (said,) = re.findall(r"(\d+) of other people's figures", text_of("results/README.md"))
    assert int(said) == len(figures)


def test_the_measured_row_was_made_by_the_command_that_is_shown() -> None:
    record = json.loads((MEASURED / "run.json").read_text("utf-8"))
    command = f"evals run {record['model']} " + " ".join(
        f"--judge {judge}" for judge in record["judges"]
    )
    (made,) = [
        made
        for file, _, made in rows(
            text_of("results/README.md"), "file", "what", "made and renewed by"
        )
        if MEASURED.name in file
    ]
    assert made == f"`{command}`"


# --- nothing is left out --------------------------------------------------------------------------


def test_every_stored_result_says_how_it_was_made() -> None:
    text = text_of("results/README.md")
    listed = {
        name.strip("`")
        for file, *_ in rows(text, "file", "what", "made and renewed by")
        for name in file.split(", ")
    }
    assert all((ROOT / "results" / name).exists() for name in listed)
    git = subprocess.run(
        ["git", "ls-files", "results"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert {name.partition("/")[0] for name in listed} == {name.split("/")[1] for name in git} - {
        "README.md"
    }
    in_gate = {Path(name).name for name in git if name.startswith("results/gate/")}
    assert in_gate == set(re.findall(r"\(gate/([\w-]+\.md)\)", section(text, "The gate")))


def test_every_script_is_listed() -> None:
    listed = [
        name
        for cell, _ in rows(text_of("scripts/README.md"), "script", "does")
        for name in re.findall(r"`scripts/([\w-]+)`", cell)
    ]
    assert sorted(listed) == sorted(
        file.name
        for file in (ROOT / "scripts").iterdir()
        if file.is_file() and file.suffix != ".md"
    )


def test_the_house_is_shown_from_the_ground_up() -> None:
    shown = [
        room
        for cell, _ in rows(text_of("evals/README.md"), "room", "what lives there")
        for room in re.findall(r"`(\w+)`", cell)
    ]
    assert sorted(shown) == sorted(ROOMS)
    assert shown[4:] == list(ROOMS[4:])
    assert set(shown[:4]) == set(ROOMS[:4])


def test_every_kind_of_test_is_listed() -> None:
    listed = [folder for folder, _ in rows(text_of(".github/CONTRIBUTING.md"), "folder", "holds")]
    kinds = [file.name for file in (ROOT / "tests").iterdir() if list(file.rglob("test_*.py"))]
    assert sorted(listed) == sorted(f"`tests/{kind}/`" for kind in kinds)


# --- shown, and run -------------------------------------------------------------------------------


def test_a_digit_is_traced_by_the_commands_that_are_shown() -> None:
    lines = blocks(
        section(text_of("evals/README.md"), "From a digit to the line that made it")
    ).splitlines()
    assert len(lines) == 3
    for line in lines:
        command, _, shown = line.partition("  # ")
        script = f'evals() {{ "{sys.executable}" -m evals "$@"; }}; {command}'
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
            timeout=600,
        )
        assert shown.strip() in [out.strip() for out in done.stdout.splitlines()], command


def test_its_items_are_those_of_the_stored_checksums() -> None:
    data = json.loads((MEASURED / "summary.json").read_text("utf-8"))["data"]
    known = json.loads((ROOT / "tasks" / "checksums.json").read_text("utf-8"))["content"]
    assert data["gsm8k"]["tables"]["test"]["sha256"] == known["gsm8k/test"]


def test_what_can_still_be_measured_is_said_of_every_column_with_flags_that_are_taken() -> None:
    head = (
        "Column",
        "Card's judge",
        "Alive?",
        "What is offered",
        "Needs, and about what it costs a row",
        "May be compared with the card's",
    )
    table = rows(text_of("README.md"), *head)
    assert [row[0] for row in table] == [column.heading for column in table_columns()]
    classes = [benchmark_class(name) for name in BENCHMARKS]
    for column, judge, alive, offered, *_ in table:
        if judge in known_judges().by_name:
            is_gone = known_judges().by_name[judge].is_gone(date.today())
            assert alive == ("no" if is_gone else "yes"), column
        for flag in re.findall(r"`--judge (\S+)`", offered):
            (found,) = judges_of([flag], classes).values()
            assert gone({found.role: found}, date(2026, 12, 1)) == {}, flag
