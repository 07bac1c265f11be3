"""Who answers: the evaluated model's generator, and a judge's."""

from typing import TYPE_CHECKING

from evals.errors import InputError
from evals.generators import Generator
from evals.generators.replay import ReplayGenerator
from evals.models.resolve import Model
from evals.plan.make import Plan
from evals.plan.settings import RunSettings

if TYPE_CHECKING:
    from evals.generators.vllm import VllmGenerator


def generator_for(plan: Plan) -> Generator:
    """The evaluated model's engine."""
    if plan.model.kind == "replay":
        return ReplayGenerator(plan.recorded)
    return start_engine(plan.model, plan.settings)


def start_engine(model: Model, settings: RunSettings, n_beside: int = 1) -> Generator:
    """An engine for any model that is not a recording; a judge's uses the same settings.

    n_beside: how many share a server's connections.
    """
    if model.kind == "replay":
        raise InputError(
            f"{model.argument} is a recording; it cannot judge. Put recorded verdicts into its rows"
            " as findings."
        )
    if model.kind == "server":
        from evals.generators.openai import OpenAIGenerator

        return OpenAIGenerator(model.source, model.urls, n_beside=n_beside)
    from evals.generators.vllm import VllmGenerator

    if model.adapter is None:
        return VllmGenerator(model.source, settings.engine, revision=model.revision)
    engine = adapter_engine(model, settings, model.adapter.rank)
    try:
        engine.serve(str(model.adapter.folder))
    except BaseException:
        engine.close()
        raise
    return engine


def adapter_engine(model: Model, settings: RunSettings, rank: int) -> "VllmGenerator":
    """An engine of an adapter's base, with room for adapters of this rank; it serves none yet."""
    from evals.generators.vllm import VllmGenerator

    own = model.adapter is not None and model.adapter.has_tokenizer
    return VllmGenerator(
        model.source,
        settings.engine,
        revision=model.revision,
        lora_rank=rank,
        tokenizer=str(model.tokenizer_files) if own else None,
    )
