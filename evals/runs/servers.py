"""What must be known of servers before anything is generated: what they say of themselves, and
whether they give log-probabilities, without which some columns cannot be had.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

from evals.errors import EvalsError, InputError
from evals.generators import Generator
from evals.generators.about import About, about
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


def require_logprobs(plan: Plan, store: Store, start: Start | None) -> None:
    """Raise InputError for each server that gives no log-probabilities and that a column still to
    be asked needs them of. Nothing is said of one that cannot be reached now.

    start: how to start the evaluated model's engine; None where it is no server.
    """
    asked: dict[str, bool] = {}
    problems = []
    for name, task in plan.tasks.items():
        if task.skipped or not len(task.items):
            continue
        for who, way_out in _needs(plan, name, task):
            engine = _starter(plan, who, start)
            if engine is None or not _is_waiting(plan, store, name):
                continue
            if who not in asked:
                asked[who] = _gives_logprobs(engine)
            if not asked[who]:
                problems.append(f"{who} gives no log-probabilities, which {way_out}")
    if problems:
        raise InputError("\n".join(problems))


def _needs(plan: Plan, name: str, task: TaskPlan) -> Iterator[tuple[str, str]]:
    """Chat servers that a benchmark needs log-probabilities of, and what for."""
    item = task.items[0]
    is_chat = plan.model.kind == "server" and plan.renderer.tokenizer is None
    if is_chat and isinstance(task.benchmark.request(item), Choose):
        yield (
            plan.model.argument,
            f"{name} is read from. Name its tokenizer with --tokenizer, if it takes token ids, or"
            " leave the benchmark out with --tasks.",
        )
    for check in task.benchmark.checks(item, Completion((Output("?"),))):
        judge = plan.judges.get(check.name)
        if judge is None or not judge.model.startswith("openai:"):
            continue
        # A judge that chooses (TruthfulQA's) may answer in words.
        if isinstance(check.ask, Generate) and check.ask.sampling.n_logprobs:
            yield (
                judge.model,
                f"{check.name} is read from. Name another with --judge {check.name}=MODEL.",
            )


def _starter(plan: Plan, who: str, start: Start | None) -> Start | None:
    if who == plan.model.argument:
        return start
    model = resolve(who, offline=plan.settings.offline)
    return lambda: engines.start_engine(model, plan.settings)


def _is_waiting(plan: Plan, store: Store, name: str) -> bool:
    """Whether the store lacks an answer of the benchmark's."""
    keys = {plan.key(request) for request in plan.render(name)}
    return store.known(keys) != keys


def _gives_logprobs(start: Start) -> bool:
    """False only where a server answers and gives none."""
    sampling = Sampling(max_tokens=1, n_logprobs=_N_LOGPROBS)
    probe = Rendered(ItemId(""), "", PROBE, (), (Message("user", PROBE),), sampling, 1)
    engine = start()
    try:
        answers = [answer for done in engine.stream([probe]) for _, answer in done]
    except EvalsError:
        return True
    finally:
        engine.close()
    return not any(isinstance(one, Completion) and not one.top_logprobs for one in answers)
