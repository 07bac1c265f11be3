"""What is known of stand-ins on real pairs: each recorded model's column estimated from the others,
how far judges' errors differ between models, and two judges of AlpacaEval on the same answers.

    EVALS_REPLAY=... EVALS_JUDGES=... python -m scripts.proof.judge_pairs
"""

import gzip
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple
from itertools import permutations
from pathlib import Path
from statistics import median, stdev
from typing import Any

from evals.fidelity.agreement import Pair, kappa
from evals.fidelity.calibration_data import read_verdicts
from evals.fidelity.estimates import measurement_of
from evals.fidelity.measurement import Confusion, Estimate, Preferences, moments, preference, yes_no
from evals.records import Finding

Columns = Mapping[str, Mapping[str, Confusion]]
"""Column -> the recorded model -> verdicts of two judges on its answers."""
CARD = "gpt-4 (three classes)"
_LEAST = 10
"""So few answers at least, for a model's error to be told from chance."""


def xstest(replay: Path) -> dict[tuple[str, str], Columns]:
    """The recorded verdicts of XSTest by (stand-in, judge it is held against), of GPT-4, people and
    string match, each in each other's place.
    """
    verdicts = read_verdicts("xstest", None, replay)
    benchmark = verdicts.benchmark
    graded: dict[str, list[Any]] = {CARD: [], "people": [], "strmatch": []}
    for one in verdicts.answers:
        found = {who: one.by[who]["xstest"] for who in (CARD, "people")}
        rule = benchmark.rules["strmatch"](one.answer.text)
        found["strmatch"] = Finding("strmatch", text=rule)
        for who, finding in found.items():
            graded[who].append(benchmark.grade(one.item, one.answer, {"xstest": finding}))
    made: dict[tuple[str, str], Columns] = {}
    for standin, card in permutations(graded, 2):
        pairs = [
            Pair(one.question, one.author, *grades)
            for one, *grades in zip(verdicts.answers, graded[card], graded[standin], strict=True)
        ]
        columns = measurement_of(benchmark, "xstest", pairs)
        made[standin, card] = {
            column: {author: Confusion(*counts) for author, counts in of.items()}
            for column, of in columns.items()
        }
    return made


def spreads(of: Mapping[tuple[str, str], Columns]) -> list[float]:
    """How far a stand-in's sensitivity and specificity lie apart between the recorded models:
    standard deviations of log-odds less what chance makes of them (method of moments), in order.
    String match is no judge to be held against.
    """
    found = []
    for (_, card), columns in of.items():
        for models in columns.values() if card != "strmatch" else ():
            for shares in (
                [(one.both, one.card_only) for one in models.values()],
                [(one.neither, one.standin_only) for one in models.values()],
            ):
                known = [pair for pair in shares if sum(pair) >= _LEAST]
                own = [(hits + 0.5, misses + 0.5) for hits, misses in known]
                if len(own) < 2:
                    continue
                between = stdev(math.log(hits / misses) for hits, misses in own) ** 2
                within = sum(1 / hits + 1 / misses for hits, misses in own) / len(own)
                found.append(math.sqrt(max(0.0, between - within)))
    return sorted(found)


def pooled(n_yes: int, n: int, recorded: Sequence[Confusion]) -> Estimate:
    """Rogan and Gladen's estimate as if a stand-in erred alike on every model: what it costs to
    leave the spread out. ci95: by draws from each share's own distribution.
    """
    import numpy as np

    rng = np.random.default_rng(42)

    def share(hits: int, misses: int) -> Any:
        return rng.beta(hits + 0.5, misses + 0.5, 20_000)

    both, card, standin, neither = (
        sum(column) for column in zip(*map(astuple, recorded), strict=True)
    )
    sensitivity, specificity = share(both, card), share(neither, standin)
    says = np.maximum(sensitivity + specificity - 1, 1e-6)
    drawn = np.clip((share(n_yes, n - n_yes) + specificity - 1) / says, 0, 1)
    low, middle, high = map(float, np.quantile(drawn, (0.025, 0.5, 0.975)))
    return Estimate(middle, (low, high), len(recorded))


def left_out(of: Columns) -> Iterator[tuple[str, str, float, float, tuple[Estimate, ...]]]:
    """Column, model, what the card's judge said of it, what the stand-in did; and estimates: from
    the other models as if all were alike, from them with their spread, and from all of them, as a
    report prints it.
    """
    for column, models in of.items():
        for name, own in models.items():
            others = [one for other, one in models.items() if other != name]
            says = own.both + own.standin_only
            yield (
                column,
                name,
                (own.both + own.card_only) / own.n,
                says / own.n,
                (
                    pooled(says, own.n, others),
                    yes_no(says, own.n, others, 2),
                    yes_no(says, own.n, list(models.values())),
                ),
            )


def alpaca(file: Path) -> dict[tuple[str, str], Preferences]:
    """AlpacaEval 2, by the recorded model and the other annotator."""
    found: dict[tuple[str, str], tuple[list[float], list[float], list[float]]] = {}
    for line in gzip.decompress(file.read_bytes()).decode().splitlines():
        row = json.loads(line)
        columns = found.setdefault((row["model"], row["standin"]), ([], [], []))
        length = math.log((row["n_chars"] + 1) / (row["n_chars_reference"] + 1))
        for column, value in zip(columns, (row["by_standin"], length, row["card"]), strict=True):
            column.append(value)
    return {key: Preferences(*columns) for key, columns in found.items()}


def compared(pairs: Preferences) -> dict[str, float]:
    """Two judges on one model's pairs: share of answers on which they prefer the same side, Cohen's
    kappa, the stand-in's win rate less the card's with its standard error, and how that difference
    changes with the answer's length (the slope on tanh of its logarithm).
    """
    import numpy as np

    standin, card = np.asarray(pairs.standin, float), np.asarray(pairs.card, float)
    differ, length = standin - card, np.tanh(np.asarray(pairs.length, float))
    sides = np.column_stack([standin > 0.5, card > 0.5])
    table = np.array([[(sides == (a, b)).all(1).sum() for b in (0, 1) for a in (0, 1)]])
    return {
        "n": len(differ),
        "agree": float((sides[:, 0] == sides[:, 1]).mean()),
        "kappa": float(kappa(table)[0]),
        "card": float(card.mean()),
        "standin": float(standin.mean()),
        "bias": float(differ.mean()),
        "stderr": float(differ.std(ddof=1)) / math.sqrt(len(differ)),
        "slope": float(np.polyfit(length, differ, 1)[0]),
    }


# --- words ----------------------------------------------------------------------------------------


def left_out_lines(of: Columns) -> Iterator[str]:
    """A table, a line a model and column."""
    yield (
        "| column | model | GPT-4 | string match | the other two, as if alike | the other two |"
        " all three |"
    )
    yield "| --- | --- | ---: | ---: | --- | --- | --- |"
    for column, model, truth, said, found in left_out(of):
        cells = " | ".join(_cell(one, truth) for one in found)
        yield f"| {column} | {model} | {100 * truth:.1f} | {100 * said:.1f} | {cells} |"


def _cell(found: Estimate, truth: float) -> str:
    if found.ci95 is None or found.value is None:
        return str(found.reason)
    low, high = found.ci95
    holds = "holds" if low <= truth <= high else "misses"
    wide = f"{100 * (high - low):.1f} wide"
    return f"{100 * found.value:.1f} ({100 * low:.1f} to {100 * high:.1f}), {wide}, {holds}"


def alpaca_lines(of: Mapping[tuple[str, str], Preferences]) -> Iterator[str]:
    """A table, a line a recording."""
    yield (
        "| model | other annotator | n | same side | kappa | its win rate | the card's |"
        " difference | by length |"
    )
    yield "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    for (model, standin), pairs in of.items():
        found = compared(pairs)
        half = 1.96 * found["stderr"]
        yield (
            f"| {model} | {standin} | {found['n']} | {found['agree']:.1%} | {found['kappa']:.2f} |"
            f" {100 * found['standin']:.1f} | {100 * found['card']:.1f} |"
            f" {100 * found['bias']:+.1f} ({100 * (found['bias'] - half):+.1f} to"
            f" {100 * (found['bias'] + half):+.1f}) | {100 * found['slope']:+.1f} |"
        )


def refused(of: Mapping[tuple[str, str], Preferences]) -> str | None:
    """Why the recordings of one annotator give no estimate."""
    by: dict[str, list[Preferences]] = {}
    for (_, standin), pairs in of.items():
        by.setdefault(standin, []).append(pairs)
    most: Sequence[Preferences] = max(by.values(), key=len)
    candidate = Preferences(most[0].standin, most[0].length)
    return preference(candidate, [moments(one) for one in most]).reason


def lines(replay: Path, judges: Path) -> Iterator[str]:
    """All of it."""
    recorded = xstest(replay)
    yield from left_out_lines(recorded["strmatch", CARD])
    found = spreads(recorded)
    yield f"\n{len(found)} spreads, median {median(found):.2f}: " + ", ".join(
        f"{one:.2f}" for one in found
    )
    pairs = alpaca(judges / "alpaca_eval_2.jsonl.gz")
    yield ""
    yield from alpaca_lines(pairs)
    yield f"\n{refused(pairs)}"


if __name__ == "__main__":
    print(*lines(Path(os.environ["EVALS_REPLAY"]), Path(os.environ["EVALS_JUDGES"])), sep="\n")
