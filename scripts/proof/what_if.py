"""What a cell becomes on recorded outputs when something the protocol leaves open is decided
otherwise. Values are fractions.
"""

import random
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from evals.cards.average import average
from evals.cards.card import AVERAGE
from evals.cards.published import published_rows, shipped
from evals.data.load import load_card_data
from evals.extract import compared_form
from evals.fidelity.corpora import Recording, Scored
from evals.records import Completion, Finding, Grade, Item, Output

Corpus = Sequence[tuple[Recording, Scored]]
Pairs = Sequence[Mapping[str, Any]]
"""The pairs of differential.json."""
SAFE, UNSAFE = "xstest_safe_refused", "xstest_unsafe_followed"
N_ORDERS, _SEED = 200, 42


class Effect(NamedTuple):
    """A cell on one recording, as it is assumed here and otherwise. n: items."""

    on: str
    assumed: float
    otherwise: float
    n: int


Measure = Callable[[Corpus, Pairs], Iterable[Effect]]
Change = Callable[[Scored, Any, Grade], Grade | None]
"""One item's grade under another assumption; None where the item is then left out."""


def other_value(cell: str, otherwise: Callable[[Scored], float | None], name: str = "") -> Measure:
    """The cell against another way to have it, on every recording that has both. name: put behind
    the recording's.
    """

    def measure(corpus: Corpus, _: Pairs) -> Iterator[Effect]:
        for recording, scored in corpus:
            assumed, other = scored.metric(cell), otherwise(scored)
            if assumed.value is not None and other is not None:
                yield Effect(recording.name + name, assumed.value, other, assumed.n)

    return measure


def changed(cell: str, change: Change) -> Measure:
    """The cell against itself with every grade changed."""

    def otherwise(scored: Scored) -> float | None:
        grades = [
            change(scored, item, grade)
            for item, grade in zip(scored.items, scored.result.grades, strict=True)
        ]
        return _value(scored, [grade for grade in grades if grade is not None], cell)

    return other_value(cell, otherwise, f", {cell}" if cell in (SAFE, UNSAFE) else "")


def other_metric(cell: str, other: str) -> Measure:
    """The cell against another metric of the same grades."""
    return other_value(cell, lambda scored: scored.metric(other).value, f", {other}")


def both(*measures: Measure) -> Measure:
    """The effects of all of them."""
    return lambda corpus, pairs: [
        effect for measure in measures for effect in measure(corpus, pairs)
    ]


def until(stop: str) -> Change:
    """The answer as if generation had ended at `stop`."""

    def change(scored: Scored, item: Any, grade: Grade) -> Grade:
        text = scored.answers[item.id].completion.text.partition(stop)[0]
        return scored.result.benchmark.grade(item, Completion((Output(text),)), {})

    return change


def scores(rule: Callable[[Any, Grade, str], Mapping[str, float]]) -> Change:
    """Other scores, from the item, its grade and the model's text."""
    return lambda scored, item, grade: replace(
        grade, scores={**grade.scores, **rule(item, grade, scored.answers[item.id].completion.text)}
    )


def own_rule(named: Callable[[str], bool]) -> Measure:
    """The card's rule against the corpus's own, for the figures so named."""

    def measure(corpus: Corpus, _: Pairs) -> Iterator[Effect]:
        for recording, scored in corpus:
            for figure in recording.figures:
                card, own = figure.card(scored).value if figure.card else None, figure.ours(scored)
                if named(figure.name) and card is not None and own.value is not None:
                    yield Effect(f"{recording.name}, {figure.name}", card, own.value, own.n)

    return measure


def card_draw(cell: str) -> Measure:
    """All recorded items against those of the card."""
    return other_value(
        cell,
        lambda scored: _over(scored, scored.result.benchmark.drawn(_all_items(scored)), cell),
    )


def orders(corpus: Corpus, _: Pairs) -> Iterator[Effect]:
    """BBH's draw from the files in alphabetical order against draws in random orders: where 95 of
    100 lie.
    """
    rng, draws = random.Random(_SEED), list[Sequence[Item]]()
    for recording, scored in corpus:
        benchmark, items = scored.result.benchmark, _all_items(scored)
        names = sorted({item.group for item in items})
        # Once for all recordings, which are then held against the same orders. drawn goes by
        # the groups' names: numbers for names put the files in another order.
        while len(draws) < N_ORDERS:
            place = {
                name: f"{index:02}" for index, name in enumerate(rng.sample(names, len(names)))
            }
            draws.append(
                benchmark.drawn([replace(item, group=place[item.group]) for item in items])
            )
        card = [item for item in benchmark.drawn(items) if item.id in scored.answers]
        # 40 parts: the first and the last cut lie at 2.5 and 97.5 %.
        parts = statistics.quantiles([_over(scored, draw, "bbh") for draw in draws], n=40)
        for name, value in (("low", parts[0]), ("high", parts[-1])):
            yield Effect(
                f"{recording.name}, {name} end of 95 in 100 orders",
                _over(scored, card, "bbh"),
                value,
                len(card),
            )


def theirs(cell: str, score: Callable[[Any], float]) -> Measure:
    """Our verdicts against those of the other side of the benchmark's first pair. score: of one
    value in its differences.
    """

    def measure(corpus: Corpus, pairs: Pairs) -> Iterator[Effect]:
        for recording, scored in corpus:
            pair = next(pair for pair in pairs if pair["benchmark"] == scored.result.benchmark.name)
            rows = [row for row in pair["differences"] if row["recording"] == recording.name]
            ours, n = scored.metric(cell).value or 0.0, len(scored.items)
            yield Effect(
                recording.name,
                ours,
                ours + sum(score(row["theirs"]) - score(row["ours"]) for row in rows) / n,
                n,
            )

    return measure


def other_labels(corpus: Corpus, _: Pairs) -> Iterator[Effect]:
    """XSTest by GPT-4's labels against people's and the string match's, both cells."""
    by_name = {recording.name: scored for recording, scored in corpus}
    for name, scored in by_name.items():
        model, labeller = name.rsplit(", ", 1)
        for cell in (SAFE, UNSAFE) if labeller != "gpt4_label" else ():
            gpt4, other = by_name[f"{model}, gpt4_label"].metric(cell), scored.metric(cell)
            yield Effect(f"{name}, {cell}", gpt4.value or 0.0, other.value or 0.0, other.n)


def partial_refusals(corpus: Corpus, _: Pairs) -> Iterator[Effect]:
    """XSTest with refusals in part taken for answers, both cells."""
    for recording, scored in corpus:
        shares = {figure.name: figure.ours(scored).value or 0.0 for figure in recording.figures}
        for cell, prompts, sign in ((SAFE, "safe_prompts", -1), (UNSAFE, "unsafe_prompts", 1)):
            if (share := shares.get(f"{prompts}, 3_partial_refusal")) is not None:
                assumed = scored.metric(cell)
                yield Effect(
                    f"{recording.name}, {cell}",
                    assumed.value or 0.0,
                    (assumed.value or 0.0) + sign * share,
                    assumed.n,
                )


def one_question(corpus: Corpus, _: Pairs) -> Iterator[Effect]:
    """The most one question can move."""
    for n in {len(_all_items(scored)) for _, scored in corpus}:
        yield Effect("any model, at most", 0.0, 1 / n, n)


def rounded_average(corpus: Corpus, _: Pairs) -> Iterator[Effect]:
    """The printed Averages against the means of the printed cells."""
    for row in published_rows():
        cells = {
            key: None if text == "-" else float(text) / 100
            for key, text in row.cells.items()
            if key != AVERAGE.key
        }
        if row.cells[AVERAGE.key] != "-":
            yield Effect(
                row.name,
                float(row.cells[AVERAGE.key]) / 100,
                average(shipped().average, cells) or 0.0,
                7,
            )


def subject_mean(scored: Scored) -> float:
    """MMLU's unweighted mean over subjects."""
    means = [
        metric.value or 0.0
        for name, metric in scored.result.metrics.items()
        if name.startswith("mmlu/")
    ]
    return sum(means) / len(means)


def first_edition(scored: Scored, item: Any, grade: Grade) -> Grade:
    """IFEval's prompt 2785 as it was at first: one placeholder, not three."""
    if item.key != "2785":
        return grade
    first = {"num_placeholders": 1}
    earlier = [
        replace(
            one, arguments=one.arguments | (first if first.keys() <= one.arguments.keys() else {})
        )
        for one in item.instructions
    ]
    return scored.result.benchmark.grade(
        replace(item, instructions=tuple(earlier)), scored.answers[item.id].completion, {}
    )


def as_refusal(scored: Scored, item: Any, grade: Grade) -> Grade:
    """An XSTest label in other words, read as a refusal."""
    found = {"xstest": Finding("assumed", text="refusal")}
    return (
        scored.result.benchmark.grade(item, scored.answers[item.id].completion, found)
        if grade.unparsed
        else grade
    )


def newer_match(item: Any, grade: Grade, _: str) -> dict[str, float]:
    """BBH by the exact_match of today: two texts of punctuation alone match only if they are the
    same.
    """
    read = str(grade.extracted)
    return {
        "bbh": float(grade.scores["bbh"] and (compared_form(read) != "" or read == item.target))
    }


def _value(scored: Scored, grades: Iterable[Grade], cell: str) -> float | None:
    return scored.result.benchmark.summarize(list(grades))[cell].value


def _all_items(scored: Scored) -> Sequence[Any]:
    benchmark = scored.result.benchmark
    return list(benchmark.items(load_card_data([benchmark.dataset], scored.data)[benchmark.name]))


def _over(scored: Scored, items: Iterable[Item], cell: str) -> float:
    """The cell over those of the items that are recorded."""
    grades = {grade.id: grade for grade in scored.result.grades}
    return _value(scored, [grades[item.id] for item in items if item.id in grades], cell) or 0.0
