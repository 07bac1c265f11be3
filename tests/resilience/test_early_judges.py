"""Judges that are servers decide while the model still generates: the same row, nothing asked
twice, nothing lost.
"""

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evals.errors import Incomplete
from evals.models.prompts import Rendered
from evals.records import Completion
from evals.runs.progress import Progress
from evals.runs.session import run
from tests.openai_server import Reply, serving
from tests.resilience.conftest import JUDGED, N_VERDICTS, Judge, verdict
from tests.resilience.fake_runs import Engines, reply, results, settings, stored

N_ITEMS = 8 + 5 + 4


def waiting_before(n: int, until: Callable[[], bool]) -> Callable[[Rendered], Completion]:
    """An engine's answers, of which the n-th comes only once `until` holds."""
    answered: list[Rendered] = []

    def answer(request: Rendered) -> Completion:
        answered.append(request)
        deadline = time.monotonic() + 300
        while len(answered) == n and not until():
            assert time.monotonic() < deadline, "it does not come while the engine generates"
            time.sleep(0.01)
        return reply(request)

    return answer


def named(judge: Judge) -> str:
    """The judge's phase in run.json."""
    return f"judge {judge.everything[0].removeprefix('all=')}"


def phases(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "run.json").read_text())["sessions"][-1]["phases"]
    return found


def test_verdicts_arrive_while_the_engine_generates_and_the_row_is_that_of_judging_afterwards(
    tmp_path: Path, judge: Judge
) -> None:
    out, after = tmp_path / "early", tmp_path / "after"
    judge.says = lambda prompt: "half a pair \ud83d" if "balloons" in prompt else verdict(prompt)
    engine = Engines(waiting_before(N_ITEMS, lambda: len(judge.asked) > 0))
    early = settings(out, tasks=JUDGED, judges=judge.everything)
    assert run(early, make_generator=engine).is_complete
    assert len(judge.asked) == len(set(judge.asked)) == N_VERDICTS
    assert phases(out)[named(judge)]["requests"] == N_VERDICTS
    assert phases(out)[named(judge)]["wall_s"] > 0

    judge.asked.clear()
    run(settings(after, tasks=JUDGED, judges=()), make_generator=Engines())
    assert judge.asked == []
    assert run(
        settings(after, tasks=JUDGED, judges=judge.everything), make_generator=Engines()
    ).is_complete
    assert len(judge.asked) == N_VERDICTS
    assert results(out) == results(after)


def test_an_interrupted_run_keeps_the_verdicts_that_had_arrived(
    tmp_path: Path, judge: Judge
) -> None:
    out = tmp_path / "run"
    asked = settings(out, tasks=JUDGED, judges=judge.everything)
    answered: list[Rendered] = []

    def broken_off(request: Rendered) -> Completion:
        """The first seven at once, so that what they ask of the judge arrives when nothing more
        lands; then Ctrl-C.
        """
        answered.append(request)
        if len(answered) < 8:
            return reply(request)
        _until_quiet(judge)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(asked, make_generator=Engines(broken_off))
    kept = len(stored(out)) - 7
    assert kept >= 1
    assert kept == len(judge.asked)
    assert phases(out)[named(judge)]["requests"] == kept
    judge.asked.clear()
    assert run(asked, make_generator=Engines()).is_complete
    assert len(judge.asked) == N_VERDICTS - kept


def _until_quiet(judge: Judge) -> None:
    """Until the judge was asked, and every thread that asks it has ended."""
    deadline = time.monotonic() + 300
    while not judge.asked or any("(_work)" in one.name for one in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("is_early", [True, False])
def test_a_verdict_that_is_refused_is_missing_and_not_asked_again_in_the_same_run(
    tmp_path: Path, judge: Judge, is_early: bool
) -> None:
    out = tmp_path / "run"
    if not is_early:
        run(settings(out, tasks=JUDGED, judges=()), make_generator=Engines())
    judge.says = lambda prompt: None
    engine = Engines(waiting_before(N_ITEMS, lambda: len(judge.asked) > 0))
    result = run(settings(out, tasks=JUDGED, judges=judge.everything), make_generator=engine)
    assert (result.is_complete, result.n_missing) == (False, N_VERDICTS)
    assert len(judge.asked) == len(set(judge.asked)) == N_VERDICTS
    judge.says = verdict
    assert run(
        settings(out, tasks=JUDGED, judges=judge.everything), make_generator=Engines()
    ).is_complete
    assert len(judge.asked) == 2 * N_VERDICTS


def test_one_question_that_is_never_answered_holds_up_no_other(
    tmp_path: Path, judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is waited for as long after the last answer as _PATIENCE_S says, then asked again among
    the rest.
    """
    monkeypatch.setattr("evals.runs.early._PATIENCE_S", 0.3)
    first: list[str] = []
    released = threading.Event()
    waits: list[bool] = []

    def silent_once(prompt: str) -> str:
        if not first:
            first.append(prompt)
            waits.append(released.wait(600))
        return verdict(prompt)

    judge.says = silent_once
    engine = Engines(waiting_before(N_ITEMS, lambda: bool(first)))
    assert run(
        settings(tmp_path / "run", tasks=JUDGED, judges=judge.everything), make_generator=engine
    ).is_complete
    assert waits == []  # it still waits
    released.set()
    assert judge.asked.count(first[0]) == 2
    assert len(set(judge.asked)) == N_VERDICTS


def test_a_judge_that_refuses_the_key_is_said_at_once_and_stops_the_run_only_after_generating(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    with serving(lambda body, n: Reply({"error": {"message": "no"}}, 401)) as server:
        engine = Engines(waiting_before(N_ITEMS, lambda: len(server.asked) > 0))
        with pytest.raises(Incomplete, match="refuses the key"):
            run(
                settings(out, tasks=JUDGED, judges=(f"all=openai:judge@{server.url}",)),
                Progress(),
                engine,
            )
    said = capsys.readouterr().err
    assert (
        said.count(f"warning: judge openai:judge@{server.url}: {server.url} refuses the key (401).")
        == 1
    )
    assert "It is asked again when the model has finished." in said
    assert len(stored(out)) == N_ITEMS


def test_a_judge_is_not_asked_early_where_nothing_is_generated(
    tmp_path: Path, judge: Judge
) -> None:
    out = tmp_path / "run"
    run(settings(out, tasks=JUDGED, judges=()), make_generator=Engines())
    # every request is refused: asked early as well, it would be asked twice
    judge.says = lambda prompt: None
    run(settings(out, tasks=JUDGED, judges=judge.everything), make_generator=Engines())
    assert len(judge.asked) == N_VERDICTS
