"""vLLM's own reasoning parsers, as a user names them with --reasoning-parser."""

from collections.abc import Callable
from typing import Any

from evals.errors import InputError, nearest
from evals.generators import EngineSettings
from evals.generators.checkpoint import prepare_import
from evals.models.reasoning import Split

_REFUSED = (RuntimeError, ValueError, TypeError, KeyError, AttributeError, NotImplementedError)
"""What a parser raises that does not go with a tokenizer, or reads no text."""


def reasoning_parser(
    name: str, tokenizer: Any, template_arguments: dict[str, Any]
) -> Callable[[str], Split]:
    """The parser of this name, as a function of an output's text with its special tokens.

    Raises InputError for an unknown name, or where it does not go with the tokenizer.
    """
    prepare_import(EngineSettings())
    try:
        from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
        from vllm.reasoning import ReasoningParserManager as Parsers
    except ImportError as error:
        raise InputError(
            f"--reasoning-parser {name}: this vLLM has no reasoning parsers ({error}). Use"
            " --reasoning-marks."
        ) from error
    if name not in (known := Parsers.list_registered()):
        raise InputError(
            f"--reasoning-parser {name}: vLLM has none so named. {nearest(name, known)}"
        )
    request = ChatCompletionRequest(
        model="", messages=[], chat_template_kwargs=template_arguments or None
    )

    def told(text: str) -> Split:
        # A new one each time: some keep what they have seen.
        parser = make(tokenizer, chat_template_kwargs=template_arguments)
        reasoning, answer = parser.extract_reasoning(text, request)
        if reasoning is None:
            return Split("", text, "none", 0)
        if answer is None:
            return Split(reasoning.strip(), "", "cut", len(text))
        at = text.rfind(answer)
        return Split(
            reasoning.strip(), answer.lstrip(), "closed", at if at >= 0 else len(text) - len(answer)
        )

    try:
        make = Parsers.get_reasoning_parser(name)
        told("It is so.")
    except _REFUSED as error:
        raise InputError(
            f"--reasoning-parser {name} does not go with this model's tokenizer: {error}"
        ) from error
    return told
