"""The key of an OpenAI-compatible server: sent, and found nowhere else, however often the server
repeats it.
"""

import base64
import gzip
import os
import re
import signal
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
from evals.report.card import update
from evals.report.export import FORMATS, write_format, write_items
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
    blocks = re.findall(rb">([A-Za-z0-9+/=]{40,})</script>", path.read_bytes())
    return path.read_bytes() + b"".join(gzip.decompress(base64.b64decode(one)) for one in blocks)


def test_the_key_is_in_nothing_that_shows_a_run(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with serving(lambda body, _: chat(body, "I can tell you.")) as server:
        settings = RunSettings(f"openai:m@{server.url}", suite="smoke", tasks=("ifeval",), out=out)
        run(settings)
        assert server.keys == {f"Bearer {KEY}"}
    row = next(RunFolder(out).samples("ifeval"))
    write_report(tmp_path / "page.html", [out])
    opened = _unpacked(tmp_path / "page.html")
    assert b"I can tell you." in opened
    assert KEY.encode() not in opened
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


PLANTED = {
    "OPENAI_API_KEY": KEY,
    "HF_TOKEN": "hf_planted0123456789",
    "AWS_ACCESS_KEY_ID": "AKIAPLANTED012345678",
    "AWS_SECRET_ACCESS_KEY": "aws-planted-0123456789",
    "AWS_SESSION_TOKEN": "aws-session-planted-0123456789",
    "WANDB_API_KEY": "wandb-planted-0123456789",
}


def found_in(folder: Path, said: str) -> list[str]:
    """Where a planted secret is: in a file, or in what was said."""
    texts = {str(path): _unpacked(path) for path in folder.rglob("*") if path.is_file()}
    texts["the terminal"] = said.encode()
    return [
        f"{name} in {where}"
        for where, text in texts.items()
        for name, secret in PLANTED.items()
        if secret.encode() in text
    ]


def test_no_secret_is_in_what_a_run_and_its_readers_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, secret in PLANTED.items():
        monkeypatch.setenv(name, secret)

    def script(body: Body, before: int) -> Reply:
        said = body["messages"][-1]["content"]
        if "castle" in said:
            return error(400, f"Bearer {KEY} is odd")
        if before == 0 and len(said) % 3 == 0:
            return error(500, f"Bearer {KEY} is odd")
        return chat(body, "def f():\n    import os\n    print(os.environ)\n    return 7")

    out = tmp_path / "run"
    with serving(script) as server:
        server.about = {
            "/v1/models": {"data": [{"id": "m", "root": f"/{KEY}", "max_model_len": 4096}]},
            "/version": {"version": f"0.1 {KEY}"},
        }
        settings = RunSettings(
            f"openai:m@{server.url}",
            suite="smoke",
            tasks=("xstest", "ifeval", "humaneval"),
            out=out,
            judges=(f"xstest=openai:j@{server.url}",),
        )
        run(settings, Progress())
        assert server.keys == {f"Bearer {KEY}"}
    write_report(tmp_path / "page.html", [out])
    write_items(out, tmp_path / "items.csv")
    for layout in FORMATS:
        write_format(layout, out, tmp_path / layout)
    (tmp_path / "README.md").write_text("# m\n")
    update(tmp_path / "README.md", [out])
    for task in ("xstest", "ifeval", "humaneval"):
        print(describe_item(out, next(RunFolder(out).samples(task))["id"], None))
    assert not found_in(tmp_path, "".join(capfd.readouterr()))


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_no_secret_is_in_what_a_run_leaves_that_is_ended(
    tmp_path: Path, end: signal.Signals
) -> None:
    def script(body: Body, before: int) -> Reply:
        if len(server.asked) == 1:
            return error(500, f"Bearer {KEY} is odd")
        process.send_signal(end)
        return chat(body, "I can tell you.")

    with serving(script) as server:
        process = subprocess.Popen(
            [sys.executable, "-m", "evals", "run", f"openai:m@{server.url}", "--suite", "smoke",
             "--tasks", "ifeval", "--out", tmp_path / "run"],
            cwd=ROOT,
            env=os.environ | PLANTED | {"EVALS_TRACEBACK": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )  # fmt: skip
        said, _ = process.communicate(timeout=120)
        assert server.keys == {f"Bearer {KEY}"}
    assert process.returncode == (130 if end is signal.SIGINT else -end)
    assert (tmp_path / "run").is_dir()
    assert not found_in(tmp_path, said)
