"""How reasoning is told from stored answers when a run is graded again, without its tokenizer."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from evals.errors import InputError
from evals.generators.replay import Recorded
from evals.models.reading import Reader
from evals.models.reasoning import ReasoningSettings, check_reasoning, opens_block
from evals.plan.judges import finding_of
from evals.plan.reasoning import of_judge, reasoning_record, settings_of
from evals.records import Completion, Finding, Output, Program, Request


@dataclass(frozen=True)
class Again:
    """head: the run's summary header.  asked: how to tell them apart now; None for the run's own
    way.  stop: the user's own stop strings.
    """

    head: Mapping[str, Any]
    asked: ReasoningSettings | None = None
    stop: tuple[str, ...] = ()

    @property
    def how(self) -> ReasoningSettings:
        """The settings in force."""
        return self.asked or settings_of(self.head)

    @property
    def _reader(self) -> Reader:
        opens = bool(self.head.get("reasoning", {}).get("opens"))
        return Reader(self.how, opens, stop=self.stop)

    def header(self) -> dict[str, Any]:
        """The summary's header, with these settings."""
        others = {name: value for name, value in self.head.items() if name != "reasoning"}
        return others | reasoning_record(self._reader)

    def require(self, has_store: bool) -> None:
        """Raise InputError where answers cannot be told apart in another way than they were."""
        if self.asked is None:
            return
        check_reasoning(self.asked)
        was = settings_of(self.head)
        if was.reasoning_tokens or was.reasoning_parser or not has_store:
            raise InputError(
                "The answers as the engine gave them, and its tokenizer, are needed to tell"
                " reasoning apart in another way here. Give the run's own command with --reasoning;"
                " what its store holds is not asked again."
            )

    def read(self, request: Request, answer: Completion, row: Recorded | None) -> Completion:
        """An answer as it is graded. row: of the run's samples, in which it was told apart with the
        model's tokenizer.
        """
        told = row.completion.outputs if row else ()
        read = self._reader.read(request, answer)
        if len(told) != len(read.outputs):
            return read
        outputs = [self._told(*pair) for pair in zip(read.outputs, told, strict=True)]
        return replace(read, outputs=tuple(outputs))

    def _told(self, now: Output, then: Output) -> Output:
        how, as_then = self.how, replace(then, token_ids=now.token_ids)
        if self.asked is None and (how.reasoning_tokens or how.reasoning_parser):
            return as_then
        if then.reasoning == now.reasoning:
            return replace(now, n_reasoning=then.n_reasoning)
        is_marked = any(mark in now.text for mark in how.reasoning_marks)
        if then.reasoning is None or now.reasoning is not None or is_marked:
            return now
        if self.asked is None:
            return as_then
        raise InputError(
            "The marks around this run's reasoning are special tokens, which its stored texts lack."
            " Give the run's own command with --reasoning; what its store holds is not asked again."
        )

    def is_about(self, ask: Request | Program, answer: Completion, prompt: str) -> bool:
        """Whether a judge was asked about the answer as it is read now: reasoning that was part of
        it then, or now is, makes another question.
        """
        is_told = any(one.reasoning is not None for one in answer.outputs)
        if isinstance(ask, Program) or not (is_told or self.asked):
            return True
        return ask.messages[-1].content.strip() in prompt

    def verdict(
        self, ask: Request, answer: Completion, prompt: str, by: str, then: Finding | None
    ) -> Finding:
        """A judge's answer, told from its reasoning. then: what the run's samples hold of it, told
        apart with the judge's tokenizer.
        """
        how = of_judge("", self.how)
        tail = prompt.rpartition(ask.messages[-1].content.strip())[2]
        reader = Reader(how, opens_block(tail, how.reasoning_marks))
        now = finding_of(ask, reader.read(ask, answer), by)
        # Marks that are special tokens are not in the stored text.
        is_lost = then is not None and then.reasoning not in (None, now.reasoning)
        return then if then is not None and is_lost else now
