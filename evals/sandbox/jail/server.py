"""The warm interpreter: reads programs, lets the nursery fork a process for each, and says how each
ended.

Speaks frames over its standard streams: once {"ready": …}, then for each [limits, source, checks]
an answer [status, detail].
When the nursery is lost the server ends, and whoever started it starts another.
"""

import gc
import json
import os
import posix
import resource
import stat
import sys
from typing import Any

from . import checker, confine, values
from .nursery import Nursery

# Imported once here so that no program pays for them; each is imported by programs that models
# write.
_WARM = (
    *(
        "array",
        "ast",
        "bisect",
        "cmath",
        "collections.abc",
        "copy",
        "dataclasses",
        "datetime",
        "decimal",
        "enum",
        "fractions",
        "functools",
    ),
    *(
        "heapq",
        "itertools",
        "math",
        "numbers",
        "operator",
        "random",
        "re",
        "statistics",
        "string",
        "textwrap",
        "threading",
        "typing",
    ),
)
_MEMORY = 2 << 30
"""The server's own ceiling: a program's answers must not fill the machine."""


def main() -> None:
    """Run until the standard input closes. The first argument is the configuration, JSON."""
    config = json.loads(sys.argv[1])
    for name in _WARM:
        __import__(name)
    # Taken away for the imports above (launch.py, _BOOT); programs get the real one.
    os.register_at_fork = posix.register_at_fork
    sys.path[:] = [path for path in sys.path if not path.startswith(config["jail"])] + [
        config["libraries"]
    ]
    sys.argv[:] = [""]
    confinement = _settle(config)
    # The fork of a warm interpreter copies every page a collection touches; these objects are never
    # garbage.
    gc.collect()
    gc.freeze()
    # Before the next two: the nursery may keep the capability to read, and a program's memory has a
    # limit of its own.
    nursery = Nursery(confinement)
    confine.drop_capabilities(keep_reading=False)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    values.write_frame(
        1,
        {
            "ready": {
                key: confinement[key] for key in ("landlock", "seccomp", "threads", "namespaces")
            }
        },
    )
    null = os.open(os.devnull, os.O_RDWR)
    # Nobody reads that pipe once the server is ready: full, it would block its writer.
    os.dup2(null, 2)
    try:
        while True:
            limits, source, checks = values.read_frame(0)
            values.write_frame(1, checker.judge(nursery, limits, source, checks))
    except EOFError:
        nursery.close()


def _settle(config: dict[str, Any]) -> dict[str, Any]:
    """Give up what the server does not need and find out what the kernel offers to confine programs
    with.
    """
    is_root = os.geteuid() == 0
    # A python in a closed home folder can be read by nobody only with a capability, and that is
    # safe only beneath file rules.
    closed = not config["wrapped"] and not all(map(_open_to_all, config["readable"]))
    keeps_reading = is_root and closed and confine.landlock_version() > 0
    wanted = (
        confine.NEWPID
        if config["wrapped"]
        else confine.NEWPID | confine.NEWNET | confine.NEWIPC | confine.NEWUTS
    )
    # In a user namespace of its own the reading capability would be worth nothing.
    own_namespaces = is_root and not config["wrapped"] and confine.unshare(wanted)
    if is_root:
        os.chown(config["scratch"], confine.NOBODY, confine.NOBODY)
        confine.become_nobody(keeps_reading)
    if not own_namespaces and not keeps_reading:
        own_namespaces = confine.unshare(confine.NEWUSER | wanted)
    confine.renounce_privileges()
    confine.hide_memory()
    # Without a limit that binds (real user 0 in a user namespace) threads could exhaust the
    # machine's process table.
    threads = not config["limitless"]
    rules, nursery_filter = (
        confine.file_rules(config["readable"], [config["scratch"]]),
        confine.nursery_filter(),
    )
    return {
        "scratch": config["scratch"],
        "keeps_reading": keeps_reading,
        "file_rules": rules,
        "nursery_filter": nursery_filter,
        "program_filter": confine.program_filter(threads),
        "landlock": rules >= 0,
        "seccomp": bool(nursery_filter),
        "threads": threads,
        "namespaces": own_namespaces,
    }


def _open_to_all(path: str) -> bool:
    folders = [path]
    while folders[-1] != "/":
        folders.append(os.path.dirname(folders[-1]))
    return all(
        os.stat(folder).st_mode & stat.S_IXOTH for folder in folders if os.path.isdir(folder)
    )
