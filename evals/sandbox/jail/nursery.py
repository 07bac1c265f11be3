"""Forks a confined process for each program, one at a time, and buries it.

The nursery is the first process of a pid namespace where the kernel allows one: nothing in it can
then outlive a burial, and nothing in it can signal the nursery or see the server.
"""

import contextlib
import os
import signal
import socket
import struct
import time

# Bound here, before `program.prepare` takes them out of os.
from os import chdir, chmod, fork, kill, rmdir, unlink
from typing import Any

from . import confine, program

_LIMITS, _STATUS = struct.Struct("=dq"), struct.Struct("=i")


class Nursery:
    """The server's end. Every method raises EOFError when the nursery is gone."""

    def __init__(self, confinement: dict[str, Any]) -> None:
        """Fork the nursery; call before any program is read. confinement: how programs are confined
        (server.py).
        """
        self._line, theirs = socket.socketpair()
        self._pid = fork()
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
            os.write(self._line.fileno(), _LIMITS.pack(limits["wall_s"], limits["memory_mb"]))
            _, descriptors, _, _ = socket.recv_fds(self._line, 1, 1)
        except OSError:
            raise EOFError from None
        if not descriptors:
            raise EOFError
        return descriptors[0]

    def bury(self, patient: bool) -> int:
        """End the process and all it left; its wait status. patient: it seems to be ending by
        itself, see how.
        """
        try:
            os.write(self._line.fileno(), bytes([patient]))
            (status,) = _STATUS.unpack(os.read(self._line.fileno(), _STATUS.size))
        except (OSError, struct.error):
            raise EOFError from None
        return int(status)


def _keep(line: socket.socket, confinement: dict[str, Any]) -> None:
    confine.die_with_parent()
    confine.adopt_orphans()
    confine.drop_capabilities(confinement["keeps_reading"])
    # Programs inherit the streams: into the server's own they could write answers.
    null = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(null, stream)
    os.close(null)
    scratch = confinement["scratch"]
    identity = os.lstat(scratch).st_ino
    # Restrictions are inherited: what the nursery can do without is taken once, not from each
    # program again.
    confine.renounce_privileges()
    confine.limit_files()
    confined = not confinement["landlock"] or confine.restrict_files(confinement["file_rules"])
    if not confined or (
        confinement["seccomp"] and not confine.Filter(confinement["nursery_filter"]).apply()
    ):
        return
    chdir(scratch)
    os.umask(0o077)
    ready = confine.Filter(confinement["program_filter"]) if confinement["seccomp"] else None
    program.prepare()
    while limits := os.read(line.fileno(), _LIMITS.size):
        ours, theirs = socket.socketpair()
        child = fork()
        if child == 0:
            try:
                _enter(theirs.fileno(), ready)
            finally:
                os._exit(0)
        theirs.close()
        confine.limit(child, *_LIMITS.unpack(limits))
        # Only now can the program's text arrive: whoever sends it waits for this descriptor.
        socket.send_fds(line, [b"."], [ours.fileno()])
        ours.close()
        patient = os.read(line.fileno(), 1)
        status = _bury(child, patient == b"\1")
        # What is emptied is the folder this process stands in; the path must still lead there.
        if not _alone() or os.lstat(scratch).st_ino != identity or not _cleared(scratch):
            return
        os.write(line.fileno(), _STATUS.pack(status))


def _enter(channel: int, ready: confine.Filter | None) -> None:
    """Turn this fresh fork into the confined process and serve. Whatever fails, fails closed: the
    process ends.
    """
    if os.getppid() != 1:  # the first process of a namespace takes everything with it anyway
        confine.die_with_parent()
    if channel != 3:
        os.dup2(channel, 3, inheritable=False)
    os.closerange(4, 64)  # limit_files allows no higher ones
    if ready is not None and not ready.apply():
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
    kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


def _alone() -> bool:
    """End and reap whatever the program left behind;
    False when something is left that cannot be.
    """
    for _ in range(200):
        # As a namespace's first process, -1 is everything in the namespace; elsewhere it would be
        # every process of this user.
        if os.getpid() == 1:
            with contextlib.suppress(ProcessLookupError):
                kill(-1, signal.SIGKILL)
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                time.sleep(0.005)
        except ChildProcessError:
            return True
    return False


def _cleared(scratch: str) -> bool:
    """Empty this folder, the scratch; False when something in it cannot be removed."""
    above: list[list[str]] = []
    try:
        # Folders that the program closed to itself are still its own.
        chmod(scratch, 0o700)
        folders = _without_files()
        while folders or above:
            if folders:
                # Step by step, since a program may nest folders deeper than any path or recursion
                # goes.
                chmod(folders[-1], 0o700)
                chdir(folders[-1])
                above.append(folders)
                folders = _without_files()
            else:
                chdir("..")
                folders = above.pop()
                rmdir(folders.pop())
    except OSError:
        return False
    return True


def _without_files() -> list[str]:
    """Remove this folder's files; the names of its folders."""
    folders = []
    with os.scandir(".") as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.name)
            else:
                unlink(entry.name)
    return folders
