"""What is set of an engine by the weights, the machine and what is asked; else nothing."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.generators import EngineSettings, Generator
from evals.models.prompts import Rendered
from evals.plan import tuning
from evals.plan.gpu_hours import Shape
from evals.plan.make import Plan, make_plan
from evals.plan.settings import RunSettings
from evals.plan.tuning import RULES, Case, Machine, _was_eager, room_of, tune
from evals.plan.work import Work, work_of
from evals.records import Sampling
from evals.report.dry_run import describe
from evals.runs.progress import Progress
from evals.runs.session import execute
from evals.storage.run_folder import RunFolder
from tests.resilience.fake_runs import Engines

LLAMA_8B = Shape(8.03e9, 131_072, 128_256)
LLAMA_70B = Shape(70.6e9, 327_680, 128_256)
SMALL = Shape(135e6, 23_040, 49_152)
H100 = Machine("GPU", 1, 80e9, 1024, 16_384, True)
TIGHT = replace(H100, n=2, memory=90e9)
CORES = Machine("core", 2, 0, 256, 4096, True)
CARD = Work(2_460_000, 1_150_000, own=300)
"""About what the whole card asks."""


@pytest.mark.parametrize(
    ("asked", "room"),
    [
        ({}, 80e9 * 0.92 - 3e9 - 16e9),
        ({"gpu_memory_utilization": 0.5}, 80e9 * 0.5 - 3e9 - 16e9),
        ({"kv_cache_memory_bytes": 10**9, "gpu_memory_utilization": 0.5}, 1e9),
    ],
)
def test_the_caches_room_is_what_the_weights_leave_or_what_was_said(
    asked: dict[str, float], room: float
) -> None:
    assert room_of(16e9, H100, asked) == pytest.approx(room)
    assert room_of(0, replace(H100, n=4), {"kv_cache_memory_bytes": 5}) == 20
    assert room_of(16e9, replace(H100, memory=0), asked) == 0


COMPILED = {"tuning": {"set": {"enforce_eager": False}}}


def case(shape: Shape, queue: Work, machine: Machine, was_eager: bool | None = None) -> Case:
    return Case(shape, room_of(shape.weight_bytes, machine, {}), queue, machine, was_eager)


@pytest.mark.parametrize(
    ("shape", "machine", "queue", "becomes"),
    [
        # There is room for 1,400 of them: vLLM's own.
        (LLAMA_8B, H100, CARD, {}),
        (LLAMA_8B, replace(H100, memory=141e9), CARD, {}),
        (LLAMA_70B, replace(H100, n=4), CARD, {}),
        # 70.6 GB less 65.6: 19 thousand tokens.
        (Shape(32.8e9, 262_144), H100, CARD, {"max_num_seqs": 63}),
        (LLAMA_70B, TIGHT, CARD, {"max_num_seqs": 187}),
        (Shape(35.2e9, 262_144), H100, CARD, {"max_num_seqs": 8}),
        # What does not fit at all is refused elsewhere.
        (LLAMA_70B, H100, CARD, {}),
        # Answers that are all of one token take no place for long.
        (LLAMA_70B, TIGHT, replace(CARD, own=0), {}),
        # 3.2 GB for logits of 128,256 words.
        (LLAMA_8B, H100, replace(CARD, longest_scored=2496),
         {"long_prefill_token_threshold": 2495}),
        (LLAMA_8B, H100, replace(CARD, longest_scored=2495), {}),
        (LLAMA_8B, replace(H100, memory=0), replace(CARD, longest_scored=9999), {}),
        # A row of the card takes an hour and a quarter on two cores, its smoke items half a minute.
        (SMALL, CORES, CARD, {"enforce_eager": False}),
        (SMALL, CORES, Work(20_000, 7_000, own=300), {"enforce_eager": True}),
        (SMALL, replace(CORES, n=64), CARD, {"enforce_eager": True}),
        (LLAMA_8B, replace(CORES, n=64), CARD, {"enforce_eager": False}),
        (SMALL, replace(CORES, can_compile=False), CARD, {"enforce_eager": True}),
    ],
)  # fmt: skip
def test_only_what_the_machine_cannot_hold_or_a_long_queue_repays_is_set(
    shape: Shape, machine: Machine, queue: Work, becomes: dict[str, object]
) -> None:
    found = tune(case(shape, queue, machine), {})
    assert dict(found.arguments) == becomes
    assert found.why.keys() == becomes.keys()
    assert found.record()["set"] == becomes


def test_a_run_that_goes_on_computes_as_it_began_and_another_wish_is_said() -> None:
    for was_eager in (True, False):
        for queue in (CARD, replace(CARD, prompt=0, new=10)):
            found = tune(case(SMALL, queue, CORES, was_eager), {})
            assert found.arguments == {"enforce_eager": was_eager}
        word = "eager" if was_eager else "compiled"
        said = f"engine: {word}, as this run's answers so far; at a time up to 256 sequences,"
        assert found.line() == f"{said} 4,096 tokens"
        found = tune(case(SMALL, CARD, CORES, was_eager), {"enforce_eager": not was_eager})
        assert found.arguments == {}
        assert f"as asked; so far it was {word}" in found.line()
    assert tune(case(SMALL, CARD, CORES, True), {"enforce_eager": True}).why == {}


@given(
    st.floats(1e8, 1e12), st.floats(1e3, 1e6), st.integers(0, 300_000), st.floats(0, 1e9),
    st.floats(0, 1e9), st.floats(0, 1e5), st.integers(0, 10**6), st.sampled_from(["GPU", "core"]),
    st.integers(1, 64), st.floats(0, 2e11), st.integers(1, 1024), st.booleans(),
    st.sampled_from([None, True, False]),
)  # fmt: skip
def test_what_was_asked_stands_and_nothing_is_set_beyond_vllms_own(
    parameters: float, kv: float, words: int, prompt: float, new: float, own: float, scored: int,
    kind: str, n: int, memory: float, seqs: int, compiles: bool, was: bool | None,
) -> None:  # fmt: skip
    shape = Shape(parameters, kv, words)
    machine = Machine(kind, n, memory, seqs, 8192, compiles)
    one = case(shape, Work(prompt, new, own=own, longest_scored=scored), machine, was)
    found = tune(one, {}).arguments
    assert 1 <= found.get("max_num_seqs", seqs) <= seqs
    assert found.get("long_prefill_token_threshold", 0) <= scored
    assert ("enforce_eager" in found) is (kind == "core")
    assert tune(one, dict.fromkeys(RULES)).arguments == {}


@pytest.mark.parametrize(
    ("sessions", "eager"),
    [
        ([], None),
        ([{}], None),  # it broke off before anything was asked
        ([{"phases": {"generate": {"wall_s": 9, "requests": 5}}}], True),
        ([{"engine": {"enforce_eager": False}}], False),
        ([COMPILED, {"engine": {"enforce_eager": None}}], False),
        ([COMPILED, {"tuning": {"set": {"enforce_eager": True}}}], True),
    ],
)  # fmt: skip
def test_how_a_run_has_computed_its_folder_says(
    sessions: list[dict[str, object]], eager: bool | None
) -> None:
    held = [{"phases": {}} | session for session in sessions]
    assert _was_eager({"sessions": held}) is eager


def test_a_run_keeps_what_was_set_and_why_and_a_dry_run_says_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "_COMPILE_S", 0.0)  # all is worth compiling
    monkeypatch.setattr(tuning, "_has_compiler", lambda: True)
    settings = RunSettings("smollm2", suite="smoke", tasks=("mmlu",), out=tmp_path)
    assert "\nengine: compiled: compiling would save" in describe(make_plan(settings))
    started: list[bool | None] = []

    def start(plan: Plan) -> Generator:
        started.append(plan.settings.engine.enforce_eager)
        return Engines()(plan)

    execute(make_plan(settings), Progress(quiet=True), start)
    assert started == [False]
    session = RunFolder(tmp_path).read_json("run.json")["sessions"][-1]
    assert session["tuning"]["set"] == {"enforce_eager": False}
    assert session["tuning"]["at_a_time"] == {"max_num_seqs": 256, "max_num_batched_tokens": 4096}
    assert session["engine"]["enforce_eager"] is None  # nobody asked for it
    assert "engine:" not in describe(make_plan(settings))  # nothing is left to ask


def test_what_is_set_reaches_the_engine_beside_what_was_asked() -> None:
    asked = EngineSettings(
        max_num_seqs=7, engine_args=json.dumps({"watermark": 0.1, "block_size": 32})
    )
    scored = replace(CARD, longest_scored=9999)
    found = tune(case(LLAMA_70B, scored, TIGHT), asked.arguments())
    assert found.apply(asked).arguments() == asked.arguments() | {
        "long_prefill_token_threshold": 2806
    }
    asked = EngineSettings(engine_args=json.dumps({"long_prefill_token_threshold": 100}))
    found = tune(case(LLAMA_70B, scored, TIGHT), asked.arguments())
    assert found.apply(asked).arguments() == asked.arguments() | {"max_num_seqs": 187}
    assert found.at_a_time == (187, 16_384)
    assert tune(case(LLAMA_8B, CARD, H100), {"max_num_batched_tokens": 2048}).line() == (
        "engine: at a time up to 1,024 sequences, 2,048 tokens"
    )


def test_of_a_queue_is_counted_what_each_sequence_holds_of_its_own() -> None:
    def request(name: str, ids: range, new: int, n: int = 1) -> Rendered:
        sampling = Sampling(max_tokens=new, n=n)
        return Rendered(name, "check", "", tuple(ids), (), sampling, new)  # type: ignore[arg-type]

    # 100 tokens, of which the second request finds 96 in the cache: whole blocks of 16.
    both = [request("a/1", range(100), 10), request("a/2", range(100), 30, 2)]
    found = work_of(both)
    assert (found.prompt, found.new, found.longest_scored) == (104, 70, 0)
    assert found.own == pytest.approx((10 * (100 + 5) + 30 * (4 + 2 * 15)) / 70)
    halved = found.share(2)
    assert (halved.prompt, halved.new, halved.own) == (52, 35, found.own)
    continuations = ((tuple(range(100)), ((1,), (1, 2, 3))),)
    assert work_of([replace(both[0], scored=continuations)]).longest_scored == 103
    assert work_of([]).own == 0
