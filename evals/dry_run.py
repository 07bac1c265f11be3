"""What a run would ask, before anything is paid for."""

from collections.abc import Sequence

from evals.plan import Plan, RunSettings, make_plan
from evals.prompts import Rendered
from evals.run_folder import RunFolder
from evals.store import Store


def describe(settings: RunSettings) -> str:
    """Per benchmark: items, requests the store lacks, prompt tokens, at most how many new ones, and who judges."""
    plan = make_plan(settings)
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
    lines += [f"judge {role}: {judge.model}{'' if judge.is_card else ' (not the card’s)'}" for role, judge in plan.judges.items()]
    return "\n".join(lines)


def _figures(plan: Plan, rendered: Sequence[Rendered], known: Store | None) -> str:
    keys = {plan.key(request): request for request in rendered}
    lacking = [request for key, request in keys.items() if known is None or not known.known([key])]
    prompt = sum(len(request.token_ids) for request in lacking)
    new = sum(request.max_new_tokens * request.sampling.n for request in lacking)
    return f"{len(lacking):7,} {prompt:14,} {new:20,}"


def _known(plan: Plan) -> Store | None:
    path = plan.settings.store or RunFolder(plan.out).store_path
    return Store(path) if path.exists() else None
