"""What is said while a run is under way: how fast it is, and how long it will take by the work that
is left, not by the requests.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.generators import Text
from evals.generators.fake import FakeGenerator
from evals.models.prompts import Rendered
from evals.plan.work import typical_new_tokens, work_of
from evals.records import Completion, ItemId, Output, Sampling
from evals.registry import BENCHMARKS, benchmark_class
from evals.runs.ahead import Ahead
from evals.runs.asking import Asker, longest_first
from evals.runs.progress import Progress
from evals.storage.store import Store


def request(item_id: str, most: int, *, n: int = 1, check: str = "", n_prompt: int = 0) -> Rendered:
    return Rendered(ItemId(item_id), check, "", (7,) * n_prompt, (), Sampling(most, n=n), most)


def left(lines: Sequence[str]) -> list[str]:
    return [found[1] if (found := re.search(r", about (.*) left$", line)) else "" for line in lines]


def answer(n_tokens: int, n_prompt: int = 0, n_cached: int = 0) -> Completion:
    return Completion((Output("x", token_ids=(7,) * n_tokens),), None, None, n_prompt, n_cached)


def test_the_time_left_goes_by_the_work_that_is_left(capsys: pytest.CaptureFixture[str]) -> None:
    """Ten long requests are answered first, in 100 s; ninety short ones of a tenth of the work each
    take 90 s more, not 900.
    """
    times = iter([0.0, 100.0, 145.0, 200.0, 200.0, 200.0])
    progress = Progress(clock=lambda: next(times))
    long = [request(f"one/{at}", 1000) for at in range(10)]
    short = [request(f"two/{at}", 100) for at in range(90)]
    progress.start("generate", 100, Ahead(work_of([*long, *short])))
    for asked, n in ((long, 1000), (short[:45], 100), (short[45:], 100)):
        for one in asked:
            progress.ahead.answered(one, answer(n))  # type: ignore[union-attr]
        progress.advance(len(asked), prompt_tokens=500, output_tokens=n * len(asked))
    progress.stop()
    started, *lines, ended = capsys.readouterr().err.splitlines()
    assert started == "generate: 100 to do"
    assert [line.partition(",")[0] for line in lines] == [
        "generate: 10 of 100",
        "generate: 55 of 100",
        "generate: 100 of 100",
    ]
    assert "5 tok/s in, 100 tok/s out" in lines[0]
    assert left(lines) == ["90 s", "45 s", ""]
    assert ended == "generate: 100 of 100 in 3 min"


def test_a_note_of_others_words_cannot_steer_the_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Progress().note("the server answered \x1b[2J\x9b2J\u202e")
    assert capsys.readouterr().err == "the server answered \\x1b[2J\\x9b2J\\u202e\n"


def test_tokens_of_answers_that_are_not_finished_count_and_none_counts_twice(
    capsys: pytest.CaptureFixture[str],
) -> None:
    times = iter([0.0, 60.0, 120.0, 120.0])
    progress = Progress(clock=lambda: next(times), every_s=10.0)
    asked = [request(f"one/{at}", 1000) for at in range(4)]
    progress.start("generate", 4, Ahead(work_of(asked)))
    progress.moved({Text("one", 250): 4})
    for one in asked[:2]:
        progress.ahead.answered(one, answer(1000))  # type: ignore[union-attr]
    progress.advance(2, output_tokens=2000)
    _, moved, landed = capsys.readouterr().err.splitlines()
    assert moved == "generate: 0 of 4, 0 tok/s in, 17 tok/s out, about 3 min left"
    # 2,500 of 4,000 tokens are there: no text gets longer than it may be.
    assert landed == "generate: 2 of 4, 0 tok/s in, 21 tok/s out, about 72 s left"


def test_what_answers_turn_out_to_be_corrects_what_was_expected() -> None:
    asked = [request(f"one/{at}", 100) for at in range(1000)]
    ahead = Ahead(work_of(asked))
    assert ahead.share(1.0) == 0
    for one in asked[:500]:
        ahead.answered(one, answer(10))
    # By the limits 0.05: half as many answers as before are left, as short as those that came.
    assert 0.4 < ahead.share(1.0) < 0.5
    ahead.answered(asked[500], None)
    ahead.answered(request("two/0", 9), answer(9))
    for one in asked[501:]:
        ahead.answered(one, answer(10))
    assert ahead.share(1.0) == 1.0


def test_prompts_count_by_what_is_to_be_computed_of_them() -> None:
    """Of four equal ones the second to fourth are nearly all in the cache."""
    first, *others = [request(f"one/{at}", 1, n_prompt=1600) for at in range(4)]
    ahead = Ahead(work_of([first, *others]))
    ahead.answered(first, answer(1, 1600))
    assert ahead.share(1.0) > 0.3
    assert Ahead(work_of([others[0], request("two/0", 1, n_prompt=10)])).share(1.0) == 0


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
    ahead = Ahead(work_of([request("alpaca_eval/0", 8192), request("j/0", 400)]))
    ahead.answered(request("j/0", 400), answer(400))
    assert ahead.share(1.0) == 0.5
    # A request of nothing that is to be scored has no text.
    assert Ahead(work_of([replace(request("arc/0", 1), scored=(((), ()),))])).share(1.0) == 0
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
