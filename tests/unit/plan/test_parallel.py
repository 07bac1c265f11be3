"""What is refused before anything loads as these GPUs cannot hold it, and where a judge runs."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from evals.errors import InputError
from evals.generators import EngineSettings
from evals.generators.placing import Places, on_gpus
from evals.models.embedded import embedded_folder
from evals.models.resolve import resolve
from evals.plan import parallel
from evals.plan.gpu_hours import SHARE, gpu_named, shape_of_size
from evals.plan.make import make_plan
from evals.plan.parallel import bytes_in_memory, check_memory, expected, side_by_side, unsplit
from evals.plan.settings import RunSettings
from evals.plan.tuning import RULES
from evals.plan.work import work_of
from evals.report.dry_run import describe
from evals.runs.progress import Progress
from evals.runs.session import execute
from tests.resilience.fake_runs import Engines

GB = 1_000_000_000


def gpus(n: int, settings: EngineSettings, memory: int = 80 * GB) -> Places:
    found = on_gpus(settings, list(map(str, range(n))), "CUDA_VISIBLE_DEVICES")
    return replace(found, name="NVIDIA H100 80GB HBM3", memory=memory)


@pytest.mark.parametrize(
    ("weights", "tensor", "n", "says"),
    [
        (16, None, 8, None),
        (71, None, 8, None),
        (141, 2, 8, None),
        (141, None, 8, "take 141 GB, and an engine has 74 GB on 1 x NVIDIA H100 80GB HBM3. Give"
         " --tensor-parallel-size 4, or"),
        (141, None, 2, "It needs 4 such GPUs, and 2 are visible"),
        (810, 8, 8, "an engine has 589 GB on 8 x NVIDIA H100 80GB HBM3. It needs 16 such GPUs"),
    ],
)  # fmt: skip
def test_weights_that_do_not_fit_are_refused_with_the_split_that_does(
    weights: int, tensor: int | None, n: int, says: str | None
) -> None:
    settings = EngineSettings(tensor)
    if says is None:
        check_memory("m", weights * GB, settings, gpus(n, settings))
        return
    with pytest.raises(InputError) as caught:
        check_memory("m", weights * GB, settings, gpus(n, settings))
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("stored", "dtype", "quantization", "takes"),
    [
        ("bfloat16", "auto", None, 1000),
        ("float32", "auto", None, 500),
        ("float32", "float32", None, 1000),
        ("bfloat16", "auto", "bitsandbytes", 250),
    ],
)
def test_weights_are_counted_as_the_engine_will_hold_them(
    stored: str, dtype: str, quantization: str | None, takes: int, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"torch_dtype": stored}))
    assert bytes_in_memory(tmp_path, dtype, quantization) == 0
    (tmp_path / "model.safetensors").write_bytes(bytes(1000))
    (tmp_path / "adapter_model.safetensors").write_bytes(bytes(10))
    # The same weights once more, in another format.
    (tmp_path / "pytorch_model.bin").write_bytes(bytes(1010))
    assert bytes_in_memory(tmp_path, dtype, quantization) == takes
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "pytorch_model.bin").unlink()
    # A hub's folder before the weights follow.
    index = {"metadata": {"total_size": 1000}, "weight_map": {}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert bytes_in_memory(tmp_path, dtype, quantization) == takes


@pytest.mark.parametrize(
    ("weights", "asked", "becomes"),
    [
        (14, EngineSettings(8), EngineSettings(data_parallel_size=8)),
        (14, EngineSettings(2, None, 2), EngineSettings(data_parallel_size=4)),
        (14, EngineSettings(4), EngineSettings(data_parallel_size=8)),
        (140, EngineSettings(8), EngineSettings(8)),
        (0, EngineSettings(8), EngineSettings(8)),
    ],
)
def test_a_judge_that_fits_one_gpu_runs_on_all_of_them(
    weights: int, asked: EngineSettings, becomes: EngineSettings
) -> None:
    assert unsplit(weights * GB, asked, gpus(8, asked)) == becomes


@pytest.mark.parametrize(
    ("weights", "asked", "n", "memory", "devices"),
    [
        # Two of 7B in 16 bits.
        ([14, 14], EngineSettings(), 8, 80, [("0", "1", "2", "3"), ("4", "5", "6", "7")]),
        ([14, 14], EngineSettings(4), 8, 80, [("0", "1", "2", "3"), ("4", "5", "6", "7")]),
        ([14, 14, 14], EngineSettings(), 2, 80, [("0",), ("1",)]),
        ([14, 14, 140], EngineSettings(), 8, 80, [("0", "1", "2", "3"), ("4", "5", "6", "7")]),
        ([14, 140], EngineSettings(), 8, 80, []),
        ([14, 0], EngineSettings(), 8, 80, []),
        ([14, 14], EngineSettings(), 1, 80, [("0",), ("0",)]),
        ([14, 14, 14], EngineSettings(), 1, 80, [("0",), ("0",), ("0",)]),
        ([14, 14, 60], EngineSettings(), 1, 80, [("0",), ("0",)]),
        ([14, 14], EngineSettings(), 1, 48, []),
        ([14, 14], EngineSettings(gpu_memory_utilization=0.5), 1, 80, []),
        ([14, 0], EngineSettings(), 1, 80, []),
        ([14], EngineSettings(), 8, 80, []),
        ([14, 14], EngineSettings(), 1, 0, []),
    ],
)  # fmt: skip
def test_judges_load_at_the_same_time_where_the_memory_holds_them(
    weights: list[int], asked: EngineSettings, n: int, memory: int, devices: list[tuple[str, ...]]
) -> None:
    where = gpus(n, asked, memory * GB)
    found = side_by_side([one * GB for one in weights], asked, where)
    assert [place.each for place, _ in found] == devices
    for place, own in found:
        assert own.tensor_parallel_size is None
        if n > 1:
            assert own.data_parallel_size == len(place.each)
    if n == 1 and found:
        shares = [own.gpu_memory_utilization or 0 for _, own in found]
        assert sum(shares) == pytest.approx(SHARE)
        for share, one, (_, own) in zip(shares, weights, found, strict=False):
            cache = own.arguments()["kv_cache_memory_bytes"]
            assert one * GB + cache == pytest.approx(share * memory * GB - 3 * GB, abs=2)
            assert cache >= 6 * GB


def test_on_a_cpu_judges_load_one_after_the_other() -> None:
    where = Places("VLLM_CPU_OMP_THREADS_BIND", ("0,1", "2,3"), "core", 4)
    assert side_by_side([GB, GB], EngineSettings(), where) == []


@pytest.mark.parametrize(
    ("size", "parameters", "kv_bytes"),
    [("70b", 70e9, 327_680), ("8.03B", 8.03e9, 131_072), ("350m", 350e6, 35_000)],
)
def test_a_size_alone_is_taken_for_a_llamas(size: str, parameters: float, kv_bytes: float) -> None:
    shape = shape_of_size(size)
    assert shape.parameters == pytest.approx(parameters)
    assert shape.kv_bytes == pytest.approx(kv_bytes, rel=0.02)


@pytest.mark.parametrize("size", ["", "70", "0b", "70bb", "-1b", "seven b"])
def test_what_is_no_size_is_said(size: str) -> None:
    with pytest.raises(InputError, match="write a number of parameters"):
        shape_of_size(size)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("NVIDIA H100 80GB HBM3", "H100 80 GB"),
        ("NVIDIA A100-SXM4-80GB", "A100 80 GB"),
        ("NVIDIA H200", "H200 141 GB"),
        ("NVIDIA L40S", "L40S 48 GB"),
        ("AMD Instinct MI300X", None),
        ("", None),
    ],
)
def test_a_gpu_is_known_by_its_drivers_name(name: str, found: str | None) -> None:
    gpu = gpu_named(name)
    assert (gpu.name if gpu else None) == found


def test_heads_that_cannot_be_split_are_refused_by_vllms_own_rule(tmp_path: Path) -> None:
    settings = RunSettings("smollm2", suite="smoke", tasks=("mmlu",), out=tmp_path)
    with pytest.raises(InputError, match=r"heads \(9\) must be divisible by tensor parallel size"):
        make_plan(replace(settings, engine=EngineSettings(tensor_parallel_size=2)))


def test_of_weights_that_are_not_there_a_dry_run_says_all_the_same(tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(embedded_folder(), bare, ignore=shutil.ignore_patterns("*.safetensors"))
    settings = RunSettings(str(bare), suite="smoke", tasks=("mmlu",), out=tmp_path / "run")
    with pytest.raises(InputError, match="holds no weights"):
        make_plan(settings)
    many = replace(settings, engine=EngineSettings(data_parallel_size=512))
    said = describe(make_plan(many, need_judges=False))
    assert "512 x H100 80 GB, 512 copies: about" in said
    assert "the run would be refused: --data-parallel-size 512 needs 512 cores" in said
    with pytest.raises(InputError, match="needs 512 cores"):
        make_plan(replace(many, model="smollm2"))
    said = describe(make_plan(settings, need_judges=False), parameters="70b")
    assert "70B parameters" in said
    assert "4 x H100 80 GB: about" in said
    assert "; 8 x H100 80 GB, 2 copies: about" in said


def test_what_a_run_took_stands_beside_what_was_estimated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = EngineSettings(data_parallel_size=8)
    monkeypatch.setattr(parallel, "places", lambda settings: gpus(8, settings))
    plan = make_plan(
        RunSettings("smollm2", suite="smoke", tasks=("mmlu",), out=tmp_path, engine=engine)
    )
    asked = work_of(plan.render("mmlu"))
    found = expected(plan.model, engine, plan.places, asked)
    assert found is not None
    assert found.where == "8 x H100 80 GB, 8 copies"
    assert expected(resolve("smollm2"), engine, Places("", ("",), "core", 2), asked) is None

    class Said(Progress):
        def note(self, text: str) -> None:
            notes.append(text)

    notes: list[str] = []
    execute(plan, Said(quiet=True), Engines())
    said = [note for note in notes if note.startswith("estimated ")]
    assert said == [f"estimated {found.wall_s:.0f} s on 8 x H100 80 GB, 8 copies, took 0 s"]


def test_the_share_of_a_gpus_memory_is_the_one_that_vllm_takes_by_itself() -> None:
    from vllm.engine.arg_utils import EngineArgs

    assert EngineArgs.gpu_memory_utilization == SHARE
    assert "gpu_memory_utilization" not in EngineSettings().arguments()
    assert "gpu_memory_utilization" not in RULES
