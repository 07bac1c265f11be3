"""What is graded is written while the engine answers: in whatever order answers come, samples and
summary are the same bytes, and little is left for the end.
"""

import random
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from evals.errors import EnvironmentFault
from evals.generators import Failure
from evals.generators.fake import FakeGenerator
from evals.models.prompts import Rendered
from evals.plan.make import Plan
from evals.records import Completion
from evals.runs import writing
from evals.runs.progress import Progress
from evals.runs.session import run
from evals.storage.run_folder import Packed, RunFolder
from tests.resilience.fake_runs import Answer, reply, results, settings

Order = Callable[[Sequence[Rendered]], list[Rendered]]


def shuffled(requests: Sequence[Rendered]) -> list[Rendered]:
    return random.Random(7).sample(requests, len(requests))


class InOrder(FakeGenerator):
    """Answers in an order of its own."""

    def __init__(self, order: Order, answer: Answer, _: Plan) -> None:
        super().__init__(answer, batch=3)
        self.order = order

    def stream(self, requests: Sequence[Rendered]) -> Any:
        return super().stream(self.order(requests))


def refuses_one(request: Rendered) -> Completion | Failure:
    return Failure("no") if request.item_id.endswith("/3") else reply(request)


@pytest.mark.parametrize("answer", [reply, refuses_one])
def test_the_order_of_answers_changes_no_byte_and_those_in_order_are_written_ahead(
    answer: Answer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run(settings(tmp_path / "end"), make_generator=partial(InOrder, list, answer))
    expected = results(tmp_path / "end")  # of few items nothing is written ahead
    held: list[Packed | None] = []
    write = RunFolder.write_samples

    def seen(folder: RunFolder, task: str, rows: Any, ahead: Packed | None = None) -> None:
        held.append(ahead)
        write(folder, task, rows, ahead)

    monkeypatch.setattr(RunFolder, "write_samples", seen)
    monkeypatch.setattr(writing, "_AT_ONCE", 2)
    orders: dict[str, Order] = {
        "forward": list,
        "backward": lambda requests: list(reversed(requests)),
        "shuffled": shuffled,
    }
    for name, order in orders.items():
        held.clear()
        run(settings(tmp_path / name), make_generator=partial(InOrder, order, answer))
        assert results(tmp_path / name) == expected
        if name == "forward":
            assert all(held)


def test_a_temporary_file_that_cannot_be_written_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "_AT_ONCE", 2)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Packed, "write", full)
    with pytest.raises(EnvironmentFault, match="Set TMPDIR to a folder with room"):
        run(settings(tmp_path / "run"), make_generator=partial(InOrder, list, reply))
    # Where it is descriptors that are lacking, no other folder helps.
    monkeypatch.setattr(writing, "no_files_left", lambda: EnvironmentFault("ulimit -n"))
    with pytest.raises(EnvironmentFault, match=r"^ulimit -n$"):
        run(settings(tmp_path / "run"), make_generator=partial(InOrder, list, reply))


def test_what_cannot_be_read_meanwhile_is_no_temporary_files_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "_AT_ONCE", 2)

    def unreadable(*_: object) -> None:
        raise OSError("no such reader")

    monkeypatch.setattr(Plan, "read", unreadable)
    plan = settings(tmp_path / "run")
    with pytest.raises(OSError, match="no such reader"):
        run(plan, make_generator=partial(InOrder, list, reply))


def test_a_store_that_is_removed_after_the_last_answer_is_said_to_be_lost(tmp_path: Path) -> None:
    class Removes(Progress):
        def start(self, phase: str, total: int = 0, ahead: Any = None) -> None:
            super().start(phase, total, ahead)
            if phase == "grade":
                (tmp_path / "run" / "store.sqlite").unlink()

        def note(self, text: str) -> None:
            notes.append(text)

    notes: list[str] = []
    result = run(
        settings(tmp_path / "run"), Removes(), make_generator=partial(InOrder, list, reply)
    )
    assert result.is_complete
    assert any("store.sqlite was removed while the run was at work" in note for note in notes)
