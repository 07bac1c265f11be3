"""`evals compare --why`, last: what changed in the answers, and in which items, in a sentence."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from evals.compare.answers import Answer

Row = Mapping[str, Any]
Both = Sequence[tuple[Answer, Answer]]

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
"""Standard deviations, which chance seldom reaches."""
_LEAST = 0.02
_MOST_SAID = 3


@dataclass(frozen=True, slots=True)
class _Found:
    size: float
    text: str


def conclusion(answers: Mapping[str, Both]) -> str:
    """What changed, from the answers to the items that both runs have, by task: all draws of an
    item together, so that they count once.
    """
    found = [one for task, both in answers.items() for one in _signs(task, both)]
    found += [one for task, both in answers.items() for one in _groups(task, both)]
    if found:
        most = sorted(found, key=lambda one: -one.size)[:_MOST_SAID]
        return f"What changed: {'; '.join(one.text for one in most)}."
    n = sum(map(len, answers.values()))
    moved = sum(_gain(a, b) != 0 for both in answers.values() for a, b in both)
    if not moved:
        return f"What changed: no score of the {n:,} items."
    return (
        f"What changed: {moved:,} of {n:,} scores, here and there; no more answers than before are"
        " cut off, unparsed or empty, and no group of items stands out."
    )


def _signs(task: str, both: Both) -> Iterator[_Found]:
    """Ways of going wrong that more, or fewer, answers show than chance would make."""
    for worse, better, what, holds in _SIGNS:
        shares = [[fmean(map(holds, one.rows)) for one in pair] for pair in both]
        if not _stands_out([b - a for a, b in shares]):
            continue
        before, after = map(fmean, zip(*shares, strict=True))
        text = (
            f"{task} {worse if after > before else better}: {before:.0%} → {after:.0%} of its"
            f" {what}"
        )
        lost = [b for pair, (_, b) in zip(both, shares, strict=True) if _gain(*pair) < 0]
        if lost and after > before:
            n = sum(share >= 0.5 for share in lost)
            text += f", among them {n:,} of the {len(lost):,} items that lost their score"
        yield _Found(abs(after - before), text)


def _groups(task: str, both: Both) -> Iterator[_Found]:
    """Groups of a task (its subjects, its kinds of puzzle) that lost more than chance would."""
    by_group: dict[str, list[int]] = {}
    for before, after in both:
        if before.group:
            by_group.setdefault(before.group, []).append(_gain(before, after))
    for group, changes in by_group.items():
        # So many groups are looked at, that the largest reaches more by chance alone.
        if sum(changes) < 0 and _stands_out(changes, math.log(1 + len(by_group)) / 2):
            lost, n = -sum(changes), len(changes)
            yield _Found(lost / n, f"{task} lost {lost:,} of the {n:,} items of {group}")


def _stands_out(changes: Sequence[float], more: float = 0.0) -> bool:
    """Whether items that change one way or the other at random would seldom come so far."""
    far, spread = abs(math.fsum(changes)), math.hypot(*changes)
    return far >= _LEAST * len(changes) and far > (_BY_CHANCE + more) * spread > 0


def _gain(before: Answer, after: Answer) -> int:
    """1 where an item's score rose, -1 where it fell; 0 where it did not, or has none."""
    one, other = _score(before), _score(after)
    return 0 if one is None or other is None else (other > one) - (other < one)


def _score(answer: Answer) -> float | None:
    """An item's own score, the mean of its draws; None where several judges score it, or where what
    is good depends on the item (XSTest).
    """
    own = [None if "safe" in row else row.get("score") for row in answer.rows]
    return None if None in own else fmean(one for one in own if one is not None)
