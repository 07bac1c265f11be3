"""A task's answers of one run, item by item: every draw's row of samples, and what they scored."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, variance
from typing import Any

from evals.benchmark import Benchmark
from evals.errors import InputError
from evals.records import ItemId
from evals.registry import draw_name
from evals.storage.run_folder import RunFolder


@dataclass(frozen=True, slots=True)
class Answer:
    """An item's rows of samples, one a draw. scores: their means by column key, None where a
    verdict could not be read.  noise: by column key, the variance of such a mean for the answers
    drawn; empty where there is one.
    """

    rows: tuple[Mapping[str, Any], ...]
    scores: Mapping[str, float | None]
    noise: Mapping[str, float] = field(default_factory=dict)

    @property
    def row(self) -> Mapping[str, Any]:
        """The first draw's."""
        return self.rows[0]

    @property
    def group(self) -> str:
        """What stands between its id's task and its number: a subject, a kind of puzzle."""
        return str(self.row.get("id", "")).partition("/")[2].rpartition("/")[0]

    def says_the_same(self, other: "Answer") -> bool:
        """Whether both answers are equal: the texts, or the choice; its log-probabilities differ in
        the last digits between processors.
        """
        said = [[r.get("outputs") or r.get("extracted") for r in one.rows] for one in (self, other)]
        return said[0] == said[1]


Answers = Mapping[ItemId, Answer]


@dataclass(frozen=True, slots=True)
class Side:
    """One run's part in a comparison: its folder, its cells, and a task's answers."""

    run: RunFolder
    cells: Mapping[str, Any]
    answers: Answers


def read_answers(run: RunFolder, benchmark: Benchmark[Any], draws: int = 1) -> dict[ItemId, Answer]:
    """A task's items in their order, under the ids of the first draw; none of no draws.

    Raises InputError naming a file whose rows lack id or score, or that lacks an item.
    """
    read = [_read(run, benchmark, draw_name(benchmark.name, 1 + at)) for at in range(draws)]
    if not read:
        return {}
    first, *others = read
    for at, other in enumerate(others):
        if first.keys() != other.keys():
            path = run.samples_path(draw_name(benchmark.name, 2 + at))
            raise InputError(
                f"{path} has other items than the first draw. Make it again with: evals score"
                f" {run.path}"
            )
    return {key: _together([one[key] for one in read]) for key in first} if others else first


def _read(run: RunFolder, benchmark: Benchmark[Any], task: str) -> dict[ItemId, Answer]:
    """One draw's answers, by the ids of the first."""
    found = {}
    for row in run.samples(task):
        try:
            own = str(row["id"]).removeprefix(f"{task}/")
            key = ItemId(row["id"] if own == row["id"] else f"{benchmark.name}/{own}")
            found[key] = Answer((row,), benchmark.column_scores(row))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            path = run.samples_path(task)
            raise InputError(
                f"{path}: a row lacks its id or score ({error!r}). Make it again with: evals score"
                f" {run.path}"
            ) from error
    return found


def _together(draws: Sequence[Answer]) -> Answer:
    """All answers to one item. One whose verdict could not be read leaves the column without."""
    scores: dict[str, float | None] = {}
    noise = {}
    for key in draws[0].scores:
        own = [score for one in draws if (score := one.scores.get(key)) is not None]
        scores[key] = fmean(own) if len(own) == len(draws) else None
        noise[key] = variance(own) / len(own) if len(own) == len(draws) else 0.0
    return Answer(tuple(row for one in draws for row in one.rows), scores, noise)
