"""The estimate of a dry run: sizes from config.json, and what any estimate has to obey."""

import json
import statistics
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.plan.gpu_hours import GPUS, Shape, estimate, shape_of
from evals.plan.work import Work

ROOT = Path(__file__).resolve().parents[3]

LLAMA_8B = {
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 128256,
}
LLAMA_70B = LLAMA_8B | {
    "hidden_size": 8192,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "intermediate_size": 28672,
}
CARD = Work(2e6, 1.3e6, 700)
"""The card suite of an instruct model, about."""


def written(folder: Path, config: dict[str, Any]) -> Path:
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    ("config", "parameters", "kv_bytes"),
    [(LLAMA_8B, 8.03e9, 131_072), (LLAMA_70B, 70.55e9, 327_680)],
)
def test_the_size_comes_from_the_config(
    tmp_path: Path, config: dict[str, Any], parameters: float, kv_bytes: float
) -> None:
    """Llama 3.1's published parameter counts; keys and values are 2 bytes x 2 x layers x key-value
    heads x 128.
    """
    shape = shape_of(written(tmp_path, config))
    assert shape is not None
    assert shape.parameters == pytest.approx(parameters, rel=2e-3)
    assert shape.kv_bytes == kv_bytes


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"hidden_size": "x"},
        LLAMA_8B | {"num_local_experts": 8},
        LLAMA_8B | {"num_attention_heads": 0},
    ],
)
def test_a_size_that_cannot_be_read_off_is_not_known(
    tmp_path: Path, config: dict[str, Any]
) -> None:
    assert shape_of(written(tmp_path, config)) is None
    assert shape_of(None) is None


def test_an_adapter_takes_a_little_more(tmp_path: Path) -> None:
    """Rank 16 on all matrices of Llama 3's layers is 41,943,040 parameters, as peft prints; vLLM
    keeps room for it at both ends of the model, too.
    """
    alone, served = (shape_of(written(tmp_path, LLAMA_8B), rank) for rank in (0, 16))
    assert alone is not None
    assert served is not None
    ends = 2 * 16 * (LLAMA_8B["vocab_size"] + LLAMA_8B["hidden_size"])
    assert served.parameters - alone.parameters == 41_943_040 + ends
    assert served.kv_bytes == alone.kv_bytes


def test_weights_that_do_not_fit_one_gpu_get_several() -> None:
    shape = Shape(70.6e9, 327_680)
    assert {gpu.name: estimate(shape, CARD, gpu).n for gpu in GPUS} == {
        "L40S 48 GB": 4,
        "A100 80 GB": 4,
        "H100 80 GB": 4,
        "H200 141 GB": 2,
    }
    assert {gpu.name: estimate(shape, CARD, gpu, 2).holds for gpu in GPUS} == {
        "L40S 48 GB": False,
        "A100 80 GB": True,
        "H100 80 GB": True,
        "H200 141 GB": True,
    }
    assert estimate(shape, CARD, GPUS[0], 2).text() == "2 x L40S 48 GB: no room for the weights"


SHAPES = st.builds(Shape, st.floats(1e8, 1e12), st.floats(1e3, 1e6))
WORKS = st.builds(Work, st.floats(0, 1e9), st.floats(0, 1e9), st.floats(1, 1e5))


@given(SHAPES, WORKS, st.sampled_from(GPUS), st.integers(1, 6))
def test_twice_the_gpus_are_never_slower_once_split_and_more_work_or_weights_never_faster(
    shape: Shape, work: Work, gpu: Any, doublings: int
) -> None:
    n = 2**doublings
    now = estimate(shape, work, gpu, n).wall_s
    assert estimate(shape, work, gpu, 2 * n).wall_s <= now * (1 + 1e-9)
    assert estimate(shape, Work(work.prompt * 2, work.new, work.held), gpu, n).wall_s >= now
    assert estimate(shape, Work(work.prompt, work.new * 2, work.held), gpu, n).wall_s >= now
    assert estimate(Shape(shape.parameters * 2, shape.kv_bytes), work, gpu, n).wall_s >= now


@given(SHAPES, WORKS, st.sampled_from(GPUS), st.integers(1, 8), st.integers(1, 64))
def test_copies_share_the_work_and_not_the_start(
    shape: Shape, work: Work, gpu: Any, n: int, copies: int
) -> None:
    one, many = estimate(shape, work, gpu, n), estimate(shape, work, gpu, n, copies)
    assert many.load_s == one.load_s
    assert many.wall_s - many.load_s == pytest.approx((one.wall_s - one.load_s) / copies)
    assert many.gpu_hours >= one.gpu_hours * (1 - 1e-9)


def test_an_8b_model_on_an_h100_decodes_some_thousand_tokens_a_second() -> None:
    """Order of magnitude of what vLLM is known to reach with a full batch of 8B models: 5,000 to
    20,000 tokens/s on one H100.
    """
    (h100,) = [gpu for gpu in GPUS if gpu.name.startswith("H100")]
    found = estimate(Shape(8.03e9, 131_072), CARD, h100)
    assert 5_000 < CARD.new / found.decode_s < 20_000


@pytest.mark.parametrize(
    ("queue", "work", "within"),
    [("mixed", Work(45_377, 37_251, 606), 0.05), ("humaneval", Work(1_634, 81_920, 230), 0.15)],
)
def test_the_estimate_is_what_an_h200_took(queue: str, work: Work, within: float) -> None:
    """Of scripts/bench's two queues, the bare engine's time; its random weights write to the limit,
    so the tokens are known beforehand.
    """
    measured = json.loads((ROOT / "results/bench/h200.json").read_text())["overhead"]["raw"][queue][
        "bare_s"
    ]
    (h200,) = [gpu for gpu in GPUS if gpu.name.startswith("H200")]
    found = estimate(Shape(7.382e9, 131_072), work, h200)
    assert found.prefill_s + found.decode_s == pytest.approx(
        statistics.median(measured), rel=within
    )


def test_a_small_model_is_bound_by_the_engines_steps() -> None:
    """SmolLM2-135M on the same H200 took 4.4 ms a step, whatever its batch; its weights alone would
    be read in 0.07 ms.
    """
    (h200,) = [gpu for gpu in GPUS if gpu.name.startswith("H200")]
    assert estimate(
        Shape(1.345e8, 23_040), Work(0, 256 * 1000, 300), h200
    ).decode_s == pytest.approx(4.4)
