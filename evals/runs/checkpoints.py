"""A training run's checkpoints in a folder: their steps, and whether each is whole."""

import contextlib
import hashlib
import json
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evals.errors import InputError
from evals.models.weights import broken_file

STILL_S = 30
"""How long nothing in a finished checkpoint has changed. Seconds."""
_STEP = re.compile(r"(?:step|checkpoint|ckpt|iter)[a-z]*[-_]?(\d+)", re.IGNORECASE)
# Not every *.bin and *.pt: an optimizer's state is one too.
_WEIGHTS = ("*.safetensors", "pytorch_model*.bin", "adapter_model.bin", "consolidated*.pth")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One checkpoint. step: of the training run, None where neither its name nor its
    trainer_state.json has one.
    """

    folder: Path
    step: int | None

    @property
    def name(self) -> str:
        """Its folder's name."""
        return self.folder.name

    def lacks(self) -> str | None:
        """What keeps it from being measured, in words; None where it is whole and still. Raises
        OSError where it is gone, or cannot be read.
        """
        if self.step is None:
            return "no step in its name or its trainer_state.json"
        names = {file.name for file in self.folder.iterdir()}
        if not names & {"config.json", "adapter_config.json"}:
            return "no config.json yet"
        if (flaw := broken_file(self.folder)) is not None:
            return flaw
        if not any(any(self.folder.glob(pattern)) for pattern in _WEIGHTS):
            return "no weights yet"
        for index in self.folder.glob("*.index.json"):
            parts = _json(index).get("weight_map")
            named = set(map(str, parts.values())) if isinstance(parts, dict) else {index.name}
            if lacking := sorted(named - names if isinstance(parts, dict) else named):
                return f"{lacking[0]} is not whole or not there yet"
        newest = max(file.stat().st_mtime for file in self.folder.iterdir())
        # Either way: the clock of the machine that writes may be ahead.
        if abs(time.time() - newest) < STILL_S:
            return f"changed less than {STILL_S} s ago"
        return None

    def seen(self) -> str:
        """What tells it from one that is written again under its name. Raises OSError."""
        files = sorted((file.name, file.stat()) for file in self.folder.iterdir())
        parts = [f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in files]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def checkpoints(folder: Path) -> list[Checkpoint]:
    """Every subfolder that could be a checkpoint, by step, those without one last. Raises
    InputError where there is no such folder.
    """
    try:
        # What is still written has another name: tmp-checkpoint-500, .incomplete. In "." a name
        # that begins with - would be an option of the run.
        inside = [
            one
            for one in folder.iterdir()
            if one.is_dir() and not one.name.startswith((".", "tmp", "_", "-"))
        ]
    except OSError as error:
        raise InputError(
            f"{folder} cannot be read ({error.strerror}). Name the folder that checkpoints are"
            " written into."
        ) from error
    found = [Checkpoint(one, _step(one)) for one in inside]
    return sorted(found, key=lambda one: (one.step is None, one.step or 0, one.name))


def _step(folder: Path) -> int | None:
    if found := _STEP.search(folder.name):
        return int(found[1])
    step = _json(folder / "trainer_state.json").get("global_step")
    return step if isinstance(step, int) else None


def _json(file: Path) -> dict[str, Any]:
    """A file's object; an empty one where it is not there or not whole."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        found = json.loads(file.read_text("utf-8"))
        return found if isinstance(found, dict) else {}
    return {}
