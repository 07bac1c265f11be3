"""One run, start to end: every task's requests as one queue, then the checks, then the grades.

Each answer is committed before it is counted. Kill it anywhere: the same command asks only for what the store lacks.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from typing import Any

from evals.errors import InputError
from evals.generators import Failure, Generator
from evals.generators.replay import ReplayGenerator
from evals.grading import Answers, TaskResult, grade_task, sample_rows
from evals.judges import Judge, finding_of
from evals.models import Model, require_weights, resolve
from evals.plan import Plan, RunSettings, make_plan
from evals.progress import Progress
from evals.prompts import Rendered, Renderer, load_tokenizer, resolve_chat_format
from evals.provenance import run_record
from evals.records import Check, Completion, Finding, Item, ItemId, Outcome, Program
from evals.run_folder import RunFolder
from evals.store import Store
from evals.summary import header, summarize

_TOKENS_PER_PREFILL = 10  # a prompt token costs about a tenth of a generated one; only the ETA uses it


@dataclass(frozen=True, slots=True)
class RunResult:
    """A finished (or interrupted) run: its folder, summary and what is left to say about it."""

    folder: RunFolder
    summary: Mapping[str, Any]
    n_failed: int

    @property
    def is_complete(self) -> bool:
        """True when every item that was to be asked has its answer and its findings."""
        return self.n_failed == 0

    @property
    def cells(self) -> Mapping[str, float | None]:
        """Cell key -> fraction, None where the table prints `-`."""
        return {key: cell["value"] for key, cell in self.summary["cells"].items()}

    def table(self) -> str:
        """The card's table with this row, in Markdown."""
        from evals.table import markdown, row_from_summary

        return markdown([row_from_summary(self.summary)])


def run(settings: RunSettings, progress: Progress | None = None, make_generator: Callable[[Plan], Generator] | None = None) -> RunResult:
    """Evaluate a model and write its run folder.

    make_generator: how to start the evaluated model's engine (tests give a fake one).
    Raises EvalsError with one sentence for everything a user can meet.
    """
    plan = make_plan(settings)
    folder = RunFolder(plan.out)
    with folder.locked():
        _refuse_other_run(folder, plan)
        store = Store(settings.store or folder.store_path)
        session = _Session(plan, folder, store, progress or Progress(quiet=True), make_generator or generator_for)
        try:
            return session.execute()
        finally:
            session.close()


def generator_for(plan: Plan) -> Generator:
    """The evaluated model's engine."""
    if plan.model.kind == "replay":
        return ReplayGenerator(plan.recorded)
    return start_engine(plan.model, plan.settings)


def start_engine(model: Model, settings: RunSettings) -> Generator:
    """An engine for any model that is not a recording; a judge's uses the same settings."""
    if model.kind == "server":
        from evals.generators.openai import OpenAIGenerator

        return OpenAIGenerator(model.source, model.urls)
    from evals.generators.vllm import VllmGenerator

    return VllmGenerator(model.source, settings.engine, revision=model.revision)


class _Session:
    """The state of one run under way."""

    def __init__(
        self, plan: Plan, folder: RunFolder, store: Store, progress: Progress, make_generator: Callable[[Plan], Generator]
    ) -> None:
        self.plan = plan
        self.folder = folder
        self.store = store
        self.progress = progress
        self.make_generator = make_generator
        self.completions: dict[ItemId, Completion] = {}
        self.findings: dict[ItemId, dict[str, Finding]] = {}
        self.items: dict[ItemId, tuple[str, Item]] = {}
        self.capped: dict[str, int] = {}
        self.judge_notes: dict[str, list[str]] = {}
        self.programs: dict[Future[Outcome], tuple[ItemId, str, str]] = {}
        self.judge_checks: list[tuple[ItemId, Check]] = []
        self.failures: dict[ItemId, str] = {}
        self.n_bos: int | None = None
        self._engine: Generator | None = None
        self._engine_of = ""
        self._sandbox: Any = None
        self._links: list[tuple[ItemId, str, str, str, str]] = []

    def execute(self) -> RunResult:
        """Generate, check, judge, grade, write."""
        self.progress.start("tokenize")
        rendered = [request for task in self.plan.tasks for request in self._render(task)]
        self._answer_all(rendered)
        self._collect_programs()
        for fingerprint_name, judge_group in self._judge_groups().items():
            self._judge(fingerprint_name, judge_group)
        return self._finish()

    def close(self) -> None:
        """Free engine, sandbox and store."""
        self._close_engine()
        if self._sandbox is not None:
            self._sandbox.close()
        self.progress.stop()
        self.store.close()

    def _render(self, task: str) -> list[Rendered]:
        plan = self.plan.tasks[task]
        self.items.update({item.id: (task, item) for item in plan.items})
        rendered = self.plan.render(task)
        self.capped[task] = sum(request.is_capped for request in rendered)
        if self.n_bos is None and rendered and rendered[0].token_ids:
            self.n_bos = self.plan.renderer.n_bos(rendered[0].token_ids)
        return rendered

    def _answer_all(self, rendered: Sequence[Rendered]) -> None:
        """One queue: long generations first so that the tail is short; within a length, prompts that share a prefix stay together."""
        keyed = [(self.plan.key(request), request) for request in rendered]
        self.store.link(self.plan.run_key, ((r.item_id, "", key, "", r.text) for key, r in keyed))
        waiting = self._ask_store(keyed, lambda request, answer: self._landed(request.item_id, answer))
        waiting.sort(key=lambda entry: -entry[1][0].max_new_tokens * entry[1][0].sampling.n)
        if not waiting:
            return
        self._load(self.plan.model, lambda: self.make_generator(self.plan))
        self._stream("generate", waiting, lambda request, answer: self._landed(request.item_id, answer), self.plan.renderer)

    def _ask_store(
        self, keyed: Iterable[tuple[str, Rendered]], land: Callable[[Rendered, Completion], None]
    ) -> list[tuple[str, list[Rendered]]]:
        """Land what the store has; return what it lacks, equal requests together."""
        by_key: dict[str, list[Rendered]] = {}
        for key, request in keyed:
            by_key.setdefault(key, []).append(request)
        known = self.store.known(by_key)
        for key in known:
            answer = self.store.get(key)
            for request in by_key[key] if isinstance(answer, Completion) else ():
                land(request, answer)  # type: ignore[arg-type]
        return [(key, requests) for key, requests in by_key.items() if key not in known]

    def _stream(
        self, phase: str, waiting: Sequence[tuple[str, list[Rendered]]], land: Callable[[Rendered, Completion], None], renderer: Renderer
    ) -> None:
        assert self._engine is not None
        of = {id(requests[0]): (key, requests) for key, requests in waiting}
        self.progress.start(phase, len(waiting), sum(_work(requests[0]) for _, requests in waiting))
        for done in self._engine.stream([requests[0] for _, requests in waiting]):
            answered = [(*of[id(request)], renderer.cut(request, answer)) for request, answer in done if isinstance(answer, Completion)]
            self.store.put((key, answer) for key, _, answer in answered)
            for request, failure in done:
                if isinstance(failure, Failure):
                    self.failures.update({twin.item_id: failure.reason for twin in of[id(request)][1]})
            for _, requests, answer in answered:
                for request in requests:
                    land(request, answer)
            self.progress.advance(len(done), sum(_work(request) for request, _ in done), **_counts(answer for _, _, answer in answered))
        self.progress.stop()

    def _landed(self, item_id: ItemId, answer: Completion) -> None:
        """An answer is here: keep it, start its programs, note what judges must decide."""
        task, item = self.items[item_id]
        benchmark = self.plan.tasks[task].benchmark
        self.completions[item_id] = answer
        recorded = self.plan.recorded.get(item_id)
        found = self.findings.setdefault(item_id, dict(recorded.findings) if recorded else {})
        for check in benchmark.checks(item, answer):
            if check.name in found:
                continue
            if isinstance(check.ask, Program):
                self._run_program(item_id, check.name, check.ask)
            elif (judge := self.plan.judges.get(check.name)) is not None:
                if judge.is_rule:
                    found[check.name] = Finding(by=judge.model, text=benchmark.rules[judge.model](answer.text))
                else:
                    self.judge_checks.append((item_id, check))

    def _run_program(self, item_id: ItemId, name: str, program: Program) -> None:
        from evals.sandbox import SANDBOX_VERSION, Sandbox

        key = hashlib.sha256(json.dumps([SANDBOX_VERSION, asdict(program)]).encode()).hexdigest()
        known = self.store.get(key)
        if isinstance(known, Outcome):
            self._found(item_id, name, key, Finding(by="sandbox", outcome=known))
            return
        if self._sandbox is None:
            self._sandbox = Sandbox(self.plan.settings.sandbox)
            if self._sandbox.level != "namespace":
                self.progress.note(f"Programs run at the sandbox's {self._sandbox.level} level: {self._sandbox.level_reason}")
        self.programs[self._sandbox.submit(program)] = (item_id, name, key)

    def _collect_programs(self) -> None:
        self.progress.start("programs", len(self.programs))
        batch: list[tuple[str, Outcome]] = []
        for future, (item_id, name, key) in self.programs.items():
            outcome = future.result()
            batch.append((key, outcome))
            self._found(item_id, name, key, Finding(by="sandbox", outcome=outcome))
            self.progress.advance()
            if len(batch) == 64:
                self.store.put(batch)
                batch.clear()
        self.store.put(batch)
        self.progress.stop()

    def _found(self, item_id: ItemId, check: str, key: str, finding: Finding) -> None:
        self.findings[item_id][check] = finding
        self._links.append((item_id, check, key, finding.by, ""))
        if len(self._links) >= 256:
            self._flush_links()

    def _flush_links(self) -> None:
        self.store.link(self.plan.run_key, self._links)
        self._links.clear()

    def _judge_groups(self) -> dict[str, list[tuple[ItemId, Check, Judge]]]:
        """Checks by the judge's model, so that each judge is loaded once; the model already loaded goes first."""
        groups: dict[str, list[tuple[ItemId, Check, Judge]]] = {}
        for item_id, check in sorted(self.judge_checks, key=lambda entry: (entry[1].name, entry[0])):
            judge = self.plan.judges[check.name]
            groups.setdefault(judge.model, []).append((item_id, check, judge))
        return dict(sorted(groups.items(), key=lambda entry: entry[0] != self._engine_of))

    def _judge(self, name: str, group: Sequence[tuple[ItemId, Check, Judge]]) -> None:
        """Let one judge decide its checks. A prompt too long for it is an unreadable verdict, counted and shown."""
        settings = self.plan.settings
        model = resolve(name, offline=settings.offline)
        require_weights(model)
        fingerprint = model.fingerprint(settings.engine.dtype, settings.engine.quantization)
        renderer = _judge_renderer(model, settings)
        requests = {(item_id, check.name): check.ask for item_id, check, _ in group}
        rendered = renderer.render([(item_id, check.name, check.ask) for item_id, check, _ in group])  # type: ignore[misc]
        fits = [r for r in rendered if r.max_new_tokens > 0 and not (renderer.max_len and len(r.token_ids) >= renderer.max_len)]
        for request in set(rendered) - set(fits):
            self.findings[request.item_id][request.check] = Finding(by=name, text="")
            notes = self.judge_notes.setdefault(request.check, [])
            notes[:] = [
                f"{request.check}: {int(notes[0].split()[1]) + 1 if notes else 1} prompts too long for {name}, counted as unreadable verdicts"
            ]
        keyed = [(request.key(fingerprint), request) for request in fits]
        self.store.link(self.plan.run_key, ((r.item_id, r.check, key, name, r.text) for key, r in keyed))

        def land(request: Rendered, answer: Completion) -> None:
            ask = requests[(request.item_id, request.check)]
            assert not isinstance(ask, Program)
            self.findings[request.item_id][request.check] = finding_of(ask, answer, name)

        waiting = self._ask_store(keyed, land)
        if waiting:
            self._load(model, lambda: start_engine(model, settings))
            self._stream(f"judge {name}", waiting, land, renderer)

    def _load(self, model: Model, start: Callable[[], Generator]) -> None:
        """Have this model's engine running, and no other."""
        if self._engine is not None and self._engine_of == model.argument:
            return
        self._close_engine()
        self.progress.start(f"load {model.name}")
        self._engine = start()
        self._engine_of = model.argument
        self.progress.stop()

    def _close_engine(self) -> None:
        if self._engine is not None:
            self._engine.close()
            self._engine = None
            self._engine_of = ""

    def _finish(self) -> RunResult:
        self.progress.start("grade")
        self._flush_links()
        results: list[TaskResult] = []
        skipped = {}
        for name, task in self.plan.tasks.items():
            if task.skipped:
                skipped[name] = (task.benchmark.columns, len(task.items), task.skipped)
                continue
            answers = Answers(self.completions, self.findings, self.capped[name])
            result = grade_task(task.benchmark, task.items, answers)
            self.folder.write_samples(name, sample_rows(result, answers))
            results.append(result)
        head = header(self.plan, self.n_bos, self.judge_notes)
        summary = summarize(head, results, skipped)
        self.progress.stop()
        level = None if self._sandbox is None else {"level": self._sandbox.level, "reason": self._sandbox.level_reason}
        previous = self.folder.read_json("run.json") if (self.folder.path / "run.json").exists() else {}
        self.folder.write_json("run.json", run_record(self.plan, head, self.capped, self.progress.phases, level, previous))
        self.folder.write_json("summary.json", summary)
        n_failed = sum(len(result.grades) - result.n_answered for result in results) + sum(
            1 for item_id, check in self.judge_checks if check.name not in self.findings[item_id]
        )
        for item_id, reason in list(self.failures.items())[:3]:
            self.progress.note(f"{item_id}: {reason}")
        return RunResult(self.folder, summary, n_failed)


def _judge_renderer(model: Model, settings: RunSettings) -> Renderer:
    if model.files is None:
        return Renderer(None, "tokenizer", None)
    tokenizer = load_tokenizer(str(model.files), trust_remote_code=settings.engine.trust_remote_code)
    own = model.max_len(None)
    limit = settings.engine.max_model_len
    return Renderer(tokenizer, resolve_chat_format("auto", tokenizer, model.row_format), min(own, limit) if own and limit else own)


def _work(request: Rendered) -> float:
    return len(request.token_ids) / _TOKENS_PER_PREFILL + request.max_new_tokens * request.sampling.n


def _counts(answers: Iterable[Completion]) -> dict[str, float]:
    counts = {"prompt_tokens": 0.0, "cached_tokens": 0.0, "output_tokens": 0.0}
    for answer in answers:
        counts["prompt_tokens"] += answer.n_prompt_tokens
        counts["cached_tokens"] += answer.n_cached_tokens
        counts["output_tokens"] += answer.n_output_tokens
    return counts


def _refuse_other_run(folder: RunFolder, plan: Plan) -> None:
    """A folder holds one run: the same model, suite, limit and chat format, with whatever tasks and judges."""
    if not (folder.path / "run.json").exists():
        return
    before = folder.read_json("run.json").get("summary_header", {})
    now = header(plan, None, {})
    for name in ("suite", "limit", "chat_format", "seed"):
        if before.get(name) != now[name]:
            raise InputError(f"{folder.path} holds a run with {name} {before.get(name)}, this one has {now[name]}. Choose another --out.")
    if before.get("model", {}).get("fingerprint") != plan.fingerprint:
        raise InputError(
            f"{folder.path} holds a run of another model ({before.get('model', {}).get('name')}), or in other precision. Choose another --out."
        )
