"""What is said while a run is under way: how fast it is, and how long it will take by the work that
is left, not by the requests.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.generators.fake import FakeGenerator
from evals.models.prompts import Rendered
from evals.plan.gpu_hours import typical_new_tokens
from evals.records import Completion, ItemId, Sampling
from evals.registry import BENCHMARKS, benchmark_class
from evals.runs.asking import Asker, longest_first, work
from evals.runs.progress import Progress
from evals.storage.store import Store


def request(item_id: str, most: int, *, n: int = 1, check: str = "", n_prompt: int = 0) -> Rendered:
    return Rendered(ItemId(item_id), check, "", (7,) * n_prompt, (), Sampling(most, n=n), most)


def left(lines: Sequence[str]) -> list[str]:
    return [found[1] if (found := re.search(r", about (.*) left$", line)) else "" for line in lines]


def test_the_time_left_goes_by_the_work_that_is_left(capsys: pytest.CaptureFixture[str]) -> None:
    """Ten long requests are answered first, in 100 s; ninety short ones of a tenth of the work each
    take 90 s more, not 900.
    """
    times = iter([0.0, 100.0, 145.0, 200.0, 200.0, 200.0])
    progress = Progress(clock=lambda: next(times))
    progress.start("generate", 100, 10 * 100 + 90 * 10)
    progress.advance(10, 1000, prompt_tokens=500, output_tokens=1000)
    progress.advance(45, 450)
    progress.advance(45, 450)
    progress.stop()
    started, *lines, ended = capsys.readouterr().err.splitlines()
    assert started == "generate: 100 to do"
    assert [line.partition(",")[0] for line in lines] == [
        "generate: 10 of 100",
        "generate: 55 of 100",
        "generate: 100 of 100",
    ]
    assert "5 tok/s in, 10 tok/s out" in lines[0]
    assert left(lines) == ["90 s", "45 s", ""]
    assert ended == "generate: 100 of 100 in 3 min"


def test_a_phase_that_breaks_off_has_no_closing_line(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(clock=lambda: 0.0)
    progress.start("generate", 3)
    progress.advance(2)
    progress.stop()
    assert capsys.readouterr().err == "generate: 3 to do\n"


def test_steps_that_cost_the_same_are_counted_and_too_few_tell_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    times = iter([0.0, 40.0, 80.0, 800.0, 1000.0])
    progress = Progress(clock=lambda: next(times))
    progress.start("programs", 1_100)
    progress.spare(100)
    for done in (99, 1, 700, 200):
        progress.advance(done)
    lines = capsys.readouterr().err.splitlines()[1:]
    assert left(lines) == ["", "12 min", "3 min", ""]
    assert lines[-1].startswith("programs: 1,000 of 1,000, ")


@given(st.sampled_from(sorted(BENCHMARKS)), st.integers(1, 10_000))
def test_an_output_is_expected_to_be_as_long_as_is_usual_and_never_longer_than_it_may_be(
    task: str, most: int
) -> None:
    assert 1 <= typical_new_tokens(task, most) <= most
    assert typical_new_tokens(task, 10_000) == benchmark_class(task).usual_tokens > 0
    assert typical_new_tokens("ninth", most) == most


def test_alpaca_evals_limit_of_8192_tokens_does_not_count_as_their_number() -> None:
    asked = [
        request("alpaca_eval/0", 8192),
        request("humaneval/0", 512, n=20),
        request("mmlu/x/0", 1, n_prompt=750),
    ]
    assert [work([(one.item_id, [one])]) for one in asked] == [400, 20 * 150, 76]
    assert work([("j", [request("alpaca_eval/0", 300, check="alpaca_eval_1")])]) == 300
    waiting = [(one.item_id, [one]) for one in asked]
    assert [key for key, _ in longest_first(waiting[::-1])] == [
        "humaneval/0",
        "alpaca_eval/0",
        "mmlu/x/0",
    ]


def test_the_half_minute_of_loading_a_model_is_announced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asker = Asker(Store(tmp_path / "store.sqlite"), "run", Progress())
    for _ in range(2):  # once for one engine
        asker.load("smollm2", lambda: FakeGenerator(lambda request: Completion()))
    asker.close()
    asker.store.close()
    assert capsys.readouterr().err == "load smollm2\n"
