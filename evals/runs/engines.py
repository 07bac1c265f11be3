"""Who answers: the evaluated model's generator, and a judge's."""

from evals.errors import InputError
from evals.generators import Generator
from evals.generators.replay import ReplayGenerator
from evals.models.resolve import Model
from evals.plan.make import Plan
from evals.plan.settings import RunSettings


def generator_for(plan: Plan) -> Generator:
    """The evaluated model's engine."""
    if plan.model.kind == "replay":
        return ReplayGenerator(plan.recorded)
    return start_engine(plan.model, plan.settings)


def start_engine(model: Model, settings: RunSettings) -> Generator:
    """An engine for any model that is not a recording; a judge's uses the same settings."""
    if model.kind == "replay":
        raise InputError(
            f"{model.argument} is a recording; it cannot judge. Put recorded verdicts into its rows"
            " as findings."
        )
    if model.kind == "server":
        from evals.generators.openai import OpenAIGenerator

        return OpenAIGenerator(model.source, model.urls)
    from evals.generators.vllm import VllmGenerator

    return VllmGenerator(model.source, settings.engine, revision=model.revision)
