"""How prompts are made where that is not the checkpoint's own way, and what a template may read."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from evals.errors import InputError
from evals.storage.files import json_line

_CLOCK = "strftime_now"
"""The one function by which transformers lets a template read the clock."""


@dataclass(frozen=True, slots=True)
class PromptSettings:
    """What the user asked for beside the chat format.

    system_prompt: put before every conversation.  chat_template: Jinja text, in place of the
    tokenizer's own.  chat_template_kwargs: what a template is given beside the messages, as JSON
    text.  stop, stop_token_ids: what ends an answer beside the protocol's stop strings.
    leave_out_added: token ids that the tokenizer puts after a text are left out.
    """

    system_prompt: str | None = None
    chat_template: str | None = None
    chat_template_kwargs: str | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    leave_out_added: bool = False

    def marks(self) -> list[str]:
        """What a cell must say of these settings: the card used none of them."""
        found = []
        if self.system_prompt is not None:
            found.append(f"system prompt {_quoted(self.system_prompt)}; the card's row had none")
        if self.chat_template is not None:
            digest = hashlib.sha256(self.chat_template.encode()).hexdigest()[:12]
            found.append(f"chat template of the user's (sha256 {digest}…), not the tokenizer's own")
        if self.chat_template_kwargs is not None:
            found.append(f"chat template given {self.chat_template_kwargs}; the card's got nothing")
        if self.stop or self.stop_token_ids:
            ends = [*map(_quoted, self.stop), *(f"token {i}" for i in self.stop_token_ids)]
            found.append(f"answers end at {', '.join(ends)} too, which the protocol does not name")
        if self.leave_out_added:
            found.append("what the tokenizer adds after a text is left out")
        return found


AS_IT_IS = PromptSettings()


def prompts_of(record: Mapping[str, Any]) -> PromptSettings:
    """The settings of a run.json. Raises InputError where it has some that are not known here."""
    # JSON has no tuples.
    held: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in record.get("prompts", {}).items()
    }
    try:
        return PromptSettings(**held)
    except TypeError:
        raise InputError(
            f"The run's prompt settings {sorted(held)} are of another version of this program."
        ) from None


def template_arguments(given: str | None) -> dict[str, Any]:
    """--chat-template-kwargs, parsed. Raises InputError where it is no JSON object."""
    if given is None:
        return {}
    try:
        found = json.loads(given)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"--chat-template-kwargs {given[:200]}: no JSON ({error}). Write e.g. "
            "'{\"enable_thinking\": false}'."
        ) from None
    if not isinstance(found, dict):
        raise InputError(
            f"--chat-template-kwargs {given}: write a JSON object, e.g. "
            "'{\"enable_thinking\": false}'."
        )
    return found


def text_of_file(option: str, file: Path) -> str:
    """The text of a file that an option names. Raises InputError where it cannot be read."""
    try:
        return file.read_text("utf-8")
    except (OSError, ValueError) as error:
        raise InputError(f"{option} {file}: cannot be read ({error}).") from None


def ids_of(text: str) -> tuple[int, ...]:
    """--stop-token-ids as numbers. Raises InputError where one is none."""
    try:
        return tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise InputError(
            f"--stop-token-ids {text}: write token ids with commas, e.g. 2,7."
        ) from None


def template_of(tokenizer: Any, settings: PromptSettings) -> str:
    """The template's text; "" where there is none, or only several by name."""
    own = settings.chat_template or getattr(tokenizer, "chat_template", None)
    if isinstance(own, dict):
        own = own.get("default")
    return own if isinstance(own, str) else ""


def reads_clock(template: str) -> bool:
    """Whether a template asks what time it is."""
    return _CLOCK in template


def stopped_clock(clock: datetime) -> dict[str, Any]:
    """What a template that asks the time is told: the same all through a run."""
    # transformers puts its function among the globals, which what is handed over hides.
    return {_CLOCK: clock.strftime}


def refuse_chance(template: str, whose: str) -> None:
    """Raise InputError for a template that draws at random: no prompt of it could be had again."""
    if re.search(r"\|\s*random\b", template):
        raise InputError(
            f"{whose}: the chat template draws at random (its filter `random`), so that no prompt"
            " could be had again. Use one that does not (--chat-template FILE, or another judge)."
        )


def n_added_after(tokenizer: Any) -> int:
    """How many token ids a tokenizer puts after a text, by its post-processor or its own flags."""
    alone, whole = (
        list(tokenizer("2 + 2 is", add_special_tokens=added)["input_ids"])
        for added in (False, True)
    )
    # From the back: what stands before a text (a begin-of-sequence id) belongs to the protocol.
    last = max((at for at, i in enumerate(whole) if alone and i == alone[-1]), default=None)
    return 0 if last is None else len(whole) - 1 - last


def _quoted(text: str) -> str:
    return json_line(text if len(text) <= 60 else f"{text[:57]}...")
