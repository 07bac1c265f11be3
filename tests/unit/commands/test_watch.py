"""`evals watch`: each finished checkpoint once, in order, through restarts, whatever becomes of the
others. What a checkpoint's own process does is played by recorded runs; tests/engine has it real.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from evals.cards.published import shipped
from evals.commands import watch as module
from evals.compare.series_page import watch_page as page
from evals.compare.steps import best_run
from evals.report import trackers
from evals.runs.checkpoints import Checkpoint, checkpoints
from evals.runs.writing import RunResult
from tests.unit.conftest import Call, Make, wrong_sums
from tests.unit.report.test_card import run_folder
from tests.unit.runs.test_checkpoints import aged, checkpoint, cut

ROOT = Path(__file__).resolve().parents[3]
COMMAND = ("--suite", "smoke", "--tasks", "gsm8k", "--once")


class Children:
    """In place of each checkpoint's process: a recorded run is put into its folder. codes: how a
    checkpoint's process ends, 0 where it is not named.
    """

    def __init__(self, recorded: Make) -> None:
        self.good = recorded("watch good", tasks=("gsm8k",))
        self.bad = recorded("watch bad", wrong_sums, tasks=("gsm8k",))
        self.worse: set[str] = set()
        self.codes: dict[str, int] = {}
        self.asked: list[list[str]] = []
        self.meanwhile: Callable[[Path], object] = lambda folder: None

    def __call__(self, words: list[str]) -> int:
        folder, out = Path(words[0]), Path(words[2])
        self.asked.append(words)
        self.meanwhile(folder)
        if code := self.codes.get(folder.name, 0):
            return code
        shutil.copytree(self.bad if folder.name in self.worse else self.good, out)
        return 0

    @property
    def names(self) -> list[str]:
        """The checkpoints that were measured, in order."""
        return [Path(words[0]).name for words in self.asked]


@pytest.fixture
def children(recorded: Make, monkeypatch: pytest.MonkeyPatch) -> Children:
    found = Children(recorded)
    monkeypatch.setattr(module, "_child", found)
    return found


@pytest.fixture
def training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three finished checkpoints."""
    monkeypatch.chdir(tmp_path)
    for step in (1000, 500, 1500):
        checkpoint(tmp_path / "train" / f"checkpoint-{step}")
    return tmp_path / "train"


def test_each_is_measured_once_in_order_with_the_runs_own_options(
    training: Path, children: Children, evals: Call, tmp_path: Path
) -> None:
    code, out, _ = evals("watch", training, *COMMAND)
    assert code == 0
    assert out.splitlines() == [
        "checkpoint-500: step 500: the first",
        "checkpoint-1000: step 1000: pass against checkpoint-500",
        "checkpoint-1500: step 1500: pass against checkpoint-1000",
    ]
    at = Path("results") / "train-smoke"
    first = [str(training / "checkpoint-500"), "--out", str(at / "checkpoint-500")]
    assert children.asked[0] == [*first, "--suite", "smoke", "--tasks", "gsm8k"]
    # Started again, only what has come since.
    checkpoint(training / "checkpoint-2000")
    assert evals("watch", training, *COMMAND)[1] == (
        "checkpoint-2000: step 2000: pass against checkpoint-1500\n"
    )
    assert len(children.asked) == 4
    assert (tmp_path / at / "watch.html").read_text().count("<tr") == 5


def test_newest_first_and_a_step_that_goes_backwards(
    training: Path, children: Children, evals: Call
) -> None:
    code, out, _ = evals("watch", training, *COMMAND, "--newest-first")
    assert code == 0
    assert children.names == ["checkpoint-1500", "checkpoint-1000", "checkpoint-500"]
    lines = out.splitlines()
    assert lines[:3] == [
        "checkpoint-1500: step 1500: the first",
        "checkpoint-1000: step 1000 comes after later ones: taken in its place",
        "checkpoint-1000: step 1000: the first",
    ]


@pytest.mark.parametrize(("against", "other"), [("before", "1000"), ("best", "500")])
def test_the_gate_holds_it_against_the_one_before_or_the_best(
    training: Path, children: Children, evals: Call, against: str, other: str
) -> None:
    children.worse = {"checkpoint-1000", "checkpoint-1500"}
    Path("gate.toml").write_text('by = "estimate"\n')
    code, out, err = evals(
        "watch", training, *COMMAND, "--against", against, "--policy", "gate.toml"
    )
    assert out.splitlines()[1:] == [
        "checkpoint-1000: step 1000: regressed against checkpoint-500",
        f"checkpoint-1500: step 1500: {'pass' if against == 'before' else 'regressed'} against"
        f" checkpoint-{other}",
    ]
    assert code == 1
    assert "regressed against checkpoint-" in err
    assert 'class="regressed"' in Path("results/train-smoke/watch.html").read_text()


def test_half_written_ones_wait_and_the_others_are_measured(
    training: Path, children: Children, evals: Call
) -> None:
    cut(training / "checkpoint-1000")
    aged(training / "checkpoint-1000")
    (training / "logs").mkdir()
    code, out, _ = evals("watch", training, *COMMAND)
    assert code == 0
    assert children.names == ["checkpoint-500", "checkpoint-1500"]
    assert "checkpoint-1000: waits: model.safetensors has " in out
    assert "logs: waits: no step in its name" in out


def test_a_folder_without_any_is_said(evals: Call, tmp_path: Path) -> None:
    (empty := tmp_path / "train").mkdir()
    said = evals("watch", empty, *COMMAND, "--out", tmp_path / "runs")
    assert said == (0, f"{empty}: no checkpoint in it yet\n", "")


def test_names_and_indexes_of_others_are_words_alone(
    training: Path, children: Children, evals: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint(training / "--suite=card-step-1")
    (training / "x\x1b[2J\ny").mkdir()
    for number, parts in enumerate(([1], {"a": ["b"], "c": 1}, "x")):
        index = checkpoint(training / f"checkpoint-{number}") / "model.safetensors.index.json"
        index.write_text(json.dumps({"weight_map": parts}))
        aged(index.parent)
    monkeypatch.chdir(training)
    code, out, err = evals("watch", ".", *COMMAND)
    assert (code, "Traceback" in err) == (0, False)
    assert children.names == ["checkpoint-500", "checkpoint-1000", "checkpoint-1500"]
    assert "\x1b" not in out
    assert "x [2J y: waits: no step" in out
    assert out.count("is not whole or not there yet") == 3


def test_one_that_goes_while_the_folder_is_listed_is_a_line(
    training: Path, children: Children, evals: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def listed(folder: Path) -> list[Checkpoint]:
        found = checkpoints(folder)
        shutil.rmtree(folder / "checkpoint-1000", ignore_errors=True)
        return found

    monkeypatch.setattr("evals.runs.checkpoints.checkpoints", listed)
    code, out, _ = evals("watch", training, *COMMAND)
    assert code == 0
    assert "checkpoint-1000: gone, or not to be read (No such file or directory)" in out
    assert children.names == ["checkpoint-500", "checkpoint-1500"]


def test_one_that_is_deleted_while_it_is_read_is_a_line(
    training: Path, children: Children, evals: Call
) -> None:
    children.codes = {"checkpoint-500": 4}
    children.meanwhile = lambda folder: folder.name.endswith("-500") and shutil.rmtree(folder)
    code, out, _ = evals("watch", training, *COMMAND)
    assert code == 0
    assert out.splitlines()[0] == "checkpoint-500: deleted while it was read"
    assert children.names[1:] == ["checkpoint-1000", "checkpoint-1500"]


@pytest.mark.parametrize("exit_code", [2, 3, 4])
def test_one_that_cannot_be_measured_keeps_no_other_and_gives_its_exit_code(
    training: Path, children: Children, evals: Call, exit_code: int
) -> None:
    children.codes = {"checkpoint-1000": exit_code}
    code, out, err = evals("watch", training, *COMMAND)
    assert code == exit_code
    assert f"checkpoint-1000: not measured (exit {exit_code}, see above)" in out
    assert err.endswith("evals: checkpoint-1000 was not measured.\n")
    assert children.names == ["checkpoint-500", "checkpoint-1000", "checkpoint-1500"]
    children.codes = {}
    assert "checkpoint-1000: step 1000: pass" in evals("watch", training, *COMMAND)[1]


def test_what_cannot_be_read_is_tried_again_only_when_it_has_changed(
    training: Path, children: Children, evals: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three looks of one watch."""
    children.codes = {"checkpoint-500": 2, "checkpoint-1000": 4}
    looks = iter([None, lambda: aged(training / "checkpoint-500", 1e9), KeyboardInterrupt])

    def sleep(seconds: float) -> None:
        assert seconds == 600
        match next(looks):
            case None:
                pass
            case type() as stop:
                raise stop
            case change:
                change()

    monkeypatch.setattr(module.time, "sleep", sleep)
    code, _, _ = evals("watch", training, *COMMAND[:-1])
    assert code == 130
    assert [children.names.count(f"checkpoint-{step}") for step in (500, 1000, 1500)] == [2, 3, 1]


def test_one_written_again_under_its_name_is_said_and_its_run_stays(
    training: Path, children: Children, evals: Call
) -> None:
    evals("watch", training, *COMMAND)
    aged(training / "checkpoint-500", 1e9)
    code, out, _ = evals("watch", training, *COMMAND)
    assert code == 0
    assert "checkpoint-500: written again since it was measured; move results/train-smoke/" in out
    assert len(children.asked) == 3
    # Its run moved away, it is measured anew.
    shutil.rmtree("results/train-smoke/checkpoint-500")
    assert "checkpoint-500: step 500: the first" in evals("watch", training, *COMMAND)[1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--every", "soon"), "--every soon: give a time"),
        (("--every", "0"), "--every 0: give a time"),
        (("--against", "worst"), "--against worst: known are best, before"),
        (("--suit", "smoke"), "No such option: --suit"),
        (("--step", "0"), "--step is set by the watch itself"),
        (("--dry-run",), "--dry-run is set by the watch itself"),
        (("--policy", "none.toml"), "The policy none.toml cannot be read"),
        (("--log", "paper"), "--log paper: known are wandb"),
    ],
)
def test_wrong_words_are_refused_before_anything_is_measured(
    training: Path, children: Children, evals: Call, words: tuple[str, ...], said: str
) -> None:
    code, _, err = evals("watch", training, *COMMAND, *words)
    assert code == 2
    assert said in err
    assert children.asked == []


def test_a_folder_of_another_watch_and_a_damaged_record_are_refused(
    training: Path, children: Children, evals: Call
) -> None:
    evals("watch", training, *COMMAND, "--out", "w")
    code, _, err = evals("watch", training, *COMMAND, "--limit", "1", "--out", "w")
    assert code == 2
    assert "w holds a watch with" in err
    Path("w/watch.json").write_text("{")
    code, _, err = evals("watch", training, *COMMAND, "--out", "w")
    assert code == 2
    assert "w/watch.json cannot be read" in err
    assert evals("watch", training / "none", *COMMAND)[0] == 2


def test_every_step_is_a_point_of_one_line_in_the_tracker(
    training: Path, children: Children, evals: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the real libraries make of it, test_trackers says."""
    logged: list[tuple[object, ...]] = []

    def log_run(
        tracker: str, result: RunResult, step: int, data: Path | None, series: str
    ) -> str | None:
        logged.append((tracker, result.summary["cells"]["gsm8k"]["value"], step, series))
        return "down" if step == 1500 else None

    monkeypatch.setattr(trackers, "require", lambda tracker, offline: None)
    monkeypatch.setattr(trackers, "log_run", log_run)
    children.worse = {"checkpoint-1000"}
    _, _, err = evals("watch", training, *COMMAND, "--log", "mlflow")
    assert logged == [
        ("mlflow", 1, 500, "train"), ("mlflow", 0, 1000, "train"), ("mlflow", 1, 1500, "train"),
    ]  # fmt: skip
    assert "warning: down" in err
    assert all("--log" not in words for words in children.asked)


CHILD = """
import pathlib, signal, time
signal.signal(signal.SIGTERM, signal.default_int_handler)
pathlib.Path("started").touch()
try:
    time.sleep(600)
except KeyboardInterrupt:
    pathlib.Path("stopped").touch()
    raise SystemExit(130)
"""
WATCHING = """
import sys
from evals.commands import watch
watch._RUN = [sys.executable, "child.py"]
try:
    watch._child(["x"])
except KeyboardInterrupt:
    sys.exit(130)
"""


def test_a_schedulers_signal_stops_the_child_in_order(tmp_path: Path) -> None:
    """SIGTERM, which the watch alone is given."""
    (tmp_path / "child.py").write_text(CHILD)
    watching = subprocess.Popen(
        [sys.executable, "-c", WATCHING], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    while not (tmp_path / "started").exists():
        time.sleep(0.02)
    watching.send_signal(signal.SIGTERM)
    assert watching.wait(300) == 130
    assert (tmp_path / "stopped").exists()


# --- the page and the best ------------------------------------------------------------------------


def test_the_best_is_by_what_all_have_each_in_its_own_sense(tmp_path: Path) -> None:
    low, high = run_folder(tmp_path / "a", value=0.5), run_folder(tmp_path / "b", value=0.6)
    assert best_run([low, high, low]) == high
    # No Average: what all have; XSTest's columns are better when lower.
    keys = ("average", "mmlu", "gsm8k", "bbh", "humaneval", "alpaca_eval_1", "alpaca_eval_2_lc")
    none = dict.fromkeys((*keys, "truthfulqa", "ifeval"), None)
    c = run_folder(tmp_path / "c", value=0.5, **none)
    d = run_folder(tmp_path / "d", value=0.6, **none)
    assert best_run([c, d]) == c


def test_the_best_knows_the_sense_of_what_is_asked_off_the_card(tmp_path: Path) -> None:
    bad = {"key": "bad", "heading": "bad", "benchmark": "lm-eval.bad", "lower_is_better": True}
    of = {
        "bad": bad,  # a rate of errors
        "good": {**bad, "key": "good", "lower_is_better": False},
        "bits": {**bad, "key": "bits", "unit": "own", "decimals": 3},
    }
    none = dict.fromkeys((*shipped().keys, "average"))
    folders = []
    for name, good, bits in (("a", 0.50, 0.9), ("b", 0.51, 0.1)):
        folders.append(run_folder(tmp_path / name, **none, bad=good - 0.3, good=good, bits=bits))
        file = folders[-1] / "summary.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "off_card": [*of.values()]}))
    assert best_run(folders) == folders[1]  # as good as the other in the mean, and later
    file.write_text(file.read_text().replace('"value": 0.21', '"value": 0.22'))
    assert best_run(folders) == folders[0]


def test_an_average_of_what_is_no_share_does_not_name_the_best(tmp_path: Path) -> None:
    card = shipped().as_json()
    card["average"]["unit"] = "own"
    none = dict.fromkeys(shipped().keys)
    folders = []
    for name, sums, bits in (("a", 0.6, 0.1), ("b", 0.5, 0.9)):
        folders.append(run_folder(tmp_path / name, **none | {"gsm8k": sums, "average": bits}))
        file = folders[-1] / "summary.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "card": card}))
    assert best_run(folders) == folders[0]


def test_the_page_escapes_what_it_is_told(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "<b>", "<i>", 0.655)
    text = page("<script>", [(1000, run, "pass", "<u>")])
    for tag in ("<script>", "<b>", "<i>", "<u>"):
        assert tag not in text
    assert '<th scope="row">1,000</th>' in text
    assert "65.5 <small>[60.0, 70.0]</small>" in text
    assert 'http-equiv="refresh" content="60"' in text


def test_the_page_draws_each_column_over_its_steps(tmp_path: Path) -> None:
    """At their steps; a run without a number has no point, one alone no plot."""
    runs = [run_folder(tmp_path / str(n), value=value) for n, value in enumerate((0.6, 0.7, None))]
    text = page("t", [(100 * n**2, run, "pass", None) for n, run in enumerate(runs)])
    assert text.count("<svg") == len(shipped().printed)
    assert text.count("<circle") == 2 * len(shipped().printed)
    first, second = (float(x) for x in re.findall(r'<circle cx="([\d.]+)"', text)[:2])
    # 0, 100, 400: a quarter of the way.
    assert second - first == pytest.approx((520 - 44) * 2 / 3 / 4, abs=0.2)
    assert 'text-anchor="middle">100</text>' in text
    assert 'XSTest safe but ref. <span class="quiet">lower is better' in text
    assert "Differences, in points" not in text
    one = page("t", [(0, runs[0], "the first", None)])
    assert "<svg" not in one
    assert "<td>the first</td>" in one
