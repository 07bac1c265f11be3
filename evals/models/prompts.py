"""Chat formats and token ids: requests -> the exact ids a model is given. The only place that
tokenizes a prompt.

Ids are tokenizer(rendered text) with special tokens on, as the original harness did: a literal
<|begin_of_text|> in a template plus the tokenizer's own gives Llama Instruct rows two, and that is
part of the protocol.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from evals.errors import InputError
from evals.models.prompting import (
    AS_IT_IS,
    PromptSettings,
    n_added_after,
    reads_clock,
    stopped_clock,
    template_arguments,
    template_of,
)
from evals.models.reasoning import AS_IT_COMES, ReasoningSettings, can_reason, opens_block
from evals.models.rendered import Rendered as Rendered
from evals.models.rendered import check_room as check_room
from evals.models.scoring import Scorer, rendered_score, scored_text
from evals.models.weights import broken_json
from evals.records import (
    Choose,
    Completion,
    Generate,
    ItemId,
    Message,
    Output,
    Request,
    Sampling,
    Score,
)

ChatFormat = Literal["tulu", "tokenizer", "none"]
BEGIN_OF_TEXT = "<|begin_of_text|>"
_RENDERED_AT_ONCE = 500
"""Until a tokenizer has done all it was given it keeps some 100 bytes of each token (measured on
SmolLM2's, beside the ids).
"""


def tulu_text(messages: Sequence[Message]) -> str:
    """Messages in the Tulu 2 format, ready for the assistant's turn; contents are not stripped."""
    turns = "".join(f"<|{message.role}|>\n{message.content}\n" for message in messages)
    return turns + "<|assistant|>\n"


def glue(rendered: str, opening: str) -> str:
    """The rendered prompt with the text the assistant's turn starts with; one space between unless
    white space is there.
    """
    if not opening:
        return rendered
    separator = "" if rendered.endswith(("\n", " ")) else " "
    return rendered + separator + opening


def load_tokenizer(path: str, *, trust_remote_code: bool = False) -> Any:
    """The tokenizer of a local folder. Raises InputError when there is none to read."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code)
    # tokenizers raises Exception itself, and a model's own code may raise anything.
    except Exception as error:
        text = " ".join(str(error).split()) or type(error).__name__
        # Whole sentences, and of a long one whole words.
        cut = text[:300].rpartition(". ")[0] or f"{text[:300].rpartition(' ')[0]} …"
        reason = (text if len(text) <= 300 else cut).rstrip(".") + "."
        way_out = "Put the tokenizer's files beside the weights."
        # It reads all of them, and does not say which it is about.
        if broken := broken_json(Path(path)):
            reason, way_out = f"{broken} is no JSON.", "Copy that file again."
        elif any((Path(path) / name).is_file() for name in ("tokenizer.json", "tokenizer.model")):
            way_out = "Mend the file of the folder that this is about, or copy it again."
        raise InputError(f"No tokenizer could be read from {path}: {reason} {way_out}") from error
    return tokenizer


def resolve_chat_format(asked: str, tokenizer: Any, row_format: str | None) -> ChatFormat:
    """What `auto` means: the card row's format, else the tokenizer's template if it has one, else
    none.
    """
    known: dict[str, ChatFormat] = {"tulu": "tulu", "tokenizer": "tokenizer", "none": "none"}
    if asked == "auto":
        if row_format in known:
            return known[row_format]
        return "tokenizer" if getattr(tokenizer, "chat_template", None) else "none"
    if asked not in known:
        raise InputError(f"Unknown chat format {asked!r}. Known: auto, tulu, tokenizer, none.")
    if (
        asked == "tokenizer"
        and tokenizer is not None
        and not getattr(tokenizer, "chat_template", None)
    ):
        raise InputError(
            "--chat-format tokenizer was asked for, but this tokenizer has no chat template. Use"
            " tulu or none."
        )
    return known[asked]


class Renderer:
    """Turns requests into token ids under one chat format.

    tokenizer: a Hugging Face tokenizer, or None for a chat server that renders by itself.
    max_len: the model's context in tokens (None: unknown, nothing is capped).  seed: names the draw
    of sampled requests.
    max_new: the suite's own limit on new tokens, where it has one.
    how: what the user asked for beside the chat format.  reasoning: what room it has.  clock: what
    a template is told that asks the time.  advice: what to do where the template cannot render a
    prompt.
    """

    def __init__(
        self,
        tokenizer: Any,
        chat_format: ChatFormat,
        max_len: int | None,
        seed: int = 0,
        max_new: int | None = None,
        *,
        how: PromptSettings = AS_IT_IS,
        reasoning: ReasoningSettings = AS_IT_COMES,
        clock: datetime | None = None,
        advice: str = "Use --chat-format tulu or none.",
    ) -> None:
        self.seed = seed
        self.reasoning = reasoning
        self.how = how
        self.advice = advice
        template = template_of(tokenizer, how) if chat_format == "tokenizer" else ""
        self.reads_clock = reads_clock(template)
        self._n_left_out = n_added_after(tokenizer) if how.leave_out_added and tokenizer else 0
        self._arguments = template_arguments(how.chat_template_kwargs)
        if how.chat_template is not None:
            self._arguments["chat_template"] = how.chat_template
        if self.reads_clock and clock is not None:
            self._arguments |= stopped_clock(clock)
        self.max_new = max_new
        self.tokenizer = tokenizer
        self.chat_format = chat_format
        self.max_len = max_len
        self._last_ids: dict[str, int] = {}
        self._interned: dict[int, int] = {}

    def text_of(
        self, request: Request, messages: tuple[Message, ...] | None = None, *, opens: bool = True
    ) -> str:
        """The text handed to the tokenizer. opens: ask the template for the assistant's opening."""
        if isinstance(request, Score):
            return scored_text(request, self._context_texts(request))
        messages = self._conversation(request, messages or request.messages)
        if request.raw or self.chat_format == "none" or self.tokenizer is None:
            return glue("\n\n".join(message.content for message in messages), request.opening)
        if self.chat_format == "tulu":
            return glue(tulu_text(messages), request.opening)
        chat = [asdict(message) for message in messages]
        arguments = self._arguments | {"add_generation_prompt": opens}
        if isinstance(request, Generate) and request.by_harness:
            # A variable that it always sets, to nothing: some templates ask whether it is there.
            arguments = {"enable_thinking": None} | arguments
        if _goes_on(request, messages):
            arguments |= {"add_generation_prompt": False, "continue_final_message": True}
        try:
            rendered: str = self.tokenizer.apply_chat_template(chat, tokenize=False, **arguments)
        # A template is its maker's program, and may raise anything.
        except Exception as error:
            raise InputError(
                f"The tokenizer's chat template cannot render this prompt: {error}. {self.advice}"
            ) from error
        return glue(rendered, request.opening)

    def _context_texts(self, request: Score) -> list[str]:
        """The contexts as texts."""
        asked = (
            Generate(messages, Sampling(1), raw=request.raw, by_harness=True)
            for messages in request.contexts
        )
        return [self.text_of(one) if one.messages else "" for one in asked]

    def _conversation(self, request: Request, messages: tuple[Message, ...]) -> tuple[Message, ...]:
        """The messages with the user's system prompt before them, in place of one of theirs."""
        if self.how.system_prompt is None or request.raw:
            return messages
        others = messages[messages[0].role == "system" :]
        return (Message("system", self.how.system_prompt), *others)

    def render(self, asked: Iterable[tuple[ItemId, str, Request]]) -> list[Rendered]:
        """Token ids for many requests, given as (item id, check name, request); order is kept. A
        part of them at a time is in memory.

        A Choose over its max_prompt_tokens gives up shots one by one until it fits.
        """
        rendered: list[Rendered] = []
        waiting = iter(asked)
        while part := list(islice(waiting, _RENDERED_AT_ONCE)):
            texts = [self.text_of(request) for _, _, request in part]
            for (item_id, check, request), text, token_ids in zip(
                part, texts, self._ids(part, texts), strict=True
            ):
                if isinstance(request, Score):
                    contexts = self._context_texts(request) if self.tokenizer else []
                    scorer = self.scorer if self.tokenizer else None
                    rendered.append(rendered_score(item_id, check, request, text, contexts, scorer))
                    continue
                if isinstance(request, Choose):
                    text, token_ids = self._shortened(request, text, token_ids)
                rendered.append(self._finish(item_id, check, request, text, token_ids))
        return rendered

    def _ids(
        self, part: Sequence[tuple[ItemId, str, Request]], texts: Sequence[str]
    ) -> list[tuple[int, ...]]:
        """Each request's text as the ids of its own rule; none of what is scored."""
        how = [_rule(request) if self.tokenizer else "none" for _, _, request in part]
        found: list[tuple[int, ...]] = [()] * len(texts)
        for rule in set(how) - {"none", "scored"}:
            places = [at for at, one in enumerate(how) if one == rule]
            some = [texts[at] for at in places]
            ids = self._encode(some) if rule == "usual" else self.scorer.encode(some)
            for at, own in zip(places, ids, strict=True):
                found[at] = own
        return found

    @cached_property
    def scorer(self) -> Scorer:
        """Tokenizes as lm-evaluation-harness does."""
        return Scorer(self.tokenizer, self.max_len, self._n_left_out)

    def _shortened(
        self, request: Choose, text: str, token_ids: tuple[int, ...]
    ) -> tuple[str, tuple[int, ...]]:
        # The published limit counts without special tokens.
        shorter = iter(request.shorter)
        while (
            request.max_prompt_tokens
            and token_ids
            and len(token_ids) - self._n_special_tokens > request.max_prompt_tokens
        ):
            messages = next(shorter, None)
            if messages is None:
                break
            text = self.text_of(request, messages)
            (token_ids,) = self._encode([text])
        return text, token_ids

    def _finish(
        self,
        item_id: ItemId,
        check: str,
        request: Generate | Choose,
        text: str,
        token_ids: tuple[int, ...],
    ) -> Rendered:
        messages = self._conversation(request, request.messages)
        if isinstance(request, Choose):
            candidates = (
                tuple((label, self._last_id(candidate)) for label, candidate in request.candidates)
                if self.tokenizer
                else ()
            )
            one_token = Sampling(max_tokens=1)
            return Rendered(
                item_id,
                check,
                text,
                token_ids,
                messages,
                one_token,
                1,
                candidates,
                request.candidates,
            )
        sampling = (
            replace(request.sampling, seed=self.seed + (request.sampling.seed or 0))
            if request.sampling.temperature > 0
            else request.sampling
        )
        if request.by_harness and self.tokenizer:
            sampling = replace(sampling, stop=self.scorer.stops(sampling.stop))
        sampling = replace(sampling, stop=(*sampling.stop, *self.how.stop))
        allowed, cut_id = self.limit(request), self.cut_id(request)
        is_cut = False
        if request.by_harness and self.tokenizer:
            kept = self.scorer.cut(token_ids, allowed)
            is_cut, token_ids = kept != token_ids, kept
        if can_reason(request) and (self.reasoning.reasoning_tokens or self.opens_reasoning):
            # Reasoning may hold what ends an answer: the answer is cut there once it is told apart.
            sampling, cut_id = replace(sampling, stop=()), None
            allowed += self.reasoning.reasoning_tokens
        room = allowed if self.max_len is None else min(allowed, self.max_len - len(token_ids))
        return Rendered(
            item_id,
            check,
            text,
            token_ids,
            messages,
            sampling,
            room,
            cut_id=cut_id,
            is_capped=is_cut or room < allowed,
            stop_token_ids=self.how.stop_token_ids,
            keeps_special=request.by_harness,
        )

    def limit(self, request: Generate) -> int:
        """New tokens of an answer at most: the protocol's, or the suite's own."""
        wanted = request.sampling.max_tokens
        return min(wanted, self.max_new or wanted)

    def cut_id(self, request: Generate) -> int | None:
        """The id of the token that the request cuts its outputs before; None where there is no
        such token.
        """
        return self._single_id(request.cut_token) if request.cut_token and self.tokenizer else None

    @cached_property
    def opens_reasoning(self) -> bool:
        """Whether the chat template leaves a block of reasoning open where an answer begins."""
        if self.tokenizer is None or self.chat_format != "tokenizer":
            return False
        asked = "Is it so?"
        try:
            text = self.text_of(Generate((Message("user", asked),), Sampling(max_tokens=1)))
        except InputError:
            return False  # told elsewhere, where it matters
        return opens_block(text.rpartition(asked)[2], self.reasoning.reasoning_marks)

    @property
    def _n_special_tokens(self) -> int:
        return int(self.tokenizer.num_special_tokens_to_add()) - self._n_left_out

    def _encode(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        if self.tokenizer is None:
            return [() for _ in texts]
        if not texts:
            return []
        encoded = self.tokenizer(list(texts), add_special_tokens=True, return_attention_mask=False)[
            "input_ids"
        ]
        if self._n_left_out:
            encoded = [ids[: -self._n_left_out] for ids in encoded]
        # Each id comes as an object of its own, of 28 bytes; equal ones become one.
        return [tuple(map(self._interned.setdefault, ids, ids)) for ids in encoded]

    def _last_id(self, text: str) -> int:
        if text not in self._last_ids:
            self._last_ids[text] = self.tokenizer(text, add_special_tokens=False)["input_ids"][-1]
        return self._last_ids[text]

    def _single_id(self, text: str) -> int | None:
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids[0] if len(ids) == 1 else None

    def n_bos(self, token_ids: Sequence[int]) -> int:
        """How many begin-of-sequence ids a prompt starts with."""
        bos = getattr(self.tokenizer, "bos_token_id", None)
        count = 0
        while bos is not None and count < len(token_ids) and token_ids[count] == bos:
            count += 1
        return count

    def bos_habit(self) -> int:
        """How many begin-of-sequence ids any prompt in this chat format starts with; HumanEval's
        raw ones may have fewer.
        """
        probe = Generate((Message("user", "?"),), Sampling(max_tokens=1))
        return self.n_bos(self.render([(ItemId(""), "", probe)])[0].token_ids)

    def cut(self, rendered: Rendered, answer: Completion) -> Completion:
        """The answer cut before the first stand-alone token the request names; unchanged where
        there is none.
        """
        if rendered.cut_id is None:
            return answer
        return replace(
            answer,
            outputs=tuple(self._cut_output(output, rendered.cut_id) for output in answer.outputs),
        )

    def _cut_output(self, output: Output, cut_id: int) -> Output:
        if cut_id not in output.token_ids:
            return output
        kept = output.token_ids[: output.token_ids.index(cut_id)]
        # The original harness decodes without special tokens, too.
        return Output(self.tokenizer.decode(kept, skip_special_tokens=True), "stop", kept)


def _rule(request: Request) -> str:
    """By which rule a request's text becomes token ids."""
    if isinstance(request, Score):
        return "scored"
    return "harness" if isinstance(request, Generate) and request.by_harness else "usual"


def _goes_on(request: Request, messages: Sequence[Message]) -> bool:
    """Whether the assistant's turn has begun in the messages."""
    by_harness = isinstance(request, Generate) and request.by_harness
    return by_harness and messages[-1].role == "assistant"
