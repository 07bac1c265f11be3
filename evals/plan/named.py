"""Settings by their names, as a program gives them and as the options of `evals run` are called."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, TypedDict

from evals.errors import InputError, nearest
from evals.generators import EngineSettings
from evals.generators.engine_args import engine_args_of
from evals.models.prompting import PromptSettings, ids_of, text_of_file
from evals.models.reasoning import ReasoningSettings, marks_of
from evals.plan.settings import RunSettings

_GROUPS = {"engine": EngineSettings, "prompts": PromptSettings, "reading": ReasoningSettings}
_AS_OPTIONS = {"judge": "judges", "price": "prices", "eager": "enforce_eager"}
"""Options whose name is not their setting's."""
REASONING_MARKS = "<think>,</think>"
_SEVERAL = ("tasks", "judges", "prices", "stop")

_PathLike = str | os.PathLike[str]
_Texts = str | Sequence[str]


class SettingsOfEach(TypedDict, total=False):
    """What each of several runs may be told; see Settings."""

    name: str | None
    suite: Literal["card", "full", "smoke"]
    card: str | None
    tasks: _Texts
    data: _PathLike | None
    out: _PathLike | None
    limit: int | None
    repeats: int
    temperature: float | None
    chat_format: Literal["auto", "tulu", "tokenizer", "none"]
    system_prompt: str | None
    chat_template: _PathLike | None
    chat_template_kwargs: str | Mapping[str, Any] | None
    stop: _Texts | None
    stop_token_ids: str | int | Sequence[int] | None
    leave_out_added: bool
    reasoning: Literal["auto", "strip", "keep"]
    reasoning_marks: str | tuple[str, str]
    reasoning_tokens: int
    reasoning_parser: str | None
    revision: str | None
    tokenizer: str | None
    judge: _Texts | None
    sandbox: Literal["auto", "require"]
    store: _PathLike | None
    offline: bool
    price: _Texts | None
    max_cost: float | None
    wait: str
    tensor_parallel_size: int | None
    pipeline_parallel_size: int | None
    data_parallel_size: int | None
    distributed_executor_backend: Literal["mp", "uni", "ray"] | None
    dtype: str
    quantization: str | None
    max_model_len: int | None
    gpu_memory_utilization: float | None
    max_num_seqs: int | None
    eager: bool | None
    seed: int
    trust_remote_code: bool
    batch_invariant: bool
    engine_args: Mapping[str, Any] | _Texts | None


class Settings(SettingsOfEach, total=False):
    """What a run may be told, by the names of the options of `evals run`, whose --help says what
    each does. What may be repeated there may be a list here.
    """

    base: str | None


def settings_by_name(model: object, given: Mapping[str, Any]) -> RunSettings:
    """`evals.run`'s arguments as RunSettings.

    Raises InputError for a name that there is not, with the nearest, and for a value of a wrong
    type.
    """
    from pydantic import TypeAdapter, ValidationError

    members = {group: {field.name for field in fields(of)} for group, of in _GROUPS.items()}
    asked: dict[str, Any] = {}
    for name, value in given.items():
        if name not in Settings.__annotations__:
            known = sorted(Settings.__annotations__)
            raise InputError(f"evals.run has no setting {name!r}. {nearest(name, known)}")
        setting = _AS_OPTIONS.get(name, name)
        if value in (None, "") and setting in (*_SEVERAL, "stop_token_ids", "engine_args"):
            continue
        # a bare text would be taken for a sequence of letters
        asked[setting] = [value] if setting in _SEVERAL and isinstance(value, str) else value
    if isinstance(asked.get("reasoning_marks"), str):
        asked["reasoning_marks"] = marks_of(asked["reasoning_marks"])
    for name in ("data", "out", "store"):
        if isinstance(asked.get(name), str):
            asked[name] = os.path.expanduser(asked[name])
    if isinstance(more := asked.get("engine_args"), Mapping):
        more = json.dumps(more)
    if isinstance(more, str | list | tuple):
        asked["engine_args"] = engine_args_of([more] if isinstance(more, str) else more)
    for group, names in members.items():
        own = {name: asked.pop(name) for name in sorted(names & asked.keys())}
        asked[group] = _prompts(own) if group == "prompts" else own
    try:
        return TypeAdapter(RunSettings).validate_python({"model": model, **asked})
    except ValidationError as error:
        first = error.errors()[0]
        name = next(str(part) for part in first["loc"] if part not in _GROUPS)
        name = next((option for option, setting in _AS_OPTIONS.items() if setting == name), name)
        what = "give a path" if first["type"] == "path_type" else first["msg"].lower()
        raise InputError(f"evals.run: {name} is {first['input']!r}: {what}.") from None


def reading_by_name(reasoning: str | None, marks: str) -> ReasoningSettings | None:
    """How a stored run's reasoning is to be told now; None: in the run's own way.

    Raises InputError for marks of nothing.
    """
    if reasoning is None and marks != REASONING_MARKS:
        raise InputError("--reasoning-marks goes with --reasoning.")
    return ReasoningSettings(reasoning, marks_of(marks)) if reasoning else None


def _prompts(own: dict[str, Any]) -> dict[str, Any]:
    """The prompt's settings as their class has them: files read, JSON and numbers written out."""
    arguments, template = own.get("chat_template_kwargs"), own.get("chat_template")
    system, ids = own.get("system_prompt"), own.get("stop_token_ids")
    if isinstance(arguments, Mapping):
        try:
            own["chat_template_kwargs"] = json.dumps(arguments)
        except (TypeError, ValueError) as error:
            raise InputError(f"evals.run: chat_template_kwargs is no JSON ({error}).") from None
    # Without a brace it would be the same prompt for every question: it is a file's name.
    if isinstance(template, Path) or (isinstance(template, str) and "{" not in template):
        own["chat_template"] = text_of_file("chat_template", Path(template))
    if isinstance(system, str) and system.startswith("@"):
        own["system_prompt"] = text_of_file("system_prompt", Path(system[1:]))
    if isinstance(ids, str | int):
        own["stop_token_ids"] = ids_of(str(ids))
    return own
