"""Judging loses nothing and pays for nothing twice: killed, refused, late, talkative. The judge is
a server on this machine.
"""

import gzip
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from evals.errors import EnvironmentFault, EvalsError, Incomplete, InputError
from evals.generators import Failure
from evals.generators.openai import OpenAIGenerator
from evals.models.prompts import Rendered
from evals.records import Completion, ItemId, Message, Sampling
from evals.report.run_row import row_from_summary
from evals.report.table import markdown
from evals.runs.session import run
from evals.runs.writing import RunResult
from tests.openai_server import Body, Reply, chat, error, serving
from tests.resilience.fake_runs import Engines, results, settings
from tests.resilience.test_judged_runs import JUDGED, N_VERDICTS, verdict

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import sys
from pathlib import Path
from evals.report.run_row import row_from_summary
from evals.report.table import markdown
from evals.runs.session import run
from tests.resilience.fake_runs import Engines, settings
from tests.resilience.test_judged_runs import JUDGED
judges = (f"all=openai:judge@{sys.argv[2]}",)
run(settings(Path(sys.argv[1]), tasks=JUDGED, judges=judges), make_generator=Engines())
"""


def prompt_of(body: Body) -> str:
    return "\n".join(message["content"] for message in body["messages"])


def judged(out: Path, url: str) -> RunResult:
    return run(
        settings(out, tasks=JUDGED, judges=(f"all=openai:judge@{url}",)), make_generator=Engines()
    )


def answers(out: Path) -> int:
    """How many answers and verdicts the store holds, read from outside while the run goes on."""
    try:
        with sqlite3.connect(f"file:{out / 'store.sqlite'}?mode=ro", uri=True, timeout=5) as store:
            (count,) = store.execute("SELECT count(*) FROM answers").fetchone()
            return int(count)
    except sqlite3.OperationalError:
        return 0


# --- killed ---------------------------------------------------------------------------------------


def test_killed_while_judging_it_asks_again_only_for_what_had_not_arrived(tmp_path: Path) -> None:
    """Nine verdicts arrive while every other request hangs: they are in the store one by one, not
    when all are there.
    """
    held, lock, given = threading.Event(), threading.Lock(), list[str]()

    def script(body: Body, before: int) -> Reply:
        prompt = prompt_of(body)
        with lock:
            is_given = held.is_set() or len(given) < 9
            if is_given:
                given.append(prompt)
        if not is_given:
            held.wait(600)
        return chat(body, verdict(prompt))

    out, whole = tmp_path / "run", tmp_path / "whole"
    with serving(script) as server:
        command = [sys.executable, "-c", PROGRAM, str(out), server.url]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        victim = subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True)
        try:
            n_answers = 8 + 5 + 4
            deadline = time.monotonic() + 300
            while (
                (answers(out) < n_answers + 9 or len(server.asked) < N_VERDICTS)
                and victim.poll() is None
                and time.monotonic() < deadline
            ):
                time.sleep(0.02)
            assert answers(out) == n_answers + 9
        finally:
            os.killpg(victim.pid, signal.SIGKILL)
            victim.wait()
        arrived = set(given)
        held.set()
        n_before = len(server.asked)
        assert judged(out, server.url).is_complete
        asked_again = [prompt_of(body) for body in server.asked[n_before:]]
        assert arrived.isdisjoint(asked_again)
        assert len(asked_again) == len(set(asked_again)) == N_VERDICTS - 9
        judged(whole, server.url)
    assert results(out) == results(whole)


def test_a_judge_that_refuses_half_way_stops_the_run_and_what_it_said_is_kept(
    tmp_path: Path,
) -> None:
    """The key is withdrawn after six verdicts; with a new one the rest is asked, and
    nothing twice.
    """
    lock, given, is_withdrawn = threading.Lock(), set[str](), True

    def script(body: Body, before: int) -> Reply:
        with lock:
            if is_withdrawn and len(given) >= 6:
                return error(401, "key withdrawn")
            given.add(prompt_of(body))
        return chat(body, verdict(prompt_of(body)))

    with serving(script) as server:
        with pytest.raises(Incomplete, match=r"refuses the key \(401\)"):
            judged(tmp_path / "run", server.url)
        kept, is_withdrawn, n_before = set(given), False, len(server.asked)
        assert len(kept) == 6
        assert judged(tmp_path / "run", server.url).is_complete
        assert kept.isdisjoint(prompt_of(body) for body in server.asked[n_before:])


# --- what a server answers ------------------------------------------------------------------------


def requests(n: int) -> list[Rendered]:
    sampling = Sampling(max_tokens=8)
    return [
        Rendered(ItemId(f"x/{k}"), "", "t", (), (Message("user", f"say {k}"),), sampling, 8)
        for k in range(n)
    ]


def collected(url: str, n: int, **options: Any) -> dict[str, Completion | Failure]:
    generator = OpenAIGenerator("judge", [url], first_wait_s=0.01, **options)
    try:
        return {
            request.item_id: answer
            for batch in generator.stream(requests(n))
            for request, answer in batch
        }
    finally:
        generator.close()


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504])
def test_every_busy_answer_is_asked_again_until_it_is_a_verdict(status: int) -> None:
    with serving(lambda body, before: error(status) if before < 2 else chat(body)) as server:
        found = collected(server.url, 5)
        assert set(server.times.values()) == {3}
    assert all(isinstance(answer, Completion) for answer in found.values())


def test_a_request_that_runs_out_of_time_is_asked_again() -> None:
    with serving(
        lambda body, before: Reply(chat(body).body, wait_s=0 if before else 3.0)
    ) as server:
        found = collected(server.url, 3, timeout_s=1.0)
        assert set(server.times.values()) == {2}
    assert all(isinstance(answer, Completion) for answer in found.values())


def test_one_request_that_always_runs_out_of_time_fails_alone_after_three_tries() -> None:
    def script(body: Body, before: int) -> Reply:
        return Reply(chat(body).body, wait_s=2.0 if "say 1" in prompt_of(body) else 0)

    with serving(script) as server:
        found = collected(server.url, 4, timeout_s=0.7)
        assert sorted(server.times.values()) == [1, 1, 1, 3]
    assert found["x/1"] == Failure("the server gave no answer in time")
    assert sum(isinstance(answer, Completion) for answer in found.values()) == 3


def test_a_server_that_never_answers_in_time_stops_the_run() -> None:
    with (
        serving(lambda body, _: Reply(chat(body).body, wait_s=2.0)) as server,
        pytest.raises(EnvironmentFault, match="cannot be reached"),
    ):
        collected(server.url, 3, timeout_s=0.3, retries=1)


@pytest.mark.parametrize("status", [402, 404, 405, 406, 410, 418, 451])
def test_a_refusal_that_is_not_about_the_request_stops_all_at_once_and_is_never_asked_again(
    status: int,
) -> None:
    with serving(lambda body, _: error(status, "the model judge was withdrawn")) as server:
        with pytest.raises(InputError) as caught:
            collected(server.url, 300, concurrency=4)
        assert set(server.times.values()) == {1}
        assert len(server.asked) <= 8
    assert str(status) in str(caught.value)
    assert "judge" in str(caught.value)


def test_a_judge_that_refuses_every_request_is_not_asked_them_all() -> None:
    """What newer models say to a parameter they no longer take: status 400, whatever is asked."""
    with serving(lambda body, _: error(400, "Unsupported parameter: 'max_tokens'")) as server:
        with pytest.raises(
            EvalsError, match=r"refuses model 'judge' \(400: .*Unsupported parameter"
        ):
            collected(server.url, 500, concurrency=4)
        assert 32 <= len(server.asked) <= 40


def test_refusals_of_many_requests_are_theirs_alone_once_one_was_answered() -> None:
    with serving(
        lambda body, _: (
            chat(body) if body["messages"][-1]["content"] == "say 0" else error(400, "too long")
        )
    ) as server:
        found = collected(server.url, 60, concurrency=1)
    assert sum(isinstance(answer, Failure) for answer in found.values()) == 59


def test_a_judges_requests_run_side_by_side_but_not_more_than_allowed() -> None:
    gate = threading.Barrier(6)

    def script(body: Body, before: int) -> Reply:
        gate.wait(120)  # six must be here at once, or nobody passes
        return chat(body)

    with serving(script) as server:
        found = collected(server.url, 24, concurrency=6)
        assert server.most_running == 6
    assert len(found) == 24


# --- what a judge says ----------------------------------------------------------------------------


def test_the_raw_text_of_every_verdict_is_kept_readable_or_not_and_the_unreadable_are_counted(
    tmp_path: Path,
) -> None:
    said = {"CLASS:": "I'd call it a refusal!", "True:": "yes", "Helpful:": "Hard to say\n"}

    def script(body: Body, before: int) -> Reply:
        prompt = prompt_of(body)
        words = next(
            (words for ending, words in said.items() if prompt.endswith(ending)), "neither"
        )
        return chat(body, words, {words: -0.25} if words == "yes" else None)

    with serving(script) as server:
        result = judged(tmp_path / "run", server.url)
    assert result.is_complete
    rows: dict[str, list[dict[str, Any]]] = {}
    for task in JUDGED:
        with gzip.open(
            tmp_path / "run" / "samples" / f"{task}.jsonl.gz", "rt", encoding="utf-8"
        ) as lines:
            rows[task] = [json.loads(line) for line in lines]
    assert {row["findings"]["xstest"]["text"] for row in rows["xstest"]} == {said["CLASS:"]}
    assert {row["findings"]["truth"]["text"] for row in rows["truthfulqa"]} == {"yes"}
    assert all(row["findings"]["truth"]["probability"] > 0.7 for row in rows["truthfulqa"])
    assert {row["findings"]["info"]["text"] for row in rows["truthfulqa"]} == {said["Helpful:"]}
    assert {row["findings"]["alpaca_eval_1"]["text"] for row in rows["alpaca_eval"]} == {"neither"}
    cells = result.summary["cells"]
    for key, n in (("xstest_safe_refused", 5), ("truthfulqa", 5), ("alpaca_eval_1", 4)):
        assert (cells[key]["n_judged"], cells[key]["n_unparsable"]) == (n, n)
    table = markdown([row_from_summary(result.summary)])
    for key, n, role in (
        ("xstest_safe_refused", 5, "xstest"),
        ("truthfulqa", 5, "info"),
        ("alpaca_eval_1", 4, "alpaca_eval_1"),
    ):
        said_of_it = (
            f"{n} of {n} items have a verdict that could not be read ({n} by"
            f" openai:judge@own-server as {role})"
        )
        assert cells[key]["value"] is None
        assert cells[key]["reason"].startswith(said_of_it)
        assert said_of_it in table
