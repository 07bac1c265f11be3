"""The sentence at the end of `--why`, and what a flipped item of IFEval shows."""

from collections.abc import Mapping
from typing import Any

import pytest

from evals.compare.answers import Answer
from evals.compare.conclusion import conclusion
from evals.compare.flips import _instructions
from evals.report.table import escape

Rows = list[tuple[Mapping[str, Any], Mapping[str, Any]]]


def concluded(rows: Mapping[str, Rows]) -> str:
    """Of items with one answer each."""
    return conclusion(
        {task: [(Answer((a,), {}), Answer((b,), {})) for a, b in own] for task, own in rows.items()}
    )


def row(task: str, n: int, score: float = 1.0, **more: Any) -> dict[str, Any]:
    return {
        "id": f"{task}/{n}",
        "score": score,
        "outputs": ["x"],
        "finish_reasons": ["stop"],
    } | more


def pairs(n: int, n_before: int, n_after: int, task: str = "gsm8k", **sign: Any) -> Rows:
    """Items of which the first n_before showed a sign, and then the first n_after."""
    return [
        (
            row(task, i, **(sign if i < n_before else {})),
            row(task, i, **(sign | {"score": 0.0} if i < n_after else {})),
        )
        for i in range(n)
    ]


def groups(lost: int) -> Rows:
    """27 tasks of 40 items; of the third so many lost their score, elsewhere one went each way."""
    found: Rows = []
    for task in range(27):
        for i in range(40):
            name = f"bbh/kind_{task}"
            after = (i >= lost) if task == 3 else (i != 0)
            before = (i != 1) if task != 3 else True
            found.append((row(name, i, float(before)), row(name, i, float(after))))
    return found


SAID: dict[str, tuple[dict[str, Rows], str]] = {
    "no longer stops": (
        {"gsm8k": pairs(200, 34, 200, finish_reasons=["length"])},
        "What changed: gsm8k no longer stops: 17% → 100% of its answers ended by length, among"
        " them 200 of the 200 items that lost their score.",
    ),
    "stops again": (
        {"gsm8k": pairs(200, 200, 34, finish_reasons=["length"])},
        "What changed: gsm8k stops again: 100% → 17% of its answers ended by length.",
    ),
    "unparsed": (
        {"bbh": pairs(100, 0, 50, "bbh", unparsed=True)},
        "no longer gives an answer of the expected form: 0% → 50% of its answers unparsed",
    ),
    "empty": (
        {"ifeval": pairs(100, 0, 50, "ifeval", outputs=[" "])},
        "answers with nothing: 0% → 50% of its answers empty",
    ),
    "a kind": ({"bbh": groups(30)}, "What changed: bbh lost 30 of the 40 items of kind_3."),
    "here and there": ({"bbh": groups(2)}, "here and there; no more answers than before"),
    "nothing": ({"gsm8k": pairs(9, 0, 0)}, "What changed: no score of the 9 items."),
    "no items": ({}, "no score of the 0 items"),
}


@pytest.mark.parametrize(("rows", "said"), SAID.values(), ids=SAID)
def test_what_changed_is_said_in_a_sentence(rows: dict[str, Rows], said: str) -> None:
    text = concluded(rows)
    assert said in text
    assert text.endswith(".")
    assert "\n" not in text
    assert "&" not in escape(text), "what the Markdown shows is what the sentence says"


def test_all_draws_of_an_item_are_read_and_count_as_one() -> None:
    """Four draws: of the candidate's, all but the first end by length; half of the items lose."""
    good, cut = row("gsm8k", 0), row("gsm8k", 0, 0.0, finish_reasons=["length"])
    before, after = Answer((good,) * 4, {}), Answer((good, cut, cut, cut), {})
    said = conclusion({"gsm8k": [(before, after)] * 20 + [(before, before)] * 20})
    assert "gsm8k no longer stops: 0% → 38% of its answers ended by length" in said
    assert "among them 20 of the 20 items that lost their score" in said
    # Three items whose draws all agree are three changes, not twelve.
    few = [(before, Answer((cut,) * 4, {}))] * 3 + [(before, before)] * 37
    assert "here and there" in conclusion({"gsm8k": few})


CUT: dict[str, Any] = {"finish_reasons": ["length"]}


@pytest.mark.parametrize(
    ("n", "n_cut", "stands_out"),
    # All one way, n of them have a spread of the root of n: three of those, and 2 % of the items.
    [(20, 9, False), (20, 10, True), (500, 10, True), (501, 10, False)],
)
def test_a_sign_stands_out_beyond_three_deviations_and_two_percent(
    n: int, n_cut: int, stands_out: bool
) -> None:
    assert ("no longer stops" in concluded({"gsm8k": pairs(n, 0, n_cut, **CUT)})) is stands_out


@pytest.mark.parametrize(("lost", "stands_out"), [(11, False), (12, True)])
def test_the_more_groups_there_are_the_more_one_has_to_lose(lost: int, stands_out: bool) -> None:
    """Of one group 3 + ln(2) / 2 deviations: 12 of 12 are 3.46, 11 of 11 are 3.32."""
    rows = [(row("bbh/a", i), row("bbh/a", i, float(i >= lost))) for i in range(40)]
    assert (f"bbh lost {lost} of the 40 items of a" in concluded({"bbh": rows})) is stands_out


def test_the_three_largest_changes_are_said_largest_first() -> None:
    rows = {f"t{n}": pairs(100, 0, n, f"t{n}", **CUT) for n in (25, 75, 50, 100)}
    said = concluded(rows)
    assert [part.split(" ")[0] for part in said.removeprefix("What changed: ").split("; ")] == [
        "t100", "t75", "t50"
    ]  # fmt: skip


def test_an_item_of_which_half_of_the_draws_show_it_is_among_those_that_lost() -> None:
    good, cut = row("gsm8k", 0), row("gsm8k", 0, 0.0, **CUT)
    both = (Answer((good, good), {}), Answer((good, cut), {}))
    assert "among them 20 of the 20 items" in conclusion({"gsm8k": [both] * 20})


def test_where_what_is_good_depends_on_the_item_no_item_lost_its_score() -> None:
    both = [(row("xstest", i, 0.0, safe=True), row("xstest", i, 1.0, safe=True)) for i in range(40)]
    assert concluded({"xstest": both}) == "What changed: no score of the 40 items."


def test_the_instructions_that_broke_or_mended_are_named() -> None:
    before = {"instructions": ["a:b", "c:d", "e:f"], "loose": [True, False, True]}
    after = {"instructions": ["a:b", "c:d", "e:f"], "loose": [False, True, True]}
    said = ["a:b: kept -> broken", "c:d: broken -> kept"]
    assert list(_instructions(before, after)) == said
    assert list(_instructions({}, {})) == []
