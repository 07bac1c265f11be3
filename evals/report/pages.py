"""What `evals cards` and `evals tasks` say of one card and one benchmark, as text."""

import inspect
from collections.abc import Iterator
from dataclasses import fields

from evals.cards.average import off_by
from evals.cards.published import shipped, shipped_names
from evals.errors import InputError
from evals.registry import (
    BENCHMARKS,
    benchmark_class,
    card_to_ask,
    declared,
    in_words,
    refused,
    variants,
)
from evals.runs.contract import check
from evals.storage.files import one_line


def card_page(name: str) -> str:
    """What a run of the card (its name, or a file) asks, how it averages, and its published rows.

    Raises InputError where there is no such card, or it names what there is not.
    """
    card = card_to_ask(name)
    lines = [f"{one_line(card.title)}: protocol {one_line(card.protocol)}"]
    for name, variant in variants(card).items():
        variant.make(chat=True)  # says what its columns and settings cannot be together
        judges = f", judged by {', '.join(variant.roles)}" if variant.roles else ""
        lines.append(f"asks {name}{judges}")
        for column in variant.columns:
            better = "lower" if column.lower_is_better else "higher"
            heading = one_line(column.heading)
            lines.append(f"  {heading} ({column.key}): {column.metric}, {better} is better")
            lines += [f"    {one_line(column.inferred)}"] if column.inferred else []
    for column in card.columns:
        if column.reason:
            lines.append(f"not measured: {one_line(column.heading)}, {one_line(column.reason)}")
    rule = card.average
    turned = {key: f"1 - {key}" if key in rule.complement else key for key in rule.inputs}
    members = [" with ".join(turned[key] for key in member) for member in rule.members]
    lines.append(f"average: mean of {', '.join(members)}" if members else "average: no rule known")
    if card.rows:
        found = [one for row in card.rows if (one := off_by(card, row)) is not None]
        exact = sum(one.by <= one.printed for one in found)
        near = sum(one.printed < one.by <= one.printed + one.cells for one in found)
        lines.append(
            f"{len(card.rows)} published rows; of {len(found)} Averages {exact} come out as"
            f" printed, {near} more within the rounding of the cells"
        )
    return "\n".join(lines)


def tasks_list() -> str:
    """The benchmarks, each with the columns of the default card that it fills and its judges."""
    lines = []
    for name in BENCHMARKS:
        try:
            cls = benchmark_class(name)
        except InputError as error:
            lines.append(f"{name:12} {one_line(str(error))}")
            continue
        judges = f"  judged: {', '.join(cls.judge_roles)}" if cls.judge_roles else ""
        headings = [one.heading for one in shipped().columns if one.benchmark == name]
        lines.append(
            f"{name:12} {' | '.join(headings or [one.name for one in cls.metrics])}{judges}"
        )
    for name, places in declared().items():
        try:
            what = " | ".join(one.name for one in benchmark_class(name).metrics)
            lines.append(f"{name:12} {what}  (of the package {', '.join(places.values())})")
        except InputError as error:
            lines.append(f"{name:12} {one_line(str(error))}")
    return "\n".join([*lines, *map(one_line, refused())])


def task_page(name: str) -> str:
    """What a benchmark measures and how, its settings, and which cards use it. Raises InputError
    where it cannot be read.
    """
    cls = benchmark_class(name)
    if not cls.metrics and cls.dataset.own:
        cls.dataset.own()  # of a task that cannot be read, this says why
    module = inspect.getmodule(cls)
    data = cls.dataset
    lines = [((module and module.__doc__) or cls.__doc__ or "").strip(), ""]
    about = filter(None, (data.hub_id, data.licence, data.url))
    lines += [f"Data: {', '.join(about)}", "Metrics:"]
    lines += [
        f"  {one.name}: {one.words}; {'lower' if one.lower_is_better else 'higher'} is better"
        for one in cls.metrics
    ]
    if cls.judge_roles:
        lines.append(f"Judges: {', '.join(cls.judge_roles)}")
    lines += ["Settings:" if fields(cls.Settings) else "Settings: none"]
    lines += [
        f"  {one.name} = {one.default!r}: {one.metadata['words']}; {in_words(one.metadata['may'])}"
        for one in fields(cls.Settings)
    ]
    uses = list(_uses(name))
    return "\n".join([*lines, "Cards:" if uses else "Cards: none", *uses])


def check_page(name: str) -> tuple[str, int]:
    """Each rule of the contract, whether the benchmark keeps it, and how many it does not."""
    lines, n_broken = [], 0
    for rule, found in check(name):
        lines.append(f"{'NOT: ' if found else 'ok:  '}{rule}")
        lines += [f"     {one_line(one)}" for one in found]
        n_broken += bool(found)
    return "\n".join(lines), n_broken


def _uses(name: str) -> Iterator[str]:
    for card in map(shipped, shipped_names()):
        for column in card.columns:
            if column.benchmark == name:
                settings = "".join(f", {key} = {value}" for key, value in column.settings.items())
                yield f"  {card.name}: {one_line(column.heading)}: {column.metric}{settings}"


def cards_list() -> str:
    """Our cards, a line each."""
    cards = map(shipped, shipped_names())
    return "\n".join(
        f"{card.name:20} {card.title}: {len(card.columns)} columns, {len(card.rows)} published rows"
        for card in cards
    )
