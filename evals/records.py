"""The nouns of the program: frozen values that travel between its rooms.

Scores, probabilities and rates are fractions in [0, 1]; only `table.py` prints percent.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NewType, cast, get_args

ItemId = NewType("ItemId", str)
Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]

FinishReason = Literal[
    "stop", "length", "filtered", "refused", "tool_call", "error", "no_text", "reasoning", "other"
]
NO_ANSWER: frozenset[FinishReason] = frozenset(
    {"filtered", "refused", "tool_call", "error", "no_text", "reasoning"}
)
"""Ends of an output that is no answer of the model, whatever text stands there. An end of another
name ("other") says nothing against the text before it.
"""
_ENDS: Mapping[str, FinishReason] = {
    # OpenAI's own words, then those of servers that speak its language, and of vLLM.
    "stop": "stop",
    "length": "length",
    "content_filter": "filtered",
    "tool_calls": "tool_call",
    "function_call": "tool_call",
    "eos": "stop",
    "eos_token": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_length": "length",
    "safety": "filtered",
    "refusal": "refused",
    "tool_use": "tool_call",
    "abort": "error",
}
OutcomeStatus = Literal[
    "passed", "wrong_answer", "exception", "syntax_error", "time", "memory", "forbidden", "exited"
]


def finish_reason(word: object, max_tokens: int | None = None) -> FinishReason:
    """What an engine's or a server's word for the end of an output means; "other" where it is of no
    known name, or not told.

    max_tokens: what the protocol asks for, as far as it is known: the one token it asks for is a
    whole answer, and not cut off.
    """
    name = str(word).lower()
    known = name in get_args(FinishReason)
    end = cast(FinishReason, name) if known else _ENDS.get(name, "other")
    return "stop" if end == "length" and max_tokens == 1 else end


@dataclass(frozen=True)
class Item:
    """One question of one benchmark; each benchmark's module subclasses it, at its top level, with
    the fields it needs.

    id: stable public id, e.g. "gsm8k/17".  group: the subject, task or type the item belongs to,
    the fixed stratum of the estimators ("" where a benchmark has none).
    """

    id: ItemId
    group: str


@dataclass(frozen=True, slots=True)
class Message:
    """One chat message."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to sample: temperature 0 is greedy; max_tokens counts new tokens; stop strings are cut
    from the output.

    seed names one draw of a sampled request, counted from the run's own; it stays None for greedy
    ones, which have only one draw.
    """

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    n: int = 1
    stop: tuple[str, ...] = ()
    seed: int | None = None
    n_logprobs: int = 0


@dataclass(frozen=True, slots=True)
class Generate:
    """Ask for text. `opening` is the text the assistant's turn starts with.

    raw: hand the messages' text to the model as it is, whatever the chat format (HumanEval, the
    TruthfulQA judges).
    cut_token: the engine cuts the finished output before the first token id that alone encodes this
    text; no cut where the tokenizer has no such token (base TruthfulQA).
    by_harness: as lm-evaluation-harness hands a text to vLLM. A text that begins with the
    begin-of-sequence token gets no second one; a last turn of the assistant's is gone on with; a
    prompt that leaves less than max_tokens of the context loses its beginning.
    """

    messages: tuple[Message, ...]
    sampling: Sampling
    opening: str = ""
    raw: bool = False
    cut_token: str | None = None
    by_harness: bool = False


@dataclass(frozen=True, slots=True)
class Choose:
    """Ask for the log-probabilities of a few candidate next tokens.

    candidates: label -> text whose last token id stands for the label, e.g. {"A": " A"}.
    shorter: the same question with fewer shots, tried in order while the rendered prompt exceeds
    max_prompt_tokens (counted without special tokens).
    """

    messages: tuple[Message, ...]
    candidates: tuple[tuple[str, str], ...]
    opening: str = ""
    raw: bool = False
    shorter: tuple[tuple[Message, ...], ...] = ()
    max_prompt_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Score:
    """Ask for the log-likelihoods of given continuations, token for token as lm-evaluation-harness
    splits them.

    contexts: each one raw text, or a chat whose last turn may be the assistant's.  continuations:
    the place of a context, and the text scored after it.
    raw: hand the contexts to the model as they are, whatever the chat format.
    rolling: the continuations are whole texts without a context, scored in windows of the model's
    own length.
    """

    contexts: tuple[tuple[Message, ...], ...]
    continuations: tuple[tuple[int, str], ...]
    raw: bool = True
    rolling: bool = False

    @property
    def messages(self) -> tuple[Message, ...]:
        """Those of the first context; an empty one where it has none."""
        return self.contexts[0] or (Message("user", ""),)

    @property
    def opening(self) -> str:
        """None: what the assistant's turn starts with is in the context."""
        return ""


Request = Generate | Choose | Score


@dataclass(frozen=True, slots=True)
class Program:
    """A Python program for the sandbox. It passes only if it runs to its last line; wall_s,
    memory_mb are its limits.

    source: what a model wrote, never trusted.  checks: trusted code that runs after it, in a
    process of its own, and calls its functions with plain values; with checks, "passed" cannot be
    forged.
    """

    source: str
    checks: str = ""
    wall_s: float = 3.0
    memory_mb: int = 1024


@dataclass(frozen=True, slots=True)
class Output:
    """One generated text, its token ids and why it ended.

    reasoning: what was told from the text, by a server or by us; None where nothing was.
    n_reasoning: its tokens, marks included, where they can be counted.
    """

    text: str
    finish_reason: FinishReason = "stop"
    token_ids: tuple[int, ...] = ()
    reasoning: str | None = None
    n_reasoning: int | None = None

    @property
    def is_answer(self) -> bool:
        """False where a filter, a refusal, a tool call or an error took the answer's place, or it
        ended inside its reasoning.
        """
        return self.finish_reason not in NO_ANSWER


@dataclass(frozen=True, slots=True)
class Scored:
    """A continuation's log-likelihood: the sum over its tokens of their log-probabilities, whether
    each was the likeliest of the vocabulary, and how many there are.
    """

    logprob: float
    is_greedy: bool
    n_tokens: int


@dataclass(frozen=True, slots=True)
class Completion:
    """What a model answered to one request.

    outputs: n texts (none for a Choose or a Score).
    choice_logprobs: label -> log-probability over the whole vocabulary; empty where a server showed
    none of the labels.
    top_logprobs: token text -> log-probability of the first new token, where a request asked for
    them.
    n_prompt_tokens, n_cached_tokens: prompt length and how much of it the prefix cache held.
    unasked: parameters of the sampling that the server refused, so that its own values decided.
    scores: of a Score, one a continuation (rolling: one a window), in order.
    """

    outputs: tuple[Output, ...] = ()
    choice_logprobs: Mapping[str, float] | None = None
    top_logprobs: Mapping[str, float] | None = None
    n_prompt_tokens: int = 0
    n_cached_tokens: int = 0
    unasked: tuple[str, ...] = ()
    scores: tuple[Scored, ...] | None = None

    @property
    def text(self) -> str:
        """The first output's text ("" when there is none)."""
        return self.outputs[0].text if self.outputs else ""

    @property
    def is_answer(self) -> bool:
        """False where one of the outputs is no answer."""
        return all(output.is_answer for output in self.outputs)

    @property
    def has_no_choice(self) -> bool:
        """True where a server was to choose and showed none of the labels."""
        return self.choice_logprobs is not None and not self.choice_logprobs

    @property
    def n_output_tokens(self) -> int:
        """New tokens over all outputs."""
        return sum(len(output.token_ids) for output in self.outputs)


@dataclass(frozen=True, slots=True)
class Check:
    """Something the world must decide about one answer: a judge's request or a program.

    name: the judge's role ("xstest", "truth") or "sample/3" for a program; unique within an item.
    """

    name: str
    ask: Request | Program


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a program ended, and the last line of its error."""

    status: OutcomeStatus
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check brought back. Exactly one of text/probability/preference/outcome decides; `by`
    says who.

    text: a judge's words.  probability: of the judge's positive candidate (" yes").
    preference: a pairwise judge's preference for the model, 1 (reference) to 2 (model).
    top_logprobs: beside text, token text -> log-probability of the judge's first token, where the
    check asked for them.
    ended: how the judge's answer ended, where it is none; such a verdict cannot be read.
    reasoning: what the judge wrote before its verdict, and is read past.
    """

    by: str
    text: str | None = None
    probability: float | None = None
    preference: float | None = None
    outcome: Outcome | None = None
    top_logprobs: Mapping[str, float] | None = None
    ended: FinishReason | None = None
    reasoning: str | None = None


Findings = Mapping[str, Finding]


@dataclass(frozen=True)
class Grade:
    """One item's score with its evidence.

    scores: cell key or metric name -> score in [0, 1]; a name that could not be scored is left out,
    with the reason in `missing`.  extracted: the answer as the scorer read it.  unparsed: no answer
    of the expected form.
    details: further evidence, JSON-ready.
    """

    id: ItemId
    group: str
    scores: Mapping[str, float]
    extracted: Json = None
    unparsed: bool = False
    missing: str | None = None
    details: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Metric:
    """An aggregate with its uncertainty.

    value: a fraction, or None with the `reason`.  n: items scored; n_items: items there are.
    stderr: one standard error; ci95: 95 % interval.  estimator: how the interval was made.
    """

    value: float | None
    n: int
    n_items: int
    stderr: float | None = None
    ci95: tuple[float, float] | None = None
    estimator: str = ""
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Measure:
    """Something a benchmark measures: its name in `summarize`, what it is in plain words, and what
    the hub calls such a metric.

    is_share: it lies from 0 to 1; no perplexity does.
    """

    name: str
    words: str
    hub: str = "score"
    lower_is_better: bool = False
    is_share: bool = True


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a card: its key in summary.json, its heading, what fills it and how it is
    printed.

    benchmark: "" where nobody here can measure it; `reason` says why.  metric: the benchmark's
    ("": named as the key).  settings: of the benchmark's, those that are not its own.
    unit: "percent", "fraction", or "own" of what is no share, as a perplexity.  inferred: what of
    this is not known for certain; marks a run's cells.
    """

    key: str
    heading: str
    lower_is_better: bool = False
    benchmark: str = ""
    metric: str = ""
    settings: Mapping[str, Json] = field(default_factory=dict, hash=False)
    unit: str = "percent"
    decimals: int = 1
    reason: str = ""
    inferred: str = ""

    @property
    def is_share(self) -> bool:
        """Whether its numbers lie from 0 to 1, so that they have percents and points."""
        return self.unit != "own"

    @property
    def identity(self) -> tuple[str, str, Mapping[str, Json]]:
        """What decides its numbers: two columns that are equal in it are one."""
        return self.benchmark, self.metric or self.key, self.settings
