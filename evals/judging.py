"""Letting judges decide: each judge's model is loaded once and asked everything it has to decide."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from evals.asking import Asker
from evals.generators import Generator
from evals.judges import finding_of
from evals.models import Model, require_weights, resolve
from evals.plan import RunSettings
from evals.prompts import Rendered, Renderer, load_tokenizer, resolve_chat_format
from evals.records import Completion, Finding, ItemId, Request

StartEngine = Callable[[Model, RunSettings], Generator]


@dataclass(frozen=True, slots=True)
class Question:
    """One judge's request about one item."""

    item_id: ItemId
    role: str
    ask: Request


def judge_all(
    asker: Asker,
    settings: RunSettings,
    questions: Mapping[str, Sequence[Question]],
    found: Callable[[Question, Finding], None],
    start: StartEngine,
) -> dict[str, list[str]]:
    """Ask every judge its questions, given by judge's model; the model already loaded goes first.

    found: called with each finding.  Returns, by role, what must be said beside the cells.
    """
    notes: dict[str, list[str]] = {}
    for name in sorted(questions, key=lambda name: (name != asker.loaded, name)):
        for role, n_too_long in _judge(asker, settings, name, questions[name], found, start).items():
            notes.setdefault(role, []).append(f"{role}: {n_too_long} answers too long for {name} to judge, counted as unreadable verdicts")
    return notes


def _judge(
    asker: Asker,
    settings: RunSettings,
    name: str,
    questions: Sequence[Question],
    found: Callable[[Question, Finding], None],
    start: StartEngine,
) -> dict[str, int]:
    model = resolve(name, offline=settings.offline)
    require_weights(model)
    fingerprint = model.fingerprint(settings.engine.dtype, settings.engine.quantization)
    renderer = _renderer(model, settings)
    by_check = {(question.item_id, question.role): question for question in questions}
    rendered = renderer.render([(question.item_id, question.role, question.ask) for question in questions])
    fits = [request for request in rendered if renderer.max_len is None or len(request.token_ids) < renderer.max_len]
    too_long: dict[str, int] = {}
    for request in rendered:
        if renderer.max_len is not None and len(request.token_ids) >= renderer.max_len:
            found(by_check[request.item_id, request.check], Finding(by=name, text=""))
            too_long[request.check] = too_long.get(request.check, 0) + 1

    def land(request: Rendered, answer: Completion) -> None:
        question = by_check[request.item_id, request.check]
        found(question, finding_of(question.ask, answer, name))

    phase = f"judge {name}"
    waiting = asker.ask(phase, name, [(request.key(fingerprint), request) for request in fits], land)
    if waiting:
        asker.load(model.argument, lambda: start(model, settings))
        asker.stream(phase, waiting, land, renderer)
    return too_long


def _renderer(model: Model, settings: RunSettings) -> Renderer:
    if model.files is None:
        return Renderer(None, "tokenizer", None)
    tokenizer = load_tokenizer(str(model.files), trust_remote_code=settings.engine.trust_remote_code)
    own, limit = model.max_len(None), settings.engine.max_model_len
    max_len = min(own, limit) if own and limit else own
    return Renderer(tokenizer, resolve_chat_format("auto", tokenizer, model.row_format), max_len, settings.engine.seed)
