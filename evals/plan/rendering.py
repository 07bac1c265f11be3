"""Who turns requests into token ids in a run: the model's renderer, and its judges', tried before
any weight is loaded.
"""

import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from evals.errors import InputError
from evals.models.bases import model_tokenizer
from evals.models.probe import check_question
from evals.models.prompting import AS_IT_IS
from evals.models.prompts import ChatFormat, Renderer, load_tokenizer, resolve_chat_format
from evals.models.resolve import Model, resolve
from evals.plan.items import TaskPlan
from evals.plan.judges import Judge
from evals.plan.questions import judge_renderer
from evals.plan.settings import RunSettings
from evals.records import Completion, Generate, Output, Program, Request, Score
from evals.storage.run_folder import RunFolder

SMOKE_MAX_NEW_TOKENS = 256  # the smoke suite is for seeing that everything works, in minutes


def renderer_of(
    model: Model, settings: RunSettings, tokenizer: Any, max_len: int | None
) -> Renderer:
    """The evaluated model's. max_len: its context in tokens. Raises InputError for prompt settings
    that could not act.
    """
    chat_format = _chat_format(model, settings, tokenizer)
    _refuse_idle(model, settings, chat_format, has_tokenizer=tokenizer is not None)
    max_new = SMOKE_MAX_NEW_TOKENS if settings.suite == "smoke" else None
    return Renderer(
        tokenizer,
        chat_format,
        max_len,
        settings.engine.seed,
        max_new,
        how=settings.prompts,
        reasoning=settings.reading,
        clock=settings.clock,
    )


def _refuse_idle(
    model: Model, settings: RunSettings, chat_format: ChatFormat, *, has_tokenizer: bool
) -> None:
    """A cell says of each of these settings that its answers were made so: none may do nothing."""
    how = settings.prompts
    if how == AS_IT_IS:
        return
    if model.kind == "replay":
        raise InputError(
            "A recording's prompts were made when it was: --system-prompt, --chat-template, --stop"
            " and their like go with a model that is asked now."
        )
    if how.system_prompt is not None and chat_format == "none":
        raise InputError(
            "--system-prompt needs a chat format: with none the model reads raw text, and no part"
            " of it is a system's."
        )
    of_template = how.chat_template is not None or how.chat_template_kwargs is not None
    if of_template and (chat_format != "tokenizer" or not has_tokenizer):
        raise InputError(
            "--chat-template and --chat-template-kwargs go with --chat-format tokenizer, and with"
            " the model's tokenizer (for a server: --tokenizer)."
        )
    if (how.stop_token_ids or how.leave_out_added) and not has_tokenizer:
        raise InputError(
            "--stop-token-ids and --leave-out-added are about token ids, and a chat server is sent"
            " none: name the model's tokenizer with --tokenizer."
        )


def told_clock(folder: Path) -> datetime:
    """What a template is told that asks the time: now, or what the folder's run was told when it
    began, so that its prompts stay what they were.
    """
    if os.path.exists(folder / "run.json"):
        told = RunFolder(folder).read_json("run.json").get("clock")
        if told is not None:
            try:
                return datetime.fromisoformat(told)
            except ValueError:
                raise InputError(
                    f"{folder / 'run.json'} is damaged (its clock is {told[:40]!r}). Move it away."
                ) from None
    return datetime.now().replace(microsecond=0)


def try_judges(
    tasks: Mapping[str, TaskPlan], judges: Mapping[str, Judge], settings: RunSettings
) -> list[Renderer]:
    """Have every local judge's template render one question of each of its roles: what it cannot
    take would else be met after the generation. Returns their renderers.
    """
    renderers: dict[str, Renderer] = {}
    for task in tasks.values():
        if task.skipped or not task.items:
            continue
        for check in task.benchmark.checks(task.items[0], Completion((Output("Seven."),))):
            judge = judges.get(check.name)
            if judge is None or judge.is_rule or isinstance(check.ask, Program):
                continue
            model = resolve(judge.model, offline=settings.offline)
            if model.kind == "weights":
                if judge.model not in renderers:
                    renderers[judge.model], _ = judge_renderer(
                        model, settings, judge.asking.chat_format or "auto"
                    )
                whose = f"Judge of {check.name}, {judge.model}"
                check_question(renderers[judge.model], judge.asking.apply(check.ask), whose)
    return list(renderers.values())


def refuse_scored(tasks: Mapping[str, TaskPlan], server: str) -> None:
    """Raise InputError for what a chat server cannot be asked: continuations to be scored, and text
    that is handed over as it is where a protocol says so.
    """
    refused = [
        name
        for name, task in tasks.items()
        if not task.skipped and task.items and _needs_ids(task.benchmark.request(task.items[0]))
    ]
    if refused:
        raise InputError(
            f"{server} renders its prompts itself, but {', '.join(refused)} score continuations or"
            " send raw text, token by token. Name the model's tokenizer with --tokenizer; or, where"
            " a task only generates, set apply_chat_template."
        )


def _needs_ids(request: Request) -> bool:
    is_raw = isinstance(request, Generate) and request.by_harness and request.raw
    return isinstance(request, Score) or is_raw


def tokenizer_of(model: Model, settings: RunSettings) -> Any:
    """The evaluated model's; None where none is at hand."""
    trust = settings.engine.trust_remote_code
    if settings.tokenizer:
        return load_tokenizer(
            str(tokenizer_files(settings.tokenizer, settings)), trust_remote_code=trust
        )
    return None if model.files is None else model_tokenizer(model, trust_remote_code=trust)


def tokenizer_files(argument: str, settings: RunSettings) -> Path:
    """The folder with the tokenizer that --tokenizer names. Raises InputError without one."""
    files = resolve(argument, offline=settings.offline).tokenizer_files
    if files is None:
        raise InputError(
            f"--tokenizer {argument} has no tokenizer on this machine. Name a folder or a hub id."
        )
    return files


def _chat_format(model: Model, settings: RunSettings, tokenizer: Any) -> ChatFormat:
    if tokenizer is None and settings.chat_format == "auto":
        # a chat server renders by itself; recorded outputs are graded as a chat model's
        return "tokenizer"
    if tokenizer is None and settings.chat_format in ("tulu", "none") and model.kind == "server":
        raise InputError(
            f"--chat-format {settings.chat_format} needs the model's tokenizer: name its folder or"
            " hub id with --tokenizer."
        )
    asked, given = settings.chat_format, settings.prompts.chat_template is not None
    # One of the user's own stands in for a template that the tokenizer lacks.
    if given and (asked == "tokenizer" or (asked == "auto" and model.row_format is None)):
        return "tokenizer"
    return resolve_chat_format(asked, tokenizer, model.row_format)
