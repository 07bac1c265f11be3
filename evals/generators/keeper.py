"""Between a run and the process of one of its engines: when either of them ends, however it ends,
whatever the engine started is ended too. A file of its own, run by its path: it loads nothing.

    python keeper.py RUN FD COMMAND…      RUN: the run's process; FD: the engine's connection to it

vLLM's processes outlive whoever started them when that one is killed, and a signal at a parent's
death reaches children only; so this process takes in every orphan below it, and counts them by
what the kernel says.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_LOOK_S = 0.1
_PATIENCE_S = 20.0
"""For processes that the kernel does not let go: a GPU's driver may hold one for a while."""
_TRACKERS_S = 5.0
_PR_SET_CHILD_SUBREAPER = 36
_LONGEST = 40
"""Bytes of a folder below which sockets may lie: all of a socket's path are 107 at most, of which a
folder of ours takes 22, and what vLLM calls them 37."""
_TRACKER = b"multiprocessing.resource_tracker"
"""Removes the shared memory of those whose pipes it holds, once they are gone; then it ends."""


def main(arguments: list[str]) -> int:
    """Returns the engine's exit status; 128 and the signal's number where a signal ended it."""
    run, descriptor, command = int(arguments[1]), int(arguments[2]), arguments[3:]
    told: list[int] = []
    for one in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(one, lambda number, _: told.append(number))
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    # The sockets of a killed engine's processes are files here, which nobody would remove.
    with room_for_sockets() as sockets:
        engine = subprocess.Popen(
            command,
            env=os.environ | {"VLLM_RPC_BASE_PATH": sockets},
            pass_fds=(descriptor,),
            start_new_session=True,
        )
        os.close(descriptor)
        # By its number and not by a pipe's end, which any child of the run may hold open.
        while engine.poll() is None and os.getppid() == run and not told:
            time.sleep(_LOOK_S)
        _end_all(engine)
    status = engine.poll()
    return 1 if status is None else status if status >= 0 else 128 - status


def has_long_name(folder: str) -> bool:
    """Whether sockets below it could not be opened."""
    return len(os.fsencode(folder)) > _LONGEST


def room_for_sockets() -> "tempfile.TemporaryDirectory[str]":
    """A folder of our own among the temporary files, elsewhere where their folder's name is long,
    as that of a cluster's job may be.
    """
    usual = tempfile.gettempdir()
    short = (one for one in (usual, "/tmp", "/dev/shm") if not has_long_name(one))
    usable = (one for one in short if os.access(one, os.W_OK | os.X_OK))
    return tempfile.TemporaryDirectory(
        prefix="evals-engine-", dir=next(usable, usual), ignore_cleanup_errors=True
    )


def _end_all(engine: "subprocess.Popen[bytes]") -> None:
    """Kill every process below this one; trackers last, when they have done their work."""
    begun = time.monotonic()
    while below := _below(os.getpid()):
        waited_s = time.monotonic() - begun
        if waited_s > _PATIENCE_S:
            return
        trackers = {pid for pid in below if _TRACKER in _command(pid)}
        for pid in below if waited_s > _TRACKERS_S else below - trackers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
        engine.poll()
        # Orphans are this process's children now, and zombies until it asks for them.
        with contextlib.suppress(ChildProcessError):
            while engine.poll() is not None and os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _below(pid: int) -> set[int]:
    """Children, and theirs."""
    found: set[int] = set()
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found.update(map(int, task.read_text().split()))
    return found.union(*map(_below, found))


def _command(pid: int) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


if __name__ == "__main__":
    sys.exit(main(sys.argv))
