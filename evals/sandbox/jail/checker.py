"""Runs the trusted checks where no line of a program has ever run.

"passed" is said here and nowhere else, after the last check. The program can only answer calls with
values; it has no descriptor, no address and no frame that reaches this process, and never holds the
text of the checks.
"""

import builtins
import functools
import importlib
import os
import random
import signal
import types
from typing import Any

from . import program, values
from .nursery import Nursery

# Modules of the program's scope that the checks get their own copy of.
_MODULES = frozenset(
    (
        *("bisect", "cmath", "collections", "copy", "decimal", "fractions", "functools", "heapq"),
        *("itertools", "math", "operator", "random", "re", "statistics", "string", "typing"),
    )
)
_PASSED = ("passed", "")
_N_KEPT = 256  # compiled checks: the samples of one problem share theirs


class _DeadlineError(BaseException):
    """The wall clock ran out; no `except Exception` of a check stops it."""


class _EndedError(BaseException):
    """The program's process is gone, or has closed its socket."""


class _NonsenseError(BaseException):
    """What came over the socket is no answer: the program wrote into it."""


class _ForeignError(Exception):
    """An exception of a type that only the program knows."""


def judge(nursery: Nursery, limits: dict[str, Any], source: str, checks: str) -> tuple[str, str]:
    """Run a program and its checks; (status, detail). Raises EOFError when the nursery is gone."""
    signal.signal(signal.SIGALRM, _expire)
    child = nursery.bear(limits)
    outcome = None
    try:
        signal.setitimer(signal.ITIMER_REAL, limits["wall_s"])
        outcome = _run(child, source, checks)
    except _DeadlineError:
        outcome = "time", f"{limits['wall_s']:g} s are over"
    except _EndedError:
        outcome = None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        os.close(child)
        status = nursery.bury(patient=outcome is None)
    return outcome or _fate(status)


def _fate(status: int) -> tuple[str, str]:
    """What a process that ended before its time ended by."""
    if os.WIFEXITED(status):
        return "exited", f"exit code {os.WEXITSTATUS(status)}"
    number = os.WTERMSIG(status)
    verdict = {int(signal.SIGXCPU): "time", int(signal.SIGSYS): "forbidden"}
    # Most real-time signals have no name.
    named = {int(one): one.name for one in signal.Signals}
    return verdict.get(number, "exited"), f"ended by {named.get(number, f'signal {number}')}"


def _expire(*_: object) -> None:
    raise _DeadlineError


def _run(child: int, source: str, checks: str) -> tuple[str, str]:
    try:
        code, wanted = _compiled(checks)
        described = _value_of(_ask(child, [source, wanted]), "names")
        if checks:
            random.seed(0)
            exec(
                code,
                {name: _bind(child, name, described[name]) for name in wanted if name in described},
            )
        # Time that runs out from here on must not take back what has passed.
        signal.setitimer(signal.ITIMER_REAL, 0)
        return _PASSED
    except (_DeadlineError, _EndedError):
        raise
    except _NonsenseError as error:
        return "forbidden", f"wrote into the runner's socket: {error}"[:200]
    except BaseException as error:  # noqa: BLE001  every way a check can end but the last line
        status, kind, text = getattr(error, "failure", None) or program.failure(error)
        return status, f"{kind}: {text}" if text else kind


def _ask(child: int, request: Any) -> dict[str, Any]:
    """One request and its answer. Raises _EndedError when the process ended, _NonsenseError when it
    answers none.
    """
    try:
        values.write_frame(child, request)
        message = values.read_frame(child)
    except (EOFError, OSError):
        raise _EndedError from None
    except values.BadFrameError as error:
        raise _NonsenseError(str(error)) from None
    if not isinstance(message, dict):
        raise _NonsenseError("no answer")
    return message


@functools.lru_cache(_N_KEPT)
def _compiled(checks: str) -> tuple[types.CodeType, list[str]]:
    """The checks' code and the names it takes from the program; built-in names never come from
    there.
    """
    code = compile(checks, "<checks>", "exec", dont_inherit=True)
    return code, sorted(name for name in _names(code) if not hasattr(builtins, name))


def _names(code: types.CodeType) -> set[str]:
    """Every name the code may look up outside its functions, and some more (its attributes)."""
    inner = (
        _names(constant) for constant in code.co_consts if isinstance(constant, types.CodeType)
    )
    return set(code.co_names).union(*inner)


def _bind(child: int, name: str, description: Any) -> Any:
    match description:
        case ["module", str(module)] if module in _MODULES:
            return importlib.import_module(module)
        case ["callable"]:
            return _remote(child, name)
        case ["value", form]:
            return values.decode(form)
    return values.Opaque(name)


def _remote(child: int, name: str) -> Any:
    """A function that calls the program's function of this name."""

    def call(*args: Any, **kwargs: Any) -> Any:
        keywords = {key: values.encode(arg) for key, arg in kwargs.items()}
        answer = _ask(child, [name, [values.encode(arg) for arg in args], keywords])
        result = values.decode(_value_of(answer, "value"))
        left = answer.get("args")
        if isinstance(left, list):
            for arg, form in zip(args, left, strict=True):
                _write_back(arg, form)
        return result

    call.__name__ = call.__qualname__ = name
    return call


def _write_back(arg: Any, form: Any) -> None:
    """Give the caller's own list, dict or set the contents the call left in it."""
    if not isinstance(arg, list | dict | set):
        return
    now = values.decode(form)
    if isinstance(arg, list) and isinstance(now, list):
        arg[:] = now
    elif (isinstance(arg, dict) and isinstance(now, dict)) or (
        isinstance(arg, set) and isinstance(now, set)
    ):
        arg.clear()
        arg.update(now)


def _value_of(answer: dict[str, Any], key: str) -> Any:
    """The answer's value. Raises the exception it carries instead, as the built-in type of that
    name where there is one.
    """
    if "error" in answer:
        match answer["error"]:
            case [str(status), str(kind), str(text)] if status in _FAILED:
                known = getattr(builtins, kind, None)
                is_exception = (
                    isinstance(known, type) and issubclass(known, Exception) and kind not in _PICKY
                )
                error: Any = known(text) if known and is_exception else _ForeignError(text)
                error.failure = [status, kind, text]
                raise error
        raise _NonsenseError("no exception")
    if key not in answer or (key == "names" and not isinstance(answer[key], dict)):
        raise _NonsenseError(f"no {key}")
    return answer[key]


_FAILED = frozenset(
    ("wrong_answer", "exception", "syntax_error", "memory", "forbidden", "exited", "time")
)
# Types that take more than a text, and those that would quietly end a loop of the checks.
_PICKY = frozenset(
    (
        "UnicodeDecodeError",
        "UnicodeEncodeError",
        "UnicodeTranslateError",
        "ExceptionGroup",
        "StopIteration",
        "StopAsyncIteration",
    )
)
