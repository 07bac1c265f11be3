"""What judging will take at most, and about, before anything is asked."""

import os
from collections.abc import Mapping

from evals.models.prompts import Rendered
from evals.plan.cost import Cost, Priced, prompt_tokens
from evals.plan.judges import Judge
from evals.plan.make import Plan
from evals.plan.questions import Question, prepare, question
from evals.plan.work import typical_new_tokens
from evals.records import Completion, ItemId, Output, Program
from evals.storage.run_folder import RunFolder
from evals.storage.store import Store

_BYTES_PER_TOKEN = 4
"""Of English, about."""
_TYPICAL_VERDICT = 40
"""Tokens of a verdict that is more than a label, about: AlpacaEval 1's ranking has 37."""


def judging(plan: Plan, judge: Judge, known: Store | None) -> Cost:
    """What a judge would be asked that the store lacks; exact where every answer is there and the
    judge's tokenizer, too.
    """
    questions, longest = list[Question](), dict[ItemId, int]()
    for name, task in plan.tasks.items():
        for item, request in zip(
            task.items,
            plan.render(name) if judge.role in task.benchmark.judge_roles else (),
            # Nothing is rendered for a benchmark that this judge does not judge: no pairs then.
            strict=False,
        ):
            recorded = plan.recorded.get(item.id)
            answer = (
                recorded.completion if recorded else known.get(plan.key(request)) if known else None
            )
            if not isinstance(answer, Completion):
                # A stand-in that is no reference's text: equal answers would not be judged.
                answer, longest[item.id] = Completion((Output("?"),)), request.max_new_tokens
            elif not (answer := plan.read(name, item, answer)).is_answer:
                continue  # nobody is asked about it
            asks = [
                check.ask
                for check in task.benchmark.checks(item, answer)
                if check.name == judge.role
            ]
            questions += [
                question(judge, item.id, ask) for ask in asks if not isinstance(ask, Program)
            ]
    # What it would take is known without a key too.
    prepared = prepare(plan.settings, judge.model, questions, is_asked=False)
    keyed = dict(prepared.keyed)
    lacking = [keyed[key] for key in keyed.keys() - (known.known(keyed) if known else set())]
    room = prepared.renderer.max_len
    prompts = [prompt_tokens(request) + longest.get(request.item_id, 0) for request in lacking]
    n_in = sum(prompts if room is None else [min(room, prompt) for prompt in prompts])
    is_exact = not longest and all(request.token_ids for request in lacking)
    most_out = sum(request.max_new_tokens for request in lacking)
    return Cost(
        len(lacking),
        n_in,
        most_out,
        is_exact,
        False,
        None if is_exact else min(n_in, sum(_about_in(request, longest) for request in lacking)),
        sum(min(request.max_new_tokens, _TYPICAL_VERDICT) for request in lacking),
    )


def _about_in(request: Rendered, longest: Mapping[ItemId, int]) -> int:
    """Tokens of a judge's question, with a usual answer where the model's is not there yet."""
    n_bytes = sum(len(one.content.encode("utf-8", "replace")) for one in request.messages)
    prompt = len(request.token_ids) or n_bytes // _BYTES_PER_TOKEN
    task, most = request.item_id.partition("/")[0], longest.get(request.item_id, 0)
    return prompt + (round(typical_new_tokens(task, most)) if most else 0)


def known_answers(plan: Plan) -> Store | None:
    """The store of a run that is to be, where there is one."""
    path = plan.settings.store or RunFolder(plan.out).store_path
    # Opening would create it, and a dry run leaves nothing behind.
    return Store(path) if os.path.exists(path) else None


def said_of(plan: Plan, judge: Judge, known: Store | None, priced: Priced | None) -> str:
    """What a judge will take, in words, with money where a price is known."""
    return judging(plan, judge, known).text(priced)
