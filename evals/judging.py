"""Letting judges decide: each judge's model is loaded once and asked everything it has to decide."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from evals.asking import Asker, work
from evals.generators import Generator
from evals.judges import finding_of, public_name
from evals.models import Model, require_weights, resolve
from evals.plan import RunSettings, default_folder
from evals.prompts import Rendered, Renderer, load_tokenizer, resolve_chat_format
from evals.records import Completion, Finding, ItemId, Request

StartEngine = Callable[[Model, RunSettings], Generator]
CALIBRATIONS = Path("results") / "calibration"
"""Where `evals judge calibrate` keeps what it found, below the working directory; a run looks there, then in the clone."""


@dataclass(frozen=True, slots=True)
class Question:
    """One judge's request about one item."""

    item_id: ItemId
    role: str
    ask: Request


@dataclass(frozen=True, slots=True)
class Prepared:
    """One judge and its questions as it is asked them: each that fits with its store key, and those longer than its context."""

    name: str
    model: Model
    fingerprint: str
    renderer: Renderer
    keyed: Sequence[tuple[str, Rendered]]
    too_long: Sequence[Rendered]


def prepare(settings: RunSettings, name: str, questions: Sequence[Question]) -> Prepared:
    """Render a judge's questions. Raises InputError when the judge cannot be had."""
    model = resolve(name, offline=settings.offline)
    require_weights(model)
    fingerprint = model.fingerprint(settings.engine.dtype, settings.engine.quantization)
    renderer = _renderer(model, settings)
    rendered = renderer.render([(question.item_id, question.role, question.ask) for question in questions])
    fits = [renderer.max_len is None or len(request.token_ids) < renderer.max_len for request in rendered]
    keyed = [(request.key(fingerprint), request) for request, is_fit in zip(rendered, fits, strict=True) if is_fit]
    too_long = [request for request, is_fit in zip(rendered, fits, strict=True) if not is_fit]
    return Prepared(name, model, fingerprint, renderer, keyed, too_long)


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
        prepared = prepare(settings, name, questions[name])
        by_check = {(question.item_id, question.role): question for question in questions[name]}
        _judge(asker, prepared, by_check, found, lambda model: start(model, settings))
        for role in dict.fromkeys(question.role for question in questions[name]):
            n = sum(request.check == role for request in prepared.too_long)
            said = [f"{role}: {n} answers too long for {name} to judge, counted as unreadable verdicts"] if n else []
            notes[role] = [*said, *calibration_notes(role, name, prepared.fingerprint)]
    return notes


def _judge(
    asker: Asker,
    prepared: Prepared,
    by_check: Mapping[tuple[ItemId, str], Question],
    found: Callable[[Question, Finding], None],
    start: Callable[[Model], Generator],
) -> None:
    for request in prepared.too_long:
        found(by_check[request.item_id, request.check], Finding(by=prepared.name, text=""))

    def land(request: Rendered, answer: Completion) -> None:
        question = by_check[request.item_id, request.check]
        found(question, finding_of(question.ask, answer, prepared.name))

    phase = f"judge {prepared.name}"
    asker.progress.start(phase)
    waiting = asker.ask(prepared.name, prepared.keyed, land)
    if waiting:
        asker.load(prepared.model.argument, lambda: start(prepared.model))
        asker.progress.start(phase, len(waiting), work(waiting))
        asker.stream(waiting, land, prepared.renderer)
    asker.progress.stop()


def calibration_notes(role: str, name: str, fingerprint: str) -> list[str]:
    """What `evals judge calibrate` found about this very judge, as its file in CALIBRATIONS says; nothing where there is none."""
    for folder in (CALIBRATIONS, Path(__file__).resolve().parents[1] / CALIBRATIONS):
        path = folder / f"{default_folder(public_name(name), role)}.json"
        if path.is_file():
            try:
                kept = json.loads(path.read_text(encoding="utf-8"))
                return [str(kept["line"])] if (kept["judge"], kept["fingerprint"]) == (public_name(name), fingerprint) else []
            except (OSError, ValueError, LookupError, TypeError) as error:
                return [f"{role}: the calibration {path.name} cannot be read ({type(error).__name__})"]
    return []


def _renderer(model: Model, settings: RunSettings) -> Renderer:
    if model.files is None:
        return Renderer(None, "tokenizer", None)
    tokenizer = load_tokenizer(str(model.files), trust_remote_code=settings.engine.trust_remote_code)
    own, limit = model.max_len(None), settings.engine.max_model_len
    max_len = min(own, limit) if own and limit else own
    return Renderer(tokenizer, resolve_chat_format("auto", tokenizer, model.row_format), max_len, settings.engine.seed)
