"""Adapters on the command line, before any engine."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.adapters import random_pair, write_adapter

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """Folders of two adapters of a base that their configs know by the hub's name."""
    monkeypatch.chdir(tmp_path)
    pair = random_pair("model.layers.0.mlp.up_proj", (1536, 576), 4, np.random.default_rng(0))
    for name in ("a", "b"):
        named = {"base_model_name_or_path": "HuggingFaceTB/SmolLM2-135M-Instruct"}
        write_adapter(tmp_path / name, pair, **named, lora_alpha=ord(name))
    return "a", "b"


def test_a_dry_run_of_several_says_each_ones_folder(evals: Call, two: tuple[str, str]) -> None:
    asked = "--suite", "smoke", "--tasks", "gsm8k", "--dry-run", "--offline"
    for base in (["smollm2"], ["--base", "smollm2"]):
        code, out, err = evals("run", *base, "--adapter", "a", "--adapter", "b", *asked)
        assert (code, err) == (0, "")
        first, second = out.split("\n\n")
        assert first.startswith("a · suite smoke · chat format tokenizer · run folder results/a-sm")
        assert "run folder results/b-smoke" in second
        assert "a: LoRA of rank 4 on smollm2, served unmerged" in first
    code, out, _ = evals("run", "a", "--base", "smollm2", "--out", "here", *asked)
    assert (code, out.splitlines()[0].partition("run folder ")[2]) == (0, "here")


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("run a --offline", "a, an adapter of HuggingFaceTB/SmolLM2-135M-Instruct: No folder"),
        ("run smollm2 --adapter a --base smollm2", "MODEL is the base: smollm2. Leave out --base"),
        ("run smollm2 --adapter a --adapter ./a", "would share the run folder a-card"),
        ("run smollm2 --base smollm2", "smollm2 is no adapter"),
        ("run smollm2 --adapter smollm2", "smollm2 is no adapter"),
        ("run a --base b", "b holds an adapter itself"),
    ],
)
def test_what_is_wrong_is_one_sentence(
    evals: Call, two: tuple[str, str], command: str, says: str
) -> None:
    code, out, err = evals(*command.split())
    assert (code, out) == (2, "")
    assert says in err
    assert "Traceback" not in err


def test_prompts_of_an_adapter_are_its_bases(evals: Call, two: tuple[str, str]) -> None:
    how = "--suite", "smoke", "--limit", "2"
    _, of_base, _ = evals("prompts", "gsm8k", "--model", "smollm2", *how)
    code, found, _ = evals("prompts", "gsm8k", "--model", "a", "--base", "smollm2", *how)
    assert (code, found) == (0, of_base)
    assert len([json.loads(line) for line in found.splitlines()]) == 2
