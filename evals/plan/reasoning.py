"""What a run does with reasoning: who reads it past, and what is to be said of it."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from evals.errors import InputError
from evals.models.prompting import template_arguments
from evals.models.prompts import Renderer
from evals.models.reading import Reader
from evals.models.reasoning import AS_IT_COMES, ReasoningSettings, can_reason
from evals.models.resolve import Model
from evals.plan.items import TaskPlan
from evals.plan.judges import CARD_JUDGES


def reader_of(model: Model, renderer: Renderer, how: ReasoningSettings) -> Reader:
    """The evaluated model's. Raises InputError for settings that could not act."""
    if how.reasoning_tokens and model.kind == "replay":
        raise InputError(
            "A recording's answers had the room that they had: --reasoning-tokens goes with a model"
            " that is asked now."
        )
    parser = None
    if how.reasoning_parser is not None:
        if renderer.tokenizer is None:
            raise InputError(
                f"--reasoning-parser {how.reasoning_parser} needs the model's tokenizer"
                " (--tokenizer); or start the server with its own --reasoning-parser, whose"
                " reasoning is told apart."
            )
        # Here: it loads vLLM.
        from evals.generators.reasoning_parsers import reasoning_parser

        arguments = template_arguments(renderer.how.chat_template_kwargs)
        parser = reasoning_parser(how.reasoning_parser, renderer.tokenizer, arguments)
    return Reader(how, renderer.opens_reasoning, renderer, parser, renderer.how.stop)


def of_judge(name: str, how: ReasoningSettings) -> ReasoningSettings:
    """How a judge's reasoning is read past: always. The card's judges write none, and get no room
    for any.
    """
    return replace(
        how,
        reasoning="auto" if how.reasoning == "keep" else how.reasoning,
        reasoning_tokens=0 if name in CARD_JUDGES.values() else how.reasoning_tokens,
        reasoning_parser=None,
    )


def reasoning_record(reader: Reader) -> dict[str, Any]:
    """What a summary says of it; nothing of a run in which nobody asked for anything and no
    prompt opens a block.
    """
    if reader.how == AS_IT_COMES and not reader.opens:
        return {}
    kept = asdict(reader.how) | {"reasoning_marks": list(reader.how.reasoning_marks)}
    return {"reasoning": kept | {"opens": reader.opens}}


def settings_of(record: Mapping[str, Any]) -> ReasoningSettings:
    """The settings that a summary's header holds. Raises InputError where they are not known."""
    held = {name: value for name, value in record.get("reasoning", {}).items() if name != "opens"}
    try:
        return (
            ReasoningSettings(**held | {"reasoning_marks": tuple(held["reasoning_marks"])})
            if held
            else AS_IT_COMES
        )
    except (TypeError, KeyError):
        raise InputError(
            f"The run's reasoning settings {sorted(held)} are of another version of this program."
        ) from None


def notes(reader: Reader, tasks: Mapping[str, TaskPlan]) -> list[str]:
    """What to say at the start of a run whose model may reason."""
    how = reader.how
    if how.reasoning == "keep" or not (
        reader.opens or how.reasoning_tokens or how.reasoning_parser
    ):
        return []
    said = []
    if reader.opens:
        opening, closing = how.reasoning_marks
        said.append(
            f"the chat template opens a block of reasoning ({opening}): what stands before"
            f" {closing} is not graded, and an answer that never comes to it is no answer."
        )
    if not how.reasoning_tokens and reader.renderer and reader.renderer.tokenizer:
        said.append(
            "reasoning has the room of the protocol's limits; --reasoning-tokens N adds to it."
        )
    without = [
        name
        for name, task in tasks.items()
        if not task.skipped
        and len(task.items)
        and not can_reason(task.benchmark.request(task.items[0]))
    ]
    if without:
        said.append(
            f"{' and '.join(without)}: asked without reasoning, for which a letter's probability or"
            " a raw completion has no place."
        )
    return said
