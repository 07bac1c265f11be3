"""BIG-Bench Hard: 27 tasks on which earlier models fell short of people, answered with a chain of
thought.

Paper: Suzgun et al. 2022, "Challenging BIG-Bench Tasks and Whether Chain-of-Thought Can Solve Them"
(arXiv 2210.09261).
Data: https://github.com/suzgunmirac/BIG-Bench-Hard, bbh/*.json; hub lukaemon/bbh. The prompts
(cot-prompts/*.txt) are rebuilt from lm-eval's task files, to the byte.

Protocol: the task's instruction, three worked examples and the question in one user turn, the
assistant's turn opened with "A:"; greedy, at most 512 new tokens, base models stopped at the first
blank line. What follows the first "the answer is" is compared with the target, case and punctuation
ignored. Mean of the task means; the card used 40 questions per task.

Settings beside the card's, as OLMES asks bbh:cot::tulu (Tülu 3) and bbh:cot-v1::tulu (OLMo 2),
read in public copies of 2025: `turns`, the instruction and each example's question in turns of the
user's that end in "A: Let's think step by step.", its thought in one of the assistant's, no stop;
`grading`, how the answer is read, and dyck_languages' brackets compared as they are. The
instructions' texts in OLMES were not found: they are taken to be the authors'.

Differs from the published set-up in:
- The card drew from the task files in an unrecorded file-system order, with one random stream; here
  the order is alphabetical. About a fifth of the questions are the same; another draw moves the
  column by about 1.3 points.
"""

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import groupby
from operator import itemgetter
from typing import IO, Any

from evals import stats
from evals.benchmark import ANY_NUMBER, Benchmark, setting
from evals.data.dataset import Dataset, HubTable, Source, Table
from evals.data.files import Row
from evals.errors import InputError
from evals.extract import (
    Extracted,
    exact_match,
    extract_bbh_answer,
    extract_pattern,
    extract_tail,
)
from evals.records import (
    Completion,
    Findings,
    Generate,
    Grade,
    Item,
    ItemId,
    Measure,
    Message,
    Metric,
    Sampling,
)
from tasks.fewshot import as_turns, task_file

TASKS = (
    "boolean_expressions",
    "causal_judgement",
    "date_understanding",
    "disambiguation_qa",
    "dyck_languages",
    "formal_fallacies",
    "geometric_shapes",
    "hyperbaton",
    "logical_deduction_five_objects",
    "logical_deduction_seven_objects",
    "logical_deduction_three_objects",
    "movie_recommendation",
    "multistep_arithmetic_two",
    "navigate",
    "object_counting",
    "penguins_in_a_table",
    "reasoning_about_colored_objects",
    "ruin_names",
    "salient_translation_error_detection",
    "snarks",
    "sports_understanding",
    "temporal_sequences",
    "tracking_shuffled_objects_five_objects",
    "tracking_shuffled_objects_seven_objects",
    "tracking_shuffled_objects_three_objects",
    "web_of_lies",
    "word_sorting",
)
N_SHOTS = 3
SEED = 42
STEP_BY_STEP = "A: Let's think step by step."
OPTION = r"\([A-Z]\)"
YES_OR_NO = "[yY]es|[nN]o"
ANSWERS = {
    "boolean_expressions": "[tT]rue|[fF]alse",
    "causal_judgement": YES_OR_NO,
    "dyck_languages": r"[\]\)\}\> ]+",
    "formal_fallacies": "[iI]nvalid|[vV]alid",
    "multistep_arithmetic_two": r"-?\d+",
    "navigate": YES_OR_NO,
    "object_counting": r"\d+",
    "sports_understanding": YES_OR_NO,
    "web_of_lies": YES_OR_NO,
    "word_sorting": "[a-z ]+",
}
"""What an answer looks like, by task, as bbh:cot-v1 has it; an option's letter in all others."""


@dataclass(frozen=True)
class BBHItem(Item):
    """One question of one task, which is its group. target: the answer as published, e.g. "(B)"."""

    question: str
    target: str


def read_examples(file: IO[bytes]) -> list[Row]:
    """Rows of a task file: its "examples"."""
    rows: list[Row] = json.loads(file.read().decode("utf-8"))["examples"]
    return rows


@dataclass(frozen=True)
class Settings:
    """BBH's settings."""

    shots: int = setting(N_SHOTS, "worked examples before each question", range(N_SHOTS + 1))
    items: int | str = setting(
        # As many as the smallest of the tasks has.
        40,
        "questions of each task, drawn by a fixed seed",
        "all",
        range(1, 147),
    )
    turns: bool = setting(
        False, "the examples are turns of the chat, not one text", False, True, chat=(True,)
    )
    grading: str = setting(
        "open-instruct",
        "whose: open-instruct reads up to the period, olmes:cot the line but its last character,"
        " olmes:cot-v1 the last text of the task's kind",
        "open-instruct",
        "olmes:cot",
        "olmes:cot-v1",
    )
    max_new_tokens: int = setting(512, "new tokens at most", ANY_NUMBER)


class BBH(Benchmark[BBHItem]):
    """BIG-Bench Hard, answered with a chain of thought."""

    name = "bbh"
    Settings = Settings
    parts = "tasks"
    usual_tokens = 150
    metrics = (
        Measure("bbh", "share right in each task, then the mean of the tasks", "exact_match"),
        Measure("micro", "share right over all questions", "exact_match"),
    )
    dataset = Dataset(
        name="bbh",
        hub_id="lukaemon/bbh",
        licence="MIT",
        url="https://github.com/suzgunmirac/BIG-Bench-Hard",
        tables={
            "test": Table(
                path="bbh/bbh/{part}.json",
                fields=("input", "target"),
                read=read_examples,
                hub=HubTable(config="{part}", split="test"),
                parts=TASKS,
            )
        },
    )

    def items(self, source: Source) -> Iterator[BBHItem]:
        """All questions, tasks in alphabetical order, questions in file order."""
        for task, rows in groupby(source.rows("test"), key=itemgetter("part")):
            for index, row in enumerate(rows):
                yield BBHItem(ItemId(f"bbh/{task}/{index}"), task, row["input"], row["target"])

    def drawn(self, items: Sequence[BBHItem]) -> Sequence[BBHItem]:
        """The questions of each task in the order drawn: tasks alphabetically, one random stream
        through all of them.

        Raises InputError when a task has fewer.
        """
        n = self.settings.items
        if n == "all":
            return items
        rng = random.Random(SEED)
        drawn: list[BBHItem] = []
        for task in sorted({item.group for item in items}):
            population = [item for item in items if item.group == task]
            if len(population) < n:
                raise InputError(
                    f"bbh/{task}: the card draws {n} questions, there are {len(population)}. Use"
                    " the whole public file."
                )
            drawn += rng.sample(population, n)
        return drawn

    def request(self, item: BBHItem) -> Generate:
        """The task's instruction, its worked examples and the question."""
        shots, how = self.settings.shots, Sampling(max_tokens=self.settings.max_new_tokens)
        if self.settings.turns:
            published = task_file(_file_of(item.group))
            examples = [
                (f"Q: {one['input']}\n{STEP_BY_STEP}", one["target"])
                for one in published.samples[:shots]
            ]
            question = f"Q: {item.question}\n{STEP_BY_STEP}"
            return Generate(as_turns(examples, question, published.description), how)
        # Base models alone have a stop: the card's launcher left the option for chat unset.
        prompt = f"{task_prompt(item.group, shots)}\n\nQ: {item.question}"
        if self.chat:
            return Generate((Message("user", prompt),), how, opening="A:")
        return Generate((Message("user", f"{prompt}\nA:"),), replace(how, stop=("\n\n",)))

    def grade(self, item: BBHItem, answer: Completion, findings: Findings) -> Grade:
        """1 when the answer is the target; only the number of spaces is left of a dyck_languages
        target.
        """
        extracted = self._read(item.group, answer.text)
        if self.settings.grading != "open-instruct" and item.group == "dyck_languages":
            is_right = extracted.text == item.target
        else:
            is_right = exact_match(extracted.text, item.target)
        scores = {"bbh": float(is_right)}
        return Grade(item.id, item.group, scores, extracted.text, unparsed=not extracted.found)

    def _read(self, task: str, text: str) -> Extracted:
        if self.settings.grading == "olmes:cot-v1":
            return extract_pattern(text, ANSWERS.get(task, OPTION))
        return (extract_tail if self.settings.grading == "olmes:cot" else extract_bbh_answer)(text)

    def summarize(self, grades: Sequence[Grade]) -> dict[str, Metric]:
        """The mean of the task means, each task's own as "bbh/<task>", and the share over all."""
        return stats.by_group("bbh", grades, macro=True, other="micro")

    def row_scores(self, row: Mapping[str, Any]) -> Mapping[str, float | None]:
        """An item's score is the same in both means."""
        return {"bbh": row["score"], "micro": row["score"]}

    def gold(self, item: BBHItem) -> str:
        """The target."""
        return item.target


@cache
def task_prompt(task: str, shots: int = N_SHOTS) -> str:
    """The task's published prompt: instruction and worked examples, stripped."""
    published = task_file(_file_of(task))
    # lm-eval keeps the thought on a line of its own; in this one task's original it follows on the
    # same line.
    gap = " " if task == "sports_understanding" else "\n"
    examples = [
        f"Q: {sample['input']}\n{STEP_BY_STEP}{gap}{sample['target']}"
        for sample in published.samples[:shots]
    ]
    return (published.description + "\n\n".join(examples)).strip()


def _file_of(task: str) -> str:
    return f"bbh/cot_fewshot/{task}.yaml"
