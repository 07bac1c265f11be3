"""A benchmark of the user's own, outside the clone: what `evals tasks NAME --new DIR` writes."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from evals.cards.form import read_card
from evals.data.load import load_smoke_data
from evals.errors import InputError
from evals.records import Choose, Generate
from evals.registry import bound, variants
from evals.runs.contract import write_skeleton
from tests.unit.conftest import Call

NAME = "sums_of_a_stranger"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the user stands; what was imported there is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    sys.modules.pop(NAME, None)


def test_the_skeleton_is_a_card_of_two_benchmarks_that_runs(evals: Call, home: Path) -> None:
    code, out, err = evals("tasks", NAME, "--new", ".")
    assert code == 0, err
    assert out.split() == [f"{NAME}.py", f"{NAME}.toml", f"smoke/{NAME}/test.jsonl"]
    code, out, err = evals("cards", f"{NAME}.toml")
    assert code == 0, err
    assert f"asks {NAME}\n" in out
    assert f"asks {NAME}_choice\n" in out
    lines: list[dict[str, object]] = []
    for number, (text, letter) in enumerate([("So 5.", "B"), ("8", "A"), ("It is 4", "A")]):
        lines.append({"id": f"{NAME}/{number}", "outputs": [text]})
        shown = {one: -0.1 if one == letter else -3.0 for one in "ABC"}
        lines.append({"id": f"{NAME}_choice/{number}", "choice_logprobs": shown})
    (home / "said.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    asked = ("run", "replay:said.jsonl", "--card", f"{NAME}.toml", "--suite", "smoke")
    code, out, err = evals(*asked, "--out", "run")
    assert code == 0, err
    cells = json.loads((home / "run" / "summary.json").read_text())["cells"]
    assert cells[NAME]["value"] == cells[f"{NAME}_choice"]["value"] == pytest.approx(2 / 3)
    for command in (("report", "run"), ("score", "run"), ("show", "run", f"{NAME}/1")):
        code, out, err = evals(*command)
        assert code == 0, err
    assert "How many days has a week?" in out
    code, out, err = evals("report", "run", "--html", "page.html")
    assert code == 0, err
    code, out, err = evals("compare", "run", "run")
    assert code == 0, err
    assert f"- {NAME}, {NAME} by letter, Average: every answer is the same" in out


def test_its_requests_are_of_both_kinds_in_both_styles(home: Path) -> None:
    write_skeleton(NAME, home)
    for chat in (True, False):
        made = [
            one.make(chat=chat)
            for one in variants(bound(read_card(home / f"{NAME}.toml"))).values()
        ]
        for benchmark, kind in zip(made, (Generate, Choose), strict=True):
            items = list(benchmark.named_items(load_smoke_data(benchmark.dataset)))
            assert all(isinstance(benchmark.request(item), kind) for item in items)
            assert len({item.id for item in items}) == len(items) == 3


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (None, "Put a few rows there"),
        ("{}\n", "there is no field 'question'"),
        ("no JSON\n", "cannot be read as this benchmark's file: ValueError: line 1"),
    ],
)
def test_smoke_items_that_are_wrong_are_one_sentence(
    rows: str | None, words: str, evals: Call, home: Path
) -> None:
    write_skeleton(NAME, home)
    file = home / "smoke" / NAME / "test.jsonl"
    file.unlink()
    if rows is not None:
        file.write_text(rows)
    (home / "said.jsonl").write_text(json.dumps({"id": f"{NAME}/0", "outputs": ["5"]}))
    code, _, err = evals("run", "replay:said.jsonl", "--card", f"{NAME}.toml", "--suite", "smoke")
    assert (code, words in err) == (2, True), err


@pytest.mark.parametrize("name", ["json", "mmlu", "Sums", "a-b", ""])
def test_a_name_that_would_be_another_module_s_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be a benchmark's name"):
        write_skeleton(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_over(tmp_path: Path) -> None:
    (tmp_path / f"{NAME}.toml").write_text("mine")
    with pytest.raises(InputError, match="is there already"):
        write_skeleton(NAME, tmp_path)
    assert (tmp_path / f"{NAME}.toml").read_text() == "mine"
