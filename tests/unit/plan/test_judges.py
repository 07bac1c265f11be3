"""Which judge decides what: the arguments, the marks, the findings."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.errors import InputError
from evals.plan.judges import CARD_JUDGES, Asking, Judge, finding_of
from evals.plan.naming_judges import parse_judges
from evals.records import Choose, Completion, Generate, Message, Output, Sampling

RULES = {"xstest": ("strmatch",)}
CHOOSE = Choose((Message("user", "True:"),), candidates=(("yes", " yes"),), raw=True)
GENERATE = Generate((Message("user", "CLASS:"),), Sampling(max_tokens=16))


def test_a_role_gets_the_model_named_for_it() -> None:
    assert parse_judges(["truth=some/judge"], RULES) == {"truth": Judge("truth", "some/judge")}


def test_a_model_may_hold_an_equals_sign() -> None:
    assert (
        parse_judges(["truth=openai:m@http://h/v1?a=b"], RULES)["truth"].model
        == "openai:m@http://h/v1?a=b"
    )


def test_all_names_one_judge_for_every_role() -> None:
    judges = parse_judges(["all=smollm2"], RULES)
    assert set(judges) == set(CARD_JUDGES)
    assert {judge.model for judge in judges.values()} == {"smollm2"}


def test_the_rule_is_a_rule_only_where_the_benchmark_has_it() -> None:
    assert parse_judges(["xstest=strmatch"], RULES)["xstest"].is_rule
    assert list(parse_judges(["all=strmatch"], RULES)) == ["xstest"]
    with pytest.raises(InputError, match="decides xstest only"):
        parse_judges(["truth=strmatch"], RULES)


def test_card_names_the_cards_judges_and_they_carry_no_mark() -> None:
    judges = parse_judges(["card"], RULES)
    assert {role: judge.model for role, judge in judges.items()} == dict(CARD_JUDGES)
    assert {judge.mark for judge in judges.values()} == {None}


def test_a_later_argument_wins() -> None:
    judges = parse_judges(["card", "xstest=strmatch"], RULES)
    assert judges["xstest"].is_rule
    assert judges["truth"].is_card


def test_a_benchmark_may_bring_a_role_of_its_own() -> None:
    assert parse_judges(["toy=m"], {}, ["toy"])["toy"].model == "m"
    assert "toy" in parse_judges(["all=m"], {}, ["toy"])


def test_no_judge_is_called_unasked() -> None:
    assert parse_judges([], RULES) == {}


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ("xtest=m", "unknown role 'xtest'. Did you mean xstest?"),
        ("xstest", "write ROLE=MODEL, all=MODEL or card; or ROLE=NAME"),
        ("xstest=", "write ROLE=MODEL"),
        ("", "write ROLE=MODEL"),
        ("=m", "unknown role ''"),
        ("Card", "write ROLE=MODEL"),
    ],
)
def test_a_bad_argument_is_named_with_what_is_known(argument: str, says: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_judges([argument], RULES)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "judge",
    [
        Judge("xstest", "strmatch", is_rule=True),
        Judge("xstest", "gpt-5"),
        Judge("truth", "openai:gpt-4-0613"),
    ],
)
def test_any_other_judge_marks_its_cell(judge: Judge) -> None:
    mark = judge.mark
    assert mark is not None
    assert CARD_JUDGES[judge.role] in mark
    assert ("string match" in mark) == judge.is_rule
    assert judge.is_rule or judge.model in mark


@pytest.mark.parametrize(
    ("judge", "who"),
    [
        (Judge("xstest", "a/b"), "a/b"),
        (Judge("xstest", "strmatch", is_rule=True), "the authors' string match"),
        (Judge("xstest", "a/b", prompt="wildguard"), "a/b by the prompt wildguard"),
        (Judge("xstest", "a/b", asking=Asking(top_p=0.5)), "a/b asked with top_p 0.5"),
        (Judge("xstest", "a/b", after="c/d"), "c/d and, for what that left, a/b"),
    ],
)
def test_a_mark_says_who_decided_and_how_and_no_more(judge: Judge, who: str) -> None:
    assert judge.mark == (
        f"xstest judged by {who}, not by the card's judge ({CARD_JUDGES['xstest']}); not comparable"
        " with published rows"
    )


@given(st.floats(max_value=1e-3))
def test_a_candidates_logprob_becomes_a_probability(logprob: float) -> None:
    finding = finding_of(CHOOSE, Completion(choice_logprobs={"yes": logprob}), "j")
    assert finding.probability is not None
    assert 0 <= finding.probability <= 1
    assert math.isclose(finding.probability, min(1, math.exp(logprob)))
    assert (finding.text, finding.by) == (None, "j")


def test_a_judge_without_logprobs_is_taken_at_its_word() -> None:
    finding = finding_of(CHOOSE, Completion((Output("Yes, it is."),)), "j")
    assert (finding.probability, finding.text) == (None, "Yes, it is.")


def test_a_writing_judges_words_and_first_token_are_kept() -> None:
    finding = finding_of(GENERATE, Completion((Output("refusal"),), top_logprobs={"m": -0.1}), "j")
    assert (finding.text, finding.top_logprobs, finding.probability) == (
        "refusal",
        {"m": -0.1},
        None,
    )
