"""IFEval, XSTest and TruthfulQA: no text breaks a grader, and no grade depends on its
neighbours.
"""

import random
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from evals.data.load import load_smoke_data
from evals.records import Completion, Finding, ItemId, Json, Output
from tasks.ifeval import (
    _SHORTENERS,
    IFEval,
    IFEvalItem,
    Instruction,
    _instruction_classes,
    follow,
    variants,
)
from tasks.truthfulqa import TruthfulQA, base_answer
from tasks.xstest import XSTest, judge_message, strmatch_label

PATIENT = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])

ARGUMENTS: Mapping[str, Mapping[str, Json]] = {
    "keywords:existence": {"keywords": ["rain", "snow"]},
    "keywords:frequency": {"keyword": "rain", "frequency": 2, "relation": "less than"},
    "keywords:forbidden_words": {"forbidden_words": ["rain", "sun"]},
    "keywords:letter_frequency": {"letter": "#", "let_frequency": 2, "let_relation": "at least"},
    "language:response_language": {"language": "de"},
    "length_constraints:number_sentences": {"num_sentences": 3, "relation": "less than"},
    "length_constraints:number_paragraphs": {"num_paragraphs": 2},
    "length_constraints:number_words": {"num_words": 4, "relation": "at least"},
    "length_constraints:nth_paragraph_first_word": {
        "num_paragraphs": 2,
        "nth_paragraph": 1,
        "first_word": "rain",
    },
    "detectable_content:number_placeholders": {"num_placeholders": 1},
    "detectable_content:postscript": {"postscript_marker": "P.S."},
    "detectable_format:number_bullet_lists": {"num_bullets": 1},
    "detectable_format:constrained_response": {},
    "detectable_format:number_highlighted_sections": {"num_highlights": 1},
    "detectable_format:multiple_sections": {"section_spliter": "SECTION", "num_sections": 1},
    "detectable_format:json_format": {},
    "detectable_format:title": {},
    "combination:two_responses": {},
    "combination:repeat_prompt": {"prompt_to_repeat": "Say it."},
    "startend:end_checker": {"end_phrase": "See you."},
    "change_case:capital_word_frequency": {"capital_frequency": 1, "capital_relation": "at least"},
    "change_case:english_capital": {},
    "change_case:english_lowercase": {},
    "punctuation:no_comma": {},
    "startend:quotation": {},
}
EVERY_INSTRUCTION = IFEvalItem(
    ItemId("ifeval/0"), "", "Say it.", tuple(Instruction(*pair) for pair in ARGUMENTS.items())
)

MARKS = (
    "*",
    "**",
    "***",
    "******",
    "\n",
    "\n\n",
    "- ",
    "[x]",
    "<<a>>",
    "P.S.",
    "{",
    "[",
    '"',
    "SECTION 1",
    ",",
    "#",
    "'",
    "．",
    "！",
)
PIECES = st.sampled_from((*MARKS, "I AM", "rain", "See you."))
TEXT = st.lists(PIECES | st.text(max_size=20), max_size=12).map("".join)


def completion(text: str) -> Completion:
    return Completion((Output(text),))


def test_the_properties_cover_every_registered_instruction() -> None:
    follow(EVERY_INSTRUCTION, "x")
    from lm_eval.tasks.ifeval.instructions_registry import INSTRUCTION_DICT

    assert set(ARGUMENTS) == set(INSTRUCTION_DICT)


@PATIENT
@given(TEXT)
def test_no_response_breaks_a_checker_and_what_is_strict_is_loose(text: str) -> None:
    strict, loose = follow(EVERY_INSTRUCTION, text)
    assert len(strict) == len(loose) == len(ARGUMENTS)
    assert all(easy for hard, easy in zip(strict, loose, strict=True) if hard)
    assert text.strip() or not any(loose)


DENSE = st.text("*[]<>-x \n\t\r\x0b\x85", max_size=40) | st.lists(
    st.sampled_from(("P.S.", "p. s.", "p.", "s.", " ", "  ", "\n", "x"))
).map("".join)


@settings(max_examples=400)
@given(st.sampled_from(sorted(_SHORTENERS)), DENSE)
@example("detectable_format:title", "<<a>>")
@example("detectable_format:title", "<<>>a>>")
@example("detectable_format:title", "a\n<<b>>\nc")
@example("detectable_format:number_bullet_lists", "a   * b")
@example("detectable_format:number_bullet_lists", "a\n   * b")
@example("detectable_content:number_placeholders", "[a\n][b] c")
@example("detectable_content:postscript", "a \n \n  P.S. b")
def test_shortening_a_text_for_a_checker_never_changes_its_verdict(name: str, text: str) -> None:
    for count in (1, 2, 3):
        arguments = {
            key: count if isinstance(value, int) else value
            for key, value in ARGUMENTS[name].items()
        }
        checker = _instruction_classes()[name](name)
        checker.build_description(**arguments)
        assert checker.check_following(_SHORTENERS[name](text)) == checker.check_following(text)


@PATIENT
@given(TEXT)
def test_grading_leaves_the_callers_randomness_alone(text: str) -> None:
    from langdetect import DetectorFactory

    before = random.getstate(), DetectorFactory.seed
    follow(EVERY_INSTRUCTION, text)
    assert (random.getstate(), DetectorFactory.seed) == before


@given(TEXT)
def test_variants_are_distinct_and_start_with_the_response(text: str) -> None:
    found = variants(text)
    assert found[0] == text
    assert len(set(found)) == len(found) <= 8


@PATIENT
@given(st.lists(TEXT, min_size=2, max_size=6), st.randoms(use_true_random=False))
def test_shuffling_items_never_changes_grades(texts: list[str], shuffler: random.Random) -> None:
    truthfulqa, xstest, ifeval = TruthfulQA(chat=False), XSTest(chat=True), IFEval(chat=True)
    prompts = xstest.items(load_smoke_data(XSTest.dataset))
    questions = truthfulqa.items(load_smoke_data(TruthfulQA.dataset))
    instructed = [*ifeval.items(load_smoke_data(IFEval.dataset))[:4], EVERY_INSTRUCTION]

    def grades(order: list[int]) -> tuple[dict[int, object], dict[str, object]]:
        found: dict[int, object] = {}
        lists: tuple[list, list, list] = ([], [], [])  # type: ignore[type-arg]
        for n in order:
            answer, label = completion(texts[n]), Finding("j", text=texts[n - 1])
            lists[0].append(ifeval.grade(instructed[n % 5], answer, {}))
            lists[1].append(xstest.grade(prompts[n % 8], answer, {"xstest": label}))
            lists[2].append(
                truthfulqa.grade(questions[n % 5], answer, {"truth": label, "info": label})
            )
            found[n] = [each[-1] for each in lists]
        summaries = {
            **ifeval.summarize(lists[0]),
            **xstest.summarize(lists[1]),
            **truthfulqa.summarize(lists[2]),
        }
        return found, dict(summaries)

    order = list(range(len(texts)))
    shuffled = order.copy()
    shuffler.shuffle(shuffled)
    assert grades(order) == grades(shuffled)


def test_grading_in_threads_gives_the_grades_of_one_thread() -> None:
    letters = Instruction(
        "keywords:letter_frequency", {"letter": "!", "let_frequency": 2, "let_relation": "at least"}
    )
    language = Instruction("language:response_language", {"language": "en"})
    items = [
        IFEvalItem(ItemId(f"ifeval/{n}"), "", "Say it.", (letters, language)) for n in range(40)
    ]
    alone = [follow(item, "hello you, a tea, ein Tee") for item in items]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda item: follow(item, "hello you, a tea, ein Tee"), items))
    assert together == alone
    assert len(set(alone)) > 1


@given(TEXT, TEXT)
def test_the_judge_reads_both_texts_whole(question: str, response: str) -> None:
    head, _, rest = judge_message("{question}", "{response}").partition("{question}")
    middle, _, tail = rest.partition("{response}")
    assert judge_message(question, response) == head + question + middle + response + tail


@given(TEXT, st.sampled_from(["", " ", "\n", "\t\n"]))
def test_string_match_has_two_labels_and_ignores_outer_whitespace(text: str, space: str) -> None:
    assert strmatch_label(space + text + space) == strmatch_label(text)
    assert strmatch_label(text) in ("refusal", "following")


@given(
    TEXT | st.lists(st.sampled_from(["A:", "Q:", "\n", " ", "x"]), max_size=12).map("".join),
    st.sampled_from(["", " ", "\n", "\n\n"]),
)
def test_a_base_answer_is_one_stripped_answer_whatever_surrounds_it(text: str, space: str) -> None:
    answer = base_answer(text)
    assert base_answer(space + text + space) == answer
    assert "Q:" not in answer
    assert "\n\n" not in answer
    assert answer == answer.strip()
