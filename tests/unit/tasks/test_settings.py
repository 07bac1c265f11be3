"""Benchmarks under the settings of the family's later cards: prompts to the byte, answers as their
authors' harness reads them, what cannot be set.

The expectations are written from what is known of OLMES (`gsm8k::tulu`, `bbh:cot::tulu`,
`bbh:cot-v1::tulu`, `mmlu:cot::summarize`, `mmlu:0shot_cot::tulu3`, `codex_humaneval::tulu`).
"""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import fields, make_dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.benchmark import Benchmark, setting, variant_name
from evals.cards.card import Card
from evals.cards.form import read_card
from evals.data.load import load_card_data, load_smoke_data
from evals.errors import InputError
from evals.models.prompts import glue, tulu_text
from evals.plan.items import plan_task
from evals.plan.settings import RunSettings
from evals.records import (
    Column,
    Completion,
    Finding,
    Generate,
    Grade,
    Item,
    ItemId,
    Outcome,
    Output,
    Program,
    Sampling,
)
from evals.registry import BENCHMARKS, benchmark_class, bound, read_settings, variants
from evals.report.pages import card_page
from evals.runs.session import run


def made(name: str, settings: Mapping[str, Any], *, chat: bool = True, metric: str = "") -> Any:
    """A benchmark under settings, with the one column where a metric is named."""
    cls = benchmark_class(name)
    column = Column("k", "K", benchmark=name, metric=metric)
    columns = (column,) if metric else None
    return cls(chat=chat, settings=read_settings(cls, settings), columns=columns)


def smoke(benchmark: Benchmark[Any]) -> list[Any]:
    return list(benchmark.items(load_smoke_data(benchmark.dataset)))


def tulu(request: Any) -> str:
    """The whole text in a chat format that hides nothing."""
    return glue(tulu_text(request.messages), request.opening)


def graded(benchmark: Any, item: Item, text: str) -> Grade:
    grade: Grade = benchmark.grade(item, Completion((Output(text),)), {})
    return grade


# --- prompts --------------------------------------------------------------------------------------

GSM8K_TURNS = """<|user|>
Question: There are 15 trees in the grove. Grove workers will plant trees in the grove today. After\
 they are done, there will be 21 trees. How many trees did the grove workers plant today?
<|assistant|>
Answer: There are 15 trees originally. Then there were 21 trees after some more were planted. So\
 there must have been 21 - 15 = 6. So the answer is 6.
<|user|>
Question: If there are 3 cars in the parking lot and 2 more cars arrive, how many cars are in the\
 parking lot?
<|assistant|>
Answer: There are originally 3 cars. 2 more cars arrive. 3 + 2 = 5. So the answer is 5.
<|user|>
Question: A baker fills 6 trays with 12 rolls each and sells 50 rolls. How many rolls are left?
<|assistant|>
Answer:"""

BBH_TURNS = """<|user|>
Evaluate the result of a random Boolean expression.

Q: not ( ( not not True ) ) is
A: Let's think step by step.
<|assistant|>
Remember that (i) expressions inside brackets are always evaluated first and that (ii) the order of\
 operations from highest priority to lowest priority is "not", "and", "or", respectively.
We first simplify this expression "Z" as follows: "Z = not ( ( not not True ) ) = not ( ( A ) )"\
 where "A = not not True".
Let's evaluate A: A = not not True = not (not True) = not False = True.
Plugging in A, we get: Z = not ( ( A ) ) = not ( ( True ) ) = not True = False. So the answer is\
 False.
<|user|>
Q: not ( False or True ) or True is
A: Let's think step by step.
<|assistant|>
"""

BBH_TURNS_0 = """<|user|>
Evaluate the result of a random Boolean expression.

Q: not ( False or True ) or True is
A: Let's think step by step.
<|assistant|>
"""

MMLU_SUMMARIZE = """<|user|>
The following are multiple choice questions about elementary mathematics. Summarize your reasoning\
 concisely, then conclude with 'Therefore, the answer is: X' where X is one of A, B, C, or D.

Question: What is 7 times 8?
 A. 54
 B. 56
 C. None
 D. {64}

<|assistant|>
"""

MMLU_TULU3 = """<|user|>
Answer the following multiple-choice question by giving the correct answer letter in parentheses.\
 Provide CONCISE reasoning for the answer, and make sure to finish the response with "Therefore,\
 the answer is (ANSWER_LETTER)" where (ANSWER_LETTER) is one of (A), (B), (C), (D).

Question: What is 7 times 8?
 (A) 54
 (B) 56
 (C) None
 (D) {64}

Answer the above question and REMEMBER to finish your response with the exact phrase "Therefore,\
 the answer is (ANSWER_LETTER)" where (ANSWER_LETTER) is one of (A), (B), (C), (D).
<|assistant|>
"""

HUMANEVAL_OPENED = '''<|user|>
def one() -> dict:
    """ {1} """
Here is the completed function:

```python

<|assistant|>
Here is the completed function:

```python
'''

HUMANEVAL_FENCED = '''<|user|>
Complete the following function:
def one() -> dict:
    """ {1} """

Provide CONCISE reasoning on how to arrive at the answer, and make sure to finish the response with\
 the following, where (CODE) is the code for the complete function:

Here is the completed function:

```python
(CODE)
```
<|assistant|>
'''


def question(name: str) -> Any:
    """The first smoke item; of MMLU and HumanEval one with what a careless template falls over."""
    from tasks.humaneval import HumanEvalItem
    from tasks.mmlu import MMLUItem

    if name == "mmlu":
        options = ("54", "56", "None", "{64}")
        subject = "elementary_mathematics"
        return MMLUItem(ItemId("mmlu/x/0"), subject, "What is 7 times 8?", options, "B", ())
    if name == "humaneval":
        prompt = 'def one() -> dict:\n    """ {1} """\n'
        test = "def check(candidate):\n    assert candidate() == {1}\n"
        return HumanEvalItem(ItemId("humaneval/0"), "", prompt, test, "one", "    return {1}\n")
    return smoke(made(name, {}))[0]


PROMPTS: Mapping[str, tuple[str, Mapping[str, Any], str, Sampling]] = {
    "GSM8k as turns": (
        "gsm8k", {"shots": 2, "turns": True}, GSM8K_TURNS,
        Sampling(512, stop=("Question:", "</s>", "<|im_end|>")),
    ),
    "BBH as turns": ("bbh", {"shots": 1, "turns": True}, BBH_TURNS, Sampling(512)),
    "BBH without shots": (
        "bbh", {"shots": 0, "turns": True, "max_new_tokens": 99}, BBH_TURNS_0, Sampling(99)
    ),
    "MMLU, summarize": (
        "mmlu", {"shots": 0, "ask": "cot-summarize"}, MMLU_SUMMARIZE,
        Sampling(512, stop=("Question:",)),
    ),
    "MMLU, tulu3": ("mmlu", {"shots": 0, "ask": "cot-tulu3"}, MMLU_TULU3, Sampling(2048)),
    "HumanEval opened": (
        "humaneval", {"ask": "opened"}, HUMANEVAL_OPENED,
        Sampling(512, 0.8, 0.95, 20, ("\nclass", "\nif", "\nprint", "\n#", "\n```", "<|eot_id|>")),
    ),
    "HumanEval fenced": (
        "humaneval",
        {"ask": "fenced", "temperature": 0.2, "top_p": 1, "n": 10, "max_new_tokens": 4096},
        HUMANEVAL_FENCED, Sampling(4096, 0.2, 1.0, 10),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", PROMPTS)
def test_a_prompt_is_the_one_known_to_the_byte(case: str) -> None:
    name, settings, text, sampling = PROMPTS[case]
    request = made(name, settings).request(question(name))
    assert isinstance(request, Generate)
    assert not request.raw
    assert (tulu(request), request.sampling) == (text, sampling)


def test_all_examples_are_turns_in_their_order() -> None:
    for name, n_turns in {"gsm8k": 17, "bbh": 7}.items():
        benchmark = made(name, {"turns": True})
        plain = made(name, {})
        for item in smoke(benchmark):
            messages = benchmark.request(item).messages
            roles = [message.role for message in messages]
            assert roles == (["user", "assistant"] * n_turns)[:n_turns]
            # What the turns hold is the one text of the card's own form, cut.
            one_text = "".join(plain.request(item).messages[0].content.split())
            told = [message.content for message in messages[1:-1]]
            assert all("".join(one.split()) in one_text for one in told)


def test_the_default_settings_are_the_protocol_and_name_nothing() -> None:
    for name in BENCHMARKS:
        cls = benchmark_class(name)
        assert read_settings(cls, {}) == cls.Settings()
        spelt = {one.name: one.default for one in fields(cls.Settings)}
        assert variant_name(cls, read_settings(cls, spelt)) == name


def test_alpaca_eval_may_be_cut_earlier_and_each_variant_asks_its_own_judge_alone() -> None:
    early = made("alpaca_eval", {"max_new_tokens": 4096}, metric="alpaca_eval_2_lc")
    usual = made("alpaca_eval", {}, metric="alpaca_eval_1")
    (item, *_) = smoke(early)
    assert early.request(item).sampling == Sampling(4096)
    assert usual.request(item).sampling == Sampling(8192)
    answer = Completion((Output("Well."),))
    assert [check.name for check in early.checks(item, answer)] == ["alpaca_eval_2"]
    assert [check.name for check in usual.checks(item, answer)] == ["alpaca_eval_1"]
    verdict = {"alpaca_eval_1": Finding("judge", preference=2.0)}
    grade = usual.grade(item, answer, verdict)
    assert (grade.scores, grade.missing) == ({"alpaca_eval_1": 1.0}, None)
    assert usual.summarize([grade])["alpaca_eval_1"].value == 1.0
    assert (len(usual.lacks()), len(early.lacks())) == (0, 1)
    both = benchmark_class("alpaca_eval")(chat=True)
    names = [check.name for check in both.checks(item, answer)]
    assert names == ["alpaca_eval_1", "alpaca_eval_2"]


# --- reading an answer ----------------------------------------------------------------------------

LETTERS: Mapping[str, str] = {
    "Therefore, the answer is: C": "C",
    "therefore the answer is (b), not A": "B",
    "Therefore, the answer is (A). No: Therefore, the answer is (D)": "A",
    "The answer is: a guess": "A",  # the rule's slip, kept
    "the answer is Anna. (C)": "C",  # a letter must end at a word's end
    "B) is correct, and so is A": "B",
    "Options (D) and (B)": "D",
    "First A\nthen C or D": "A",
    "Neither here\nbut C or D there": "D",
    "ABCD and E": "",
    "": "",
    "\x00\ud800": "",
    "Therefore, the answer is: E": "",
    "I am sure. A": "A",
}


@pytest.mark.parametrize("text", LETTERS)
def test_mmlu_s_letter_is_read_out_of_a_chain_of_thought(text: str) -> None:
    benchmark = made("mmlu", {"shots": 0, "ask": "cot-summarize"})
    grade = graded(benchmark, question("mmlu"), text)
    assert (grade.extracted, grade.unparsed) == (LETTERS[text], not LETTERS[text])
    assert grade.scores == {"mmlu": float(LETTERS[text] == "B")}


def test_the_stricter_wording_takes_its_last_phrase_first() -> None:
    benchmark = made("mmlu", {"shots": 0, "ask": "cot-tulu3"})
    text = "Therefore, the answer is (A). No: Therefore, the answer is (D). (B)"
    assert graded(benchmark, question("mmlu"), text).extracted == "D"
    assert graded(benchmark, question("mmlu"), "Therefore, the answer is B").extracted == "B"


GSM8K: Mapping[tuple[str, str], tuple[bool, bool]] = {
    # (answer, gold): right by the card's rule, right by OLMES'
    ("So the answer is 18.", "18"): (True, True),
    ("It is $1,234 in all.", "1234"): (True, True),
    ("18.00", "18"): (False, False),
    ("18.00", "1800"): (True, False),
    ("-10", "-10"): (True, True),
    ("I do not know", "18"): (False, False),
    ("", "18"): (False, False),
    ("3/4", "4"): (True, True),
    ("18 or 19", "18"): (False, False),
}


@pytest.mark.parametrize(("text", "gold"), GSM8K)
def test_gsm8k_s_number_is_compared_by_either_rule(text: str, gold: str) -> None:
    from tasks.gsm8k import GSM8KItem

    item = GSM8KItem(ItemId("gsm8k/0"), "", "?", f"#### {gold}", gold)
    found = [
        graded(made("gsm8k", {"grading": how}), item, text).scores["gsm8k"]
        for how in ("open-instruct", "olmes")
    ]
    assert found == [float(right) for right in GSM8K[text, gold]]


BBH: Mapping[tuple[str, str, str], tuple[str, str, bool, bool]] = {
    # (task, answer, target): read by olmes:cot, by olmes:cot-v1; right by the one, by the other
    ("snarks", "So the answer is (A).", "(A)"): ("(A)", "(A)", True, True),
    ("snarks", "So the answer is (A)", "(A)"): ("(A", "(A)", True, True),
    ("snarks", "**Answer: (a)**", "(A)"): ("", "(a)", False, True),
    ("snarks", "It is A", "(A)"): ("", "", False, False),  # no lone capital, as written there
    ("snarks", "(B). So the answer is (A). Or (B)", "(A)"): ("(A). Or (B", "(A)", False, True),
    ("object_counting", "the answer is 24", "24"): ("2", "24", False, True),
    ("object_counting", "the answer is 24.", "24"): ("24", "24", True, True),
    ("object_counting", "The answer is 24.", "24"): ("", "24", False, True),
    ("multistep_arithmetic_two", "So the answer is -12.", "12"): ("-12", "-12", True, True),
    ("formal_fallacies", "so the answer is invalid.", "valid"): (
        "invalid", "invalid", False, False
    ),
    ("boolean_expressions", "True. No, False.", "False"): ("", "False", False, True),
    ("dyck_languages", "So the answer is ] ) }.", "] ) }"): ("] ) }", "] ) }", True, True),
    ("dyck_languages", "So the answer is ] ) }.", "] } )"): ("] ) }", "] ) }", False, False),
    ("word_sorting", "So the answer is oven  pan.", "oven pan"): (
        "oven  pan", "oven  pan", False, False
    ),
    ("word_sorting", "So the answer is: oven pan.", "oven pan"): ("", "is", False, False),
    ("word_sorting", "", "oven pan"): ("", "", False, False),
    ("navigate", "the answer is ", "Yes"): ("", "", False, False),
}  # fmt: skip


@pytest.mark.parametrize(("task", "text", "target"), BBH)
def test_bbh_s_answer_is_read_by_both_of_olmes_rules(task: str, text: str, target: str) -> None:
    from tasks.bbh import BBHItem

    item = BBHItem(ItemId(f"bbh/{task}/0"), task, "?", target)
    first, second, is_right, is_right_too = BBH[task, text, target]
    for how, read, right in (
        ("olmes:cot", first, is_right),
        ("olmes:cot-v1", second, is_right_too),
    ):
        grade = graded(made("bbh", {"grading": how}), item, text)
        assert (grade.extracted, grade.scores["bbh"]) == (read, float(right))
        assert grade.unparsed == (read == "")


CODE: Mapping[str, str] = {
    "```python\nx = 1\n```": "x = 1",
    "```\n\n  x = 1\n\n```": "  x = 1",
    "```python\nfirst\n```\nand\n```python\nsecond\n```": "second",
    "Here is the completed function:\n\n```python\nthis\n```\nUse:\n```\nf()\n```": "this",
    "Here is the completed function:\n\n```python\n\n```\n```\nthat\n```": "that",
    "```python\nnever closed": "",
    "no fence": "",
    "``````": "",
    "```python x\n```": "python x",
}


@pytest.mark.parametrize("text", CODE)
def test_a_fenced_block_is_what_runs(text: str) -> None:
    benchmark, item = made("humaneval", {"ask": "fenced"}), question("humaneval")
    (check,) = benchmark.checks(item, Completion((Output(text),)))
    assert check.ask == Program(item.prompt + CODE[text], checks=f"{item.test}\ncheck(one)")


@pytest.mark.parametrize(
    ("ask", "text", "passes"),
    [
        ("opened", "    return {1}", True),
        ("opened", "def one() -> dict:\n    return {1}", True),
        ("opened", "def helper():\n    return 1\n\ndef one():\n    return {helper()}", True),
        ("opened", "    return {2}", False),
        ("fenced", "So:\n```python\ndef one():\n    return {1}\n```\nDone.", True),
        ("fenced", "def one():\n    return {1}", False),
    ],
)
def test_a_body_or_the_whole_function_completes_the_text(ask: str, text: str, passes: bool) -> None:
    benchmark, item = made("humaneval", {"ask": ask}), question("humaneval")
    (check,) = benchmark.checks(item, Completion((Output(text),)))
    assert isinstance(check.ask, Program)
    try:
        exec(f"{check.ask.source}\n{check.ask.checks}", {})
    except AssertionError:
        assert not passes
    else:
        assert passes


# --- metrics --------------------------------------------------------------------------------------


def test_the_means_are_those_of_brute_force() -> None:
    scores = {"a": [1, 0, 1], "b": [0], "c": [1, 1, 0, 0]}
    for name, own, other in (("mmlu", "micro", "macro"), ("bbh", "macro", "micro")):
        grades = [
            Grade(ItemId(f"{name}/{group}/{n}"), group, {name: float(score)})
            for group, found in scores.items()
            for n, score in enumerate(found)
        ]
        micro = 4 / 8
        macro = (2 / 3 + 0 + 2 / 4) / 3
        found = made(name, {}).summarize(grades)
        values = {own: found[name].value, other: found[other].value}
        assert values == {"micro": pytest.approx(micro), "macro": pytest.approx(macro)}


def test_pass_at_1_and_at_10_of_any_number_of_samples() -> None:
    passed, n = [0, 3, 7, 12], 12
    benchmark, item = made("humaneval", {"n": n}), question("humaneval")
    grades = []
    for c in passed:
        status = ["passed"] * c + ["exception"] * (n - c)
        findings = {
            f"sample/{i}": Finding("sandbox", outcome=Outcome(one)) for i, one in enumerate(status)
        }
        grades.append(benchmark.grade(item, Completion((Output(""),) * n), findings))
    found = benchmark.summarize(grades)
    at_10 = [1 - math.comb(n - c, 10) / math.comb(n, 10) for c in passed]
    assert found["humaneval"].value == pytest.approx(sum(at_10) / 4)
    assert found["pass@1"].value == pytest.approx(sum(c / n for c in passed) / 4)


# --- what cannot be -------------------------------------------------------------------------------

IMPOSSIBLE: Sequence[tuple[str, Mapping[str, Any], str]] = [
    ("mmlu", {"ask": "cot-summarize"}, "Set shots = 0"),
    ("mmlu", {"ask": "cot"}, "'letter' or 'cot-summarize' or 'cot-tulu3'"),
    ("gsm8k", {"items": 1319}, "'all' or 1 to 1318"),  # all that there are
    ("gsm8k", {"items": 5000}, "'all' or 1 to 1318"),
    ("bbh", {"items": 147}, "'all' or 1 to 146"),
    ("gsm8k", {"turns": 1}, "false or true"),
    ("gsm8k", {"turns": "yes"}, "false or true"),
    ("gsm8k", {"grading": "olmes:cot"}, "'open-instruct' or 'olmes'"),
    ("gsm8k", {"max_new_tokens": 0}, "a whole number from 1"),
    ("gsm8k", {"max_new_tokens": 512.0}, "a whole number"),
    ("bbh", {"grading": "olmes"}, "'olmes:cot' or 'olmes:cot-v1'"),
    ("humaneval", {"temperature": 2.1}, "0.0 to 2.0"),
    ("humaneval", {"temperature": -1}, "0.0 to 2.0"),
    ("humaneval", {"temperature": float("nan")}, "0.0 to 2.0"),
    ("humaneval", {"temperature": True}, "0.0 to 2.0"),
    ("humaneval", {"temperature": 10**400}, "0.0 to 2.0"),
    ("humaneval", {"temperature": "0"}, "0.0 to 2.0"),
    ("humaneval", {"top_p": 0}, "0.01 to 1.0"),
    ("humaneval", {"temperature": 0}, "Set n = 1"),
    ("humaneval", {"n": 0}, "1 to 1000"),
    ("humaneval", {"ask": "chat"}, "'raw' or 'opened' or 'fenced'"),
    ("alpaca_eval", {"max_new_tokens": "all"}, "a whole number"),
]


@pytest.mark.parametrize(("name", "settings", "words"), IMPOSSIBLE)
def test_what_cannot_be_set_is_refused_with_what_may(
    name: str, settings: Mapping[str, Any], words: str
) -> None:
    with pytest.raises(InputError) as caught:
        read_settings(benchmark_class(name), settings)
    (said,) = str(caught.value).splitlines()
    assert words in said


def test_a_card_that_asks_for_pass_at_10_of_fewer_samples_is_refused_where_it_is_checked(
    tmp_path: Path,
) -> None:
    text = 'title = "Few"\n[[column]]\nkey = "k"\nheading = "K"\nbenchmark = "humaneval"\n'
    (tmp_path / "few.toml").write_text(f'{text}metric = "humaneval"\nsettings = {{ n = 9 }}\n')
    with pytest.raises(InputError, match="pass@10 needs 10 samples, and n is 9"):
        card_page(str(tmp_path / "few.toml"))


def test_pass_at_10_of_fewer_samples_is_refused_and_pass_at_1_is_not() -> None:
    with pytest.raises(InputError, match="pass@10 needs 10 samples, and n is 5"):
        made("humaneval", {"n": 5})
    made("humaneval", {"n": 1, "temperature": 0}, metric="pass@1")


def test_a_whole_number_is_the_same_fraction() -> None:
    cls = benchmark_class("humaneval")
    one, other = (read_settings(cls, {"temperature": value}) for value in (1, 1.0))
    assert variant_name(cls, one) == variant_name(cls, other) == "humaneval.temperature-1.0"
    assert str(read_settings(cls, {"temperature": -0.0, "n": 1}).temperature) == "0.0"


def test_what_may_be_drawn_is_what_there_is(data_dir: Path) -> None:
    for name, most in {"gsm8k": 1318, "bbh": 146}.items():
        benchmark = made(name, {"items": most})
        items = list(benchmark.items(load_card_data([benchmark.dataset], data_dir)[name]))
        sizes = Counter(item.group for item in items).values()
        assert most == (min(sizes) if name == "bbh" else sum(sizes) - 1)
        assert len(benchmark.drawn(items)) == most * len(sizes)


@given(st.lists(st.text(max_size=60), min_size=1, max_size=12))
def test_whatever_is_set_the_name_is_a_file_s(texts: list[str]) -> None:
    cls = benchmark_class("gsm8k")
    names = [f"setting_{n}" for n in range(len(texts))]
    kind = make_dataclass(
        "Many", [(n, str, setting("", "a text", str)) for n in names], frozen=True
    )
    name = variant_name(cls, kind(**dict(zip(names, texts, strict=True))))
    assert len(f"{name}@1000.jsonl.gz.part".encode()) <= 255
    assert "/" not in name


CHAT_ONLY: Sequence[tuple[str, Mapping[str, Any], str]] = [
    ("mmlu", {"shots": 0, "ask": "cot-tulu3"}, "ask = cot-tulu3"),
    ("gsm8k", {"turns": True}, "turns = True"),
    ("bbh", {"turns": True}, "turns = True"),
    ("humaneval", {"ask": "opened"}, "ask = opened"),
    ("humaneval", {"ask": "fenced"}, "ask = fenced"),
]


@pytest.mark.parametrize(("name", "settings", "words"), CHAT_ONLY)
def test_a_base_model_is_not_asked_what_needs_turns_even_by_name(
    name: str, settings: Mapping[str, Any], words: str
) -> None:
    source = load_smoke_data(benchmark_class(name).dataset)
    for tasks in ((), (name,)):
        how = RunSettings("model", suite="smoke", tasks=tasks)
        base = plan_task(made(name, settings, chat=False), source, how, {}, {})
        assert base.skipped == f"{words}: asked in a chat, and the chat format is none"
        assert plan_task(made(name, settings), source, how, {}, {}).skipped is None
        assert plan_task(made(name, {}, chat=False), source, how, {}, {}).skipped is None


# --- on a card ------------------------------------------------------------------------------------

CARD = """title = "Side by side"
[[column]]
key = "mmlu"
heading = "MMLU"
benchmark = "mmlu"
[[column]]
key = "cot"
heading = "MMLU CoT"
benchmark = "mmlu"
metric = "macro"
settings = { shots = 0, ask = "cot-summarize" }
inferred = "whose words these were is not known"
[[column]]
key = "turns"
heading = "BBH"
benchmark = "bbh"
metric = "micro"
settings = { items = "all", turns = true, grading = "olmes:cot-v1" }
[[column]]
key = "one"
heading = "HumanEval pass@1"
benchmark = "humaneval"
metric = "pass@1"
settings = { ask = "opened", temperature = 0, n = 1 }
"""


def _card(folder: Path) -> Card:
    (folder / "mine.toml").write_text(CARD, "utf-8")
    return bound(read_card(folder / "mine.toml"))


def test_two_variants_of_a_benchmark_stand_side_by_side_and_a_doubt_marks_its_cell(
    tmp_path: Path,
) -> None:
    lines: list[dict[str, Any]] = []
    for variant in variants(_card(tmp_path)).values():
        benchmark = variant.make(chat=True)
        for place, item in enumerate(benchmark.named_items(load_smoke_data(benchmark.dataset))):
            gold = benchmark.gold(item) if place else "nothing"
            line: dict[str, Any] = {"id": item.id, "outputs": [f"So the answer is {gold}."]}
            if benchmark.name == "mmlu":
                logprobs = {letter: -1.0 - (letter != gold) for letter in "ABCD"}
                line = {"id": item.id, "choice_logprobs": logprobs}
            if benchmark.name.startswith("humaneval"):
                line = {"id": item.id, "outputs": [gold], "findings": {"sample/0": place > 0}}
            lines.append(line)
    said = tmp_path / "said.jsonl"
    said.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    card = str(tmp_path / "mine.toml")
    settings = RunSettings(f"replay:{said}", suite="smoke", out=tmp_path / "run", card=card)
    summary = run(settings).summary
    assert list(summary["tasks"]) == [
        "mmlu",
        "mmlu.shots-0.ask-cot-summarize",
        "bbh.items-all.turns-true.grading-olmes_cot-v1",
        "humaneval.ask-opened.temperature-0.0.n-1",
    ]
    cells = summary["cells"]
    n, sizes = 12, (6, 6)
    assert cells["mmlu"]["value"] == pytest.approx(11 / n)
    # The first item's subject has one wrong, and the other none.
    assert cells["cot"]["value"] == pytest.approx((1 - 1 / sizes[0] + 1) / 2)
    assert cells["turns"]["value"] == pytest.approx(5 / 6)
    assert cells["one"]["value"] == pytest.approx(2 / 3)
    doubt = "whose words these were is not known"
    assert {key for key, cell in cells.items() if doubt in cell["marks"]} == {"cot"}
