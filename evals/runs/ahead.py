"""How much of the time that a model takes for its answers is over, by what they turn out to cost.

Benchmarks are asked one after the other, the longest answers first, and in each the short answers
come first. So what is left is not what was expected less what is done: the texts of a benchmark
are as long as those that came and those under way say together (the mean of lifetimes of which some
are not over), and those of one that has not begun are longer or shorter than usual as the others'.

Once little waits, the longest texts take the time, for an engine writes a few hardly faster than
many. Small models repeat themselves up to the limit, so that it counts which texts do.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from evals.generators import Text
from evals.models.prompts import Rendered
from evals.plan.work import Work, prompts_of
from evals.records import Completion

_PROMPT_COST = 0.3
"""Of a prompt token that is computed, in generated ones: with a full batch about 0.4 on GPUs, half
of that on CPUs."""
_PRIOR = 8
"""What is usual for a benchmark counts as much as so many of its answers."""
_PRIOR_OF_ALL, _MOST_OF_ONE = 60, 50
"""That all are as usual counts as much as so many answers, those of one benchmark for at most so
many."""
_SAVED = 0.6
"""Of what a text under way has, what is spared later: nothing, were lengths as random as can be,
all of it, were all equally long."""
_ENDLESS, _TOO_MANY = 2, 4
"""Texts so many times as long as usual go on to the limit where they are so many times as many as
lengths at random would leave, and so many or one has reached it."""
_SPEED_OF = 0.05
"""The speed is measured over so much of the time so far."""


@dataclass(slots=True)
class _Kind:
    """Requests of one benchmark, or of one judge's role, each of so many texts. prompt, new: tokens
    to compute of a request and to generate of a text, as expected.  most: that a text may have.

    own_prompt: computed for answers that came.  n_over, own_new: texts of these, and their tokens;
    n_ended, ended: those of others that are finished.  n_full: as long as may be.  under_way: what
    is not finished, by its tokens.
    """

    n_left: int
    texts: float
    prompt: float
    new: float
    most: int
    n_done: int = 0
    own_prompt: float = 0.0
    n_over: int = 0
    own_new: int = 0
    n_ended: int = 0
    ended: int = 0
    n_full: int = 0
    under_way: Counter[int] = field(default_factory=Counter)

    @property
    def n_moved(self) -> int:
        """Tokens of answers that are not finished."""
        return self.ended + sum(n * tokens for tokens, n in self.under_way.items())

    @property
    def written(self) -> int:
        """All that was generated."""
        return self.own_new + self.n_moved

    @property
    def read(self) -> float:
        """Prompt tokens that were computed."""
        return self.own_prompt + self._n_begun * self._prompt

    @property
    def _n_begun(self) -> float:
        """Requests that are not answered, but whose prompt is computed."""
        return min(self.n_left, (self.under_way.total() + self.n_ended) / self.texts)

    @property
    def _prompt(self) -> float:
        return (_PRIOR * self.prompt + self.own_prompt) / (_PRIOR + self.n_done)

    def _new(self, longer: float, under_way: float) -> float:
        """The mean length of a text. under_way: tokens of unfinished ones that count."""
        prior, n_over = _PRIOR * self.texts, self.n_over + self.n_ended
        over = self.own_new + self.ended
        return (prior * self.new * longer + over + under_way) / (prior + n_over)

    @property
    def to_read(self) -> float:
        """Prompt tokens that are not computed yet."""
        return (self.n_left - self._n_begun) * self._prompt

    def to_write(self, longer: float) -> float:
        """Tokens that are not generated yet. longer: than usual, the texts of all."""
        n, moved = self.under_way.total(), self.n_moved - self.ended
        new = self._new(longer, moved)
        waiting = max(0, self.n_left * self.texts - self.n_ended - n)
        room = sum(count * (self.most - tokens) for tokens, count in self.under_way.items())
        return waiting * min(new, self.most) + min(room, max(0, n * new - _SAVED * moved))

    def rests(self) -> list[tuple[float, int]]:
        """Tokens that texts under way will yet have, and how many have so many."""
        n_over = self.n_over + self.n_ended
        own = (self.own_new + self.ended) / n_over if n_over else 0.0
        usual = max(self._new(1.0, 0), own)
        n_begun, n_older, found = n_over + self.under_way.total(), 0, []
        for tokens, n in sorted(self.under_way.items(), reverse=True):
            n_older += n
            many = _TOO_MANY * max(n_begun * math.exp(-tokens / usual), 0 if self.n_full else 1)
            is_endless = tokens > _ENDLESS * usual and n_older >= many
            rest = math.inf if is_endless else max(_ENDLESS * usual - tokens, usual)
            found.append((min(rest, max(0, self.most - tokens)), n))
        return found


class Ahead:
    """What waits to be answered. Costs are in generated tokens."""

    def __init__(self, work: Work) -> None:
        self._kinds = {}
        for name, one in work.kinds.items():
            texts = max(1, one.texts)  # what has nothing to be scored has none
            found = _Kind(one.n, texts / one.n, one.prompt / one.n, one.new / texts, one.longest)
            self._kinds[name] = found
        # Seconds for a token, of one text and of all together; since when they are measured, with
        # what had been written and read by then; texts under way, times the seconds that they were.
        self._of_one = self._of_all = 0.0
        self._since = self._written = self._read = 0.0
        self._texts_s = self._now = 0.0

    def answered(self, request: Rendered, answer: Completion | None) -> None:
        """One has its answer; None: it has none, and cost nothing. One that was not foreseen does
        not count.
        """
        if (kind := self._kinds.get(request.kind)) is None:
            return
        kind.n_left = max(0, kind.n_left - 1)
        if answer is None:
            return
        kind.n_done += 1
        kind.own_prompt += answer.n_prompt_tokens - answer.n_cached_tokens
        # Choices and scores are tokens that nobody keeps.
        lengths = [len(one.token_ids) for one in answer.outputs] or [1] * len(prompts_of(request))
        kind.n_over += len(lengths)
        kind.own_new += sum(lengths)
        kind.n_full += sum(length >= kind.most for length in lengths)
        for length in lengths:
            # Until the next sign of life it would count twice.
            if kind.n_ended and kind.ended >= length:
                kind.n_ended, kind.ended = kind.n_ended - 1, kind.ended - length
            elif kind.under_way and (near := max(kind.under_way)) <= length:
                kind.under_way[near] -= 1
                kind.under_way += Counter()

    def moved(self, texts: Mapping[Text, int], seconds: float) -> None:
        """So many there are of texts of answers that are not finished. seconds: since the start."""
        kinds = self._kinds.values()
        self._texts_s += (seconds - self._now) * sum(one.under_way.total() for one in kinds)
        self._now = seconds
        for kind in kinds:
            kind.under_way, kind.n_ended, kind.ended = Counter(), 0, 0
        for text, n in texts.items():
            if (found := self._kinds.get(text.kind)) is None:
                continue
            if text.is_over:
                found.n_ended += n
                found.ended += n * text.n_tokens
            else:
                found.under_way[text.n_tokens] += n
        self._measure(seconds)

    def _measure(self, seconds: float) -> None:
        """The speed since it was last measured, prompts aside."""
        kinds, took = self._kinds.values(), seconds - self._since
        written, read = sum(one.written for one in kinds), sum(one.read for one in kinds)
        new = written - self._written
        if took <= _SPEED_OF * seconds or new <= 0:
            return
        cost = new + _PROMPT_COST * max(0.0, read - self._read)
        self._of_one, self._of_all = self._texts_s / cost, took / cost
        self._since, self._written, self._read, self._texts_s = seconds, written, read, 0.0

    @property
    def n_moved(self) -> int:
        """Tokens of answers that are not finished."""
        return sum(one.n_moved for one in self._kinds.values())

    def share(self, seconds: float) -> float:
        """Of the whole time, what is over. seconds: since the start."""
        kinds, longer = self._kinds.values(), self._longer()
        done = sum(one.written + _PROMPT_COST * one.read for one in kinds)
        if not done or not seconds:
            return 0.0
        reading = seconds / done * _PROMPT_COST * sum(one.to_read for one in kinds)
        writing = seconds / done * sum(one.to_write(longer) for one in kinds)
        rests = [rest for one in kinds for rest in one.rests()]
        longest = max((rest for rest, _ in rests), default=0.0)
        # With fewer texts a step is faster, but not by as much as they are fewer.
        alike, shared = self._of_one * longest, self._of_all * sum(rest * n for rest, n in rests)
        # Next to prompts that are computed texts hardly get longer.
        return seconds / (seconds + reading + max(writing, (2 * alike + shared) / 3))

    def _longer(self) -> float:
        """How much longer than usual the texts are, of the benchmarks that have some."""
        found = weights = float(_PRIOR_OF_ALL)
        for one in self._kinds.values():
            n_over = one.n_over + one.n_ended
            if n_over and one.new > 1:
                weight = min(n_over / one.texts, _MOST_OF_ONE)
                found += weight * one.written / n_over / one.new
                weights += weight
        return found / weights
