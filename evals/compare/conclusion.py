"""`evals compare --why`, last: what changed in the answers, and in which items, in a sentence."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]
RowPairs = Sequence[tuple[Row, Row]]

_SIGNS: tuple[tuple[str, str, str, Callable[[Row], bool]], ...] = (
    (
        "no longer stops",
        "stops again",
        "answers ended by length",
        lambda row: "length" in row.get("finish_reasons", ()),
    ),
    (
        "no longer gives an answer of the expected form",
        "gives answers of the expected form again",
        "answers unparsed",
        lambda row: bool(row.get("unparsed")),
    ),
    (
        "answers with nothing",
        "answers again",
        "answers empty",
        lambda row: bool(row.get("outputs")) and not any(t.strip() for t in row["outputs"]),
    ),
)
"""What the words say where it became more, where less; what is counted; of which rows it holds."""
_BY_CHANCE = 3.0
"""Standard deviations that items changing one way or the other at random seldom reach."""
_LEAST = 0.02
_MOST_SAID = 3


@dataclass(frozen=True, slots=True)
class _Found:
    size: float
    text: str


def conclusion(rows: Mapping[str, RowPairs]) -> str:
    """What changed, from the rows of the items both runs answered, by task."""
    found = [one for task, pairs in rows.items() for one in _signs(task, pairs)]
    found += [one for task, pairs in rows.items() for one in _groups(task, pairs)]
    if found:
        most = sorted(found, key=lambda one: -one.size)[:_MOST_SAID]
        return f"What changed: {'; '.join(one.text for one in most)}."
    n = sum(map(len, rows.values()))
    moved = sum(_score(a) != _score(b) for pairs in rows.values() for a, b in pairs)
    if not moved:
        return f"What changed: no score of the {n:,} items."
    return (
        f"What changed: {moved:,} of {n:,} scores, here and there; no more answers than before are"
        " cut off, unparsed or empty, and no group of items stands out."
    )


def _signs(task: str, pairs: RowPairs) -> Iterator[_Found]:
    """Ways of going wrong that more, or fewer, answers show than chance would make."""
    for worse, better, what, holds in _SIGNS:
        sides = [(holds(a), holds(b)) for a, b in pairs]
        gone, come = sides.count((True, False)), sides.count((False, True))
        if not _stands_out(come - gone, come + gone, len(pairs)):
            continue
        before, after = (sum(side[at] for side in sides) / len(pairs) for at in (0, 1))
        text = (
            f"{task} {worse if come > gone else better}: {before:.0%} -> {after:.0%} of its {what}"
        )
        lost = [show[1] for (a, b), show in zip(pairs, sides, strict=True) if _lost(a, b)]
        if lost and come > gone:
            text += f", among them {sum(lost):,} of the {len(lost):,} items that lost their score"
        yield _Found(abs(after - before), text)


def _groups(task: str, pairs: RowPairs) -> Iterator[_Found]:
    """Groups of a task (its subjects, its kinds of puzzle) that lost more than chance would."""
    by_group: dict[str, list[int]] = {}
    for before, after in pairs:
        group = str(before.get("id", "")).partition("/")[2].rpartition("/")[0]
        if group:
            by_group.setdefault(group, []).append(_lost(after, before) - _lost(before, after))
    for group, changes in by_group.items():
        net, moved = sum(changes), sum(map(abs, changes))
        # So many groups are looked at, that the largest reaches more by chance alone.
        if net < 0 and _stands_out(net, moved, len(changes), math.log(1 + len(by_group)) / 2):
            yield _Found(
                -net / len(changes),
                f"{task} lost {-net:,} of the {len(changes):,} items of {group}",
            )


def _stands_out(net: int, moved: int, n: int, more: float = 0.0) -> bool:
    return moved > 0 and abs(net) >= _LEAST * n and abs(net) > (_BY_CHANCE + more) * moved**0.5


def _lost(before: Row, after: Row) -> bool:
    one, other = _score(before), _score(after)
    return one is not None and other is not None and other < one


def _score(row: Row) -> float | None:
    """An item's own score; None where several judges score it, or where what is good depends on the
    item (XSTest).
    """
    return None if "safe" in row else row.get("score")
