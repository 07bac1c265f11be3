"""The evaluated model as whoever runs it takes it: its context, and on whose word."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evals.errors import InputError
from evals.generators import EngineSettings
from evals.generators.about import About, about
from evals.generators.checkpoint import Checkpoint, is_installed, take
from evals.models.resolve import Model
from evals.plan.settings import RunSettings
from evals.storage.run_folder import RunFolder

ServersSay = Sequence[About]


@dataclass(frozen=True, slots=True)
class EngineView:
    """max_len: context in tokens, None where it is not known: nothing is then capped.
    said_by: whose word that is.  checkpoint: the weights as vLLM takes them, None where it is not
    vLLM in this process that will answer.  servers: what each said of itself, where it was asked.
    """

    max_len: int | None
    said_by: str
    checkpoint: Checkpoint | None = None
    servers: ServersSay = ()

    @property
    def end_ids(self) -> frozenset[int] | None:
        """Tokens at which the engine ends an answer, None where only it knows."""
        return frozenset(self.checkpoint.end_ids) if self.checkpoint else None

    def line(self) -> str:
        """For `--dry-run`."""
        if self.max_len is None:
            return f"context: {self.said_by}"
        said = f"context: {self.max_len:,} tokens, {self.said_by}"
        if self.checkpoint is None:
            return said
        ends = ", ".join(map(str, self.checkpoint.end_ids)) or "none"
        return f"{said}; computed in {self.checkpoint.dtype}; tokens that end an answer: {ends}"

    def notes(self) -> list[str]:
        """What to say at a run's start."""
        if self.checkpoint is not None:
            return self.checkpoint.notes()
        return [self.line()] if self.servers and self.max_len is None else []


def view_of(model: Model, settings: RunSettings, tokenizer: Any, folder: Path) -> EngineView:
    """What the model takes. folder: its run's, whose record says what a server that is gone said.

    Raises InputError for a checkpoint that vLLM refuses, or a --max-model-len that is too much.
    """
    asked = settings.engine.max_model_len
    if model.kind == "weights":
        checkpoint = take(model, settings.engine, tokenizer)
        if checkpoint is not None:
            return EngineView(checkpoint.max_len, "by vLLM's own rule", checkpoint)
    elif model.kind == "server" and tokenizer is not None:
        return _servers_view(model, asked, tokenizer, folder)
    return EngineView(asked, "as --max-model-len says" if asked else _unknown(model))


def _servers_view(model: Model, asked: int | None, tokenizer: Any, folder: Path) -> EngineView:
    servers = tuple(about(model.source, url) for url in model.urls)
    told = _lengths(servers) or _lengths(_recorded(folder, model.argument))
    if told and asked and asked > min(told):
        raise InputError(
            f"--max-model-len {asked:,} is more than {model.argument} takes ({min(told):,}, as the"
            " server says)."
        )
    if asked:
        return EngineView(asked, "as --max-model-len says", servers=servers)
    if told:
        return EngineView(min(told), "as the server says", servers=servers)
    if checkpoint := take(model, EngineSettings(), tokenizer):
        said_by = "by vLLM's rule for the tokenizer's folder: the server says none"
        return EngineView(checkpoint.max_len, said_by, servers=servers)
    return EngineView(None, _unknown(model), servers=servers)


def _unknown(model: Model) -> str:
    """Why nothing is known of a model's context."""
    if model.kind == "replay":
        return "a recording has none"
    if model.kind == "server" and model.files is None:
        return "the server's own"
    why = "its folder has no config.json" if is_installed() else "vLLM, which knows, is not here"
    return f"not known ({why}): no answer is cut to it. Say it with --max-model-len"


def _lengths(servers: ServersSay) -> list[int]:
    return [length for one in servers if (length := one.get("max_model_len", 0)) > 0]


def _recorded(folder: Path, argument: str) -> ServersSay:
    """What a run of this folder was told by the model's servers."""
    if not os.path.exists(folder / "run.json"):
        return ()
    sessions: Sequence[Mapping[str, Any]] = RunFolder(folder).read_json("run.json")["sessions"]
    found = (one.get("servers", {}).get(argument, ()) for one in reversed(sessions))
    return next((said for said in found if _lengths(said)), ())


def fingerprint_of(model: Model, engine: EngineSettings, checkpoint: Checkpoint | None) -> str:
    """The model's, in the precision that it is computed in. Raises InputError as Model's does."""
    came_to = checkpoint.came_to(engine.dtype) if checkpoint else ()
    return model.fingerprint(engine.dtype, engine.quantization, came_to)
