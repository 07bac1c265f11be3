"""Reasoning told from the answer: blocks that a model writes before it, between marks."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from evals.errors import InputError
from evals.records import Generate, Request

MODES = ("auto", "strip", "keep")


@dataclass(frozen=True, slots=True)
class ReasoningSettings:
    """What the user asked for.

    reasoning: auto strips where a block is opened, by the prompt or at the answer's beginning;
    strip everything up to the first closing mark, whatever opened it; keep nothing.
    reasoning_marks: the texts around a block.  reasoning_tokens: room for reasoning beside the
    protocol's limit on new tokens.  reasoning_parser: vLLM's, in place of the marks.
    """

    reasoning: str = "auto"
    reasoning_marks: tuple[str, ...] = ("<think>", "</think>")
    reasoning_tokens: int = 0
    reasoning_parser: str | None = None


AS_IT_COMES = ReasoningSettings()


def check_reasoning(asked: ReasoningSettings) -> None:
    """Raise InputError for what can be seen to be wrong in itself."""
    if asked.reasoning not in MODES:
        raise InputError(f"--reasoning {asked.reasoning}: known are {', '.join(MODES)}.")
    marks = asked.reasoning_marks
    if len(marks) != 2 or not all(mark.strip() for mark in marks) or marks[0] == marks[1]:
        raise InputError(
            f"--reasoning-marks {','.join(marks)}: write the two texts around a block,"
            " OPEN,CLOSE, e.g. '[THINK],[/THINK]'."
        )
    if marks[0] in marks[1] or marks[1] in marks[0]:
        raise InputError(
            f"--reasoning-marks {','.join(marks)}: one stands inside the other, so that neither"
            " can be told from it. Write both whole, as the model does."
        )
    if asked.reasoning_tokens < 0:
        raise InputError(
            f"--reasoning-tokens {asked.reasoning_tokens}: give a number of tokens, 0 or more."
        )
    if asked.reasoning == "keep" and (asked.reasoning_tokens or asked.reasoning_parser):
        raise InputError(
            "--reasoning keep tells no reasoning from the answer: leave out --reasoning-tokens and"
            " --reasoning-parser."
        )


def marks_of(text: str) -> tuple[str, ...]:
    """--reasoning-marks OPEN,CLOSE as two texts."""
    return tuple(part.strip() for part in text.split(",", 1))


class Split(NamedTuple):
    """A text told apart. state: whether there was a block, and whether the text ended inside one.

    at: characters before the answer's place, where the last block was closed.
    """

    reasoning: str
    answer: str
    state: Literal["none", "closed", "cut"]
    at: int


def split(text: str, marks: tuple[str, ...], *, opened: bool, anywhere: bool = False) -> Split:
    """Blocks at the beginning told from the rest, which is the answer; white space around either
    belongs to neither. A text without a block is its own answer, to the letter.

    opened: the prompt has opened the block.  anywhere: the first block begins with the text,
    wherever its marks stand.
    """
    opening, closing = marks
    blocks: list[str] = []
    at, is_open = 0, opened
    while True:
        rest = text[at:].lstrip()
        if rest.startswith(opening):
            rest = rest[len(opening) :]
        elif not is_open and not (anywhere and not blocks and (closing in rest or opening in rest)):
            break
        block, closed, after = rest.partition(closing)
        blocks.append(block.strip())
        if not closed:
            return Split("\n\n".join(filter(None, blocks)), "", "cut", len(text))
        at, is_open = len(text) - len(after), False
    if not blocks:
        return Split("", text, "none", 0)
    return Split("\n\n".join(filter(None, blocks)), text[at:].lstrip(), "closed", at)


def opens_block(tail: str, marks: tuple[str, ...]) -> bool:
    """Whether a prompt leaves a block open. tail: of the prompt, after all that others wrote."""
    opening, closing = marks
    return tail.rfind(opening) > tail.rfind(closing)


def can_reason(request: Request) -> bool:
    """Whether an answer has a place for reasoning before it: not where the first token is read
    (MMLU's letter, a judge's log-probabilities), nor where a raw text is continued (HumanEval).
    """
    return isinstance(request, Generate) and not request.raw and not request.sampling.n_logprobs
