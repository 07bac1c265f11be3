"""Answers out of model text, and their comparison; pure functions that never raise.

Each rule is the one behind the published numbers, with the bugs that are part of the score.
"""

import re
import string
from typing import NamedTuple

_SEPARATOR = re.compile(r"(\d),(\d)")
# The sign belongs to the first alternative alone: a slip of the original, part of the score.
_NUMBER = re.compile(r"[-+]?\d*\.\d+|\d+")
# The class was meant as an alternation, so it also lets a literal "|" through.
_BBH_PHRASE = re.compile(r"[t|T]he answer is ")
_PHRASE_AND_TAIL = re.compile(r"(?<=the answer is ).*(?=.)")
# What is read where the answer's own phrase is not there, the surest first; any case.
_LETTERS = tuple(
    re.compile(pattern)
    for pattern in (
        r"(?i)therefore,?\s*the\s*answer\s*is:?\s*\(?([A-D])\b",
        r"(?i)answer\s*is:?\s*\(?([A-D])\b",
        r"(?i)([A-D])\)?\s+is\s+correct",
        r"\(([A-D])\)",
    )
)
_LONE_LETTER = re.compile(r"\b[A-D]\b")
_FENCE = r"```(?:python\n)?"
_FENCES = re.compile(r"Here is the completed function:\n*" + _FENCE), re.compile(_FENCE)
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


class Extracted(NamedTuple):
    """An answer read from a text. found: False when the text had none of the expected form and
    `text` is the fallback.
    """

    text: str
    found: bool


def drop_separators(text: str) -> str:
    """The text without commas between two digits: "1,234" becomes "1234".

    Matches do not overlap, so "1,2,3" becomes "12,3".  Source: open-instruct, eval/gsm.
    """
    return _SEPARATOR.sub(r"\1\2", text)


def extract_last_number(text: str) -> Extracted:
    """The last number of the text, thousands separators dropped; else the whole text.

    A sign is read only before a decimal ("-7" gives "7"), and "3/4" gives "4".  Source:
    open-instruct, eval/gsm.
    """
    numbers = _NUMBER.findall(drop_separators(text))
    return Extracted(numbers[-1], True) if numbers else Extracted(text, False)


def extract_bbh_answer(text: str) -> Extracted:
    """What stands between the first "the answer is " and the next period on that line; else the
    whole text; stripped.

    "the answer is 3.5." gives "3"; a line without a period, or a colon after "is", gives the whole
    text.
    Source: open-instruct, eval/bbh: the first match of `[t|T]he answer is (.*?)\\.`, which takes
    seconds on a long text full of it.
    """
    # At "\n" alone, where the dot of the original expression stops; splitlines parts at more.
    for line in text.split("\n"):
        phrase = _BBH_PHRASE.search(line)
        if phrase and (end := line.find(".", phrase.end())) >= 0:
            return Extracted(line[phrase.end() : end].strip(), True)
    return Extracted(text.strip(), False)


def extract_tail(text: str) -> Extracted:
    """What follows the first "the answer is " on its line, less the line's last character and
    periods at the ends; else nothing.

    The last character goes whatever it is: "the answer is 24" gives "2".  Source: OLMES, bbh:cot,
    `(?<=the answer is )(.*)(?=.)`.
    """
    found = _PHRASE_AND_TAIL.search(text)
    return Extracted(found[0].strip("."), True) if found else Extracted("", False)


def extract_pattern(text: str, pattern: str) -> Extracted:
    """The last text of a pattern after "so the answer is "; else after "answer is "; else behind
    "answer:" on its line, or the word "answer"; else anywhere, at last in any case; else nothing.

    pattern: a regular expression that matches no empty text and no line end.  Source: OLMES,
    bbh:cot-v1, `answer_regex`. Its last resort for options, a lone capital, is written there with
    backspaces for word ends and never found; so it is here.
    """
    loose = re.compile(f"(?i){pattern}")
    found = (
        re.findall(f"(?i)so the answer is ({pattern})", text)
        or re.findall(f"(?i)answer is ({pattern})", text)
        or _last_behind(text, re.compile("(?i)answer:"), loose)
        or _last_behind(text, re.compile(r"(?i)answer\b"), loose)
        or re.findall(pattern, text)
        or loose.findall(text)
    )
    return Extracted(found[-1].strip(), True) if found else Extracted("", False)


def _last_behind(text: str, lead: re.Pattern[str], answer: re.Pattern[str]) -> list[str]:
    # As `lead.*?(answer)` finds it, whose time grows with the square of a line full of leads.
    last: list[str] = []
    for line in text.split("\n"):
        at = 0
        while (start := lead.search(line, at)) and (found := answer.search(line, start.end())):
            last, at = [found[0]], found.end()
    return last


def extract_letter(text: str, phrase: re.Pattern[str] | None = None) -> Extracted:
    """The letter of the last `phrase`; else of the first text that is like one, from "therefore the
    answer is: A" to the last lone capital of a line; else nothing.

    "the answer is a guess" gives "A".  Source: OLMES, mmlu:cot.
    """
    if phrase and (found := phrase.findall(text)):
        return Extracted(found[-1], True)
    for pattern in _LETTERS:
        if match := pattern.search(text):
            return Extracted(match[1].upper(), True)
    lone = next(filter(None, map(_LONE_LETTER.findall, text.split("\n"))), None)
    return Extracted(lone[-1], True) if lone else Extracted("", False)


def extract_code(text: str) -> Extracted:
    """The last fenced block that "Here is the completed function:" announces; else the last fenced
    block; without empty lines before it and white space behind it; else nothing.

    Source: OLMES, codex_humaneval:0-shot-chat.
    """
    for fence in _FENCES:
        last, at = "", 0
        while (start := fence.search(text, at)) and (end := text.find("```", start.end())) >= 0:
            last, at = text[start.end() : end], end + 3
        if code := last.lstrip("\n").rstrip():
            return Extracted(code, True)
    return Extracted("", False)


def compared_form(text: str) -> str:
    """The text as `exact_match` compares it: lower-cased, every ASCII punctuation mark deleted,
    white space kept.
    """
    return text.lower().translate(_NO_PUNCTUATION)


def exact_match(prediction: str, gold: str) -> bool:
    """Whether both texts have the same compared form.

    Two texts of nothing but punctuation match, whatever it was: the rule of 2024. Later releases of
    the metric ask such texts to be identical.  Source: Hugging Face evaluate, metric exact_match,
    case and punctuation ignored.
    """
    return compared_form(prediction) == compared_form(gold)
