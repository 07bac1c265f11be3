"""What a run leaves in its folder: samples, summary.json and run.json."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from evals.errors import EnvironmentFault, no_files_left
from evals.plan.make import Plan
from evals.records import Completion
from evals.runs.asking import Asker
from evals.runs.grading import Grading, TaskResult
from evals.runs.known import Known
from evals.runs.programs import Programs
from evals.runs.provenance import run_record
from evals.runs.summary import header, summarize
from evals.storage.run_folder import Packed, RunFolder
from evals.storage.spool import Spool

_AT_ONCE = 64
"""Items that are written ahead at a time: some ten milliseconds."""
_MOST_TASKS = 32
"""That are written ahead: each has files open."""
_IN_MEMORY = 500
"""Items that are in memory at a time at most."""


@dataclass(frozen=True, slots=True)
class RunResult:
    """A run's folder and summary; n_missing: answers and verdicts that are still to be had, and
    tasks that could not be asked.  broken: these.
    """

    folder: RunFolder
    summary: Mapping[str, Any]
    n_missing: int
    broken: tuple[str, ...] = ()

    @property
    def is_complete(self) -> bool:
        """True when every item that was to be asked has its answer and its verdicts."""
        return self.n_missing == 0

    @property
    def cells(self) -> Mapping[str, float | None]:
        """Cell key -> fraction, None where the table prints `-`."""
        return {key: cell["value"] for key, cell in self.summary["cells"].items()}


@dataclass(slots=True)
class _Ahead:
    """What is written of a task before its end: its first n items."""

    grading: Grading
    samples: Packed
    n: int = 0


@dataclass(frozen=True, slots=True)
class Writing:
    """Writes a run's folder from what is known. made_with: versions and commit, as they are when
    the run starts.  previous: the run.json that was there then, {} where there was none.
    """

    plan: Plan
    folder: RunFolder
    asker: Asker
    known: Known
    programs: Programs
    made_with: Mapping[str, Any]
    previous: Mapping[str, Any]
    _ahead: dict[str, _Ahead] = field(default_factory=dict)

    def write_ahead(self) -> None:
        """Write what is graded, in items' order, while the engine answers: or the run's end would
        wait for all of it.
        """
        for task, n_ready in self.known.n_ready.items():
            ahead = self._ahead.get(task)
            n = ahead.n if ahead else 0
            end = n + _AT_ONCE
            if n_ready < end or (ahead is None and len(self._ahead) == _MOST_TASKS):
                continue
            if ahead is None:
                grading = self._grading(task)
                with _temporary_file():
                    ahead = _Ahead(grading, Packed())
            # One at a time, read outside: what fails there is no fault of the temporary file.
            for row in self._rows(task, ahead.grading, n, end):
                with _temporary_file():
                    ahead.samples.write((row,))
            ahead.n, self._ahead[task] = end, ahead

    def grade_and_write(self) -> RunResult:
        """Grade what waited, and write everything."""
        progress = self.asker.progress
        progress.start("grade")
        results = [self._graded(name) for name, task in self.plan.tasks.items() if not task.skipped]
        skipped = {
            name: (task.benchmark.columns, len(task.items), task.skipped)
            for name, task in self.plan.tasks.items()
            if task.skipped
        }
        summary = summarize(self._header(), results, skipped)
        # The record before the summary: a folder with a summary is a finished run, and must lack
        # nothing.
        self.record(finished=True)
        self.folder.write_json("summary.json", summary)
        for (item_id, check), reason in list(self.asker.failures.items())[:3]:
            progress.note(f"{item_id}{' ' + check if check else ''}: {reason}")
        n_unanswered = sum(len(result.grades) - result.n_answered for result in results)
        broken = tuple(name for name, task in self.plan.tasks.items() if task.is_broken)
        n_missing = n_unanswered + self.known.n_unjudged + len(broken)
        return RunResult(self.folder, summary, n_missing, broken)

    def record(self, *, finished: bool) -> None:
        """Write run.json: what this session did, after what earlier ones did; one that broke off
        takes back nothing they found out.
        """
        self.asker.progress.stop()
        previous = self.previous
        head, capped = self._header(), dict(self.known.capped)
        if previous and not finished:
            before = previous["summary_header"]
            capped = {**previous["capped"], **capped}
            head["bos_tokens"] = (
                before.get("bos_tokens") if head["bos_tokens"] is None else head["bos_tokens"]
            )
            for role, judge in head["judges"].items():
                kept = before["judges"].get(role, {})
                judge["notes"] = judge["notes"] or (
                    kept.get("notes", []) if kept.get("name") == judge["name"] else []
                )
        phases = self.asker.progress.phases
        self.folder.write_json(
            "run.json",
            run_record(
                self.plan, self.made_with, head, capped, phases, self.programs.level, previous
            ),
        )

    def _graded(self, task: str) -> TaskResult:
        """A task's samples written, and its result."""
        ahead = self._ahead.pop(task, None)
        grading = ahead.grading if ahead else self._grading(task)
        grading.capped = self.known.capped[task]
        rest = self._rows(task, grading, ahead.n if ahead else 0, len(self.plan.tasks[task].items))
        self.folder.write_samples(task, rest, ahead.samples if ahead else None)
        return grading.result()

    def _grading(self, task: str) -> Grading:
        benchmark, reading = self.plan.tasks[task].benchmark, self.plan.settings.reading
        return Grading(benchmark, self.known.findings, grades=Spool(), reading=reading)

    def _rows(self, task: str, grading: Grading, first: int, end: int) -> Iterator[dict[str, Any]]:
        """The lines of items from the first to the one before the end."""
        items, graded = self.plan.tasks[task].items, self.known.graded[task]
        for at in range(first, end, _IN_MEMORY):
            part = slice(at, min(at + _IN_MEMORY, end))
            answers = self._answers(task, part)
            yield from grading.rows(zip(items[part], answers, graded[part], strict=True))

    def _answers(self, task: str, part: slice) -> Iterator[Completion | None]:
        """Answers of the task out of the store as they are read, in item order; an item of a failed
        request has none.
        """
        answers = self.asker.store.get_each(self.known.keys[task][part])
        for item, (_, answer) in zip(self.plan.tasks[task].items[part], answers, strict=True):
            yield self.plan.read(task, item, answer) if isinstance(answer, Completion) else None

    def _header(self) -> dict[str, Any]:
        return header(self.plan, self.known.n_bos, self.known.judge_notes)


@contextmanager
def _temporary_file() -> Iterator[None]:
    """What fails in here is the fault of a temporary file, and said so."""
    try:
        yield
    except OSError as error:
        raise no_files_left() or EnvironmentFault(
            f"A temporary file cannot be written ({error}). Set TMPDIR to a folder with room; the"
            " same command then goes on."
        ) from error
