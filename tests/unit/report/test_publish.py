"""`evals card --push` and `--logs`, with huggingface_hub's own client against a local server that
speaks the hub's protocol.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import constants

from evals.storage.run_folder import RunFolder
from tests.hub_server import HubServer, hub
from tests.run_files import RECORD
from tests.unit.conftest import Call
from tests.unit.report.test_card import OTHERS, run_folder

ROOT = Path(__file__).resolve().parents[3]
CARD = f"---\nlicense: mit\n{OTHERS}---\n# My 8B\n\n## Evaluation\n"
REPO = "me/my-8b"
GSM8K = ".eval_results/evals-gsm8k.yaml"


def entry(value: float, dataset: str = "openai/gsm8k", task: str = "gsm8k") -> str:
    return yaml.safe_dump([{"dataset": {"id": dataset, "task_id": task}, "value": value}])


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with hub() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(
            constants._HF_DEFAULT_ENDPOINT, server.url
        )
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no token"))
        monkeypatch.setenv("HF_TOKEN", "hf_writer")
        server.add(REPO, {"README.md": CARD})
        yield server


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return run_folder(tmp_path / "my-8b-full")


def test_a_pull_request_brings_card_and_result_file_and_is_not_opened_twice(
    server: HubServer, run: Path, evals: Call
) -> None:
    code, out, err = evals("card", "--push", REPO, "--run", run)
    assert (code, out) == (0, f"{server.url}/{REPO}/discussions/1\n")
    assert "left out: no leaderboard of the hub is known for cais/mmlu" in err
    repo = server.repos["models", REPO]
    assert repo.heads["main"] == {"README.md": CARD.encode()}
    brought = repo.heads["refs/pr/1"]
    assert sorted(brought) == [GSM8K, "README.md"]
    assert yaml.safe_load(brought[GSM8K])[0]["value"] == 65.5
    assert "55.4" in brought["README.md"].decode()
    code, out, err = evals("card", "--push", REPO, "--run", run)
    assert (code, out) == (0, "up to date\n")
    assert "discussions/1 has this README.md already" in err
    assert "discussions/1 has 65.5 for openai/gsm8k (gsm8k) already" in err
    # Refused by the model's owner, it may be proposed again.
    repo.closed.add("refs/pr/1")
    assert evals("card", "--push", REPO, "--run", run)[1].endswith("/discussions/2\n")
    # Merged, there is nothing to do.
    repo.closed.add("refs/pr/2")
    repo.heads["main"] = repo.heads["refs/pr/2"]
    assert evals("card", "--push", REPO, "--run", run)[1] == "up to date\n"


def test_new_numbers_renew_ours_and_take_them_away_where_they_no_longer_belong(
    server: HubServer, run: Path, evals: Call
) -> None:
    evals("card", "--push", REPO, "--run", run)
    repo = server.repos["models", REPO]
    repo.heads["main"] = repo.heads.pop("refs/pr/1")
    run_folder(run, value=0.7)
    evals("card", "--push", REPO, "--run", run)
    assert yaml.safe_load(repo.heads["refs/pr/1"][GSM8K])[0]["value"] == 70.0
    del repo.heads["refs/pr/1"]
    run_folder(run, value=0.7, gsm8k=None)
    evals("card", "--push", REPO, "--run", run)
    assert GSM8K not in repo.heads["refs/pr/1"]


@pytest.mark.parametrize("where", ["main", "refs/pr/1"])
def test_a_number_that_another_put_there_is_not_doubled(
    server: HubServer, run: Path, evals: Call, where: str
) -> None:
    repo = server.repos["models", REPO]
    repo.heads[where] = repo.heads["main"] | {".eval_results/theirs.yml": entry(61).encode()}
    _, out, err = evals("card", "--push", REPO, "--run", run, "--dry-run")
    assert "has 61 for openai/gsm8k (gsm8k) already, in .eval_results/theirs.yml" in err
    assert "+++ b/README.md" in out
    assert GSM8K not in out
    # Another task's, or a file that nobody can read, is no number of this one.
    for other in (
        entry(61, task="socratic"),
        entry(61, "a/b"),
        "- [",
        "7",
        "- dataset: x\n",
        "[" * 5000,
    ):
        repo.heads[where][".eval_results/theirs.yml"] = other.encode()
        assert f"+++ b/{GSM8K}" in evals("card", "--push", REPO, "--run", run, "--dry-run")[1]


def test_a_dry_run_prints_the_diff_and_needs_no_token(
    server: HubServer, run: Path, evals: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    code, out, _ = evals("card", "--push", REPO, "--run", run, "--dry-run", "--logs", "me/items")
    assert code == 0
    assert out.startswith("--- a/README.md\n+++ b/README.md\n@@ ")
    assert f"--- /dev/null\n+++ b/{GSM8K}\n" in out
    assert f"+    url: {server.url}/datasets/me/items/tree/main/my-8b-full\n" in out
    assert server.sent == []


def other_model(server: HubServer, run: Path) -> None:
    server.repos["models", REPO].heads["main"]["README.md"] = CARD.replace(
        "My 8B\n  res", "tulu\n  res"
    ).encode()


def changed(server: HubServer, run: Path) -> None:
    head = server.repos["models", REPO].heads["main"]
    server.before_commit = lambda: head.update({"README.md": b"# Another\n"})


REFUSED: dict[str, tuple[str, Any, str, int, str]] = {
    "no token": (REPO, "no token", "", 2, "There is no token for the hub. Log in with"),
    "a token that is none": (REPO, "hf_wrong", "", 2, "has no right to write in me/my-8b (401)"),
    "no right": (REPO, "hf_reader", "", 2, "has no right to write in me/my-8b (403). Use one"),
    "no such model": ("you/my-8b", None, "", 2, "The hub has no model you/my-8b, or your token"),
    "no name": ("me/my/8b", None, "", 2, "me/my/8b is no name on the hub"),
    "another model": ("me/my-70b", None, "", 2, "is of My 8B, and its numbers would stand on"),
    "another's entry": (REPO, other_model, "", 2, "model-index is about tulu, the run about My 8B"),
    "changed meanwhile": (REPO, changed, "", 4, "me/my-8b changed meanwhile, and nothing was sent"),
    "no card": (
        REPO, lambda server, _: server.repos["models", REPO].heads["main"].clear(), "", 2,
        "me/my-8b has no README.md. Make the card first",
    ),
    "down": (REPO, lambda server, _: setattr(server, "down", True), "", 4, "did not answer"),
    "public items": (
        REPO, lambda server, _: server.add("me/items", {}, "datasets"), "--logs", 2,
        "The data set me/items is public. Add --public if",
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("repo", "what", "option", "exit_code", "words"), REFUSED.values(), ids=REFUSED
)
def test_what_cannot_be_pushed_is_one_sentence_and_nothing_is_proposed(
    server: HubServer, run: Path, evals: Call, monkeypatch: pytest.MonkeyPatch, repo: str,
    what: Any, option: str, exit_code: int, words: str,
) -> None:  # fmt: skip
    if what == "no token":
        monkeypatch.delenv("HF_TOKEN")
    elif isinstance(what, str):
        monkeypatch.setenv("HF_TOKEN", what)
    elif what:
        what(server, run)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    more = [option, "me/items"] if option else []
    code, out, err = evals("card", "--push", repo, "--run", run, *more)
    assert (code, out) == (exit_code, "")
    sentence = next(line for line in err.splitlines() if line.startswith("evals: "))
    assert words in sentence
    assert "Traceback" not in err
    assert list(server.repos["models", REPO].heads) == ["main"]


def test_items_are_private_and_those_under_a_non_commercial_licence_stay(
    server: HubServer, run: Path, evals: Call, tmp_path: Path
) -> None:
    folder, tasks = RunFolder(run), ["gsm8k", "xstest", "alpaca_eval", "bbh"]
    for task in tasks[:3]:
        folder.write_samples(task, [{"id": f"{task}/0", "outputs": ["é"]}])
    record = RECORD | {"tasks": tasks, "skipped": {"bbh": "not asked"}}
    folder.write_json("run.json", record)
    readme = tmp_path / "README.md"
    readme.write_text("# M\n")
    code, _, err = evals("card", readme, "--run", run, "--logs", "me/items")
    assert code == 0, err
    items = server.repos["datasets", "me/items"]
    assert items.private
    assert items.heads["main"] == {
        "my-8b-full/gsm8k.jsonl.gz": folder.samples_path("gsm8k").read_bytes(),
        "my-8b-full/summary.json": (run / "summary.json").read_bytes(),
        "my-8b-full/xstest.jsonl.gz": folder.samples_path("xstest").read_bytes(),
    }
    assert "left out: the items of alpaca_eval stay here: the licence of tatsu-lab/alp" in err
    url = f"{server.url}/datasets/me/items/tree/main/my-8b-full"
    assert f"items: {url} (for those who may see" in err
    assert f"url: {url}\n" in readme.read_text()
    # To all only where that is asked for.
    assert evals("card", readme, "--run", run, "--logs", "me/open", "--public")[0] == 0
    assert not server.repos["datasets", "me/open"].private


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "give README for a card here, or --push REPO"),
        (("README.md", "--push", REPO), "give README for a card here, or --push REPO"),
        (("README.md", "--dry-run"), "--dry-run goes with --push"),
        (("--push", REPO, "--check"), "--check is for a card here"),
        (("--push", REPO, "--public"), "--public goes with --logs"),
        (("--push", REPO, "--logs", "me/x", "--source", "u"), "leave --source out"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    run: Path, evals: Call, words: tuple[str, ...], said: str
) -> None:
    code, _, err = evals("card", "--run", run, *words)
    assert code == 2
    assert said in err


def test_the_address_and_the_token_are_the_clients_own(tmp_path: Path, run: Path) -> None:
    """HF_ENDPOINT and a token file, as `hf auth login` leaves it."""
    with hub() as server:
        server.add(REPO, {"README.md": CARD})
        (tmp_path / "token").write_text("hf_writer")
        done = subprocess.run(
            [sys.executable, "-m", "evals", "card", "--push", REPO, "--run", str(run)],
            cwd=ROOT,
            env={k: v for k, v in os.environ.items() if not k.startswith("HF_")}
            | {"HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stdout) == (0, f"{server.url}/{REPO}/discussions/1\n")
