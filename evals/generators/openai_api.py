"""One request in the words of the OpenAI API, and its answer read. Whatever else may come is
another's: errors of the client pass through.

Raises MissingError where the answer lacks a field, AttributeError, IndexError, KeyError,
OverflowError, TypeError or ValueError where it has not the expected form. Fields of no known name
are ignored.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from evals.errors import InputError
from evals.generators import Failure
from evals.generators.manner import NEUTRAL, Manner
from evals.generators.scoring import in_order, of_candidates, of_prompt, parts_of
from evals.models.prompts import Rendered
from evals.records import Completion, Output, Sampling, Scored, finish_reason

_LONGEST_BODY = 64 << 20
"""Bytes of an answer's JSON, unpacked: several times what the longest texts take."""


class MissingError(ValueError):
    """An answer lacks a field that every answer has."""


def client_of(url: str, key: str, timeout: Any) -> Any:
    """The client of one server. It asks nothing twice, for that is decided where the other servers
    are known, and holds no answer that does not end.
    """
    import openai

    return openai.OpenAI(
        base_url=url,
        api_key=key,
        timeout=timeout,
        max_retries=0,
        http_client=openai.DefaultHttpxClient(event_hooks={"response": [_read]}),
    )


def _read(response: Any) -> None:
    """Read an answer as far as any goes. What breaks off there has no form, and costs its own
    request alone; an error would look like a lost server.
    """
    content = bytearray()
    for part in response.iter_bytes():
        content += part
        if len(content) > _LONGEST_BODY:
            response.close()
            break
    response._content = bytes(content)


def ask_by_ids(client: Any, name: str, request: Rendered, manner: Manner) -> Completion | Failure:
    """One request to /completions as exact token ids: vLLM's server and its kin."""
    sampling = request.sampling
    asked: dict[str, Any] = {
        "model": name,
        "prompt": list(request.token_ids),
        "max_tokens": request.max_new_tokens,
    }
    # Base TruthfulQA cuts its outputs by token id (Generate.cut_token).
    extra: dict[str, Any] = {"return_token_ids": True} | _neutral(manner)
    if request.candidates:
        asked |= {"temperature": 0.0, "logprobs": len(request.candidates)}
        extra |= {
            "logprob_token_ids": [token_id for _, token_id in request.candidates],
            # Two ids may have one text.
            "return_tokens_as_token_ids": True,
        }
    else:
        asked |= _sampling(sampling, manner)
        asked |= {"logprobs": sampling.n_logprobs} if sampling.n_logprobs else {}
        if request.keeps_special:
            extra |= {"skip_special_tokens": False, "spaces_between_special_tokens": False}
        if request.stop_token_ids:
            extra["stop_token_ids"] = list(request.stop_token_ids)
    answer = client.completions.create(**asked, extra_body=extra)
    counted = Completion(n_prompt_tokens=len(request.token_ids), n_cached_tokens=_n_cached(answer))
    choices = _choices(answer)
    if request.candidates:
        logprobs = _there(choices[0].logprobs, "log-probabilities")
        top = _there(logprobs.top_logprobs, "top_logprobs")[0]
        found = {
            label: _finite(top[f"token_id:{token_id}"]) for label, token_id in request.candidates
        }
        return replace(counted, choice_logprobs=found)
    if len(choices) != sampling.n:
        return Failure(f"the server gave {len(choices)} of {sampling.n} samples")
    outputs = tuple(
        _output(_there(choice.text, "text"), choice, sampling, manner) for choice in choices
    )
    logprobs = choices[0].logprobs
    top_logprobs = None
    if sampling.n_logprobs and logprobs:
        top_logprobs = {token: _finite(p) for token, p in logprobs.top_logprobs[0].items()}
    return replace(counted, outputs=outputs, top_logprobs=top_logprobs, unasked=manner.unasked)


def score_by_ids(client: Any, name: str, request: Rendered, manner: Manner) -> Completion:
    """Continuations scored by /completions: an echo of the prompt with its log-probabilities, and
    for single tokens theirs as the next one. Raises InputError where a server gives none.
    """
    found: dict[Any, Scored] = {}
    n_cached = 0
    parts = parts_of(request)
    for part in parts:
        single = bool(part.candidates)
        extra: dict[str, Any] = {"return_tokens_as_token_ids": True} | _neutral(manner)
        extra |= {"logprob_token_ids": list(part.candidates)} if single else {}
        answer = client.completions.create(
            model=name,
            prompt=list(part.ids),
            max_tokens=1,
            temperature=0.0,
            logprobs=len(part.candidates) or 1,
            echo=not single,
            extra_body=extra,
        )
        n_cached += _n_cached(answer)
        said = _choices(answer)[0].logprobs
        if single:
            logprobs = _there(said, "log-probabilities")
            top = _there(logprobs.top_logprobs, "top_logprobs")[0]
            ids = {int(text.removeprefix("token_id:")): _finite(p) for text, p in top.items()}
            found |= of_candidates(part, ids, max(ids, key=ids.__getitem__))
            continue
        own = getattr(said, "token_logprobs", None) or ()
        if len(own) < len(part.ids):
            raise InputError(
                f"{name}'s server gives no log-probabilities of a prompt (echo with logprobs), by"
                " which continuations are scored. vLLM's server does, unless they are switched off."
            )
        # What it generated stands behind the prompt, where it shows it.
        n = len(part.ids)
        rows = zip(part.ids, own[:n], said.top_logprobs[:n], strict=True)
        found |= of_prompt(part, [_row(*row) for row in list(rows)[-part.n_scored :]])
    counted = sum(len(part.ids) for part in parts)
    scores = in_order(request, found)
    return Completion(n_prompt_tokens=counted, n_cached_tokens=n_cached, scores=scores)


def _row(token: int, logprob: Any, top: Any) -> dict[int, float]:
    """A scored token's log-probability, and the likeliest's under an id that no token has."""
    return {token: _finite(logprob), -1: max(map(_finite, (top or {}).values()), default=logprob)}


def ask_by_messages(
    client: Any, name: str, request: Rendered, manner: Manner
) -> Completion | Failure:
    """One request to /chat/completions, which the server renders by its own template."""
    sampling = request.sampling
    asked: dict[str, Any] = {
        "model": name,
        "messages": [{"role": m.role, "content": m.content} for m in request.messages],
        manner.limit: request.max_new_tokens,
        **_sampling(sampling, manner),
    }
    n_logprobs = manner.n_top if request.labels else min(sampling.n_logprobs, manner.n_top)
    if n_logprobs and "logprobs" not in manner.without:
        asked |= {"logprobs": True, "top_logprobs": n_logprobs}
    answer = client.chat.completions.create(**asked, extra_body=_neutral(manner))
    choices = _choices(answer)
    if len(choices) != sampling.n:
        return Failure(f"the server gave {len(choices)} of {sampling.n} samples")
    outputs = tuple(_chat_output(choice, sampling, manner) for choice in choices)
    n_prompt = int(answer.usage.prompt_tokens or 0) if answer.usage else 0
    counted = Completion(outputs, n_prompt_tokens=n_prompt, unasked=manner.unasked)
    top = None
    if n_logprobs and choices[0].logprobs and choices[0].logprobs.content:
        top = {
            _as_text(entry.token): _finite(entry.logprob)
            for entry in choices[0].logprobs.content[0].top_logprobs
        }
    if not request.labels:
        return replace(counted, top_logprobs=top)
    if not top:
        return counted
    found = _shown(request.labels, top) if counted.is_answer else {}
    return replace(counted, choice_logprobs=found)


def _sampling(sampling: Sampling, manner: Manner) -> dict[str, Any]:
    """The sampling in OpenAI's words, as far as this server takes them."""
    own = {"temperature": sampling.temperature, "top_p": sampling.top_p, "n": sampling.n}
    asked: dict[str, Any] = {k: v for k, v in own.items() if k not in manner.without}
    stops = list(sampling.stop[: manner.n_stops])
    return asked | ({"stop": stops} if stops else {})


def _neutral(manner: Manner) -> dict[str, float]:
    return {name: NEUTRAL[name] for name in manner.neutral if name not in manner.without}


def _choices(answer: Any) -> list[Any]:
    found = _there(getattr(answer, "choices", None), "choices")
    return sorted(found, key=lambda choice: choice.index or 0)


def _there(value: Any, name: str) -> Any:
    if value is None:
        raise MissingError(f"the server's answer lacks {name}")
    return value


def _shown(labels: Sequence[tuple[str, str]], top: Mapping[str, float]) -> dict[str, float]:
    """The labels' log-probabilities among a chat server's likeliest tokens; none where it shows no
    label at all: all would be equally likely, and the first be the answer.
    """
    found = {
        # The server's template decides whether a label comes with its space.
        label: max((v for t, v in top.items() if t.strip() == text.strip()), default=None)
        for label, text in labels
    }
    if all(value is None for value in found.values()):
        return {}
    # One that is not shown has less than the least of those that are.
    least = min(top.values()) - 1
    return {label: least if value is None else value for label, value in found.items()}


def _n_cached(answer: Any) -> int:
    """Prompt tokens the server's prefix cache held, where it says so (vLLM:
    --enable-prompt-tokens-details).
    """
    details = getattr(getattr(answer, "usage", None), "prompt_tokens_details", None)
    return int(getattr(details, "cached_tokens", None) or 0)


def _finite(value: Any) -> float:
    """The number. Raises TypeError or ValueError when it is none."""
    number = float(value)
    if not math.isfinite(number):
        raise ValueError("a log-probability is not finite")
    return number


def _as_text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("what should be a text is none")
    return value


def _chat_output(choice: Any, sampling: Sampling, manner: Manner) -> Output:
    """A chat server's output; a refusal's words, and reasoning that the server told from the
    answer, are in fields of their own.
    """
    message = _there(choice.message, "message")
    # 0, false or an empty list is no empty answer.
    if not isinstance(message.content, str | None):
        raise TypeError("the output is not a text")
    refusal = getattr(message, "refusal", None)
    output = _output(message.content or refusal or "", choice, sampling, manner)
    said = (getattr(message, name, None) for name in ("reasoning_content", "reasoning"))
    reasoning = next((one for one in said if isinstance(one, str) and one), None)
    output = replace(output, reasoning=reasoning)
    if message.content or (not output.is_answer and output.finish_reason != "no_text"):
        return output
    # Servers end these, too, with "stop".
    if refusal:
        return replace(output, finish_reason="refused")
    if getattr(message, "tool_calls", None) or getattr(message, "function_call", None):
        return replace(output, finish_reason="tool_call")
    if reasoning:
        return replace(output, finish_reason="reasoning")
    # "" is a model that ended at once, null a server that shows nothing.
    return replace(output, finish_reason="no_text") if message.content is None else output


def _output(text: Any, choice: Any, sampling: Sampling, manner: Manner) -> Output:
    text = _as_text(text)
    ids = getattr(choice, "token_ids", None) or ()
    word = "error" if getattr(choice, "error", None) else choice.finish_reason
    end = finish_reason(word, sampling.max_tokens)
    if end == "other" and not text:
        end = "no_text"
    return _cut_at(Output(text, end, tuple(map(int, ids))), sampling.stop[manner.n_stops :])


def _cut_at(output: Output, stops: Sequence[str]) -> Output:
    """The output cut before the first of the stop strings the server was not told of."""
    found = [at for stop in stops if (at := output.text.find(stop)) >= 0]
    return (
        replace(output, text=output.text[: min(found)], finish_reason="stop") if found else output
    )
