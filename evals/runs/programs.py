"""Running the programs a model wrote: in the sandbox, while generation goes on, and never twice."""

import hashlib
import json
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Literal

from evals.records import Finding, ItemId, Outcome, Program
from evals.runs.progress import Progress
from evals.storage.store import Store

if TYPE_CHECKING:
    from evals.sandbox.pool import Sandbox

_BATCH = 64


@dataclass
class Programs:
    """Submits programs as answers land and collects their outcomes as they end; outcomes are kept
    in the store by content.

    Equal programs run once: of a problem's 20 samples, four of ten may be the same text (SmolLM2).
    """

    store: Store
    run: str
    progress: Progress
    policy: Literal["auto", "require"]
    _sandbox: "Sandbox | None" = None
    _running: deque[tuple[ItemId, str, str, Future[Outcome]]] = field(default_factory=deque)
    _uncommitted: dict[str, Future[Outcome]] = field(default_factory=dict)

    @property
    def level(self) -> dict[str, str] | None:
        """The isolation that programs get, None when no sandbox was started."""
        return (
            None
            if self._sandbox is None
            else {"level": self._sandbox.level, "reason": self._sandbox.level_reason}
        )

    def prepare(self) -> None:
        """Have the sandbox ready before the first program. Raises EnvironmentFault when the policy
        cannot be met.
        """
        from evals.sandbox.pool import Sandbox

        if self._sandbox is None:
            self._sandbox = Sandbox(self.policy)
            if self._sandbox.level != "namespace":
                self.progress.note(
                    f"warning: the programs run at the sandbox's {self._sandbox.level} level:"
                    f" {self._sandbox.level_reason}"
                )

    def submit(self, item_id: ItemId, check: str, program: Program) -> None:
        """Have a program run; its finding comes with `collect`. Raises EnvironmentFault when the
        policy cannot be met.
        """
        key = _key(program)
        if key not in self._uncommitted:
            self._uncommitted[key] = self._outcome_of(key, program)
        self._running.append((item_id, check, key, self._uncommitted[key]))

    def has_run(self, program: Program) -> bool:
        """Whether the store has what this sandbox made of it."""
        return isinstance(self.store.get(_key(program)), Outcome)

    def _outcome_of(self, key: str, program: Program) -> Future[Outcome]:
        if isinstance(known := self.store.get(key), Outcome):
            future: Future[Outcome] = Future()
            future.set_result(known)
            return future
        self.prepare()
        assert self._sandbox is not None
        return self._sandbox.submit(program)

    def collect(self, found: Callable[[ItemId, str, Finding], None], *, wait: bool = True) -> None:
        """Commit the outcomes of programs that have ended and hand them on. wait: until every
        program has.
        """
        if wait:
            self.progress.start("programs", len(self._running))
        while batch := self._ended(wait):
            self.store.put((key, outcome) for _, _, key, outcome in batch)
            self.store.link(
                self.run, ((item_id, check, key, "sandbox", "") for item_id, check, key, _ in batch)
            )
            for item_id, check, key, outcome in batch:
                # Equal programs share an entry.
                self._uncommitted.pop(key, None)
                found(item_id, check, Finding(by="sandbox", outcome=outcome))
            if wait:
                self.progress.advance(len(batch))
        if wait:
            self.progress.stop()

    def _ended(self, wait: bool) -> list[tuple[ItemId, str, str, Outcome]]:
        """The first few programs in the order they came, as far as they have ended."""
        ended: list[tuple[ItemId, str, str, Outcome]] = []
        while self._running and len(ended) < _BATCH and (wait or self._running[0][3].done()):
            item_id, check, key, future = self._running.popleft()
            ended.append((item_id, check, key, future.result()))
        return ended

    def close(self) -> None:
        """End the sandbox and whatever still runs in it."""
        if self._sandbox is not None:
            self._sandbox.close()


def _key(program: Program) -> str:
    from evals.sandbox.pool import SANDBOX_VERSION

    identity = json.dumps([SANDBOX_VERSION, asdict(program)])
    return hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()
