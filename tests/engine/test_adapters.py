"""LoRA on the real engine: a zero adapter is its base to the token, any other its merged model
within float error, and two on one engine are what each is alone.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import save_file

from tests.adapters import merge, random_pair, write_adapter
from tests.real_engine import cut_short

ROOT = Path(__file__).resolve().parents[2]
LAYERS = 2
"""Of the base, which is the embedded model cut short: LoRA takes vLLM's CPU build long."""
SHAPES = {
    "self_attn.q_proj": (576, 576), "self_attn.k_proj": (192, 576), "self_attn.v_proj": (192, 576),
    "self_attn.o_proj": (576, 576), "mlp.gate_proj": (1536, 576), "mlp.up_proj": (1536, 576),
    "mlp.down_proj": (576, 1536),
}  # fmt: skip
PATTERNS = {
    "rank_pattern": {"layers.1.self_attn.q_proj": 8},
    "alpha_pattern": {"up_proj": 3},
    "use_rslora": True,
}
RUNS = """
import sys
from pathlib import Path
import evals
from evals.generators import vllm
started = []
class Counted(vllm.VllmGenerator):
    def __init__(self, *args, **settings):
        started.append(settings.get("lora_rank"))
        super().__init__(*args, **settings)
vllm.VllmGenerator = Counted
at = Path(sys.argv[1])
how = dict(suite="smoke", tasks=("mmlu", "xstest"), limit=2, stop=".", dtype="float32")
how |= dict(offline=True)
adapters = [str(at / "zero"), str(at / "other")]
base = str(at / "small")
evals.run(base, out=at / "base", **how)
evals.run_adapters(adapters, base, out=at, **how)
evals.run(adapters[1], out=at / "alone", **how)
evals.run(str(at / "merged"), out=at / "of-merged", **how)
evals.run_adapters(adapters, base, out=at, **how)
print(started)
"""


def scale(module: str) -> float:
    """What peft multiplies B·A with, under PATTERNS."""
    rank = 8 if module.endswith("layers.1.self_attn.q_proj") else 4
    alpha = 3 if module.endswith("up_proj") else 12
    return float(alpha / np.sqrt(rank))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of base, adapters and merged model, in one process."""
    at = tmp_path_factory.mktemp("lora")
    random = np.random.default_rng(7)
    tensors: dict[str, np.ndarray[Any, Any]] = {}
    for layer in range(LAYERS):
        for name, shape in SHAPES.items():
            rank = 8 if (layer, name) == (1, "self_attn.q_proj") else 4
            module = f"model.layers.{layer}.{name}"
            tensors |= random_pair(module, shape, rank, random, size=0.02)
    zero = {name: np.zeros_like(matrix) for name, matrix in tensors.items()}
    small = cut_short(at / "small", LAYERS)
    named = {"base_model_name_or_path": str(small)}
    write_adapter(at / "zero", zero, **named, **PATTERNS)
    write_adapter(at / "other", tensors, **named, **PATTERNS)
    merged = shutil.copytree(small, at / "merged")
    save_file(
        merge(small / "model.safetensors", at / "other", scale),
        merged / "model.safetensors",
        metadata={"format": "pt"},
    )
    done = subprocess.run(
        [sys.executable, "-c", RUNS, str(at)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # The base, both adapters together, one alone, the merged; the second time none.
    assert done.stdout.splitlines()[-1] == "[0, 8, 8, 0]"
    return at


def rows(run: Path, task: str) -> list[dict[str, Any]]:
    import gzip

    with gzip.open(run / "samples" / f"{task}.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def logprobs(run: Path) -> np.ndarray[Any, Any]:
    found = [sorted(row["choice_logprobs"].items()) for row in rows(run, "mmlu")]
    return np.array([[value for _, value in one] for one in found])


def test_a_zero_adapter_answers_as_its_base_to_the_token_and_is_a_model_of_its_own(
    runs: Path,
) -> None:
    assert rows(runs / "zero-smoke", "xstest") == rows(runs / "base", "xstest")
    assert logprobs(runs / "zero-smoke") == pytest.approx(logprobs(runs / "base"), abs=1e-5)
    names = ("zero-smoke", "other-smoke", "base", "of-merged")
    models = [json.loads((runs / name / "summary.json").read_text())["model"] for name in names]
    assert len({model["fingerprint"] for model in models}) == 4
    assert models[0]["name"] == "zero"


def test_another_answers_as_the_merged_model_within_float_error(runs: Path) -> None:
    """Ranks and alphas by pattern, scaled by the square root, on every matrix of every layer."""
    merged, served = logprobs(runs / "of-merged"), logprobs(runs / "other-smoke")
    assert served == pytest.approx(merged, abs=2e-3)
    assert np.abs(served - logprobs(runs / "base")).max() > 0.1


def test_on_a_shared_engine_each_answers_as_alone(runs: Path) -> None:
    for task in ("mmlu", "xstest"):
        assert rows(runs / "other-smoke", task) == rows(runs / "alone", task)
