"""The page of several runs: every number of the text is on it, and nothing of theirs runs."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evals.compare.series import Series, rows, series
from evals.compare.series_page import page, write_page
from tests.unit.compare.test_series import one_wrong
from tests.unit.conftest import Call, Make, wrong_sums


@pytest.fixture(scope="module")
def found(recorded: Make) -> Series:
    return series(
        [recorded("one wrong", one_wrong), recorded("right"), recorded("broken", wrong_sums)]
    )


class Texts(HTMLParser):
    """A page's texts, and the tags in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.cells: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        assert not any(name.startswith("on") for name, _ in attrs)

    def handle_data(self, data: str) -> None:
        self.cells.append(data)


def test_every_number_of_the_table_is_on_the_page(found: Series) -> None:
    read = Texts(page(found))
    for steps in found.columns:
        for row in rows(steps, found.names):
            assert set(filter(None, row[1:])) <= set(read.cells)
    assert "GSM8k 8-shot cot: the last 3 runs scatter by 53.58 points" in page(found)
    assert not read.tags & {"script", "img", "link", "iframe", "object"}


def test_a_plot_has_a_point_a_run_in_order_and_a_better_one_stands_higher(found: Series) -> None:
    plots = [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", page(found), re.S)]
    assert len(plots) == len(found.columns)
    at = [one.column.key for one in found.columns].index("gsm8k")
    points = [
        {k: float(v) for k, v in c.attrib.items() if k in "cx cy"} for c in plots[at].iter("circle")
    ]
    assert [p["cx"] for p in points] == sorted(p["cx"] for p in points)
    assert points[1]["cy"] < points[0]["cy"] < points[2]["cy"]
    (best,) = [n for n, c in enumerate(plots[at].iter("circle")) if c.get("fill") == "var(--run0)"]
    assert best == found.columns[at].best
    for circle in (c for plot in plots for c in plot.iter("circle")):
        assert 0 <= float(circle.attrib["cy"]) <= 220


@settings(
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(st.text(max_size=20), min_size=3, max_size=3))
def test_a_name_is_only_a_text(found: Series, names: list[str]) -> None:
    hostile = [f"</title><script>{name}" for name in names]
    read = Texts(page(replace(found, names=tuple(hostile), notes=tuple(hostile))))
    assert "script" not in read.tags


def test_twenty_runs_and_a_run_without_a_value_have_a_page(recorded: Make, tmp_path: Path) -> None:
    folders = [recorded("right"), recorded("broken", wrong_sums)] * 10
    made = write_page(tmp_path / "p.html", folders)
    assert len(made.names) == 20
    assert (tmp_path / "p.html").read_text("utf-8") == page(made)
    (gsm8k,) = [one for one in made.columns if one.column.key == "gsm8k"]
    lost = replace(gsm8k, cells=({"value": None}, *gsm8k.cells[1:]), best=2)
    text = page(replace(made, columns=(lost,)))
    assert text.count("<circle") == 19


def test_the_command_writes_it(recorded: Make, evals: Call, tmp_path: Path) -> None:
    right, broken = recorded("right"), recorded("broken", wrong_sums)
    code, out, _ = evals("compare", right, broken, "--html", tmp_path / "two.html")
    assert (code, "2 runs in their order" in out) == (0, True)
    assert "<svg" in (tmp_path / "two.html").read_text("utf-8")
    code, _, err = evals("compare", right, broken, "--html", tmp_path / "x.html", "--why")
    assert (code, "without --html" in err) == (2, True)
