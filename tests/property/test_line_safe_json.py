"""A line of JSON is one line for whoever splits it, whatever a model wrote into it."""

import ast
import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.data.dataset import LoadedSource
from evals.data.files import read_jsonl
from evals.data.hub import _keep
from evals.generators.replay import read_recorded
from evals.models.prompts import Rendered
from evals.records import ItemId, Sampling
from evals.report import show
from evals.report.export import write_items
from evals.storage.files import json_line, line_safe
from evals.storage.run_folder import RunFolder, to_json
from tests.run_files import RECORD

ROOT = Path(__file__).resolve().parents[2]
ENDS = [chr(n) for n in range(0x110000) if len(f"x{chr(n)}x".splitlines()) == 2]
"""Every character at which Python ends a line: those of C, Java and JavaScript are among them."""
HARD = [*ENDS, "\ud800", "\udfff", "\ude00", "\ud83d", "\\", '"', "😀", "\x7f", "\ufeff"]
TEXTS = st.text(st.characters() | st.sampled_from(HARD), max_size=20)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)
AWFUL = "a".join([*HARD, "\\u2028"])


def paired(value: Any) -> Any:
    """The value with the halves of a surrogate pair that stand next to each other as the character
    they spell: JSON writes both alike.
    """
    if isinstance(value, str):
        return re.sub(
            "[\ud800-\udbff][\udc00-\udfff]",
            lambda found: found[0].encode("utf-16", "surrogatepass").decode("utf-16"),
            value,
        )
    if isinstance(value, dict):
        return {paired(key): paired(entry) for key, entry in value.items()}
    return [paired(entry) for entry in value] if isinstance(value, list) else value


def as_read(text: str) -> Any:
    """What a reader of lines has in hand: the text once written as UTF-8, as one line."""
    (line,) = text.encode("utf-8").decode("utf-8").splitlines()
    return json.loads(line)


# --- any value ------------------------------------------------------------------------------------


@given(VALUES)
def test_any_value_is_one_line_and_comes_back(value: Any) -> None:
    assert as_read(json_line(value)) == paired(value)


@given(VALUES)
def test_so_it_is_in_a_runs_own_form(value: Any) -> None:
    read = as_read(to_json(value, indent=None))
    assert as_read(to_json(read, indent=None)) == read


@given(VALUES)
def test_nothing_else_is_changed(value: Any) -> None:
    plain = json.dumps(value, ensure_ascii=False)
    if not re.search("[\x85\u2028\u2029\ud800-\udfff]", plain):
        assert json_line(value) == line_safe(plain) == plain


@pytest.mark.parametrize("end", ENDS)
def test_each_end_of_a_line_is_escaped(end: str) -> None:
    for line in (json_line({end: [end]}), to_json({end: [end]}, indent=None)):
        assert end not in line
        assert as_read(line) == {end: [end]}
    assert end == "\n" or end not in to_json({end: end})


def test_the_ends_of_lines_are_the_known_ones() -> None:
    """Should a newer Unicode or Python know another, `line_safe` has to know it too."""
    assert "".join(ENDS) == "\n\v\f\r\x1c\x1d\x1e\x85\u2028\u2029"


# --- every writer of lines ------------------------------------------------------------------------


def test_samples_are_a_line_an_item_and_read_by_all_who_read_them(tmp_path: Path) -> None:
    rows = [
        {"id": f"gsm8k/{n}", "outputs": [AWFUL], "extracted": AWFUL, "score": 1.0} for n in (1, 2)
    ]
    run = RunFolder(tmp_path)
    run.write_samples("gsm8k", rows)
    raw = gzip.decompress(run.samples_path("gsm8k").read_bytes())
    assert len(raw.decode("utf-8").splitlines()) == raw.count(b"\n") == 2
    assert list(run.samples("gsm8k")) == rows
    assert read_recorded(tmp_path / "samples")[ItemId("gsm8k/2")].completion.text == AWFUL
    run.write_json("run.json", RECORD | {"tasks": ["gsm8k"]})
    for suffix in ("csv", "parquet"):
        assert write_items(tmp_path, tmp_path / f"items.{suffix}") == 2


def test_samples_without_such_characters_have_the_bytes_they_had(tmp_path: Path) -> None:
    row = {"id": "gsm8k/1", "outputs": ["Ünï ≈ 日本語 😀\n\t\x1c\\u2028 \x7f\xa0"], "score": 0.5}
    RunFolder(tmp_path).write_samples("gsm8k", [row])
    before = json.dumps(row, sort_keys=True, ensure_ascii=False) + "\n"
    written = gzip.decompress(RunFolder(tmp_path).samples_path("gsm8k").read_bytes())
    assert written == before.encode("utf-8")


def test_files_of_earlier_versions_are_read_as_before(tmp_path: Path) -> None:
    """They hold the three characters as they are."""
    row = {"id": "gsm8k/1", "outputs": ["one\u2028two\x85three\u2029four"], "score": 1.0}
    raw = (json.dumps(row, ensure_ascii=False) + "\n").encode("utf-8")
    path = RunFolder(tmp_path).samples_path("gsm8k")
    path.parent.mkdir()
    path.write_bytes(gzip.compress(raw))
    assert list(RunFolder(tmp_path).samples("gsm8k")) == list(read_jsonl(raw)) == [row]
    assert len(read_recorded(path)) == 1


def test_a_prompts_line_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    class Plan:
        tasks = ("gsm8k",)

        def render(self, task: str) -> list[Rendered]:
            return [Rendered(ItemId("gsm8k/1"), "", AWFUL, (5,), (), Sampling(8), 8)]

    monkeypatch.setattr(show, "make_plan", lambda *_, **__: Plan())
    settings = show.RunSettings("smollm2", tasks=("gsm8k",))
    assert [as_read(line)["prompt"] for line in show.prompt_lines(settings)] == [AWFUL]


def test_a_fetched_table_is_a_line_a_row(tmp_path: Path) -> None:
    rows = [{"question": AWFUL, "answer": 0.1}, {"question": "é", "answer": None}]
    _keep(LoadedSource.of({"test": rows}, "hub", "r"), tmp_path)
    raw = (tmp_path / "test.jsonl").read_bytes()
    assert len(raw.decode("utf-8").splitlines()) == 2
    assert list(read_jsonl(raw)) == rows


_NOT_LINES = {
    "evals/storage/files.py",
    # Then made line-safe.
    "evals/storage/run_folder.py",
    # An answer's payload and a row's hash: bytes that nobody splits, and that must not change.
    "evals/storage/store.py",
    "evals/data/dataset.py",
}


def test_no_other_code_writes_json_that_may_hold_such_characters() -> None:
    """json.dumps escapes all that is not ASCII unless it is told otherwise."""
    found = {
        str(path.relative_to(ROOT))
        for folder in ("evals", "tasks", "scripts")
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.keyword)
        and node.arg == "ensure_ascii"
        and not (isinstance(node.value, ast.Constant) and node.value.value is True)
    }
    assert found == _NOT_LINES
