"""One sandbox server: a process that runs one program after another, and the pipes to it."""

import contextlib
import os
import select
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any, cast, get_args

from evals.records import Outcome, OutcomeStatus, Program
from evals.sandbox.jail import values
from evals.sandbox.launch import ENVIRONMENT, Way, command_line

_START_S = 120.0  # beside an engine that takes every core of a slow machine, 30 were too few
# Beyond the program's own time, which the server keeps: only a server that is stuck comes to it.
_GRACE_S = 10.0
_FAREWELL_S = 1.0
SILENT = "no answer in time"


class ServerLostError(Exception):
    """A server ended, or said nothing in time; the text says why."""


class Server:
    """One server process and the pipes to it; used by one thread at a time."""

    def __init__(self, way: Way, home: Path) -> None:
        self.way = way
        try:
            self._room = Path(tempfile.mkdtemp(dir=home))
            self._room.chmod(0o755)
            # A fresh program started by exec with every descriptor closed: nothing of this process
            # (GPU, database) goes along.
            self._process = subprocess.Popen(
                command_line(way, self._room),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=ENVIRONMENT,
                cwd="/",
                close_fds=True,
                # A group of its own: killpg reaches all of it, a terminal's Ctrl-C none of it.
                start_new_session=True,
            )
        except OSError as error:
            raise ServerLostError(f"it cannot be started ({error})") from None
        assert self._process.stdin
        assert self._process.stdout
        self._in, self._out = self._process.stdin.fileno(), self._process.stdout.fileno()
        try:
            self.granted: dict[str, bool] = self._receive(_START_S)["ready"]
        except (ServerLostError, KeyError, TypeError) as error:
            words = self._last_words()
            self.kill()
            raise ServerLostError(words or str(error)) from None

    @property
    def is_alive(self) -> bool:
        """False once the process ended."""
        return self._process.poll() is None

    def run(self, program: Program) -> Outcome:
        """Raises ServerLostError when the program took the server down."""
        try:
            limits = {"wall_s": program.wall_s, "memory_mb": program.memory_mb}
            values.write_frame(self._in, [limits, program.source, program.checks])
        except OSError as error:
            raise ServerLostError(f"it took no program ({error.strerror})") from None
        match self._receive(program.wall_s + _GRACE_S):
            case [str(status), str(detail)] if status in get_args(OutcomeStatus):
                return Outcome(cast(OutcomeStatus, status), detail)
        raise ServerLostError("it answered nonsense")

    def _receive(self, timeout_s: float) -> Any:
        # poll, not select: an engine beside us may hold more than 1,024 descriptors.
        poll = select.poll()
        poll.register(self._out, select.POLLIN)
        if not poll.poll(timeout_s * 1000):
            raise ServerLostError(SILENT)
        try:
            return values.read_frame(self._out)
        except (EOFError, values.BadFrameError):
            raise ServerLostError("it ended") from None

    def _last_words(self) -> str:
        assert self._process.stderr
        # A server that said nothing in time still holds its end: what is there is all.
        os.set_blocking(self._process.stderr.fileno(), False)
        lines = (self._process.stderr.read() or b"").decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""

    def dismiss(self) -> None:
        """Have the server end, without waiting for it."""
        with contextlib.suppress(OSError):
            if self._process.stdin:
                self._process.stdin.close()

    def kill(self) -> None:
        """End the server and remove its folder."""
        # Told so, a server ends and reaps its own; left to the signal, its children would be reaped
        # by whoever adopts them.
        self.dismiss()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_FAREWELL_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._close_pipes()
        remove(self._room)

    def _close_pipes(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe:
                pipe.close()


def remove(folder: Path) -> None:
    """Remove a folder, even one that a program filled and its server never emptied."""
    with contextlib.suppress(RecursionError):
        shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():  # nested deeper than Python's recursion goes
        subprocess.run(
            ["/bin/rm", "-rf", "--", str(folder)], stderr=subprocess.DEVNULL, check=False
        )
