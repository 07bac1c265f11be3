"""Ctrl-C: the first ends the run in order, the second at once, whatever the main thread is busy
with.
"""

import atexit
import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

EXIT_CODE = 130
_FIRST = b"\nevals: stopping. Ctrl-C once more stops at once.\n"
_KEEPER = b"evals/generators/keeper.py"
_SECOND = b"\nevals: stopped at once. What was answered is kept; the same command goes on.\n"


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """Count Ctrl-C meanwhile; the first still raises KeyboardInterrupt in the main thread, which is
    the one to call this.

    A scheduler's SIGTERM is taken for Ctrl-C.
    """
    # Python's own handler waits for the main thread, which may be inside an engine's step for long;
    # this pipe does not.
    ours, signals = socket.socketpair()
    # Python takes no blocking descriptor for this. What finds the pipe full may be lost: two
    # signals are all that is counted.
    ours.setblocking(False)
    at_term = signal.signal(signal.SIGTERM, signal.default_int_handler)
    before = signal.set_wakeup_fd(ours.fileno(), warn_on_full_buffer=False)
    counter = threading.Thread(target=_count, args=(signals,), name="interrupt", daemon=True)
    counter.start()
    try:
        yield
    finally:
        # In this order: no signal is to meet a closed pipe, and closing our end ends the thread.
        signal.set_wakeup_fd(before)
        signal.signal(signal.SIGTERM, at_term)
        ours.close()
        counter.join()
        signals.close()


def at_exit() -> None:
    """Have Ctrl-C end the process without a word while the interpreter ends, where Python would
    show a traceback: nothing is left to be stopped.
    """
    with contextlib.suppress(OSError, ValueError):  # nobody reads it, it is closed
        sys.stdout.flush()
    atexit.unregister(signal.signal)
    atexit.register(signal.signal, signal.SIGINT, signal.SIG_DFL)


def _count(signals: socket.socket) -> None:
    n_seen = 0
    while received := signals.recv(64):
        n_seen += received.count(signal.SIGINT) + received.count(signal.SIGTERM)
        if n_seen >= 2:
            # Past Python's streams and its clean-up: the main thread may hold their locks for long.
            os.write(2, _SECOND)
            _end_children()
            os._exit(EXIT_CODE)
        if n_seen:
            os.write(2, _FIRST)


def _end_children() -> None:
    """Kill the engine's and the sandbox's processes: a process that leaves this way takes nobody
    along. Keepers notice by themselves, and have their own to end.
    """
    for task in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for pid in map(int, task.read_text().split()):
                if _KEEPER not in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(pid, signal.SIGKILL)
