"""An adapter's matrices held against its config and its base's modules, by the headers of weight
files alone.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evals.errors import InputError, first_line
from evals.models.adapters import PICKLED, WEIGHTS, Adapter, refuse, some
from evals.models.weights import broken_file

Shape = tuple[int, ...]


def safetensors_header(file: Path) -> dict[str, tuple[str, Shape]]:
    """Every tensor's dtype and shape, of a file that is whole."""
    with file.open("rb") as stream:
        header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    return {
        name: (str(one["dtype"]), tuple(map(int, one["shape"])))
        for name, one in header.items()
        if name != "__metadata__"
    }


def check_weights(argument: str, adapter: Adapter, modules: "Modules | None") -> None:
    """Raise InputError where the weights are not there, are not what the config says, or do not fit
    the base's modules (None: not known before the load).
    """
    if adapter.weights is None and (adapter.folder / PICKLED).is_file():
        raise InputError(
            f"{argument}/{PICKLED} is a pickle, which could run a program: load the adapter with"
            f" peft where you trust it, and save_pretrained writes {WEIGHTS}."
        )
    if adapter.weights is None:
        raise InputError(
            f"{argument} holds no {WEIGHTS}: copy the folder again as save_pretrained wrote it."
        )
    try:
        if (flaw := broken_file(adapter.folder)) is not None:
            raise ValueError(flaw)
        header = safetensors_header(adapter.weights)
    except (OSError, ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
        raise InputError(
            f"{argument}/{adapter.weights.name} cannot be read ({first_line(error)}). Copy"
            " the folder again."
        ) from error
    pairs, others = _pairs({name: shape for name, (_, shape) in header.items()})
    why = []
    if others:
        why.append(
            f"its weights hold {some(others)}, no LoRA matrix of a module (whole modules,"
            " embeddings of a resized vocabulary, DoRA's magnitudes)"
        )
    if not pairs and not others:
        why.append("its weights hold no LoRA matrices")
    why += _inconsistent(adapter, pairs)
    if modules is not None and not why:
        why += modules.unfit(pairs)
    refuse(argument, why)


_MATRIX = re.compile(r"base_model\.model\.(.+)\.(lora_[AB])\.weight|"
                     r"base_model\.model\.(.+)\.lora_embedding_([AB])")  # fmt: skip


@dataclass(slots=True)
class _Pair:
    """The two matrices of a module. a: rank × its inputs.  b: its outputs × rank. Those of an
    embedding count tokens as inputs.
    """

    a: Shape = ()
    b: Shape = ()
    is_embedding: bool = False


def _pairs(tensors: Mapping[str, Shape]) -> tuple[dict[str, _Pair], list[str]]:
    """Pairs by the base's module, and the names of tensors that are none of them."""
    pairs: dict[str, _Pair] = {}
    others = []
    for name, shape in tensors.items():
        found = _MATRIX.fullmatch(name)
        if found is None or len(shape) != 2:
            others.append(name)
            continue
        pair = pairs.setdefault(found[1] or found[3], _Pair(is_embedding=found[1] is None))
        if (found[2] or found[4]).endswith("A"):
            pair.a = shape
        else:
            pair.b = shape
    return pairs, others


def _inconsistent(adapter: Adapter, pairs: Mapping[str, _Pair]) -> list[str]:
    """Where matrices and config say different things: what takes part and the scale are the
    config's.
    """
    apart = [module for module in pairs if not _takes_part(adapter.config, module)]
    if apart:
        return [f"its weights hold {some(apart)}, which its config leaves out and peft would, too"]
    lone = [module for module, pair in pairs.items() if not pair.a or not pair.b]
    if lone:
        return [f"of {some(lone)} one of the two matrices is missing"]
    ranks = adapter.config.get("rank_pattern") or {}
    wrong = [
        f"{module} ({' and '.join(map(str, sorted({pair.a[0], pair.b[1]})))}, not {rank})"
        for module, pair in pairs.items()
        if {pair.a[0], pair.b[1]} != {rank := _by_pattern(ranks, module, adapter.config["r"])}
    ]
    return [f"its matrices have other ranks than its config says: {some(wrong)}"] if wrong else []


def _takes_part(config: Mapping[str, Any], module: str) -> bool:
    """peft's rule: a module is named by the end of its name, by an expression for all of it, or as
    any linear one, and lies in one of the layers where those are named.
    """
    targets, layers = config.get("target_modules"), config.get("layers_to_transform")
    if _is_named(config.get("exclude_modules"), module):
        return False
    if targets != "all-linear" and targets is not None and not _is_named(targets, module):
        return False
    at = re.match(r".*\.[^.]*\.(\d+)\.", module)
    wanted = [layers] if isinstance(layers, int) else layers
    # With a pattern of its own for layers the name alone does not tell.
    if not wanted or config.get("layers_pattern"):
        return True
    return at is not None and int(at[1]) in wanted


def _is_named(names: Any, module: str) -> bool:
    if isinstance(names, str):
        try:
            return re.fullmatch(names, module) is not None
        except re.error:
            return False
    return any(module == name or module.endswith(f".{name}") for name in names or ())


def _by_pattern(patterns: Mapping[str, int], module: str, default: int) -> int:
    """peft's rule: the first key that is the end of the module's name, as a regular expression."""
    for key, value in patterns.items():
        try:
            if re.match(rf"(.*\.)?({key})$", module):
                return value
        except re.error:
            continue
    return default


class Modules:
    """A base's modules with their weights' shapes (outputs × inputs), from its weights' headers.

    None as a shape: stored in a form of its own (quantized).
    """

    def __init__(self, tensors: Iterable[tuple[str, str, Shape]]) -> None:
        self._shapes: dict[str, set[Shape | None]] = {}
        for name, dtype, shape in tensors:
            module, _, what = name.rpartition(".")
            is_plain = what == "weight" and dtype.startswith(("F", "BF"))
            for key in (module, _tail(module)):
                self._shapes.setdefault(key, set()).add(shape if is_plain else None)

    def unfit(self, pairs: Mapping[str, _Pair]) -> list[str]:
        """Why these pairs do not go onto the base."""
        absent, misfits = [], []
        for module, pair in pairs.items():
            found = self._shapes.get(module) or self._shapes.get(_tail(module))
            wanted = pair.b[0], pair.a[1]
            if found is None:
                absent.append(module)
            # An embedding's weight is tokens × hidden.
            elif not {None, wanted[::-1] if pair.is_embedding else wanted} & found:
                misfits.append(f"{module} ({wanted[0]} × {wanted[1]}, the base's {_shown(found)})")
        why = [f"its base has no module {some(absent)}"] if absent else []
        why += [f"its matrices have other shapes than its base: {some(misfits)}"] if misfits else []
        if any(pair.is_embedding for pair in pairs.values()) and "lm_head" not in self._shapes:
            why.append("it changes embeddings that its base uses for the output too")
        return why


def _tail(module: str) -> str:
    """A module's name from its layer on: wrappers (of text in a model of images) put their own
    names before it, and checkpoints and transformers not the same ones.
    """
    found = re.search(r"(?:^|\.)((?:layers|h|blocks)\.\d+\..*)$", module)
    return found[1] if found else module.rpartition(".")[2]


def _shown(shapes: set[Shape | None]) -> str:
    return " or ".join(" × ".join(map(str, shape)) for shape in sorted(s for s in shapes if s))


def base_modules(files: Path, hub_id: str | None, revision: str | None) -> Modules | None:
    """The modules of a base: from its weights where they are here, else from the hub, which gives
    their headers alone; None where neither can be had.
    """
    shards = [file for file in files.glob("*.safetensors") if file.name != WEIGHTS]
    try:
        if shards:
            found = [safetensors_header(file).items() for file in shards]
            return Modules((name, *one) for header in found for name, one in header)
        if hub_id is None:
            return None
        from huggingface_hub import get_safetensors_metadata

        metadata = get_safetensors_metadata(hub_id, revision=revision)
        return Modules(
            (name, info.dtype, tuple(info.shape))
            for file in metadata.files_metadata.values()
            for name, info in file.tensors.items()
        )
    except Exception:  # noqa: BLE001  offline, no safetensors, damaged: the engine decides then
        return None
