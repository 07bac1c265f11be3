"""scripts/reproduce: all eight rows planned, with their formats and token counts, before any GPU is
paid for.
"""

from pathlib import Path

import pytest

from evals.cards.published import published_rows
from evals.models.embedded import embedded_folder
from evals.registry import BENCHMARKS
from scripts.proof.reproduce import main


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The card's eight models as local folders; the small model stands in for each."""
    folder = tmp_path_factory.mktemp("models")
    for row in published_rows():
        place = folder / row.hub_id
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(embedded_folder())
    return folder


def test_the_dry_run_plans_all_eight_rows_in_their_chat_formats(
    weights: Path, data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        main(
            [
                "--dry-run",
                "--models",
                str(weights),
                "--data",
                str(data_dir),
                "--limit",
                "27",
                "--out",
                str(tmp_path),
            ]
        )
        == 0
    )
    plans = capsys.readouterr().out.strip().split("\n\n")
    assert len(plans) == 8
    for plan, row in zip(plans, published_rows(), strict=True):
        assert plan.startswith(f"{row.name} · suite card · chat format {row.chat_format} ")
        counts = {
            line.split()[0]: line.split()[1:7]
            for line in plan.splitlines()[2:]
            if line.split()[0] in BENCHMARKS
        }
        assert counts["humaneval"][5] == f"{27 * 20 * 512:,}"
        assert counts["mmlu"][5] == "27"
        assert int(counts["gsm8k"][2].replace(",", "")) > 27 * 600


def test_a_row_whose_weights_are_not_at_hand_is_named_and_the_others_are_planned(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(
        [
            "smollm2",
            "no-such-model",
            "--dry-run",
            "--data",
            str(data_dir),
            "--limit",
            "2",
            "--out",
            str(tmp_path),
        ]
    )
    out = capsys.readouterr()
    assert code == 2
    assert "SmolLM2-135M-Instruct" in out.out
    assert "no-such-model" in out.err
