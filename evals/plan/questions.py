"""A judge's questions as the judge is asked them: rendered for its own tokenizer, each with its
store key.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from evals.generators.checkpoint import Checkpoint, take
from evals.models.bases import model_tokenizer
from evals.models.prompting import PromptSettings
from evals.models.prompts import Rendered, Renderer, resolve_chat_format
from evals.models.reading import MARKS_ALONE, Reader
from evals.models.resolve import Model, require_weights, resolve
from evals.plan.engine import fingerprint_of
from evals.plan.judges import Judge
from evals.plan.parallel import for_judge
from evals.plan.reasoning import of_judge
from evals.plan.settings import RunSettings
from evals.records import ItemId, Request


@dataclass(frozen=True, slots=True)
class Question:
    """One judge's request about one item. judge: who is asked, and how; None for the card's way."""

    item_id: ItemId
    role: str
    ask: Request
    judge: Judge | None = None


def question(judge: Judge, item_id: ItemId, ask: Request) -> Question:
    """What a judge is asked of an item, in the way that it is to be asked."""
    return Question(item_id, judge.role, judge.asking.apply(ask), judge)


@dataclass(frozen=True, slots=True)
class Prepared:
    """One judge and its questions as it is asked them: each that fits with its store key, and those
    longer than its context. reader: how its answers are read.
    """

    name: str
    model: Model
    fingerprint: str
    renderer: Renderer
    keyed: Sequence[tuple[str, Rendered]]
    too_long: Sequence[Rendered]
    reader: Reader = MARKS_ALONE

    def engine_settings(self, settings: RunSettings) -> RunSettings:
        """The run's, with no more context than the judge takes, on GPUs as it fits them."""
        engine = for_judge(self.model, settings.engine)
        if engine.max_model_len is not None:
            engine = replace(engine, max_model_len=self.renderer.max_len)
        return replace(settings, engine=engine)


def prepare(
    settings: RunSettings, name: str, questions: Sequence[Question], *, is_asked: bool = True
) -> Prepared:
    """Render a judge's questions. Raises InputError when the judge cannot be had.

    is_asked: False where only what it said before is looked up.
    """
    model = resolve(name, offline=settings.offline)
    if is_asked:
        require_weights(model)
    # One model is asked in one format, as judges_of holds it to.
    formats = {one.judge.asking.chat_format for one in questions if one.judge} - {None}
    renderer, checkpoint = judge_renderer(model, settings, next(iter(formats), None) or "auto")
    fingerprint = fingerprint_of(model, settings.engine, checkpoint)
    rendered = renderer.render(
        [(question.item_id, question.role, question.ask) for question in questions]
    )
    fits = [
        renderer.max_len is None or len(request.token_ids) < renderer.max_len
        for request in rendered
    ]
    keyed = [
        (request.key(fingerprint), request)
        for request, is_fit in zip(rendered, fits, strict=True)
        if is_fit
    ]
    too_long = [request for request, is_fit in zip(rendered, fits, strict=True) if not is_fit]
    reader = Reader(renderer.reasoning, renderer.opens_reasoning, renderer)
    return Prepared(name, model, fingerprint, renderer, keyed, too_long, reader)


def judge_renderer(
    model: Model, settings: RunSettings, chat_format: str = "auto"
) -> tuple[Renderer, Checkpoint | None]:
    """What turns a judge's questions into its own token ids, and the judge as vLLM takes it."""
    reasoning = of_judge(model.argument, settings.reading)
    if model.files is None:
        return Renderer(None, "tokenizer", None, reasoning=reasoning), None
    tokenizer = model_tokenizer(model, trust_remote_code=settings.engine.trust_remote_code)
    limit = settings.engine.max_model_len
    engine = for_judge(model, settings.engine)
    checkpoint = take(model, replace(engine, max_model_len=None), tokenizer)
    own = checkpoint.max_len if checkpoint else None
    # The limit was given for the evaluated model, and may be more than the judge takes.
    max_len = min(own, limit) if own and limit else own
    renderer = Renderer(
        tokenizer,
        resolve_chat_format(chat_format, tokenizer, model.row_format),
        max_len,
        settings.engine.seed,
        clock=settings.clock,
        how=PromptSettings(leave_out_added=settings.prompts.leave_out_added),
        reasoning=reasoning,
        advice="Name another model to judge: this one's template takes no such conversation.",
    )
    return renderer, checkpoint
