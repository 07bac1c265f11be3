"""A benchmark of any size, for growth: sums. Registered where it is used, never by the program."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from evals import stats
from evals.benchmark import Benchmark
from evals.data.dataset import Dataset, HubTable, Source, Table
from evals.data.files import read_jsonl
from evals.models.prompts import Rendered
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
    Output,
    Sampling,
)
from evals.registry import BENCHMARKS

WORDS = "the sum of the two numbers is found by counting on from the first one " * 6
"""An answer of some length, 430 characters."""


@dataclass(frozen=True)
class Sum(Item):
    """One sum."""

    question: str
    answer: str


class Toy(Benchmark[Sum]):
    """Sums."""

    name = "toy"
    metrics = (Measure("toy", "share of right sums"),)
    dataset = Dataset(
        name="toy",
        hub_id="me/toy",
        licence="MIT",
        url="",
        tables={"test": Table("toy/test.jsonl", ("question", "answer"), read_jsonl, HubTable())},
        # Made anew each time: there is no checksum to hold it against.
        files={},
    )

    def items(self, source: Source) -> Iterator[Sum]:
        """All sums, in a hundred groups."""
        for n, row in enumerate(source.rows("test")):
            yield Sum(ItemId(f"toy/{n}"), str(n % 100), row["question"], row["answer"])

    def request(self, item: Sum) -> Generate:
        """The question."""
        return Generate((Message("user", item.question),), Sampling(max_tokens=64))

    def grade(self, item: Sum, answer: Completion, findings: Findings) -> Grade:
        """1 when the last word is the sum."""
        said = answer.text.rsplit(" ", 1)[-1]
        return Grade(item.id, item.group, {"toy": float(said == item.answer)}, said)

    def summarize(self, grades: Sequence[Grade]) -> Mapping[str, Metric]:
        """The share of right sums."""
        return {
            "toy": stats.proportion(
                (g.scores["toy"] for g in grades if "toy" in g.scores), len(grades)
            )
        }

    def gold(self, item: Sum) -> str:
        """The sum."""
        return item.answer


def register() -> None:
    """Make the program know it, in this process."""
    BENCHMARKS["toy"] = "scripts.bench_parts.toy:Toy"


def write_data(folder: Path, n: int) -> Path:
    """A data folder with n sums."""
    (folder / "toy").mkdir(parents=True, exist_ok=True)
    with (folder / "toy" / "test.jsonl").open("w", encoding="utf-8") as out:
        for index in range(n):
            out.write(
                json.dumps({"question": f"What is {index} and {index}?", "answer": str(2 * index)})
                + "\n"
            )
    return folder


def write_recording(path: Path, n: int, times: int = 1) -> Path:
    """n recorded answers, two of three right. times: how often each says WORDS."""
    with path.open("w", encoding="utf-8") as out:
        for index in range(n):
            out.write(
                json.dumps(
                    {
                        "id": f"toy/{index}",
                        "outputs": [f"{WORDS * times}{2 * index + (index % 3 == 0)}"],
                    }
                )
                + "\n"
            )
    return path


def answer(request: Rendered) -> Completion:
    """What a model would say, two times of three right."""
    index = int(request.item_id.split("/")[1])
    return Completion(
        (Output(f"{WORDS}{2 * index + (index % 3 == 0)}", "stop", tuple(range(100))),),
        n_prompt_tokens=9,
    )
