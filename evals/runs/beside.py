"""Judges of this machine whose engines load at the same time, where the memory holds them all: what
they are asked takes seconds, loading them a minute each.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from threading import Lock, Thread

from evals.errors import EvalsError, first_line
from evals.generators import Generator

Start = Callable[[], Generator]


@dataclass
class _Loading:
    """One engine that a thread starts. why: why it did not start.  is_left: nobody waits for it."""

    thread: Thread
    engine: Generator | None = None
    why: str = ""
    is_left: bool = False
    lock: Lock = field(default_factory=Lock)


class Beside:
    """Engines by name that load while another is waited for."""

    def __init__(self) -> None:
        self._loading: dict[str, _Loading] = {}

    def begin(self, starts: Mapping[str, Start]) -> None:
        """Start them all."""
        for name, start in starts.items():
            # Not a pool's: whatever it waits for, this process may end.
            thread = Thread(target=self._load, args=(name, start), name=f"load {name}", daemon=True)
            self._loading[name] = _Loading(thread)
        for name in starts:
            self._loading[name].thread.start()

    def _load(self, name: str, start: Start) -> None:
        own = self._loading[name]
        try:
            engine = start()
        except EvalsError as error:
            own.why = str(error)
            return
        except Exception as error:  # noqa: BLE001  alone it says so where it is met
            own.why = first_line(error)
            return
        with own.lock:
            if not own.is_left:
                own.engine = engine
                return
        engine.close()

    def __contains__(self, name: object) -> bool:
        return name in self._loading

    @property
    def names(self) -> list[str]:
        """Of those that were not taken."""
        return list(self._loading)

    def take(self, name: str) -> tuple[Generator | None, str]:
        """The engine once it is loaded, and whose it then is to close; None and why it is not."""
        own = self._loading.pop(name)
        try:
            own.thread.join()
        except BaseException:
            self._leave(own)
            raise
        return own.engine, own.why

    def close(self, *, is_patient: bool = False) -> None:
        """Free those that were not taken; one that still loads is freed when it has.

        is_patient: return when all are.
        """
        for own in self._loading.values():
            if is_patient:
                own.thread.join()
            self._leave(own)
        self._loading.clear()

    @staticmethod
    def _leave(own: _Loading) -> None:
        with own.lock:
            own.is_left = True
            engine, own.engine = own.engine, None
        if engine is not None:
            engine.close()
