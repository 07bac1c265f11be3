"""Several answers to each item: `--repeats`, and `--temperature` for what is else greedy.

A draw is a task of its own beside the first: `gsm8k@2`, with the items `gsm8k@2/17`. So whatever
becomes of an answer, from the store to judges and samples, becomes of each draw's; and a larger
number of repeats keeps what a smaller one asked.
"""

from collections.abc import Iterable
from dataclasses import replace

from evals.errors import InputError
from evals.plan.items import TaskPlan
from evals.plan.settings import RunSettings
from evals.records import Generate, ItemId, Request
from evals.registry import of_draw

_APART = 1_000_003
"""Between the seeds of two draws: a run with the next --seed shares none of them, nor the seeds
that an engine counts on from them.
"""


def sampled_as(request: Request, task: str, temperature: float | None) -> Request:
    """What is asked for an item of a draw: the protocol's request, at a temperature in place of 0
    where one is given, its seed counted from the run's own.
    """
    if not isinstance(request, Generate):
        return request
    how, (_, draw) = request.sampling, of_draw(task)
    if temperature is not None and how.temperature == 0:
        how = replace(how, temperature=temperature)
    if how.temperature > 0 and draw > 1:
        how = replace(how, seed=(draw - 1) * _APART)
    return request if how == request.sampling else replace(request, sampling=how)


def is_greedy(task: TaskPlan) -> bool:
    """Whether the protocol generates this benchmark's answers at temperature 0."""
    request = _first(task)
    return isinstance(request, Generate) and request.sampling.temperature == 0


def is_drawn(task: TaskPlan, settings: RunSettings) -> bool:
    """Whether a second answer to an item may be another than the first."""
    request = _first(task)
    if not isinstance(request, Generate):
        return False
    return request.sampling.temperature > 0 or settings.temperature is not None


def _first(task: TaskPlan) -> Request | None:
    if task.skipped or not len(task.items):
        return None
    return task.benchmark.request(task.items[0])


def recorded_draws(recorded: Iterable[ItemId]) -> dict[str, int]:
    """By variant, how many draws of it a recording has."""
    found: dict[str, int] = {}
    for task in {item_id.partition("/")[0] for item_id in recorded}:
        name, draw = of_draw(task)
        found[name] = max(draw, found.get(name, 1))
    return found


def refuse_draws_of_a_recording(settings: RunSettings, kind: str) -> None:
    """Raise InputError where a recording is to be drawn again."""
    if kind == "replay" and (settings.repeats > 1 or settings.temperature is not None):
        raise InputError(
            "--repeats and --temperature ask a model; a recording has the answers it has. Leave"
            " them out: the draws that are recorded, as gsm8k@2/17, are taken."
        )


def require_draws(settings: RunSettings, tasks: Iterable[str]) -> None:
    """Raise InputError where repeats are asked of benchmarks that are not sampled."""
    if settings.repeats > 1 and all(of_draw(task)[1] == 1 for task in tasks):
        raise InputError(
            f"--repeats {settings.repeats}: none of these benchmarks is sampled, so every answer"
            " would be the first one again. Give --temperature, say 0.7, or --tasks with one that"
            " is: humaneval."
        )
