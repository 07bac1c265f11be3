"""A hundred thousand characters of any pattern: no extractor, parser or printer raises, or takes
longer for it than for its length.

Each call has ten seconds of processor time (the machine's other work does not count); the slowest
takes a hundredth of that. A quadratic expression takes minutes. The collector rests meanwhile: in
a worker full of other tests' objects one collection takes longer than any reader, and a signal
that fires in it is lost in hypothesis' callback.
"""

import gc
import json
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evals.extract import (
    compared_form,
    drop_separators,
    extract_bbh_answer,
    extract_code,
    extract_last_number,
    extract_letter,
    extract_pattern,
    extract_tail,
)
from evals.generators.replay import NOT_A_ROW, recorded_row
from evals.records import Finding, ItemId
from evals.report.items import pack
from evals.report.table import escape
from evals.storage.files import visible
from tasks.alpaca_judges import read_logprobs, read_ranking
from tasks.bbh import ANSWERS, OPTION
from tasks.ifeval import _SHORTENERS, IFEvalItem, Instruction, follow
from tasks.truthfulqa import base_answer, judge_label
from tasks.xstest import judge_message, strmatch_label
from tests.property.test_graders_on_arbitrary_text import ARGUMENTS

LENGTH = 100_000
BUDGET_S = 10.0

UNITS = (
    *(
        "the answer is ",
        "The answer is x",
        "answer",
        "Answer:",
        "therefore the answer is A",
        "A is ",
        "|he answer is .",
        "1",
        "1,",
        "1.",
        "+-",
        "-.",
        "9" * 50 + ",",
        "3/4 ",
        ".",
        " ",
        "\n",
    ),
    *(
        "\r",
        "A:",
        "Q:",
        "A: \n",
        "_",
        "a_",
        "*",
        "**a ",
        "- ",
        "<<",
        "[",
        "]",
        "[x",
        "{",
        "}",
        '{"a":',
        '"',
        "'",
        "\\",
        "|",
        "```",
    ),
    *(
        "#",
        "= ",
        "(",
        ")",
        "a.b!c? ",
        "a" * 50 + " ",
        "ß",
        "İ",
        "Σ",
        "\u202e",
        "\ufdfd",
        "𝒳",
        "\x00",
        "\ud800",
        "\u2028",
        "P.S. ",
    ),
    *(
        "<script>",
        "| a | b |\n",
        "'model': ",
        "{'model': 'model_1', 'rank': 1},",
        "[{'model': 'model_1', 'rank': [",
        "yes",
        "refusal\n",
    ),
)
READERS: dict[str, Callable[[str], Any]] = {
    "gsm8k": extract_last_number,
    "bbh": extract_bbh_answer,
    "bbh's tail": extract_tail,
    "mmlu's letter": extract_letter,
    "humaneval's block": extract_code,
    **{
        f"bbh as {pattern}": partial(extract_pattern, pattern=pattern)
        for pattern in (ANSWERS["word_sorting"], OPTION)
    },
    "separators": drop_separators,
    "compared": compared_form,
    "truthfulqa": base_answer,
    "truthfulqa's label": lambda text: judge_label(Finding("judge", text=text)),
    "xstest by rule": strmatch_label,
    "xstest's judge": lambda text: judge_message(text, text),
    "alpaca_eval 1": lambda text: read_ranking(Finding("judge", text=text)),
    "alpaca_eval 2": lambda text: read_logprobs(Finding("judge", text=text), "m", ("m", "M")),
    "markdown": escape,
    "terminal": visible,
    "html": pack,
    "a recorded row": lambda text: recorded_or_refused(
        json.dumps({"id": "gsm8k/1", "outputs": [text], "findings": {"truth": text}})
    ),
}


def recorded_or_refused(line: str) -> None:
    try:
        recorded_row(json.loads(line))
    except NOT_A_ROW:
        return


@contextmanager
def budget(seconds: float) -> Iterator[None]:
    """Processor time for what follows; the expression engine looks at signals while it works."""

    def over(*_: object) -> None:
        raise TimeoutError(f"more than {seconds} s of processor time")

    before = signal.signal(signal.SIGVTALRM, over)
    gc.disable()
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        gc.enable()
        signal.signal(signal.SIGVTALRM, before)


def long(*units: str) -> str:
    """The units over and over."""
    pattern = "".join(units)
    return (pattern * (LENGTH // len(pattern) + 1))[:LENGTH]


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_no_repeated_pattern_takes_long_or_raises(reader: Callable[[str], Any]) -> None:
    for unit in UNITS:
        for text in (
            long(unit),
            f"1 the answer is {long(unit)}\n",
            f"{long(unit)}\nthe answer is 4.",
        ):
            with budget(BUDGET_S):
                reader(text)


@pytest.mark.parametrize("name", sorted(_SHORTENERS))
def test_no_checker_of_ifeval_takes_the_square_of_a_texts_length(name: str) -> None:
    item = IFEvalItem(ItemId("ifeval/0"), "", "Say it.", (Instruction(name, ARGUMENTS[name]),))
    follow(item, "x")
    for unit in ("[", "<<", "\n", " ", "\t\n", "*\n", "p. ", "[x", "<<>>"):
        with budget(BUDGET_S):
            follow(item, f"x{long(unit)}x")


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(
    units=st.lists(
        st.sampled_from(UNITS) | st.text(min_size=1, max_size=6), min_size=1, max_size=4
    ),
    tail=st.text(max_size=20),
)
def test_no_drawn_pattern_takes_long_or_raises(
    reader: Callable[[str], Any], units: list[str], tail: str
) -> None:
    with budget(BUDGET_S):
        reader(long(*units) + tail)
