"""A tokenizer and its chat template tried on a conversation made for the purpose, before any weight
is loaded: what would spoil every answer is seen here, and said.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from evals.errors import InputError
from evals.models.prompting import n_added_after, refuse_chance, template_of
from evals.models.prompts import Renderer
from evals.models.resolve import model_json
from evals.records import Generate, Message, Request, Sampling

_ASKED = 'Which of 7 < 9 & "ten" is {odd}?\nName one.'
_SAID = "Of these it's seven, I think."


def check_prompts(
    renderer: Renderer, files: Path | None, whose: str, ends: Collection[int] | None = None
) -> None:
    """Raise InputError for the first thing that would spoil every answer.

    files: the folder with the checkpoint's generation_config.json.  whose: begins the sentence.
    ends: the ids at which its engine ends an answer, where that is known.
    """
    if renderer.tokenizer is None:
        return
    _check_added(renderer, whose)
    if renderer.chat_format != "tokenizer":
        return
    refuse_chance(template_of(renderer.tokenizer, renderer.how), whose)
    _check_text(renderer, whose)
    told = _told(renderer)
    if told is None:
        return
    _check_opening(renderer, told, whose)
    if ends is None:
        ends = end_ids(renderer.tokenizer, files)
    _check_end(renderer, told, {*ends, *renderer.how.stop_token_ids}, whose)


def _check_added(renderer: Renderer, whose: str) -> None:
    """What follows a prompt is the answer's place: an end token there ends it before it begins."""
    n = 0 if renderer.how.leave_out_added else n_added_after(renderer.tokenizer)
    if n:
        ids = renderer.tokenizer("2 + 2 is", add_special_tokens=True)["input_ids"][-n:]
        added = " ".join(renderer.tokenizer.convert_ids_to_tokens(ids))
        raise InputError(
            f"{whose}: the tokenizer puts {added} after every prompt, where the answer should "
            "begin. Leave it out with --leave-out-added, or mend the tokenizer's files."
        )


def _check_text(renderer: Renderer, whose: str) -> None:
    """A template may trim what it is given, but must carry it."""
    rendered = renderer.text_of(_request(Message("user", _ASKED)))
    if _ASKED not in rendered:
        raise InputError(
            f"{whose}: the chat template does not carry a message's text whole. Give another one "
            "with --chat-template FILE, or use --chat-format tulu or none."
        )


def _told(renderer: Renderer) -> str | None:
    """A whole conversation as the template writes it; None where it takes no answer at the end."""
    try:
        conversation = Message("user", _ASKED), Message("assistant", _SAID)
        rendered = renderer.text_of(_request(*conversation), opens=False)
    except InputError:
        return None
    return rendered if rendered.count(_SAID) == 1 else None


def _check_opening(renderer: Renderer, told: str, whose: str) -> None:
    """Asked for the assistant's opening, a template writes what stands before its answers."""
    question = _request(Message("user", _ASKED))
    asked, plain = renderer.text_of(question), renderer.text_of(question, opens=False)
    before = told[: told.index(_SAID)]
    # Where both are equal there may be nothing to open: Mistral's answers follow [/INST] at once.
    if asked == plain and before.startswith(plain) and before[len(plain) :].strip():
        opening = before[len(plain) :]
        raise InputError(
            f"{whose}: the chat template opens no assistant's turn when asked to; before an answer "
            f"it writes {opening!r}. Add that under `add_generation_prompt` to a copy of it and "
            "give it with --chat-template FILE, or use --chat-format tulu or none."
        )


def _check_end(renderer: Renderer, told: str, ends: Collection[int], whose: str) -> None:
    """The token that ends a turn in the template must end an answer in the engine."""
    after = told[told.index(_SAID) + len(_SAID) :]
    tokenizer = renderer.tokenizer
    ids = tokenizer(after, add_special_tokens=False)["input_ids"]
    special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    end = next((i for i in ids if i in special), None)
    if end is None or end in ends:
        return
    text = tokenizer.convert_ids_to_tokens(end)
    if any(stop and text.startswith(stop) for stop in renderer.how.stop):
        return
    raise InputError(
        f"{whose}: a turn ends with {text} (id {end}) in the chat template, but the engine stops "
        f"at {', '.join(map(str, sorted(ends))) or 'nothing'} only: every answer would run to its "
        f"limit. Give --stop-token-ids {end}, or mend eos_token_id in generation_config.json."
    )


def end_ids(tokenizer: Any, files: Path | None) -> set[int]:
    """The ids at which a server most likely ends an answer, by the files beside its tokenizer: the
    tokenizer's end token, and those of the generation config, which transformers makes from
    config.json where it is missing.
    """
    found = {tokenizer.eos_token_id} - {None}
    for name in ("generation_config.json", "config.json"):
        if files is not None and (files / name).is_file():
            ids = model_json(files / name).get("eos_token_id")
            listed = ids if isinstance(ids, list) else [ids]
            return found | {one for one in listed if isinstance(one, int)}
    return found


def _request(*messages: Message) -> Generate:
    return Generate(messages, Sampling(max_tokens=1))


def check_question(renderer: Renderer, question: Request, whose: str) -> None:
    """Raise InputError where a judge could not be asked this. It may run on: its verdict is short,
    and read from the beginning.
    """
    if renderer.tokenizer is None:
        return
    _check_added(renderer, whose)
    if renderer.chat_format == "tokenizer":
        refuse_chance(template_of(renderer.tokenizer, renderer.how), whose)
    try:
        renderer.text_of(question)
    except InputError as error:
        raise InputError(f"{whose}: {error}") from error
