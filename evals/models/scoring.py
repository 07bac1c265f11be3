"""Texts as lm-evaluation-harness's vLLM backend gives them to a model: where a context ends and its
continuation begins, who puts the begin-of-sequence token, what is cut off, how a long text is
walked through.

Source: lm_eval 0.4.13, TemplateLM._encode_pair and loglikelihood, VLLM.tok_encode,
_loglikelihood_tokens and loglikelihood_rolling, get_rolling_token_windows.
"""

from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

from evals.errors import InputError
from evals.models.rendered import Rendered
from evals.records import ItemId, Sampling, Score
from evals.storage.files import json_line

Ids = tuple[int, ...]
Pair = tuple[Ids, Ids]
"""A context's tokens, and its continuation's."""


class Scorer:
    """One tokenizer and the length of its model (None: not known, nothing is cut).

    n_added: token ids that the tokenizer puts after a text, and that are left out.
    """

    def __init__(self, tokenizer: Any, max_len: int | None, n_added: int = 0) -> None:
        self.tokenizer = tokenizer
        self.max_len = max_len
        self._n_added = n_added
        own = tokenizer.bos_token_id
        # What stands before a text that has no context.
        self.prefix_id = tokenizer.eos_token_id if own is None else own
        self._prefix = None if self.prefix_id is None else tokenizer.decode(self.prefix_id)
        self._interned: dict[int, int] = {}

    def encode(self, texts: Sequence[str], *, specials: bool = True) -> list[Ids]:
        """Each text's tokens; one that begins with the prefix gets no special ones. An empty text
        has none at all.
        """
        ids: list[Ids] = [()] * len(texts)
        for added in (True, False):
            places = [
                at for at, text in enumerate(texts) if text and self._adds(text, specials) is added
            ]
            if not places:
                continue
            found = self.tokenizer(
                [texts[at] for at in places],
                add_special_tokens=added,
                return_attention_mask=False,
            )["input_ids"]
            end = -self._n_added if self._n_added and added else None
            for at, one in zip(places, found, strict=True):
                # Each id comes as an object of its own, of 28 bytes; equal ones become one.
                ids[at] = tuple(map(self._interned.setdefault, one[:end], one[:end]))
        return ids

    def _adds(self, text: str, specials: bool) -> bool:
        return specials and not (self._prefix is not None and text.startswith(self._prefix))

    def pairs(self, asked: Sequence[tuple[str, str]]) -> list[Pair]:
        """Contexts with their continuations as tokens. The continuation's are those of the whole
        text behind as many as the context alone has, so that a word that both share is split as the
        model reads it.

        Raises InputError where nothing stands before the first token to be scored.
        """
        moved = [_moved(context, continuation) for context, continuation in asked]
        alone = list(dict.fromkeys(context for context, _ in moved if context))
        contexts = dict(zip(alone, self.encode(alone), strict=True))
        wholes = self.encode([context + rest for context, rest in moved if context])
        bare = self.encode([rest for context, rest in moved if not context], specials=False)
        rest_of_whole, rest_of_bare = iter(wholes), iter(bare)
        found = []
        for (context, _), (given, _) in zip(moved, asked, strict=True):
            if context:
                ids = contexts[context]
                found.append((ids, next(rest_of_whole)[len(ids) :]))
            elif given:
                raise InputError(
                    "a context is white space alone, after which nothing can be scored"
                )
            else:
                found.append(self._unconditional(next(rest_of_bare)))
        return found

    def _unconditional(self, ids: Ids) -> Pair:
        if not ids or self.prefix_id is None:
            raise InputError("a continuation without a context has no token to be scored")
        return (ids[:1], ids[1:]) if ids[0] == self.prefix_id else ((self.prefix_id,), ids)

    def windows(self, text: str) -> list[Pair]:
        """A whole text in windows as long as the model takes, each token scored once: the first
        window's after the prefix, the others' after as much of what is before as has room.
        """
        (ids,) = self.encode([text])
        if self.prefix_id is None:
            raise InputError("the tokenizer has no token to stand before a text without a context")
        # One less for the context, one for the token that the engine must generate.
        most = len(ids) if self.max_len is None else self.max_len - 2
        found: list[Pair] = [((self.prefix_id,), ids[:most])]
        for at in range(most, len(ids), most):
            end = min(at + most, len(ids))
            found.append((ids[end - most - 1 : at], ids[at:end]))
        return found

    def fitted(self, pair: Pair) -> Pair:
        """The pair without what is too much at its beginning, one token left to be generated.
        Raises InputError where the continuation alone is too long.
        """
        context, continuation = pair
        if self.max_len is None:
            return pair
        room = self.max_len - 1 - len(continuation)
        if room < 1:
            raise InputError(
                f"a continuation of {len(continuation):,} tokens does not fit the model's"
                f" {self.max_len:,}"
            )
        return context[-room:], continuation

    def stops(self, given: Sequence[str]) -> tuple[str, ...]:
        """A task's stop strings, and the text of the token that ends one."""
        end = self.tokenizer.eos_token_id
        text = "" if end is None else self.tokenizer.decode(end) or self.tokenizer.eos_token
        return (*given, text) if text and text not in given else tuple(given)

    def cut(self, ids: Ids, max_new: int) -> Ids:
        """A prompt without what is too much at its beginning for max_new tokens behind it."""
        if self.max_len is None or len(ids) + max_new <= self.max_len:
            return ids
        return ids[-max(1, self.max_len - max_new) :]


def _moved(context: str, continuation: str) -> tuple[str, str]:
    """White space at the end of a context belongs to the continuation's first word."""
    bare = context.rstrip()
    return bare, context[len(bare) :] + continuation


def grouped(pairs: Iterable[Pair]) -> tuple[tuple[Ids, tuple[Ids, ...]], ...]:
    """Equal contexts that stand behind one another as one, with their continuations."""
    return tuple(
        (context, tuple(continuation for _, continuation in group))
        for context, group in groupby(pairs, key=itemgetter(0))
    )


def pairs_of(groups: Iterable[tuple[Ids, tuple[Ids, ...]]]) -> list[Pair]:
    """What `grouped` put together."""
    return [(context, one) for context, own in groups for one in own]


def scored_text(request: Score, contexts: Sequence[str]) -> str:
    """What is scored, for a reader: each context with its continuations, a line each."""
    parts = []
    for at, text in enumerate(contexts):
        own = [rest for place, rest in request.continuations if place == at]
        parts += [text, *(f"── scored: {json_line(one)}" for one in own)]
    return "\n".join(parts)


def rendered_score(
    item_id: ItemId,
    check: str,
    request: Score,
    text: str,
    contexts: Sequence[str],
    scorer: Scorer | None,
) -> Rendered:
    """A Score as it goes to an engine. contexts: as texts.  scorer: None for a recording, which has
    no tokens. Raises InputError naming an item that cannot be scored.
    """
    pairs: list[Pair] = []
    fitted: list[Pair] = []
    if scorer:
        try:
            pairs = (
                [pair for _, rest in request.continuations for pair in scorer.windows(rest)]
                if request.rolling
                else scorer.pairs([(contexts[at], rest) for at, rest in request.continuations])
            )
            fitted = [scorer.fitted(pair) for pair in pairs]
        except InputError as error:
            raise InputError(f"{item_id}: {error}.") from None
    return Rendered(
        item_id,
        check,
        text,
        fitted[0][0] if fitted else (),
        request.messages,
        Sampling(max_tokens=1),
        1,
        is_capped=fitted != pairs,
        scored=grouped(fitted),
    )
