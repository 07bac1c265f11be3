"""Models of the hub, against a hub of this machine: one commit, kept for later, and each refusal in
one sentence.
"""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from evals.cards.published import published_rows

# --- the hub --------------------------------------------------------------------------------------

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {
    "me/model": {
        "config.json": b'{"max_position_embeddings": 2048}',
        "tokenizer_config.json": b"{}",
    },
    "me/dora": {
        "adapter_config.json": b'{"peft_type": "LORA", "r": 8, "lora_alpha": 8, "use_dora": 1}'
    },
    "me/empty": {"README.md": b"hello"},
    "me/gated-files": {"config.json": b"{}"},
} | {row.hub_id: {"config.json": b"{}", "tokenizer_config.json": b"{}"} for row in published_rows()}
REFUSALS = {
    "me/gated": (401, "GatedRepo"),
    "me/missing": (401, "RepoNotFound"),
    "me/gone": (404, "RepoNotFound"),
    "me/broken": (400, ""),
}
ASK = """
import json, sys
from evals.errors import InputError
from evals.models.resolve import resolve
for argument, revision, offline in json.loads(sys.argv[1]):
    try:
        m = resolve(argument, revision=revision, offline=offline)
        files = sorted(path.name for path in m.files.iterdir())
        print(json.dumps([m.name, m.source, m.revision, m.row_format, m.row_bos, files]))
    except InputError as error:
        print(json.dumps(str(error)))
"""


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as a model's config and tokenizer need."""

    def do_GET(self) -> None:
        parts = self.path.split("?")[0].strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            repository, revision = "/".join(parts[2:4]), parts[5]
            if repository in REFUSALS or revision == "nowhere":
                self.answer(*REFUSALS.get(repository, (404, "RevisionNotFound")))
            elif parts[4] == "tree":
                files = [
                    {"type": "file", "path": name, "size": len(raw), "oid": name}
                    for name, raw in FILES[repository].items()
                ]
                self.answer(200, content=json.dumps(files).encode())
            else:
                info = {
                    "id": repository,
                    "sha": COMMIT,
                    "siblings": [{"rfilename": name} for name in FILES[repository]],
                }
                self.answer(200, content=json.dumps(info).encode())
        elif parts[0] == "me" and parts[1] == "gated-files":
            self.answer(403, "GatedRepo")
        elif "/".join(parts[:2]) in FILES:
            self.answer(200, content=FILES["/".join(parts[:2])][parts[-1]])
        else:
            self.answer(404)

    do_HEAD = do_GET  # noqa: N815

    def answer(self, status: int, code: str = "", content: bytes = b"{}") -> None:
        self.send_response(status)
        headers = {
            "X-Repo-Commit": COMMIT,
            "ETag": f'"{hash(content)}"',
            "Content-Length": str(len(content)),
        }
        for name, value in (headers | ({"X-Error-Code": code} if code else {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def asked(
    endpoint: str, cache: Path, *questions: tuple[str, str | None, bool], **variables: str
) -> list[list[object] | str]:
    """What each (argument, revision, offline) resolves to, or the error's message, in a process of
    its own.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment = (
        kept
        | {"HF_ENDPOINT": endpoint, "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1"}
        | variables
    )
    command = [sys.executable, "-c", ASK, json.dumps(questions)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_hub_ids_bring_config_and_tokenizer_at_one_commit_and_are_then_there_offline(
    hub: str, tmp_path: Path
) -> None:
    (found,) = asked(hub, tmp_path, ("me/model", None, False))
    assert found == [
        "model",
        "me/model",
        COMMIT,
        None,
        None,
        ["config.json", "tokenizer_config.json"],
    ]
    (again,) = asked("http://127.0.0.1:1", tmp_path, ("me/model", None, True))
    assert again == found
    (unplugged,) = asked(
        "http://127.0.0.1:1", tmp_path, ("me/model", None, False), HF_HUB_OFFLINE="1"
    )
    assert unplugged == found


def test_a_short_name_brings_its_hub_id_format_and_bos(hub: str, tmp_path: Path) -> None:
    rows = published_rows()
    found = asked(hub, tmp_path, *((row.short_name, None, False) for row in rows))
    for row, model in zip(rows, found, strict=True):
        assert model[:5] == [row.name, row.hub_id, COMMIT, row.chat_format, row.bos_tokens]
    formats = {row.short_name: (row.chat_format, row.bos_tokens) for row in rows}
    assert formats["llama-3.1-8b"] == ("none", 1)
    assert formats["llama-3.1-8b-instruct"] == ("tokenizer", 2)
    assert formats["tulu-2-llama-3.1-8b-dpo"] == ("tulu", 1)


def test_what_the_hub_refuses_is_said_in_one_sentence_each(hub: str, tmp_path: Path) -> None:
    questions = [
        ("me/gated", None),
        ("me/gated-files", None),
        ("me/missing", None),
        ("me/gone", None),
        ("me/model", "nowhere"),
        ("me/dora", None),
        ("me/empty", None),
        ("me/broken", None),
    ]
    found = asked(hub, tmp_path, *((argument, revision, False) for argument, revision in questions))
    says = [
        "me/gated is gated. Accept its licence",
        "me/gated-files is gated. Accept its licence",
        "No folder me/missing is here, and no such model on the hub",
        "No folder me/gone is here, and no such model on the hub",
        "me/model has no revision 'nowhere'.",
        "me/dora cannot be served as an adapter: it is DoRA (use_dora). Merge it into its base",
        "me/empty holds no model",
        (
            "No folder me/broken is here, and as a hub id it is not in the local cache and the hub"
            " cannot be reached"
        ),
    ]
    for message, wanted in zip(found, says, strict=True):
        assert isinstance(message, str)
        assert message.startswith(wanted)
        assert "\n" not in message


def test_offline_says_what_is_not_there(tmp_path: Path) -> None:
    offline, unreachable = asked(
        "http://127.0.0.1:1", tmp_path, ("me/model", None, True), ("me/model", None, False)
    )
    assert (
        offline
        == "No folder me/model is here, and as a hub id it is not in the local cache and --offline"
        " is set. Download it first, or name a local folder."
    )
    assert isinstance(unreachable, str)
    assert unreachable.startswith("No folder me/model")
    assert "cannot be reached" in unreachable
