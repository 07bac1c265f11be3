"""GSM8K: grade-school arithmetic word problems, answered with a chain of thought.

Paper: Cobbe et al. 2021, "Training Verifiers to Solve Math Word Problems" (arXiv 2110.14168). The
exemplars are those of Wei et al. 2022 (arXiv 2201.11903). Data:
https://github.com/openai/grade-school-math, test.jsonl; hub openai/gsm8k.

Protocol: eight worked examples and the question in one user turn, the assistant's turn opened with
"Answer:"; greedy, at most 512 new tokens, base models stopped at the first newline. The last number
of the output is compared with the gold answer, case and punctuation ignored. The card used 200 of
the 1,319 questions, drawn with seed 42.

Settings beside the card's, as OLMES asks gsm8k::tulu (Tülu 3, OLMo 2; read in public copies of
2025): `turns`, each example's question in a turn of the user's and its answer in one of the
assistant's, opened with "Answer:", stopped at "Question:"; `grading = "olmes"`, the last number
has to be the gold one's last number, to the character.

Differs from the published set-up in:
- Nothing known.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from evals import stats
from evals.benchmark import ANY_NUMBER, Benchmark, setting
from evals.data.dataset import Dataset, HubTable, Source, Table
from evals.data.files import Row, read_jsonl
from evals.errors import InputError
from evals.extract import drop_separators, exact_match, extract_last_number
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

N_SHOTS = 8
SEED = 42
TURNS_STOPS = ("Question:", "</s>", "<|im_end|>")


@dataclass(frozen=True)
class GSM8KItem(Item):
    """One word problem. solution: the worked solution as published; answer: its number, thousands
    separators dropped.
    """

    question: str
    solution: str
    answer: str


@dataclass(frozen=True)
class Settings:
    """GSM8K's settings."""

    shots: int = setting(N_SHOTS, "worked examples before each problem", range(N_SHOTS + 1))
    items: int | str = setting(200, "problems drawn by a fixed seed", "all", range(1, 1319))
    turns: bool = setting(
        False, "the examples are turns of the chat, not one text", False, True, chat=(True,)
    )
    grading: str = setting(
        "open-instruct",
        "whose: open-instruct compares the last number without its punctuation, olmes as it is",
        "open-instruct",
        "olmes",
    )
    max_new_tokens: int = setting(512, "new tokens at most", ANY_NUMBER)


class GSM8K(Benchmark[GSM8KItem]):
    """GSM8K, answered with a chain of thought."""

    name = "gsm8k"
    Settings = Settings
    usual_tokens = 150
    metrics = (Measure("gsm8k", "share of problems whose number is right", "exact_match"),)
    dataset = Dataset(
        name="gsm8k",
        hub_id="openai/gsm8k",
        licence="MIT",
        url="https://github.com/openai/grade-school-math",
        tables={
            "test": Table(
                path="gsm8k/test.jsonl",
                fields=("question", "answer"),
                read=read_jsonl,
                hub=HubTable(config="main", split="test"),
            )
        },
    )

    def items(self, source: Source) -> Sequence[GSM8KItem]:
        """All questions in file order."""
        return [_item(row, index) for index, row in enumerate(source.rows("test"))]

    def drawn(self, items: Sequence[GSM8KItem]) -> Sequence[GSM8KItem]:
        """The questions in the order drawn. Raises InputError when there are fewer to draw from."""
        n = self.settings.items
        if n == "all":
            return items
        if len(items) < n:
            raise InputError(
                f"gsm8k: the card draws {n} questions, there are {len(items)}. Use the whole"
                " test.jsonl."
            )
        # The first and only call, on the rows in file order: anything else draws other questions.
        return random.Random(SEED).sample(list(items), n)

    def request(self, item: GSM8KItem) -> Generate:
        """The exemplars and the question."""
        question, most = f"Question: {item.question.strip()}", self.settings.max_new_tokens
        if self.settings.turns:
            messages = as_turns(_exemplars(self.settings.shots), question)
            how = Sampling(max_tokens=most, stop=TURNS_STOPS)
            return Generate(messages, how, opening="Answer:")
        # Base models alone have a stop: the card's launcher left the option for chat unset.
        prompt = prompt_prefix(self.settings.shots) + question
        if self.chat:
            how = Sampling(max_tokens=most)
            return Generate((Message("user", prompt),), how, opening="Answer:")
        how = Sampling(max_tokens=most, stop=("\n",))
        return Generate((Message("user", f"{prompt}\nAnswer:"),), how)

    def grade(self, item: GSM8KItem, answer: Completion, findings: Findings) -> Grade:
        """1 when the last number is the gold one; "18.00" is compared as 1800, so it fails against
        18, as in the original.
        """
        extracted = extract_last_number(answer.text)
        if self.settings.grading == "olmes":
            # The gold one is read in the same way, and so loses its sign.
            is_right = extracted == extract_last_number(item.answer)
        else:
            is_right = exact_match(extracted.text, item.answer)
        scores = {"gsm8k": float(is_right)}
        return Grade(item.id, item.group, scores, extracted.text, unparsed=not extracted.found)

    def summarize(self, grades: Sequence[Grade]) -> dict[str, Metric]:
        """Accuracy over the questions."""
        return {"gsm8k": stats.share("gsm8k", grades)}

    def gold(self, item: GSM8KItem) -> str:
        """The gold number."""
        return item.answer


@cache
def prompt_prefix(shots: int = N_SHOTS) -> str:
    """Everything before the question: the instruction and the exemplars, ending in a blank line."""
    exemplars = ["\n".join(one) for one in _exemplars(shots)]
    return "\n\n".join(["Answer the following questions.", *exemplars]) + "\n\n"


@cache
def _exemplars(shots: int) -> tuple[tuple[str, str], ...]:
    return tuple(
        (
            f"Question: {sample['question']}",
            # lm-eval's copy shortened the last sentence of every exemplar.
            f"Answer: {sample['target'].replace('The answer is', 'So the answer is')}",
        )
        for sample in task_file("gsm8k/gsm8k-cot.yaml").samples[:shots]
    )


def _item(row: Row, index: int) -> GSM8KItem:
    _, marker, number = row["answer"].rpartition("####")
    if not marker:
        raise InputError(
            f"gsm8k/{index}: the solution has no '####' before its answer. Replace test.jsonl with"
            " the public file."
        )
    return GSM8KItem(
        ItemId(f"gsm8k/{index}"),
        "",
        row["question"],
        row["answer"],
        drop_separators(number.strip()),
    )
