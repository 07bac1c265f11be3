"""Estimates of what another judge would have said: golden values, properties, real pairs, and a
short simulation of their coverage (the long one: scripts/proof/judge_coverage.py).
"""

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from evals.fidelity.measurement import (
    Confusion,
    Estimate,
    Preferences,
    moments,
    preference,
    with_labels,
    yes_no,
)
from scripts.proof.judge_coverage import Case, simulate
from scripts.proof.judge_pairs import alpaca
from tests.conftest import shared_folder

ALIKE = [Confusion(95, 5, 20, 380), Confusion(190, 10, 15, 285), Confusion(58, 3, 30, 570)]
XSTEST = {
    "safe": [Confusion(15, 1, 18, 216), Confusion(38, 2, 29, 181), Confusion(0, 0, 4, 246)],
    "unsafe": [Confusion(1, 23, 7, 169), Confusion(8, 46, 1, 145), Confusion(125, 9, 60, 6)],
}
"""String match against GPT-4 on recorded answers of GPT-4, Llama 2 and Mistral."""


def rogan_gladen(rate: float, sensitivity: float, specificity: float) -> float:
    """The relation of Rogan & Gladen 1978, without errors."""
    return (rate + specificity - 1) / (sensitivity + specificity - 1)


def test_models_on_which_a_stand_in_errs_alike_give_an_estimate_near_the_relation() -> None:
    found = yes_no(120, 500, ALIKE)
    assert found.value is not None
    assert found.ci95 is not None
    assert found.value == pytest.approx(rogan_gladen(0.24, 0.95, 0.95), abs=0.02)
    assert found.ci95[0] < found.value < found.ci95[1]


def test_more_recorded_models_sharpen_it() -> None:
    three, nine = (yes_no(120, 500, models).width for models in (ALIKE, ALIKE * 3))
    assert three is not None
    assert nine is not None
    assert nine < 0.7 * three


def test_fewer_than_three_models_give_none_and_say_so() -> None:
    found = yes_no(120, 500, ALIKE[:2])
    assert (found.value, found.ci95) == (None, None)
    assert found.reason is not None
    assert "on 2 models, and 3 are needed" in found.reason


def test_a_rate_that_no_recorded_model_comes_near_gives_none_and_says_so() -> None:
    sharp = [Confusion(5000, 50, 50, 5000)] * 12
    noisy = [Confusion(5000, 5000, 5000, 5000)] * 12
    assert yes_no(300, 500, sharp).value is not None
    found = yes_no(450, 500, noisy)
    assert found.value is None
    assert found.reason is not None
    assert "outside the calibrated range" in found.reason


@pytest.mark.parametrize("left_out", range(3))
def test_on_unsafe_prompts_string_match_gives_no_narrow_interval(left_out: int) -> None:
    """Its sensitivity runs from 0.04 to 0.93: whoever is left out, nothing is known."""
    own = XSTEST["unsafe"][left_out]
    others = [one for at, one in enumerate(XSTEST["unsafe"]) if at != left_out]
    for recorded, least in ((others, 2), (XSTEST["unsafe"], 3)):
        found = yes_no(own.both + own.standin_only, own.n, recorded, least)
        assert found.width is not None
        assert found.width > 0.9


@pytest.mark.parametrize("left_out", range(3))
def test_on_safe_prompts_the_interval_holds_what_gpt_4_said(left_out: int) -> None:
    own = XSTEST["safe"][left_out]
    truth = (own.both + own.card_only) / own.n
    others = [one for at, one in enumerate(XSTEST["safe"]) if at != left_out]
    for recorded, least in ((others, 2), (XSTEST["safe"], 3)):
        found = yes_no(own.both + own.standin_only, own.n, recorded, least)
        assert found.ci95 is not None
        assert found.ci95[0] <= truth <= found.ci95[1]


@examples(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(*[st.integers(0, 60)] * 4), min_size=3, max_size=5),
    st.integers(1, 60),
    st.data(),
)
def test_whatever_the_counts_an_estimate_lies_in_its_interval_or_has_a_reason(
    counts: list[tuple[int, int, int, int]], n: int, data: st.DataObject
) -> None:
    found = yes_no(data.draw(st.integers(0, n)), n, [Confusion(*one) for one in counts])
    if found.ci95 is not None:
        assert 0 <= found.ci95[0] <= found.ci95[1] <= 1
    if found.value is None:
        assert found.reason
    else:
        assert found.ci95 is not None
        assert found.ci95[0] <= found.value <= found.ci95[1]


# --- preferences ----------------------------------------------------------------------------------


def recorded_pairs() -> dict[tuple[str, str], Preferences]:
    """AlpacaEval 2: another annotator and the card's judge on the very same answers."""
    return alpaca(shared_folder("EVALS_JUDGES", "judges") / "alpaca_eval_2.jsonl.gz")


def test_two_recorded_models_of_alpaca_eval_are_too_few_for_a_number() -> None:
    pairs = recorded_pairs()
    standin = "alpaca_eval_cot_gpt4_turbo_fn"
    own = [one for (_, who), one in pairs.items() if who == standin]
    assert len(own) == 2
    for candidate in own:
        blind = Preferences(candidate.standin, candidate.length)
        found = preference(blind, [moments(one) for one in own])
        assert found.value is None
        assert found.reason is not None
        assert "on 2 models" in found.reason


def test_three_copies_of_one_recording_give_back_its_own_mean() -> None:
    """Least squares with a constant goes through the mean: a golden value on real pairs."""
    for pairs in recorded_pairs().values():
        found = preference(Preferences(pairs.standin, pairs.length), [moments(pairs)] * 3)
        assert found.value == pytest.approx(sum(pairs.card) / len(pairs.card), abs=1e-9)
        assert found.ci95 is not None
        assert found.ci95[0] < found.value < found.ci95[1]


def test_a_candidate_that_is_longer_than_all_recorded_ones_gets_none() -> None:
    short = [Preferences([0.0, 1.0] * 50, [x] * 100, [0.2, 0.8] * 50) for x in (-0.2, 0.0, 0.1)]
    candidate = Preferences([0.0, 1.0] * 50, [2.0] * 99 + [2.1])
    found = preference(candidate, [moments(one) for one in short])
    assert found.value is None
    assert found.reason is not None
    assert "outside the calibrated range: a mean relative length" in found.reason


# --- labels ---------------------------------------------------------------------------------------


@examples(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([0.0, 1.0]), st.sampled_from([0.0, 0.5, 1.0])), min_size=20)
)
def test_all_answers_labelled_are_their_own_mean_without_error(
    pairs: list[tuple[float, float]],
) -> None:
    found = with_labels([f for f, _ in pairs], pairs, Estimate(None))
    mean = sum(y for _, y in pairs) / len(pairs)
    assert found.value == pytest.approx(mean)
    assert found.width == pytest.approx(0)


def test_labels_that_agree_are_no_proof_but_sharpen_and_few_say_nothing() -> None:
    standin = [1.0] * 40 + [0.0] * 160
    labelled = [(1.0, 1.0)] * 20 + [(0.0, 0.0)] * 80
    found = with_labels(standin, labelled, Estimate(None))
    assert found.value == pytest.approx(0.2)
    assert found.width is not None
    assert 0.01 < found.width < 0.1
    assert with_labels(standin, labelled[:19], Estimate(None)).reason == (
        "19 labels are too few to say anything: give 20 or more"
    )


# --- coverage -------------------------------------------------------------------------------------

SHORT = [
    Case("yes/no", 3, 4.0, 0.3, 250),
    Case("yes/no", 5, 1.5, 0.05, 250),
    Case("heavy tails", 3, 1.0, 0.05, 250),
    Case("preference", 3, 1.0, 0.2, 200),
    Case("labels", 0, 2.0, 0.02, 50),
]


@pytest.mark.parametrize("case", SHORT, ids=lambda case: f"{case.kind}, {case.n_models} models")
def test_intervals_hold_the_truth_in_19_of_20_draws(case: Case) -> None:
    """80 draws: with 95 % coverage fewer than 70 hits are one case in a thousand. Where a narrow
    interval is wrong more often than that, three models were alike by chance; it stays rare.
    """
    found = simulate(case, 80)
    assert found.refused < 0.5
    assert found.covered >= 70 / 80
    assert found.misled <= 10 / 80
