"""The base that an adapter is served on: the one its config names, or the user's."""

import os
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from evals.errors import InputError
from evals.models.adapters import CONFIG, brings_tokenizer, check_vocabulary
from evals.models.prompts import load_tokenizer

if TYPE_CHECKING:
    from evals.models.resolve import Model

Named = Callable[[str, str | None], "Model"]
"""From a model's name and revision to the model."""


def on_base(found: "Model", base: str | None, revision: str | None, named: Named) -> "Model":
    """An adapter's model on its base; any other as it is. base, revision: the user's.

    Raises InputError where the base is not to be had, or where one is given to no adapter.
    """
    adapter = found.adapter
    if adapter is None:
        if base is None:
            return found
        raise InputError(
            f"{found.argument} is no adapter (it holds no {CONFIG}): name an adapter's folder, or"
            f" leave out its base, {base}."
        )
    name = base or adapter.base_name
    if name is None:
        raise InputError(
            f"{found.argument} is an adapter whose config names no base: name it with --base MODEL."
        )
    # What lies on this machine has no revision.
    if revision is None and base is None and not os.path.isdir(os.path.expanduser(name)):
        revision = adapter.base_revision
    try:
        model = named(name, revision)
    except InputError as error:
        way_out = "" if base else " Name it with --base MODEL if it is elsewhere."
        raise InputError(f"{found.argument}, an adapter of {name}: {error}{way_out}") from error
    if model.kind != "weights" or model.files is None or model.adapter is not None:
        what = "holds an adapter itself" if model.adapter else "is none"
        raise InputError(
            f"{found.argument}, an adapter: its base must be a folder of weights or a hub id, and"
            f" {name} {what}. Name another with --base MODEL."
        )
    brought = brings_tokenizer(found.argument, adapter, model.files)
    hub_id = found.source if found.revision else None
    return replace(
        model,
        argument=found.argument,
        name=found.name,
        # A format of the card's row is its own tokenizer's.
        row_format=None if brought else model.row_format,
        row_bos=None if brought else model.row_bos,
        adapter=replace(adapter, has_tokenizer=brought, hub_id=hub_id, revision=found.revision),
        base=model,
    )


def model_tokenizer(model: "Model", *, trust_remote_code: bool = False) -> Any:
    """The tokenizer of a model that has files. Raises InputError when there is none to read, or an
    adapter's does not go with its base.
    """
    found = load_tokenizer(str(model.tokenizer_files), trust_remote_code=trust_remote_code)
    if model.tokenizer_files != model.files:
        of_base = load_tokenizer(str(model.files), trust_remote_code=trust_remote_code)
        check_vocabulary(model.argument, found, of_base)
    return found


def adapter_record(model: "Model") -> dict[str, object] | None:
    """What a run's files say of an adapter and its base; None of any other model."""
    if model.adapter is None or model.base is None:
        return None
    of_base = {"base": model.base.public_id, "base_revision": model.base.revision}
    return of_base | model.adapter.record()


def adapter_marks(model: "Model") -> list[str]:
    """What every cell must say of an adapter: that it was trained on another base than this."""
    if model.adapter is None or model.base is None or model.adapter.base_name is None:
        return []
    named = _last(model.adapter.base_name)
    if named.lower() in {_last(one).lower() for one in (model.base.public_id, model.base.name)}:
        return []
    return [f"an adapter of {named}, by its config, run on {_last(model.base.public_id)}"]


def adapter_notes(model: "Model") -> list[str]:
    """What to say at the start of a run of an adapter."""
    if model.adapter is None or model.base is None:
        return []
    rank, base = model.adapter.rank, model.base
    notes = [f"{model.name}: LoRA of rank {rank} on {base.argument}, served unmerged"]
    if model.adapter.has_tokenizer:
        notes.append(f"{model.name}: its own tokenizer and template are used, not its base's")
    if (how := base.own_quantization) is not None:
        notes.append(
            f"{base.argument} is quantized ({how}), as for QLoRA's training; --base MODEL takes the"
            " unquantized one"
        )
    if model.adapter.holds_model:
        notes.append(
            f"{model.argument} holds a whole model, too, which is not evaluated: for that, move"
            f" {CONFIG} away"
        )
    return notes


def _last(name: str) -> str:
    return name.rstrip("/").rpartition("/")[2]
