"""Extractors never raise, change nothing they should not, and the comparison is an equivalence."""

import re
import string

import hypothesis.strategies as st
from hypothesis import example, given

from evals.extract import (
    compared_form,
    drop_separators,
    exact_match,
    extract_bbh_answer,
    extract_code,
    extract_last_number,
    extract_letter,
    extract_pattern,
    extract_tail,
)
from tasks.bbh import ANSWERS, OPTION

texts = st.text(max_size=200) | st.text("0123456789+-.,/ $\n", max_size=60)
words = st.text(string.ascii_letters + " \n-:", max_size=60)
blanks = st.text(" \n\t", max_size=5)
pieces = st.sampled_from(
    ["the answer is ", "The answer is ", "|he answer is ", "(A)", ".", "\n", " ", "3.5"]
)
phrases = st.lists(pieces, max_size=12).map("".join)


@given(texts | phrases)
def test_extractors_return_text_for_any_text(text: str) -> None:
    for extracted in (extract_last_number(text), extract_bbh_answer(text)):
        assert isinstance(extracted.text, str)
        assert extracted.found or extracted.text.strip() == text.strip()


@given(texts, blanks, blanks)
def test_surrounding_blanks_never_change_what_is_compared(
    text: str, before: str, after: str
) -> None:
    number, padded = extract_last_number(text), extract_last_number(before + text + after)
    assert padded.found == number.found
    assert padded.text.strip() == number.text.strip()


@given(texts | phrases, blanks, blanks)
def test_surrounding_blanks_never_change_a_bbh_answer(text: str, before: str, after: str) -> None:
    assert extract_bbh_answer(before + text + after) == extract_bbh_answer(text)


@given(words, st.integers(0, 10**15), words)
def test_the_last_number_is_found_with_or_without_separators(
    before: str, number: int, after: str
) -> None:
    assert extract_last_number(f"{before}{number}{after}") == (str(number), True)
    assert extract_last_number(f"{before}{number:,}{after}") == (str(number), True)


@given(st.integers(-(10**9), 10**9), st.integers(0, 99))
def test_a_decimal_keeps_its_sign_and_an_integer_loses_it(number: int, cents: int) -> None:
    assert extract_last_number(f"= {number}.{cents:02}").text == f"{number}.{cents:02}"
    assert extract_last_number(f"= {number}").text == str(abs(number))


@given(texts)
def test_dropping_separators_removes_nothing_but_commas_between_digits(text: str) -> None:
    dropped = drop_separators(text)
    assert dropped.replace(",", "") == text.replace(",", "")
    assert text.count(",") - dropped.count(",") <= len(re.findall(r"(?<=\d),(?=\d)", text))


@given(st.text("abc()-3 ", max_size=20), texts)
def test_what_follows_the_first_answer_sentence_does_not_count(answer: str, rest: str) -> None:
    assert extract_bbh_answer(f"So the answer is {answer}.{rest}") == (answer.strip(), True)


@given(texts | phrases)
@example("the answer is \r. \u2028.\nthe answer is the answer is 4.")
def test_a_bbh_answer_is_what_the_published_expression_finds(text: str) -> None:
    published = re.search(r"[t|T]he answer is (.*?)\.", text)
    assert extract_bbh_answer(text) == (
        (published[1].strip(), True) if published else (text.strip(), False)
    )


ANSWER_WORDS = [
    "So the answer is ", "answer is", "Answer:", "answer", "answers ", "(A)", "(b)", "B", "**", "$",
    "] )", "}", ">", "true", "No", "invalid", "-12", "7", "oven pan", " ", "\n", ".", "'", "`",
]  # fmt: skip
answer_texts = st.lists(st.sampled_from(ANSWER_WORDS), max_size=14).map("".join)


@given(answer_texts, st.sampled_from([*ANSWERS.values(), OPTION]))
@example("answer x\nanswer answer: (A) (B)", OPTION)
def test_a_task_s_answer_is_what_the_published_expressions_find(text: str, pattern: str) -> None:
    """As they are written: a list of expressions, then marks at both ends taken off."""
    found: list[str] = []
    for form in (
        r"(?i)So the answer is ($ANS$)\.?", "(?i)answer is ($ANS$)", "(?i)answer:.*?($ANS$)",
        r"(?i)answer\b.*?($ANS$)", "($ANS$)", "(?i)($ANS$)",
    ):  # fmt: skip
        if found := re.findall(form.replace("$ANS$", pattern), text):
            break
    read = found[-1] if found else ""
    for left, right in (
        ("$", "$"), (r"\(", r"\)"), ("(", ")"), ("**", "**"), ("***", "***"), (r"\[", r"\]"),
        ("'", "'"), ("`", "`"), ('"', '"'),
    ):  # fmt: skip
        if not re.match(pattern, left):
            read = re.sub(f"^{re.escape(left)}(.*){re.escape(right)}$", r"\1", read).strip()
    if pattern == OPTION and len(read) == 1:
        read = f"({read})"
    assert extract_pattern(text, pattern) == (read, bool(found))


@given(texts | phrases)
@example("the answer is \nthe answer is 24")
def test_the_tail_of_a_line_is_what_the_published_expression_finds(text: str) -> None:
    published = re.search("(?<=the answer is )(.*)(?=.)", text)
    read = (published[0].strip("."), True) if published else ("", False)
    assert extract_tail(text) == read


LETTER_WORDS = [
    "Therefore, the answer is ", "therefore the answer is: ", "answer is", " is correct", "(A)",
    "(b)", "C", "D)", "a", "AB", " ", "\n", ".", ":", "(",
]  # fmt: skip


@given(st.lists(st.sampled_from(LETTER_WORDS), max_size=12).map("".join), st.booleans())
def test_a_letter_is_what_the_published_expressions_find(text: str, strict: bool) -> None:
    phrase = re.compile(r"Therefore, the answer is \(([A-D])\)") if strict else None
    said = phrase.findall(text) if phrase else []
    forms = (
        r"(?i)therefore,?\s*the\s*answer\s*is:?\s*\(?([A-D])\b",
        r"(?i)answer\s*is:?\s*\(?([A-D])\b",
        r"(?i)([A-D])\)?\s+is\s+correct", r"\(([A-D])\)", r".*\b([A-D])\b",
    )  # fmt: skip
    found = [match[1].upper() for form in forms if (match := re.search(form, text))]
    assert extract_letter(text, phrase).text == (said[-1:] or found[:1] or [""])[0]


CODE_WORDS = ["Here is the completed function:", "```", "`", "python\n", "x = 1", "\n", " "]


@given(st.lists(st.sampled_from(CODE_WORDS), max_size=14).map("".join))
def test_a_block_is_what_the_published_expressions_find(text: str) -> None:
    block = r"```(?:python\n)?\n*(.*?)\s*```"
    for form in (r"(?s)Here is the completed function:\n*" + block, "(?s)" + block):
        if (found := re.findall(form, text)) and found[-1]:
            assert extract_code(text) == (found[-1], True)
            return
    assert extract_code(text) == ("", False)


@given(texts, texts)
def test_exact_match_is_equality_of_compared_forms(one: str, other: str) -> None:
    assert exact_match(one, one)
    assert (
        exact_match(one, other)
        == exact_match(other, one)
        == (compared_form(one) == compared_form(other))
    )


@given(texts, st.text(string.punctuation, max_size=5))
def test_punctuation_never_counts(text: str, marks: str) -> None:
    assert exact_match(marks + text + marks, text)


def test_case_is_lowered_not_folded() -> None:
    assert exact_match("STRASSE", "strasse")
    assert not exact_match("straße", "strasse")


@given(texts)
def test_the_compared_form_is_final(text: str) -> None:
    form = compared_form(text)
    assert not set(form) & set(string.punctuation)
    # Lower-casing a final capital sigma looks at its neighbours, which deleted punctuation may
    # change.
    assert compared_form(form) == form or "Σ" in text or "ς" in text


@given(
    st.text("aB7 -.,()[]{}<>$\n", min_size=1, max_size=30),
    st.text("aB7 -.,()[]{}<>$\n", min_size=1, max_size=30),
)
@example("]", ")")
@example("] ]", "} >")
@example("a ", "a")
def test_exact_match_agrees_with_lm_evals_copy_of_the_metric(prediction: str, gold: str) -> None:
    from lm_eval.api.metrics import exact_match_hf_evaluate

    theirs = exact_match_hf_evaluate(
        [prediction], [gold], ignore_case=True, ignore_punctuation=True
    )
    assert exact_match(prediction, gold) == bool(theirs["exact_match"])
