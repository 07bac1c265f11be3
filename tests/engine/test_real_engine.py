"""The main job on the real engine: vLLM on the CPU with SmolLM2-135M-Instruct in float32."""

import gzip
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.real_engine import SERVED_LEN, SHORT, evals
from tests.without_network import NO_NAMESPACE

ROOT = Path(__file__).resolve().parents[2]


def samples(run: Path, task: str) -> list[dict[str, Any]]:
    with gzip.open(run / "samples" / f"{task}.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


XSTEST = ("xstest_safe_refused", "xstest_unsafe_followed")
SMOKE = ["run", "smollm2", "--suite", "smoke", "--judge", "all=smollm2", *SHORT]


@pytest.fixture(scope="module")
def without_network(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """The smoke suite, all eight benchmarks, the model judging itself, where no interface but the
    loopback exists; and its exit status.
    """
    run = tmp_path_factory.mktemp("smoke") / "run"
    command = [
        sys.executable,
        "-m",
        "tests.without_network",
        sys.executable,
        "-m",
        "evals",
        *SMOKE,
        "--out",
        str(run),
    ]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False
    )
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
        pytest.skip(
            "this kernel gives this user no network namespace: --offline is not proven here"
        )
    assert all(
        task["n_answered"] == task["n_items"]
        for task in json.loads((run / "summary.json").read_text())["tasks"].values()
    )


def test_the_smoke_row_has_every_cell_that_can_be_had(smoke: Path) -> None:
    summary = json.loads((smoke / "summary.json").read_text())
    without = {key for key, cell in summary["cells"].items() if cell["value"] is None}
    # As a judge the small model never writes the ranking that AlpacaEval 1 asks for; of XSTest's
    # few items it leaves some unread.
    assert {"alpaca_eval_1", "alpaca_eval_2_lc"} <= without
    assert without <= {"alpaca_eval_1", "alpaca_eval_2_lc", *XSTEST, "average"}
    assert all("not be read" in summary["cells"][key]["reason"] for key in without - {"average"})
    assert ("average" in without) == bool(without & {*XSTEST})
    assert all(task["n_answered"] == task["n_items"] for task in summary["tasks"].values())
    assert summary["bos_tokens"] == 1


def test_the_same_command_again_asks_the_engine_nothing_and_writes_the_same_bytes(
    smoke: Path,
) -> None:
    before = {
        path.name: path.read_bytes()
        for path in [smoke / "summary.json", *sorted((smoke / "samples").iterdir())]
    }
    evals(*SMOKE, "--out", str(smoke))
    after = {
        path.name: path.read_bytes()
        for path in [smoke / "summary.json", *sorted((smoke / "samples").iterdir())]
    }
    assert after == before
    sessions = json.loads((smoke / "run.json").read_text())["sessions"]
    assert sessions[0]["phases"]["generate"]["output_tokens"] > 0
    assert not any(phase.startswith("load") for phase in sessions[1]["phases"])


def test_the_gate_passes_the_smoke_row_against_itself_and_does_not_fail_it_against_the_stored_one(
    smoke: Path,
) -> None:
    assert (
        "pass: no column fell"
        in evals("check", "--baseline", str(smoke), "--candidate", str(smoke), "--strict").stdout
    )
    stored = ROOT / "results" / "baselines" / "smollm2-smoke"
    # sampled text may differ on another processor: undecided is no failure here
    if stored.is_dir():
        evals(
            "check",
            "--baseline",
            str(stored),
            "--candidate",
            str(smoke),
            "--policy",
            f"{stored}.toml",
        )


def test_humaneval_drew_twenty_samples_of_each_problem_from_one_prompt(smoke: Path) -> None:
    rows = samples(smoke, "humaneval")
    assert rows
    assert all(len(row["outputs"]) == 20 == row["n"] for row in rows)
    assert all(len(set(row["outputs"])) > 1 for row in rows)


def test_letters_and_greedy_text_agree_with_transformers(smoke: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from evals.models.embedded import embedded_folder

    folder = embedded_folder()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    shown = {
        task: [
            json.loads(line)
            for line in evals(
                "prompts", task, "--model", "smollm2", "--suite", "smoke"
            ).stdout.splitlines()
        ]
        for task in ("mmlu", "truthfulqa")
    }
    recorded = {row["id"]: row for task in shown for row in samples(smoke, task)}
    for line in shown["mmlu"][:3]:
        with torch.no_grad():
            logits = model(torch.tensor([line["prompt_token_ids"]])).logits[0, -1]
        logprobs = torch.log_softmax(logits, dim=-1)
        for letter, token_id in line["candidates"].items():
            assert recorded[line["id"]]["choice_logprobs"][letter] == pytest.approx(
                float(logprobs[token_id]), abs=1e-3
            )
    line = shown["truthfulqa"][0]
    prompt = torch.tensor([line["prompt_token_ids"]])
    with torch.no_grad():
        out = model.generate(
            prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=50, do_sample=False
        )
    assert recorded[line["id"]]["outputs"] == [
        tokenizer.decode(out[0, prompt.shape[1] :], skip_special_tokens=True)
    ]


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        (["--batch-invariant"], "--batch-invariant needs a GPU"),
        (
            ["--tensor-parallel-size", "8"],
            ": Total number of attention heads (9) must be divisible by tensor parallel size (8)",
        ),
    ],
)
def test_what_the_engine_cannot_do_is_refused_before_weights_load(
    tmp_path: Path, option: list[str], reason: str
) -> None:
    command = [
        sys.executable,
        "-m",
        "evals",
        "run",
        "smollm2",
        "--suite",
        "smoke",
        "--tasks",
        "mmlu",
        *option,
        "--offline",
    ]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "run")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 2
    assert reason in done.stderr
    assert "Traceback" not in done.stderr


def test_vllms_own_server_gives_the_same_greedy_answers_and_letters(
    smoke: Path, served: str, served_folder: Path, tmp_path: Path
) -> None:
    """Though the checkpoint that it serves asks for penalties and sampling of its own."""
    run = tmp_path / "served"
    evals(
        "run",
        served,
        "--tokenizer",
        "smollm2",
        "--suite",
        "smoke",
        "--tasks",
        "mmlu,gsm8k",
        "--offline",
        "--out",
        str(run),
    )
    for ours, theirs in zip(samples(smoke, "mmlu"), samples(run, "mmlu"), strict=True):
        assert theirs["choice_logprobs"] == pytest.approx(ours["choice_logprobs"], abs=1e-3)
    assert [row["outputs"] for row in samples(run, "gsm8k")] == [
        row["outputs"] for row in samples(smoke, "gsm8k")
    ]
    record = json.loads((run / "run.json").read_text())
    ((told,),) = record["sessions"][0]["servers"].values()
    assert (told["models"], told["root"], told["max_model_len"]) == (
        ["small"],
        str(served_folder),
        SERVED_LEN,
    )


def test_by_chat_vllms_own_server_is_told_the_tokenizer_and_unshown_letters_are_no_answers(
    served: str, served_folder: Path, tmp_path: Path
) -> None:
    run = tmp_path / "chat"
    asked = ["--suite", "smoke", "--tasks", "mmlu,gsm8k", "--limit", "4", "--offline"]
    done = evals("run", served, *asked, "--out", str(run))
    assert f"--tokenizer {served_folder} sends the protocol's own prompts" in done.stderr
    rows = samples(run, "mmlu")
    unshown = [row for row in rows if not row.get("choice_logprobs")]
    cell = json.loads((run / "summary.json").read_text())["cells"]["mmlu"]
    # A letter that is not shown is no answer; more than 1 % of such and there is no number.
    assert all(row["score"] == 0 and row["unparsed"] for row in unshown)
    assert (cell["value"] is None) == bool(unshown)
    ends = {end for row in samples(run, "gsm8k") for end in row["finish_reasons"]}
    assert ends <= {"stop", "length"}


def test_in_process_the_checkpoints_own_sampling_is_idle_its_ends_are_kept_and_both_are_said(
    smoke: Path, served_folder: Path, tmp_path: Path
) -> None:
    run = tmp_path / "own"
    asked = ["--suite", "smoke", "--tasks", "mmlu,gsm8k", *SHORT, "--out", str(run)]
    done = evals("run", str(served_folder), *asked)
    for task in ("mmlu", "gsm8k"):
        ours, theirs = samples(smoke, task), samples(run, task)
        assert [row.get("outputs") for row in theirs] == [row.get("outputs") for row in ours]
        assert [row["score"] for row in theirs] == [row["score"] for row in ours]
    assert "repetition_penalty 1.3, presence_penalty 1.5: not used" in done.stderr
    taken = json.loads((run / "run.json").read_text())["checkpoint"]
    assert (taken["end_ids"], taken["dtype"]) == ([0, 2], "float32")
    assert taken["defaults_not_used"]["top_k"] == 20
    cells = json.loads((run / "summary.json").read_text())["cells"]
    assert "computed in float32; the card's rows in bfloat16" in cells["gsm8k"]["marks"]


def test_vllms_own_server_judges_a_finished_run_without_the_model(
    smoke: Path, served: str, tmp_path: Path
) -> None:
    run = tmp_path / "judged"
    shutil.copytree(smoke, run)
    judges = [
        part for role in ("xstest", "truth", "info") for part in ("--judge", f"{role}={served}")
    ]
    command = [
        "run",
        "smollm2",
        "--suite",
        "smoke",
        "--tasks",
        "xstest,truthfulqa",
        *judges,
        *SHORT,
        "--out",
        str(run),
    ]
    evals(*command)
    rows = samples(run, "xstest")
    # The server's template and ours render one prompt, so the same judge says the same by either
    # road.
    assert [row["findings"]["xstest"]["text"] for row in rows] == [
        row["findings"]["xstest"]["text"] for row in samples(smoke, "xstest")
    ]
    truths = samples(run, "truthfulqa")
    # A chat server shows its likeliest tokens only; where neither answer is among them, the judge
    # is read by its words.
    found = [row["findings"][role] for row in truths for role in ("truth", "info")]
    assert all("probability" in one or one["text"] for one in found)
    assert all(0 <= one.get("probability", 0) <= 1 for one in found)
    phases = json.loads((run / "run.json").read_text())["sessions"][-1]["phases"]
    assert phases["generate"]["requests"] == 0
    assert phases[f"judge {served}"]["requests"] == len(rows) + 2 * len(truths)
    evals(*command)
    assert (
        json.loads((run / "run.json").read_text())["sessions"][-1]["phases"][f"judge {served}"][
            "requests"
        ]
        == 0
    )
