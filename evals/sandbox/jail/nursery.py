"""Forks a confined process for each program, one at a time, and buries it.

The nursery is the first process of a pid namespace where the kernel allows one: nothing in it can then outlive a burial,
and nothing in it can signal the nursery or see the server.
"""

import contextlib
import os
import shutil
import signal
import socket
import time
from typing import Any

from . import confine, program, values


class Nursery:
    """The server's end. Every method raises EOFError when the nursery is gone."""

    def __init__(self, confinement: dict[str, Any]) -> None:
        """Fork the nursery; call before any program is read. confinement: how programs are confined (server.py)."""
        self._line, theirs = socket.socketpair()
        self._pid = os.fork()
        if self._pid == 0:
            try:
                self._line.close()
                _keep(theirs, confinement)
            finally:
                os._exit(0)
        theirs.close()

    def close(self) -> None:
        """End the nursery and wait for it."""
        self._line.close()
        os.waitpid(self._pid, 0)

    def bear(self, limits: dict[str, Any]) -> int:
        """Fork a process for a program; the descriptor it listens on."""
        try:
            values.write_frame(self._line.fileno(), limits)
            _, descriptors, _, _ = socket.recv_fds(self._line, 1, 1)
        except OSError:
            raise EOFError from None
        if not descriptors:
            raise EOFError
        return descriptors[0]

    def bury(self, patient: bool) -> int:
        """End the process and all it left; its wait status. patient: it seems to be ending by itself, see how."""
        try:
            values.write_frame(self._line.fileno(), patient)
        except OSError:
            raise EOFError from None
        status: int = values.read_frame(self._line.fileno())
        return status


def _keep(line: socket.socket, confinement: dict[str, Any]) -> None:
    confine.die_with_parent()
    confine.adopt_orphans()
    confine.drop_capabilities(confinement["keeps_reading"])
    null = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(null, stream)
    os.close(null)
    scratch = confinement["scratch"]
    identity = os.lstat(scratch).st_ino
    # Restrictions are inherited: what the nursery can do without is taken once, not from each program again.
    confine.renounce_privileges()
    confine.limit_files()
    confined = not confinement["landlock"] or confine.restrict_files(confinement["file_rules"])
    if not confined or (confinement["seccomp"] and not confine.filter_calls(confinement["nursery_filter"])):
        return
    while True:
        limits = values.read_frame(line.fileno())
        ours, theirs = socket.socketpair()
        child = os.fork()
        if child == 0:
            try:
                _enter(theirs.fileno(), limits, confinement)
            finally:
                os._exit(0)
        theirs.close()
        socket.send_fds(line, [b"."], [ours.fileno()])
        ours.close()
        patient = values.read_frame(line.fileno())
        status = _bury(child, patient)
        if not _alone() or os.lstat(scratch).st_ino != identity or not _cleared(scratch):
            return
        values.write_frame(line.fileno(), status)


def _enter(channel: int, limits: dict[str, Any], confinement: dict[str, Any]) -> None:
    """Turn this fresh fork into the confined process and serve. Whatever fails, fails closed: the process ends."""
    confine.die_with_parent()
    if channel != 3:
        os.dup2(channel, 3, inheritable=False)
    os.closerange(4, 64)
    os.chdir(confinement["scratch"])
    os.umask(0o077)
    confine.limit(limits["wall_s"], limits["memory_mb"])
    if confinement["seccomp"] and not confine.filter_calls(confinement["program_filter"]):
        os._exit(1)
    program.serve(3)


def _bury(child: int, patient: bool) -> int:
    """A program may also close its socket and live on, so patience ends."""
    deadline = time.monotonic() + (0.2 if patient else 0.0)
    while time.monotonic() < deadline:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return status
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


def _alone() -> bool:
    """End and reap whatever the program left behind; False when something is left that cannot be."""
    for _ in range(200):
        if os.getpid() == 1:
            with contextlib.suppress(ProcessLookupError):
                os.kill(-1, signal.SIGKILL)
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                time.sleep(0.005)
        except ChildProcessError:
            return True
    return False


def _cleared(scratch: str) -> bool:
    """Empty the folder; False when something in it cannot be removed."""
    os.chmod(scratch, 0o700)
    if os.listdir(scratch):
        _empty(scratch)
    if os.listdir(scratch):
        # Folders that the program closed to itself are still its own.
        for folder, names, _ in os.walk(scratch):
            for path in (os.path.join(folder, name) for name in names):
                if not os.path.islink(path):
                    os.chmod(path, 0o700)
        _empty(scratch)
    return not os.listdir(scratch)


def _empty(folder: str) -> None:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                os.unlink(entry.path)
