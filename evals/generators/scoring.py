"""Continuations scored by an engine: which requests it takes, and their answers read.

Several continuations of one token are one request for the log-probabilities of those tokens. A
longer one is a prompt of context and continuation whose log-probabilities come with it, the context
out of the prefix cache. vLLM keeps such prompts from the cache by itself, for what is cached has no
log-probabilities; here none of the context's are wanted. Where the cache holds a part of the
continuation too, it is asked once more without it.

Forced decoding (a token a step; vLLM's second model runner has it as trace_decode_token_ids, the
first would need a logits processor) would compute the same tokens, read the whole context's cache
once for each of them, and differ by rounding: 6e-5 where a prompt's are equal. What a prompt cost
beside it, log-probabilities of tokens that nobody asks for, is not computed any more (scored_rows).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evals.models.rendered import Rendered
from evals.records import Scored

_MOST_CANDIDATES = 100
"""Tokens whose log-probabilities are asked at once; vLLM takes 128."""


@dataclass(frozen=True, slots=True)
class Part:
    """One prompt of those that score a request.

    n_scored: its last tokens, whose log-probabilities are wanted.  candidates: next tokens whose
    are.
    """

    ids: tuple[int, ...]
    n_scored: int = 0
    candidates: tuple[int, ...] = ()

    def is_whole(self, n_cached: int) -> bool:
        """Whether none of the scored tokens lay in the prefix cache. The first of them is read at
        the last token of the context, which is therefore to be computed too.
        """
        return not self.n_scored or n_cached < len(self.ids) - self.n_scored


def parts_of(request: Rendered) -> list[Part]:
    """The prompts that score a request."""
    parts = []
    for context, continuations in request.scored:
        single = list(dict.fromkeys(one[0] for one in continuations if len(one) == 1))
        parts += [
            Part(context, candidates=tuple(single[at : at + _MOST_CANDIDATES]))
            for at in range(0, len(single), _MOST_CANDIDATES)
        ]
        longer = dict.fromkeys(one for one in continuations if len(one) > 1)
        parts += [Part(context + one, n_scored=len(one)) for one in longer]
    return parts


Found = Mapping[tuple[tuple[int, ...], tuple[int, ...]], Scored]
"""What a part says: by context and continuation."""


def of_candidates(part: Part, logprobs: Mapping[int, float], sampled: int) -> Found:
    """logprobs: of the candidates and of the likeliest token, which the engine sampled."""
    best = logprobs[sampled]
    # Of equally likely tokens lm-evaluation-harness takes the one it asked for.
    return {
        (part.ids, (token,)): Scored(logprobs[token], logprobs[token] >= best, 1)
        for token in part.candidates
    }


def of_prompt(part: Part, rows: Sequence[Mapping[int, float]]) -> Found:
    """rows: by scored token, the log-probabilities of it and of the likeliest one."""
    context, own = part.ids[: -part.n_scored], part.ids[-part.n_scored :]
    pairs = list(zip(own, rows, strict=True))
    total = sum(row[token] for token, row in pairs)
    is_greedy = all(row[token] >= max(row.values()) for token, row in pairs)
    return {(context, own): Scored(total, is_greedy, len(own))}


def in_order(request: Rendered, found: Found) -> tuple[Scored, ...]:
    """Every continuation's score, as they were asked. One without a token is certain."""
    certain = Scored(0.0, True, 0)
    return tuple(
        found[context, one] if one else certain
        for context, continuations in request.scored
        for one in continuations
    )


def vllm_rows(part: Part, prompt_logprobs: Any) -> list[dict[int, float]]:
    """The last rows of vLLM's log-probabilities of a prompt. Of a cached beginning one model runner
    leaves rows out, the other leaves them as the memory was.
    """
    first = len(prompt_logprobs) - part.n_scored
    return [
        {token: entry.logprob for token, entry in prompt_logprobs[first + at].items()}
        for at in range(part.n_scored)
    ]
