"""Programs in a run: each text is run once, whoever's it is, and its outcome is everybody's."""

from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import pytest

from evals.errors import EnvironmentFault
from evals.plan.make import make_plan
from evals.records import Finding, ItemId, Outcome, Program
from evals.report.dry_run import describe
from evals.runs.programs import Programs
from evals.runs.progress import Progress
from evals.runs.session import run
from evals.sandbox.pool import Sandbox
from evals.storage.store import Store
from tests.resilience.fake_runs import Engines, settings

RIGHT, WRONG = (Program(f"def f():\n    return {value}", "assert f() == 1") for value in (1, 2))
ASKED = [
    (ItemId("humaneval/0"), "sample/0", RIGHT),
    (ItemId("humaneval/0"), "sample/1", WRONG),
    (ItemId("humaneval/0"), "sample/2", RIGHT),
]
ASKED += [(ItemId("humaneval/7"), "sample/0", RIGHT)]


def test_equal_programs_run_once_and_never_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[Program] = []

    def counted(sandbox: Sandbox, program: Program) -> "Future[Outcome]":
        ran.append(program)
        return sandbox._threads.submit(sandbox.run, program)

    monkeypatch.setattr(Sandbox, "submit", counted)
    expected = [
        (item_id, check, "passed" if program == RIGHT else "wrong_answer")
        for item_id, check, program in ASKED
    ]
    store = Store(tmp_path / "store.sqlite")
    for n_ran in (2, 2):  # the second time from the store, in a session of its own
        programs = Programs(store, "run", Progress(quiet=True), "auto")
        found: list[tuple[str, str, str]] = []

        def take(
            item_id: ItemId, check: str, finding: Finding, found: list[tuple[str, str, str]] = found
        ) -> None:
            assert finding.outcome is not None
            found.append((item_id, check, finding.outcome.status))

        for turn in range(2):  # once under way together, once after they ended
            for item_id, check, program in ASKED:
                programs.submit(item_id, check, program)
            programs.collect(take)
            assert found == expected * (turn + 1)
            assert len(ran) == n_ran
        programs.close()
    assert store.count() == 2
    assert sorted((item, check) for item, check, _, _ in store.answers("run")) == sorted(
        (item, check) for item, check, _ in ASKED
    )
    store.close()


def test_a_sandbox_that_cannot_be_had_is_refused_before_an_engine_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    engines = Engines()
    asked = settings(tmp_path / "run", tasks=("gsm8k", "humaneval"), sandbox="require")
    for refused in (lambda: run(asked, make_generator=engines), lambda: describe(make_plan(asked))):
        with pytest.raises(EnvironmentFault, match=r"bubblewrap .* not installed"):
            refused()
    assert engines.n_started == 0
    assert run(replace(asked, tasks=("gsm8k",)), make_generator=engines).is_complete
    assert describe(make_plan(replace(asked, tasks=("gsm8k",))))
