"""Servers that are not up yet are waited for, and one that was lost is asked again once it is
back.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from evals.errors import EnvironmentFault, InputError
from evals.generators.openai import OpenAIGenerator
from evals.generators.waiting import is_up, seconds, wait_until_up
from evals.plan.make import make_plan
from evals.plan.settings import RunSettings
from tests.openai_requests import answered, ids_request
from tests.openai_server import Body, OpenAIServer, Reply, completion, reserved_port, serving


@contextmanager
def started_once(is_time: Callable[[], bool], port: int, tokens: int = 0) -> Iterator[None]:
    """A server that comes up late."""
    stopped = threading.Event()

    def serve() -> None:
        while not is_time() and not stopped.wait(0.05):
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
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    def is_waited_for() -> bool:
        return "is not up yet" in caplog.text

    with reserved_port() as port, started_once(is_waited_for, port, tokens=1536):
        url = f"http://127.0.0.1:{port}/v1"
        asked = RunSettings(
            f"openai:m@{url}", suite="smoke", tasks=("xstest",), out=tmp_path,
            tokenizer="smollm2", wait="10m",
        )  # fmt: skip
        plan = make_plan(asked)
    # Not guessed while it was away: its own word.
    assert (plan.view.max_len, plan.view.said_by) == (1536, "as the server says")
    assert f"{url} is not up yet: waiting for it, 10 min at most" in caplog.messages
    assert any(line.startswith(f"{url} is up after") for line in caplog.messages)


def test_one_that_does_not_come_is_named_and_those_that_are_there_are_not() -> None:
    with serving(lambda body, _: completion(body)) as server, reserved_port() as port:
        away = f"http://127.0.0.1:{port}/v1"
        with pytest.raises(EnvironmentFault) as caught:
            wait_until_up([server.url, away], 0.1, poll_s=0.02)
    assert str(caught.value).startswith(f"{away} is not up after 0 s. Start it")


def test_a_server_that_was_lost_rejoins_and_nothing_is_asked_twice(
    caplog: pytest.LogCaptureFixture,
) -> None:
    is_back = threading.Event()

    def slow(body: Body, before: int) -> Reply:
        return Reply(completion(body).body, wait_s=0.01)

    def waiting(body: Body, before: int) -> Reply:
        if body["prompt"][1] >= 390:
            is_back.wait(300)
        return slow(body, before)

    def back(body: Body, before: int) -> Reply:
        is_back.set()
        return slow(body, before)

    lived: list[OpenAIServer] = []
    with serving(waiting) as steady, reserved_port() as port:
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
