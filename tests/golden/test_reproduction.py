"""results/REPRODUCTION.md is what its measured files give, and those hold every number that the
corpora's README.json files list.
"""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scripts.proof.reproduction import markdown

RESULTS = Path(__file__).resolve().parents[2] / "results"
NO_FIGURES = {
    "n",
    "n_prompts",
    "n_instructions",
    "length_controlled_v1_weights",
    "macro_accuracy_of_this_file",
}
"""Keys of a README.json's `published` that are no published figure: sizes, a fit's weights, a note
on the file.
"""


def measured(name: str) -> Any:
    return json.loads((RESULTS / "reproduction" / name).read_text("utf-8"))


def numbers(published: Any) -> Iterator[float]:
    """Every published number: JSON's own, and percentages written as texts."""
    if isinstance(published, dict):
        for key, value in published.items():
            if key not in NO_FIGURES:
                yield from numbers(value)
    elif isinstance(published, list):
        for value in published:
            yield from numbers(value)
    elif isinstance(published, str) and published.endswith("%"):
        yield float(published.rstrip("%"))
    elif isinstance(published, int | float):
        yield published


def test_the_page_is_what_its_measured_files_give() -> None:
    assert (RESULTS / "REPRODUCTION.md").read_text("utf-8") == markdown(RESULTS), (
        "stale: run scripts/reproduction"
    )


def test_a_changed_measurement_changes_the_page(tmp_path: Path) -> None:
    (tmp_path / "reproduction").mkdir()
    figures = measured("figures.json")
    figures["figures"][0] |= {"state": "differs", "ours": 0.123}
    (tmp_path / "reproduction" / "figures.json").write_text(json.dumps(figures))
    page = markdown(tmp_path)
    assert "1 differ, " in page
    assert page.count("Not measured here.") == 3


def test_every_number_the_corpora_list_as_published_has_its_line(replay_dir: Path) -> None:
    lines = measured("figures.json")["figures"]
    for about in sorted(replay_dir.glob("*/README.json")):
        listed = Counter(
            f"{number:.8g}" for number in numbers(json.loads(about.read_text("utf-8"))["published"])
        )
        compared = Counter(
            f"{line['published']:.8g}" for line in lines if line["benchmark"] == about.parent.name
        )
        assert listed, about
        assert not listed - compared, about


def test_every_line_without_agreement_says_why() -> None:
    for line in measured("figures.json")["figures"]:
        assert line["state"] != "differs"
        assert line["state"] == "agrees" or line["why"]
        assert (line["state"] == "-") == (line["ours"] is None)


def test_every_difference_from_the_peers_has_its_reason() -> None:
    pairs = measured("differential.json")["pairs"]
    assert min(pair["n"] for pair in pairs) >= 492
    assert all(row["reason"] for pair in pairs for row in pair["differences"])
    assert all(pair["n"] - pair["n_equal"] == len(pair["differences"]) for pair in pairs)


def test_the_readme_leads_to_the_page() -> None:
    assert "results/REPRODUCTION.md" in (RESULTS.parent / "README.md").read_text("utf-8")
