"""MMLU: multiple-choice questions on 57 subjects, from school to the professions.

Paper: Hendrycks et al. 2021, "Measuring Massive Multitask Language Understanding" (arXiv
2009.03300).
Data: https://people.eecs.berkeley.edu/~hendrycks/data.tar (dev and test); hub cais/mmlu, config
"all".

Protocol: the subject's five dev questions with their answers and the test question in one user
turn, the assistant's turn opened with "The answer is:". The answer is the likeliest of " A", " B",
" C", " D" as the next token. While the prompt is longer than 2,048 tokens its last shot is dropped.
Accuracy over all 14,042 questions.

Setting beside the card's: `ask`. "cot-summarize" is OLMES' mmlu:cot::summarize (in Tülu 3's suite
since 2024-11-17), "cot-tulu3" its mmlu:0shot_cot::tulu3, in the words of public copies of 2025: a
chain of thought in a chat, without shots, and the letter is read out of the answer's text.

Differs from the published set-up in:
- The original compared probabilities of a batched, left-padded forward pass of transformers; here
  the engine's log-probabilities decide. Only near-ties can come out differently.
"""

import csv
import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import IO, Any, ClassVar

from evals import stats
from evals.benchmark import Benchmark, setting
from evals.data.dataset import Dataset, HubTable, Source, Table
from evals.data.files import Row
from evals.errors import InputError
from evals.extract import extract_letter
from evals.records import (
    Choose,
    Completion,
    Findings,
    Generate,
    Grade,
    Item,
    ItemId,
    Measure,
    Message,
    Metric,
    Request,
    Sampling,
)

SUBJECTS = (
    "abstract_algebra",
    "anatomy",
    "astronomy",
    "business_ethics",
    "clinical_knowledge",
    "college_biology",
    "college_chemistry",
    "college_computer_science",
    "college_mathematics",
    "college_medicine",
    "college_physics",
    "computer_security",
    "conceptual_physics",
    "econometrics",
    "electrical_engineering",
    "elementary_mathematics",
    "formal_logic",
    "global_facts",
    "high_school_biology",
    "high_school_chemistry",
    "high_school_computer_science",
    "high_school_european_history",
    "high_school_geography",
    "high_school_government_and_politics",
    "high_school_macroeconomics",
    "high_school_mathematics",
    "high_school_microeconomics",
    "high_school_physics",
    "high_school_psychology",
    "high_school_statistics",
    "high_school_us_history",
    "high_school_world_history",
    "human_aging",
    "human_sexuality",
    "international_law",
    "jurisprudence",
    "logical_fallacies",
    "machine_learning",
    "management",
    "marketing",
    "medical_genetics",
    "miscellaneous",
    "moral_disputes",
    "moral_scenarios",
    "nutrition",
    "philosophy",
    "prehistory",
    "professional_accounting",
    "professional_law",
    "professional_medicine",
    "professional_psychology",
    "public_relations",
    "security_studies",
    "sociology",
    "us_foreign_policy",
    "virology",
    "world_religions",
)
LETTERS = ("A", "B", "C", "D")
# With the space: the bare letters are other tokens, which the original does not look at.
CANDIDATES = tuple((letter, f" {letter}") for letter in LETTERS)
N_SHOTS = 5
MAX_PROMPT_TOKENS = 2048


@dataclass(frozen=True)
class Wording:
    """How a chain of thought is asked for. before: with the {subject}'s place; option: what stands
    before an option, with A for its letter; phrase: what the answer is to end in, where only that
    is read first.
    """

    before: str
    option: str
    sampling: Sampling
    after: str = ""
    phrase: re.Pattern[str] | None = None


_ONE_OF_FOUR = "where (ANSWER_LETTER) is one of (A), (B), (C), (D)."
WORDINGS = {
    "cot-summarize": Wording(
        "The following are multiple choice questions about {subject}. Summarize your reasoning"
        " concisely, then conclude with 'Therefore, the answer is: X' where X is one of A, B, C, or"
        " D.\n\n",
        " A.",
        Sampling(max_tokens=512, stop=("Question:",)),
    ),
    "cot-tulu3": Wording(
        "Answer the following multiple-choice question by giving the correct answer letter in"
        " parentheses. Provide CONCISE reasoning for the answer, and make sure to finish the"
        f' response with "Therefore, the answer is (ANSWER_LETTER)" {_ONE_OF_FOUR}\n\n',
        " (A)",
        Sampling(max_tokens=2048),
        "\nAnswer the above question and REMEMBER to finish your response with the exact phrase"
        f' "Therefore, the answer is (ANSWER_LETTER)" {_ONE_OF_FOUR}',
        re.compile(r"Therefore, the answer is \(([A-D])\)"),
    ),
}


@dataclass(frozen=True)
class MMLUItem(Item):
    """One question of one subject, which is its group.

    choices: the four options.  answer: the right letter.  shots: the subject's dev questions,
    rendered with their answers.
    """

    question: str
    choices: tuple[str, ...]
    answer: str
    shots: tuple[str, ...]


def read_questions(file: IO[bytes]) -> Iterator[Row]:
    """Rows of a subject's file: no header; question, four options, the right letter. Raises
    ValueError for anything else.
    """
    for number, cells in enumerate(
        # newline: line ends within a cell stay as they are.
        csv.reader(io.StringIO(file.read().decode("utf-8"), newline=""))
    ):
        if len(cells) != 2 + len(LETTERS) or cells[-1] not in LETTERS:
            raise ValueError(f"row {number} is not a question, four options and a letter")
        yield {"question": cells[0], "choices": cells[1:-1], "answer": cells[-1]}


def _from_hub(row: Row) -> Row:
    return {
        "question": row["question"],
        "choices": list(row["choices"]),
        "answer": LETTERS[row["answer"]],
    }


def _table(split: str) -> Table:
    return Table(
        path=f"mmlu/{split}/{{part}}_{split}.csv",
        fields=("question", "choices", "answer"),
        read=read_questions,
        hub=HubTable(config="all", split=split, part_field="subject", adapt=_from_hub),
        parts=SUBJECTS,
    )


@dataclass(frozen=True)
class Settings:
    """MMLU's settings."""

    shots: int = setting(5, "solved questions before each", range(N_SHOTS + 1))
    ask: str = setting(
        "letter", "for the letter as the next token, or for a chain of thought, in which words",
        "letter", *WORDINGS, chat=tuple(WORDINGS),
    )  # fmt: skip

    def __post_init__(self) -> None:
        if self.ask != "letter" and self.shots:
            raise InputError(
                f"mmlu: a chain of thought (ask = {self.ask!r}) is asked for without solved"
                " questions. Set shots = 0."
            )


class MMLU(Benchmark[MMLUItem]):
    """MMLU, answered by the next token or after a chain of thought."""

    name = "mmlu"
    Settings = Settings
    parts = "subjects"
    usual_tokens = 150  # by chain of thought; the letter is 1, its limit
    metrics = (
        Measure("mmlu", "share of questions answered right, over all questions", "accuracy"),
        Measure("macro", "share right in each subject, then the mean of the subjects", "accuracy"),
    )
    finer: ClassVar[Mapping[str, str]] = {"mmlu": "probability of the right letter"}
    dataset = Dataset(
        name="mmlu",
        hub_id="cais/mmlu",
        licence="MIT",
        url="https://people.eecs.berkeley.edu/~hendrycks/data.tar",
        tables={"dev": _table("dev"), "test": _table("test")},
    )

    def items(self, source: Source) -> Iterator[MMLUItem]:
        """All test questions, subjects by name, questions in file order. Raises InputError for a
        subject without its five shots.
        """
        dev: dict[str, list[str]] = {}
        for row in source.rows("dev"):
            dev.setdefault(row["part"], []).append(f"{_question(row)} {row['answer']}\n\n")
        for subject, rows in groupby(source.rows("test"), key=itemgetter("part")):
            shots = tuple(dev.get(subject, ()))
            if len(shots) != N_SHOTS:
                raise InputError(
                    f"mmlu/{subject}: the dev file has {len(shots)} questions, not {N_SHOTS}. Use"
                    " the public file."
                )
            for index, row in enumerate(rows):
                yield MMLUItem(
                    ItemId(f"mmlu/{subject}/{index}"),
                    subject,
                    row["question"],
                    tuple(row["choices"]),
                    row["answer"],
                    shots,
                )

    def request(self, item: MMLUItem) -> Request:
        """The header, the shots and the question; with fewer shots where the prompt is too long.
        Or the question in the words of a chain of thought.
        """
        if words := WORDINGS.get(self.settings.ask):
            return _in_words(words, item)
        question = _render(item.question, item.choices)
        prompts = [
            (Message("user", _header(item.group) + "".join(item.shots[:n_shots]) + question),)
            for n_shots in range(self.settings.shots, -1, -1)
        ]
        return Choose(
            messages=prompts[0],
            candidates=CANDIDATES,
            # The user's turn of a chat already ends in "Answer:"; the original says it twice.
            opening="The answer is:" if self.chat else "",
            shorter=tuple(prompts[1:]),
            max_prompt_tokens=MAX_PROMPT_TOKENS,
        )

    def grade(self, item: MMLUItem, answer: Completion, findings: Findings) -> Grade:
        """1 when the likeliest letter is the right one;
        of equally likely ones the earlier counts. Where a server showed none it is `unparsed`. Of
        a chain of thought the letter in its text.
        """
        if words := WORDINGS.get(self.settings.ask):
            found = extract_letter(answer.text, words.phrase)
            scores = {"mmlu": float(found.text == item.answer)}
            return Grade(item.id, item.group, scores, found.text, unparsed=not found.found)
        if answer.has_no_choice:
            missing = "the server showed no letter among its likeliest tokens"
            return Grade(item.id, item.group, {}, unparsed=True, missing=missing)
        logprobs = answer.choice_logprobs or {}
        values = [logprobs.get(letter, math.nan) for letter in LETTERS]
        if any(map(math.isnan, values)) or max(values) == -math.inf:
            return Grade(
                item.id,
                item.group,
                {},
                missing="the model gave no log-probability for every letter",
            )
        letter = max(LETTERS, key=lambda candidate: logprobs[candidate])
        return Grade(item.id, item.group, {"mmlu": float(letter == item.answer)}, letter)

    def finer_scores(
        self, item: MMLUItem, answer: Completion, findings: Findings
    ) -> Mapping[str, float]:
        """The probability of the right letter as the next token, over the whole vocabulary."""
        logprob = (answer.choice_logprobs or {}).get(item.answer, math.nan)
        return {} if math.isnan(logprob) else {"mmlu": min(1.0, math.exp(logprob))}

    def summarize(self, grades: Sequence[Grade]) -> Mapping[str, Metric]:
        """Accuracy over all questions, the mean of the subjects', and each subject's own as
        "mmlu/<subject>".
        """
        return stats.by_group("mmlu", grades, macro=False, other="macro")

    def row_scores(self, row: Mapping[str, Any]) -> Mapping[str, float | None]:
        """An item's score is the same in both means."""
        return {"mmlu": row["score"], "macro": row["score"]}

    def gold(self, item: MMLUItem) -> str:
        """The right letter."""
        return item.answer


def _in_words(words: Wording, item: MMLUItem) -> Generate:
    options = "".join(
        f"{words.option.replace('A', letter)} {choice}\n"
        for letter, choice in zip(LETTERS, item.choices, strict=True)
    )
    before = words.before.format(subject=item.group.replace("_", " "))
    text = f"{before}Question: {item.question}\n{options}{words.after}"
    return Generate((Message("user", text),), words.sampling)


def _header(subject: str) -> str:
    # The original puts a space before the subject as well, so there are two.
    return (
        "The following are multiple choice questions (with answers) about "
        f" {subject.replace('_', ' ')}.\n\n"
    )


def _question(row: Row) -> str:
    return _render(row["question"], row["choices"])


def _render(question: str, choices: Sequence[str]) -> str:
    options = "".join(
        f"{letter}. {_cell(choice)}\n" for letter, choice in zip(LETTERS, choices, strict=True)
    )
    return f"{_cell(question)}\n{options}Answer:"


def _cell(text: str) -> str:
    # pandas took the cell "None" for a missing value and printed it so; ten test questions have
    # one.
    return "nan" if text == "None" else text
