"""Judges of this machine: loaded at the same time where the memory holds them, after the evaluated
model's engine is gone; else one after the other.
"""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from evals.errors import EnvironmentFault
from evals.generators import EngineSettings, Generator
from evals.generators.fake import FakeGenerator
from evals.generators.placing import Places
from evals.models.embedded import embedded_folder
from evals.models.resolve import Model
from evals.plan.make import Plan
from evals.plan.settings import RunSettings
from evals.runs import engines, judging
from evals.runs.beside import Beside
from evals.runs.session import run
from tests.resilience.fake_runs import judged, reply, results, settings

GB = 1_000_000_000
PATIENCE_S = 120
ONE = Places("CUDA_VISIBLE_DEVICES", ("0",), "GPU", 1, "NVIDIA H100 80GB HBM3", 80 * GB)
TWO = replace(ONE, each=("0", "1"), n_devices=2)
CORES = Places("VLLM_CPU_OMP_THREADS_BIND", ("",), "core", 64)


class Machine:
    """Its fake engines, and what became of them in order. together: judges that wait for each other
    while they load.  broken: one that cannot beside another.
    """

    def __init__(self, where: Places, together: int = 1, broken: str = "") -> None:
        self.where, self.broken = where, broken
        self.barrier = Barrier(together)
        self.events: list[str] = []
        self.told: dict[str, tuple[Places | None, EngineSettings]] = {}

    def engine(self, name: str, answer: Any) -> Generator:
        events = self.events

        class Named(FakeGenerator):
            def stream(self, requests: Sequence[Any]) -> Iterator[Any]:
                events.append(f"ask {name}")
                return super().stream(requests)

            def close(self) -> None:
                events.append(f"close {name}")

        return Named(answer, 8)

    def model(self, plan: Plan) -> Generator:
        """See run, make_generator."""
        return self.engine("model", reply)

    def judge(
        self, model: Model, settings: RunSettings, n_beside: int = 1, where: Places | None = None
    ) -> Generator:
        """See evals.runs.engines.start_engine."""
        name = Path(model.argument).name
        if where is not None:
            self.barrier.wait(PATIENCE_S)
            if name == self.broken:
                raise EnvironmentFault("no memory is left.")
        self.events.append(f"load {name}")
        self.told[name] = where, settings.engine
        return self.engine(name, judged)


@pytest.fixture
def judges(tmp_path: Path) -> tuple[str, ...]:
    for name in ("truth", "info"):
        shutil.copytree(embedded_folder(), tmp_path / name, copy_function=link)
    return tuple(f"{name}={tmp_path / name}" for name in ("truth", "info"))


def link(source: str, target: str) -> None:
    Path(target).symlink_to(source)


def asked(out: Path, judges: tuple[str, ...], machine: Machine, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(judging, "places", lambda _: machine.where)
    patch.setattr(engines, "start_engine", machine.judge)
    done = run(
        settings(out, model="smollm2", tasks=("truthfulqa",), judges=judges),
        make_generator=machine.model,
    )
    assert done.is_complete


@pytest.mark.parametrize(
    ("where", "devices"), [(TWO, [("1",), ("0",)]), (ONE, [("0",), ("0",)])], ids=["2", "1"]
)
def test_two_that_fit_load_at_the_same_time_once_the_model_is_gone(
    where: Places,
    devices: list[tuple[str]],
    judges: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    both = Machine(where, together=2)
    asked(tmp_path / "both", judges, both, monkeypatch)
    assert both.events[:2] == ["ask model", "close model"]
    assert sorted(both.events[2:4]) == ["load info", "load truth"]
    assert both.events[4:] == ["ask info", "close info", "ask truth", "close truth"]
    placed = {name: place.each for name, (place, _) in both.told.items() if place}
    assert placed == dict(zip(("truth", "info"), devices, strict=True))

    single = Machine(CORES)
    asked(tmp_path / "single", judges, single, monkeypatch)
    assert single.events[2:] == [
        "load info", "ask info", "close info", "load truth", "ask truth", "close truth",
    ]  # fmt: skip
    assert single.told["truth"] == (None, EngineSettings())
    assert results(tmp_path / "both") == results(tmp_path / "single")


def test_where_one_does_not_start_beside_the_other_they_are_loaded_one_by_one(
    judges: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(ONE, together=2, broken="info")
    asked(tmp_path / "run", judges, machine, monkeypatch)
    # The one that did start is not taken for its own turn: it has the memory that is lacking.
    assert machine.events[2:] == [
        "load truth", "close truth",
        "load info", "ask info", "close info", "load truth", "ask truth", "close truth",
    ]  # fmt: skip
    assert machine.told["info"][0] is None


def test_what_is_stored_loads_nothing(
    judges: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked(tmp_path / "run", judges, Machine(TWO, together=2), monkeypatch)
    again = Machine(TWO)
    asked(tmp_path / "run", judges, again, monkeypatch)
    assert again.events == []


def test_an_engine_that_nobody_waits_for_any_more_is_freed_when_it_has_loaded() -> None:
    machine, barrier = Machine(ONE), Barrier(2)
    beside = Beside()

    def start() -> Generator:
        barrier.wait(PATIENCE_S)
        return machine.engine("late", reply)

    beside.begin({"late": start})
    (loading,) = beside._loading.values()
    beside.close()
    assert "late" not in beside
    barrier.wait(PATIENCE_S)
    loading.thread.join(PATIENCE_S)
    assert machine.events == ["close late"]
