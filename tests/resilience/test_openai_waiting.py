"""Servers that are not up yet are waited for, and one that was lost is asked again once it is
back.
"""

import contextlib
import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest

from evals.errors import EnvironmentFault, InputError
from evals.generators.openai import OpenAIGenerator, Outcome
from evals.generators.waiting import is_up, said_of, seconds, wait_until_up
from evals.models.prompts import Rendered
from evals.plan.make import make_plan
from evals.plan.settings import RunSettings
from tests.openai_requests import answered, ids_request
from tests.openai_server import Body, OpenAIServer, Reply, completion, reserved_port, serving


@pytest.fixture
def ports() -> Iterator[tuple[int, int]]:
    """Two on which nobody listens, kept from everybody but the servers of the test."""
    with reserved_port() as one, reserved_port() as other:
        yield one, other


@contextmanager
def started_once(is_time: Callable[[], bool], port: int, tokens: int = 0) -> Iterator[None]:
    """A server that comes up late."""
    stopped = threading.Event()

    def serve() -> None:
        while not is_time() and not stopped.wait(0.01):
            pass
        with serving(lambda body, _: completion(body), port) as server:
            server.about = {"/v1/models": {"data": [{"id": "m", "max_model_len": tokens}]}}
            stopped.wait()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


@pytest.mark.parametrize(
    ("text", "found"), [("90", 90), ("90s", 90), ("15m", 900), ("1.5h", 5400), ("0s", 0)]
)
def test_a_time_is_written_as_people_write_it(text: str, found: float) -> None:
    assert seconds(text) == found


@pytest.mark.parametrize(("duration_s", "said"), [(99, "99 s"), (5400, "90 min"), (27000, "7.5 h")])
def test_a_long_time_is_said_in_hours(duration_s: float, said: str) -> None:
    assert said_of(duration_s) == said


@pytest.mark.parametrize("text", ["15 min", "-3s", "m", "1d", "inf"])
def test_any_other_is_refused_before_anything_is_looked_at(text: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"--wait {text}: give a time"):
        make_plan(RunSettings("openai:m@http://127.0.0.1:9/v1", out=tmp_path, wait=text))


@pytest.mark.parametrize(
    ("told", "up"),
    [
        (Reply({}), True),
        (Reply({}, 401), True),
        (Reply({}, 404), True),
        (Reply({}, 502), False),
        (Reply({}, 503), False),
        (Reply(reset=True), False),
    ],
)
def test_what_a_gateway_says_of_a_server_that_loads_is_not_an_answer(told: Reply, up: bool) -> None:
    with serving(lambda body, _: completion(body)) as server:
        server.about = {"/v1/models": told}
        assert is_up(server.url) is up
    assert not is_up(server.url)


def test_a_server_that_comes_up_late_is_waited_for_with_a_line_that_says_so(
    tmp_path: Path, ports: tuple[int, int], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    port = ports[0]
    url = f"http://127.0.0.1:{port}/v1"
    asked = RunSettings(
        f"openai:m@{url}", suite="smoke", tasks=("xstest",), out=tmp_path, tokenizer="smollm2",
        wait="15m",
    )  # fmt: skip
    with started_once(lambda: "is not up yet" in caplog.text, port, tokens=1536):
        plan = make_plan(asked)
    # Not guessed while it was away: its own word.
    assert (plan.view.max_len, plan.view.said_by) == (1536, "as the server says")
    assert f"{url} is not up yet: waiting for it, 15 min at most" in caplog.messages
    assert any(line.startswith(f"{url} is up after") for line in caplog.messages)


def test_one_that_does_not_come_is_named_and_those_that_are_there_are_not(
    ports: tuple[int, int],
) -> None:
    with serving(lambda body, _: completion(body)) as server:
        away = f"http://127.0.0.1:{ports[0]}/v1"
        with pytest.raises(EnvironmentFault) as caught:
            wait_until_up([server.url, away], 0.1, poll_s=0.02)
    assert str(caught.value).startswith(f"{away} is not up after 0 s. Start it")


def slow(body: Body, before: int) -> Reply:
    # Or the threads that hold a connection would go on answering when the server is gone.
    return Reply(completion(body).body, headers={"Connection": "close"}, wait_s=0.01)


def test_a_server_that_was_lost_rejoins_and_nothing_is_asked_twice(
    ports: tuple[int, int], caplog: pytest.LogCaptureFixture
) -> None:
    port = ports[0]
    is_back = threading.Event()

    def waiting(body: Body, before: int) -> Reply:
        if body["prompt"][1] >= 390:
            is_back.wait(300)
        return slow(body, before)

    def back(body: Body, before: int) -> Reply:
        is_back.set()
        return slow(body, before)

    lived: list[OpenAIServer] = []
    with serving(waiting) as steady:
        with serving(slow, port) as first:
            lived.append(first)
            urls = [first.url, steady.url]
            generator = OpenAIGenerator("m", urls, 2, first_wait_s=0.001, rejoin_s=0.05)
            stream = generator.stream([ids_request(number) for number in range(400)])
            found = next(stream)
            while not first.asked:
                found += next(stream)
        while "is lost" not in caplog.text:
            found += next(stream)
        with serving(back, port) as second:
            lived.append(second)
            for done in stream:
                found += done
        generator.close()
    assert sorted(answered(answer).text for _, answer in found) == sorted(
        f"5 {number} #0" for number in range(400)
    )
    assert f"{urls[0]} is back, and asked again." in caplog.messages
    assert lived[1].asked
    numbers = [body["prompt"][1] for server in (*lived, steady) for body in server.asked]
    # What was under way when it went, two at most, is all that was asked again.
    assert len(numbers) - len(set(numbers)) <= 2


@pytest.mark.parametrize("n_servers", [1, 2])
def test_when_all_are_lost_one_is_waited_for_and_nothing_is_asked_twice(
    n_servers: int, ports: tuple[int, int], caplog: pytest.LogCaptureFixture
) -> None:
    lived: list[OpenAIServer] = []
    with contextlib.ExitStack() as alive:
        lived += [alive.enter_context(serving(slow, port)) for port in ports[:n_servers]]
        urls = [server.url for server in lived]
        generator = OpenAIGenerator("m", urls, 2, first_wait_s=0.001, rejoin_s=0.05, wait_s=300)
        stream = generator.stream([ids_request(number) for number in range(200)])
        found = next(stream)
    answers = Thread(target=lambda: found.extend(one for done in stream for one in done))
    answers.start()
    while "No server is left: one is waited for, 5 min at most." not in caplog.text:
        assert answers.is_alive()
        time.sleep(0.01)
    with serving(slow, ports[0]) as second:
        lived.append(second)
        answers.join()
    generator.close()
    assert sorted(answered(answer).text for _, answer in found) == sorted(
        f"5 {number} #0" for number in range(200)
    )
    assert f"{urls[0]} is back, and asked again." in caplog.messages
    numbers = [body["prompt"][1] for server in lived for body in server.asked]
    # What was under way when they went, two at most of each.
    assert len(numbers) - len(set(numbers)) <= 2 * n_servers


def test_when_none_comes_back_it_is_one_sentence(ports: tuple[int, int]) -> None:
    with serving(slow, ports[0]) as only:
        generator = OpenAIGenerator("m", [only.url], 2, first_wait_s=0.001, wait_s=0.2)
        stream = generator.stream([ids_request(number) for number in range(200)])
        next(stream)
    with pytest.raises(EnvironmentFault) as caught:
        for _ in stream:
            pass
    assert str(caught.value) == (
        f"{only.url} cannot be reached (no answer for 0 s.) Start it; the same command goes on."
    )


def test_an_answer_that_comes_after_the_last_was_lost_does_not_end_the_counting(
    caplog: pytest.LogCaptureFixture,
) -> None:
    away = Reply({"detail": "no replica"}, 502)
    asked = itertools.count()

    def late(body: Body, n: int) -> Reply:
        if next(asked):
            return away
        while "No server is left: one is waited for" not in caplog.text:
            time.sleep(0.01)
        return completion(body)

    found: list[Exception] = []
    with serving(late) as server:
        server.about = {"/v1/models": away}
        generator = OpenAIGenerator(
            "m", [server.url], 2, retries=0, first_wait_s=0.001, rejoin_s=0.05, wait_s=0.2
        )

        def read() -> None:
            try:
                for _ in generator.stream([ids_request(number) for number in range(9)]):
                    pass
            except EnvironmentFault as fault:
                found.append(fault)

        reader = Thread(target=read, daemon=True)
        reader.start()
        reader.join(30)
    assert [str(one) for one in found] == [
        f"{server.url} cannot be reached (no answer for 0 s.) Start it; the same command goes on."
    ]


@pytest.mark.parametrize("status", [502, 503])
def test_a_gateway_with_nobody_behind_it_is_waited_for_as_one_that_is_down(
    status: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Each request would fail by itself."""
    away, is_back = Reply({"detail": "no replica"}, status), threading.Event()
    with serving(lambda body, n: slow(body, n) if is_back.is_set() else away) as server:
        server.about = {"/v1/models": away}
        generator = OpenAIGenerator(
            "m", [server.url], 2, retries=1, first_wait_s=0.001, rejoin_s=0.05, wait_s=300
        )
        found: list[tuple[Rendered, Outcome]] = []
        stream = generator.stream([ids_request(number) for number in range(50)])
        answers = Thread(target=lambda: found.extend(one for done in stream for one in done))
        answers.start()
        while "No server is left: one is waited for" not in caplog.text:
            assert answers.is_alive()
            time.sleep(0.01)
        assert not found
        is_back.set()
        server.about = {}
        answers.join()
        generator.close()
    assert sorted(answered(answer).text for _, answer in found) == sorted(
        f"5 {number} #0" for number in range(50)
    )
    assert f"{server.url} is lost: {status}: " in caplog.text


def test_what_a_gateway_with_nobody_behind_it_left_another_server_answers() -> None:
    away = Reply({"detail": "no replica"}, 503)
    with serving(lambda body, _: away) as gateway, serving(slow) as steady:
        gateway.about = {"/v1/models": away}
        generator = OpenAIGenerator(
            "m", [gateway.url, steady.url], 2, retries=1, first_wait_s=0.001
        )
        found = [one for done in generator.stream([ids_request(n) for n in range(50)])
                 for one in done]  # fmt: skip
        generator.close()
    assert sorted(answered(answer).text for _, answer in found) == sorted(
        f"5 {number} #0" for number in range(50)
    )


@pytest.mark.parametrize("reply", [Reply(reset=True), Reply({}, 503)])
def test_one_that_dies_at_each_request_is_not_waited_for_for_ever(reply: Reply) -> None:
    """It is there whenever it is looked for."""
    with serving(lambda body, _: reply) as server:
        server.about = {"/v1/models": {"data": [{"id": "m"}]}}
        generator = OpenAIGenerator(
            "m", [server.url], 2, retries=1, first_wait_s=0.001, rejoin_s=0.02, wait_s=0.5
        )
        with pytest.raises(EnvironmentFault, match="no answer for"):
            list(generator.stream([ids_request(1)]))


def test_whoever_stops_it_does_not_wait_for_one_that_is_lost(ports: tuple[int, int]) -> None:
    generator = OpenAIGenerator(
        "m", [f"http://127.0.0.1:{ports[0]}/v1"], 2, first_wait_s=0.001, wait_s=3600
    )
    found: list[object] = []
    reader = Thread(target=lambda: found.extend(generator.stream([ids_request(1)])))
    reader.start()
    while not generator._servers[0].is_out:
        assert reader.is_alive()
        time.sleep(0.01)
    generator.close()
    reader.join()
    assert not found
