"""The OpenAI-compatible generator against a local server: what is sent, and what comes back."""

import resource
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import pytest

from evals.errors import EnvironmentFault
from evals.generators.openai import OpenAIGenerator
from evals.models.prompts import Rendered
from evals.records import ItemId, Sampling
from tests.openai_requests import (
    KEY,
    answered,
    answers,
    chat_request,
    choose_request,
    collected,
    ids_request,
)
from tests.openai_server import Body, Reply, chat, completion, serving


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


# --- right answers --------------------------------------------------------------------------------


def test_token_ids_go_to_completions_and_samples_come_back_in_order() -> None:
    sampling = Sampling(max_tokens=8, temperature=0.8, top_p=0.95, n=3, stop=("\ndef", "\n#"))
    with serving(lambda body, _: completion(body)) as server:
        found = answers(server, [ids_request(number, sampling) for number in range(20)])
        assert set(server.paths) == {"/v1/completions"}
        assert server.keys == {f"Bearer {KEY}"}
    assert len(found) == 20
    outputs = answered(found["x/7"]).outputs
    assert [output.text for output in outputs] == ["5 7 #0", "5 7 #1", "5 7 #2"]
    assert outputs[2].token_ids == (5, 7, 2)
    assert answered(found["x/7"]).n_prompt_tokens == 2
    (asked,) = [body for body in server.asked if body["prompt"] == [5, 7]]
    assert (asked["temperature"], asked["top_p"], asked["n"], asked["max_tokens"]) == (
        0.8,
        0.95,
        3,
        8,
    )
    assert asked["stop"] == ["\ndef", "\n#"]


def test_the_checkpoints_own_sampling_defaults_are_overridden() -> None:
    with serving(lambda body, _: completion(body)) as server:
        answers(server, [ids_request(1)])
    assert (
        server.asked[0]["top_k"],
        server.asked[0]["min_p"],
        server.asked[0]["repetition_penalty"],
    ) == (-1, 0.0, 1.0)


def test_what_the_context_leaves_is_asked_for_and_not_what_the_protocol_gives() -> None:
    request = Rendered(ItemId("x/0"), "", "t", (5, 6), (), Sampling(max_tokens=8192), 100)
    with serving(lambda body, _: completion(body)) as server:
        answers(server, [request])
    assert server.asked[0]["max_tokens"] == 100


def test_a_choice_is_read_by_token_id() -> None:
    with serving(lambda body, _: completion(body)) as server:
        answer = answered(answers(server, [choose_request(ids=True)])["x/0"])
    assert answer.choice_logprobs == {"A": -1.0, "B": -2.0, "C": -3.0, "D": -4.0}
    assert answer.outputs == ()
    asked = server.asked[0]
    assert asked["logprob_token_ids"] == [100, 101, 102, 103]
    assert (asked["logprobs"], asked["max_tokens"], asked["temperature"]) == (4, 1, 0.0)
    assert asked["return_tokens_as_token_ids"] is True


def test_without_token_ids_messages_go_to_the_chat_endpoint() -> None:
    with serving(lambda body, _: chat(body)) as server:
        found = answers(server, [chat_request(number) for number in range(5)])
        assert set(server.paths) == {"/v1/chat/completions"}
    assert [answered(found[f"x/{number}"]).text for number in range(5)] == [
        f"say {number}" for number in range(5)
    ]
    assert answered(found["x/0"]).n_prompt_tokens == 7
    assert "stop" not in server.asked[0]


@pytest.mark.parametrize("request_of", [chat_request, ids_request])
def test_a_server_takes_four_stops_and_the_fifth_is_cut_here(
    request_of: Callable[[int, Sampling], Rendered],
) -> None:
    stops = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")
    said = "    return 1\nprint(f())\nclass"

    def script(body: Body, before: int) -> Reply:
        if "messages" in body:
            return chat(body, text=said)
        return Reply(
            {
                "choices": [
                    {
                        "index": 0,
                        "text": said,
                        "finish_reason": "stop",
                        "token_ids": [1, 2],
                        "logprobs": None,
                    }
                ]
            }
        )

    with serving(script) as server:
        answer = answered(
            answers(server, [request_of(0, Sampling(max_tokens=8, stop=stops))])["x/0"]
        )
    assert server.asked[0]["stop"] == list(stops[:4])
    assert answer.text == "    return 1"


def test_a_choice_over_chat_reads_the_top_logprobs_with_or_without_a_space() -> None:
    top = {" B": -0.5, "A": -1.0, "B": -2.0, "Yes": -3.0, "C": -4.0}
    with serving(lambda body, _: chat(body, "B", top)) as server:
        answer = answered(answers(server, [choose_request(ids=False)])["x/0"])
    assert answer.choice_logprobs == {"A": -1.0, "B": -0.5, "C": -4.0, "D": -5.0}
    assert (
        server.asked[0]["logprobs"],
        server.asked[0]["top_logprobs"],
        server.asked[0]["max_tokens"],
    ) == (True, 20, 1)


def test_a_chat_server_without_logprobs_gives_words_and_no_invented_choice() -> None:
    with serving(lambda body, _: chat(body, "yes")) as server:
        answer = answered(answers(server, [choose_request(ids=False)])["x/0"])
    assert answer.choice_logprobs is None
    assert answer.text == "yes"


def test_a_judges_first_token_keeps_its_top_logprobs() -> None:
    with serving(lambda body, _: chat(body, "m", {"m": -0.1, "M": -2.5})) as server:
        answer = answered(
            answers(server, [chat_request(0, Sampling(max_tokens=1, n_logprobs=5))])["x/0"]
        )
    assert answer.top_logprobs == {"m": -0.1, "M": -2.5}
    assert server.asked[0]["top_logprobs"] == 5


def test_several_servers_share_one_queue() -> None:
    with (
        serving(lambda body, _: completion(body)) as one,
        serving(lambda body, _: completion(body)) as two,
    ):
        generator = OpenAIGenerator("m", [one.url, two.url], concurrency=2)
        found = collected(generator, [ids_request(number) for number in range(40)])
        generator.close()
    assert len(found) == 40
    assert len(one.asked) + len(two.asked) == 40
    assert one.asked
    assert two.asked


def test_at_most_so_many_requests_are_under_way() -> None:
    def script(body: Body, before: int) -> Reply:
        return Reply(completion(body).body, wait_s=0.02)

    with serving(script) as server:
        found = answers(server, [ids_request(number) for number in range(30)], concurrency=3)
        assert len(found) == 30
        assert 1 < server.most_running <= 3


def test_nothing_asked_is_nothing_answered() -> None:
    with serving(lambda body, _: completion(body)) as server:
        assert answers(server, []) == {}
        assert server.asked == []


def test_a_low_limit_on_open_files_lowers_what_is_under_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def script(body: Body, before: int) -> Reply:
        return Reply(completion(body).body, wait_s=0.05)

    set_to: list[tuple[int, int]] = []
    with serving(script) as server:
        # as a shell's `ulimit -n 266` gives
        monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 266))
        monkeypatch.setattr(resource, "setrlimit", lambda _, limits: set_to.append(limits))
        found = answers(server, [ids_request(number) for number in range(60)], concurrency=40)
        assert set_to == [(266, 266)]
        assert len(found) == 60
        assert server.most_running <= 10


def test_closed_by_another_thread_it_asks_nothing_more_and_its_stream_ends() -> None:
    """As EarlyJudges closes a judge whose answers nobody waits for."""
    with serving(lambda body, _: Reply(chat(body).body, wait_s=0.1)) as server:
        generator = OpenAIGenerator("m", [server.url], concurrency=2)
        ended = threading.Event()

        def read() -> None:
            with suppress(EnvironmentFault):  # what a request under way may end in
                for _ in generator.stream([chat_request(number) for number in range(50)]):
                    pass
            ended.set()

        threading.Thread(target=read, daemon=True).start()
        while not server.asked:
            time.sleep(0.01)
        generator.close()
        assert ended.wait(120)
        assert len(server.asked) <= 4
