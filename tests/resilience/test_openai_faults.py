"""The OpenAI-compatible generator against a server that misbehaves: nothing is invented, nothing is
lost, nothing is paid for twice.
"""

import gzip
import itertools
import json
import threading
import tracemalloc
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evals.errors import EnvironmentFault, EvalsError, InputError
from evals.generators.about import about
from evals.generators.openai import OpenAIGenerator
from evals.plan.settings import RunSettings
from evals.records import Completion, Sampling
from evals.runs.session import run
from tests.openai_requests import (
    KEY,
    Answers,
    answered,
    answers,
    chat_request,
    choose_request,
    collected,
    failed,
    first_then,
    ids_request,
)
from tests.openai_server import Body, Reply, Script, chat, completion, error, serving

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


# --- trouble that passes --------------------------------------------------------------------------

PASSING = {
    "429": error(429, "slow down"),
    "429 with Retry-After": error(429, "slow down", Retry_After="0.05"),
    "429 with a Retry-After that is no number": error(
        429, "slow down", Retry_After="Wed, 21 Oct 2026 07:28:00 GMT"
    ),
    "408": error(408),
    "409": error(409),
    "500": error(500, "oops"),
    "503 without JSON": Reply(b"<html>busy</html>", 503, {"Content-Type": "text/html"}),
    "reset": Reply(reset=True),
    "half a body": Reply({"choices": ["x" * 999]}, cut=True),
}


@pytest.mark.parametrize("trouble", PASSING.values(), ids=PASSING.keys())
def test_passing_trouble_is_asked_again_until_it_passes(trouble: Reply) -> None:
    with serving(first_then(trouble)) as server:
        found = answers(server, [ids_request(number) for number in range(6)])
        assert set(server.times.values()) == {2}
    assert [answered(found[f"x/{number}"]).text for number in range(6)] == [
        f"5 {number} #0" for number in range(6)
    ]


def test_nothing_is_asked_twice_after_it_was_answered() -> None:
    with serving(lambda body, _: completion(body)) as server:
        found = answers(server, [ids_request(number) for number in range(50)])
        assert len(found) == len(server.asked) == 50


@pytest.mark.parametrize("status", [429, 500, 503])
def test_trouble_that_does_not_pass_is_a_failure_after_a_bounded_number_of_tries(
    status: int,
) -> None:
    def script(body: Body, before: int) -> Reply:
        return error(status, "busy") if body["prompt"][1] == 3 else completion(body)

    with serving(script) as server:
        found = answers(server, [ids_request(number) for number in range(6)], retries=3)
        assert server.times["[5, 3]"] == 4
        assert sum(server.times.values()) == 5 + 4
    assert str(status) in failed(found["x/3"])
    assert sum(isinstance(answer, Completion) for answer in found.values()) == 5


def test_a_server_that_wants_an_hour_is_not_waited_for() -> None:
    with serving(lambda body, _: error(429, "quota per day", Retry_After="3600")) as server:
        found = answers(server, [ids_request(1)])
        assert len(server.asked) == 1
    assert "429" in failed(found["x/1"])


# --- answers that are none ------------------------------------------------------------------------

NOT_ANSWERS = {
    "not JSON": Reply(b"{'choices': oh"),
    "HTML": Reply(b"<html>hello</html>", headers={"Content-Type": "text/html"}),
    "no choices": Reply({"choices": []}),
    "choices are null": Reply({"choices": None}),
    "no field choices": Reply({"object": "list"}),
    "a list": Reply([1, 2]),
    "null": Reply(None),
    "text is a list": Reply({"choices": [{"index": 0, "text": ["a"], "finish_reason": "stop"}]}),
    "text is null": Reply({"choices": [{"index": 0, "text": None, "finish_reason": "stop"}]}),
    "too many samples": Reply(
        {"choices": [{"index": i, "text": "a", "finish_reason": "stop"} for i in range(2)]}
    ),
    "a text longer than any": Reply(
        {"choices": [{"index": 0, "text": "a" * (8 << 20), "finish_reason": "stop"}]}
    ),
    "JSON without end": Reply(b"[" * 100_000),
    "bytes that are no text": Reply(b'{"choices": [{"index": 0, "text": "\xff\xfe"}]}'),
    "a token id is infinite": Reply(
        b'{"choices": [{"index": 0, "text": "a", "finish_reason": "stop", "token_ids": [1e999]}]}'
    ),
    "token ids are words": Reply(
        {"choices": [{"index": 0, "text": "a", "finish_reason": "stop", "token_ids": ["a"]}]}
    ),
}


@pytest.mark.parametrize("reply", NOT_ANSWERS.values(), ids=NOT_ANSWERS.keys())
def test_an_answer_of_no_known_form_fails_alone(reply: Reply) -> None:
    def script(body: Body, before: int) -> Reply:
        return reply if body["prompt"][1] == 1 else completion(body)

    with serving(script) as server:
        found = answers(server, [ids_request(number) for number in range(3)])
        assert server.times["[5, 1]"] == 1
    assert failed(found["x/1"])
    assert answered(found["x/0"]).text == "5 0 #0"
    assert answered(found["x/2"]).text == "5 2 #0"


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_an_answer_is_read_no_further_than_any_goes(encoding: str) -> None:
    blank = b" " * (400 << 20)
    body = gzip.compress(blank, 1) if encoding == "gzip" else blank
    reply = Reply(body, headers={"Content-Encoding": encoding})
    tracemalloc.start()
    try:
        with serving(lambda body, _: reply) as server:
            server.about = {"/v1/models": reply}
            assert "not the expected form" in failed(answers(server, [ids_request(1)])["x/1"])
            assert about("m", server.url) == {"url": server.url}
        assert tracemalloc.get_traced_memory()[1] < 300 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "top",
    [
        None,
        [],
        [None],
        [{}],
        [{"token_id:100": -1.0}],
        [{f"token_id:{100 + i}": None for i in range(4)}],
        [{" A": -1.0, " B": -2.0}],
    ],
)
def test_a_choice_without_every_candidates_number_is_a_failure(top: object) -> None:
    choice = {"index": 0, "text": "x", "finish_reason": "length", "logprobs": {"top_logprobs": top}}
    with serving(lambda body, _: Reply({"choices": [choice]})) as server:
        failed(answers(server, [choose_request(ids=True)])["x/0"])


def test_a_choice_that_is_not_a_number_is_a_failure() -> None:
    raw = (
        b'{"choices": [{"index": 0, "text": "x", "logprobs": {"top_logprobs": [{"token_id:100":'
        b' NaN, "token_id:101": -1, '
    )
    raw += b'"token_id:102": -1, "token_id:103": -1}]}}]}'
    with serving(lambda body, _: Reply(raw)) as server:
        failed(answers(server, [choose_request(ids=True)])["x/0"])


@pytest.mark.parametrize("value", ["NaN", "1e999", "null", "[]", '"x"'])
def test_a_judges_log_probability_that_is_no_number_is_a_failure(value: str) -> None:
    raw = f'{{"choices": [{{"index": 0, "text": "m", "logprobs": {{"top_logprobs": [{{"m": {value}'
    with serving(lambda body, _: Reply(f"{raw}}}]}}}}]}}".encode())) as server:
        asked = ids_request(0, Sampling(max_tokens=1, n_logprobs=2))
        assert "not the expected form" in failed(answers(server, [asked])["x/0"])


@pytest.mark.parametrize("given", [1, 19, 21])
def test_a_server_that_ignores_n_gives_no_partial_samples(given: int) -> None:
    def script(body: Body, before: int) -> Reply:
        return (completion if "prompt" in body else chat)(body | {"n": given})

    sampling = Sampling(max_tokens=8, temperature=0.8, n=20)
    with serving(script) as server:
        assert (
            failed(answers(server, [ids_request(1, sampling)])["x/1"])
            == f"the server gave {given} of 20 samples"
        )
        assert (
            failed(answers(server, [chat_request(1, sampling)])["x/1"])
            == f"the server gave {given} of 20 samples"
        )


@pytest.mark.parametrize("status", [400, 413, 422])
def test_one_bad_request_fails_alone_and_at_once(status: int) -> None:
    def script(body: Body, before: int) -> Reply:
        return error(status, "too long") if body["prompt"][1] == 4 else completion(body)

    with serving(script) as server:
        found = answers(server, [ids_request(number) for number in range(9)])
        assert server.times["[5, 4]"] == 1
    assert f"the server answered {status}" in failed(found["x/4"])
    assert sum(isinstance(answer, Completion) for answer in found.values()) == 8


# --- trouble that stops the run -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "kind", "says"),
    [
        (error(401, "bad key"), InputError, "refuses the key (401). Set OPENAI_API_KEY"),
        (error(403, "no access"), InputError, "refuses the key (403). Set OPENAI_API_KEY"),
        (error(404, "no such model"), InputError, "has no model 'm' (404)"),
        (error(429, "pay", "insufficient_quota"), EnvironmentFault, "no quota left"),
    ],
)
def test_a_refusal_stops_the_run_at_once(reply: Reply, kind: type[EvalsError], says: str) -> None:
    with serving(lambda body, _: reply) as server:
        with pytest.raises(kind) as caught:
            answers(server, [ids_request(number) for number in range(200)], concurrency=4)
        assert says in str(caught.value)
        assert "\n" not in str(caught.value)
        assert len(server.asked) <= 8


def test_what_was_under_way_when_the_run_stopped_is_handed_over_first() -> None:
    slow = threading.Event()

    def script(body: Body, before: int) -> Reply:
        if body["prompt"][1] == 0:
            slow.wait(120)
            return error(401)
        slow.set()
        return Reply(completion(body).body, wait_s=0.2)

    found: Answers = {}
    with serving(script) as server:
        generator = OpenAIGenerator("m", [server.url], concurrency=4, first_wait_s=0.01)
        with pytest.raises(InputError):
            collected(generator, [ids_request(number) for number in range(100)], found)
        generator.close()
        n_right = sum(isinstance(answer, Completion) for answer in found.values())
        assert n_right == sum(body["prompt"][1] != 0 for body in server.asked) >= 1
        assert len(server.asked) < 100


def test_a_server_that_is_not_there_stops_the_run_after_few_tries() -> None:
    with serving(lambda body, _: completion(body)) as server:
        url = server.url
    generator = OpenAIGenerator("m", [url], first_wait_s=0.01)
    with pytest.raises(EnvironmentFault, match=r"cannot be reached .*the same command goes on"):
        collected(generator, [ids_request(number) for number in range(100)])
    generator.close()


def test_a_server_that_dies_half_way_stops_the_run_and_keeps_what_it_answered() -> None:
    def script(body: Body, before: int) -> Reply:
        return Reply(reset=True) if body["prompt"][1] >= 10 else completion(body)

    found: Answers = {}
    with serving(script) as server:
        generator = OpenAIGenerator("m", [server.url], concurrency=2, retries=2, first_wait_s=0.01)
        with pytest.raises(EnvironmentFault):
            collected(generator, [ids_request(number) for number in range(30)], found)
        generator.close()
        assert max(server.times.values()) == 3
    assert set(found) == {f"x/{number}" for number in range(10)}


def dying_after(n_answers: int) -> Script:
    """Answers so many requests, then slams the door on every one."""
    n_asked = iter(range(1_000_000))

    def script(body: Body, before: int) -> Reply:
        if next(n_asked) >= n_answers:
            return Reply(reset=True)
        return Reply(completion(body).body, wait_s=0.002)

    return script


@given(st.lists(st.integers(0, 60), max_size=3), st.integers(1, 8), st.integers(1, 120))
@settings(max_examples=12, deadline=None)
def test_whichever_servers_die_the_last_one_answers_everything_once(
    deaths: list[int], concurrency: int, n_requests: int
) -> None:
    with ExitStack() as stack:
        servers = [stack.enter_context(serving(dying_after(n))) for n in deaths]
        servers.insert(
            len(deaths) // 2, stack.enter_context(serving(lambda body, _: completion(body)))
        )
        generator = OpenAIGenerator(
            "m", [server.url for server in servers], concurrency, first_wait_s=0.001
        )
        # asserts: no item twice
        found = collected(generator, [ids_request(number) for number in range(n_requests)])
        generator.close()
    assert {answered(answer).text for answer in found.values()} == {
        f"5 {number} #0" for number in range(n_requests)
    }
    alive = servers.pop(len(deaths) // 2)
    n_answers = sum(min(n, len(server.asked)) for n, server in zip(deaths, servers, strict=True))
    assert n_answers + len(alive.asked) == n_requests  # nothing answered was asked again


def test_all_servers_dying_stops_the_run_and_names_each() -> None:
    with serving(dying_after(5)) as one, serving(dying_after(9)) as two:
        generator = OpenAIGenerator("m", [one.url, two.url], concurrency=3, first_wait_s=0.001)
        found: Answers = {}
        with pytest.raises(EnvironmentFault, match=f"{one.url} and {two.url} cannot be reached"):
            collected(generator, [ids_request(number) for number in range(100)], found)
        generator.close()
    assert len(found) == 14


def test_a_lost_server_is_told_once_and_not_asked_in_the_next_stream(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with serving(dying_after(0)) as dead, serving(lambda body, _: completion(body)) as alive:
        generator = OpenAIGenerator("m", [dead.url, alive.url], concurrency=4, first_wait_s=0.001)
        collected(generator, [ids_request(number) for number in range(50)])
        n_asked = len(dead.asked)
        collected(generator, [ids_request(number) for number in range(50, 100)])
        generator.close()
    assert n_asked == len(dead.asked) > 0
    assert [
        record.message.startswith(dead.url) for record in caplog.records if "lost" in record.message
    ] == [True]


def test_neighbours_in_the_queue_go_to_the_same_server() -> None:
    def script(body: Body, before: int) -> Reply:
        return Reply(completion(body).body, wait_s=0.005)

    with serving(script) as one, serving(script) as two:
        generator = OpenAIGenerator("m", [one.url, two.url], concurrency=4)
        collected(generator, [ids_request(number) for number in range(256)])
        generator.close()
    numbers = sorted(body["prompt"][1] for body in one.asked)
    n_breaks = sum(later != earlier + 1 for earlier, later in itertools.pairwise(numbers))
    assert 32 <= len(numbers) <= 224
    assert n_breaks <= 16  # request by request in turn it would be about 64


def test_a_reader_who_stops_reading_stops_the_asking() -> None:
    def script(body: Body, before: int) -> Reply:
        return Reply(completion(body).body, wait_s=0.01)

    with serving(script) as server:
        generator = OpenAIGenerator("m", [server.url], concurrency=2)
        stream: Iterator[object] = generator.stream([ids_request(number) for number in range(500)])
        next(stream)
        stream.close()  # type: ignore[attr-defined]
        n_asked = len(server.asked)
        threads = [
            thread for thread in threading.enumerate() if thread.daemon and "_work" in thread.name
        ]
        for thread in threads:
            thread.join(5)
        assert len(server.asked) <= n_asked + 2
        generator.close()


def test_a_finished_run_asks_the_server_nothing_again(tmp_path: Path) -> None:
    def script(body: Body, before: int) -> Reply:
        return error(500) if before == 0 else chat(body, "The answer is 4.")

    with serving(script) as server:
        settings = RunSettings(
            f"openai:m@{server.url}", suite="smoke", tasks=("gsm8k",), out=tmp_path / "run"
        )
        first = run(settings)
        n_asked = len(server.asked)
        second = run(settings)
        assert len(server.asked) == n_asked
    assert first.is_complete
    assert json.dumps(first.summary, sort_keys=True) == json.dumps(second.summary, sort_keys=True)
