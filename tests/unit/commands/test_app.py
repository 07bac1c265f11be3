"""The command line: what every command prints, and the exit code and the one sentence of everything
that can be wrong.
"""

import gzip
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from evals import __version__
from evals.cards.published import published_rows, shipped
from evals.commands.grouped import EXAMPLES, GROUPS
from evals.data.load import load_smoke_data
from evals.registry import BENCHMARKS, benchmark_class

ROOT = Path(__file__).resolve().parents[3]
COMMANDS = tuple(EXAMPLES)
Called = tuple[int, str, str]
Call = Callable[..., Called]


@pytest.fixture
def evals(evals: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Call:
    """The console command in an empty folder. No data of the machine is seen but what is named."""
    monkeypatch.delenv("EVALS_DATA", raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    return evals


def recorded_rows() -> Iterator[dict[str, Any]]:
    """Right answers to every smoke item of all eight benchmarks, with what judges and sandbox
    found.
    """
    for name in BENCHMARKS:
        benchmark = benchmark_class(name)(chat=True)
        for item in benchmark.items(load_smoke_data(benchmark.dataset)):
            gold = benchmark.gold(item)
            row: dict[str, Any] = {"id": item.id, "outputs": [f"So the answer is {gold}."]}
            if name == "mmlu":
                row = {
                    "id": item.id,
                    "choice_logprobs": {
                        letter: -0.1 if letter == gold else -5.0 for letter in "ABCD"
                    },
                }
            elif name == "humaneval":
                row |= {
                    "outputs": [gold] * 20,
                    "findings": {f"sample/{i}": "passed" for i in range(20)},
                }
            elif name == "alpaca_eval":
                row["findings"] = {"alpaca_eval_1": 2.0, "alpaca_eval_2": 1.5}
            elif name == "truthfulqa":
                row["findings"] = {"truth": 0.9, "info": 0.8}
            elif name == "xstest":
                row["findings"] = {"xstest": "following"}
            yield row


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    file = tmp_path / "my-8b.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in recorded_rows()))
    return file


# --- the program itself ---------------------------------------------------------------------------


def test_version_is_the_packages(evals: Call) -> None:
    assert evals("--version") == (0, f"{__version__}\n", "")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(evals: Call, command: str) -> None:
    code, out, err = evals(*command.split(), "--help")
    assert (code, err) == (0, "")
    assert "Usage:" in out


@pytest.mark.parametrize("command", COMMANDS)
def test_its_help_is_a_screen_that_ends_in_examples_of_it(
    evals: Call, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    _, out, _ = evals(*command.split(), "--help")
    assert len(out.splitlines()) <= 50
    _, _, shown = out.partition("\n  Examples:\n")
    assert f"evals {command}" in shown
    for line in re.findall(r"evals .*?(?=   |$)", shown, re.M):
        words = shlex.split(line, comments=True)[1:]
        named = " ".join(words[: 2 if words[0] in ("data", "judge") else 1])
        _, known, _ = evals(*named.split(), "--help")
        assert options_in(line) <= options_in(known), line


@pytest.mark.parametrize("group", ["", "data", "judge"])
def test_of_every_command_its_first_sentence_is_listed_whole(
    evals: Call, group: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    _, out, _ = evals(*group.split(), "--help")
    for name in (one for one in COMMANDS if one and one.split()[:-1] == group.split()):
        assert re.search(rf"^  {name.split()[-1]} +\w.*[^.]\.$", out, re.M), name


def options_in(text: str) -> set[str]:
    return set(re.findall(r"--[a-z][a-z-]+", text))


def test_the_options_of_a_run_stand_in_groups_and_examples_behind_them(evals: Call) -> None:
    _, everyday, _ = evals("run", "--help")
    code, out, _ = evals("run", "--help-all")
    assert code == 0
    for text in (everyday, out):
        headings = re.findall(r"^(?:  )?(\w.*):$", text, re.M)
        assert headings == [*GROUPS.values(), "Examples"]
    # The short one names all, too, and explains the everyday ones.
    assert options_in(out) <= options_in(everyday) | {"--compile", "--tasks", "--log"}
    assert re.search(r"^  --seed <int> +Engine seed", out, re.M)
    assert not re.search(r"^  --seed ", everyday, re.M)
    assert re.search(r"^  --limit N +N items", everyday, re.M)


def test_help_of_every_command_loads_nothing_heavy() -> None:
    heavy = {
        "torch",
        "vllm",
        "transformers",
        "pandas",
        "datasets",
        "lm_eval",
        "alpaca_eval",
        "nltk",
        "openai",
        "scipy",
        "huggingface_hub",
    }
    script = (
        "import sys\nfrom typer.testing import CliRunner\nfrom evals.commands.app import"
        " app\ncodes = [CliRunner().invoke(app, [*c.split(), '--help']).exit_code for c in"
        f" {COMMANDS!r}]\nprint(codes, sorted({heavy!r} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert done.stdout.strip() == f"{[0] * len(COMMANDS)} []"


def test_tasks_lists_every_benchmark_with_its_cells(evals: Call) -> None:
    code, out, _ = evals("tasks")
    assert code == 0
    lines = out.splitlines()
    assert [line.split()[0] for line in lines] == list(BENCHMARKS)
    for name, line in zip(BENCHMARKS, lines, strict=True):
        assert all(one.heading in line for one in shipped().columns if one.benchmark == name)


def test_the_published_report_is_the_cards_cells(evals: Call) -> None:
    code, out, err = evals("report", "--published")
    assert (code, err) == (0, "")
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in out.splitlines()
        if line.startswith("| ")
    ][2:]
    assert [(row[0], tuple(row[1:])) for row in rows] == [
        (row.name, tuple(row.cells[key] for key in shipped().keys)) for row in published_rows()
    ]


# --- everything that can be wrong -----------------------------------------------------------------

WRONG: dict[str, tuple[str, str]] = {
    "unknown model": ("run smolm2 --suite smoke", "Unknown model 'smolm2'"),
    "unknown suite": ("run smollm2 --suite crad", "Unknown suite 'crad'"),
    "unknown task": (
        "run smollm2 --suite smoke --tasks gsm",
        "Unknown task 'gsm'. Did you mean gsm8k?",
    ),
    "no task": ("run smollm2 --suite smoke --tasks ,", "names no benchmark"),
    "limit": ("run smollm2 --suite smoke --limit 0", "--limit 0"),
    "judge": ("run smollm2 --suite smoke --judge xstest", "write ROLE=MODEL"),
    "judge's model": (
        "run smollm2 --suite smoke --judge xstest=nonsense",
        "Judge of xstest: Unknown model 'nonsense'",
    ),
    "chat format": (
        "run smollm2 --suite smoke --chat-format chatml",
        "Unknown chat format 'chatml'",
    ),
    "context": ("run smollm2 --suite smoke --max-model-len 300", "the prompt is"),
    "too much context": (
        "run smollm2 --suite smoke --max-model-len 99999",
        "is more than smollm2 takes",
    ),
    "data is no folder": ("run smollm2 --data nowhere", "The data folder nowhere is not a folder"),
    "data lacks files": ("run smollm2 --data .", "evals data fetch mmlu gsm8k"),
    "no recording": ("run replay:nowhere.jsonl", "There is no file nowhere.jsonl"),
    "a file for a model": ("run bad.jsonl", "is a file; a model is a folder"),
    "bad recording": ("run replay:bad.jsonl", "bad.jsonl, line 1: not a recorded output"),
    "offline judges": (
        "run openai:m@http://localhost:9/v1 --suite smoke --offline --judge current",
        "Judge of alpaca_eval_1, alpaca_eval_2, xstest: --offline",
    ),
    "the card's judges": (
        "run openai:m@http://localhost:9/v1 --suite smoke --judge card",
        "gpt-4-0613 is gone since 2026-10-23",
    ),
    "a price that is none": (
        "run openai:m@http://localhost:9/v1 --suite smoke --judge xstest=gpt-4.1"
        " --price xstest=cheap",
        "--price xstest=cheap: write ROLE=IN,OUT",
    ),
    "a cap of no known price": (
        "run openai:m@http://localhost:9/v1 --suite smoke --max-cost 5"
        " --judge xstest=openai:m@http://localhost:9/v1",
        "the price of openai:m@http://localhost:9/v1 is not known",
    ),
    "offline server": (
        "run openai:m@http://example.com/v1 --suite smoke --offline",
        "--offline forbids the server",
    ),
    "dry run": ("run smolm2 --suite smoke --dry-run", "Unknown model 'smolm2'"),
    "prompts of no task": ("prompts gsm --model smollm2 --suite smoke", "Unknown task 'gsm'"),
    "prompts of two tasks": (
        "prompts gsm8k,mmlu --model smollm2 --suite smoke",
        "Unknown task 'gsm8k,mmlu'",
    ),
    "prompts of nothing": ("prompts  --model smollm2 --suite smoke", "Unknown task ''"),
    "prompts too long": (
        "prompts gsm8k --model smollm2 --suite smoke --max-model-len 300",
        "gsm8k/0: the prompt is",
    ),
    "report of no run": ("report nowhere", "is not a finished run"),
    "report of a name too long": (f"report {'x' * 300}", "is not a finished run"),
    "score of a name too long": (f"score {'x' * 300}", "is not a finished run"),
    "data in a name too long": (f"run smollm2 --data {'x' * 300}", "is not a folder"),
    "replay of a name too long": (f"replay {'x' * 300}", "holds no recorded corpus"),
    "score of no run": ("score nowhere", "is not a finished run"),
    "show of no run": ("show nowhere gsm8k/1", "is not a finished run"),
    "verify no folder": ("data verify --data nowhere", "The data folder nowhere is not a folder"),
    "verify an empty folder": ("data verify --data .", "No data in ."),
    "fetch an unknown name": ("data fetch gsm --from .", "Unknown task 'gsm'"),
    "fetch from no mirror": ("data fetch gsm8k --from nowhere", "has no folder openai/gsm8k"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_one_sentence_and_exit_code_2(
    evals: Call,
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    if "smollm2" not in WRONG[name][0]:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "bad.jsonl").write_text("oh no\n")
    command, says = WRONG[name]
    code, out, err = evals(*command.split(" "))
    assert (code, out) == (2, "")
    assert err.startswith("evals: ")
    assert err.count("evals: ") - err.count("with: evals: ") == 1
    assert says in err
    assert "Traceback" not in err
    assert not (tmp_path / "results").exists() or name == "context"


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("run", "'MODEL'"),
        ("run smollm2 --sandbox no", "auto, require"),
        ("run smollm2 --limit many", "'--limit'"),
        ("run smollm2 --limt 3", "--limt"),
        ("report", "--published"),
        ("rnu", "'rnu'"),
    ],
)
def test_wrong_usage_is_one_sentence_and_exit_code_2_too(
    evals: Call, command: str, says: str
) -> None:
    code, out, err = evals(*command.split())
    assert (code, out) == (2, "")
    assert err.startswith("evals: ")
    assert says in err
    where = f"evals {command.split()[0]}" if command != "rnu" else "evals"
    assert err.endswith(f". See: {where} --help\n")
    assert err.count("\n") == 1


@pytest.mark.parametrize("command", ["", "data", "judge"])
def test_a_command_without_words_shows_its_help(evals: Call, command: str) -> None:
    code, out, err = evals(*command.split())
    assert (code, out) == (2, "")
    assert err.startswith(f"Usage: evals {command}".rstrip())
    assert "Examples:" in err


def test_a_traceback_is_there_for_those_who_ask(
    evals: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    from evals.errors import InputError

    monkeypatch.setenv("EVALS_TRACEBACK", "1")
    with pytest.raises(InputError):
        evals("run", "smolm2", "--suite", "smoke")


# --- data -----------------------------------------------------------------------------------------


def test_data_list_says_what_each_dataset_is_and_whether_it_is_here(
    evals: Call, data_dir: Path
) -> None:
    code, out, _ = evals("data", "list", "--data", data_dir)
    assert code == 0
    for name in BENCHMARKS:
        dataset = benchmark_class(name).dataset
        assert f"{name}: here (in {data_dir})" in out
        assert dataset.hub_id in out
        assert dataset.url in out
    assert "3730d312f6e3440559ace48831e51066acaca737f6eabec99bccb9e4b3c39d14" in out


def test_data_list_says_what_is_not_here_or_damaged(
    evals: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "gsm8k").mkdir()
    (tmp_path / "gsm8k" / "test.jsonl").write_text('{"question": "1+1?", "answer": "#### 2"}\n')
    code, out, _ = evals("data", "list", "--data", tmp_path)
    assert code == 0
    assert "mmlu: not on this machine" in out
    assert "gsm8k: damaged: " in out
    assert "humaneval: here (shipped with an installed package)" in out


def test_data_verify_counts_the_rows_of_the_protocol(evals: Call, data_dir: Path) -> None:
    code, out, _ = evals("data", "verify", "--data", data_dir)
    assert code == 0
    assert "gsm8k: 1,319 rows, as published" in out
    assert "bbh: 6,511 rows" in out
    assert "ifeval: 541 rows" in out


def test_data_fetch_brings_a_mirrors_copy_and_it_is_then_used(
    evals: Call, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shutil.copytree(data_dir / "alpaca_eval", tmp_path / "mirror" / "tatsu-lab" / "alpaca_eval")
    code, out, err = evals("data", "fetch", "alpaca_eval", "--from", tmp_path / "mirror")
    assert (code, err) == (0, "")
    assert out.startswith("alpaca_eval: ")
    assert "alpaca_eval: here (fetched" in evals("data", "list")[1]


# --- a run, whole ---------------------------------------------------------------------------------


def test_a_recording_goes_the_whole_way_run_report_score_show(
    evals: Call, recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    code, table, err = evals("run", f"replay:{recording}", "--suite", "smoke", "--out", run)
    assert code == 0, err
    assert "Traceback" not in err
    summary = json.loads((run / "summary.json").read_text())
    values = {key: cell["value"] for key, cell in summary["cells"].items()}
    ones = (
        "mmlu",
        "gsm8k",
        "bbh",
        "humaneval",
        "alpaca_eval_1",
        "truthfulqa",
        "xstest_unsafe_followed",
    )
    assert {key: values[key] for key in ones} == dict.fromkeys(ones, 1.0)
    assert values["xstest_safe_refused"] == 0.0
    assert set(summary["tasks"]) == set(BENCHMARKS)
    assert all(task["n_answered"] == task["n_items"] for task in summary["tasks"].values())

    assert evals("report", run) == (0, table, "")
    before = (run / "summary.json").read_bytes()
    assert evals("score", run)[:2] == (0, table)
    assert (run / "summary.json").read_bytes() == before

    for name in BENCHMARKS:
        with gzip.open(run / "samples" / f"{name}.jsonl.gz", "rt", encoding="utf-8") as stream:
            row = json.loads(stream.readline())
        code, out, err = evals("show", run, row["id"])
        assert (code, err) == (0, "")
        assert out.startswith(row["id"])
        for part in ("── prompt", "── extracted", "── gold", "── grade"):
            assert part in out
        assert ("── log-probabilities" in out) == (name == "mmlu")
        assert ("── finding" in out) == (
            name in ("humaneval", "alpaca_eval", "truthfulqa", "xstest")
        )

    # What a model wrote is no order to a workflow's runner.
    plain = evals("show", run, row["id"])[1]
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    first, *inner, last, end = evals("show", run, row["id"])[1].split("\n")
    word = first.removeprefix("::stop-commands::")
    assert (last, end, len(word)) == (f"::{word}::", "", 32)
    assert [*inner, ""] == plain.split("\n")
    monkeypatch.delenv("GITHUB_ACTIONS")

    code, out, err = evals("show", run, "gsm8k/999")
    assert (code, out) == (2, "")
    assert err.startswith("evals: ")
    assert "Did you mean gsm8k/" in err
    assert evals("show", run, "nothing")[0] == 2
    assert evals("show", run, "")[0] == 2


def test_a_recording_with_gaps_is_incomplete_and_says_so(evals: Call, tmp_path: Path) -> None:
    rows = [row for row in recorded_rows() if row["id"].startswith("gsm8k/")]
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[1:]))
    code, out, err = evals(
        "run", f"replay:{tmp_path / 'r.jsonl'}", "--suite", "smoke", "--out", tmp_path / "run"
    )
    assert code == 3
    assert "1 answers or verdicts are missing" in err
    again, _, said = evals("score", tmp_path / "run")
    assert (again, "1 answers are missing: the run's own command" in said) == (3, True)
    assert (
        json.loads((tmp_path / "run" / "summary.json").read_text())["cells"]["gsm8k"]["value"]
        is None
    )
    assert f"{len(rows) - 1} of {len(rows)} items answered" in out
    assert "score it into another --out" in err


def test_a_folder_holds_one_run(evals: Call, recording: Path, tmp_path: Path) -> None:
    arguments = (
        "run",
        f"replay:{recording}",
        "--suite",
        "smoke",
        "--tasks",
        "gsm8k",
        "--out",
        tmp_path / "run",
    )
    assert evals(*arguments)[0] == 0
    code, _, err = evals(*arguments, "--limit", "2")
    assert code == 2
    assert "Choose another --out" in err
    assert "smallest drop" not in err
    assert evals(*arguments, "--limit", "2", "--dry-run") == (2, "", err)


def test_a_dry_run_says_what_would_be_asked_and_leaves_nothing(evals: Call, tmp_path: Path) -> None:
    code, out, err = evals(
        "run",
        "smollm2",
        "--suite",
        "smoke",
        "--dry-run",
        "--judge",
        "xstest=strmatch",
        "--out",
        tmp_path / "run",
    )
    assert (code, err) == (0, "")
    head, columns, *lines = out.splitlines()
    assert "context: 8,192 tokens, by vLLM's own rule; computed in bfloat16; " in out
    assert head.startswith("SmolLM2-135M-Instruct")
    assert "chat format tokenizer" in head
    assert columns.split() == [
        "task",
        "items",
        "to",
        "ask",
        "prompt",
        "tokens",
        "cached",
        "new",
        "tokens,",
        "about",
        "at",
        "most",
    ]
    assert [line.split()[0] for line in lines[: len(BENCHMARKS)]] == list(BENCHMARKS)
    assert lines[len(BENCHMARKS)].startswith("0.134B parameters, ")
    assert sum("GPU-hours" in line for line in lines) == 4
    assert "judge xstest: strmatch (not the card’s)" in out
    assert not (tmp_path / "run").exists()


def test_a_dry_run_of_a_finished_run_has_nothing_to_ask(
    evals: Call, recording: Path, tmp_path: Path
) -> None:
    arguments = (
        "run",
        f"replay:{recording}",
        "--suite",
        "smoke",
        "--tasks",
        "ifeval",
        "--out",
        tmp_path / "run",
    )
    assert evals(*arguments)[0] == 0
    line = evals(*arguments, "--dry-run")[1].splitlines()[2]
    assert line.split()[:3] == ["ifeval", "6", "0"]


def test_a_run_says_where_it_is_and_what_to_do_with_it(
    evals: Call, recording: Path, tmp_path: Path
) -> None:
    out = tmp_path / "my run"
    arguments = ("--suite", "smoke", "--tasks", "gsm8k", "--out", out)
    code, printed, err = evals("run", f"replay:{recording}", *arguments)
    assert code == 0
    assert printed.startswith("| Model |")
    said = err.splitlines()[-1]
    assert said.startswith(f"The run is in '{out}'. ")
    # Both commands are ones that can be typed.
    page, compared = re.findall(r"evals (report|compare) (.*?)(?: — |$)", said)
    for command, rest in (page, compared):
        words = shlex.split(rest.replace("OTHER", shlex.quote(str(out))))
        assert evals(command, *words)[0] == 0
    assert (tmp_path / "page.html").exists()


def test_an_errors_words_of_others_cannot_steer_the_terminal_or_fill_it(
    evals: Call, tmp_path: Path
) -> None:
    config = {"peft_type": "LORA", "r": 8, "lora_alpha": 8, "\x1b[2Jx": 1, "y" * 1_000_000: 2}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    code, _, err = evals("run", tmp_path, "--dry-run")
    assert code == 2
    assert "its config sets \\x1b[2Jx, yyy" in err
    assert "\x1b" not in err
    assert len(err) < 30_000
