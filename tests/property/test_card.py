"""Laws of `evals card` over random READMEs: front matter of any keys, styles, comments and line
ends, other people's results, bodies with code of any fence.
"""

import tempfile
from functools import cache
from pathlib import Path

import yaml
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from evals.storage.run_folder import RunFolder
from tests.readmes import check_card
from tests.unit.report.test_card import run_folder

words = st.text("abc xyzÄ模🦙:#-'\"&*!|>[]{}%@`,?\\", min_size=1, max_size=12)
numbers = st.sampled_from(["1.50", "1e-05", "0x1F", "1_000", "012", ".nan", "no", "~", "1:30"])
quoted = words.map(lambda text: "'" + text.replace("'", "''") + "'")
comments = st.sampled_from(["", "", "  # a comment", " #"])
blanks = st.sampled_from(["", "", "", "\n", "# on its own\n", "  # set in\n", "\n\n"])


@st.composite
def block_texts(draw: st.DrawFn, indent: int) -> str:
    """A block scalar's head and lines, blank ones among and behind them."""
    head = draw(st.sampled_from(["|", ">", "|-", ">-", "|+", ">+", "|  # c"]))
    lines = draw(st.lists(st.sampled_from(["text", "  deeper", "# no comment", "", "- a: b"])))
    return head + "\n" + "\n".join(" " * indent + line for line in ["first", *lines]) + "\n"


def flows(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(inner, max_size=3).flatmap(
        lambda found: st.sampled_from(
            [
                f"[{', '.join(found)}]",
                f"[ {' ,  '.join(found)} ]",
                "{" + ", ".join(f"k{n}: {one}" for n, one in enumerate(found)) + "}",
            ]
        )
    )


flat = st.recursive(st.one_of(numbers, quoted), flows, max_leaves=4)


@st.composite
def values(draw: st.DrawFn, indent: int = 0) -> str:
    """What stands behind a key's colon, with its line end."""
    kind = draw(
        st.sampled_from(["flat", "flat", "block", "map", "list"] if indent < 6 else ["flat"])
    )
    pad = " " * indent
    if kind == "flat":
        return f" {draw(flat)}{draw(comments)}\n"
    if kind == "block":
        return " " + draw(block_texts(indent + 2))
    if kind == "map":
        inner = draw(st.lists(values(indent + 2), min_size=1, max_size=2))
        return "\n" + "".join(f"{pad}  m{n}:{one}" for n, one in enumerate(inner))
    inner = draw(st.lists(flat, min_size=1, max_size=3))
    return "\n" + "".join(f"{pad}- {one}\n" for one in inner)


@st.composite
def entries(draw: st.DrawFn, indent: int) -> str:
    """Someone's result in block style."""
    pad = " " * indent
    return (
        draw(blanks)
        + f"{pad}- task: {{type: t}}{draw(comments)}\n"
        + f"{pad}  dataset:\n{pad}    type: a/b\n{pad}    name: {draw(quoted)}\n"
        + f"{pad}  metrics:\n{pad}  - type: acc\n{pad}    value: {draw(numbers)}{draw(comments)}\n"
        + (f"{pad}    name:{draw(values(indent + 4))}" if draw(st.booleans()) else "")
    )


@st.composite
def indexes(draw: st.DrawFn) -> str:
    """A model-index with other people's results."""
    name = draw(st.sampled_from(["My 8B", "my-8b", "me/my_8b"]))
    if draw(st.booleans()):
        results = draw(
            st.lists(flat.map(lambda one: f"{{task: {{type: t}}, x: {one}}}"), min_size=1)
        )
        inner = f"[{', '.join(results)}{draw(st.sampled_from(['', ',', ' ']))}]"
        if draw(st.booleans()):
            return f"model-index: [{{name: {name}, results: {inner}}}]{draw(comments)}\n"
        return f"model-index:\n- name: {name}\n  results: {inner}{draw(comments)}\n"
    indent = draw(st.sampled_from([2, 4, 6]))
    found = draw(st.lists(entries(indent), min_size=1, max_size=3))
    return f"model-index:{draw(comments)}\n- name: {name}\n  results:\n" + "".join(found)


@st.composite
def bodies(draw: st.DrawFn) -> str:
    """Headings, real and not, and code in fences of any length, all closed."""
    fence = st.tuples(st.sampled_from("`~"), st.integers(3, 6)).map(lambda one: one[0] * one[1])
    parts = st.one_of(
        st.sampled_from(["# M\n", "## Evaluation\n", "### results ##\n", "Words\n", "\n", "- a\n"]),
        st.sampled_from(
            ["<!--\n# Results\n-->\n", "<pre>\n\n# Results\n</pre>\n", "    # Results\n"]
        ),
        fence.map(lambda one: f"{one}\n{one[1:]}\n# Results\n---\n{one}\n"),
        words.map(lambda text: f"{text.replace('`', '')}\n"),
    )
    text = "".join(draw(st.lists(parts, max_size=8)))
    return text if draw(st.booleans()) else text.rstrip("\n")


@st.composite
def cards(draw: st.DrawFn) -> str:
    body = draw(bodies())
    if draw(st.integers(0, 5)) == 0:
        text = body
    else:
        keys = [f"k{n}:{one}" for n, one in enumerate(draw(st.lists(values(), max_size=4)))]
        if draw(st.booleans()):
            keys.insert(draw(st.integers(0, len(keys))), draw(indexes()))
        metadata = "".join(draw(blanks) + key for key in keys) + draw(blanks)
        text = f"---\n{metadata}---" + (f"\n{body}" if body else "")
    text = text.replace("\n", draw(st.sampled_from(["\n", "\n", "\r\n"])))
    return draw(st.sampled_from(["", "", "\ufeff"])) + text


@cache
def runs() -> tuple[Path, Path, Path]:
    """One, one with other numbers, one of a part of the data."""
    home = Path(tempfile.mkdtemp())
    first, second, part = (
        run_folder(home / str(n), value=value) for n, value in enumerate((0.655, 0.7, 0.7))
    )
    summary = RunFolder(part).read_json("summary.json")
    RunFolder(part).write_json("summary.json", summary | {"suite": "smoke"})
    return first, second, part


def is_well_formed(text: str) -> bool:
    """Whether the hub reads the card's metadata."""
    from huggingface_hub.repocard import REGEX_YAML_BLOCK

    found = REGEX_YAML_BLOCK.search(text.removeprefix("\ufeff"))
    try:
        return found is None or isinstance(yaml.safe_load(found[2]), dict | None)
    except yaml.YAMLError:
        return False


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(cards())
def test_all_but_ours_stays_and_a_second_time_changes_nothing(text: str) -> None:
    assume(is_well_formed(text))
    with tempfile.TemporaryDirectory() as folder:
        check_card(Path(folder) / "README.md", text, runs())
