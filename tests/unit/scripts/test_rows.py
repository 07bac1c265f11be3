"""The price of a row: the page is what the script prints, and what was estimated never stands as
measured.
"""

import json
from pathlib import Path

from scripts.bench_parts.rows import FIGURES, PAGE, page

ROOT = Path(__file__).resolve().parents[3]


def test_the_page_is_what_the_script_writes() -> None:
    figures = json.loads((ROOT / FIGURES).read_text())
    assert (ROOT / PAGE).read_text() == page(figures)


def test_a_measured_row_stands_beside_its_estimate_with_its_source_and_nowhere_else() -> None:
    figures = json.loads((ROOT / FIGURES).read_text()) | {"measured": []}
    before = page(figures).splitlines()
    assert all(line.endswith("| - |") for line in before if line.startswith(("| 1B", "| 8B")))
    run = {"size": "8b", "gpus": "8 x H100 80 GB", "minutes": 7.4, "source": "a run"}
    after = page(figures | {"measured": [run]}).splitlines()
    changed = [(one, other) for one, other in zip(before, after, strict=True) if one != other]
    ((estimated, measured),) = changed
    assert measured == estimated.removesuffix("- |") + "7 (a run) |"
