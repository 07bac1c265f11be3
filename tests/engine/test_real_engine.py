"""The main job on the real engine: vLLM on the CPU with SmolLM2-135M-Instruct in float32."""

import gzip
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.without_network import NO_NAMESPACE

ROOT = Path(__file__).resolve().parents[2]
PORT = 8000 + os.getpid() % 20000
SHORT = ["--dtype", "float32", "--offline"]


def evals(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([sys.executable, "-m", "evals", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert not check or done.returncode == 0, done.stderr
    return done


def samples(run: Path, task: str) -> list[dict[str, Any]]:
    with gzip.open(run / "samples" / f"{task}.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


SMOKE = ["run", "smollm2", "--suite", "smoke", "--judge", "all=smollm2", *SHORT]


@pytest.fixture(scope="module")
def without_network(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """The smoke suite, all eight benchmarks, the model judging itself, where no interface but the loopback exists; and its exit status."""
    run = tmp_path_factory.mktemp("smoke") / "run"
    command = [sys.executable, "-m", "tests.without_network", sys.executable, "-m", "evals", *SMOKE, "--out", str(run)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode in (0, NO_NAMESPACE), done.stderr
    return run, done.returncode


@pytest.fixture(scope="module")
def smoke(without_network: tuple[Path, int]) -> Path:
    """The smoke suite's run."""
    run, status = without_network
    if status == NO_NAMESPACE:
        evals(*SMOKE, "--out", str(run))
    return run


def test_offline_the_whole_smoke_suite_needs_no_network(without_network: tuple[Path, int]) -> None:
    run, status = without_network
    if status == NO_NAMESPACE:
        pytest.skip("this kernel gives this user no network namespace: --offline is not proven here")
    assert all(task["n_answered"] == task["n_items"] for task in json.loads((run / "summary.json").read_text())["tasks"].values())


def test_the_smoke_row_has_every_cell_that_can_be_had(smoke: Path) -> None:
    summary = json.loads((smoke / "summary.json").read_text())
    without = {key for key, cell in summary["cells"].items() if cell["value"] is None}
    # As a judge the small model never writes the ranking that AlpacaEval 1 asks for.
    assert without == {"alpaca_eval_1", "alpaca_eval_2_lc"}
    assert summary["cells"]["alpaca_eval_1"]["reason"] == "no annotation could be read"
    assert "df_gamed.csv" in summary["cells"]["alpaca_eval_2_lc"]["reason"]
    assert all(task["n_answered"] == task["n_items"] for task in summary["tasks"].values())
    assert summary["bos_tokens"] == 1


def test_the_same_command_again_asks_the_engine_nothing_and_writes_the_same_bytes(smoke: Path) -> None:
    before = {path.name: path.read_bytes() for path in [smoke / "summary.json", *sorted((smoke / "samples").iterdir())]}
    evals(*SMOKE, "--out", str(smoke))
    after = {path.name: path.read_bytes() for path in [smoke / "summary.json", *sorted((smoke / "samples").iterdir())]}
    assert after == before
    sessions = json.loads((smoke / "run.json").read_text())["sessions"]
    assert sessions[0]["phases"]["generate"]["output_tokens"] > 0
    assert not any(phase.startswith("load") for phase in sessions[1]["phases"])


def test_the_gate_passes_the_smoke_row_against_itself_and_does_not_fail_it_against_the_stored_one(smoke: Path) -> None:
    assert "pass: no column fell" in evals("check", "--baseline", str(smoke), "--candidate", str(smoke), "--strict").stdout
    stored = ROOT / "results" / "baselines" / "smollm2-smoke"
    if stored.is_dir():  # sampled text may differ on another processor: undecided is no failure here
        evals("check", "--baseline", str(stored), "--candidate", str(smoke), "--policy", f"{stored}.toml")


def test_humaneval_drew_twenty_samples_of_each_problem_from_one_prompt(smoke: Path) -> None:
    rows = samples(smoke, "humaneval")
    assert rows
    assert all(len(row["outputs"]) == 20 == row["n"] for row in rows)
    assert all(len(set(row["outputs"])) > 1 for row in rows)


def test_letters_and_greedy_text_agree_with_transformers(smoke: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from evals.models import embedded_folder

    folder = embedded_folder()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    shown = {task: [json.loads(line) for line in evals("prompts", task, "--model", "smollm2", "--suite", "smoke").stdout.splitlines()]
             for task in ("mmlu", "truthfulqa")}  # fmt: skip
    recorded = {row["id"]: row for task in shown for row in samples(smoke, task)}
    for line in shown["mmlu"][:3]:
        with torch.no_grad():
            logits = model(torch.tensor([line["prompt_token_ids"]])).logits[0, -1]
        logprobs = torch.log_softmax(logits, dim=-1)
        for letter, token_id in line["candidates"].items():
            assert recorded[line["id"]]["choice_logprobs"][letter] == pytest.approx(float(logprobs[token_id]), abs=1e-3)
    line = shown["truthfulqa"][0]
    prompt = torch.tensor([line["prompt_token_ids"]])
    with torch.no_grad():
        out = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=50, do_sample=False)
    assert recorded[line["id"]]["outputs"] == [tokenizer.decode(out[0, prompt.shape[1] :], skip_special_tokens=True)]


def test_killed_in_the_middle_it_goes_on_and_ends_with_the_same_summary(smoke: Path, tmp_path: Path) -> None:
    tasks = "mmlu,gsm8k,xstest"
    command = [sys.executable, "-m", "evals", "run", "smollm2", "--suite", "smoke", "--tasks", tasks, "--judge", "xstest=strmatch", *SHORT]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    subprocess.run([*command, "--out", str(whole)], cwd=ROOT, check=True, capture_output=True, timeout=900)
    victim = subprocess.Popen(
        [*command, "--out", str(broken)], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + 600
    while answers_in(broken / "store.sqlite") < 3 and victim.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(victim.pid, signal.SIGKILL)
    victim.wait()
    kept = answers_in(broken / "store.sqlite")
    assert 3 <= kept < answers_in(whole / "store.sqlite"), "the kill came too late to prove anything"
    subprocess.run([*command, "--out", str(broken)], cwd=ROOT, check=True, capture_output=True, timeout=900)
    assert (broken / "summary.json").read_bytes() == (whole / "summary.json").read_bytes()
    phases = json.loads((broken / "run.json").read_text())["sessions"][-1]["phases"]
    assert phases["generate"]["requests"] + kept == answers_in(whole / "store.sqlite")


def test_an_engine_whose_process_is_killed_is_one_sentence_and_the_same_command_goes_on(tmp_path: Path) -> None:
    """vLLM itself leaves its caller waiting for ever then; out of memory, the kernel ends the engine so."""
    run = tmp_path / "run"
    command = [sys.executable, "-m", "evals", "run", "smollm2", "--suite", "smoke", "--tasks", "gsm8k", "--limit", "1", *SHORT]
    command += ["--out", str(run)]
    environment = os.environ | {"VLLM_ENABLE_V1_MULTIPROCESSING": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr
    said = ""
    while "generate: 1 to do" not in said:
        line = process.stderr.readline()
        assert line, said
        said += line
    for engine in engines_of(process.pid):
        os.kill(engine, signal.SIGKILL)
    out, rest = process.communicate(timeout=300)
    assert process.returncode == 4, said + rest
    assert "evals: The engine died: its process ended. Nothing is lost; the same command goes on." in rest.splitlines()
    assert out == ""
    assert not (run / "summary.json").exists()
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=900)
    assert answers_in(run / "store.sqlite") == 1


def engines_of(pid: int) -> list[int]:
    """The engine processes that a process started, as vLLM names them."""
    children = [int(word) for task in Path(f"/proc/{pid}/task").glob("*/children") for word in task.read_text().split()]
    names = {child: Path(f"/proc/{child}/comm").read_text() + Path(f"/proc/{child}/cmdline").read_text() for child in children}
    named = [child for child, name in names.items() if "EngineCore" in name]
    assert named, "no engine process was found"
    return named


def test_batch_invariance_is_refused_on_a_cpu_before_weights_load(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "evals", "run", "smollm2", "--suite", "smoke", "--tasks", "mmlu", "--batch-invariant", "--offline"]
    done = subprocess.run([*command, "--out", str(tmp_path / "run")], cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 2
    assert "--batch-invariant needs a GPU" in done.stderr
    assert "Traceback" not in done.stderr


def answers_in(store: Path) -> int:
    if not store.exists():
        return 0
    try:
        with sqlite3.connect(f"file:{store}?mode=ro", uri=True, timeout=5) as database:
            (count,) = database.execute("SELECT count(*) FROM answers").fetchone()
            return int(count)
    except sqlite3.OperationalError:
        return 0


@contextmanager
def vllm_server(log: Path, port: int) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """vLLM's own OpenAI server with the small model: its URL and its process; gone afterwards, with its engine."""
    from evals.models import embedded_folder

    environment = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "HF_HUB_OFFLINE": "1"}
    server = subprocess.Popen(
        [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(embedded_folder()), "--served-model-name", "small",
         "--dtype", "float32", "--max-model-len", "1536", "--enforce-eager", "--host", "127.0.0.1", "--port", str(port)],
        env=environment, stdout=log.open("w"), stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    try:
        wait_for(f"http://127.0.0.1:{port}/health", server, log)
        yield f"http://127.0.0.1:{port}/v1", server
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=60)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server, as MODEL and --judge take it."""
    with vllm_server(tmp_path_factory.mktemp("server") / "server.log", PORT) as (url, _):
        yield f"openai:small@{url}"


def test_of_two_servers_one_is_killed_and_the_other_finishes_the_row(served: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with vllm_server(tmp_path / "second.log", PORT + 1) as (url, second):
        command = [sys.executable, "-m", "evals", "run", f"{served},{url}", "--tokenizer", "smollm2", "--suite", "smoke",
                   "--tasks", "mmlu,gsm8k,bbh,ifeval", "--offline", "--out", str(run)]  # fmt: skip
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 600
        while answers_in(run / "store.sqlite") < 3 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        os.killpg(second.pid, signal.SIGKILL)
        kept = answers_in(run / "store.sqlite")
        _, said = process.communicate(timeout=900)
    assert process.returncode == 0, said
    assert said.count(f"{url} is lost") == 1
    tasks = json.loads((run / "summary.json").read_text())["tasks"]
    assert all(task["n_answered"] == task["n_items"] for task in tasks.values())
    n_items = sum(task["n_items"] for task in tasks.values())
    assert 3 <= kept < n_items, "the kill came too late to prove anything"
    generated = json.loads((run / "run.json").read_text())["sessions"][-1]["phases"]["generate"]
    assert generated["requests"] == n_items  # each answered once


def test_vllms_own_server_gives_the_same_greedy_answers_and_letters(smoke: Path, served: str, tmp_path: Path) -> None:
    run = tmp_path / "served"
    evals("run", served, "--tokenizer", "smollm2", "--suite", "smoke", "--tasks", "mmlu,gsm8k", "--offline", "--out", str(run))
    for ours, theirs in zip(samples(smoke, "mmlu"), samples(run, "mmlu"), strict=True):
        assert theirs["choice_logprobs"] == pytest.approx(ours["choice_logprobs"], abs=1e-3)
    assert [row["outputs"] for row in samples(run, "gsm8k")] == [row["outputs"] for row in samples(smoke, "gsm8k")]


def test_vllms_own_server_judges_a_finished_run_without_the_model(smoke: Path, served: str, tmp_path: Path) -> None:
    run = tmp_path / "judged"
    shutil.copytree(smoke, run)
    judges = [part for role in ("xstest", "truth", "info") for part in ("--judge", f"{role}={served}")]
    command = ["run", "smollm2", "--suite", "smoke", "--tasks", "xstest,truthfulqa", *judges, *SHORT, "--out", str(run)]
    evals(*command)
    rows = samples(run, "xstest")
    # The server's template and ours render one prompt, so the same judge says the same by either road.
    assert [row["findings"]["xstest"]["text"] for row in rows] == [row["findings"]["xstest"]["text"] for row in samples(smoke, "xstest")]
    truths = samples(run, "truthfulqa")
    assert all(0 <= row["findings"][role]["probability"] <= 1 for row in truths for role in ("truth", "info"))
    phases = json.loads((run / "run.json").read_text())["sessions"][-1]["phases"]
    assert phases["generate"]["requests"] == 0
    assert phases[f"judge {served}"]["requests"] == len(rows) + 2 * len(truths)
    evals(*command)
    assert json.loads((run / "run.json").read_text())["sessions"][-1]["phases"][f"judge {served}"]["requests"] == 0


def test_vllms_own_server_is_calibrated_as_a_judge(served: str, data_dir: Path, replay_dir: Path, tmp_path: Path) -> None:
    command = ["judge", "calibrate", "--judge", f"xstest={served}", "--judge", f"truth={served}", "--limit", "8", "--price", "all=1,2",
               "--replay", str(replay_dir), "--data", str(data_dir), "--offline", "--out", str(tmp_path)]  # fmt: skip
    said = evals(*command).stdout
    for role in ("xstest", "truth"):
        record = json.loads((tmp_path / f"openai-small-own-server-{role}.json").read_text())
        assert (record["recorded"]["n"], record["cost"]["requests"], record["cost"]["is_exact_in"]) == (8, 8, True)
        assert all(sum(map(sum, held["table"])) == 8 for held in record["against"].values())
        assert record["time"]["requests"] == 16
    assert said.count("at 1 in and 2 out per million") == 2


def wait_for(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    import urllib.error
    import urllib.request

    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        assert server.poll() is None, log.read_text()[-2000:]
        try:
            urllib.request.urlopen(url, timeout=2).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    raise AssertionError(f"the server did not start: {log.read_text()[-2000:]}")
