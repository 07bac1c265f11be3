"""The HTML report in a real browser: search, filters, deep links, hostile text, 20,000 items,
keyboard, colours, phone, accessibility.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from evals.compare.runs import compare
from evals.compare.text import markdown as markdown_of
from evals.report.html import write_report
from evals.report.run_row import row_from_summary
from evals.report.table import markdown
from evals.storage.run_folder import RunFolder
from tests.browser.chromium import Browser, browser, executable
from tests.browser.runs import (
    N_LARGE,
    NAME,
    NEEDLE_AT,
    SHOWN,
    large_run,
    row,
    small_runs,
    write_run,
)

pytestmark = pytest.mark.skipif(
    executable() is None, reason="no Chromium on this machine: apt-get install chromium"
)
MANY_NAMES = {
    "button",
    "link",
    "searchbox",
    "textbox",
    "combobox",
    "checkbox",
    "listbox",
    "option",
    "img",
    "image",
    "region",
    "article",
}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The page of two small runs, and of one large one."""
    folder = tmp_path_factory.mktemp("pages")
    ours, theirs = small_runs(folder)
    (folder / "no-data").mkdir()
    said = markdown_of(compare(theirs, ours, folder / "no-data"))
    write_report(folder / "small.html", [ours], theirs, folder / "no-data", None, [said])
    write_report(folder / "large.html", [large_run(folder)], None, folder / "no-data")
    return {"small": folder / "small.html", "large": folder / "large.html"}


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as opened:
        yield opened


@pytest.fixture
def small(chromium: Browser, pages: dict[str, Path]) -> Browser:
    chromium.look()
    chromium.open(pages["small"])
    return chromium


def ids(page: Browser) -> list[str]:
    """The items of the list as they stand."""
    return [item.removeprefix("gsm8k/") for item in page.js("shown.map((entry) => entry.id)")]


def count(page: Browser, text: str) -> None:
    """Wait until the line above the list says this."""
    page.until(f"document.querySelector('#count').textContent === {json.dumps(text)}")


def detail(page: Browser, item: str) -> str:
    """Wait until an item is open; what the reader sees of it."""
    page.until(f"document.querySelector('#detail h3')?.textContent === {json.dumps(item)}")
    return str(page.js("document.querySelector('#detail').innerText"))


# --- from disk, and quick -------------------------------------------------------------------------


def test_it_opens_from_disk_asks_for_nothing_and_complains_of_nothing(
    small: Browser, pages: dict[str, Path]
) -> None:
    assert small.requests == [pages["small"].as_uri()]
    assert small.messages == []
    count(small, "10 of 10 items")


def test_of_twenty_thousand_items_the_first_view_makes_only_the_rows_in_sight_and_opens_no_text(
    chromium: Browser, pages: dict[str, Path]
) -> None:
    chromium.look()
    chromium.open(pages["large"])
    count(chromium, f"{N_LARGE:,} of {N_LARGE:,} items")
    assert 5 < chromium.js("document.querySelectorAll('.row').length") < 60
    assert chromium.js("[...opened.keys()]") == ["i-0-0"]
    assert chromium.js("document.querySelectorAll('*').length") < 2500
    chromium.js("list.scrollTop = list.scrollHeight")
    chromium.until(
        f"document.querySelector('.row:last-child').dataset.id === 'gsm8k/{N_LARGE - 1}'"
    )


def test_search_reads_every_text_of_twenty_thousand_items_and_marks_what_it_finds(
    chromium: Browser, pages: dict[str, Path]
) -> None:
    chromium.look()
    chromium.open(pages["large"])
    chromium.press("/")
    chromium.type("xylophone")
    count(chromium, f"1 of {N_LARGE:,} items")
    assert ids(chromium) == [str(NEEDLE_AT)]
    chromium.press("ArrowDown")
    assert "XYLOPHONE" in detail(chromium, f"gsm8k/{NEEDLE_AT}")
    assert chromium.js("document.querySelector('#detail mark').textContent") == "XYLOPHONE"


# --- finding --------------------------------------------------------------------------------------


def test_search_wants_all_words_and_quoted_ones_together_whatever_they_mean_to_a_pattern(
    small: Browser,
) -> None:
    wanted = {
        "QUOKKAS": ["0", "1"],
        "answer quokkas no": ["1"],
        '"unsayable, unknow" quite': ["2"],
        '"unknowable quite"': [],
    }
    wanted |= {"quokkas.*12": [], "[31m": ["5"], "theirs": [], "gsm8k/4": ["4"]}
    for words, found in wanted.items():
        small.js(f"go({{q: {json.dumps(words)}}})")
        assert ids(small) == found, words


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        ("wrong", ["1", "2", "3", "4", "mmlu/astronomy/1", "ifeval/1", "ifeval/2"]),
        ("unparsed", ["2", "4"]),
        ("truncated", ["3"]),
        ("empty", ["4"]),
        ("flipped", ["0", "1"]),
    ],
)
def test_each_filter_shows_its_items_and_says_how_many(
    small: Browser, kind: str, found: list[str]
) -> None:
    small.click(f"#{kind} input")
    count(small, f"{len(found)} of 10 items")
    assert ids(small) == found
    assert small.js(f"document.querySelector('#{kind} output').textContent") == str(len(found))
    assert small.js("location.hash") == f"#only={kind}"


def test_filters_and_search_are_kept_in_the_address_and_hold_together(
    small: Browser, pages: dict[str, Path]
) -> None:
    small.open(pages["small"], "#task=gsm8k&only=wrong,unparsed&q=unsayable")
    count(small, "1 of 6 items")
    assert ids(small) == ["2"]
    assert small.js(
        "[document.querySelector('#q').value, document.querySelector('#task').value]"
    ) == ["unsayable", "gsm8k"]


def test_a_deep_link_opens_its_item_with_prompt_output_gold_and_grade(
    chromium: Browser, pages: dict[str, Path]
) -> None:
    chromium.look()
    chromium.open(pages["small"], "#item=gsm8k/1")
    text = detail(chromium, "gsm8k/1")
    for part in (
        "So the answer is 7.",
        "theirs 1",
        "Prompt",
        "Output of My 8B",
        "Gold",
        "score",
        "Question:",
    ):
        assert part in text, part
    assert "Not at hand" not in text
    box = chromium.js("document.querySelector('#detail').getBoundingClientRect().top")
    assert 0 <= box < 400, "the item is on the screen"
    chromium.js("location.hash = '#item=gsm8k/3'")
    assert "cut at the token limit" in detail(chromium, "gsm8k/3")
    chromium.js("location.hash = '#item=gsm8k/99'")
    chromium.until(
        "document.querySelector('#detail').innerText.includes('There is no item gsm8k/99')"
    )


def test_a_deep_link_among_twenty_thousand_brings_its_row_into_view(
    chromium: Browser, pages: dict[str, Path]
) -> None:
    chromium.look()
    chromium.open(pages["large"], "#item=gsm8k/17")
    detail(chromium, "gsm8k/17")
    chromium.js("location.hash = '#item=gsm8k/12345'")
    assert "12345" in detail(chromium, "gsm8k/12345")
    selected = "document.querySelector('.row[aria-selected=true]')"
    assert chromium.js(f"{selected}.dataset.id") == "gsm8k/12345"
    inside = "(r, l) => r.top >= l.top - 1 && r.bottom <= l.bottom + 1"
    assert chromium.js(
        f"({inside})({selected}.getBoundingClientRect(), list.getBoundingClientRect())"
    )


# --- hostile text ---------------------------------------------------------------------------------


def test_hostile_text_is_shown_as_it_is_and_nothing_of_it_runs(
    small: Browser, pages: dict[str, Path]
) -> None:
    n_scripts = small.js("document.scripts.length")
    small.open(pages["small"], "#item=gsm8k/5")
    detail(small, "gsm8k/5")
    texts = small.js("[...document.querySelectorAll('#detail pre')].map((e) => e.textContent)")
    cleaned = SHOWN.replace("\ud800", "\ufffd")
    assert [text.replace("\ud800", "\ufffd") for text in texts].count(cleaned) == 2, (
        "the output and the answer as read"
    )
    small.js("go({q: '<img'})")
    count(small, "1 of 10 items")
    assert small.js("document.querySelector('#detail mark') !== null")
    assert (
        small.js(
            "document.querySelectorAll('#detail img, #detail script, #detail style, #list img, h1"
            " img, main img').length"
        )
        == 0
    )
    assert small.js("document.scripts.length") == n_scripts
    assert NAME in small.js("document.title")
    assert small.js("typeof hacked") == "undefined"
    assert small.messages == []


def test_what_differs_stands_in_a_table_with_intervals_whatever_the_runs_are_called(
    small: Browser,
) -> None:
    rows = small.js(
        "[...document.querySelectorAll('#differences tr')].map((r) => [...r.cells].map((c) =>"
        " c.innerText))"
    )
    assert rows[0][:6] == ["Column", "Items", "A", "B", "B - A in points [95 %]", "p"]
    # of six items of one column the second is right here only in the first
    assert rows[1][:4] == ["GSM8k 8-shot cot", "6", "33.3", "33.3"]
    assert NAME in small.js("document.querySelector('#differences').innerText")
    assert small.js("document.querySelectorAll('#differences img').length") == 0


def test_an_instruction_that_was_not_followed_is_named(
    chromium: Browser, pages: dict[str, Path]
) -> None:
    chromium.look()
    chromium.open(pages["small"], "#item=ifeval/1")
    text = detail(chromium, "ifeval/1")
    assert "not followed\nlength_constraints:number_words\n" in text


def test_of_many_samples_those_that_ended_in_one_way_can_be_looked_at_alone(
    chromium: Browser, tmp_path: Path
) -> None:
    ends = ["passed", "wrong_answer", "wrong_answer", "time"]
    item = {
        **row(0, "", 0.25),
        "id": "humaneval/HumanEval/0",
        "outputs": [f"    return {at}" for at in range(4)],
        "finish_reasons": ["stop"] * 4,
        "n_tokens": [3] * 4,
        "findings": {
            f"sample/{at}": {"by": "process", "outcome": {"status": end, "detail": ""}}
            for at, end in enumerate(ends)
        },
    }
    run = write_run(tmp_path / "run", "M", {"humaneval": [item]})
    write_report(tmp_path / "page.html", [run], None, tmp_path)
    chromium.look()
    chromium.open(tmp_path / "page.html", "#item=humaneval/HumanEval/0")
    detail(chromium, "humaneval/HumanEval/0")
    outputs = "[...document.querySelectorAll('#detail pre[aria-label^=Output]')]"
    seen = f"{outputs}.filter((e) => e.offsetHeight).map((e) => e.textContent.trim())"
    buttons = "[...document.querySelectorAll('#detail .samples button')]"
    assert chromium.js(f"{buttons}.map((b) => b.innerText)") == [
        "all 4", "passed 1", "wrong answer 2", "time 1",
    ]  # fmt: skip
    assert len(chromium.js(seen)) == 4
    chromium.js(f"{buttons}[2].click()")
    assert chromium.js(seen) == ["return 1", "return 2"]
    chromium.js(f"{buttons}[0].click()")
    assert len(chromium.js(seen)) == 4


def test_the_policy_stops_a_script_and_a_load_that_got_in_all_the_same(small: Browser) -> None:
    small.js(
        "document.body.insertAdjacentHTML('beforeend', `<img src='file:///x.png' onerror='hacked ="
        " 5'>`)"
    )
    small.js(
        "{ const s = document.createElement('script'); s.textContent = 'hacked = 6';"
        " document.body.append(s); }"
    )
    small.until("document.querySelectorAll('img').length === 1")
    assert small.js("typeof hacked") == "undefined"
    refused = [message for message in small.messages if "Content Security Policy" in message]
    assert any("x.png" in message for message in refused)
    assert any("script-src" in message for message in refused)


# --- table, parts, plots --------------------------------------------------------------------------


def test_a_number_says_its_interval_on_focus_and_the_switch_shows_them_all(small: Browser) -> None:
    small.js("document.querySelector('.card [data-tip*=\"95 %\"]').focus()")
    assert re.search(r"95 % interval \d+\.\d–\d+\.\d · n = 2", small.js("tip.textContent"))
    assert not small.js("tip.hidden")
    assert small.js("document.querySelector('.card .ci').getBoundingClientRect().width") <= 1
    small.click("#intervals")
    small.until("document.querySelector('.card .ci').getBoundingClientRect().width > 20")


def test_a_column_sorts_both_ways_by_its_numbers(small: Browser) -> None:
    head = ".card thead th:nth-child(3)"
    for direction in ("descending", "ascending"):
        small.click(f"{head} button")
        assert small.js(f"document.querySelector('{head}').getAttribute('aria-sort')") == direction
        cells = small.js(
            "[...document.querySelectorAll('.published tr')].map((r) =>"
            " Number(r.cells[2].dataset.v))"
        )
        assert cells == sorted(cells, reverse=direction == "descending")
        assert len(cells) == 8


@pytest.mark.parametrize("may", [True, False])
def test_the_table_is_copied_as_markdown(small: Browser, pages: dict[str, Path], may: bool) -> None:
    runs = pages["small"].parent
    rows = [RunFolder(runs / name).read_json("summary.json") for name in ("ours", "theirs")]
    expected = markdown([row_from_summary(summary) for summary in rows])
    if not may:
        small.js("navigator.clipboard.writeText = () => Promise.reject(new Error('no'))")
    small.js("document.querySelector('#copy').closest('details').open = true")
    small.call(
        "Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"]
    )
    small.call("Emulation.setFocusEmulationEnabled", enabled=True)
    small.click("#copy")
    small.until("document.querySelector('#copied').textContent !== ''")
    if may:
        assert small.js("document.querySelector('#copied').textContent") == "Copied."
        copied = small.js("navigator.clipboard.readText()")
    else:
        copied = small.js("getSelection().toString()")
    assert copied.strip() == expected.strip()


def test_sub_scores_lead_to_their_items(small: Browser) -> None:
    small.click(".part summary")
    small.click(".part[open] tbody a")
    small.until("shown.length > 0 && shown.length < entries.length")
    assert set(ids(small)) <= {"ifeval/1", "ifeval/2"}


def test_both_plots_are_drawn_and_every_point_of_the_first_is_there(small: Browser) -> None:
    assert small.js("document.querySelectorAll('.plot.wide svg').length") == 2
    marks = small.js(
        "[...document.querySelectorAll('.plot.wide svg [data-tip] use')].map((e) =>"
        " e.getBoundingClientRect().width)"
    )
    n_published = 8 * 11 - 7
    assert len(marks) == n_published + 4
    assert min(marks) > 3, "every marker has a size"


# --- keyboard, colours, phone, accessibility ------------------------------------------------------


def test_the_keyboard_alone_searches_moves_and_opens(small: Browser) -> None:
    small.press("/")
    assert small.js("document.activeElement.id") == "q"
    small.type("quokkas")
    count(small, "2 of 10 items")
    small.press("ArrowDown")
    assert small.js("document.activeElement.id") == "list"
    detail(small, "gsm8k/0")
    small.press("j")
    detail(small, "gsm8k/1")
    small.press("k")
    detail(small, "gsm8k/0")
    small.press("End")
    detail(small, "gsm8k/1")
    assert small.js("list.getAttribute('aria-activedescendant')") == "row-1"
    small.press("/")
    small.press("Escape")
    count(small, "10 of 10 items")


def test_the_tab_key_reaches_every_control_and_shows_where_it_is(small: Browser) -> None:
    wanted = set(
        small.js(
            "[...document.querySelectorAll('#find input, #find select, #list, #theme')]"
            ".filter((e) => e.checkVisibility()).map((e) => e.id || e.value)"
        )
    )
    for _ in range(400):
        small.press("Tab")
        about = small.js(
            "(() => { const e = document.activeElement; return [e.id || e.value || '',"
            " getComputedStyle(e).outlineStyle]; })()"
        )
        wanted.discard(about[0])
        assert about[1] != "none", about
        if not wanted:
            return
    raise AssertionError(f"never reached: {wanted}")


CONTRAST = """
(() => {
  const canvas = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
  const rgba = (color) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data]; };
  const linear = (v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = (c) => { const [r, g, b] = c.slice(0, 3).map(linear);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const c = rgba(getComputedStyle(e).backgroundColor); if (c[3] === 255) return c; }
    return rgba('white'); };
  const found = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const e = walk.currentNode.parentElement;
    if (!walk.currentNode.data.trim() || !e.checkVisibility()) continue;
    if (e.closest('script, svg, .vh, .skip, [hidden]')) continue;
    const [a, b] = [light(rgba(getComputedStyle(e).color)), light(behind(e))].sort((x, y) => y - x);
    found.push([(a + 0.05) / (b + 0.05), walk.currentNode.data.trim().slice(0, 30), e.className]);
  }
  return found.sort((x, y) => x[0] - y[0]);
})()
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_from_its_background_in_both_colour_schemes(
    chromium: Browser, pages: dict[str, Path], scheme: str
) -> None:
    chromium.look(scheme=scheme)
    chromium.open(pages["small"], "#item=gsm8k/3&q=count")
    detail(chromium, "gsm8k/3")
    found = chromium.js(CONTRAST)
    assert len(found) > 150
    assert found[0][0] >= 4.5, found[:5]
    background = chromium.js("getComputedStyle(document.body).backgroundColor")
    assert background == {"light": "rgb(250, 249, 246)", "dark": "rgb(19, 20, 23)"}[scheme]


def test_the_button_overrides_the_systems_colours(small: Browser) -> None:
    seen = []
    for _ in range(3):
        small.click("#theme")
        seen.append(
            (
                small.js("getComputedStyle(document.body).backgroundColor"),
                small.js("theme.ariaLabel || $('#theme').ariaLabel"),
            )
        )
    assert [color for color, _ in seen] == [
        "rgb(250, 249, 246)",
        "rgb(19, 20, 23)",
        "rgb(250, 249, 246)",
    ]
    assert [label for _, label in seen] == [
        f"Colours: {name}. Change" for name in ("light", "dark", "as the system")
    ]


@pytest.mark.parametrize("width", [320, 390])
def test_on_a_phone_nothing_sticks_out_and_an_item_takes_the_screen(
    chromium: Browser, pages: dict[str, Path], width: int
) -> None:
    chromium.look(width, 800, phone=True)
    chromium.open(pages["small"])
    assert chromium.js("document.documentElement.scrollWidth") <= width
    assert (
        chromium.js("getComputedStyle(document.querySelector('.plot.narrow')).display") == "block"
    )
    chromium.click(".row")
    detail(chromium, "gsm8k/0")
    assert chromium.js("document.documentElement.scrollWidth") <= width
    assert not chromium.js("list.checkVisibility()")
    chromium.click(".back")
    chromium.until("list.checkVisibility()")
    assert not chromium.js("document.querySelector('#detail').checkVisibility()")


def test_everything_that_can_be_used_has_a_name_for_those_who_do_not_see_it(
    chromium: Browser, pages: dict[str, Path]
) -> None:
    chromium.look()
    chromium.open(pages["small"], "#item=gsm8k/1")
    detail(chromium, "gsm8k/1")
    nodes = [
        node
        for node in chromium.call("Accessibility.getFullAXTree")["nodes"]
        if not node["ignored"]
    ]
    roles = {node["role"]["value"] for node in nodes}
    assert {
        "button",
        "link",
        "searchbox",
        "combobox",
        "checkbox",
        "listbox",
        "option",
        "heading",
        "main",
        "table",
        "status",
    } <= roles
    nameless = [
        node
        for node in nodes
        if node["role"]["value"] in MANY_NAMES and not node.get("name", {}).get("value", "").strip()
    ]
    assert nameless == []
    assert chromium.js("document.documentElement.lang") == "en"
    assert chromium.js(
        "document.querySelectorAll('[id]').length === new"
        " Set([...document.querySelectorAll('[id]')].map((e) => e.id)).size"
    )
