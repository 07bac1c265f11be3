"""Several adapters in one command: one engine, a run folder each, and each what it is on its own.
The engine is a fake that knows which adapter it serves.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evals.errors import InputError
from evals.generators import Failure
from evals.models.prompts import Rendered
from evals.models.resolve import Model
from evals.plan.adapters import make_plans, of_each
from evals.plan.settings import RunSettings
from evals.records import Completion, Output
from evals.runs import engines, together
from evals.runs.progress import Progress
from evals.runs.session import run
from evals.runs.writing import RunResult
from evals.storage.run_folder import RunFolder
from tests.adapters import random_pair, write_adapter
from tests.resilience.fake_runs import Engines, judged, reply, results

TASKS = ("gsm8k", "xstest")


@dataclass
class Fakes:
    """Fake engines, and what became of them in order. fails_after: answers before Ctrl-C."""

    events: list[str] = field(default_factory=list)
    n_asked: int = 0
    fails_after: int | None = None

    def start(self, model: Model, settings: RunSettings, rank: int) -> "FakeEngine":
        """See evals.runs.engines.local_engine."""
        self.events.append(f"load {rank}")
        return FakeEngine(self, lambda request, adapter: answer_of(adapter)(request))

    def judge(self, model: Model, settings: RunSettings, n_beside: int = 1) -> "FakeEngine":
        """See evals.runs.engines.start_engine."""
        self.events.append(f"judge {model.argument}")
        return FakeEngine(self, lambda request, _: judged(request))


def answer_of(adapter: str) -> Callable[[Rendered], Completion]:
    """Answers that are the adapter's own."""
    return lambda request: Completion((Output(f"{adapter}: {reply(request).text}"),))


@dataclass
class FakeEngine:
    """Answers as the adapter that it was last told to serve."""

    fakes: Fakes
    answer: Callable[[Rendered, str], Completion]
    adapter: str = ""

    def serve(self, adapter: str) -> None:
        self.adapter = Path(adapter).name
        self.fakes.events.append(f"serve {self.adapter}")
        if self.adapter == "broken":
            raise InputError("vLLM cannot serve it.")

    def stream(
        self, requests: Sequence[Rendered]
    ) -> Iterator[list[tuple[Rendered, Completion | Failure]]]:
        for request in requests:
            if self.fakes.n_asked == self.fakes.fails_after:
                raise KeyboardInterrupt
            self.fakes.n_asked += 1
            yield [(request, self.answer(request, self.adapter))]

    def close(self) -> None:
        self.fakes.events.append("close")


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> Fakes:
    found = Fakes()
    monkeypatch.setattr(together, "local_engine", found.start)
    monkeypatch.setattr(engines, "start_engine", found.judge)
    return found


def adapter(folder: Path, rank: int, **files: str) -> str:
    random = np.random.default_rng(rank)
    pair = random_pair("model.layers.0.self_attn.q_proj", (576, 576), rank, random)
    write_adapter(folder, pair, r=rank, base_model_name_or_path="smollm2")
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    return str(folder)


@pytest.fixture
def two(tmp_path: Path) -> list[str]:
    """Adapters of the embedded model."""
    return [adapter(tmp_path / name, rank) for name, rank in (("first", 8), ("second", 20))]


def asked(tmp_path: Path, **changes: Any) -> RunSettings:
    return RunSettings(
        **{
            "model": "smollm2",
            "suite": "smoke",
            "tasks": TASKS,
            "out": tmp_path / "runs",
            **changes,
        }
    )


def all_of(settings: RunSettings, adapters: Sequence[str]) -> list[RunResult]:
    plans = make_plans(of_each(settings, adapters))
    return together.execute_all(plans, lambda: Progress(quiet=True))


def test_one_load_serves_all_and_each_row_is_that_of_a_run_of_its_own(
    tmp_path: Path, two: list[str], fakes: Fakes
) -> None:
    done = all_of(asked(tmp_path), two)
    assert fakes.events == ["load 20", "serve first", "serve second", "close"]
    names = [result.summary["model"]["name"] for result in done]
    assert names == ["first", "second"]
    for name, folder, result in zip(names, two, done, strict=True):
        assert result.folder.path == tmp_path / "runs" / f"{name}-smoke"
        alone = asked(tmp_path, model=folder, out=tmp_path / f"alone-{name}")
        run(alone, make_generator=Engines(answer_of(name)))
        assert results(result.folder.path) == results(tmp_path / f"alone-{name}")
    record = RunFolder(done[1].folder.path).read_json("run.json")
    assert record["base"] == {"model": "smollm2", "revision": None}
    assert record["adapter_merged"] is False
    assert done[1].summary["model"]["adapter"]["rank"] == 20


def test_done_is_done_and_no_engine_loads_for_it(
    tmp_path: Path, two: list[str], fakes: Fakes
) -> None:
    before = [results(result.folder.path) for result in all_of(asked(tmp_path), two)]
    n_asked, fakes.events = fakes.n_asked, []
    again = [results(result.folder.path) for result in all_of(asked(tmp_path), two)]
    assert (again, fakes.events, fakes.n_asked) == (before, [], n_asked)
    # A third joins: the first two are not asked.
    third = adapter(tmp_path / "third", 1)
    all_of(asked(tmp_path), [*two, third])
    assert fakes.events == ["load 20", "serve third", "close"]


def test_stopped_in_the_second_the_same_command_asks_for_its_rest_only(
    tmp_path: Path, two: list[str], fakes: Fakes
) -> None:
    whole = [results(one.folder.path) for one in all_of(asked(tmp_path, out=tmp_path / "x"), two)]
    n_each = fakes.n_asked // 2
    fakes.n_asked, fakes.events, fakes.fails_after = 0, [], n_each + 3
    with pytest.raises(KeyboardInterrupt):
        all_of(asked(tmp_path), two)
    assert fakes.events[-1] == "close"
    assert (tmp_path / "runs" / "first-smoke" / "summary.json").exists()
    assert not (tmp_path / "runs" / "second-smoke" / "summary.json").exists()
    fakes.events, fakes.fails_after = [], None
    done = all_of(asked(tmp_path), two)
    assert fakes.events == ["load 20", "serve second", "close"]
    assert fakes.n_asked == 2 * n_each
    assert [results(result.folder.path) for result in done] == whole


def test_a_judge_of_this_machine_comes_when_all_have_answered(
    tmp_path: Path, two: list[str], fakes: Fakes
) -> None:
    """Both engines would not fit, and loading the base again for each adapter is what one command
    is to spare.
    """
    done = all_of(asked(tmp_path, judges=("xstest=smollm2",)), two)
    assert fakes.events[:4] == ["load 20", "serve first", "serve second", "close"]
    assert fakes.events[4:] == ["judge smollm2", "close"] * 2
    assert all(result.is_complete for result in done)
    assert all(result.cells["xstest_safe_refused"] is not None for result in done)


def test_another_tokenizer_is_another_engine(tmp_path: Path, two: list[str], fakes: Fakes) -> None:
    from evals.models.embedded import embedded_folder

    tokenizer = (embedded_folder() / "tokenizer.json").read_text()
    config = (embedded_folder() / "tokenizer_config.json").read_text()
    template = (embedded_folder() / "chat_template.jinja").read_text()
    files = {
        "tokenizer__json": tokenizer, "tokenizer_config__json": config,
        "chat_template__jinja": template.replace("You are a helpful", "You are an adapted"),
    }  # fmt: skip
    own = [adapter(tmp_path / name, 8, **files) for name in ("own", "own-too")]
    done = all_of(asked(tmp_path), [two[0], *own])
    assert fakes.events == [
        "load 8", "serve first", "close", "load 8", "serve own", "serve own-too", "close"
    ]  # fmt: skip
    used = [result.summary["model"]["adapter"]["tokenizer"] for result in done]
    assert used == ["base", "adapter", "adapter"]


def test_an_adapter_that_the_engine_refuses_ends_it_all(
    tmp_path: Path, two: list[str], fakes: Fakes
) -> None:
    broken = adapter(tmp_path / "broken", 8)
    with pytest.raises(InputError, match="cannot serve it"):
        all_of(asked(tmp_path), [two[0], broken])
    assert fakes.events[-1] == "close"


def test_what_several_cannot_share_is_refused(tmp_path: Path, two: list[str]) -> None:
    twin = adapter(tmp_path / "other" / "first", 8)
    with pytest.raises(InputError, match="would share the run folder first-smoke"):
        of_each(asked(tmp_path), [*two, twin])
    with pytest.raises(InputError, match="--name X is one row's"):
        of_each(asked(tmp_path, name="X"), two)
    with pytest.raises(InputError, match="With --adapter, MODEL is the base: smollm2"):
        of_each(asked(tmp_path, base="me/base"), two)
    named = asked(tmp_path, model="", revision="main")
    assert [(one.base, one.base_revision) for one in of_each(named, two)] == [(None, "main")] * 2
    # One adapter is one run: out is its folder, name its row's.
    one = of_each(asked(tmp_path, name="X"), two[:1])
    assert one == [replace(asked(tmp_path, name="X"), model=two[0], base="smollm2")]


def test_adapters_of_two_bases_and_whole_models_are_not_one_command_s(
    tmp_path: Path, two: list[str]
) -> None:
    from evals.models.embedded import embedded_folder

    copy = tmp_path / "copy"
    copy.mkdir()
    for file in embedded_folder().iterdir():
        (copy / file.name).symlink_to(file)
    other = write_adapter(
        tmp_path / "other",
        random_pair("model.layers.0.self_attn.q_proj", (576, 576), 4, np.random.default_rng(0)),
        base_model_name_or_path=str(copy),
    )
    with pytest.raises(InputError, match="Adapters of one command have one base"):
        make_plans(of_each(asked(tmp_path, model=""), [two[0], str(other)]))
    with pytest.raises(InputError, match="copy is no adapter"):
        make_plans(of_each(asked(tmp_path, model=""), [two[0], str(copy)]))
