"""A local server that speaks what huggingface_hub asks of the hub to read, write and propose: real
sockets, the client's own code, repositories in memory.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

Tree = dict[str, bytes]
_API = re.compile(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(\w+)(?:/(.+))?)?$")
_FILE = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)$")


@dataclass
class Repo:
    """One repository. heads: a tree for main and each pull request.  closed: requests that are not
    open any more.
    """

    kind: str
    name: str
    private: bool = False
    heads: dict[str, Tree] = field(default_factory=lambda: {"main": {}})
    closed: set[str] = field(default_factory=set)

    def sha(self, ref: str) -> str:
        """A commit's id, which its files decide."""
        parts = sorted((path, text.hex()) for path, text in self.heads[ref].items())
        return hashlib.sha1(json.dumps(parts).encode()).hexdigest()

    def ref(self, revision: str) -> str | None:
        """The head that a name or a commit is of."""
        return next((r for r in self.heads if revision in (r, self.sha(r))), None)


class HubServer(ThreadingHTTPServer):
    """tokens: by token, whether it may write.  sent: what was written to, by path.  down: every
    answer is 503.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.repos: dict[tuple[str, str], Repo] = {}
        self.tokens = {"hf_writer": True, "hf_reader": False}
        self.sent: list[str] = []
        self.down = False
        self.before_commit: Any = None

    def add(self, name: str, files: Mapping[str, str], kind: str = "models") -> Repo:
        """A repository with these files."""
        tree = {path: text.encode() for path, text in files.items()}
        repo = Repo(kind, name, heads={"main": tree})
        self.repos[kind, name] = repo
        return repo


class _Handler(BaseHTTPRequestHandler):
    server: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _answer(
        self, content: Any, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(raw)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(raw)

    def _refuse(self, status: int, code: str, message: str = "") -> None:
        headers = {"X-Error-Code": code, "X-Error-Message": message or code}
        self._answer({"error": message or code}, status, headers)

    @property
    def _token(self) -> str:
        return (self.headers.get("Authorization") or "").removeprefix("Bearer ")

    def _repo(self, kind: str, name: str) -> Repo | None:
        repo = self.server.repos.get((kind, name))
        if repo is None or (repo.private and self._token not in self.server.tokens):
            self._refuse(401 if not self._token else 404, "RepoNotFound")
            return None
        return repo

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        if self.server.down:
            return self._refuse(503, "Down")
        at = urlsplit(self.path)
        if found := _API.match(at.path):
            kind, name, what, rest = found.groups()
            repo = self._repo(kind, name)
            if repo is None:
                return None
            if what == "discussions":
                return self._answer(self._requests(repo, parse_qs(at.query)))
            ref = repo.ref(unquote(rest or "main"))
            if ref is None:
                return self._refuse(404, "RevisionNotFound")
            names = [{"rfilename": path} for path in repo.heads[ref]]
            return self._answer(
                {"id": name, "sha": repo.sha(ref), "private": repo.private, "siblings": names}
            )
        if found := _FILE.match(at.path):
            name, revision, path = map(unquote, found.groups())
            repo = self._repo("models", name)
            if repo is None:
                return None
            ref = repo.ref(revision)
            if ref is None or path not in repo.heads[ref]:
                return self._refuse(404, "EntryNotFound")
            content = repo.heads[ref][path]
            etag = f'"{hashlib.sha1(content).hexdigest()}"'
            return self._answer(content, 200, {"ETag": etag, "X-Repo-Commit": repo.sha(ref)})
        return self._refuse(404, "NotFound")

    @staticmethod
    def _requests(repo: Repo, query: Mapping[str, list[str]]) -> dict[str, Any]:
        assert query["type"] == ["pull_request"]
        assert query["status"] == ["open"]
        rows = [
            {
                "title": "t", "num": int(ref.rpartition("/")[2]), "author": {"name": "a"},
                "createdAt": "2026-11-29T00:00:00.000Z", "status": "open", "isPullRequest": True,
                "repo": {"name": repo.name, "type": "model"},
            }
            for ref in repo.heads
            if ref != "main" and ref not in repo.closed
        ]  # fmt: skip
        return {"discussions": rows, "count": len(rows), "start": 0}

    def do_POST(self) -> None:
        body = self._body()
        if self.server.down:
            return self._refuse(503, "Down")
        at = urlsplit(self.path)
        if at.path == "/api/validate-yaml":
            return self._answer({"errors": [], "warnings": []})
        if self._token not in self.server.tokens:
            return self._refuse(401, "", "Invalid credentials in Authorization header")
        if not self.server.tokens[self._token]:
            return self._refuse(403, "", "you need a token that may write")
        self.server.sent.append(at.path)
        if at.path == "/api/repos/create":
            asked = json.loads(body)
            name, kind = f"{asked['organization']}/{asked['name']}", f"{asked['type']}s"
            url = {"url": f"{self.server.url}/{kind}/{name}"}
            if (kind, name) in self.server.repos:
                return self._answer(url | {"error": "You already created this repo"}, 409)
            self.server.add(name, {}, kind).private = asked["visibility"] == "private"
            return self._answer(url)
        found = _API.match(at.path)
        repo = self._repo(found[1], found[2]) if found else None
        if found is None or repo is None:
            return None if found else self._refuse(404, "NotFound")
        if found[3] == "preupload":
            asked = [file["path"] for file in json.loads(body)["files"]]
            rows = [{"path": p, "uploadMode": "regular", "shouldIgnore": False} for p in asked]
            return self._answer({"files": rows})
        return self._commit(repo, body, "create_pr" in parse_qs(at.query))

    def _commit(self, repo: Repo, body: bytes, as_request: bool) -> None:
        if self.server.before_commit:
            self.server.before_commit()
        lines = [json.loads(line) for line in body.splitlines()]
        parent = next(one["value"].get("parentCommit") for one in lines if one["key"] == "header")
        if parent and parent != repo.sha("main"):
            return self._refuse(
                412, "", "A commit has happened since. Please refresh and try again"
            )
        tree = dict(repo.heads["main"])
        for one in lines:
            if one["key"] == "file":
                tree[one["value"]["path"]] = base64.b64decode(one["value"]["content"])
            elif one["key"] == "deletedFile":
                del tree[one["value"]["path"]]
        ref = f"refs/pr/{len(repo.heads)}" if as_request else "main"
        repo.heads[ref] = tree
        at = f"{self.server.url}/{repo.name}"
        request = f"{at}/discussions/{ref.rpartition('/')[2]}" if as_request else None
        return self._answer(
            {
                "commitUrl": f"{at}/commit/{repo.sha(ref)}",
                "commitOid": repo.sha(ref),
                "pullRequestUrl": request,
            }
        )


@contextmanager
def hub() -> Iterator[HubServer]:
    """A hub without a repository."""
    server = HubServer()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
