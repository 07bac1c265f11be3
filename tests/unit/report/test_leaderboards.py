"""A table of leaderboards of one's own: what it adds, and what in it is refused."""

from pathlib import Path

import pytest
import yaml

from evals.errors import InputError
from evals.report.leaderboards import leaderboards
from tests.unit.conftest import Call
from tests.unit.report.test_card import run_folder

MINE = """[[leaderboard]]
dataset = "me/arithmetic"
task = "words"
n = 1319
benchmark = "gsm8k"
metric = "gsm8k"
scale = 1
notes = "8-shot"
"""


def test_a_number_goes_to_a_leaderboard_of_ones_own_too(tmp_path: Path, evals: Call) -> None:
    (tmp_path / "mine.toml").write_text(MINE)
    (tmp_path / "README.md").write_text("# My 8B\n")
    run = run_folder(tmp_path / "my-8b-full")
    given = ("card", tmp_path / "README.md", "--run", run, "--leaderboards", tmp_path / "mine.toml")
    code, _, err = evals(*given)
    assert code == 0
    (file,) = (tmp_path / ".eval_results").iterdir()
    entries = yaml.safe_load(file.read_text())
    assert [(one["dataset"]["id"], one["value"]) for one in entries] == [
        ("openai/gsm8k", 65.5),
        ("me/arithmetic", 0.655),
    ]
    assert "more: --leaderboards FILE" in err


def test_a_row_of_ones_own_stands_for_ours_of_the_same_task(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(
        MINE.replace("me/arithmetic", "openai/gsm8k").replace('"words"', '"gsm8k"')
    )
    (one,) = (x for x in leaderboards(tmp_path / "mine.toml") if x.dataset == "openai/gsm8k")
    assert (one.notes, one.scale) == ("8-shot", 1)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is no table of leaderboards .*Write \\[\\[leaderboard\\]\\]"),
        ("leaderboard = 3", "is no table of leaderboards"),
        ("[[leaderboard", "is no table of leaderboards"),
        (f"x = {'[' * 10_000}", "is no table of leaderboards"),
        (MINE.replace("notes", "note"), "leaderboard 1: there is no 'note'. Did you mean notes"),
        (MINE.replace("n = 1319\n", ""), "leaderboard 1: n: field required"),
        (MINE.replace("1319", '"all"'), "leaderboard 1: n: .*integer"),
        (MINE.replace('k = "gsm8k"', 'k = "gsm9k"'), "leaderboard 1: .*gsm8k"),
        (MINE.replace('c = "gsm8k"', 'c = "acc"'), "gsm8k has no metric 'acc'"),
        (MINE + "settings = { shot = 8 }", "gsm8k has no setting 'shot'. Did you mean shots"),
        (MINE + MINE.replace('c = "gsm8k"', 'c = "x"'), "leaderboard 2"),
    ],
)
def test_what_is_wrong_in_a_table_is_said_with_its_place(
    text: str, says: str, tmp_path: Path
) -> None:
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(InputError, match=says):
        leaderboards(tmp_path / "mine.toml")
    with pytest.raises(InputError, match=r"other\.toml cannot be read"):
        leaderboards(tmp_path / "other.toml")
