"""How a sandbox server is started: the ways from the strongest to the weakest, and their command
lines.
"""

import json
import os
import shutil
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

LIBRARIES = ("numpy", "numpy.libs", "scipy", "scipy.libs", "sympy", "mpmath")
"""Packages a program may import where they are installed, as it could in the published set-up."""

Level = Literal["namespace", "process"]
_JAIL = Path(__file__).resolve().parent / "jail"
_NOBODY = 65534
_SYSTEM_PATHS = (
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/lib",
    "/lib64",
    "/etc/ld.so.cache",
    "/usr/share/zoneinfo",
)
# Isolated mode (-I) would also drop the hash seed; with an environment of our own -P and -s amount
# to it. -S: nothing that is installed can be imported but the libraries.
_FLAGS = ("-P", "-s", "-S", "-B")
# Modules would have each fork set up anew what has no use there (threads, random state): they find
# no place to say so.
_BOOT = (
    "import os, sys; os.register_at_fork = lambda **_: None; sys.path.insert(0, sys.argv.pop());"
    " from jail import server; server.main()"
)


@dataclass(frozen=True, slots=True)
class Way:
    """One way to start a server. wrap: bubblewrap, and whether it maps root (True) or the server
    gives root up (False).
    """

    level: Level
    wrap: str | None = None
    map_root: bool = False


ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "HOME": "/nonexistent",
    # The same sets iterate in the same order in every run: a program's verdict must not depend on
    # the draw.
    "PYTHONHASHSEED": "0",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


def ways(wanted: Level | None) -> list[Way]:
    """Ways to start a server, strongest first."""
    wrap = shutil.which("bwrap") if wanted != "process" else None
    found = []
    if wrap and os.geteuid() == 0:
        # With root's real user id the kernel applies no process limit, so giving root up comes
        # before mapping it.
        found = [Way("namespace", wrap), Way("namespace", wrap, map_root=True)]
    elif wrap:
        found = [Way("namespace", wrap)]
    return found if wanted == "namespace" else [*found, Way("process")]


def why_no_wrap(wanted: Level | None, problems: Sequence[str]) -> str:
    """Why a server is not inside bubblewrap. problems: what was tried and failed."""
    if wanted == "process":
        return "asked for"
    return "; ".join(problems) or "bubblewrap (bwrap) is not installed"


def _libraries() -> dict[str, str]:
    """Folder of each library that is installed, links resolved."""
    site = Path(sysconfig.get_path("platlib"))
    return {name: str((site / name).resolve()) for name in LIBRARIES if (site / name).is_dir()}


def command_line(way: Way, room: Path) -> list[str]:
    """What starts a server this way. room: a folder of its own."""
    # A virtual environment's python is a link, and what is bound is the folder it points into.
    python = os.path.realpath(sys.executable)
    prefix = os.path.realpath(sys.base_prefix)
    found = _libraries()
    config: dict[str, object] = {"wrapped": way.wrap is not None, "limitless": way.map_root}
    system = [path for path in _SYSTEM_PATHS if os.path.exists(path)]
    if way.wrap is None:
        libraries, scratch, jail = room / "libraries", room / "scratch", _JAIL.parent
        libraries.mkdir()
        scratch.mkdir()
        for name, folder in found.items():
            (libraries / name).symlink_to(folder)
        readable = [prefix, *system, str(libraries), *found.values()]
        wrapped = []
    else:
        libraries, scratch, jail = (
            Path("/run/libraries"),
            Path("/tmp/scratch"),
            Path("/run/sandbox"),
        )
        readable = [prefix, *system, str(libraries)]
        wrapped = _bubblewrap(way, prefix, system, found)
    config |= {
        "libraries": str(libraries),
        "scratch": str(scratch),
        "jail": str(jail),
        "readable": readable,
    }
    return [*wrapped, python, *_FLAGS, "-c", _BOOT, json.dumps(config), str(jail)]


def _bubblewrap(
    way: Way, prefix: str, system: Sequence[str], libraries: dict[str, str]
) -> list[str]:
    """The bubblewrap command line: the interpreter, its libraries, this package's jail, an empty
    scratch; nothing else.
    """
    assert way.wrap
    command = [
        way.wrap,
        "--unshare-pid",
        "--unshare-ipc",
        "--unshare-uts",
        "--unshare-net",
        "--unshare-cgroup-try",
    ]
    command += ["--hostname", "sandbox", "--cap-drop", "ALL"]
    if os.geteuid() == 0 and not way.map_root:
        # The server uses these to become nobody, and each program then gets a user namespace of its
        # own.
        command += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID", "--cap-add", "CAP_CHOWN"]
    else:
        command += ["--unshare-user", "--uid", str(_NOBODY), "--gid", str(_NOBODY)]
    bound = [*system, prefix, "/run/sandbox/jail", "/run/libraries/any"]
    # Parents that bubblewrap makes by itself are closed to everyone but root.
    parents = {str(parent) for path in bound for parent in Path(path).parents} - {"/", *system}
    for parent in sorted(parents, key=len):
        command += ["--dir", parent]
    for path in system:
        command += (
            ["--symlink", os.readlink(path), path]
            # Where /usr is merged, /lib and /lib64 are links into it.
            if os.path.islink(path)
            else ["--ro-bind", path, path]
        )
    command += ["--ro-bind", prefix, prefix, "--ro-bind", str(_JAIL), "/run/sandbox/jail"]
    for name, folder in libraries.items():
        command += ["--ro-bind", folder, f"/run/libraries/{name}"]
    # A tmpfs is memory: what programs write must not fill the machine.
    command += ["--proc", "/proc", "--dev", "/dev", "--size", str(64 << 20), "--tmpfs", "/tmp"]
    # bubblewrap goes through these in order: the root is closed once everything is in it; /tmp, a
    # mount of its own, stays writable.
    return [*command, "--dir", "/tmp/scratch", "--remount-ro", "/", "--chdir", "/", "--"]
