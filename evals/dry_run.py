"""What a run would ask, before anything is paid for."""

from collections.abc import Sequence

from evals import power
from evals.cost import Cost, parse_prices, prompt_tokens
from evals.judges import Judge
from evals.judging import Question, prepare
from evals.plan import Plan, RunSettings, make_plan
from evals.prompts import Rendered
from evals.records import Completion, ItemId, Output, Program
from evals.run_folder import RunFolder
from evals.store import Store


def describe(settings: RunSettings, prices: Sequence[str] = ()) -> str:
    """Per benchmark: items, requests the store lacks, prompt tokens, at most how many new ones; per judge what it would take.

    prices: `--price` arguments, see evals.cost.
    """
    plan = make_plan(settings)
    price_of = parse_prices(prices, plan.judges)
    lines = [
        f"{plan.model.name} · suite {settings.suite} · chat format {plan.chat_format} · run folder {plan.out}",
        f"{'task':12} {'items':>7} {'to ask':>7} {'prompt tokens':>14} {'new tokens, at most':>20}",
    ]
    known = _known(plan)
    for name, task in plan.tasks.items():
        if task.skipped:
            lines.append(f"{name:12} {len(task.items):7,} {'-':>7} {'-':>14} {'-':>20}  {task.skipped}")
            continue
        rendered = plan.render(name)
        lines.append(f"{name:12} {len(task.items):7,} {_figures(plan, rendered, known)}")
    for role, judge in plan.judges.items():
        cost = "a rule" if judge.is_rule else _judging(plan, judge, known).text(price_of.get(role))
        lines.append(f"judge {role}: {judge.model}{'' if judge.is_card else ' (not the card’s)'}, {cost}")
    if any(not judge.is_rule for judge in plan.judges.values()):
        lines.append("An answer that is not there yet counts as its longest; a judge's prompt that a server tokenizes counts by its bytes.")
    lines += [power.sentence(plan)] if settings.limit is not None else []
    return "\n".join(lines)


def _figures(plan: Plan, rendered: Sequence[Rendered], known: Store | None) -> str:
    keys = {plan.key(request): request for request in rendered}
    lacking = [request for key, request in keys.items() if known is None or not known.known([key])]
    prompt = sum(len(request.token_ids) for request in lacking)
    new = sum(request.max_new_tokens * request.sampling.n for request in lacking)
    return f"{len(lacking):7,} {prompt:14,} {new:20,}"


def _judging(plan: Plan, judge: Judge, known: Store | None) -> Cost:
    """What a judge would be asked that the store lacks; exact where every answer is there and the judge's tokenizer, too."""
    questions, longest = list[Question](), dict[ItemId, int]()
    for name, task in plan.tasks.items():
        for item, request in zip(task.items, plan.render(name) if judge.role in task.benchmark.judge_roles else (), strict=False):
            recorded = plan.recorded.get(item.id)
            answer = recorded.completion if recorded else known.get(plan.key(request)) if known else None
            if not isinstance(answer, Completion):
                answer, longest[item.id] = Completion((Output("?"),)), request.max_new_tokens
            asks = [check.ask for check in task.benchmark.checks(item, answer) if check.name == judge.role]
            questions += [Question(item.id, judge.role, ask) for ask in asks if not isinstance(ask, Program)]
    prepared = prepare(plan.settings, judge.model, questions)
    keyed = dict(prepared.keyed)
    lacking = [keyed[key] for key in keyed.keys() - (known.known(keyed) if known else set())]
    room = prepared.renderer.max_len
    prompts = [prompt_tokens(request) + longest.get(request.item_id, 0) for request in lacking]
    n_in = sum(prompts if room is None else [min(room, prompt) for prompt in prompts])
    is_exact = not longest and all(request.token_ids for request in lacking)
    return Cost(len(lacking), n_in, sum(request.max_new_tokens for request in lacking), is_exact, False)


def _known(plan: Plan) -> Store | None:
    path = plan.settings.store or RunFolder(plan.out).store_path
    return Store(path) if path.exists() else None
