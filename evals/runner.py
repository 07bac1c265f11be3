"""One run, start to end: every task's requests as one queue, then the checks, then the grades.

Each answer is committed before it is counted. Kill it anywhere: the same command asks only for what the store lacks.
"""

import contextlib
import os
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from evals.asking import Asker, work
from evals.compare import power
from evals.early import EarlyJudges
from evals.errors import EvalsError, InputError
from evals.generators import Generator
from evals.generators.replay import RECORDED, ReplayGenerator
from evals.grading import Graded, Grading, TaskResult
from evals.judging import Question, judge_all
from evals.models import Model
from evals.plan import Plan, RunSettings, make_plan
from evals.programs import Programs
from evals.progress import Progress
from evals.prompts import Rendered
from evals.provenance import run_record, software
from evals.records import Completion, Finding, ItemId, Program
from evals.run_folder import RunFolder
from evals.spool import Spool
from evals.store import Store
from evals.summary import header, summarize

_REPLAYED_AT_ONCE = 250


@dataclass(frozen=True, slots=True)
class RunResult:
    """A run's folder and summary; n_missing: answers and verdicts that are still to be had."""

    folder: RunFolder
    summary: Mapping[str, Any]
    n_missing: int

    @property
    def is_complete(self) -> bool:
        """True when every item that was to be asked has its answer and its verdicts."""
        return self.n_missing == 0

    @property
    def cells(self) -> Mapping[str, float | None]:
        """Cell key -> fraction, None where the table prints `-`."""
        return {key: cell["value"] for key, cell in self.summary["cells"].items()}

    def table(self) -> str:
        """The card's table with this row, in Markdown."""
        from evals.report.table import markdown, row_from_summary

        return markdown([row_from_summary(self.summary)])


def run(settings: RunSettings, progress: Progress | None = None, make_generator: Callable[[Plan], Generator] | None = None) -> RunResult:
    """Evaluate a model and write its run folder.

    make_generator: how to start the evaluated model's engine (tests give a fake one).
    Raises EvalsError with one sentence for everything a user can meet.
    """
    return execute(make_plan(settings), progress or Progress(quiet=True), make_generator)


def execute(plan: Plan, progress: Progress, make_generator: Callable[[Plan], Generator] | None = None) -> RunResult:
    """The same for a plan that is made; see run."""
    folder = RunFolder(plan.out)
    with folder.locked():
        for note in earlier_run(folder, plan):
            progress.note(note)
        if plan.settings.limit is not None:
            progress.note(power.sentence(plan))
        session = _Session(plan, folder, progress, make_generator or generator_for)
        try:
            return session.execute()
        except BaseException:
            session.early.close()
            with contextlib.suppress(EvalsError):
                session.write_record(finished=False)
            raise
        finally:
            session.close()


def generator_for(plan: Plan) -> Generator:
    """The evaluated model's engine."""
    if plan.model.kind == "replay":
        return ReplayGenerator(plan.recorded)
    return start_engine(plan.model, plan.settings)


def start_engine(model: Model, settings: RunSettings) -> Generator:
    """An engine for any model that is not a recording; a judge's uses the same settings."""
    if model.kind == "replay":
        raise InputError(f"{model.argument} is a recording; it cannot judge. Put recorded verdicts into its rows as findings.")
    if model.kind == "server":
        from evals.generators.openai import OpenAIGenerator

        return OpenAIGenerator(model.source, model.urls)
    from evals.generators.vllm import VllmGenerator

    return VllmGenerator(model.source, settings.engine, revision=model.revision)


@dataclass
class _Known:
    """What is known so far about the run's items.

    places: of items without an answer: their task and their place in it.  keys: by task, in item order, where in the store the answer
    is.  graded: by task, in item order, those that wait for nothing.  findings: of those that wait.
    """

    places: dict[ItemId, tuple[str, int]] = field(default_factory=dict)
    keys: defaultdict[str, Spool[str]] = field(default_factory=lambda: defaultdict(Spool))
    graded: defaultdict[str, Spool[Graded | None]] = field(default_factory=lambda: defaultdict(Spool))
    findings: dict[ItemId, dict[str, Finding]] = field(default_factory=dict)
    capped: dict[str, int] = field(default_factory=dict)
    questions: dict[str, list[Question]] = field(default_factory=dict)
    judge_notes: dict[str, list[str]] = field(default_factory=dict)
    n_bos: int | None = None


class _Session:
    """One run under way."""

    def __init__(self, plan: Plan, folder: RunFolder, progress: Progress, make_generator: Callable[[Plan], Generator]) -> None:
        self.plan = plan
        self.folder = folder
        self.progress = progress
        self.make_generator = make_generator
        self.known = _Known()
        self.software = software()
        self.store = Store(plan.settings.store or folder.store_path)
        self.asker = Asker(self.store, plan.run_key, progress)
        self.programs = Programs(self.store, plan.run_key, progress, plan.settings.sandbox)
        self.early = EarlyJudges(self.asker, plan.settings, progress, lambda model, asked: start_engine(model, asked))

    def execute(self) -> RunResult:
        """Generate, check, judge, grade, write."""
        if self.plan.model.kind == "replay":
            self._replay()
        else:
            self._generate()
        self.programs.collect(self._found)
        self.known.judge_notes = judge_all(
            self.asker,
            self.plan.settings,
            self.known.questions,
            lambda question, finding: self._found(question.item_id, question.role, finding),
            start_engine,
        )
        return self._finish()

    def close(self) -> None:
        """Free engine, sandbox and store."""
        self.asker.close()
        self.early.close()
        self.programs.close()
        self.progress.stop()
        self.store.close()

    def _generate(self) -> None:
        """Land what the store has, and have the engine answer the rest as one queue."""
        self.progress.start("tokenize")
        keyed: list[tuple[str, Rendered]] = []
        for name, task in self.plan.tasks.items():
            rendered = self._keyed(name, range(len(task.items)))
            self.known.capped[name] = n_capped(rendered)
            keyed += rendered
        self.progress.start("generate")
        waiting = self.asker.ask("", keyed, self._land)
        if waiting:
            tasks = {self.known.places[request.item_id][0] for _, requests in waiting for request in requests}
            if any(self.plan.tasks[name].benchmark.runs_programs for name in tasks):
                self.programs.prepare()
            self.asker.load(self.plan.model.argument, lambda: self.make_generator(self.plan))
            self.progress.start("generate", len(waiting), work(waiting))
            self.asker.stream(waiting, self._land_and_judge, self.plan.renderer)
        self.progress.stop()
        self.early.finish()

    def _replay(self) -> None:
        """Land what was recorded, a few items at a time, so that all texts are never in memory together."""
        self.asker.load(self.plan.model.argument, lambda: self.make_generator(self.plan))
        self.progress.start("generate", sum(len(task.items) for task in self.plan.tasks.values()))
        # With a tokenizer there are prompts that may be too long, which are told all at once.
        at_once = _REPLAYED_AT_ONCE if self.plan.renderer.tokenizer is None else sys.maxsize
        for name, task in self.plan.tasks.items():
            capped = 0
            for first in range(0, len(task.items), at_once):
                keyed = self._keyed(name, range(first, min(len(task.items), first + at_once)))
                capped += n_capped(keyed)
                waiting = self.asker.ask("", keyed, self._land)
                self.progress.spare(len(keyed) - len(waiting))
                self.asker.stream(waiting, self._land_and_judge, self.plan.renderer)
            self.known.capped[name] = capped
        self.progress.stop()
        self.early.finish()

    def _keyed(self, task: str, places: range) -> list[tuple[str, Rendered]]:
        """Requests of neighbouring items of a task, in their order, each with its store key."""
        rendered = self.plan.render(task, places)
        self.known.places.update({request.item_id: (task, place) for place, request in zip(places, rendered, strict=False)})
        self.known.graded[task].extend(None for _ in rendered)
        if self.known.n_bos is None and rendered and rendered[0].token_ids:
            self.known.n_bos = self.plan.renderer.n_bos(rendered[0].token_ids)
        keys = [self.plan.key(request) for request in rendered]
        self.known.keys[task].extend(keys)
        return list(zip(keys, rendered, strict=True))

    def _land(self, request: Rendered, answer: Completion) -> None:
        """An answer is here: start its programs, note what judges must decide, grade it where there is nothing to wait for."""
        task, place = self.known.places.pop(request.item_id)
        benchmark, item = self.plan.tasks[task].benchmark, self.plan.tasks[task].items[place]
        recorded = self.plan.recorded.get(item.id)
        found = dict(recorded.findings) if recorded else {}
        must_wait = False
        for check in benchmark.checks(item, answer):
            if isinstance(check.ask, Program):
                if check.name in found and self.plan.settings.sandbox != "require":
                    found[check.name] = replace(found[check.name], by=RECORDED)
                    continue
                found.pop(check.name, None)
                self.programs.submit(item.id, check.name, check.ask)
                must_wait = True
            elif (judge := self.plan.judges.get(check.name)) is None:
                continue
            elif judge.is_rule:
                found[check.name] = Finding(by=judge.model, text=benchmark.rules[judge.model](answer.text))
            else:
                found.pop(check.name, None)  # what another judge was recorded to say is no answer of this one
                self.known.questions.setdefault(judge.model, []).append(Question(item.id, check.name, check.ask))
                must_wait = True
        if must_wait:
            self.known.findings[item.id] = found
        else:
            self.known.graded[task][place] = Graded(benchmark.grade(item, answer, found), found)
        self.programs.collect(self._found, wait=False)

    def _land_and_judge(self, request: Rendered, answer: Completion) -> None:
        self._land(request, answer)
        self.early.ask(self.known.questions)

    def _found(self, item_id: ItemId, check: str, finding: Finding) -> None:
        self.known.findings[item_id][check] = finding

    def _finish(self) -> RunResult:
        self.progress.start("grade")
        results: list[TaskResult] = []
        skipped = {}
        for name, task in self.plan.tasks.items():
            if task.skipped:
                skipped[name] = (task.benchmark.columns, len(task.items), task.skipped)
                continue
            grading = Grading(task.benchmark, self.known.findings, self.known.capped[name], Spool())
            answered = zip(task.items, self._answers(name), self.known.graded[name], strict=True)
            self.folder.write_samples(name, grading.rows(answered))
            results.append(grading.result())
        summary = summarize(self._header(), results, skipped)
        self.progress.stop()
        self.write_record(finished=True)
        self.folder.write_json("summary.json", summary)
        for (item_id, check), reason in list(self.asker.failures.items())[:3]:
            self.progress.note(f"{item_id}{' ' + check if check else ''}: {reason}")
        n_unanswered = sum(len(result.grades) - result.n_answered for result in results)
        n_unjudged = sum(
            question.role not in self.known.findings[question.item_id] for asked in self.known.questions.values() for question in asked
        )
        return RunResult(self.folder, summary, n_unanswered + n_unjudged)

    def _answers(self, task: str) -> Iterator[Completion | None]:
        """The task's answers out of the store, in item order; an item of a failed request has none."""
        for _, answer in self.store.get_each(self.known.keys[task]):
            yield answer if isinstance(answer, Completion) else None

    def write_record(self, *, finished: bool) -> None:
        """Write run.json: what this session did, after what earlier ones did; one that broke off takes back nothing they found out."""
        self.progress.stop()
        path = self.folder.path / "run.json"
        previous = self.folder.read_json("run.json") if path.exists() else {}
        head, capped = self._header(), dict(self.known.capped)
        if previous and not finished:
            before = previous["summary_header"]
            capped = {**previous["capped"], **capped}
            head["bos_tokens"] = before.get("bos_tokens") if head["bos_tokens"] is None else head["bos_tokens"]
            for role, judge in head["judges"].items():
                kept = before["judges"].get(role, {})
                judge["notes"] = judge["notes"] or (kept.get("notes", []) if kept.get("name") == judge["name"] else [])
        record = run_record(self.plan, self.software, head, capped, self.progress.phases, self.programs.level, previous)
        self.folder.write_json("run.json", record)

    def _header(self) -> dict[str, Any]:
        return header(self.plan, self.known.n_bos, self.known.judge_notes)


def n_capped(keyed: Sequence[tuple[str, Rendered]]) -> int:
    """How many of the requests are cut to the room left in the model's context."""
    return sum(request.is_capped for _, request in keyed)


def earlier_run(folder: RunFolder, plan: Plan) -> list[str]:
    """What is to be said about the folder's earlier run. A folder holds one run, with whatever tasks and judges.

    Raises InputError where that run is one of another model, suite, limit, seed or chat format.
    """
    if not os.path.exists(folder.path / "run.json"):
        return []
    record = folder.read_json("run.json")
    before = record["summary_header"]
    now = header(plan, None, {})
    for name in ("suite", "limit", "chat_format", "seed"):
        if before.get(name) != now[name]:
            raise InputError(f"{folder.path} holds a run with {name} {before.get(name)}, this one has {now[name]}. Choose another --out.")
    model = before.get("model", {})
    if model.get("fingerprint") != plan.fingerprint:
        raise InputError(f"{folder.path} holds a run of another model ({model.get('name')}), or in other precision. Choose another --out.")
    notes = []
    if plan.model.kind == "server" and record.get("model") != plan.model.argument:
        notes.append(f"{folder.path} keeps the answers of {record.get('model')}. If this is another model, choose another --out.")
    if left := [name for name in record["tasks"] if name not in plan.tasks and name not in record["skipped"]]:
        notes.append(
            f"{folder.path} had results of {', '.join(left)}, which this command leaves out: only their answers are kept, in its store."
        )
    return notes
