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

import numpy as np
import pytest
from safetensors.numpy import save

from evals.cards.published import published_rows

# --- the hub --------------------------------------------------------------------------------------

COMMIT = "0123456789abcdef0123456789abcdef01234567"
MODULE = "model.layers.0.self_attn.q_proj"
WEIGHTS = save({f"{MODULE}.weight": np.zeros((8, 6), np.float32)})


def lora(base: str, **config: object) -> dict[str, bytes]:
    """An adapter's files."""
    name = f"base_model.model.{MODULE}.lora_"
    a, b = np.zeros((4, 6), np.float32), np.zeros((8, 4), np.float32)
    said = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "base_model_name_or_path": base}
    return {
        "adapter_config.json": json.dumps(said | config).encode(),
        "adapter_model.safetensors": save({f"{name}A.weight": a, f"{name}B.weight": b}),
    }


FILES = {
    "me/model": {
        "config.json": b'{"max_position_embeddings": 2048}',
        "tokenizer_config.json": b"{}",
    },
    "me/base": {"config.json": b"{}", "tokenizer_config.json": b"{}", "model.safetensors": WEIGHTS},
    "me/lora": lora("me/base"),
    "me/lora-of-a-step": lora("me/base", revision="nowhere"),
    "me/lora-of-others": lora("me/gone"),
    "me/dora": lora("me/base", use_dora=True),
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
        elif parts[-1] in FILES.get("/".join(parts[:2]), {}):
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
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
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


ADAPTER = """
import json, sys
from evals.errors import InputError
from evals.models.bases import adapter_record
from evals.models.resolve import require_weights, resolve
for argument, base, base_revision in json.loads(sys.argv[1]):
    try:
        m = resolve(argument, base=base, base_revision=base_revision)
        require_weights(m)
        print(json.dumps([m.name, m.public_id, m.own_revision, m.source, m.revision]))
    except InputError as error:
        print(json.dumps(str(error)))
"""


def test_an_adapter_of_the_hub_is_served_on_its_base_at_its_revision(
    hub: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the base's weights the hub gives the headers alone."""
    monkeypatch.setattr("tests.unit.models.test_hub.ASK", ADAPTER)
    monkeypatch.setitem(FILES["me/base"], "model.safetensors", WEIGHTS)
    questions: list[tuple[str, str | None, str | None]] = [
        ("me/lora", None, None),
        ("me/lora-of-a-step", None, None),
        ("me/lora-of-a-step", "me/base", None),
        ("me/lora", "me/base", "nowhere"),
        ("me/lora-of-others", None, None),
    ]
    found = asked(hub, tmp_path, *questions)  # type: ignore[arg-type]
    served = ["lora", "me/lora", COMMIT, "me/base", COMMIT]
    assert found[0] == served
    assert str(found[1]).startswith("me/lora-of-a-step, an adapter of me/base: me/base has no rev")
    assert found[2] == ["lora-of-a-step", "me/lora-of-a-step", *served[2:]]
    assert "me/base has no revision 'nowhere'" in str(found[3])
    assert str(found[4]).startswith("me/lora-of-others, an adapter of me/gone: No folder me/gone")
    other = save({f"{MODULE}.weight": np.zeros((6, 6), np.float32)})
    monkeypatch.setitem(FILES["me/base"], "model.safetensors", other)
    (misfit,) = asked(hub, tmp_path, ("me/lora", None, None))  # type: ignore[arg-type]
    assert "other shapes than its base: model.layers.0.self_attn.q_proj (8 × 6, the base's 6" in (
        str(misfit)
    )
