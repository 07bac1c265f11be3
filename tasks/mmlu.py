"""MMLU: multiple-choice questions on 57 subjects, from school to the professions.

Paper: Hendrycks et al. 2021, "Measuring Massive Multitask Language Understanding" (arXiv
2009.03300).
Data: https://people.eecs.berkeley.edu/~hendrycks/data.tar (dev and test); hub cais/mmlu, config
"all".

Protocol: the subject's five dev questions with their answers and the test question in one user
turn, the assistant's turn opened with "The answer is:". The answer is the likeliest of " A", " B",
" C", " D" as the next token. While the prompt is longer than 2,048 tokens its last shot is dropped.
Accuracy over all 14,042 questions.

Differs from the published set-up in:
- The original compared probabilities of a batched, left-padded forward pass of transformers; here
  the engine's log-probabilities decide. Only near-ties can come out differently.
"""

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import IO, ClassVar

from evals import stats
from evals.benchmark import Benchmark, setting
from evals.data.dataset import Dataset, HubTable, Source, Table
from evals.data.files import Row
from evals.errors import InputError
from evals.records import (
    Choose,
    Completion,
    Findings,
    Grade,
    Item,
    ItemId,
    Measure,
    Message,
    Metric,
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


class MMLU(Benchmark[MMLUItem]):
    """MMLU, answered by the next token."""

    name = "mmlu"
    Settings = Settings
    parts = "subjects"
    usual_tokens = 150  # by chain of thought; the letter is 1, its limit
    metrics = (
        Measure("mmlu", "share of questions answered right, over all questions", "accuracy"),
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

    def request(self, item: MMLUItem) -> Choose:
        """The header, the shots and the question; with fewer shots where the prompt is too long."""
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
        of equally likely ones the earlier counts. Where a server showed none it is `unparsed`.
        """
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

    def finer_scores(self, item: MMLUItem, answer: Completion) -> Mapping[str, float]:
        """The probability of the right letter as the next token, over the whole vocabulary."""
        logprob = (answer.choice_logprobs or {}).get(item.answer, math.nan)
        return {} if math.isnan(logprob) else {"mmlu": min(1.0, math.exp(logprob))}

    def summarize(self, grades: Sequence[Grade]) -> Mapping[str, Metric]:
        """Accuracy over all questions, and each subject's own as "mmlu/<subject>"."""
        return stats.by_group("mmlu", grades, macro=False)

    def gold(self, item: MMLUItem) -> str:
        """The right letter."""
        return item.answer


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
