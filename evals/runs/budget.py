"""The cap on what judging may cost: nothing is asked that could pass it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from evals.generators import Failure
from evals.models.prompts import Rendered
from evals.plan.cost import Cost, prompt_tokens, spent
from evals.plan.known_judges import Price
from evals.records import Completion


@dataclass
class Budget:
    """most: money that this command may spend on judges, None without a cap.  prices: by role; a
    role that has none costs nothing.

    What is under way counts at its most until it is settled.
    """

    most: float | None = None
    prices: Mapping[str, Price] = field(default_factory=dict)
    spent: float = 0.0
    _held: dict[int, float] = field(default_factory=dict)

    def take(self, requests: Sequence[Rendered]) -> int:
        """How many of these may be asked, from the first on; they are then under way."""
        if self.most is None:
            return len(requests)
        room = self.most - self.spent - math.fsum(self._held.values())
        for n, request in enumerate(requests):
            cost = self._at_most(request)
            if cost > room:
                return n
            room -= cost
            self._held[id(request)] = cost
        return len(requests)

    def settle(self, request: Rendered, answer: Completion | Failure | None) -> None:
        """A request that was under way is answered; or was not asked, None, and cost nothing. What
        failed counts at its most: an answer that cannot be read is paid for all the same.
        """
        held = self._held.pop(id(request), None)
        if held is None or answer is None:
            return
        if isinstance(answer, Completion):
            held = spent([(request, answer)]).money(self.prices.get(request.check, (0, 0)))
        self.spent += held

    @property
    def reason(self) -> str:
        """Why a request is not asked."""
        return (
            f"asking more could pass --max-cost {self.most:g} ({self.spent:.2f} are spent at most)"
        )

    def _at_most(self, request: Rendered) -> float:
        out = request.max_new_tokens * request.sampling.n
        cost = Cost(1, prompt_tokens(request), out, True, True)
        return cost.money(self.prices.get(request.check, (0, 0)))
