"""How much of what a model is asked is done, by what its answers turn out to cost: the time left
goes by it.

Benchmarks are asked one after the other, the longest answers first, and in each the short answers
come first. So what is left is not what was expected less what is done: the answers of a benchmark
are as long as those that came and those under way say together (the mean of lifetimes of which some
are not over), and those of one that has not begun are longer or shorter than usual as the others'.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from evals.models.prompts import Rendered
from evals.plan.work import Work, prompts_of
from evals.records import Completion

_PROMPT_COST = 0.28
"""Of a prompt token that is computed, in generated ones: with a full batch about 0.35 on
GPUs, less on CPUs."""
_PRIOR = 8
"""What is usual for a benchmark counts as much as so many of its answers."""
_PRIOR_OF_ALL, _MOST_OF_ONE = 60, 50
"""That all are as usual counts as much as so many answers, those of one benchmark for at most so
many."""
_SAVED = 0.6
"""Of what an answer under way has, what is spared later: nothing, were lengths as random
as can be, all of it, were all equally long."""


@dataclass(slots=True)
class _Kind:
    """Requests of one benchmark, or of one judge's role. prompt, new: tokens to compute and to
    generate of a request, as expected; own_prompt, own_new: of all answers that came.  moved:
    generated of those that did not.
    """

    n_left: int
    prompt: float
    new: float
    n_done: int = 0
    own_prompt: float = 0.0
    own_new: float = 0.0
    moved: float = 0.0

    def left(self, longer: float) -> float:
        """The cost of what is not answered yet. longer: than usual, the answers of all."""
        n = _PRIOR + self.n_done
        prompt = (_PRIOR * self.prompt + self.own_prompt) / n
        new = (_PRIOR * self.new * longer + self.own_new + self.moved) / n
        return self.n_left * _PROMPT_COST * prompt + max(0, self.n_left * new - _SAVED * self.moved)


class Ahead:
    """What waits to be answered. Costs are in generated tokens."""

    def __init__(self, work: Work) -> None:
        self._kinds = {
            name: _Kind(one.n, one.prompt / one.n, one.new / one.n)
            for name, one in work.kinds.items()
        }

    def answered(self, request: Rendered, answer: Completion | None) -> None:
        """One has its answer; None: it has none, and cost nothing. One that was not foreseen does
        not count.
        """
        if (kind := self._kinds.get(request.kind)) is None:
            return
        kind.n_left = max(0, kind.n_left - 1)
        if answer is not None:
            # Choices and scores are tokens that nobody keeps.
            new = answer.n_output_tokens or len(prompts_of(request))
            kind.n_done += 1
            kind.own_prompt += answer.n_prompt_tokens - answer.n_cached_tokens
            kind.own_new += new
            kind.moved = max(0.0, kind.moved - new)

    def moved(self, n_tokens: Mapping[str, int]) -> None:
        """So many are generated of answers that are not finished, by kind."""
        for name, kind in self._kinds.items():
            kind.moved = n_tokens.get(name, 0)

    @property
    def n_moved(self) -> float:
        """Tokens of answers that are not finished."""
        return sum(one.moved for one in self._kinds.values())

    @property
    def share(self) -> float:
        """Of the whole cost, what is done."""
        kinds, longer = self._kinds.values(), self._longer()
        done = sum(one.own_new + one.moved + _PROMPT_COST * one.own_prompt for one in kinds)
        left = sum(one.left(longer) for one in kinds)
        return done / (done + left) if done else 0.0

    def _longer(self) -> float:
        """How much longer than usual the answers are, of the benchmarks that have some."""
        found = weights = float(_PRIOR_OF_ALL)
        for one in self._kinds.values():
            if one.n_done and one.new > 1:
                weight = min(one.n_done, _MOST_OF_ONE)
                found += weight * (one.own_new + one.moved) / one.n_done / one.new
                weights += weight
        return found / weights
