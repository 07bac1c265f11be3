"""The published few-shot texts, read from the task files that lm-evaluation-harness ships.

Only the YAML files are read, as data; the package itself is never imported.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from evals.errors import EnvironmentFault
from evals.records import Message


@dataclass(frozen=True, slots=True)
class TaskFile:
    """What a task file says about its prompt.

    description: the text before the shots.  doc_to_text: the question's template.
    samples: the shots in order, each a mapping of the file's own field names ("question", "input",
    "target").
    """

    description: str
    doc_to_text: str
    samples: tuple[Mapping[str, str], ...]


def as_turns(
    examples: Iterable[tuple[str, str]], question: str, before: str = ""
) -> tuple[Message, ...]:
    """Worked examples, each a question and its answer, as turns of a chat, and the question last.
    before: what the first turn begins with.
    """
    turns = [
        message
        for asked, said in examples
        for message in (Message("user", asked), Message("assistant", said))
    ]
    first, *others = [*turns, Message("user", question)]
    return (Message("user", before + first.content), *others)


@cache
def task_file(path: str) -> TaskFile:
    """The task file at `path` below the package's `tasks` folder, e.g. "gsm8k/gsm8k-cot.yaml".

    Raises EnvironmentFault when the package or the file is not installed, or is not a task file.
    """
    file = _tasks_folder() / path
    try:
        content = _read_yaml(file.read_text(encoding="utf-8"))
        fewshot = content.get("fewshot_config") or {}
        samples = tuple(
            {str(key): str(value) for key, value in sample.items()}
            for sample in fewshot.get("samples") or ()
        )
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise EnvironmentFault(
            f"The few-shot text {path} of lm-eval cannot be read: {error}. Install lm-eval 0.4.13"
            " again."
        ) from error
    return TaskFile(
        str(content.get("description", "")), str(content.get("doc_to_text", "")), samples
    )


def _tasks_folder() -> Path:
    spec = find_spec("lm_eval")
    if spec is None or not spec.submodule_search_locations:
        raise EnvironmentFault(
            "The package lm-eval, which ships the few-shot texts, is not installed. Install"
            " lm-eval 0.4.13."
        )
    return Path(spec.submodule_search_locations[0]) / "tasks"


def _read_yaml(text: str) -> dict[str, Any]:
    """The document as plain values; a tagged value (`!function`) becomes None. Raises ValueError
    for anything but a mapping.
    """
    import yaml

    # A class of its own: a constructor added to SafeLoader would be everybody's.
    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        """A safe loader that steps over tags instead of refusing them."""

    Loader.add_multi_constructor("!", lambda loader, suffix, node: None)
    try:
        content = yaml.load(text, Loader=Loader)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    if not isinstance(content, dict):
        raise ValueError("not a mapping")
    return content
