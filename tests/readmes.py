"""What holds for any README after `evals card`: shared by the table of hostile ones and by the law
over random ones.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub.repocard import REGEX_YAML_BLOCK

from evals.report.card import BEGIN, END, update
from evals.report.front_matter import FrontMatter


def has_every_byte(text: str, of: str) -> bool:
    """Whether a text is another's with something put in at one place."""
    kept = next(
        (at for at, pair in enumerate(zip(text, of, strict=False)) if len(set(pair)) > 1), len(of)
    )
    return text.endswith(of[kept:]) and len(text) >= len(of)


def hubs_reading(card: str) -> dict[str, str]:
    """The metadata as the hub finds it, less our results and what only holds them; as text, since
    .nan is not equal to itself.
    """
    found = REGEX_YAML_BLOCK.search(card.removeprefix("\ufeff"))
    data: dict[str, Any] = (yaml.safe_load(found[2]) if found else None) or {}
    models = [
        {**one, "results": [result for result in one["results"] or () if not is_ours(result)]}
        for one in data.get("model-index") or ()
    ]
    kept = [one for one in models if one["results"]]
    return {
        repr(key): repr(value)
        for key, value in {**data, "model-index": kept}.items()
        if value or key != "model-index"
    }


def is_ours(result: Any) -> bool:
    dataset = result.get("dataset") if isinstance(result, dict) else None
    return isinstance(dataset, dict) and "protocol" in (dataset.get("args") or {})


def check_card(file: Path, before: str, runs: Sequence[Path], hole: str = "") -> str:
    """Put results into a card, new ones, and take them away again: nothing else changes, and the
    second time nothing at all. Returns the card with the results.

    runs: one, one with other numbers, one of a part of the data.  hole: an empty list, written so,
    that they may fill.
    """
    file.write_bytes(before.encode())
    whole = FrontMatter.of(before)
    metadata = whole.text.replace(hole, "", 1)
    first = ""
    for run in runs:
        update(file, [run])
        text = file.read_bytes().decode()
        now = FrontMatter.of(text)
        assert has_every_byte(now.text, metadata), (now.text, metadata)
        assert has_every_byte(now.body, whole.body), (now.body, whole.body)
        if whole.tail:
            assert (now.head, now.tail.strip()) == (whole.head, whole.tail.strip())
        assert hubs_reading(text) == hubs_reading(before)
        assert now.body.count(BEGIN) - whole.body.count(BEGIN) == (BEGIN not in whole.body)
        assert now.body.count(END) - whole.body.count(END) == (END not in whole.body)
        assert update(file, [run]) == []
        first = first or text
    return first
