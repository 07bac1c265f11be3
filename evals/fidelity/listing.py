"""`evals judge list`: who decides each role, what became of it, what it needs and costs."""

import os
from collections.abc import Iterator
from datetime import date

from evals.plan.known_judges import KnownJudge, known_judges
from evals.plan.naming_judges import columns_of
from evals.registry import BENCHMARKS, benchmark_class


def listing(today: date) -> Iterator[str]:
    """The lines: a role, the columns it decides, and each judge that can decide it; then where what
    is known of the judges is from. A judge that is gone is listed where it was the card's.
    """
    known = known_judges()
    for name in BENCHMARKS:
        cls = benchmark_class(name)
        for role in cls.judge_roles:
            about = known.roles.get(role)
            yield f"{role}: {', '.join(columns_of(cls, role))}"
            if about is not None:
                yield f"  asked {about.asked}; read {about.read}"
                yield f"  without a judge: {about.without}"
            for judge in known.by_name.values():
                is_able = not judge.roles or role in judge.roles
                if is_able and (_sets(judge, role) or not judge.is_gone(today)):
                    yield f"  --judge {role}={judge.name:18} {_words(judge, role, today)}"
            if role.startswith("alpaca_eval"):
                yield f"  --judge {role}=annotator:NAME     any annotator of alpaca_eval"
            yield f"  --judge {role}=MODEL              weights, openai:NAME@URL, or in FILE.toml"
    yield (
        "Sets: --judge card (as the card), --judge current (successors). A judge that is not the"
        " card's marks its cells: not comparable with published rows. evals judge calibrate holds"
        " it against recorded verdicts, evals report --estimate prints what the card's would have"
        " said."
    )
    yield "Where this is from (prices in US dollars for a million tokens in and out):"
    yield from (f"  {one.name}: {_facts(one)}" for one in known.by_name.values() if one.facts)


def _sets(judge: KnownJudge, role: str) -> list[str]:
    return [name for name, of in known_judges().sets.items() if of.get(role) == judge.name]


def _words(judge: KnownJudge, role: str, today: date) -> str:
    """One judge: whose it is in the sets, its life, needs and cost."""
    sets, about = _sets(judge, role), known_judges().roles.get(role)
    said = [f"[{', '.join(sets)}]"] if sets else []
    said += [judge.provider, judge.life(today)]
    if judge.gpu_gb is not None:
        said.append(f"about {judge.gpu_gb} GB to download and of GPU memory, no key")
    elif judge.model.startswith("openai:") and not judge.is_gone(today):
        has_key = bool(os.environ.get("OPENAI_API_KEY", "").strip())
        said.append(f"needs OPENAI_API_KEY ({'set' if has_key else 'not set'})")
    if judge.price is not None and about is not None and not judge.is_gone(today):
        n, tokens_in, tokens_out = about.row
        money = n * (tokens_in * judge.price[0] + tokens_out * judge.price[1]) / 1e6
        said.append(f"about {money:,.2f} US dollars a row at its price as read on {judge.read}")
    return "; ".join(said)


def _facts(judge: KnownJudge) -> str:
    """What is known of a judge, and where it was read."""
    said = [judge.model, f"context {judge.context:,}"]
    if judge.price is not None:
        said.append("price {:g} and {:g}".format(*judge.price))
    said.append(f"{judge.facts}, read on {judge.read}")
    if judge.unverified:
        said.append(f"not verified: {judge.unverified}")
    return "; ".join(said)
