"""The scripts of the gate: its simulation, and the damaged model it must catch."""

import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from scripts.bench_parts.__main__ import keep

ROOT = Path(__file__).resolve().parents[3]


def script(name: str, *arguments: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / "scripts" / name, *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=600,
    )


# --- setup ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("there", "asked"), [("cuda", ()), ("cuda", ("--cuda",)), ("cpu", ())])
def test_setup_keeps_the_kind_that_is_there(
    there: str, asked: tuple[str, ...], tmp_path: Path
) -> None:
    """scripts/demo and scripts/test call it without an option, on a CUDA machine too."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "setup", tmp_path / "scripts")
    pinned = [ROOT / "lock-cpu.txt", ROOT / "pyproject.toml"]
    for file in pinned:
        shutil.copy(file, tmp_path)
    (tmp_path / ".venv").mkdir()
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in pinned)).hexdigest()
    (tmp_path / ".venv" / ".ready").write_text(f"{there} {digest}\n")
    command = [tmp_path / "scripts" / "setup", *asked]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)
    assert done.stderr == ""
    assert sorted(file.name for file in (tmp_path / ".venv").iterdir()) == [".ready"]


# --- bench ----------------------------------------------------------------------------------------


def test_the_bench_keeps_the_figures_of_other_parts_and_prints_a_table(tmp_path: Path) -> None:
    kept = tmp_path / "figures.json"
    row = {"what": "a thing", "value": 1.0341, "interval": [0.99, 12345.6], "target": "<= 2"}
    others = [
        {"what": "missed", "value": 1.0304, "target": "<= 1.03"},
        {"what": "none", "value": 3, "target": ""},
    ]
    keep({"order": {"rows": [row, *others], "machine": {"cores": 2, "cpu": "X"}}}, kept)
    assert kept.with_suffix(".md").read_text().splitlines()[4:] == [
        "- order: Orders of the queue on one engine, and how full each keeps the batch.",
        "",
        "| part | figure | measured | target |",
        "| --- | --- | ---: | ---: |",
        "| order | a thing | 1.034 (0.99 to 12,346) | <= 2 |",
        "| order | missed | 1.03 | <= 1.03, missed |",
        "| order | none | 3 |  |",
    ]
    assert json.loads(kept.read_text())["order"]["rows"] == [row, *others]


def test_a_part_of_the_bench_that_is_not_there_and_data_that_is_not_are_one_sentence(
    tmp_path: Path,
) -> None:
    for arguments, says in (
        (("nonsense",), "there is no part nonsense"),
        (("growth", "--data", tmp_path / "no"), "public files"),
    ):
        done = script("bench", *arguments)
        assert done.returncode == 2
        assert says in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_a_part_of_the_bench_that_fails_leaves_the_others_and_what_was_measured_before(
    tmp_path: Path,
) -> None:
    kept = tmp_path / "figures.json"
    before = {
        "cache": {"rows": [{"what": "a share", "value": 0.99}], "machine": {"cores": 2, "cpu": "X"}}
    }
    kept.write_text(json.dumps(before))
    done = script("bench", "cache", "--data", tmp_path, "--json", kept)  # a folder without MMLU
    assert (done.returncode, done.stderr.splitlines()[-1]) == (
        1,
        "bench: no figures of cache; why stands above.",
    )
    assert "| cache | a share | 0.99 |" in done.stdout
    assert json.loads(kept.read_text()) == before


def test_growth_is_measured_from_plan_to_report(tmp_path: Path) -> None:
    done = script(
        "bench", "growth", "--quick", "--data", tmp_path, "--json", tmp_path / "figures.json"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("| growth | exponent of ") == 4
    assert not (tmp_path / "figures.json").exists()  # quick figures mean nothing


# --- gate_power -----------------------------------------------------------------------------------


def test_the_gates_false_alarms_stay_below_its_level_and_the_same_seed_prints_the_same_table() -> (
    None
):
    done = script("gate_power", "--runs", 200)
    assert done.returncode == 0, done.stderr
    cells = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in done.stdout.splitlines()
        if line.startswith("|")
    ]
    assert len(cells) == 2 + 10 + 1 + 2
    assert {len(row) for row in cells} == {10}
    no_drop, at_the_drop, two_points = (float(cell) for cell in cells[-2][4:7])
    assert no_drop <= 2.5
    assert at_the_drop <= 9.6  # 5 %, and three standard errors of 200 runs
    assert two_points > at_the_drop
    assert script("gate_power", "--runs", 200).stdout == done.stdout


# --- damage ---------------------------------------------------------------------------------------


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder like a model's: two shards of a few layers in bfloat16."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"num_hidden_layers": 12}))
    (folder / "tokenizer.json").write_text("{}")
    random = torch.Generator().manual_seed(1)
    for shard, layers in (("a", (1, 2)), ("b", (11,))):
        tensors = {
            f"model.layers.{i}.mlp.up_proj.weight": torch.randn(40, 30, generator=random).bfloat16()
            for i in layers
        }
        tensors |= {f"model.layers.{i}.norm.weight": torch.ones(30) for i in layers}
        save_file(
            tensors | {f"{shard}.embed.weight": torch.randn(9, 30, generator=random)},
            folder / f"{shard}.safetensors",
            {"format": "pt"},
        )
    return folder


def changed(before: Path, after: Path) -> set[str]:
    found = set()
    for file in sorted(before.glob("*.safetensors")):
        old, new = load_file(file), load_file(after / file.name)
        assert {name: (t.dtype, t.shape) for name, t in old.items()} == {
            name: (t.dtype, t.shape) for name, t in new.items()
        }
        found |= {name for name in old if not torch.equal(old[name], new[name])}
    return found


def test_only_the_matrices_of_the_named_layers_are_damaged_and_everything_else_is_copied(
    model: Path, tmp_path: Path
) -> None:
    done = script("damage", "model", "bad", "--layers", "1,11", "--noise", 0.5, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert changed(model, tmp_path / "bad") == {
        "model.layers.1.mlp.up_proj.weight",
        "model.layers.11.mlp.up_proj.weight",
    }
    assert (tmp_path / "bad" / "config.json").read_bytes() == (model / "config.json").read_bytes()
    assert {path.name for path in (tmp_path / "bad").iterdir()} == {
        path.name for path in model.iterdir()
    }
    with safe_open(tmp_path / "bad" / "a.safetensors", "pt") as opened:
        assert opened.metadata() == {"format": "pt"}
    old, new = (
        load_file(folder / "a.safetensors")["model.layers.1.mlp.up_proj.weight"].float()
        for folder in (model, tmp_path / "bad")
    )
    assert float((new - old).std() / old.std()) == pytest.approx(0.5, rel=0.1)


def test_the_same_seed_does_the_same_damage_and_another_one_another(
    model: Path, tmp_path: Path
) -> None:
    for out, seed in (("one", 3), ("same", 3), ("other", 4)):
        assert (
            script("damage", model, tmp_path / out, "--layers", 2, "--seed", seed).returncode == 0
        )
    one, same, other = (
        (tmp_path / out / "a.safetensors").read_bytes() for out in ("one", "same", "other")
    )
    assert one == same
    assert one != other


def test_damage_that_would_hit_nothing_or_overwrite_something_is_refused(
    model: Path, tmp_path: Path
) -> None:
    for folder, layers in ((model, 7), (tmp_path, 1)):
        done = script("damage", folder, tmp_path / "bad", "--layers", layers)
        assert (done.returncode, f"no matrix of layers {layers} in" in done.stderr) == (2, True)
    assert not (tmp_path / "bad").exists()
    done = script("damage", model, model, "--layers", 1)
    assert (done.returncode, "is there already" in done.stderr) == (2, True)
