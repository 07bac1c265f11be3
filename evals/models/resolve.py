"""What a model argument means: hub id, local folder, card short name, the embedded default, a
server, recorded outputs.
"""

import hashlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from evals.cards.published import row_of_short_name, shipped_rows
from evals.errors import InputError, nearest
from evals.models.adapter_weights import base_modules, check_weights
from evals.models.adapters import CONFIG, Adapter, read_adapter
from evals.models.bases import on_base
from evals.models.embedded import EMBEDDED, EMBEDDED_NAME, embedded_folder
from evals.models.fingerprint import (
    file_sha256,
    files_fingerprint,
    folder_fingerprint,
    has_weights,
    recorded_files,
)
from evals.models.hub import hub_folder
from evals.models.weights import broken_file

Kind = Literal["weights", "server", "replay"]
OPENAI_URL = "https://api.openai.com/v1"


@dataclass(frozen=True, slots=True)
class Model:
    """A model argument, resolved as far as is possible without loading weights.

    argument: as the user wrote it.  name: the row's name in the table.  source: folder or hub id
    (weights), model name (server), file (replay).  files: local folder with config and tokenizer,
    None where there is none.
    row_format, row_bos: chat format and BOS count of the card's row, when the argument is a card
    short name.
    adapter, base: of an adapter, what its folder says, and the model it is served on. source, files
    and revision are then the base's.
    """

    argument: str
    name: str
    kind: Kind
    source: str
    files: Path | None = None
    revision: str | None = None
    urls: tuple[str, ...] = ()
    row_format: str | None = None
    row_bos: int | None = None
    adapter: Adapter | None = None
    base: "Model | None" = None

    @property
    def own_revision(self) -> str | None:
        """The revision of what the argument names: an adapter's, not its base's."""
        return self.adapter.revision if self.adapter else self.revision

    @property
    def tokenizer_files(self) -> Path | None:
        """The folder with its tokenizer: an adapter's own, where it brings one."""
        return self.adapter.folder if self.adapter and self.adapter.has_tokenizer else self.files

    @property
    def public_id(self) -> str:
        """What the model is called wherever it lies: hub id, server's name, name of a file or
        folder.
        """
        if self.argument == EMBEDDED:
            return EMBEDDED
        if self.adapter is not None:
            return self.adapter.hub_id or self.adapter.folder.resolve().name
        return (
            self.source
            if self.revision or self.kind == "server"
            else Path(self.source).resolve().name
        )

    @property
    def own_quantization(self) -> str | None:
        """How the checkpoint itself is quantized (awq, gptq, fp8 …), by its config.json; None where
        it is not.
        """
        if self.files is None or not (self.files / "config.json").is_file():
            return None
        config = model_json(self.files / "config.json")
        inner = config.get("text_config")
        for one in (config, inner if isinstance(inner, dict) else {}):
            # compression_config: as llm-compressor wrote it until 2024.
            found = one.get("quantization_config") or one.get("compression_config")
            if isinstance(found, dict):
                return str(found.get("quant_method") or "by a method that its config does not name")
        return None

    def fingerprint(
        self,
        dtype: str = "auto",
        quantization: str | None = None,
        came_to: Sequence[str] = (),
    ) -> str:
        """A hash of what determines the answers: the weights' content (or hub commit, server name,
        file) and their precision.

        came_to: what dtype and cache came to, see evals.generators.checkpoint.

        Raises InputError when its files cannot be read.
        """
        try:
            if self.kind == "server":
                identity = ["server", self.source]
            elif self.kind == "replay":
                identity = ["replay", *map(file_sha256, recorded_files(Path(self.source)))]
            elif self.adapter is not None and self.base is not None:
                of_base = self.base.fingerprint(dtype, quantization)
                identity = ["adapter", of_base, files_fingerprint(self.adapter.identity)]
            elif self.revision and not Path(self.source).is_dir():
                identity = ["hub", self.source, self.revision]
            else:
                assert self.files is not None
                identity = ["folder", folder_fingerprint(self.files)]
        except OSError as error:
            raise InputError(f"{self.argument} cannot be read ({error}).") from error
        precision = [dtype, quantization or "", *came_to] if self.kind == "weights" else []
        return hashlib.sha256(json.dumps(identity + precision).encode()).hexdigest()


def public_name(argument: str) -> str:
    """A model argument without what only this machine knows: a server's address, the place of a
    folder that is or was here.

    Never the name of a card's judge for another thing that is called the same.
    """
    name, at, _ = argument.partition("@")
    if argument.startswith("openai:"):
        return f"{name}@own-server" if at else name
    folder = Path(os.path.expanduser(argument))
    if os.path.isdir(folder):
        return folder.resolve().name
    return folder.name if argument.startswith(("/", ".", "~")) else argument


def resolve(
    argument: str,
    *,
    revision: str | None = None,
    offline: bool = False,
    base: str | None = None,
    base_revision: str | None = None,
) -> Model:
    """What `argument` means. base, base_revision: what an adapter is served on, in place of what
    its config names.

    Raises InputError, naming the nearest known names, when it is nothing; when the folder is no
    model, or an adapter that the engine cannot serve exactly; when the hub's weights are gated or
    not at hand offline.
    """
    found = _named(argument, revision, offline)
    return on_base(found, base, base_revision, lambda name, at: _named(name, at, offline))


def _named(argument: str, revision: str | None, offline: bool) -> Model:
    """What an argument names, an adapter without its base."""
    # Path.expanduser and Path.is_dir raise on an unknown ~user and on a name too long
    path = Path(os.path.expanduser(argument))
    if not argument.strip():
        raise InputError(
            "MODEL is empty. Name a folder, a hub id, smollm2, openai:NAME@URL or replay:FILE."
        )
    is_local = (
        argument.startswith(("replay:", "openai:")) or argument == EMBEDDED or os.path.isdir(path)
    )
    if revision and is_local and row_of_short_name(argument) is None:
        raise InputError(
            f"--revision {revision} goes with a hub id; {argument} is none. Leave it out."
        )
    if argument.startswith("replay:"):
        return _replay(argument)
    if argument.startswith("openai:"):
        return _server(argument, offline)
    if argument == EMBEDDED:
        folder = embedded_folder()
        return Model(argument, EMBEDDED_NAME, "weights", str(folder), folder)
    row = row_of_short_name(argument)
    if row is not None:
        found = _hub(row.hub_id, revision or row.revision, offline)
        return replace(
            found,
            argument=argument,
            name=row.name,
            row_format=row.chat_format,
            row_bos=row.bos_tokens,
        )
    if os.path.isdir(path):
        return _folder(argument, path)
    if os.path.exists(path):
        raise InputError(
            f"{argument} is a file; a model is a folder. For recorded outputs write"
            f" replay:{argument}."
        )
    if re.fullmatch(r"[\w.-]+/[\w.-]+", argument) and not argument.startswith((".", "/")):
        return _hub(argument, revision, offline)
    if "://" in argument:  # and maybe a password in it
        raise InputError("A URL alone names no model. Write openai:NAME@URL.")
    known = [EMBEDDED, *(row.short_name for row in shipped_rows() if row.short_name)]
    raise InputError(
        f"Unknown model {argument!r}: no such folder, and not a hub id (owner/name),"
        f" openai:NAME@URL or replay:FILE. {nearest(argument, known)}"
    )


def _replay(argument: str) -> Model:
    file = Path(os.path.expanduser(argument.removeprefix("replay:")))
    if not os.path.exists(file):
        raise InputError(
            f"There is no file {file}. Write replay:FILE with a JSON-lines file of recorded"
            " outputs, or a folder of them."
        )
    # Of a run's samples the run's folder has the name that says something.
    named = file.resolve().parent if file.name == "samples" and file.is_dir() else file
    return Model(argument, named.name.split(".")[0], "replay", str(file))


def _server(argument: str, offline: bool) -> Model:
    name, _, urls = argument.removeprefix("openai:").partition("@")
    if not name:
        raise InputError(
            f"{argument!r} names no model. Write openai:NAME@URL, e.g."
            " openai:my-model@http://localhost:8000/v1."
        )
    found = (
        tuple(url.rstrip("/") for url in urls.split(",") if url)
        if "@" in argument
        else (OPENAI_URL,)
    )
    # Not repeated: a log of this may be kept, too.
    if re.search("[@?#]", urls):
        raise InputError(
            "A server's URL must hold no password, and no ? or #, behind which a key may stand: it"
            " would be written into the run. Set OPENAI_API_KEY instead."
        )
    for url in found or ("",):
        if not re.fullmatch(r"https?://[^/\s]+(/\S*)?", url):
            raise InputError(f"{url!r} is no URL. Write openai:NAME@http://HOST:PORT/v1.")
        if offline and not re.match(r"https?://(localhost|127\.\d+\.\d+\.\d+|\[::1\])(:|/|$)", url):
            raise InputError(
                f"--offline forbids the server {url}. Use one on this machine, or leave --offline"
                " out."
            )
    return Model(argument, name.rstrip("/").split("/")[-1], "server", name, urls=found)


def _folder(argument: str, path: Path) -> Model:
    adapter = _read(argument, path)
    return Model(argument, path.resolve().name, "weights", str(path), path, adapter=adapter)


def _read(argument: str, folder: Path) -> Adapter | None:
    """The adapter in a folder, whatever lies beside it (transformers takes it so, too); None where
    it is a model's.
    """
    # A link that leads nowhere is no bare model either.
    if os.path.lexists(folder / CONFIG):
        return read_adapter(argument, folder, model_json(folder / CONFIG))
    _require_model_files(argument, folder)
    return None


def _require_model_files(argument: str, folder: Path) -> None:
    names = {"config.json", "tokenizer.json", "tokenizer_config.json", "tokenizer.model"}
    if not any((folder / name).exists() for name in names):
        raise InputError(
            f"{argument} holds no model: no config.json and no tokenizer. Name a folder as"
            " save_pretrained writes it."
        )
    # transformers takes a damaged generation config for none: its end tokens would be lost.
    for name in ("config.json", "generation_config.json"):
        if (folder / name).exists():
            model_json(folder / name)


def _hub(hub_id: str, revision: str | None, offline: bool) -> Model:
    folder = hub_folder(hub_id, revision, offline)
    adapter = _read(hub_id, folder)
    # The hub's cache calls a snapshot's folder by its commit.
    return Model(
        hub_id, hub_id.split("/")[-1], "weights", hub_id, folder, folder.name, adapter=adapter
    )


def require_config(model: Model) -> None:
    """The same for a model of which only what it would be asked is wanted: of a folder without
    weights the config is enough.
    """
    folder = Path(model.source)
    is_bare = model.kind == "weights" and folder.is_dir() and not has_weights(folder)
    if not (is_bare and model.adapter is None and (folder / "config.json").exists()):
        require_weights(model)


def require_weights(model: Model) -> None:
    """Raise InputError when a model cannot answer: a folder without config or weights (or without
    some of them), an adapter that does not fit its base, a server without key.
    """
    if model.urls == (OPENAI_URL,) and not os.environ.get("OPENAI_API_KEY", "").strip():
        raise InputError(
            f"{model.argument} needs a key: set OPENAI_API_KEY, or name a server of your own:"
            " openai:NAME@URL."
        )
    if model.adapter is not None and model.base is not None and model.base.files is not None:
        require_weights(model.base)
        hub_id = model.base.source if model.base.revision else None
        modules = base_modules(model.base.files, hub_id, model.base.revision)
        check_weights(model.argument, model.adapter, modules)
        return
    folder = Path(model.source)
    if model.kind != "weights" or not folder.is_dir():
        return
    if not has_weights(folder):
        raise InputError(
            f"{model.argument} holds no weights (*.safetensors or *.bin). Name the folder that"
            " save_pretrained wrote."
        )
    if not (folder / "config.json").exists():
        raise InputError(
            f"{model.argument} holds no config.json beside its weights. Name the folder that"
            " save_pretrained wrote."
        )
    # An index may be that of a format which was not downloaded: one whole set is enough.
    gaps = [_missing_shards(index) for index in sorted(folder.glob("*.index.json"))]
    is_whole = any((folder / name).exists() for name in ("model.safetensors", "pytorch_model.bin"))
    if gaps and all(gaps) and not is_whole:
        raise InputError(
            f"{model.argument} lacks some of its weights: {', '.join(gaps[0])}. Copy the folder"
            " again."
        )
    try:
        broken = broken_file(folder)
    except OSError as error:
        raise InputError(f"{model.argument} cannot be read ({error}).") from error
    if broken:
        raise InputError(f"{model.argument} is damaged: {broken}. Copy that file again.")


def _missing_shards(index: Path) -> list[str]:
    """Files that an index of weights names and its folder lacks."""
    named = model_json(index).get("weight_map")
    return (
        sorted({str(name) for name in named.values() if not (index.parent / str(name)).exists()})
        if isinstance(named, dict)
        else []
    )


def model_json(path: Path) -> dict[str, Any]:
    """A JSON file of a model's folder. Raises InputError when it is damaged."""
    try:
        if not path.is_file():  # a device or a pipe has no end
            raise ValueError("no ordinary file")
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"{path.parent.name}/{path.name} cannot be read as JSON ({error}). The model's folder"
            " is damaged: copy it again."
        ) from error
    if not isinstance(loaded, dict):
        raise InputError(
            f"{path.parent.name}/{path.name} is not a JSON object. The model's folder is damaged:"
            " copy it again."
        )
    return loaded
