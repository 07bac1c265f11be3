"""The gate and comparisons of runs under other cards: one of ours by its name, one of a user's own;
and of runs of two cards.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

import evals as front
from evals.compare.policy import read_policy, ready_policies
from evals.compare.policy_init import starter
from evals.errors import InputError
from tests.unit.conftest import Call, Make, wrong_sums

OWN = """
title = "Mine"
[[column]]
key = "sums"
heading = "Sums"
benchmark = "gsm8k"
metric = "gsm8k"
[[column]]
key = "letters"
heading = "Letters"
benchmark = "mmlu"
metric = "mmlu"
[[column]]
key = "refused"
heading = "Safe but refused"
benchmark = "xstest"
metric = "xstest_safe_refused"
lower_is_better = true
[average]
heading = "Mean"
of = ["sums", "letters"]
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("card") / "mine.toml"
    file.write_text(OWN, "utf-8")
    return file


@pytest.fixture(scope="module")
def pair(recorded: Make, own: Path) -> tuple[Path, Path]:
    """Two runs under a card of the user's own: the second one's sums are wrong."""
    kept = only("gsm8k", "mmlu", "xstest")
    return (
        recorded("mine", kept, card=str(own)),
        recorded("mine broken", lambda row: (one := kept(row)) and wrong_sums(one), card=str(own)),
    )


def only(*tasks: str) -> Callable[[dict[str, Any]], dict[str, Any] | None]:
    """Rows of these benchmarks."""
    return lambda row: dict(row) if row["id"].partition("/")[0] in tasks else None


def test_a_run_is_checked_in_its_own_cards_columns(
    pair: tuple[Path, Path], evals: Call, tmp_path: Path
) -> None:
    policy = tmp_path / "gate.toml"
    policy.write_text('[columns]\nsums = {tier = "critical", floor = 60.0}\nrefused = 5.0\n')
    files = {"--junit": tmp_path / "gate.xml", "--json": tmp_path / "gate.json"}
    options = [word for pair in files.items() for word in pair]
    args = ("--baseline", pair[0], "--candidate", pair[1], "--policy", policy)
    code, out, err = evals("check", *args, *options)
    said = "a column fell by more than is allowed or misses its floor or ceiling (Sums"
    assert (code, f"regressed: {said}" in err) == (1, True), err
    assert "| Sums | 100.0 | 0.0 |" in out
    assert "Mean" in out
    columns = json.loads((tmp_path / "gate.json").read_text())["columns"]
    assert {"sums", "letters", "refused", "average"} <= columns.keys()
    assert columns["sums"]["bounds"]["floor"]["state"] == "regressed"
    names = [one.get("name") for one in ElementTree.parse(tmp_path / "gate.xml").iter("testcase")]
    assert {"Sums", "Letters", "Safe but refused", "Mean"} <= set(names)


def test_a_policy_names_the_columns_of_the_card_that_is_meant(
    pair: tuple[Path, Path], own: Path, evals: Call, tmp_path: Path
) -> None:
    policy = tmp_path / "gate.toml"
    policy.write_text("[columns]\nsums = 3.0\n")
    assert read_policy(policy, card=str(own)).columns.keys() == {"sums"}
    assert read_policy(policy, pair[0]).columns.keys() == {"sums"}
    with pytest.raises(InputError, match="unknown column 'sums'"):
        read_policy(policy)
    same = ("check", "--baseline", pair[0], "--candidate", pair[0], "--policy")
    for ready in ready_policies():
        # A ready one names columns that this card has not, and requires some of them.
        assert "sums" not in read_policy(Path(ready), pair[0]).columns
        assert evals(*same, ready)[0] == 0


def test_init_writes_the_columns_of_a_card_by_name_file_or_run(
    pair: tuple[Path, Path], own: Path, evals: Call, tmp_path: Path
) -> None:
    for words, columns in (
        (("--card", own), {"sums", "letters", "refused"}),
        (("--baseline", pair[0]), {"sums", "letters", "refused"}),
        (("--card", "olmo-2"), {"mmlu", "gsm8k"}),
    ):
        code, out, _ = evals("check", "--init", *words)
        assert code == 0
        for column in columns:
            assert f"\n# {column} = {{" in out
        (tmp_path / "p.toml").write_text(re.sub(r"(?m)^# (\w+ = \{)", r"\1", out))
        card = str(words[1]) if words[0] == "--card" else None
        run = pair[0] if card is None else None
        read = read_policy(tmp_path / "p.toml", run, card).columns
        assert columns <= read.keys()
        assert all(rule.required for rule in read.values())
    assert starter(pair[0]).count("of them change") > 0
    code, _, err = evals("check", "--init", "--card", "nothing")
    assert (code, "nothing" in err) == (2, True)


def test_they_are_compared_and_planned_in_their_own_columns(
    pair: tuple[Path, Path], own: Path, evals: Call, tmp_path: Path
) -> None:
    code, out, _ = evals("compare", *pair, "--flips", "--plan", "1", "--why")
    assert (code, "| Sums |" in out, "Pooled over 2 columns" in out) == (0, True, True)
    assert "### To find a drop of 1 point in" in out
    assert "== Sums: 0 better, 6 worse" in out
    code, out, _ = evals("compare", *pair, pair[0], "--html", tmp_path / "page.html")
    assert (code, "Sums" in (tmp_path / "page.html").read_text()) == (0, True)


def test_a_run_of_the_default_card_is_checked_under_another(
    recorded: Make, own: Path, evals: Call
) -> None:
    runs = recorded("right"), recorded("broken", wrong_sums)
    args = ("--baseline", runs[0], "--candidate", runs[1], "--card", own)
    code, out, _ = evals("check", *args)
    assert (code, "| Sums | 100.0 | 0.0 |" in out, "GSM8k" in out) == (1, True, False)
    code, out, _ = evals("compare", *runs, "--card", own, "--plan", "1")
    assert (code, "| Sums |" in out) == (0, True)
    assert front.check(*runs, card=str(own)).verdict == "regressed"


def test_runs_of_two_cards_share_the_columns_that_are_the_same(
    recorded: Make, pair: tuple[Path, Path], evals: Call
) -> None:
    code, out, _ = evals("check", "--baseline", pair[0], "--candidate", recorded("right"))
    assert code == 0
    assert "of two cards, Mine and" in out
    code, _, err = evals("check", "--baseline", pair[0], "--candidate", pair[1], "--card", "gone")
    assert (code, "gone" in err) == (2, True)
