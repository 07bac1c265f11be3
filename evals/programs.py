"""Running the programs a model wrote: in the sandbox, while generation goes on, and never twice."""

import hashlib
import json
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Literal

from evals.progress import Progress
from evals.records import Finding, ItemId, Outcome, Program
from evals.store import Store

if TYPE_CHECKING:
    from evals.sandbox import Sandbox

_BATCH = 64


@dataclass
class Programs:
    """Submits programs as answers land and collects their outcomes at the end; outcomes are kept in the store by content."""

    store: Store
    run: str
    progress: Progress
    policy: Literal["auto", "require"]
    _sandbox: "Sandbox | None" = None
    _running: list[tuple[ItemId, str, str, Future[Outcome]]] = field(default_factory=list)

    @property
    def level(self) -> dict[str, str] | None:
        """The isolation the programs got, None when none ran."""
        return None if self._sandbox is None else {"level": self._sandbox.level, "reason": self._sandbox.level_reason}

    def submit(self, item_id: ItemId, check: str, program: Program) -> None:
        """Have a program run; its finding comes with `collect`. Raises EnvironmentFault when the policy cannot be met."""
        from evals.sandbox import SANDBOX_VERSION, Sandbox

        key = hashlib.sha256(json.dumps([SANDBOX_VERSION, asdict(program)]).encode("utf-8", "surrogatepass")).hexdigest()
        known = self.store.get(key)
        future: Future[Outcome] = Future()
        if isinstance(known, Outcome):
            future.set_result(known)
        else:
            if self._sandbox is None:
                self._sandbox = Sandbox(self.policy)
                if self._sandbox.level != "namespace":
                    self.progress.note(
                        f"warning: the programs run at the sandbox's {self._sandbox.level} level: {self._sandbox.level_reason}"
                    )
            future = self._sandbox.submit(program)
        self._running.append((item_id, check, key, future))

    def collect(self, found: Callable[[ItemId, str, Finding], None]) -> None:
        """Wait for every program, commit its outcome and hand it on."""
        self.progress.start("programs", len(self._running))
        for start in range(0, len(self._running), _BATCH):
            batch = [(*entry[:3], entry[3].result()) for entry in self._running[start : start + _BATCH]]
            self.store.put((key, outcome) for _, _, key, outcome in batch)
            self.store.link(self.run, ((item_id, check, key, "sandbox", "") for item_id, check, key, _ in batch))
            for item_id, check, _, outcome in batch:
                found(item_id, check, Finding(by="sandbox", outcome=outcome))
            self.progress.advance(len(batch))
        self._running.clear()
        self.progress.stop()

    def close(self) -> None:
        """End the sandbox and whatever still runs in it."""
        if self._sandbox is not None:
            self._sandbox.close()
