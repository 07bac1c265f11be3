"""OpenAI-compatible servers: the evaluated model or a judge behind HTTP.

With a tokenizer at hand the exact token ids go to /completions (vLLM's server and its kin); without one, messages go to
/chat/completions and the server renders them. The `openai` package retries 408, 409, 429, 5xx and timeouts with back-off.
"""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import cycle
from typing import Any

from evals.errors import EnvironmentFault, InputError
from evals.generators import Failure
from evals.prompts import Rendered
from evals.records import Completion, Output

_TIMEOUT_S = 600.0
_RETRIES = 6


class OpenAIGenerator:
    """Answers requests over HTTP, `concurrency` at a time for each URL.

    Raises InputError when the server refuses (wrong key, no such model) and EnvironmentFault when it cannot be reached; a request
    that fails by itself is a Failure.
    """

    def __init__(self, name: str, urls: Sequence[str], concurrency: int = 32) -> None:
        import openai

        self._openai = openai
        key = os.environ.get("OPENAI_API_KEY") or "none"
        self._clients = [openai.OpenAI(base_url=url, api_key=key, timeout=_TIMEOUT_S, max_retries=_RETRIES) for url in urls]
        self._name = name
        self._concurrency = concurrency * len(urls)

    def stream(self, requests: Sequence[Rendered]) -> Iterator[list[tuple[Rendered, Completion | Failure]]]:
        """See Generator."""
        waiting = zip(requests, cycle(self._clients), strict=False)
        running: dict[Future[Completion | Failure], Rendered] = {}
        with ThreadPoolExecutor(self._concurrency) as pool:
            try:
                while True:
                    while len(running) < self._concurrency and (following := next(waiting, None)) is not None:
                        request, client = following
                        running[pool.submit(self._ask, client, request)] = request
                    if not running:
                        return
                    done, _ = wait(running, return_when=FIRST_COMPLETED)
                    yield [(running.pop(future), future.result()) for future in done]
            finally:
                for future in running:
                    future.cancel()

    def close(self) -> None:
        """Close the connections."""
        for client in self._clients:
            client.close()

    def _ask(self, client: Any, request: Rendered) -> Completion | Failure:
        openai = self._openai
        try:
            return self._completion(client, request) if request.token_ids else self._chat(client, request)
        except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
            raise InputError(f"{client.base_url} refuses the key ({error.status_code}). Set OPENAI_API_KEY to one it takes.") from None
        except openai.NotFoundError:
            raise InputError(f"{client.base_url} has no model {self._name!r}, or it was withdrawn. Name one it serves.") from None
        except openai.APIConnectionError as error:
            raise EnvironmentFault(f"{client.base_url} cannot be reached ({error}). Start it; the same command goes on.") from None
        except openai.APIStatusError as error:
            return Failure(f"the server answered {error.status_code}: {str(error.message)[:200]}")
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            return Failure(f"the server's answer has not the expected form ({type(error).__name__})")

    def _completion(self, client: Any, request: Rendered) -> Completion:
        sampling = request.sampling
        asked: dict[str, Any] = {"model": self._name, "prompt": list(request.token_ids), "max_tokens": request.max_new_tokens}
        extra: dict[str, Any] = {"return_token_ids": True}
        if request.candidates:
            asked |= {"temperature": 0.0, "logprobs": len(request.candidates)}
            extra |= {"logprob_token_ids": [token_id for _, token_id in request.candidates], "return_tokens_as_token_ids": True}
        else:
            asked |= {"temperature": sampling.temperature, "top_p": sampling.top_p, "n": sampling.n, "stop": list(sampling.stop) or None}
            asked |= {"logprobs": sampling.n_logprobs} if sampling.n_logprobs else {}
        answer = client.completions.create(**asked, extra_body=extra)
        n_prompt = len(request.token_ids)
        if request.candidates:
            top = answer.choices[0].logprobs.top_logprobs[0]
            found = {label: float(top[f"token_id:{token_id}"]) for label, token_id in request.candidates}
            return Completion(choice_logprobs=found, n_prompt_tokens=n_prompt)
        choices = sorted(answer.choices, key=lambda choice: choice.index)
        outputs = tuple(_output(choice.text, choice) for choice in choices)
        logprobs = choices[0].logprobs
        top_logprobs = dict(logprobs.top_logprobs[0]) if sampling.n_logprobs and logprobs else None
        return Completion(outputs, top_logprobs=top_logprobs, n_prompt_tokens=n_prompt)

    def _chat(self, client: Any, request: Rendered) -> Completion:
        sampling = request.sampling
        asked: dict[str, Any] = {"model": self._name, "messages": [{"role": m.role, "content": m.content} for m in request.messages]}
        asked |= {"max_tokens": request.max_new_tokens, "temperature": sampling.temperature, "top_p": sampling.top_p, "n": sampling.n}
        if sampling.stop:
            asked["stop"] = list(sampling.stop[:4])
        n_logprobs = 20 if request.labels else sampling.n_logprobs
        if n_logprobs:
            asked |= {"logprobs": True, "top_logprobs": n_logprobs}
        answer = client.chat.completions.create(**asked)
        outputs = tuple(_output(choice.message.content or "", choice) for choice in answer.choices)
        if not outputs:
            raise IndexError("no choices")
        top = None
        if n_logprobs and answer.choices[0].logprobs and answer.choices[0].logprobs.content:
            top = {entry.token: entry.logprob for entry in answer.choices[0].logprobs.content[0].top_logprobs}
        n_prompt = answer.usage.prompt_tokens if answer.usage else 0
        if not request.labels:
            return Completion(outputs, top_logprobs=top, n_prompt_tokens=n_prompt)
        # A chat server shows only its likeliest tokens; a label it does not show gets less than the least of them.
        least = min(top.values()) if top else -100.0
        found = {
            label: max((v for t, v in (top or {}).items() if t.strip() == text.strip()), default=least - 1)
            for label, text in request.labels
        }
        return Completion(outputs, choice_logprobs=found, n_prompt_tokens=n_prompt)


def _output(text: str, choice: Any) -> Output:
    ids = getattr(choice, "token_ids", None) or ()
    return Output(text, "length" if choice.finish_reason == "length" else "stop", tuple(ids))
