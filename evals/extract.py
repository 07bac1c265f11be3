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
