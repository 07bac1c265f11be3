"""What results/README.md says of judges on real pairs is what the recordings give."""

from pathlib import Path
from statistics import median

import pytest

from evals.fidelity import measurement
from scripts.proof.judge_pairs import CARD, Columns, left_out, lines, spreads, xstest
from tests.conftest import ROOT, shared_folder


@pytest.fixture(scope="module")
def recorded() -> dict[tuple[str, str], Columns]:
    return xstest(shared_folder("EVALS_REPLAY", "replay"))


def test_the_priors_scale_is_the_median_of_recorded_spreads(
    recorded: dict[tuple[str, str], Columns],
) -> None:
    found = spreads(recorded)
    assert len(found) == 14
    assert median(found) == pytest.approx(measurement._SPREAD, abs=0.05)


def test_the_spread_between_models_is_what_keeps_an_interval_from_missing(
    recorded: dict[tuple[str, str], Columns],
) -> None:
    n_missed = [0, 0, 0]
    for _, _, truth, _, found in left_out(recorded["strmatch", CARD]):
        for at, one in enumerate(found):
            assert one.ci95 is not None
            n_missed[at] += not one.ci95[0] <= truth <= one.ci95[1]
    assert n_missed == [4, 0, 0]


def test_the_tables_of_the_document_are_those_of_the_recordings() -> None:
    text = (ROOT / "results" / "README.md").read_text("utf-8")
    folders = shared_folder("EVALS_REPLAY", "replay"), shared_folder("EVALS_JUDGES", "judges")
    for line in "\n".join(lines(*map(Path, folders))).splitlines():
        if line.startswith("|"):
            assert line in text
