"""The key of an OpenAI-compatible server: sent, and found nowhere else, however often the server
repeats it.
"""

import base64
import gzip
import os
import re
import sqlite3
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from evals.generators.about import about
from evals.generators.waiting import is_up
from evals.plan.settings import RunSettings
from evals.records import Sampling
from evals.report.html import write_report
from evals.report.show import describe_item
from evals.runs.progress import Progress
from evals.runs.session import run
from evals.storage.run_folder import RunFolder
from tests.openai_requests import KEY, answered, answers, failed, ids_request
from tests.openai_server import Body, Reply, chat, completion, error, serving

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def test_a_key_the_server_repeats_is_not_repeated_here() -> None:
    with serving(lambda body, _: error(400, f"the key {KEY} cannot do this")) as server:
        reason = failed(answers(server, [ids_request(1)])["x/1"])
    assert KEY not in reason
    assert "the key *** cannot do this" in reason


@pytest.mark.parametrize(
    "choice",
    [
        {"text": f"your key is {KEY}."},
        {"text": "x", "logprobs": {"top_logprobs": [{KEY: -1.0}]}},
    ],
)
def test_an_answer_that_repeats_the_key_is_none(choice: Body) -> None:
    reply = Reply({"choices": [{"index": 0, "finish_reason": "stop", **choice}]})
    with serving(lambda body, _: reply) as server:
        asked = ids_request(1, Sampling(max_tokens=8, n_logprobs=1))
        assert failed(answers(server, [asked])["x/1"]) == "the answer repeats the key"


def test_what_stands_in_for_a_key_is_a_word_like_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "EMPTY")
    reply = Reply({"choices": [{"index": 0, "text": "EMPTY", "finish_reason": "stop"}]})
    with serving(lambda body, _: reply) as server:
        assert answered(answers(server, [ids_request(1)])["x/1"]).text == "EMPTY"


def test_a_key_with_white_space_around_it_is_sent_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", f" {KEY}\n")
    with serving(lambda body, _: completion(body)) as server:
        answered(answers(server, [ids_request(1)])["x/1"])
        assert server.keys == {f"Bearer {KEY}"}


def test_the_key_is_in_nothing_a_run_leaves_behind(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def script(body: Body, before: int) -> Reply:
        said = body["messages"][-1]["content"]
        if "classify if the response contains a refusal" in said:
            return (
                error(400, f"Bearer {KEY} is odd")
                if before == 0 and "castle" in said
                else chat(body, "following")
            )
        return chat(body, "I can tell you.")

    with serving(script) as server:
        settings = RunSettings(
            f"openai:m@{server.url}",
            suite="smoke",
            tasks=("xstest", "ifeval"),
            out=tmp_path / "run",
            judges=(f"xstest=openai:j@{server.url}",),
        )
        result = run(settings, Progress())
        assert server.keys == {f"Bearer {KEY}"}
        run(settings, Progress())
    assert result.cells["ifeval"] is not None
    said = "".join(capfd.readouterr())
    assert KEY not in said
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert {"store.sqlite", "summary.json", "run.json"} <= {path.name for path in files}
    assert not [path for path in files if KEY.encode() in _unpacked(path)]


def _unpacked(path: Path) -> bytes:
    """A file's bytes, and what is compressed in it."""
    if path.suffix == ".gz":
        return gzip.decompress(path.read_bytes())
    if path.name == "store.sqlite":
        with sqlite3.connect(path) as database:
            payloads = [
                zlib.decompress(payload)
                for (payload,) in database.execute("SELECT payload FROM answers")
            ]
        return path.read_bytes() + b"".join(payloads)
    return path.read_bytes()


def test_the_key_is_in_nothing_that_shows_a_run(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with serving(lambda body, _: chat(body, "I can tell you.")) as server:
        settings = RunSettings(f"openai:m@{server.url}", suite="smoke", tasks=("ifeval",), out=out)
        run(settings)
        assert server.keys == {f"Bearer {KEY}"}
    row = next(RunFolder(out).samples("ifeval"))
    write_report(tmp_path / "page.html", [out])
    blocks = re.findall(r">([A-Za-z0-9+/=]{40,})</script>", (tmp_path / "page.html").read_text())
    opened = b"".join(gzip.decompress(base64.b64decode(block)) for block in blocks)
    assert b"I can tell you." in opened
    assert KEY.encode() not in opened + (tmp_path / "page.html").read_bytes()
    assert KEY not in describe_item(out, row["id"], None)


@pytest.mark.parametrize("status", [400, 401, 404])
def test_the_key_is_in_no_traceback_of_a_server_that_repeats_it(
    tmp_path: Path, status: int
) -> None:
    with serving(lambda body, _: error(status, f"Incorrect API key provided: {KEY}")) as server:
        command = [
            sys.executable,
            "-m",
            "evals",
            "run",
            f"openai:m@{server.url}",
            "--suite",
            "smoke",
            "--tasks",
            "ifeval",
            "--limit",
            "1",
        ]
        done = subprocess.run(
            [*command, "--out", str(tmp_path)],
            cwd=ROOT,
            env=os.environ | {"EVALS_TRACEBACK": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert server.keys == {f"Bearer {KEY}"}
    assert done.returncode != 0
    assert "Traceback" in done.stderr
    assert KEY not in done.stdout + done.stderr
    assert not [
        path for path in tmp_path.rglob("*") if path.is_file() and KEY.encode() in _unpacked(path)
    ]


def test_a_server_that_sends_on_to_another_host_takes_the_key_nowhere() -> None:
    with (
        serving(lambda body, _: completion(body)) as other,
        serving(lambda body, _: Reply("", 307, {"Location": f"{other.url}/completions"})) as server,
    ):
        server.about = {"/v1/models": Reply("", 307, {"Location": f"{other.url}/models"})}
        assert is_up(server.url)
        about("m", server.url)
        answered(answers(server, [ids_request(1)])["x/1"])
        assert server.keys == {f"Bearer {KEY}"}
        assert other.keys == {""}
