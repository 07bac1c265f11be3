"""What judging takes: requests, tokens and money, at the user's own prices or at a list's, which is
never named without its date.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date

from evals.errors import InputError, nearest
from evals.models.prompts import Rendered
from evals.plan.judges import Judge
from evals.plan.known_judges import Price, known_judges
from evals.records import Completion

# more than a chat server's template puts around a judge's one or two messages
_TEMPLATE_TOKENS = 64


@dataclass(frozen=True, slots=True)
class Priced:
    """A judge's price. listed: the day of the list it is from, None for the user's own."""

    price: Price
    listed: date | None = None


@dataclass(frozen=True, slots=True)
class Cost:
    """Tokens sent and received. is_exact_in, is_exact_out: counted by the judge's tokenizer or
    server; else upper bounds.  about_in, about_out: what is to be expected under a bound.
    """

    requests: int
    tokens_in: int
    tokens_out: int
    is_exact_in: bool
    is_exact_out: bool
    about_in: int | None = None
    about_out: int | None = None

    def money(self, price: Price) -> float:
        """In the prices' currency."""
        return (self.tokens_in * price[0] + self.tokens_out * price[1]) / 1e6

    def text(self, priced: Priced | None) -> str:
        """In words; money only where a price is known."""
        most_in, most_out = (
            "" if is_exact else "at most " for is_exact in (self.is_exact_in, self.is_exact_out)
        )
        said = (
            f"{self.requests:,} requests, {most_in}{self.tokens_in:,} tokens in"
            f"{_about(self.about_in)}, {most_out}{self.tokens_out:,} out{_about(self.about_out)}"
        )
        if priced is None:
            return said
        price, listed, about = priced.price, priced.listed, ""
        if self.about_in is not None or self.about_out is not None:
            n_in = self.tokens_in if self.about_in is None else self.about_in
            n_out = self.tokens_out if self.about_out is None else self.about_out
            expected = replace(self, tokens_in=n_in, tokens_out=n_out)
            about = f" (about {expected.money(price):,.2f})"
        day = f" US dollars, its price as read on {listed}; --price sets yours" if listed else ""
        return (
            f"{said}, cost {most_in or most_out}{self.money(price):,.2f}{about} at {price[0]:g} in"
            f" and {price[1]:g} out per million{day}"
        )


def _about(tokens: int | None) -> str:
    return "" if tokens is None else f" (about {tokens:,})"


def prompt_tokens(request: Rendered) -> int:
    """The prompt's tokens; where a server tokenizes, at most so many: no token is less than one
    byte.
    """
    texts = (message.content.encode("utf-8", "replace") for message in request.messages)
    return len(request.token_ids) or sum(map(len, texts)) + _TEMPLATE_TOKENS


def spent(answered: Iterable[tuple[Rendered, Completion]]) -> Cost:
    """What these answers took. A chat server gives no token ids: its output is then counted by
    bytes, and one for its end.
    """
    n = tokens_in = tokens_out = 0
    is_exact_in = is_exact_out = True
    for request, answer in answered:
        texts = (output.text + (output.reasoning or "") for output in answer.outputs)
        n_bytes = sum(len(text.encode("utf-8", "replace")) + 1 for text in texts)
        n_out = 1 if request.labels else answer.n_output_tokens
        is_exact_in &= bool(answer.n_prompt_tokens or request.token_ids)
        is_exact_out &= n_out > 0
        n, tokens_in = n + 1, tokens_in + (answer.n_prompt_tokens or prompt_tokens(request))
        tokens_out += n_out or min(n_bytes, request.max_new_tokens * request.sampling.n)
    return Cost(n, tokens_in, tokens_out, is_exact_in, is_exact_out)


def parse_prices(arguments: Sequence[str], roles: Iterable[str]) -> Mapping[str, Price]:
    """`--price` arguments, ROLE=IN,OUT or all=IN,OUT, by role; what names a role goes before all.

    Raises InputError on any other form, and where a role is given two prices.
    """
    known, prices = list(roles), dict[str, Price]()
    for argument in arguments:
        role, _, numbers = argument.partition("=")
        if role not in (*known, "all"):
            raise InputError(
                f"--price {argument}: no judge is named for {role!r}."
                f" {nearest(role, (*known, 'all'))}"
            )
        try:
            price_in, price_out = map(float, numbers.split(","))
        except ValueError:
            price_in = price_out = -1.0
        if not (0 <= price_in < float("inf") and 0 <= price_out < float("inf")):
            raise InputError(
                f"--price {argument}: write ROLE=IN,OUT with the prices of a million tokens in and"
                " out, e.g. xstest=30,60."
            )
        if prices.setdefault(role, (price_in, price_out)) != (price_in, price_out):
            raise InputError(f"--price {argument}: {role} is given two prices. Name one.")
    of_all = prices.pop("all", None)
    return prices if of_all is None else dict.fromkeys(known, of_all) | prices


def prices_of(arguments: Sequence[str], judges: Mapping[str, Judge]) -> dict[str, Priced]:
    """What each judge costs, by role: as --price says, else as it was listed. Raises InputError for
    a price that is none.
    """
    own = parse_prices(arguments, judges)
    found = {}
    for role, judge in judges.items():
        known = known_judges().of_model(judge.model)
        if role in own:
            found[role] = Priced(own[role])
        elif known is not None and known.price is not None:
            found[role] = Priced(known.price, known.read)
    return found


def check_cap(
    most: float | None, judges: Mapping[str, Judge], prices: Mapping[str, Priced]
) -> None:
    """Raise InputError for a cap that is none, or that a judge of no known price could pass."""
    if most is None:
        return
    if not (math.isfinite(most) and most >= 0):
        raise InputError(f"--max-cost {most}: give an amount of money, 0 or more.")
    unpriced = [
        role
        for role, judge in judges.items()
        if judge.model.startswith("openai:") and role not in prices
    ]
    if unpriced:
        raise InputError(
            f"--max-cost {most:g}: the price of {judges[unpriced[0]].model} is not known. Give it:"
            f" {' '.join(f'--price {role}=IN,OUT' for role in unpriced)}, for a million tokens (0,0"
            " for a server of your own)."
        )
