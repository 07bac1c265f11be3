"""What the formats of other tools need of a run: what was measured, and of every item the question,
the prompt, the gold answer and what became of it.
"""

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from evals.benchmark import Benchmark
from evals.errors import InputError
from evals.records import Column, Generate, Json, Request, Sampling
from evals.registry import of_draw
from evals.report.items import Background
from evals.storage.run_folder import RunFolder, to_json

_QUESTIONS = ("question", "instruction", "prompt")
"""An item's field with its question, whichever it has; of another benchmark's items the request's
last message is the question.
"""


@dataclass(frozen=True, slots=True)
class ExportedItem:
    """row: its line of samples.  scores: by column, None where a verdict could not be read.

    prompt, is_sent: the text that was sent, else the messages it was made of.
    """

    row: Mapping[str, Any]
    group: str
    question: str
    choices: tuple[str, ...]
    gold: str
    prompt: str
    is_sent: bool
    request: Request
    scores: Mapping[str, float | None]

    @property
    def id(self) -> str:
        """The item's public id."""
        return str(self.row["id"])

    @property
    def is_choice(self) -> bool:
        """True where nothing was generated, and the log-probabilities of candidates decide."""
        return not isinstance(self.request, Generate)

    @property
    def answer(self) -> str | None:
        """The answer as the scorer read it, None where it read none."""
        found = self.row.get("extracted")
        return found if isinstance(found, str | None) else to_json(found, indent=None)


@dataclass(frozen=True, slots=True)
class ExportedTask:
    """One benchmark that was asked. cells: the summary's, by column."""

    name: str
    benchmark: Benchmark[Any]
    cells: tuple[tuple[Column, Mapping[str, Any]], ...]
    _background: Background
    _run: RunFolder

    def items(self) -> Iterator[ExportedItem]:
        """Every graded item, in the run's order. Raises InputError where the samples are damaged,
        or are not of the data that is here.
        """
        where = self._run.samples_path(self.name)
        for row in self._run.samples(self.name):
            item = self._background.items.get(row["id"])
            if item is None:
                raise InputError(f"{where}: {row['id']} is no item of the data that is here.")
            request = self.benchmark.request(item)
            prompt, is_sent = self._background.prompt(row["id"])
            fields = (getattr(item, name, None) for name in _QUESTIONS)
            try:
                scores = self.benchmark.column_scores(row)
            except (KeyError, TypeError, ValueError) as error:
                raise InputError(
                    f"{where}: {row['id']} lacks its score. Make it again with: evals score"
                    f" {self._run.path}"
                ) from error
            yield ExportedItem(
                row,
                item.group,
                next((text for text in fields if isinstance(text, str)), "")
                or request.messages[-1].content,
                tuple(getattr(item, "choices", ())),
                self.benchmark.gold(item),
                prompt,
                is_sent,
                request,
                scores,
            )

    def request(self) -> Request | None:
        """That of the first item; None where there is no item."""
        item = next(iter(self._background.items.values()), None)
        return self.benchmark.request(item) if item else None

    def sampling(self) -> Sampling | None:
        """How the benchmark's answers are sampled; None where nothing is generated."""
        request = self.request()
        return request.sampling if isinstance(request, Generate) else None


@dataclass(frozen=True, slots=True)
class ExportedRun:
    """A finished run. tasks: those asked, in the table's order.  left_out: cells without a number,
    a sentence each.  ended: when its last session did.
    """

    summary: Mapping[str, Any]
    record: Mapping[str, Any]
    tasks: tuple[ExportedTask, ...]
    left_out: tuple[str, ...]
    ended: datetime

    @property
    def suite(self) -> str:
        """The items' name, which a number of a part of the data must not be without."""
        limit = self.summary["limit"]
        return f"{self.summary['suite']}-limit-{limit}" if limit else str(self.summary["suite"])

    @property
    def versions(self) -> Mapping[str, str]:
        """Of the packages that made the run."""
        versions: Mapping[str, str] = self.record["sessions"][-1]["versions"]
        return versions

    def key(self, what: str) -> str:
        """64 hexadecimal digits that are this run's; equal for every export of it."""
        words = (what, self.record["run_key"], self.suite, self.summary["model"]["fingerprint"])
        return hashlib.sha256("\n".join(words).encode()).hexdigest()


@contextlib.contextmanager
def exported(folder: Path, data: Path | None) -> Iterator[ExportedRun]:
    """A run's content, with its store open. Raises InputError where the folder is no finished run,
    or the data of one of its benchmarks is not here.
    """
    run = RunFolder(folder)
    summary, record = run.read_json("summary.json"), run.read_json("run.json")
    with contextlib.ExitStack() as closing:
        tasks, left_out = [], []
        for name in record["tasks"]:
            if why := record["skipped"].get(name):
                left_out.append(f"{name}: {why}")
                continue
            if of_draw(name)[1] > 1:
                left_out.append(f"{name}: the numbers are of all draws, the items of the first")
                continue
            background = Background(run, record, name, data)
            closing.callback(background.close)
            if background.benchmark is None:
                raise InputError(background.lacks[0])
            columns = background.benchmark.columns
            cells = tuple((one, summary["cells"][one.key]) for one in columns)
            left_out += [
                f"{column.key}: {cell['reason'] or 'no value'}"
                for column, cell in cells
                if cell["value"] is None
            ]
            tasks.append(ExportedTask(name, background.benchmark, cells, background, run))
        # An older run.json does not say when it ended.
        said = record["sessions"][-1].get("ended")
        ended = (
            datetime.fromisoformat(said)
            if said
            else datetime.fromtimestamp((folder / "summary.json").stat().st_mtime, UTC)
        )
        yield ExportedRun(summary, record, tuple(tasks), tuple(left_out), ended)


def doc(item: ExportedItem) -> dict[str, Json]:
    """The item as the benchmark has it."""
    found: dict[str, Json] = {"id": item.id, "question": item.question, "gold": item.gold}
    if item.group:
        found["group"] = item.group
    return found | ({"choices": list(item.choices)} if item.choices else {})


def whole(value: Any) -> Any:
    """A JSON value without the halves of a pair that stand alone, at which strict readers stop:
    they are written out.
    """
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, Mapping):
        return {whole(key): whole(entry) for key, entry in value.items()}
    return [whole(entry) for entry in value] if isinstance(value, list | tuple) else value
