"""`evals judge list`: who decides each role, what became of it, what it needs and costs."""

import os
from collections.abc import Iterator
from datetime import date

from evals.plan.known_judges import KnownJudge, known_judges
from evals.plan.naming_judges import columns_of
from evals.registry import BENCHMARKS, benchmark_class


def listing(today: date) -> Iterator[str]:
    """The lines: a role, the columns it decides, and each judge that can decide it."""
    known = known_judges()
    for name in BENCHMARKS:
        cls = benchmark_class(name)
        for role in cls.judge_roles:
            columns, without = columns_of(cls, role), known.without.get(role, "-")
            yield f"{role}: {', '.join(columns)}. Without a judge: {without}"
            able = [one for one in known.by_name.values() if not one.roles or role in one.roles]
            for judge in able:
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


def _words(judge: KnownJudge, role: str, today: date) -> str:
    """One judge: whose it is in the sets, its life, needs and cost."""
    sets = [name for name, roles in known_judges().sets.items() if roles[role] == judge.name]
    said = [f"[{', '.join(sets)}]"] if sets else []
    said += [judge.provider, judge.life(today)]
    if judge.gpu_gb is not None:
        said.append(f"{judge.gpu_gb} GB to download and of GPU memory, no key")
    elif judge.model.startswith("openai:"):
        has_key = bool(os.environ.get("OPENAI_API_KEY", "").strip())
        said.append(f"needs OPENAI_API_KEY ({'set' if has_key else 'not set'})")
    if judge.price is not None and not judge.is_gone(today):
        n, tokens_in, tokens_out = known_judges().row[role]
        money = n * (tokens_in * judge.price[0] + tokens_out * judge.price[1]) / 1e6
        said.append(f"about {money:,.2f} US dollars a row at its list price of {judge.priced}")
    return "; ".join(said)
