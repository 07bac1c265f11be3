"""Kill it anywhere: the same call goes on from there, asks only for what is missing, and ends with
the same bytes.
"""

import gc
import json
import shutil
import sqlite3
import time
from concurrent.futures import Future
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evals.errors import EnvironmentFault, InputError
from evals.generators import EngineSettings, Failure
from evals.generators.fake import FakeGenerator
from evals.models.prompts import Rendered, Renderer
from evals.records import Completion, ItemId, Outcome, Output, Program, Sampling
from evals.report.run_row import row_from_summary
from evals.report.show import describe_item
from evals.report.table import markdown
from evals.runs.asking import Asker
from evals.runs.progress import Progress
from evals.runs.rescore import rescore
from evals.runs.session import run
from evals.sandbox.pool import Sandbox
from evals.storage.store import Store
from tests.resilience.fake_runs import SERVER, Engines, reply, results, settings, stored

ALL_TASKS = ("mmlu,gsm8k,bbh,humaneval,alpaca_eval,truthfulqa,ifeval,xstest",)
N_PROMPTS = 12 + 6 + 6 + 8
"""Items of the quick tasks' smoke suites; no two prompts are equal."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What the run comes to when nothing happens to it."""
    return whole_run(tmp_path_factory.mktemp("undisturbed") / "run")


@pytest.fixture(scope="module")
def undisturbed_smollm2(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The same with the embedded model's tokenizer, context and chat template."""
    return whole_run(tmp_path_factory.mktemp("undisturbed") / "run", model="smollm2")


def whole_run(out: Path, **changes: Any) -> dict[str, bytes]:
    """The results of one run in one go."""
    engines = Engines(batch=7)
    assert run(settings(out, **changes), make_generator=engines).is_complete
    assert len(engines.asked) == len(set(engines.asked)) == N_PROMPTS
    return results(out)


def finish(out: Path, **changes: Any) -> list[str]:
    """Call again with a whole engine; what it was asked."""
    engines = Engines()
    assert run(settings(out, **changes), make_generator=engines).is_complete
    return engines.asked


# --- interruptions --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [KeyboardInterrupt(), EnvironmentFault("The engine died."), RuntimeError("a bug")],
    ids=repr,
)
@pytest.mark.parametrize("n_answered", [0, 1, 20, N_PROMPTS - 1])
def test_an_interrupted_run_is_finished_by_the_same_call(
    tmp_path: Path, undisturbed: dict[str, bytes], error: BaseException, n_answered: int
) -> None:
    out = tmp_path / "run"
    first = Engines(fails_after=n_answered, error=error)
    with pytest.raises(type(error)):
        run(settings(out), make_generator=first)
    assert stored(out) == set(first.asked)
    assert not (out / "summary.json").exists()
    assert len(json.loads((out / "run.json").read_text())["sessions"]) == 1
    second = finish(out)
    assert len(first.asked) + len(second) == len({*first.asked, *second}) == N_PROMPTS
    assert results(out) == undisturbed


def test_a_run_interrupted_again_and_again_asks_nothing_twice(
    tmp_path: Path, undisturbed_smollm2: dict[str, bytes]
) -> None:
    out, asked = tmp_path / "run", []
    for _ in range(N_PROMPTS // 9):
        engines = Engines(fails_after=9)
        with pytest.raises(KeyboardInterrupt):
            run(settings(out, model="smollm2"), make_generator=engines)
        asked += engines.asked
    asked += finish(out, model="smollm2")
    assert len(asked) == len(set(asked)) == N_PROMPTS
    assert results(out) == undisturbed_smollm2
    assert len(json.loads((out / "run.json").read_text())["sessions"]) == 1 + N_PROMPTS // 9


def test_a_finished_run_called_again_starts_no_engine_and_changes_nothing(
    tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    out = tmp_path / "run"
    finish(out)
    engines = Engines()
    assert run(settings(out), make_generator=engines).is_complete
    assert (engines.n_started, results(out)) == (0, undisturbed)


def test_a_call_that_breaks_off_early_takes_nothing_back_that_the_run_found_out(
    tmp_path: Path,
) -> None:
    out = tmp_path / "run"
    short: dict[str, Any] = {"model": "smollm2", "engine": EngineSettings(max_model_len=900)}
    finish(out, tasks=("gsm8k", "xstest"), **short)
    before = results(out)
    assert b"capped by the model's context" in before["summary.json"]

    class Stopped(Progress):
        def start(self, phase: str, total: int = 0, work: float = 0.0) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(settings(out, tasks=("gsm8k", "xstest"), **short), Stopped(quiet=True), Engines())
    rescore(out, None)
    assert results(out) == before


# --- what is asked again, and what is not ---------------------------------------------------------


def test_a_task_added_later_asks_for_itself_only(
    tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    out = tmp_path / "run"
    assert len(finish(out, tasks=("gsm8k",))) == 6
    assert len(finish(out, tasks=("gsm8k", "mmlu"))) == 12
    assert len(finish(out)) == N_PROMPTS - 18
    assert results(out) == undisturbed


@pytest.mark.parametrize(
    "engine",
    [
        EngineSettings(gpu_memory_utilization=0.5, max_num_seqs=3, enforce_eager=True),
        EngineSettings(
            tensor_parallel_size=3, pipeline_parallel_size=2, distributed_executor_backend="mp"
        ),
        EngineSettings(max_model_len=8192),
    ],
    ids=["memory", "GPUs", "the context the weights have anyway"],
)
def test_settings_that_change_no_answer_ask_nothing_again(
    tmp_path: Path, undisturbed_smollm2: dict[str, bytes], engine: EngineSettings
) -> None:
    out = tmp_path / "run"
    finish(out, model="smollm2")
    assert finish(out, model="smollm2", engine=engine) == []
    assert results(out) == undisturbed_smollm2


@pytest.mark.parametrize(
    ("what", "changes"),
    [
        ("limit None", {"limit": 3}),
        ("suite smoke", {"suite": "full"}),
        ("chat_format tokenizer", {"chat_format": "none"}),
        ("seed 0", {"engine": EngineSettings(seed=1)}),
        ("other precision", {"engine": EngineSettings(dtype="float32")}),
        ("another model", {"model": SERVER}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_another_run_in_the_same_folder_is_refused_by_what_differs(
    smollm2_gsm8k: Path, data_dir: Path, what: str, changes: dict[str, Any]
) -> None:
    before = results(smollm2_gsm8k)
    engines = Engines()
    asked_for = {"model": "smollm2", "tasks": ("gsm8k",), "data": data_dir, **changes}
    with pytest.raises(InputError, match=what):
        run(settings(smollm2_gsm8k, **asked_for), make_generator=engines)
    assert engines.asked == []
    assert results(smollm2_gsm8k) == before


@pytest.fixture(scope="module")
def smollm2_gsm8k(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small finished run."""
    out = tmp_path_factory.mktemp("small") / "run"
    finish(out, model="smollm2", tasks=("gsm8k",))
    return out


def test_two_folders_share_a_store(tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    store = tmp_path / "shared.sqlite"
    assert len(finish(tmp_path / "one", store=store)) == N_PROMPTS
    assert finish(tmp_path / "two", store=store) == []
    assert results(tmp_path / "one") == results(tmp_path / "two") == undisturbed
    assert not (tmp_path / "two" / "store.sqlite").exists()


def test_equal_prompts_are_asked_once_and_both_answered_or_both_missing(tmp_path: Path) -> None:
    def twin(item: str) -> Rendered:
        return Rendered(ItemId(item), "", "same", (1, 2), (), Sampling(5), 5)

    asked = [twin("a/1"), twin("a/2"), replace(twin("a/3"), token_ids=(1, 3))]
    everyone = ["a/1", "a/2", "a/3"]
    store = Store(tmp_path / "store.sqlite")

    def session(answer: Completion | Failure) -> tuple[list[str], list[str]]:
        engine = FakeGenerator(lambda request: answer)
        asker = Asker(store, "run", Progress(quiet=True))
        landed: list[str] = []
        keyed = [(request.key("model"), request) for request in asked]
        waiting = asker.ask("", keyed, lambda request, _: landed.append(request.item_id))
        asker.load("model", lambda: engine)
        asker.progress.start("generate")
        asker.stream(
            waiting,
            lambda request, _: landed.append(request.item_id),
            Renderer(None, "tokenizer", None),
        )
        assert [request.item_id for request in engine.asked] == ["a/1", "a/3"]
        return sorted(landed), sorted(item for item, _ in asker.failures)

    assert session(Failure("too busy")) == ([], everyone)
    assert session(Completion((Output("x"),))) == (everyone, [])
    store.close()


# --- a request that fails by itself ---------------------------------------------------------------


def test_a_failed_request_keeps_its_place_and_is_asked_again(
    tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    out = tmp_path / "run"

    def flaky(request: Rendered) -> Completion | Failure:
        return (
            Failure("the server answered 500")
            if request.item_id in ("gsm8k/2", "xstest/7")
            else reply(request)
        )

    result = run(settings(out), make_generator=Engines(flaky))
    assert (result.is_complete, result.n_missing) == (False, 2)
    cells = result.summary["cells"]
    for key, reason in (
        ("gsm8k", "5 of 6 items answered"),
        ("xstest_unsafe_followed", "7 of 8 items answered"),
    ):
        assert (
            cells[key]["value"],
            cells[key]["reason"],
            cells[key]["ci95"],
            cells[key]["stderr"],
        ) == (None, reason, None, None)
    assert (cells["gsm8k"]["n"], cells["gsm8k"]["n_items"]) == (5, 6)
    assert cells["mmlu"]["value"] is not None
    assert cells["average"]["value"] is None
    assert result.summary["tasks"]["gsm8k"]["n_items"] == 6
    assert "-" in markdown([row_from_summary(result.summary)])
    again = Engines()
    assert run(settings(out), make_generator=again).is_complete
    assert len(again.asked) == 2
    assert results(out) == undisturbed


def test_a_task_of_which_nothing_was_answered_has_no_number(tmp_path: Path) -> None:
    out = tmp_path / "run"
    result = run(
        settings(out, tasks=("gsm8k",)), make_generator=Engines(lambda request: Failure("no"))
    )
    assert result.n_missing == 6
    assert result.cells["gsm8k"] is None
    before = results(out)
    rescore(out, None)
    assert results(out) == before
    (out / "store.sqlite").unlink()
    rescore(out, None)
    assert results(out) == before


# --- scoring again --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def all_tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of all eight benchmarks, HumanEval's programs included."""
    out = tmp_path_factory.mktemp("all") / "run"
    assert run(
        settings(out, model="smollm2", tasks=ALL_TASKS), make_generator=Engines(batch=9)
    ).is_complete
    return out


def test_scoring_again_gives_the_same_bytes(all_tasks: Path, tmp_path: Path) -> None:
    out = tmp_path / "copy"
    shutil.copytree(all_tasks, out)
    before = results(out)
    assert {json.loads(line)["score"] for line in before["humaneval.jsonl.gz"].splitlines()} <= {
        0.0,
        1.0,
    }
    rescore(out, None)
    assert results(out) == before
    # Samples are made again from the store alone; a rule's verdicts need no model.
    shutil.rmtree(out / "samples")
    rescore(out, None)
    assert results(out) == before


def test_programs_that_were_run_are_not_run_again(all_tasks: Path, tmp_path: Path) -> None:
    out = tmp_path / "copy"
    shutil.copytree(all_tasks, out)
    before = results(out)
    engines = Engines()
    assert run(settings(out, model="smollm2", tasks=ALL_TASKS), make_generator=engines).is_complete
    assert engines.n_started == 0
    assert [
        session["sandbox"] is None
        for session in json.loads((out / "run.json").read_text())["sessions"]
    ] == [False, True]
    assert results(out) == before


def test_scoring_from_samples_alone_gives_the_same_bytes_but_cannot_show_the_prompts(
    all_tasks: Path, tmp_path: Path
) -> None:
    # Gone with the store: prompts, token ids, prompt lengths, and digits of log-probabilities past
    # the tenth.
    out = tmp_path / "copy"
    shutil.copytree(all_tasks, out)
    before = results(out)
    assert "Question:" in describe_item(out, "gsm8k/1", None).partition("── output")[0]
    (out / "store.sqlite").unlink()
    rescore(out, None)
    rescore(out, None)
    assert results(out) == before
    assert "store is not here" in describe_item(out, "gsm8k/1", None)
    assert not (out / "store.sqlite").exists()


def test_a_store_that_knows_nothing_of_the_run_leaves_its_samples_alone(
    all_tasks: Path, tmp_path: Path
) -> None:
    out = tmp_path / "copy"
    shutil.copytree(all_tasks, out)
    before = results(out)
    (out / "store.sqlite").unlink()
    Store(out / "store.sqlite").close()
    rescore(out, None)
    assert results(out) == before


def test_a_run_is_scored_from_wherever_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    finish(Path("run"), model="smollm2", tasks=("gsm8k",), store=Path("shared.sqlite"))
    before = results(tmp_path / "run")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    shutil.rmtree(tmp_path / "run" / "samples")
    rescore(tmp_path / "run", None)
    assert results(tmp_path / "run") == before


def test_what_leaves_a_folders_row_and_whose_answers_it_keeps_is_said_beforehand(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    for model, tasks in ((SERVER, ("mmlu", "gsm8k")), (SERVER.replace(":9/", ":10/"), ("gsm8k",))):
        assert capsys.readouterr().err.count(str(out)) == 0
        run(settings(out, model=model, tasks=tasks), Progress(), make_generator=Engines())
    said = " ".join(capsys.readouterr().err.split())
    assert (
        f"{out} keeps the answers of {SERVER}. If this is another model, choose another --out."
        in said
    )
    assert f"{out} had results of mmlu, which this command leaves out" in said


def test_scoring_needs_store_or_samples(all_tasks: Path, tmp_path: Path) -> None:
    out = tmp_path / "copy"
    shutil.copytree(all_tasks, out)
    (out / "store.sqlite").unlink()
    (out / "samples" / "bbh.jsonl.gz").unlink()
    with pytest.raises(
        InputError, match="no answers of bbh, neither in a store nor in samples/bbh"
    ):
        rescore(out, None)


def test_scoring_a_damaged_run_says_which_file(all_tasks: Path, tmp_path: Path) -> None:
    out = tmp_path / "copy"
    shutil.copytree(all_tasks, out)
    path = out / "samples" / "gsm8k.jsonl.gz"
    for raw in (b"junk", path.read_bytes()[:-9]):
        path.write_bytes(raw)
        with pytest.raises(InputError, match=r"gsm8k\.jsonl\.gz"):
            rescore(out, None)
    (out / "run.json").write_text("{}")
    with pytest.raises(InputError, match=r"run\.json is damaged"):
        rescore(out, None)


def test_an_interrupted_run_can_be_scored_and_then_goes_on(
    tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        run(settings(out), make_generator=Engines(fails_after=30))
    cells = rescore(out, None)["cells"]
    assert sum(cell["value"] is None for cell in cells.values()) >= 1
    assert len(finish(out)) == N_PROMPTS - 30
    assert results(out) == undisturbed


# --- memory ---------------------------------------------------------------------------------------


def test_answers_leave_memory_once_they_are_graded(tmp_path: Path) -> None:
    most = 0

    def counted(request: Rendered) -> Completion | Failure:
        nonlocal most
        most = max(most, sum(type(thing) is Completion for thing in gc.get_objects()))
        return reply(request)

    before = sum(type(thing) is Completion for thing in gc.get_objects())
    assert run(settings(tmp_path / "run"), make_generator=Engines(counted, batch=2)).is_complete
    assert most - before <= 6  # what one batch holds, not the run's 32


def test_a_programs_outcome_is_committed_while_others_are_still_generated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"

    def slowly(request: Rendered) -> Completion | Failure:
        deadline = time.monotonic() + 300
        while len(engines.asked) > 1 and not first_ended() and time.monotonic() < deadline:
            time.sleep(0.01)
        return reply(request)

    def first_ended() -> bool:
        """Whether the first item's first program has ended."""
        return bool(futures) and futures[0].done()

    futures: list[Future[Outcome]] = []
    submit = Sandbox.submit

    def noted(self: Sandbox, program: Program) -> "Future[Outcome]":
        futures.append(submit(self, program))
        return futures[-1]

    monkeypatch.setattr(Sandbox, "submit", noted)

    engines = Engines(slowly, fails_after=2)
    with pytest.raises(KeyboardInterrupt):
        run(settings(out, tasks=("humaneval",)), make_generator=engines)
    assert outcomes_in(out)


def outcomes_in(out: Path) -> int:
    """How many programs' outcomes the run's store holds."""
    with closing(sqlite3.connect(f"file:{out / 'store.sqlite'}?mode=ro", uri=True)) as database:
        (n,) = database.execute("SELECT count(*) FROM asked WHERE by = 'sandbox'").fetchone()
    return int(n)
