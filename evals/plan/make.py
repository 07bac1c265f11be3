"""From settings to what will be asked: model, data, items, judges. Everything that can be wrong is
found here, before weights load.
"""

import contextlib
import gc
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import TypeVar

from evals.cards.card import Card
from evals.cards.published import DEFAULT, row_of_short_name, shipped
from evals.data.dataset import LoadedSource
from evals.data.load import load_card_data, load_smoke_data
from evals.errors import InputError, TaskFault, nearest
from evals.generators.placing import ONE, Places
from evals.generators.replay import Recorded, read_recorded
from evals.generators.waiting import seconds, wait_until_up
from evals.models.probe import check_prompts
from evals.models.prompting import AS_IT_IS
from evals.models.prompts import ChatFormat, Rendered, Renderer, check_room
from evals.models.reading import MARKS_ALONE, Reader
from evals.models.reasoning import AS_IT_COMES
from evals.models.resolve import OPENAI_URL, Model, require_config, require_weights, resolve
from evals.plan.cost import check_cap, prices_of
from evals.plan.draws import (
    is_drawn,
    recorded_draws,
    refuse_draws_of_a_recording,
    require_draws,
    sampled_as,
)
from evals.plan.engine import EngineView, fingerprint_of, view_of
from evals.plan.items import TaskPlan, plan_task, said_of_faults
from evals.plan.judges import Judge
from evals.plan.known_judges import known_judges
from evals.plan.naming_judges import gone, judges_of, prompts_of_judges, refusal
from evals.plan.parallel import placed
from evals.plan.reasoning import reader_of
from evals.plan.rendering import (
    refuse_scored,
    renderer_of,
    tokenizer_files,
    tokenizer_of,
    told_clock,
    try_judges,
)
from evals.plan.settings import RunSettings, check_settings, go_offline
from evals.records import Completion, Item, ItemId
from evals.registry import (
    BENCHMARKS,
    HARNESS,
    Variant,
    benchmark_class,
    card_to_ask,
    harness_tasks,
    variants,
)
from evals.storage.run_folder import default_folder


@dataclass(frozen=True, slots=True)
class Plan:
    """A run that can start: nothing in it needs the engine.

    clock: what a template that asks the time, the model's or a judge's, is told all through the
    run; None where none asks.  reader: tells the model's reasoning from its answers.
    lost: judges that are not to be had, by role, and why; a plan that is carried out has none.
    places: the devices that the model's copies run on.  unplaced: why it cannot run on this
    machine; "" in a plan that is carried out.
    faults: why tasks of others' cannot be asked, in sentences.
    """

    settings: RunSettings
    card: Card
    model: Model
    fingerprint: str
    view: EngineView
    renderer: Renderer
    tasks: Mapping[str, TaskPlan]
    judges: Mapping[str, Judge]
    recorded: Mapping[ItemId, Recorded]
    clock: str | None = None
    reader: Reader = MARKS_ALONE
    lost: Mapping[str, str] = field(default_factory=dict)
    places: Places = ONE
    unplaced: str = ""
    faults: tuple[str, ...] = ()

    @property
    def chat_format(self) -> ChatFormat:
        """How messages become text."""
        return self.renderer.chat_format

    @property
    def run_key(self) -> str:
        """Names this run's questions in a store: equal for the same model and format, whatever the
        suite and the card. What a benchmark's settings are, its items' ids say.
        """
        identity: list[object] = [
            self.fingerprint,
            self.chat_format,
            # As runs have called themselves since there was one card only.
            shipped().protocol,
            # The smoke suite's items are others under the same ids.
            self.settings.suite == "smoke",
        ]
        # Only where there are any: a store knows all other runs by what they were called so far.
        if self.settings.prompts != AS_IT_IS:
            identity.append(asdict(self.settings.prompts))
        if self.settings.reading != AS_IT_COMES:
            identity.append(asdict(self.settings.reading))
        if self.settings.temperature is not None:
            identity.append(self.settings.temperature)
        return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]

    @property
    def out(self) -> Path:
        """The run folder."""
        return run_folder(self.model, self.settings)

    def render(self, task: str, places: range | None = None) -> list[Rendered]:
        """The task's requests as token ids, in item order. Raises InputError naming a prompt the
        model cannot take.

        places: only of its items at these.
        """
        plan = self.tasks[task]
        if plan.skipped:
            return []
        asked = plan.items if places is None else map(plan.items.__getitem__, places)
        temperature = self.settings.temperature
        rendered = self.renderer.render(
            (item.id, "", sampled_as(plan.benchmark.request(item), task, temperature))
            for item in asked
        )
        check_room(rendered, self.renderer.max_len)
        return rendered

    def read(self, task: str, item: Item, answer: Completion) -> Completion:
        """An item's answer as it is graded, told from its reasoning."""
        if not answer.outputs or answer.choice_logprobs is not None:
            return answer
        return self.reader.read(self.tasks[task].benchmark.request(item), answer)

    def key(self, rendered: Rendered) -> str:
        """The store key of one of the model's own requests."""
        # What was recorded belongs to an item: equal prompts may have other answers.
        if self.model.kind == "replay":
            return rendered.key(f"{self.fingerprint}/{rendered.item_id}")
        return rendered.key(self.fingerprint)


def run_folder(model: Model, settings: RunSettings) -> Path:
    """Where a run of the model goes."""
    if settings.out:
        return settings.out
    card = _card_argument(settings)
    words = [] if card in (None, DEFAULT) else [Path(str(card)).stem]
    words += [] if words and settings.suite == "card" else [settings.suite]
    return Path("results") / default_folder(model.name, "-".join(words))


def _card_argument(settings: RunSettings) -> str | None:
    """The card that the run is held to: the one it names, else the one its model is a row of."""
    row = row_of_short_name(settings.model)
    return settings.card or (row.card if row else None)


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """No search for garbage among the objects of a plan, of which a large one has millions and none
    is garbage.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


Classes = Mapping[str, Variant]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Found:
    """What a run is made of, once it is known to be there. read_as: a recording's fingerprint
    before it was read.  faults: why tasks of others' cannot be asked, by variant.
    """

    model: Model
    recorded: Mapping[ItemId, Recorded]
    read_as: str
    classes: Classes
    judges: Mapping[str, Judge]
    sources: Mapping[str, LoadedSource]
    lost: Mapping[str, str]
    faults: dict[str, TaskFault]


@_no_collection()
def make_plan(
    settings: RunSettings, *, need_weights: bool = True, need_judges: bool = True
) -> Plan:
    """Everything a run needs, resolved and checked: first the words, then what must be on this
    machine, then what is in it.

    need_weights: False where only prompts are wanted: no weights, keys or judges need to be there.
    need_judges: False where nothing is carried out: a judge that is not to be had, and a machine
    on which the model cannot run, are only to be named (Plan.lost, Plan.unplaced), and of the
    weights the config is enough.
    Raises InputError (or EnvironmentFault) with one sentence for what is wrong.
    """
    if settings.offline:
        go_offline()
    check_settings(settings)
    card = card_to_ask(_card_argument(settings))
    classes = _classes(card, settings.tasks)
    known = dict.fromkeys(map(benchmark_class, BENCHMARKS))
    judges = judges_of(settings.judges, known | dict.fromkeys(one.cls for one in classes.values()))
    roles = {role for one in classes.values() for role in one.roles}
    asked = {role: judge for role, judge in judges.items() if role in roles}
    check_cap(settings.max_cost, asked, prices_of(settings.prices, judges))
    found = _find(settings, card, classes, judges, need_weights, need_judges)
    if settings.wait and need_weights and need_judges:
        # Before a server is asked for its context: what it does not say is not known.
        wait_until_up(_servers(found, settings), seconds(settings.wait))
    settings = replace(settings, clock=told_clock(run_folder(found.model, settings)))
    tokenizer = tokenizer_of(found.model, settings)
    view = view_of(found.model, settings, tokenizer, run_folder(found.model, settings))
    renderer = renderer_of(found.model, settings, tokenizer, view.max_len)
    reader = reader_of(found.model, renderer, settings.reading)
    if need_weights:
        check_prompts(renderer, found.model.files, found.model.argument, view.end_ids)
    fingerprint = _fingerprint(found, settings, view) if need_weights else ""
    unplaced: list[str] = []
    where = ONE
    if need_weights:
        where = _noting(unplaced, partial(placed, found.model, settings.engine)) or ONE
    if unplaced and need_judges:
        raise InputError(unplaced[0])
    tasks = _tasks(found, settings, chat=renderer.chat_format != "none")
    if found.model.kind == "server" and tokenizer is None:
        refuse_scored(tasks, found.model.argument)
    here = {role: judge for role, judge in found.judges.items() if role not in found.lost}
    judged = try_judges(tasks, here, settings) if need_weights else []
    reads_clock = any(one.reads_clock for one in (renderer, *judged))
    return Plan(
        settings, card, found.model, fingerprint, view, renderer, tasks, found.judges,
        found.recorded,
        settings.clock.isoformat(sep=" ") if settings.clock and reads_clock else None,
        reader, found.lost, where, "".join(unplaced), tuple(said_of_faults(found.faults)),
    )  # fmt: skip


def _tasks(found: _Found, settings: RunSettings, *, chat: bool) -> dict[str, TaskPlan]:
    """By name, what each variant asks, each followed by its further draws."""
    tasks: dict[str, TaskPlan] = {}
    draws = recorded_draws(found.recorded)
    for name, variant in found.classes.items():
        n = draws.get(name, settings.repeats)
        for one in (variant.drawn(draw) for draw in range(1, n + 1)):
            if one.name != name and not (name in draws or is_drawn(tasks[name], settings)):
                break
            benchmark = one.make(chat=chat)
            benchmark.take_prompts(prompts_of_judges(found.judges, benchmark.judge_roles))
            try:
                if name in found.faults:
                    raise found.faults[name]
                tasks[one.name] = plan_task(
                    benchmark, found.sources[name], settings, found.judges, found.recorded
                )
            except TaskFault as fault:
                found.faults[name] = fault
                nothing = LoadedSource({}, "none")
                tasks[one.name] = TaskPlan(benchmark, (), nothing, str(fault), is_broken=True)
    if all(task.is_broken for task in tasks.values()):
        raise InputError("\n".join(said_of_faults(found.faults)))
    require_draws(settings, tasks)
    return tasks


# --- the words ------------------------------------------------------------------------------------


def _classes(card: Card, asked: Sequence[str]) -> Classes:
    """The benchmarks that --tasks names, in the card's order, each in all its variants there; all
    of the card's where it names none. A registered one may be asked off the card.
    """
    wanted = [part.strip() for name in asked for part in name.split(",") if part.strip()]
    if any(asked) and not wanted:
        raise InputError(
            f"--tasks {','.join(asked)} names no benchmark. Known: {', '.join(BENCHMARKS)}."
        )
    on_card = variants(card)
    if not wanted:
        return on_card
    names = dict.fromkeys(name for one in on_card.values() for name in (one.name, one.cls.name))
    wanted = [
        one
        for name in wanted
        for one in (
            harness_tasks(name) if name.startswith(HARNESS) and name not in names else [name]
        )
    ]
    of_harness = [name for name in dict.fromkeys(wanted) if name.startswith(HARNESS)]
    more = [name for name in (*BENCHMARKS, *of_harness) if name in wanted and name not in names]
    for name in wanted:
        if name not in names and name not in more:
            raise InputError(f"Unknown task {name!r}. {nearest(name, [*names, *BENCHMARKS])}")
    return {
        name: one
        for name, one in variants(card, more).items()
        if name in wanted or one.cls.name in wanted
    }


# --- what must be on this machine: told all at once -----------------------------------------------


def _find(
    settings: RunSettings,
    card: Card,
    classes: Classes,
    judges: Mapping[str, Judge],
    need_weights: bool,
    need_judges: bool,
) -> _Found:
    """Model, recording, data and judges. Raises InputError with every one of them that is not to be
    had, a line each.
    """
    problems: list[str] = []
    require = require_weights if need_judges else require_config
    model = _noting(problems, lambda: _model(settings, require if need_weights else None))
    recorded, read_as = _recorded(model, (*variants(card), *classes))
    if recorded and not settings.tasks:
        named = recorded_draws(recorded)
        classes = {name: one for name, one in classes.items() if name in named}
    judges = {
        role: judge
        for role, judge in judges.items()
        if any(role in one.roles for one in classes.values())
    }
    faults: dict[str, TaskFault] = {}
    sources = _noting(problems, lambda: _sources(classes, settings, faults))
    lost: dict[str, str] = {}
    if need_weights:
        lost = _lost_judges(judges, classes, settings)
        problems += _said_of_lost(lost, judges, classes) if need_judges else []
    if problems or model is None or sources is None:
        raise InputError("\n".join([*problems, *said_of_faults(faults)]))
    return _Found(model, recorded, read_as, classes, judges, sources, lost, faults)


def _said_of_lost(
    lost: Mapping[str, str], judges: Mapping[str, Judge], classes: Classes
) -> list[str]:
    """Why judges are not to be had; those that are no more together, with who can decide now."""
    today = date.today()
    ended = gone({role: judges[role] for role in lost}, today)
    others = dict.fromkeys(why for role, why in lost.items() if role not in ended)
    return [
        *others,
        *([refusal(ended, [one.cls for one in classes.values()], today)] if ended else []),
    ]


def _servers(found: _Found, settings: RunSettings) -> list[str]:
    """URLs of the model's and the judges' servers that are one's own."""
    names = {one.model for one in found.judges.values() if one.model.startswith("openai:")}
    models = [found.model, *(resolve(name, offline=settings.offline) for name in sorted(names))]
    return [url for model in models for url in model.urls if url != OPENAI_URL]


def _noting(problems: list[str], call: Callable[[], T]) -> T | None:
    """What `call` returns; its InputError is noted, so that everything wrong is told at once."""
    try:
        return call()
    except InputError as error:
        problems.append(str(error))
        return None


def _model(settings: RunSettings, require: Callable[[Model], None] | None) -> Model:
    """The model; a server's takes its files, and so its context, from --tokenizer. require: what it
    must have here.
    """
    model = resolve(
        settings.model,
        revision=settings.revision,
        offline=settings.offline,
        base=settings.base,
        base_revision=settings.base_revision,
    )
    refuse_draws_of_a_recording(settings, model.kind)
    if settings.engine.batch_invariant and model.kind in ("server", "replay"):
        raise InputError(
            "--batch-invariant is the engine's own setting: start the server with"
            " VLLM_BATCH_INVARIANT=1 instead."
        )
    if require:
        require(model)
    if settings.name:
        model = replace(model, name=settings.name)
    if model.kind == "server" and settings.tokenizer:
        return replace(model, files=tokenizer_files(settings.tokenizer, settings))
    return model


def _recorded(model: Model | None, known: Sequence[str]) -> tuple[Mapping[ItemId, Recorded], str]:
    """What a recording holds, and the fingerprint it had before it was read; nothing for any other
    model.
    """
    if model is None or model.kind != "replay":
        return {}, ""
    read_as = model.fingerprint()
    return read_recorded(Path(model.source), known), read_as


def _lost_judges(
    judges: Mapping[str, Judge], classes: Classes, settings: RunSettings
) -> dict[str, str]:
    """Every judge this run would ask that is not to be had, and why, by role."""
    asked: dict[str, list[str]] = {}
    for role in (role for one in classes.values() for role in one.roles):
        if role in judges and not judges[role].is_rule:
            asked.setdefault(judges[role].model, []).append(role)
    lost = gone(judges, date.today())
    for name, decides in asked.items():
        if all(role in lost for role in decides):
            continue  # whether its key is set is of no matter any more
        problems: list[str] = []
        _noting(problems, partial(_require_judge, name, decides, settings))
        for role in decides if problems else ():
            lost.setdefault(role, problems[0])
    return lost


def _require_judge(name: str, roles: Sequence[str], settings: RunSettings) -> None:
    try:
        model = resolve(name, offline=settings.offline)
    except InputError as error:
        meant = nearest(name, known_judges().by_name)
        hint = f" Of the judges with a name: {meant}" if meant.startswith("Did you mean") else ""
        raise InputError(f"Judge of {', '.join(roles)}: {error}{hint}") from error
    if model.kind == "replay":
        raise InputError(
            f"{name} is a recording; it cannot judge. Put recorded verdicts into its rows as"
            " findings."
        )
    require_weights(model)


def _sources(
    classes: Classes, settings: RunSettings, faults: dict[str, TaskFault]
) -> dict[str, LoadedSource]:
    """Every variant's data but of those that are noted among the faults."""
    loaded: dict[str, LoadedSource] = {}
    for name, one in classes.items():
        if one.cls.dataset.own:
            try:
                loaded[name] = one.cls.dataset.own()
            except TaskFault as fault:
                faults[name] = fault
    others = {name: one for name, one in classes.items() if not one.cls.dataset.own}
    if settings.suite == "smoke":
        return loaded | {name: load_smoke_data(one.cls.dataset) for name, one in others.items()}
    datasets = {one.cls.dataset.name: one.cls.dataset for one in others.values()}
    found = load_card_data(list(datasets.values()), settings.data)
    return loaded | {name: found[one.cls.dataset.name] for name, one in others.items()}


# --- what is in it --------------------------------------------------------------------------------


def _fingerprint(found: _Found, settings: RunSettings, view: EngineView) -> str:
    fingerprint = fingerprint_of(found.model, settings.engine, view.checkpoint)
    if found.recorded and fingerprint != found.read_as:
        raise InputError(
            f"{found.model.argument} changed while it was read. Give the command again when nothing"
            " writes to it."
        )
    return fingerprint
