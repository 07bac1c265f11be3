"""Who answers: the evaluated model's generator, and a judge's."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from evals.errors import InputError
from evals.generators import Generator
from evals.generators.placing import Places, places
from evals.generators.replay import ReplayGenerator
from evals.generators.waiting import seconds
from evals.models.resolve import Model
from evals.plan.make import Plan
from evals.plan.settings import RunSettings
from evals.storage.run_folder import safe

if TYPE_CHECKING:
    from evals.generators.copies import CopiesGenerator
    from evals.generators.vllm import VllmGenerator


def generator_for(plan: Plan) -> Generator:
    """The evaluated model's engine."""
    if plan.model.kind == "replay":
        return ReplayGenerator(plan.recorded)
    return start_engine(plan.model, replace(plan.settings, out=plan.out))


def start_engine(
    model: Model, settings: RunSettings, n_beside: int = 1, where: Places | None = None
) -> Generator:
    """An engine for any model that is not a recording; a judge's uses the same settings.

    n_beside: how many share a server's connections.  where: the devices of one that loads beside
    others; None for all there are.
    """
    if model.kind == "replay":
        raise InputError(
            f"{model.argument} is a recording; it cannot judge. Put recorded verdicts into its rows"
            " as findings."
        )
    if model.kind == "server":
        from evals.generators.openai import OpenAIGenerator

        wait_s = seconds(settings.wait) if settings.wait else 0.0
        return OpenAIGenerator(model.source, model.urls, n_beside=n_beside, wait_s=wait_s)
    rank = model.adapter.rank if model.adapter else 0
    engine = local_engine(model, settings, rank, where)
    if model.adapter is None:
        return engine
    try:
        engine.serve(str(model.adapter.folder))
    except BaseException:
        engine.close()
        raise
    return engine


def local_engine(
    model: Model, settings: RunSettings, rank: int = 0, where: Places | None = None
) -> "VllmGenerator | CopiesGenerator":
    """vLLM on this machine: in this process, or copies of it, whose logs are in the run's folder.

    rank: of the adapters there is to be room for; it serves none yet.  where: see start_engine.
    """
    from evals.generators.copies import CopiesGenerator
    from evals.generators.copy_process import Start, load

    own = model.adapter is not None and model.adapter.has_tokenizer
    start = Start(
        model.source,
        settings.engine,
        model.revision,
        rank,
        str(model.tokenizer_files) if own else None,
    )
    if where is None:
        where = places(settings.engine)
        if not where.is_split:
            return load(start)
    return CopiesGenerator(start, where, (settings.out or Path()) / "logs" / safe(model.name))
