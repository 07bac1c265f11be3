"""Which copy gets which devices: all that are visible, in their order, none twice."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.errors import InputError
from evals.generators import EngineSettings, placing
from evals.generators.placing import ONE, on_cores, on_gpus, places, threads

VARIABLE = "CUDA_VISIBLE_DEVICES"


def settings(n: int | None, tensor: int | None = None, stages: int | None = None) -> EngineSettings:
    return EngineSettings(tensor, stages, n)


@pytest.mark.parametrize(
    ("asked", "visible", "each"),
    [
        (settings(None), "0 1 2 3", ("0", "1", "2", "3")),
        (settings(None), "5", ("5",)),
        (settings(None, 2), "0 1 2 3", ("0,1", "2,3")),
        (settings(None, 2), "0 1 2", ("0,1",)),
        (settings(None, 2, 2), "0 1 2 3", ("0,1,2,3",)),
        (settings(2), "3 7 1", ("3", "7")),
        (settings(2, 2), "GPU-aa GPU-bb GPU-cc GPU-dd", ("GPU-aa,GPU-bb", "GPU-cc,GPU-dd")),
        # Planned where there is no GPU.
        (settings(8), "", ("",) * 8),
        (settings(None), "", ("",)),
    ],
)
def test_gpus_are_dealt_out_in_their_order(
    asked: EngineSettings, visible: str, each: tuple[str, ...]
) -> None:
    assert on_gpus(asked, visible.split(), VARIABLE).each == each


@pytest.mark.parametrize(
    ("asked", "visible", "says"),
    [
        (settings(4, 2), "0 1", "--data-parallel-size 4 --tensor-parallel-size 2 needs 8 GPUs"),
        (settings(None, 2), "0", "--tensor-parallel-size 2 needs 2 GPUs; visible are 1"),
        (settings(2), "7", r"\(CUDA_VISIBLE_DEVICES=7\)"),
    ],
)
def test_more_than_there_are_is_refused(asked: EngineSettings, visible: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        on_gpus(asked, visible.split(), VARIABLE)


@pytest.mark.parametrize(
    ("asked", "bound", "each"),
    [
        (settings(None), "", ("",)),
        (settings(1), "0|1", ("",)),
        (settings(2), "", ("0,1,2", "3,4,5,6")),
        (settings(2), "auto", ("0,1,2", "3,4,5,6")),
        (settings(2), "nobind", ("nobind", "nobind")),
        (settings(2), "0-3|4-6", ("0-3", "4-6")),
        (settings(2, 2), "0|1|2|3", ("0|1", "2|3")),
    ],
)
def test_a_cpus_cores_are_split_or_taken_as_they_are_bound(
    asked: EngineSettings, bound: str, each: tuple[str, ...]
) -> None:
    assert on_cores(asked, range(7), bound).each == each


@pytest.mark.parametrize(("n", "bound"), [(8, ""), (2, "0-6"), (2, "0|1|2")])
def test_a_cpu_that_has_too_few_is_refused(n: int, bound: str) -> None:
    with pytest.raises(InputError, match=f"--data-parallel-size {n} needs {n} (cores|parts)"):
        on_cores(settings(n), range(7), bound)


def test_ray_that_is_not_installed_is_refused_before_anything_loads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = EngineSettings(8, distributed_executor_backend="ray")
    monkeypatch.setattr(placing, "find_spec", lambda _: None)
    with pytest.raises(InputError, match="pip install ray here and on every node"):
        places(asked)
    monkeypatch.setattr(placing, "find_spec", lambda name: name)
    assert places(asked) == ONE
    with pytest.raises(InputError, match="--data-parallel-size with Ray"):
        places(replace(asked, data_parallel_size=2))


@pytest.mark.parametrize(
    ("place", "n", "cores"),
    [
        ("0", "1", "{0}"),
        ("3,4,5,6", "4", "{3,4,5,6}"),
        ("0-3", "4", "{0,1,2,3}"),
        ("0-1,8|2,9-10", "6", "{0,1,2,8,9,10}"),
    ],
)
def test_a_copy_has_a_thread_for_each_of_its_own_cores(place: str, n: str, cores: str) -> None:
    """As vLLM sets them for the processes that it binds (OMPProcessManager)."""
    assert threads(place) == {
        "OMP_NUM_THREADS": n,
        "OMP_PLACES": cores,
        "OMP_PROC_BIND": "true",
    }


@pytest.mark.parametrize("place", ["", "nobind", "auto", "all", "0-", "0|x"])
def test_cores_that_are_not_named_bind_nothing(place: str) -> None:
    assert threads(place) == {}


@given(st.integers(2, 9), st.integers(1, 3), st.integers(0, 40))
def test_every_core_is_used_once(n: int, tensor: int, more: int) -> None:
    cores = range(n * tensor + more)
    each = on_cores(settings(n, tensor), cores, "").each
    parts = [part for one in each for part in one.split("|")]
    assert len(parts) == n * tensor
    assert [int(core) for part in parts for core in part.split(",")] == list(cores)
