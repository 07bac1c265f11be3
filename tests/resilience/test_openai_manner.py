"""What a server refuses by name is asked in the form it takes: found out once, and marked where the
protocol then differs.
"""

import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from evals.errors import InputError
from evals.generators.manner import NEUTRAL, Manner, adapted
from evals.plan.settings import RunSettings
from evals.records import Completion, Sampling
from evals.runs.rescore import rescore
from evals.runs.session import run
from evals.storage.store import _pack, _unpack
from tests.openai_requests import answered, answers, chat_request, failed, ids_request
from tests.openai_server import Body, Reply, chat, completion, error, serving

PLAIN = Manner()


def without(*names: str) -> Manner:
    return Manner(without=frozenset(names))


SAYS = {
    "OpenAI: max_tokens": (
        "Unsupported parameter: 'max_tokens' is not supported with this model. Use"
        " 'max_completion_tokens' instead.",
        Manner(limit="max_completion_tokens"),
    ),
    "OpenAI: temperature": (
        "Unsupported value: 'temperature' does not support 0 with this model. Only the default (1)"
        " value is supported.",
        without("temperature"),
    ),
    "OpenAI: top_p": ("Unsupported parameter: 'top_p' is not supported.", without("top_p")),
    "Anthropic: both": (
        "`temperature` and `top_p` cannot both be specified for this model. Please use only one.",
        without("top_p"),
    ),
    "OpenAI: what vLLM knows": (
        "Unrecognized request arguments supplied: min_p, repetition_penalty, top_k",
        without("min_p", "repetition_penalty", "top_k"),
    ),
    "Groq: one of them": ("property 'top_k' is unsupported", without("top_k")),
    "Mistral: one of them": (
        "Error code: 422 - {'detail': [{'type': 'extra_forbidden', 'loc': ['body', 'min_p']}]}",
        without("min_p"),
    ),
    "in camel case": ("Argument not supported on this model: topK", without("top_k")),
    "a value of them": ("top_k must be between 0 and 100", without("top_k")),
    "OpenAI: logprobs": (
        "You are not allowed to request logprobs from this model",
        without("logprobs", "top_logprobs"),
    ),
    "fewer log-probabilities": ("top_logprobs must be less than or equal to 5", Manner(n_top=5)),
    "OpenAI: stop": (
        "Unsupported parameter: 'stop' is not supported with this model.",
        Manner(n_stops=0),
    ),
    "fewer stops": (
        "Invalid 'stop': array too long. Expected an array with maximum length 2, but got an array"
        " with length 4 instead.",
        Manner(n_stops=2),
    ),
    "Groq: n": ("'n' : number must be at most 1", without("n")),
    "llama.cpp: n": ("Only one completion choice is allowed", without("n")),
    "n": ("n must be 1 for this model", without("n")),
}


@pytest.mark.parametrize(("message", "expected"), SAYS.values(), ids=SAYS.keys())
def test_what_services_say_is_understood(message: str, expected: Manner) -> None:
    assert adapted(PLAIN, None, message) == expected


@pytest.mark.parametrize(
    "message",
    [
        "max_tokens is too large: 5000. This model supports at most 4096 completion tokens.",
        "'max_tokens' or 'max_completion_tokens' is too large: 512. This model's maximum context"
        " length is 2048 tokens and your request has 1900 input tokens",
        "This model's maximum context length is 4096 tokens. Please reduce the length.",
        "I will not judge this",
        "no",
        "",
    ],
)
def test_what_is_about_the_request_changes_nothing(message: str) -> None:
    assert adapted(PLAIN, None, message) is None


# --- asked in the form it takes -------------------------------------------------------------------


def refusing(*names: str, by: Callable[[Body], Reply] = chat) -> Callable[[Body, int], Reply]:
    """A server that takes none of these parameters, and says so of one at a time."""

    def script(body: Body, before: int) -> Reply:
        for name in names:
            if name in body and (name != "n" or body["n"] > 1):
                return error(400, f"Unsupported parameter: '{name}' is not supported.")
        return by({"n": 1, **body})

    return script


def test_each_refusal_costs_one_request_a_run() -> None:
    names = ("max_tokens", "temperature", "top_p", *NEUTRAL)
    with serving(refusing(*names)) as server:
        found = answers(server, [chat_request(number) for number in range(60)], concurrency=16)
        assert len(server.asked) == 60 + len(names)
        last = server.asked[-1]
    assert all(isinstance(answer, Completion) for answer in found.values())
    assert set(last) == {"model", "messages", "max_completion_tokens", "n"}
    assert answered(found["x/0"]).unasked == ("top_p", "temperature", *NEUTRAL)


@pytest.mark.parametrize("request_of", [chat_request, ids_request])
def test_samples_are_asked_for_one_by_one_where_several_are_refused(
    request_of: Callable[..., object],
) -> None:
    by_ids = request_of is ids_request
    sampling = Sampling(max_tokens=8, temperature=0.8, n=5)
    request = (ids_request if by_ids else chat_request)(1, sampling)
    with serving(refusing("n", by=completion if by_ids else chat)) as server:
        answer = answered(answers(server, [request])["x/1"])
        assert len(server.asked) == 6
    assert len(answer.outputs) == 5
    assert answer.unasked == ()


def test_one_sample_that_fails_is_all_that_fail() -> None:
    sampling = Sampling(max_tokens=8, temperature=0.8, n=3)
    n_asked = iter(range(100))

    def script(body: Body, before: int) -> Reply:
        if body.get("n", 1) > 1:
            return error(400, "n must be 1")
        return error(400, "odd") if next(n_asked) == 1 else chat({"n": 1, **body})

    with serving(script) as server:
        assert "odd" in failed(answers(server, [chat_request(0, sampling)])["x/0"])


def test_stops_that_are_not_taken_are_cut_here() -> None:
    sampling = Sampling(max_tokens=8, stop=("\nA", "\nB", "\nC"))

    def script(body: Body, before: int) -> Reply:
        if len(body.get("stop", ())) > 1:
            return error(400, "Invalid 'stop': array too long. Expected at most 1")
        return chat(body, "yes\nC no\nB")

    with serving(script) as server:
        answer = answered(answers(server, [chat_request(0, sampling)])["x/0"])
        assert server.asked[-1]["stop"] == ["\nA"]
    assert (answer.text, answer.outputs[0].finish_reason) == ("yes", "stop")


def test_neutral_values_are_sent_to_chat_servers_too() -> None:
    with serving(lambda body, _: chat(body)) as server:
        answer = answered(answers(server, [chat_request(0)])["x/0"])
        assert {name: server.asked[0][name] for name in NEUTRAL} == NEUTRAL
    assert answer.unasked == ()


def test_openais_own_service_is_sent_its_own_parameters_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with serving(lambda body, _: chat(body)) as server:
        monkeypatch.setattr("evals.generators.openai.OPENAI_URL", server.url)
        answer = answered(answers(server, [chat_request(0)])["x/0"])
        assert not NEUTRAL.keys() & server.asked[0].keys()
    assert answer.unasked == ()


@pytest.mark.parametrize(
    ("reply", "field"),
    [
        ({"object": "list"}, "choices"),
        ({"choices": [{"index": 0, "finish_reason": "stop"}]}, "message"),
    ],
)
def test_a_field_that_is_missing_is_named(reply: Body, field: str) -> None:
    with serving(lambda body, _: Reply(reply)) as server:
        assert failed(answers(server, [chat_request(0)])["x/0"]) == (
            f"the server's answer lacks {field}"
        )


# --- what differs is marked -----------------------------------------------------------------------


def test_what_the_server_decided_itself_is_said_beside_the_cell(tmp_path: Path) -> None:
    with serving(refusing("max_tokens", "temperature", "top_k")) as server:
        asked = RunSettings(
            f"openai:m@{server.url}", suite="smoke", tasks=("gsm8k",), out=tmp_path / "run"
        )
        result = run(asked)
        n_asked = len(server.asked)
        assert run(asked).summary == result.summary
        assert len(server.asked) == n_asked
    marks = result.summary["cells"]["gsm8k"]["marks"]
    said = "gsm8k: the server takes no temperature or top_k; its own decided 6 of 6 answers"
    assert said in marks
    assert rescore(result.folder.path, None) == result.summary
    (result.folder.path / "store.sqlite").unlink()
    assert rescore(result.folder.path, None) == result.summary


def test_what_a_judge_decided_itself_is_said_too(tmp_path: Path) -> None:
    def script(body: Body, before: int) -> Reply:
        if body["model"] == "judge" and "temperature" in body:
            return error(400, "Unsupported value: 'temperature' does not support 0")
        return chat(body, "refusal")

    with serving(script) as server:
        asked = RunSettings(
            f"openai:m@{server.url}",
            suite="smoke",
            tasks=("xstest",),
            out=tmp_path / "run",
            judges=(f"xstest=openai:judge@{server.url}",),
        )
        result = run(asked)
        assert run(asked).summary == result.summary
    notes = result.summary["judges"]["xstest"]["notes"]
    assert notes == ["xstest: openai:judge@own-server takes no temperature; its own decided"]
    assert notes[0] in result.summary["cells"]["xstest_safe_refused"]["marks"]


def test_an_answer_of_an_ordinary_server_is_stored_as_before() -> None:
    plain = Completion(n_prompt_tokens=3)
    assert b"unasked" not in zlib.decompress(_pack(plain))
    for answer in (plain, replace(plain, unasked=("top_p",))):
        assert _unpack(_pack(answer)) == answer


# --- what cannot be had is refused before anything is generated -----------------------------------


@pytest.mark.parametrize(
    ("task", "role", "says"),
    [
        ("mmlu", None, "gives no log-probabilities, which mmlu is read from. Name its tokenizer"),
        ("alpaca_eval", "alpaca_eval_2", "which alpaca_eval_2 is read from. Name another with"),
    ],
)
def test_a_column_read_from_log_probabilities_is_refused_before_generation(
    tmp_path: Path, task: str, role: str | None, says: str
) -> None:
    with serving(lambda body, _: chat(body, "m")) as server:
        server.gives_logprobs = False
        asked = RunSettings(
            f"openai:m@{server.url}",
            suite="smoke",
            tasks=(task, "gsm8k"),
            out=tmp_path / "run",
            judges=(f"{role}=openai:judge@{server.url}",) if role else (),
        )
        with pytest.raises(InputError, match=says):
            run(asked)
        assert server.asked == []


def test_a_benchmark_that_needs_none_is_asked_of_such_a_server(tmp_path: Path) -> None:
    with serving(lambda body, _: chat(body, "So the answer is 4.")) as server:
        server.gives_logprobs = False
        asked = RunSettings(
            f"openai:m@{server.url}", suite="smoke", tasks=("gsm8k",), out=tmp_path / "run"
        )
        assert run(asked).cells["gsm8k"] is not None


def test_what_is_answered_already_needs_no_server(tmp_path: Path) -> None:
    with serving(lambda body, _: chat(body, "A", {"A": -0.1})) as server:
        asked = RunSettings(
            f"openai:m@{server.url}", suite="smoke", tasks=("mmlu",), out=tmp_path / "run"
        )
        first = run(asked)
    assert run(asked).summary == first.summary
