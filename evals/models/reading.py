"""What came back as it is read: the answer, and beside it the reasoning that stood before it.

The store keeps what the engine said; this is done anew whenever an answer leaves it.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from evals.models.prompts import Renderer
from evals.models.reasoning import AS_IT_COMES, ReasoningSettings, Split, can_reason, split
from evals.records import Completion, FinishReason, Generate, Output, Request

Parser = Callable[[str], Split]


@dataclass(frozen=True)
class Reader:
    """Tells reasoning from answer.

    opens: the prompts open a block.  renderer: with its tokenizer, marks that are special tokens
    are seen, tokens are counted and answers after reasoning held to the protocol's limit; None
    where there is none.  parser: tells them apart in place of the marks.  stop: what ends an answer
    beside the protocol's stop strings.
    """

    how: ReasoningSettings = AS_IT_COMES
    opens: bool = False
    renderer: Renderer | None = None
    parser: Parser | None = None
    stop: tuple[str, ...] = ()

    def read(self, request: Request, answer: Completion) -> Completion:
        """The answer to a request, told from its reasoning; unchanged where there is no place for
        any.
        """
        if not isinstance(request, Generate) or not can_reason(request):
            return answer
        return replace(answer, outputs=tuple(self._read(request, one) for one in answer.outputs))

    def _read(self, request: Generate, output: Output) -> Output:
        if not output.is_answer:
            return output
        # A server, or an earlier reading, has told them apart.
        if output.reasoning is not None:
            text, end = self._stopped(request, output.text.lstrip(), output.finish_reason)
            return replace(output, text=text, finish_reason=end)
        ids = output.token_ids if self._tokenizer is not None else ()
        # Marks that are special tokens are in the ids only.
        with_special = bool(ids) and (
            self.parser is not None or not self._special_marks.isdisjoint(ids)
        )
        text = self._decoded(self._less_end(ids), special=True) if with_special else output.text
        if self.how.reasoning == "keep":
            text, kept_end = self._stopped(request, text, output.finish_reason)
            return replace(output, text=text, finish_reason=kept_end)
        found = self._told(text)
        if found.state == "cut":
            n = len(ids) or None
            return replace(
                output, text="", finish_reason="reasoning", reasoning=found.reasoning, n_reasoning=n
            )
        if found.state == "none" and not self.how.reasoning_tokens:
            return output
        first = self._first(ids, found.at, special=with_special)
        # Of the text with its special tokens only the marks were wanted.
        answer = output.text if found.state == "none" else found.answer
        if with_special and self.parser is None and found.state == "closed":
            answer = self._decoded(ids[first:], special=False).lstrip()
        found = found._replace(answer=answer)
        answer, end = self._held_to_limit(request, output, found, ids[first:])
        answer, end = self._stopped(request, answer, end)
        told = replace(output, text=answer, finish_reason=end)
        if found.state == "none":
            return told
        return replace(told, reasoning=found.reasoning, n_reasoning=first if ids else None)

    def _told(self, text: str) -> Split:
        # A parser may take a block that is never closed for an answer.
        if self.parser is not None and (found := self.parser(text)).state != "none":
            return found
        anywhere = self.how.reasoning == "strip"
        return split(text, self.how.reasoning_marks, opened=self.opens, anywhere=anywhere)

    def _held_to_limit(
        self, request: Generate, output: Output, found: Split, ids: Sequence[int]
    ) -> tuple[str, FinishReason]:
        """The answer, and how it ended, as if its tokens alone had been asked for."""
        kept, end = ids, output.finish_reason
        if self.renderer is not None and self.how.reasoning_tokens:
            limit = self.renderer.limit(request)
            if len(ids) > limit:
                kept, end = ids[:limit], "length"
            cut_id = self.renderer.cut_id(request)
            if cut_id is not None and cut_id in kept:
                kept, end = kept[: list(kept).index(cut_id)], "stop"
        if len(kept) == len(ids):
            return found.answer, end
        text = self._decoded(kept, special=False)
        return text.lstrip() if found.state == "closed" else text, end

    def _stopped(self, request: Generate, text: str, end: FinishReason) -> tuple[str, FinishReason]:
        """The text cut where it would have ended: where reasoning has room, or its block is opened
        by the prompt, the engine was told of no stop strings.
        """
        stops = (*request.sampling.stop, *self.stop)
        cuts = [at for stop in stops if (at := text.find(stop)) >= 0]
        return (text[: min(cuts)], "stop") if cuts else (text, end)

    # --- tokens -----------------------------------------------------------------------------------

    @property
    def _tokenizer(self) -> Any:
        return self.renderer.tokenizer if self.renderer is not None else None

    def _id_of(self, mark: str) -> int | None:
        """The id of a mark that is one token; what a tokenizer gives for unknown texts is none."""
        found = self._tokenizer.convert_tokens_to_ids(mark)
        is_it = found is not None and self._tokenizer.convert_ids_to_tokens(found) == mark
        return int(found) if is_it else None

    @cached_property
    def _special_marks(self) -> frozenset[int]:
        """The ids of those marks that the tokenizer leaves out of a text."""
        ids = frozenset(map(self._id_of, self.how.reasoning_marks))
        return frozenset(one for one in ids if one in self._special)

    @cached_property
    def _closing(self) -> int | None:
        return self._id_of(self.how.reasoning_marks[1])

    @cached_property
    def _special(self) -> frozenset[int]:
        """The ids that the tokenizer leaves out of a text."""
        added = getattr(self._tokenizer, "added_tokens_decoder", {})
        ids = (number for number, token in added.items() if token.special)
        return frozenset([*self._tokenizer.all_special_ids, *ids])

    def _less_end(self, ids: Sequence[int]) -> Sequence[int]:
        """Without the special tokens at the end, which no engine gives as text."""
        n = len(ids)
        ends = self._special - self._special_marks
        while n and ids[n - 1] in ends:
            n -= 1
        return ids[:n]

    def _decoded(self, ids: Sequence[int], *, special: bool) -> str:
        text: str = self._tokenizer.decode(
            list(ids), skip_special_tokens=not special, clean_up_tokenization_spaces=False
        )
        return text

    def _first(self, ids: Sequence[int], at: int, *, special: bool) -> int:
        """How many of the ids make up the text's first `at` characters."""
        if not at or not ids:
            return 0
        # Where the closing mark is one token, few places come into question.
        ends = [n for n, one in enumerate(ids, 1) if one == self._closing]
        places: Sequence[int] = ends or range(len(ids))
        n = bisect_left(places, at, key=lambda n: len(self._decoded(ids[:n], special=special)))
        return places[n] if n < len(places) else len(ids)


MARKS_ALONE = Reader()
"""Of ordinary marks, without a tokenizer."""
