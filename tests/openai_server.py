"""A local server that speaks the OpenAI protocol and misbehaves on demand; a real one, over real
sockets.
"""

import json
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from evals.runs.servers import PROBE

Body = dict[str, Any]


@dataclass(frozen=True)
class Reply:
    """What the server sends: an object as JSON, or bytes as they are. cut: promise the whole body,
    send half. reset: slam the door.
    """

    body: Any = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: bool = False
    reset: bool = False
    wait_s: float = 0.0


Script = Callable[[Body, int], Reply]


class OpenAIServer(ThreadingHTTPServer):
    """Answers with `script(body, how many times this prompt was asked before)`; keeps what it was
    asked.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, script: Script, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.script = script
        self.lock = threading.Lock()
        self.asked: list[Body] = []
        self.paths: Counter[str] = Counter()
        self.keys: set[str] = set()
        self.times: Counter[str] = Counter()
        self.running = 0
        self.most_running = 0
        self.about: Mapping[str, Any] = {}
        self.gives_logprobs = True
        self.probe: Reply | None = None
        """What it says to the one question that a run asks first, which is not counted; None for
        yes."""

    @property
    def url(self) -> str:
        """Where it listens, as --judge and MODEL take it."""
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are part of the play."""


@contextmanager
def reserved_port() -> Iterator[int]:
    """A port that nobody else gets: connections to it are refused until a server of ours, which
    may bind it beside this socket, listens there.
    """
    with socket.socket() as held:
        for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
            held.setsockopt(socket.SOL_SOCKET, option, 1)
        held.bind(("127.0.0.1", 0))
        yield int(held.getsockname()[1])


@contextmanager
def serving(script: Script, port: int = 0) -> Iterator[OpenAIServer]:
    """A server in a thread, gone afterwards. port: 0 for a free one."""
    server = OpenAIServer(script, port)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: OpenAIServer

    def do_POST(self) -> None:
        """One request of the play."""
        body: Body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt = json.dumps(body.get("prompt") or body.get("messages"))
        server = self.server
        if PROBE in prompt:
            says_yes = chat(body, "yes", {"yes": -0.1} if server.gives_logprobs else None)
            self._send(server.probe or says_yes)
            return
        with server.lock:
            before = server.times[prompt]
            server.times[prompt] += 1
            server.asked.append(body)
            server.paths[self.path] += 1
            server.keys.add(self.headers.get("Authorization", ""))
            server.running += 1
            server.most_running = max(server.most_running, server.running)
        try:
            self._send(server.script(body, before))
        finally:
            with server.lock:
                server.running -= 1

    def do_GET(self) -> None:
        """What it says of itself; {}, too, says that it is well (/health)."""
        self.server.keys.add(self.headers.get("Authorization", ""))
        told = self.server.about.get(self.path, {})
        self._send(told if isinstance(told, Reply) else Reply(told))

    def _send(self, reply: Reply) -> None:
        time.sleep(reply.wait_s)
        self.close_connection = reply.reset or reply.cut
        if reply.reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            return
        content = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        self.send_response(reply.status)
        for name, value in {"Content-Type": "application/json", **reply.headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if reply.cut else content)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def completion(body: Body) -> Reply:
    """A vLLM server's answer to /completions: the prompt's ids told back, or log-probabilities by
    token id.
    """
    wanted = body.get("logprob_token_ids")
    if wanted:
        shown = {f"token_id:{token_id}": -float(rank) for rank, token_id in enumerate(wanted, 1)}
        return Reply(
            {
                "choices": [
                    {
                        "index": 0,
                        "text": "x",
                        "finish_reason": "length",
                        "logprobs": {"top_logprobs": [shown]},
                    }
                ]
            }
        )
    said = " ".join(map(str, body["prompt"]))
    choices = [
        {
            "index": index,
            "text": f"{said} #{index}",
            "finish_reason": "stop",
            "token_ids": [*body["prompt"], index],
            "logprobs": None,
        }
        for index in reversed(range(body["n"]))
    ]
    return Reply({"choices": choices})


def chat(body: Body, text: str | None = None, top: Mapping[str, float] | None = None) -> Reply:
    """A chat server's answer: the last message told back, or `text`, with log-probabilities where
    there are any.
    """
    said = body["messages"][-1]["content"] if text is None else text
    shown = [
        {"token": token, "logprob": value, "bytes": None} for token, value in (top or {}).items()
    ]
    first = {"token": "x", "logprob": -0.1, "bytes": None, "top_logprobs": shown}
    choices = [
        {
            "index": index,
            "message": {"role": "assistant", "content": said},
            "finish_reason": "stop",
            "logprobs": {"content": [first]} if top is not None else None,
        }
        for index in range(body["n"])
    ]
    return Reply(
        {
            "choices": choices,
            "usage": {"prompt_tokens": 7, "completion_tokens": 1, "total_tokens": 8},
        }
    )


def error(status: int, message: str = "no", code: str | None = None, **headers: str) -> Reply:
    """An error as OpenAI words it."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply({"error": {"message": message, "type": "x", "code": code}}, status, named)
