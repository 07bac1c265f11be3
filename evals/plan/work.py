"""What a queue of requests takes, in tokens: counted once, for whoever estimates its time, sets up
an engine for it, or tells how much of it is left.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from evals.generators.scoring import parts_of
from evals.models.prompts import Rendered
from evals.plan.prefix import cached_each
from evals.registry import BENCHMARKS, benchmark_class

BLOCK = 16
"""Tokens of a prefix cache's block in vLLM on a GPU."""


@dataclass(frozen=True, slots=True)
class Kind:
    """Requests of one benchmark, or of one judge's role: how many, and their tokens, see Work.
    texts: that they ask for.  longest: tokens that one of these may have.
    """

    n: int = 0
    prompt: int = 0
    new: float = 0.0
    texts: int = 0
    longest: int = 0

    def __add__(self, other: "Kind") -> "Kind":
        return Kind(
            self.n + other.n, self.prompt + other.prompt, self.new + other.new,
            self.texts + other.texts, max(self.longest, other.longest),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Work:
    """Tokens of a queue. prompt: to compute, without what the prefix cache holds.  new: to
    generate, about.  held: mean tokens of a sequence while it decodes; own: of them those that no
    other sequence shares.
    longest_scored: of the prompts whose every token is scored.  whole: of all prompts, whether a
    cache holds them or not.  most: to generate at most.  kinds: by the requests' kind.
    """

    prompt: float = 0.0
    new: float = 0.0
    held: float = 0.0
    own: float = 0.0
    longest_scored: int = 0
    whole: int = 0
    most: int = 0
    kinds: Mapping[str, Kind] = field(default_factory=dict)

    def __add__(self, other: "Work") -> "Work":
        new = self.new + other.new
        share = self.new / new if new else 0.0
        names = dict.fromkeys((*self.kinds, *other.kinds))
        return Work(
            self.prompt + other.prompt, new,
            share * self.held + (1 - share) * other.held,
            share * self.own + (1 - share) * other.own,
            max(self.longest_scored, other.longest_scored),
            self.whole + other.whole, self.most + other.most,
            {one: self.kinds.get(one, Kind()) + other.kinds.get(one, Kind()) for one in names},
        )  # fmt: skip

    @property
    def n(self) -> int:
        """Requests."""
        return sum(kind.n for kind in self.kinds.values())

    def share(self, copies: int) -> "Work":
        """One of the copies' among which it is dealt out."""
        return replace(self, prompt=self.prompt / copies, new=self.new / copies)


def work_of(requests: Iterable[Rendered]) -> Work:
    """What requests take of an engine that answers them in their order and keeps their prefixes;
    outputs as long as is typical.
    """
    asked = [(request, prompts_of(request)) for request in requests]
    cached = cached_each((prompt for _, prompts in asked for prompt in prompts), BLOCK)
    kinds: dict[str, Kind] = {}
    held = own = 0.0
    whole = most = scored = 0
    for request, prompts in asked:
        length, n = new_tokens_of(request), request.sampling.n
        prompt = 0
        for ids in prompts:
            computed = len(ids) - next(cached)
            prompt += computed
            # While a sequence writes, it holds its prompt and about half of what it will write; of
            # a prompt's samples each writes its own.
            held += length * n * (len(ids) + length / 2)
            own += length * (computed + n * length / 2)
            whole += len(ids)
        texts = n * len(prompts)
        found = Kind(1, prompt, length * texts, texts, request.max_new_tokens)
        kinds[request.kind] = kinds.get(request.kind, Kind()) + found
        most += request.max_new_tokens * texts
        scored = max(scored, _longest_scored(request))
    new = sum(kind.new for kind in kinds.values())
    prompt = sum(kind.prompt for kind in kinds.values())
    per = max(new, 1.0)
    return Work(prompt, new, held / per, own / per, scored, whole, most, kinds)


def _longest_scored(request: Rendered) -> int:
    return max(
        (
            len(context) + len(continuation)
            for context, continuations in request.scored
            for continuation in continuations
            if len(continuation) > 1  # one token is read at the next one's logits
        ),
        default=0,
    )


def typical_new_tokens(task: str, most: int) -> int:
    """About how many tokens an output of the benchmark has. most: its limit, which stands where
    nothing is known.
    """
    # A variant, "gsm8k.shots-4", answers as its benchmark does; so does each of its draws.
    name = re.split("[.@]", task)[0]
    return min(most, (benchmark_class(name).usual_tokens if name in BENCHMARKS else 0) or most)


def new_tokens_of(request: Rendered) -> int:
    """About how many tokens an output of the request has; a judge's has its limit."""
    return typical_new_tokens("" if request.check else request.kind, request.max_new_tokens)


def prompts_of(request: Rendered) -> list[tuple[int, ...]]:
    """The prompts by which an engine answers a request: one, of continuations to be scored several;
    each has as many new tokens as the request.
    """
    return [part.ids for part in parts_of(request)] if request.scored else [request.token_ids]
