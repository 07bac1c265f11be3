"""What was told from a benchmark's outputs: counted, kept in samples, said beside the cell."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from evals.models.reasoning import ReasoningSettings, can_reason
from evals.plan.reasoning import settings_of
from evals.records import Completion, Generate, Request


@dataclass(frozen=True, slots=True)
class Reasoned:
    """Counts of outputs.

    n: all that had a place for reasoning.  told: with reasoning told from them, tokens of it as far
    as they could be counted.  marked: graded with a mark in their text.  other: graded, beginning
    with what other models open their reasoning with.  whole: without reasoning.
    without_ids: of which no token is known.  opened: of the requests seen, those with the
    protocol's own beginning of the answer.
    """

    n: int = 0
    told: int = 0
    tokens: int = 0
    marked: int = 0
    other: int = 0
    whole: int = 0
    without_ids: int = 0
    opened: int = 0

    def __add__(self, other: "Reasoned") -> "Reasoned":
        return Reasoned(
            *(getattr(self, one.name) + getattr(other, one.name) for one in fields(self))
        )


NOTHING = Reasoned()
_OTHER_MARKS = re.compile(
    r"\s*(<\|?(\w+:)?(begin_of_)?(think|thinking|thoughts?|reasoning)\b[^>\n]*>|\[THINK\]|◁think▷"
    r"|<\|channel\|>analysis)",
    re.IGNORECASE,
)
"""Of Magistral, Kimi, Seed, gpt-oss and fine-tunes' own."""


def of(request: Request, answer: Completion, how: ReasoningSettings) -> Reasoned:
    """The counts of one answer, as it was read."""
    opened = int(bool(request.opening))
    if not isinstance(request, Generate) or not can_reason(request):
        return Reasoned(opened=opened)
    outputs = answer.outputs
    told = [one for one in outputs if one.reasoning is not None]
    is_marked = [any(mark in one.text for mark in how.reasoning_marks) for one in outputs]
    return Reasoned(
        n=len(outputs),
        told=len(told),
        tokens=sum(one.n_reasoning or 0 for one in told),
        marked=sum(is_marked),
        other=sum(
            _OTHER_MARKS.match(one.text) is not None and not marked
            for one, marked in zip(outputs, is_marked, strict=True)
        ),
        whole=sum(one.is_answer and one.reasoning is None for one in outputs),
        without_ids=sum(not one.token_ids for one in outputs),
        opened=opened,
    )


def row(answer: Completion) -> dict[str, Any]:
    """What a line of samples says of it; nothing where there was no reasoning."""
    found: dict[str, Any] = {}
    if any(one.reasoning is not None for one in answer.outputs):
        found["reasoning"] = [one.reasoning for one in answer.outputs]
    if any(one.n_reasoning is not None for one in answer.outputs):
        found["n_reasoning_tokens"] = [one.n_reasoning for one in answer.outputs]
    return found


def counts(found: Reasoned) -> dict[str, Any]:
    """What summary.json says of a benchmark; nothing where there was no reasoning."""
    if not found.told:
        return {}
    return {"reasoning": {"outputs": found.told, "tokens": found.tokens}}


def marks(task: str, found: Reasoned, header: Mapping[str, Any]) -> list[str]:
    """What the cell must say: the card's models wrote no reasoning."""
    how, asked = settings_of(header), header.get("reasoning", {})
    said = []
    if found.told:
        tokens = f", {found.tokens:,} tokens" if found.tokens else ""
        said.append(
            f"{task}: reasoning told from {found.told:,} of {found.n:,} outputs{tokens}, and not"
            " graded; the card's models wrote none"
        )
    if found.marked:
        kept = ", with all reasoning (--reasoning keep)" if how.reasoning == "keep" else ""
        said.append(
            f"{task}: {found.marked:,} of {found.n:,} outputs graded with"
            f" {' or '.join(how.reasoning_marks)} in them{kept}"
        )
    if found.other:
        said.append(
            f"{task}: {found.other:,} of {found.n:,} outputs graded that begin with other marks of"
            " reasoning than the run knows (--reasoning-marks)"
        )
    if how.reasoning == "strip" and found.whole:
        said.append(
            f"{task}: no reasoning found in {found.whole:,} of {found.n:,} outputs, which were"
            " graded whole (--reasoning strip)"
        )
    if how.reasoning_tokens and found.n:
        said.append(
            f"{task}: room for {how.reasoning_tokens:,} tokens of reasoning, which the protocol has"
            " not"
        )
        if found.without_ids:
            said.append(
                f"{task}: {found.without_ids:,} of {found.n:,} answers came without token ids, and"
                " could not be held to the protocol's limit after their reasoning"
            )
    if asked.get("opens") and found.opened:
        said.append(
            f"{task}: the protocol's beginning of the answer stands inside the block of reasoning"
            " that the chat template opens"
        )
    return said
