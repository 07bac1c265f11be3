"""Judges that are servers decide while the model still generates: the same row, nothing asked twice, nothing lost."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evals.errors import InputError
from evals.progress import Progress
from evals.prompts import Rendered
from evals.records import Completion
from evals.runner import run
from tests.openai_server import Reply, serving
from tests.resilience.conftest import JUDGED, N_VERDICTS, Judge, verdict
from tests.resilience.fake_runs import Engines, reply, results, settings, stored

N_ITEMS = 8 + 5 + 4


def waiting_before(n: int, until: Callable[[], bool]) -> Callable[[Rendered], Completion]:
    """An engine's answers, of which the n-th comes only once `until` holds."""
    answered: list[Rendered] = []

    def answer(request: Rendered) -> Completion:
        answered.append(request)
        deadline = time.monotonic() + 30
        while len(answered) == n and not until():
            assert time.monotonic() < deadline, "it does not come while the engine generates"
            time.sleep(0.01)
        return reply(request)

    return answer


def verdicts_in(out: Path) -> int:
    """Verdicts that are committed: what the store holds beside the items' answers."""
    return len(stored(out)) - N_ITEMS


def phases(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "run.json").read_text())["sessions"][-1]["phases"]
    return found


def test_verdicts_arrive_while_the_engine_generates_and_the_row_is_that_of_judging_afterwards(tmp_path: Path, judge: Judge) -> None:
    out, after = tmp_path / "early", tmp_path / "after"
    engine = Engines(waiting_before(N_ITEMS, lambda: len(judge.asked) > 0))
    early = settings(out, tasks=JUDGED, judges=judge.everything)
    assert run(early, make_generator=engine).is_complete
    assert len(judge.asked) == len(set(judge.asked)) == N_VERDICTS
    assert phases(out)[f"judge {judge.everything[0].removeprefix('all=')}"]["requests"] == N_VERDICTS

    judge.asked.clear()
    run(settings(after, tasks=JUDGED, judges=()), make_generator=Engines())
    assert judge.asked == []
    assert run(settings(after, tasks=JUDGED, judges=judge.everything), make_generator=Engines()).is_complete
    assert len(judge.asked) == N_VERDICTS
    assert results(out) == results(after)


def test_an_interrupted_run_keeps_the_verdicts_that_had_arrived(tmp_path: Path, judge: Judge) -> None:
    out = tmp_path / "run"
    asked = settings(out, tasks=JUDGED, judges=judge.everything)

    def slowly(request: Rendered) -> Completion:
        time.sleep(0.05)  # verdicts arrive meanwhile
        return reply(request)

    with pytest.raises(KeyboardInterrupt):
        run(asked, make_generator=Engines(slowly, fails_after=N_ITEMS - 1))
    n_asked = -1
    while n_asked != len(judge.asked):  # what was under way still reaches the judge
        n_asked = len(judge.asked)
        time.sleep(0.5)
    kept = verdicts_in(out) + 1  # one item has no answer yet
    assert kept >= 1
    judge.asked.clear()
    assert run(asked, make_generator=Engines()).is_complete
    assert len(judge.asked) == N_VERDICTS - kept


def test_a_verdict_refused_early_is_asked_again_at_the_end(tmp_path: Path, judge: Judge) -> None:
    refused: list[str] = []

    def once(prompt: str) -> str | None:
        if not refused:
            refused.append(prompt)
            return None
        return verdict(prompt)

    judge.says = once
    engine = Engines(waiting_before(N_ITEMS, lambda: bool(refused)))
    assert run(settings(tmp_path / "run", tasks=JUDGED, judges=judge.everything), make_generator=engine).is_complete
    assert len(judge.asked) == N_VERDICTS + 1


def test_a_judge_that_refuses_the_key_is_said_while_the_engine_generates_and_stops_the_run_only_afterwards(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    with serving(lambda body, n: Reply({"error": {"message": "no"}}, 401)) as server:
        engine = Engines(waiting_before(N_ITEMS, lambda: len(server.asked) > 0))
        with pytest.raises(InputError, match="refuses the key"):
            run(settings(out, tasks=JUDGED, judges=(f"all=openai:judge@{server.url}",)), Progress(), engine)
    said = capsys.readouterr().err
    assert said.count(f"warning: judge openai:judge@{server.url}: {server.url} refuses the key (401).") == 1
    assert "It is asked again when the model has finished." in said
    assert len(stored(out)) == N_ITEMS


def test_a_judge_is_not_asked_early_where_nothing_is_generated(tmp_path: Path, judge: Judge) -> None:
    out = tmp_path / "run"
    run(settings(out, tasks=JUDGED, judges=()), make_generator=Engines())
    judge.says = lambda prompt: None  # every request is refused: asked early as well, it would be asked twice
    run(settings(out, tasks=JUDGED, judges=judge.everything), make_generator=Engines())
    assert len(judge.asked) == N_VERDICTS
