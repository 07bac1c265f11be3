"""What a run would ask, before anything is paid for."""

from collections.abc import Sequence
from datetime import date

from evals.models.prompts import Rendered
from evals.models.resolve import resolve
from evals.plan.bounds import judging, known_answers
from evals.plan.cost import Priced, check_cap, prices_of
from evals.plan.gpu_hours import (
    GPUS,
    Gpu,
    Shape,
    estimate,
    gpu_named,
    shape_of_size,
)
from evals.plan.items import lacking
from evals.plan.judges import Judge
from evals.plan.make import Plan
from evals.plan.naming_judges import gone
from evals.plan.parallel import shape_for, split_of
from evals.plan.reasoning import notes as notes_on_reasoning
from evals.plan.tuning import tuned
from evals.plan.work import Work, work_of
from evals.sandbox.pool import Sandbox
from evals.storage.run_folder import RunFolder
from evals.storage.store import Store

_ONE = next(gpu for gpu in GPUS if gpu.name.startswith("H100"))
"""That which a judge's time is told for, where this machine's own is not known."""
_NODE = 8
"""GPUs of the nodes that are usual."""


def describe(plan: Plan, prices: Sequence[str] = (), parameters: str | None = None) -> str:
    """Per benchmark: items, requests the store lacks and their tokens; what that takes on a GPU;
    per judge what it would take.

    prices: `--price` arguments, see evals.plan.cost.  parameters: how large the model is taken to
    be, in place of what its config says.
    """
    settings = plan.settings
    if settings.sandbox == "require" and any(
        task.benchmark.runs_programs and not task.skipped for task in plan.tasks.values()
    ):
        # What the run would refuse before it loads weights is refused here too.
        Sandbox("require").close()
    price_of = prices_of(prices, plan.judges)
    check_cap(settings.max_cost, plan.judges, price_of)
    width = max(12, *map(len, plan.tasks))
    lines = [
        (
            f"{plan.model.name} · suite {settings.suite} · chat format {plan.chat_format} · run"
            f" folder {plan.out}"
        ),
        (
            f"{'task':{width}} {'items':>7} {'to ask':>7} {'prompt tokens':>14} {'cached':>7}"
            f" {'new tokens, about':>17} {'at most':>11}"
        ),
    ]
    known = known_answers(plan)
    total, seen = Work(), set[str]()
    for name, task in plan.tasks.items():
        if task.skipped:
            lines.append(
                f"{name:{width}} {len(task.items):7,} {'-':>7} {'-':>14} {'-':>7} {'-':>17}"
                f" {'-':>11}  {task.skipped}"
            )
            continue
        asked = work_of(_lacking(plan, name, known, seen))
        total += asked
        lines.append(f"{name:{width}} {len(task.items):7,} {_columns(asked)}")
    lines += [*_gpu_lines(plan, total, parameters), *_places(plan, total), plan.view.line()]
    lines += notes_on_reasoning(plan.reader, plan.tasks)
    over = gone(plan.judges, date.today())
    for role, judge in plan.judges.items():
        why = plan.lost.get(role)
        said = f"judge {role}: {judge.model}{'' if judge.is_card else ' (not the card’s)'}, "
        if why is not None:
            said = f"judge {role}: not to be had, and the run would be refused: {why}"
        if judge.is_rule:
            said += "a rule"
        # What a server would take is known without its key, what weights would not without them.
        elif why is None or (judge.model.startswith("openai:") and role not in over):
            cost = _judging(plan, judge, known, price_of.get(role))
            said += cost if why is None else f" It would take {cost}"
        lines.append(said)
    lines += lacking(plan.tasks, plan.judges, settings.suite)
    if any(not judge.is_rule for judge in plan.judges.values()):
        lines.append(
            "An answer that is not there yet counts as its longest; a judge's prompt that a server"
            " tokenizes counts by its bytes."
        )
    return "\n".join(lines)


def _judging(plan: Plan, judge: Judge, known: Store | None, priced: Priced | None) -> str:
    """What a judge will take, with its time on GPUs where its weights run here."""
    cost = judging(plan, judge, known)
    said = cost.text(priced)
    shape = shape_for(resolve(judge.model, offline=plan.settings.offline))
    if shape is None or not cost.requests:
        return said
    tokens_in = cost.tokens_in if cost.about_in is None else cost.about_in
    tokens_out = cost.tokens_out if cost.about_out is None else cost.about_out
    held = (tokens_in + tokens_out / 2) / cost.requests
    gpu = gpu_named(plan.places.name) or _ONE
    copies = len(plan.places.each) * (split_of(plan.settings.engine, plan.places)[0] or 1)
    found = estimate(shape, Work(tokens_in, tokens_out, held), gpu, copies=copies)
    return f"{said}; {found.text()}"


def _lacking(plan: Plan, task: str, known: Store | None, seen: set[str]) -> list[Rendered]:
    """seen: what the tasks before it ask, by key, which is asked once; the task's is added."""
    keys = {plan.key(request): request for request in plan.render(task)}
    there = (known.known(keys) if known else set()) | (seen & keys.keys())
    seen.update(keys)
    return [request for key, request in keys.items() if key not in there]


def _columns(work: Work) -> str:
    """Of one benchmark's row."""
    share = f"{1 - work.prompt / work.whole:.0%}" if work.whole else "-"
    return f"{work.n:7,} {work.whole:14,} {share:>7} {work.new:17,.0f} {work.most:11,}"


def _places(plan: Plan, total: Work) -> list[str]:
    """Where the copies run and what is set of them, or why the run would be refused here."""
    if plan.unplaced:
        return [f"not on this machine, and the run would be refused: {plan.unplaced}"]
    folder = RunFolder(plan.out)
    before = folder.read_json("run.json") if (folder.path / "run.json").exists() else {}
    tuning = tuned(plan.model, plan.settings.engine, plan.places, total, before)
    return [
        *([plan.places.line()] if plan.places.is_split else []),
        *([tuning.line()] if tuning else []),
    ]


def _gpu_lines(plan: Plan, work: Work, parameters: str | None) -> list[str]:
    """What the whole takes on each kind of GPU, with the engines' start; nothing where nothing is
    asked or somebody else's server answers.
    """
    if not work.n or (plan.model.kind == "replay" and parameters is None):
        return []
    shape = shape_of_size(parameters) if parameters else shape_for(plan.model)
    if shape is None:
        return [
            "GPU-hours: not known here; they need the config.json of a dense model, or --parameters"
            " 70b."
        ]
    said = (
        f"{shape.parameters / 1e9:.3g}B parameters, {work.prompt:,.0f} prompt tokens to compute,"
        f" about {work.new:,.0f} to generate:"
    )
    return [said, *(f"  {line}" for gpu in GPUS for line in _on_gpu(plan, shape, work, gpu))]


def _on_gpu(plan: Plan, shape: Shape, work: Work, gpu: Gpu) -> list[str]:
    """A line for what is asked; where nothing is, for the fewest GPUs and for a node of eight."""
    n, copies = split_of(plan.settings.engine, plan.places)
    if n or copies > 1:
        return [estimate(shape, work, gpu, n, copies).text()]
    least = estimate(shape, work, gpu)
    node = estimate(shape, work, gpu, copies=max(1, _NODE // least.n))
    return [f"{least.text()}; {node.text()}" if node.copies > 1 else least.text()]
