"""How a server takes a request. What it refuses by name is left out or asked in another form, which
is found out by its refusals, once a run.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

NEUTRAL: Mapping[str, float] = {
    "top_k": -1,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}
"""What vLLM's server and its kin would else take from the checkpoint's own sampling defaults; all
of them but temperature and top_p, which every request names.
"""
_DEFAULTS = ("top_p", "temperature")
"""In the order they are given up: of two that may not stand together, the one that is neutral."""
_REFUSES = re.compile(
    r"unsupported|not (be )?support|unrecogni[sz]ed|unknown|unexpected|not permitted|not allowed"
    r"|forbidden|only the default|cannot both|instead|deprecated|not available|is invalid"
)
_REFUSES_N = re.compile(
    r"""['"`]n['"`]|\bn (must|should|is|>|greater)|\bn *[=>]|only one (completion )?choice"""
)
_MOST = re.compile(r"(?:at most|maximum(?: length)?|up to|less than or equal to|<=) *(?:of )?(\d+)")


@dataclass(frozen=True, slots=True)
class Manner:
    """limit: what the limit on new tokens is called.  without: parameters that are not sent;
    without "n", samples are asked for one by one.
    n_stops: stop strings it takes, the others are cut here.  n_top: log-probabilities of a token.
    neutral: what else is sent to it, besides OpenAI's own parameters.
    """

    limit: str = "max_tokens"
    without: frozenset[str] = frozenset()
    n_stops: int = 4
    n_top: int = 20
    neutral: tuple[str, ...] = tuple(NEUTRAL)

    @property
    def unasked(self) -> tuple[str, ...]:
        """Parameters of the sampling that are the server's own: it takes none of ours."""
        return tuple(name for name in (*_DEFAULTS, *NEUTRAL) if name in self.without)


def adapted(manner: Manner, param: str | None, message: str) -> Manner | None:
    """How to ask a server that refused a request with this message, which may name a parameter;
    None where it says nothing of the form.
    """
    text = f"{message} {param or ''}".lower()

    def names(name: str) -> bool:
        spellings = f"{name}|{name.replace('_', '')}"
        return name not in manner.without and bool(
            re.search(rf"(?<![a-z_])({spellings})(?![a-z_])", text)
        )

    # Whatever it has against these: they are not in the API.
    if own := [name for name in manner.neutral if names(name)]:
        return replace(manner, without=manner.without | set(own))
    most = _MOST.search(text)
    if names("stop") and manner.n_stops and (most or _REFUSES.search(text)):
        n_stops = min(int(most[1]), manner.n_stops - 1) if most else 0
        return replace(manner, n_stops=n_stops)
    if names("top_logprobs") and most and int(most[1]) in range(1, manner.n_top):
        return replace(manner, n_top=int(most[1]))
    if "n" not in manner.without and (param == "n" or _REFUSES_N.search(text)):
        return replace(manner, without=manner.without | {"n"})
    if not _REFUSES.search(text):
        return None
    if manner.limit == "max_tokens" and names("max_tokens"):
        return replace(manner, limit="max_completion_tokens")
    if names("logprobs") or names("top_logprobs"):
        return replace(manner, without=manner.without | {"logprobs", "top_logprobs"})
    for name in _DEFAULTS:
        if names(name):
            return replace(manner, without=manner.without | {name})
    return None
