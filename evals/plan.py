"""From settings to what will be asked: model, data, items, judges. Everything that can be wrong is found here, before weights load."""

import contextlib
import gc
import hashlib
import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from evals.benchmark import Benchmark
from evals.data import LoadedSource, load_card_data, load_smoke_data
from evals.errors import InputError
from evals.generators import EngineSettings
from evals.generators.replay import Recorded, read_recorded
from evals.grading import roles_of_column
from evals.judges import Judge, parse_judges
from evals.models import Model, require_weights, resolve
from evals.prompts import ChatFormat, Rendered, Renderer, check_room, load_tokenizer, resolve_chat_format
from evals.records import Item, ItemId
from evals.registry import BENCHMARKS, benchmark_class
from evals.spool import Scratch, Spool

Suite = Literal["card", "full", "smoke"]
SUITES: tuple[Suite, ...] = ("card", "full", "smoke")
PROTOCOL_VERSION = "llama-3.1-tulu-2/1"
LIMIT_SEED = 42
SMOKE_MAX_NEW_TOKENS = 256  # the smoke suite is for seeing that everything works, in minutes


@dataclass(frozen=True, slots=True)
class RunSettings:
    """What the user asked for; see `evals run --help` for each."""

    model: str
    name: str | None = None
    suite: str = "card"
    tasks: tuple[str, ...] = ()
    data: Path | None = None
    out: Path | None = None
    limit: int | None = None
    chat_format: str = "auto"
    revision: str | None = None
    tokenizer: str | None = None
    judges: tuple[str, ...] = ()
    sandbox: Literal["auto", "require"] = "auto"
    store: Path | None = None
    offline: bool = False
    engine: EngineSettings = field(default_factory=EngineSettings)


@dataclass(frozen=True, slots=True)
class TaskPlan:
    """One benchmark's share of a run. skipped: why nothing is asked for it (None: it is run)."""

    benchmark: Benchmark[Any]
    items: Sequence[Item]
    source: LoadedSource
    skipped: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """A run that can start: nothing in it needs the engine."""

    settings: RunSettings
    model: Model
    fingerprint: str
    renderer: Renderer
    chat_format: ChatFormat
    tasks: Mapping[str, TaskPlan]
    judges: Mapping[str, Judge]
    recorded: Mapping[ItemId, Recorded]

    @property
    def run_key(self) -> str:
        """Names this run's questions in a store: equal for the same model, format and protocol, whatever the suite."""
        identity = [self.fingerprint, self.chat_format, PROTOCOL_VERSION, self.settings.suite == "smoke"]
        return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]

    @property
    def out(self) -> Path:
        """The run folder."""
        return self.settings.out or Path("results") / default_folder(self.model.name, self.settings.suite)

    def render(self, task: str, places: range | None = None) -> list[Rendered]:
        """The task's requests as token ids, in item order. Raises InputError naming a prompt the model cannot take.

        places: only of its items at these.
        """
        plan = self.tasks[task]
        if plan.skipped:
            return []
        asked = plan.items if places is None else map(plan.items.__getitem__, places)
        rendered = self.renderer.render((item.id, "", plan.benchmark.request(item)) for item in asked)
        check_room(rendered, self.renderer.max_len)
        return rendered

    def key(self, rendered: Rendered) -> str:
        """The store key of one of the model's own requests."""
        if self.model.kind == "replay":
            return rendered.key(f"{self.fingerprint}/{rendered.item_id}")
        return rendered.key(self.fingerprint)


def default_folder(name: str, suite: str) -> str:
    """The run folder's name: the model's, lower case and safe as a file name, and the suite."""
    safe = "".join(c if c.isalnum() or c in "._-" else "-" for c in name.lower()).strip("-.")
    return f"{safe or 'model'}-{suite}"


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """No search for garbage among the objects of a plan, of which a large one has millions and none is garbage."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@_no_collection()
def make_plan(settings: RunSettings, *, need_weights: bool = True) -> Plan:
    """Everything a run needs, resolved and checked. Raises InputError (or EnvironmentFault) with one sentence for what is wrong."""
    if settings.offline:
        _go_offline()
    if settings.suite not in SUITES:
        raise InputError(f"Unknown suite {settings.suite!r}. Known: {', '.join(SUITES)}.")
    if settings.limit is not None and settings.limit < 1:
        raise InputError(f"--limit {settings.limit}: give the number of items of each benchmark, 1 or more.")
    _check_engine(settings.engine)
    names = _task_names(settings.tasks)
    classes: Classes = {name: benchmark_class(name) for name in names}
    judges = parse_judges(
        settings.judges,
        {role: tuple(cls.rules) for cls in classes.values() for role in cls.judge_roles},
        [role for cls in classes.values() for role in cls.judge_roles],
    )
    problems: list[str] = []
    model = _noting(problems, lambda: _model(settings, need_weights))
    recorded, read_as = _recorded(model)
    if recorded and not settings.tasks:
        named = {item_id.partition("/")[0] for item_id in recorded}
        classes = {name: cls for name, cls in classes.items() if name in named}
    judges = {role: judge for role, judge in judges.items() if any(role in cls.judge_roles for cls in classes.values())}
    sources = _noting(problems, lambda: _sources(classes, settings))
    if need_weights:
        _require_judges(judges, classes, settings, problems)
    if problems or model is None or sources is None:
        raise InputError("\n".join(problems))
    tokenizer = _tokenizer(model, settings)
    chat_format = _chat_format(model, settings, tokenizer)
    max_len = model.max_len(settings.engine.max_model_len)
    fingerprint = model.fingerprint(settings.engine.dtype, settings.engine.quantization) if need_weights else ""
    if recorded and fingerprint not in ("", read_as):
        raise InputError(f"{model.argument} changed while it was read. Give the command again when nothing writes to it.")
    benchmarks = {name: cls(chat=chat_format != "none") for name, cls in classes.items()}
    tasks = {name: _task_plan(benchmark, sources[name], settings, judges, recorded) for name, benchmark in benchmarks.items()}
    max_new = SMOKE_MAX_NEW_TOKENS if settings.suite == "smoke" else None
    renderer = Renderer(tokenizer, chat_format, max_len, settings.engine.seed, max_new)
    return Plan(settings, model, fingerprint, renderer, chat_format, tasks, judges, recorded)


OFFLINE_VARIABLES = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE", "VLLM_NO_USAGE_STATS", "DO_NOT_TRACK")
Classes = Mapping[str, type[Benchmark[Any]]]
T = TypeVar("T")


def _noting(problems: list[str], call: Callable[[], T]) -> T | None:
    """What `call` returns; its InputError is noted, so that everything wrong is told at once."""
    try:
        return call()
    except InputError as error:
        problems.append(str(error))
        return None


def _model(settings: RunSettings, need_weights: bool) -> Model:
    """The model; a server's takes its files, and so its context, from --tokenizer."""
    model = resolve(settings.model, revision=settings.revision, offline=settings.offline)
    if settings.engine.batch_invariant and model.kind in ("server", "replay"):
        raise InputError("--batch-invariant is the engine's own setting: start the server with VLLM_BATCH_INVARIANT=1 instead.")
    if need_weights:
        require_weights(model)
    if settings.name:
        model = replace(model, name=settings.name)
    if model.kind == "server" and settings.tokenizer:
        return replace(model, files=_tokenizer_files(settings.tokenizer, settings))
    return model


def _recorded(model: Model | None) -> tuple[Mapping[ItemId, Recorded], str]:
    """What a recording holds, and the fingerprint it had before it was read; nothing for any other model."""
    if model is None or model.kind != "replay":
        return {}, ""
    read_as = model.fingerprint()
    return read_recorded(Path(model.source)), read_as


def _require_judges(judges: Mapping[str, Judge], classes: Classes, settings: RunSettings, problems: list[str]) -> None:
    """Note every judge this run would ask that is not to be had."""
    roles = [role for cls in classes.values() for role in cls.judge_roles]
    asked: dict[str, list[str]] = {}
    for role in roles:
        if role in judges and not judges[role].is_rule:
            asked.setdefault(judges[role].model, []).append(role)
    for name, decides in asked.items():
        _noting(problems, partial(_require_judge, name, decides, settings))


def _require_judge(name: str, roles: Sequence[str], settings: RunSettings) -> None:
    try:
        model = resolve(name, offline=settings.offline)
    except InputError as error:
        raise InputError(f"Judge of {', '.join(roles)}: {error}") from error
    if model.kind == "replay":
        raise InputError(f"{name} is a recording; it cannot judge. Put recorded verdicts into its rows as findings.")
    require_weights(model)


def _check_engine(engine: EngineSettings) -> None:
    """What can be seen to be wrong before the engine is asked."""
    for name in ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size", "max_num_seqs"):
        value = getattr(engine, name)
        if value is not None and value < 1:
            raise InputError(f"--{name.replace('_', '-')} {value}: give 1 or more.")
    share = engine.gpu_memory_utilization
    if share is not None and not 0 < share <= 1:
        raise InputError(f"--gpu-memory-utilization {share}: give a share of the memory above 0, at most 1.")


def _go_offline() -> None:
    import os

    for name in OFFLINE_VARIABLES:
        os.environ[name] = "1"


def _task_names(asked: Sequence[str]) -> list[str]:
    wanted = [part.strip() for name in asked for part in name.split(",") if part.strip()]
    if any(asked) and not wanted:
        raise InputError(f"--tasks {','.join(asked)} names no benchmark. Known: {', '.join(BENCHMARKS)}.")
    for name in wanted:
        benchmark_class(name)
    return [name for name in BENCHMARKS if name in wanted] if wanted else list(BENCHMARKS)


def _tokenizer(model: Model, settings: RunSettings) -> Any:
    trust = settings.engine.trust_remote_code
    if settings.tokenizer:
        return load_tokenizer(str(_tokenizer_files(settings.tokenizer, settings)), trust_remote_code=trust)
    if model.files is not None:
        return load_tokenizer(str(model.files), trust_remote_code=trust)
    return None


def _tokenizer_files(argument: str, settings: RunSettings) -> Path:
    files = resolve(argument, offline=settings.offline).files
    if files is None:
        raise InputError(f"--tokenizer {argument} has no tokenizer on this machine. Name a folder or a hub id.")
    return files


def _chat_format(model: Model, settings: RunSettings, tokenizer: Any) -> ChatFormat:
    if tokenizer is None and settings.chat_format == "auto":
        return "tokenizer"  # a chat server renders by itself; recorded outputs are graded as a chat model's
    if tokenizer is None and settings.chat_format in ("tulu", "none") and model.kind == "server":
        raise InputError(f"--chat-format {settings.chat_format} needs the model's tokenizer: name its folder or hub id with --tokenizer.")
    return resolve_chat_format(settings.chat_format, tokenizer, model.row_format)


def _sources(classes: Classes, settings: RunSettings) -> dict[str, LoadedSource]:
    if settings.suite == "smoke":
        return {name: load_smoke_data(cls.dataset) for name, cls in classes.items()}
    loaded = load_card_data([cls.dataset for cls in classes.values()], settings.data)
    return {name: loaded[cls.dataset.name] for name, cls in classes.items()}


def _task_plan(
    benchmark: Benchmark[Any], source: LoadedSource, settings: RunSettings, judges: Mapping[str, Judge], recorded: Mapping[ItemId, Recorded]
) -> TaskPlan:
    items: Sequence[Item] = Spool(benchmark.items(source))
    _check_ids(benchmark, items, settings.model, recorded)
    if settings.suite == "card":
        items = benchmark.card_subset(items)
    if settings.limit is not None:
        items = spread(items, settings.limit)
    asked_for = bool(settings.tasks) or bool(recorded)
    # The rows have done their work.
    return TaskPlan(benchmark, items, replace(source, tables={}), None if asked_for else _why_skipped(benchmark, judges))


def _check_ids(benchmark: Benchmark[Any], items: Sequence[Item], model: str, recorded: Mapping[ItemId, Recorded]) -> None:
    """Raise InputError when two items have one id, or recorded rows of this benchmark match no item."""
    ids = Scratch("id TEXT PRIMARY KEY")
    n_matched = 0
    for item in items:
        if not ids.ask("INSERT OR IGNORE INTO rows VALUES (?)", item.id).rowcount:
            raise InputError(f"{benchmark.name}: two of its items have the id {item.id}. Give each item its own.")
        n_matched += item.id in recorded
    own = f"{benchmark.name}/"
    if sum(item_id.startswith(own) for item_id in recorded) > n_matched:
        strange = {item_id for item_id in recorded if item_id.startswith(own)} - {item.id for item in items}
        raise InputError(f"{model}: {len(strange)} of its rows match no item of {benchmark.name}, e.g. {min(strange)}.")


def _why_skipped(benchmark: Benchmark[Any], judges: Mapping[str, Judge]) -> str | None:
    """Nothing is generated for a cell that cannot be had, unless the task is asked for by name."""
    if not benchmark.runs_on_base and not benchmark.chat:
        return "not run on base models, as on the card"
    if any(all(role in judges for role in roles_of_column(benchmark, column.key)) for column in benchmark.columns):
        return None
    return no_judge(benchmark.judge_roles, benchmark.rules)


def no_judge(roles: Sequence[str], rules: Mapping[str, Any] = {}) -> str:
    """Why a cell has no value when its judge was not named, and what to set."""
    flags = " ".join(f"--judge {role}=MODEL" for role in roles)
    rule = "".join(f" (or --judge {roles[0]}={name}, which needs no model)" for name in rules)
    return f"no judge: set {flags}{rule}"


def spread(items: Sequence[Item], n: int) -> list[Item]:
    """n items taken evenly over their groups by a fixed seed, in the order they had."""
    rng = random.Random(LIMIT_SEED)
    groups: dict[str, list[int]] = {}
    for index, item in enumerate(items):
        groups.setdefault(item.group, []).append(index)
    for indices in groups.values():
        rng.shuffle(indices)
    order = list(groups)
    rng.shuffle(order)
    rounds = max(map(len, groups.values()), default=0)
    taken = [groups[name][turn] for turn in range(rounds) for name in order if turn < len(groups[name])][:n]
    return [items[index] for index in sorted(taken)]
