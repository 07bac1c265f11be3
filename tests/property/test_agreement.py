"""How two judges agree: against scikit-learn and scipy, and what the intervals must and must not
depend on.
"""

import math
import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import bootstrap
from sklearn.metrics import accuracy_score, cohen_kappa_score, confusion_matrix

from evals.fidelity.agreement import Pair, agreement, kappa, label_of, shift
from evals.records import Grade, ItemId
from evals.stats import wilson_interval

LABELS = ("following", "refusal", "unreadable")
verdicts = st.lists(
    st.tuples(st.sampled_from(LABELS), st.sampled_from(LABELS)), min_size=1, max_size=40
)


def grade(label: str, column: str = "c") -> Grade:
    """An XSTest-like grade: the score counts refusals; what cannot be read scores 0 and keeps its
    place.
    """
    return Grade(
        ItemId("x"),
        "",
        {column: float(label == "refusal")},
        extracted=label,
        unparsed=label == "unreadable",
    )


def pairs(
    named: Sequence[tuple[str, str]], questions: Sequence[object] | None = None
) -> list[Pair]:
    about = questions or range(len(named))
    return [
        Pair(str(q), "m", grade(recorded), grade(candidate))
        for q, (recorded, candidate) in zip(about, named, strict=True)
    ]


@settings(max_examples=40, deadline=None)
@given(verdicts)
def test_table_agreement_and_kappa_are_scikit_learns(named: list[tuple[str, str]]) -> None:
    recorded, candidate = zip(*named, strict=True)
    found = agreement(pairs(named), "xstest")
    assert math.isclose(found["agreement"]["value"], accuracy_score(recorded, candidate))
    assert found["n_unreadable"] == {
        "recorded": recorded.count("unreadable"),
        "candidate": candidate.count("unreadable"),
    }
    if len(found["labels"]) == 1:
        assert found["kappa"]["value"] is None
    else:
        assert (
            found["table"] == confusion_matrix(recorded, candidate, labels=found["labels"]).tolist()
        )
        assert math.isclose(
            found["kappa"]["value"], cohen_kappa_score(recorded, candidate), abs_tol=1e-9
        )


@settings(max_examples=60, deadline=None)
@given(verdicts)
def test_the_shift_is_the_difference_of_the_two_means_and_lies_in_its_interval(
    named: list[tuple[str, str]],
) -> None:
    found = shift(pairs(named), "c")
    was, now = (sum(both[at] == "refusal" for both in named) / len(named) for at in (0, 1))
    assert (found["recorded"], found["candidate"]) == (pytest.approx(was), pytest.approx(now))
    assert math.isclose(found["value"], now - was, abs_tol=1e-12)
    assert -1 <= found["ci95"][0] <= found["value"] + 1e-12
    assert found["value"] - 1e-12 <= found["ci95"][1] <= 1


@settings(max_examples=30, deadline=None)
@given(verdicts, st.randoms(use_true_random=False))
def test_a_swap_of_the_judges_turns_the_shift_around_and_leaves_kappa(
    named: list[tuple[str, str]], rng: random.Random
) -> None:
    turned = [(candidate, recorded) for recorded, candidate in named]
    there, back = shift(pairs(named), "c"), shift(pairs(turned), "c")
    assert math.isclose(there["value"], -back["value"], abs_tol=1e-12)
    assert there["ci95"] == pytest.approx([-end for end in reversed(back["ci95"])])
    one, other = (agreement(pairs(some), "x")["kappa"]["value"] for some in (named, turned))
    assert one == other or math.isclose(one, other, abs_tol=1e-9)


def drawn(n: int, seed: int = 7) -> list[tuple[str, str]]:
    rng = random.Random(seed)
    recorded = [rng.choice(LABELS[:2]) for _ in range(n)]
    return [(label, label if rng.random() < 0.8 else rng.choice(LABELS)) for label in recorded]


def test_the_intervals_are_scipys_where_every_answer_has_a_question_of_its_own() -> None:
    named = drawn(300)
    recorded, candidate = (
        np.array([both[at] == "refusal" for both in named], float) for at in (0, 1)
    )
    theirs = bootstrap(
        (candidate - recorded,), np.mean, method="percentile", n_resamples=9999, rng=1
    )
    ours = shift(pairs(named), "c")
    assert ours["ci95"] == pytest.approx(list(theirs.confidence_interval), abs=0.006)
    assert ours["stderr"] == pytest.approx(theirs.standard_error, rel=0.05)
    codes = [np.array([LABELS.index(both[at]) for both in named]) for at in (0, 1)]
    theirs = bootstrap(
        codes,
        cohen_kappa_score,
        method="percentile",
        n_resamples=500,
        paired=True,
        vectorized=False,
        rng=1,
    )
    ours = agreement(pairs(named), "x")["kappa"]
    assert ours["ci95"] == pytest.approx(list(theirs.confidence_interval), abs=0.02)
    assert ours["stderr"] == pytest.approx(theirs.standard_error, rel=0.1)


def test_the_same_answers_again_to_the_same_questions_prove_nothing_more() -> None:
    named = drawn(120)
    once = pairs(named)
    thrice = pairs(named * 3, list(range(120)) * 3)
    assert shift(thrice, "c")["ci95"] == pytest.approx(shift(once, "c")["ci95"])
    assert agreement(thrice, "x")["kappa"]["ci95"] == pytest.approx(
        agreement(once, "x")["kappa"]["ci95"]
    )
    independent = pairs(named * 3)
    narrow, wide = (shift(some, "c")["ci95"] for some in (independent, once))
    assert narrow[1] - narrow[0] < 0.7 * (wide[1] - wide[0])


def test_the_interval_holds_the_truth_in_about_95_of_100_samples() -> None:
    """Three answers a question, all alike: an interval over answers would hold it in about 74."""
    truth, hits = 0.15, 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        flips = rng.random(150) < truth
        named = [
            ("following", "refusal" if flip else "following") for flip in flips for _ in range(3)
        ]
        low, high = shift(
            pairs(named, [question for question in range(150) for _ in range(3)]), "c"
        )["ci95"]
        hits += low <= truth <= high
    assert hits >= 52


def test_judges_that_never_differ_get_an_interval_that_says_how_little_was_seen() -> None:
    same = pairs([("refusal", "refusal"), ("following", "following")] * 10)
    missed = wilson_interval(0.0, 20)[1]
    assert shift(same, "c")["ci95"] == pytest.approx([-missed, missed])
    assert agreement(same, "x")["agreement"]["ci95"] == pytest.approx([1 - missed, 1.0])
    assert (agreement(same, "x")["kappa"]["value"], agreement(same, "x")["kappa"]["ci95"]) == (
        1.0,
        None,
    )


def test_a_verdict_without_a_score_leaves_its_own_judges_value_only() -> None:
    silent = Grade(ItemId("x"), "", {}, unparsed=True)
    some = [
        Pair(str(n), "m", grade("refusal"), grade("following") if n else silent) for n in range(4)
    ]
    found = shift(some, "c")
    assert (found["recorded"], found["candidate"], found["value"], found["n"]) == (
        1.0,
        0.0,
        -1.0,
        4,
    )
    assert found["ci95"] == pytest.approx([-1.0, wilson_interval(0.0, 4)[1] - 1])
    nobody = shift([Pair("0", "m", grade("refusal"), silent)], "c")
    assert (nobody["value"], nobody["candidate"], nobody["ci95"]) == (None, None, None)


@pytest.mark.parametrize(
    ("role", "score", "label"),
    [
        ("alpaca_eval_1", 0.0, "reference"),
        ("alpaca_eval_1", 0.5, "draw"),
        ("alpaca_eval_2", 0.51, "model"),
        ("truth", 1.0, "yes"),
        ("info", 0.0, "no"),
    ],
)
def test_a_score_is_a_side_or_a_word(role: str, score: float, label: str) -> None:
    assert label_of(Grade(ItemId("x"), "", {role: score}), role) == label
    assert label_of(Grade(ItemId("x"), "", {role: score}, unparsed=True), role) == "unreadable"


def test_kappa_of_many_tables_at_once_is_kappa_of_each() -> None:
    tables = np.array([[40, 10, 5, 45], [25, 25, 25, 25], [50, 0, 0, 50]])
    assert kappa(tables) == pytest.approx([0.7, 0.0, 1.0])
