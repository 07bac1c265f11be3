"""What a run leaves in its folder: samples, summary.json and run.json."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from evals.plan.make import Plan
from evals.records import Completion
from evals.runs.asking import Asker
from evals.runs.grading import Grading, TaskResult
from evals.runs.known import Known
from evals.runs.programs import Programs
from evals.runs.provenance import run_record
from evals.runs.summary import header, summarize
from evals.storage.run_folder import RunFolder
from evals.storage.spool import Spool


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
        plan = self.plan.tasks[task]
        grading = Grading(
            plan.benchmark,
            self.known.findings,
            self.known.capped[task],
            Spool(),
            self.plan.settings.reading,
        )
        answered = zip(plan.items, self._answers(task), self.known.graded[task], strict=True)
        self.folder.write_samples(task, grading.rows(answered))
        return grading.result()

    def _answers(self, task: str) -> Iterator[Completion | None]:
        """The task's answers out of the store as they are read, in item order;
        an item of a failed request has none.
        """
        answers = self.asker.store.get_each(self.known.keys[task])
        for item, (_, answer) in zip(self.plan.tasks[task].items, answers, strict=True):
            yield self.plan.read(task, item, answer) if isinstance(answer, Completion) else None

    def _header(self) -> dict[str, Any]:
        return header(self.plan, self.known.n_bos, self.known.judge_notes)
