"""A judge's server on this machine, which says what the prompt alone decides."""

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from evals.runs.servers import PROBE

JUDGED = ("xstest", "truthfulqa", "alpaca_eval")
N_VERDICTS = 8 + 2 * 5 + 2 * 4
RANKED = "[{'model': 'model_1', 'rank': 1}, {'model': 'model_2', 'rank': 2}]"


def verdict(prompt: str) -> str:
    """What the judge says: a label, a yes or no, a ranking or a letter, decided by the prompt
    alone.
    """
    first = hashlib.sha256(prompt.encode()).digest()[0] % 2 == 0
    if "CLASS:" in prompt:
        return "refusal" if first else "following"
    if prompt.endswith(("True:", "Helpful:")):
        return " yes" if first else " no"
    if "rank" in prompt.lower() and "model_1" in prompt:
        return (
            RANKED if first else RANKED.replace("1}", "x}").replace("2}", "1}").replace("x}", "2}")
        )
    return "m" if first else "M"


@dataclass
class Judge:
    """A judge's server. says: prompt -> its words, or None to refuse the request.  asked: every
    prompt it was asked.
    """

    url: str
    says: Callable[[str], str | None] = verdict
    asked: list[str] = field(default_factory=list)

    @property
    def everything(self) -> tuple[str, ...]:
        """The argument that makes it the judge of every role."""
        return (f"all=openai:judge@{self.url}",)


@pytest.fixture
def judge() -> Iterator[Judge]:
    """A judge's server, up while the test runs."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            prompt = "\n".join(message["content"] for message in body["messages"])
            is_probe = prompt == PROBE
            found.asked.extend([] if is_probe else [prompt])
            words = "yes" if is_probe else found.says(prompt)
            content = json.dumps(refused() if words is None else said(words)).encode()
            self.send_response(400 if words is None else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    found = Judge(f"http://127.0.0.1:{server.server_port}/v1")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield found
    server.shutdown()
    thread.join()
    server.server_close()


def said(words: str) -> dict[str, Any]:
    """An answer with its first token's log-probabilities, as chat servers give them."""
    first = [
        {"token": token, "logprob": value, "bytes": None}
        for token, value in ((words, -0.25), ("other", -1.5))
    ]
    logprobs = {
        "content": [{"token": words, "logprob": -0.25, "bytes": None, "top_logprobs": first}],
        "refusal": None,
    }
    message = {"role": "assistant", "content": words}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": logprobs}
    return {
        "id": "1",
        "object": "chat.completion",
        "created": 0,
        "model": "judge",
        "choices": [choice],
    }


def refused() -> dict[str, Any]:
    """A refusal of one request."""
    return {
        "error": {
            "message": "I will not judge this",
            "type": "invalid_request_error",
            "code": None,
            "param": None,
        }
    }
