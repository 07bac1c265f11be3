"""What must be known of servers before anything is generated: what they say of themselves, and
whether they give log-probabilities, without which some columns cannot be had.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from evals.errors import EvalsError, InputError
from evals.generators import Generator
from evals.generators.about import About, about
from evals.generators.openai import NO_QUOTA
from evals.models.prompts import Rendered
from evals.models.resolve import resolve
from evals.plan.items import TaskPlan
from evals.plan.make import Plan
from evals.records import Choose, Completion, Generate, ItemId, Message, Output, Sampling
from evals.runs import engines
from evals.storage.store import Store

PROBE = "Say yes."
"""What a server is asked, for one token with log-probabilities."""
_N_LOGPROBS = 5
"""AlpacaEval 2 asks for so many."""

NO_LOGPROBS = "no log-probabilities"

Start = Callable[[], Generator]


def about_servers(plan: Plan, *, with_model: bool) -> dict[str, list[About]]:
    """What the evaluated model's servers and the judges' say of themselves, by model; nothing of
    those that are none.

    with_model: whether the evaluated model is asked at all.
    """
    judges = [judge.model for judge in plan.judges.values() if not judge.is_rule]
    models = [plan.model] if with_model else []
    models += [
        resolve(name, offline=plan.settings.offline)
        for name in dict.fromkeys(judges)
        if name.startswith("openai:")
    ]
    found = {
        model.argument: [about(model.source, url) for url in model.urls]
        for model in models
        if model.kind == "server" and not (model is plan.model and plan.view.servers)
    }
    return found | ({plan.model.argument: list(plan.view.servers)} if plan.view.servers else {})


def tokenizer_hint(plan: Plan, found: Mapping[str, Sequence[About]]) -> list[str]:
    """What to say at the start of a run whose server names the folder of its model."""
    roots = [one["root"] for one in found.get(plan.model.argument, ()) if "root" in one]
    if plan.renderer.tokenizer is not None or not roots:
        return []
    return [
        f"the server's model is {roots[0]}: --tokenizer {roots[0]} sends the protocol's own prompts"
        " as token ids; without it the server's template decides, and the row is another one."
    ]


def require_servers(
    plan: Plan, store: Store, start: Start | None, note: Callable[[str], None]
) -> None:
    """Ask every judge that is a server one cheap question, and the evaluated model's where a column
    is read from its log-probabilities. Raises InputError for each that refuses (key, model, quota),
    or gives no log-probabilities where a column still to be asked needs them. One that cannot be
    reached now may be started later, which is noted.

    start: how to start the evaluated model's engine; None where it is no server.
    """
    asked: dict[str, str | None] = {}
    refused: dict[tuple[str, str], list[str]] = {}
    problems = []
    for name, task in plan.tasks.items():
        if task.skipped or not len(task.items):
            continue
        for who, role, way_out in _needs(plan, name, task):
            engine = _starter(plan, who, start)
            if engine is None or not _is_waiting(plan, store, name):
                continue
            if who not in asked:
                asked[who] = _trouble(who, engine, note)
            found = asked[who]
            if found == NO_LOGPROBS and way_out:
                problems.append(f"{who} gives no log-probabilities, which {way_out}")
            elif found not in (None, NO_LOGPROBS) and role:
                refused.setdefault((who, str(found)), []).append(role)
    for (who, found), roles in refused.items():
        problems.append(f"Judge of {', '.join(dict.fromkeys(roles))}, {who}: {found}")
    if problems:
        raise InputError("\n".join(dict.fromkeys(problems)))


def _needs(plan: Plan, name: str, task: TaskPlan) -> Iterator[tuple[str, str, str]]:
    """Chat servers that a benchmark asks or is judged by: the model, the judge's role, and what it
    needs log-probabilities for, "" where it does not.
    """
    item = task.items[0]
    is_chat = plan.model.kind == "server" and plan.renderer.tokenizer is None
    if is_chat and isinstance(task.benchmark.request(item), Choose):
        yield (
            plan.model.argument,
            "",
            f"{name} is read from. Name its tokenizer with --tokenizer, if it takes token ids, or"
            " leave the benchmark out with --tasks.",
        )
    for check in task.benchmark.checks(item, Completion((Output("?"),))):
        judge = plan.judges.get(check.name)
        if judge is None or not judge.model.startswith("openai:"):
            continue
        # A judge that chooses (TruthfulQA's) may answer in words.
        is_read_so = isinstance(check.ask, Generate) and check.ask.sampling.n_logprobs
        way_out = f"{check.name} is read from. Name another with --judge {check.name}=MODEL."
        yield judge.model, check.name, way_out if is_read_so else ""


def _starter(plan: Plan, who: str, start: Start | None) -> Start | None:
    if who == plan.model.argument:
        return start
    model = resolve(who, offline=plan.settings.offline)
    settings = replace(plan.settings, wait="")  # only asked whether it is there
    return lambda: engines.start_engine(model, settings)


def _is_waiting(plan: Plan, store: Store, name: str) -> bool:
    """Whether the store lacks an answer of the benchmark's."""
    keys = {plan.key(request) for request in plan.render(name)}
    return store.known(keys) != keys


def _trouble(who: str, start: Start, note: Callable[[str], None]) -> str | None:
    """What a server's answer to one question says against it; None where nothing does, or there was
    no answer, which is noted.
    """
    sampling = Sampling(max_tokens=1, n_logprobs=_N_LOGPROBS)
    probe = Rendered(ItemId(""), "", PROBE, (), (Message("user", PROBE),), sampling, 1)
    engine = start()
    try:
        answers = [answer for done in engine.stream([probe]) for _, answer in done]
    except InputError as error:
        return str(error)
    except EvalsError as error:
        if NO_QUOTA in str(error):
            return str(error)
        note(f"warning: {who}: {error}")
        return None
    finally:
        engine.close()
    gives = all(one.top_logprobs for one in answers if isinstance(one, Completion))
    return None if gives else NO_LOGPROBS
