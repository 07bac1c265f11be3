"""The page of several runs: every number of the text is on it, and nothing of theirs runs."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import count, product
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evals.cards.published import card_named
from evals.compare.series import Series, Steps, rows, series
from evals.compare.series_page import page, write_page
from evals.errors import InputError
from evals.records import Column
from evals.storage.run_folder import RunFolder
from tests.run_files import summary
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


def test_what_is_no_share_is_not_said_to_be_in_points(found: Series) -> None:
    first = found.columns[0]
    own = replace(first, column=replace(first.column, unit="own"))
    text = page(replace(found, columns=(own,)))
    assert "Differences, in its own unit" in text
    assert "in points" not in text


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


# --- any shape of runs ----------------------------------------------------------------------------

KEYS = ("mmlu", "gsm8k", "xstest_safe_refused", "average")
VALUES = st.none() | st.floats(0, 1) | st.sampled_from([0.0, 1.0, 0.5])
SHAPES = st.lists(st.dictionaries(st.sampled_from(KEYS), VALUES), min_size=2, max_size=30)
COUNTER = count()


def run_of(folder: Path, cells: dict[str, float | None], **changes: Any) -> Path:
    """A run folder with these cells and no samples, as a run has that was copied without them."""
    filled = {
        key: {"value": v, "n": 4, "n_items": 4, "stderr": None if v is None else 0.01}
        | {"ci95": None if v is None else [max(0.0, v - 0.1), min(1.0, v + 0.1)]}
        for key, v in cells.items()
    }
    RunFolder(folder).write_json("summary.json", summary(filled, **changes))
    return folder


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(SHAPES)
def test_any_number_of_runs_with_any_cells_has_a_page_or_a_sentence(
    tmp_path: Path, shape: list[dict[str, float | None]]
) -> None:
    at = tmp_path / str(next(COUNTER))
    folders = [run_of(at / str(n), cells) for n, cells in enumerate(shape)]
    found = write_page(at / "p.html", folders)
    read = Texts((at / "p.html").read_text("utf-8"))
    assert len(found.names) == len(shape)
    for steps in found.columns:
        assert sum(cell.get("value") is not None for cell in steps.cells) >= 2
        assert steps.cells[steps.best].get("value") is not None
        for row in rows(steps, found.names):
            assert set(filter(None, row[1:])) <= set(read.cells)
    for key in {key for cells in shape for key in cells}:
        n = sum(cells.get(key) is not None for cells in shape)
        assert (key in {one.column.key for one in found.columns}) == (n >= 2), key
    for svg in re.findall(r"<svg.*?</svg>", page(found), re.S):
        for circle in ElementTree.fromstring(svg).iter("circle"):
            assert 0 <= float(circle.attrib["cy"]) <= 220
            assert 0 <= float(circle.attrib["cx"]) <= 520


def test_runs_of_other_cards_have_a_page_or_a_sentence(tmp_path: Path) -> None:
    cards = [card_named(name) for name in ("llama-3.1-tulu-2", "tulu-3", "olmo-2")]
    for number, three in enumerate([(a, b, a) for a, b in product(cards, repeat=2)][1:6]):
        folders = []
        for at, card in enumerate(three):
            keys = [column.key for column in card.columns if column.benchmark]
            about = {"card": card.as_json(), "protocol": card.protocol}
            folders.append(run_of(tmp_path / f"{number}-{at}", dict.fromkeys(keys, 0.5), **about))
        found = write_page(tmp_path / "p.html", folders)
        own = {column.key for column in three[0].columns if column.benchmark}
        assert own - {one.column.key for one in found.columns} <= (
            set() if len({card.title for card in three[:2]}) == 1 else own
        )
        assert any("two cards" in note for note in found.notes) == (len({*map(id, three)}) > 1)


@pytest.mark.parametrize("n", [0, 1])
def test_one_run_is_no_series(tmp_path: Path, n: int) -> None:
    with pytest.raises(InputError, match="two runs or more"):
        write_page(tmp_path / "p.html", [run_of(tmp_path / "a", {"gsm8k": 0.5})] * n)
    assert not (tmp_path / "p.html").exists()


def test_a_perplexity_is_drawn_in_its_own_unit_and_has_no_points() -> None:
    column = Column("p", "Perplexity", True, unit="own", decimals=3)
    cells = [{"value": v, "ci95": [v - 1, v + 1], "stderr": 0.5} for v in (35.2, 30.0, 31.0)]
    steps = Steps(column, tuple(cells), {}, {}, 1, 2.7, "no share of items")
    found = Series(("a", "b", "c"), (steps,), (), ())
    text = page(found)
    assert "35.200 [34.200, 36.200]" in text
    assert "scatter by 2.7000 (one" in text
    assert "without differences: Perplexity: no share of items" in text
    circles = ElementTree.fromstring(re.findall(r"<svg.*?</svg>", text, re.S)[0]).iter("circle")
    first, best, last = (float(one.attrib["cy"]) for one in circles)
    assert 0 < first < last < best < 220
