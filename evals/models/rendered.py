"""A request as it goes to an engine."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from evals.errors import InputError
from evals.records import ItemId, Message, Sampling

_LEAST_ROOM = 1  # an answer of one token


@dataclass(frozen=True, slots=True)
class Rendered:
    """A request as it goes to an engine.

    text: what the tokenizer was given.  token_ids: empty where no tokenizer is at hand (a chat
    server renders by itself).
    sampling: what the protocol asks; max_new_tokens: the same, cut to the room left in the model's
    context.
    candidates: label -> token id of a Choose.  cut_id: token the output is cut before, see
    Generate.cut_token.
    is_capped: the context, and not the suite, leaves less room than asked.
    stop_token_ids: end the answer beside the engine's own end tokens.
    scored: of a Score, contexts, each with those of its continuations that stand behind one
    another.
    keeps_special: special tokens stay in the output's text.
    """

    item_id: ItemId
    check: str
    text: str
    token_ids: tuple[int, ...]
    messages: tuple[Message, ...]
    sampling: Sampling
    max_new_tokens: int
    candidates: tuple[tuple[str, int], ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    cut_id: int | None = None
    is_capped: bool = False
    stop_token_ids: tuple[int, ...] = ()
    scored: tuple[tuple[tuple[int, ...], tuple[tuple[int, ...], ...]], ...] = ()

    keeps_special: bool = False

    @property
    def kind(self) -> str:
        """Whose answers are alike in length: the judge's role, else the benchmark."""
        return self.check or self.item_id.partition("/")[0]

    def key(self, fingerprint: str) -> str:
        """The store key: a hash of what determines the answer, and of nothing else."""
        prompt: object = self.token_ids or [
            [message.role, message.content] for message in self.messages
        ]
        how = self.sampling
        sampling = [
            self.max_new_tokens,
            how.temperature,
            how.top_p,
            how.n,
            how.stop,
            how.seed,
            how.n_logprobs,
        ]
        determined_by = [fingerprint, prompt, sampling, self.candidates or self.labels, self.cut_id]
        # Only where there are any: the keys of all other requests stay what they were.
        determined_by += [self.stop_token_ids] if self.stop_token_ids else []
        determined_by += [["scored", self.scored]] if self.scored else []
        determined_by += ["special tokens"] if self.keeps_special else []
        return hashlib.sha256(json.dumps(determined_by).encode()).hexdigest()


def check_room(rendered: Sequence[Rendered], max_len: int | None) -> None:
    """Raise InputError naming the first prompt that leaves no room for an answer, and how many
    there are.
    """
    too_long = [
        r for r in rendered if max_len is not None and len(r.token_ids) + _LEAST_ROOM > max_len
    ]
    if too_long:
        worst = max(len(r.token_ids) for r in too_long)
        raise InputError(
            f"{too_long[0].item_id}: the prompt is {len(too_long[0].token_ids):,} tokens, the model"
            f" takes {max_len:,} ({len(too_long)} such prompts, the longest {worst:,}). Use a"
            " larger --max-model-len if the weights allow it."
        )
