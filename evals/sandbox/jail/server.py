"""The warm interpreter: forks a checker (and through it a confined process) for each program, and buries both.

Speaks frames over its standard streams: once {"ready": …}, then for each program it reads the limits, the checker reads the
program itself from the same stream, and the answer is [status, detail]. When a checker dies without an answer the stream's
position is unknown: the server ends, and whoever started it starts another.
"""

import gc
import json
import os
import select
import shutil
import signal
import stat
import sys
import time
from typing import Any

from . import checker, confine, values

# Imported once here so that no program pays for them; each is imported by programs that models write.
_WARM = (
    *("array", "ast", "bisect", "cmath", "collections.abc", "copy", "dataclasses", "datetime", "decimal", "enum", "fractions", "functools"),
    *("heapq", "itertools", "math", "numbers", "operator", "random", "re", "statistics", "string", "textwrap", "threading", "typing"),
)
_GRACE_S = 2.0
_LOST = 3


def main() -> None:
    """Run until the standard input closes. The first argument is the configuration, JSON."""
    config = json.loads(sys.argv[1])
    for name in _WARM:
        __import__(name)
    sys.path[:] = [path for path in sys.path if not path.startswith(config["jail"])] + [config["libraries"]]
    sys.argv[:] = [""]
    confinement = _settle(config)
    # The fork of a warm interpreter copies every page a collection touches; these objects are never garbage.
    gc.collect()
    gc.freeze()
    values.write_frame(1, {"ready": {key: confinement[key] for key in ("landlock", "seccomp", "threads", "pid_namespace", "unshared")}})
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 2)
    while True:
        try:
            limits = values.read_frame(0)
        except EOFError:
            return
        values.write_frame(1, _supervise(limits, confinement))


def _settle(config: dict[str, Any]) -> dict[str, Any]:
    """Give up what the server does not need and find out what the kernel offers to confine programs with."""
    is_root = os.geteuid() == 0
    unshared = False
    if not config["namespaces"]:
        flags = confine.NEWNET | confine.NEWIPC | confine.NEWUTS | confine.NEWPID | (0 if is_root else confine.NEWUSER)
        unshared = confine.unshare(flags)
        if unshared:
            _become_first_process()
    landlock = confine.landlock_version() > 0
    # A python in a closed home folder can be read by nobody only with a capability, and that is safe only beneath file rules.
    closed = not config["namespaces"] and not all(map(_open_to_all, config["readable"]))
    keep_reading = is_root and closed and landlock
    if is_root:
        os.chown(config["scratch"], confine.NOBODY, confine.NOBODY)
        confine.become_nobody(keep_reading)
    confine.renounce_privileges()
    confine.adopt_orphans()
    confine.hide_memory()
    # Without a limit that binds (real user 0 in a user namespace) threads could exhaust the machine's process table.
    threads = not config["limitless"]
    rules, call_filter = confine.file_rules(config["readable"], [config["scratch"]]), confine.call_filter(threads)
    return {
        "scratch": os.path.join(config["scratch"], "program"),
        "file_rules": rules,
        "call_filter": call_filter,
        "landlock": _works(lambda: confine.restrict_files(rules)),
        "seccomp": _works(lambda: confine.filter_calls(call_filter)),
        "threads": threads,
        "pid_namespace": not keep_reading and _works(lambda: confine.unshare(confine.NEWUSER | confine.NEWPID) and _can_fork()),
        "unshared": unshared,
    }


def _become_first_process() -> None:
    """Fork into the new pid namespace; the outer process only waits."""
    child = os.fork()
    if child:
        os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) & 0xFF)
    confine.die_with_parent()


def _open_to_all(path: str) -> bool:
    folders = [path]
    while folders[-1] != "/":
        folders.append(os.path.dirname(folders[-1]))
    return all(os.stat(folder).st_mode & stat.S_IXOTH for folder in folders if os.path.isdir(folder))


def _can_fork() -> bool:
    child = os.fork()
    if child == 0:
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0


def _works(attempt: Any) -> bool:
    """Try a measure in a process of its own."""
    child = os.fork()
    if child == 0:
        try:
            confine.renounce_privileges()
            os._exit(0 if attempt() else 1)
        finally:
            os._exit(1)
    return os.waitpid(child, 0)[1] == 0


def _supervise(limits: dict[str, Any], confinement: dict[str, Any]) -> list[str]:
    os.mkdir(confinement["scratch"], 0o700)
    verdict_out, verdict_in = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setsid()
            confine.die_with_parent()
            values.write_frame(verdict_in, checker.judge(limits, confinement))
        finally:
            os._exit(0)
    os.close(verdict_in)
    outcome: list[str] | None = None
    if select.select([verdict_out], [], [], limits["wall_s"] + _GRACE_S)[0]:
        try:
            outcome = values.read_frame(verdict_out)
        except (EOFError, values.BadFrameError):
            outcome = None
    os.close(verdict_out)
    if outcome is None:
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    if outcome is None or not _bury_orphans() or not _cleared(confinement["scratch"]):
        if outcome is not None:
            values.write_frame(1, outcome)
        os._exit(_LOST)
    return outcome


def _bury_orphans() -> bool:
    """Reap what is left of the program; False when something is left that does not end."""
    for _ in range(200):
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                time.sleep(0.005)
        except ChildProcessError:
            return True
    return False


def _cleared(scratch: str) -> bool:
    shutil.rmtree(scratch, ignore_errors=True)
    if os.path.lexists(scratch):
        # A folder the program closed to itself is still its own.
        for folder, names, _ in os.walk(scratch):
            for name in (".", *names):
                path = os.path.join(folder, name)
                if not os.path.islink(path):
                    os.chmod(path, 0o700)
        shutil.rmtree(scratch, ignore_errors=True)
    return not os.path.lexists(scratch)
