"""The package as a type checker sees it; scripts/test has mypy read this. Nothing here runs.

What must be wrong is marked so: mypy objects to a mark that it has no use for.
"""

from pathlib import Path

import evals


def right(adapter: str) -> None:
    """Nothing here is wrong."""
    settings: evals.Settings = {"suite": "smoke", "limit": 3, "chat_template_kwargs": {"a": 1}}
    run = evals.run("m", out=Path("x"), judge=["xstest=strmatch"], stop_token_ids=[2], eager=True)
    print(run.cells["gsm8k"].percent, evals.run("m", **settings).table())
    several: list[evals.Result] = evals.run_adapters([adapter], base="m", seed=1, tasks="mmlu")
    exit_code: int = evals.check(run.folder, "b", "release", strict=True).exit_code
    text: str = evals.table(run.folder, published=True)
    print(several, exit_code, text, evals.diff("a", "b").comparable.reason, evals.score("a"))


def wrong() -> None:
    """Everything here is."""
    evals.run("m", suit="smoke")  # type: ignore[call-arg]
    evals.run("m", suite="cards")  # type: ignore[arg-type]
    evals.run("m", limit="3")  # type: ignore[arg-type]
    evals.run("m", judge=3)  # type: ignore[arg-type]
    evals.run_adapters(["a"], eager="yes")  # type: ignore[arg-type]
    evals.score("a", dat="b")  # type: ignore[call-arg]
    evals.check("a", "b", strict="yes")  # type: ignore[arg-type]
    evals.table("a", format=3)  # type: ignore[arg-type]
