"""The trusted process of one program: runs its checks where no line of the program has ever run.

"passed" is said here and nowhere else, after the last check. The program can only answer calls with values; it has no
descriptor, no address and no frame that reaches this process, and never holds the text of the checks.
"""

import builtins
import importlib
import os
import random
import resource
import signal
import time
import types
from typing import Any

from . import confine, program, values

# Modules of the program's scope that the checks get their own copy of.
_MODULES = frozenset(
    (
        *("bisect", "cmath", "collections", "copy", "decimal", "fractions", "functools", "heapq"),
        *("itertools", "math", "operator", "random", "re", "statistics", "string", "typing"),
    )
)
_PASSED = ("passed", "")


class _DeadlineError(BaseException):
    """The wall clock ran out; no `except Exception` of a check stops it."""


class _Ended(BaseException):
    """The program's process is gone or no longer makes sense."""

    def __init__(self, status: str, detail: str) -> None:
        super().__init__(status)
        self.outcome = (status, detail)


class _ForeignError(Exception):
    """An exception of a type that only the program knows."""


def judge(limits: dict[str, Any], confinement: dict[str, Any]) -> tuple[str, str]:
    """Read [source, checks] from descriptor 0, run them, give (status, detail). The process must be fresh and end soon after."""
    requests_out, requests_in = os.pipe()
    answers_out, answers_in = os.pipe()
    if confinement["pid_namespace"]:
        confine.unshare(confine.NEWUSER | confine.NEWPID)
    # The program's process is forked before the checks are read, so that its memory never held them.
    child = os.fork()
    if child == 0:
        try:
            _enter(requests_out, answers_in, limits, confinement)
        finally:
            os._exit(0)
    os.close(requests_out)
    os.close(answers_in)
    source, checks = values.read_frame(0)
    confine.hide_memory()
    try:
        return _run(_Line(requests_in, answers_out, child), source, checks, limits["wall_s"])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        _bury(child)


def _enter(requests: int, replies: int, limits: dict[str, Any], confinement: dict[str, Any]) -> None:
    """Turn this fresh fork into the confined process and serve."""
    confine.die_with_parent()
    confine.renounce_privileges()
    # Whatever fails here fails closed: the process ends and the program is not passed.
    if confinement["landlock"] and not confine.restrict_files(confinement["file_rules"]):
        os._exit(1)
    # Above every descriptor that may be in use, then down to 3 and 4, so that closing the rest is one call.
    high = [os.dup2(requests, 200, inheritable=False), os.dup2(replies, 201, inheritable=False)]
    null = os.open(os.devnull, os.O_RDWR)
    for target, origin in enumerate((null, null, null, *high)):
        os.dup2(origin, target, inheritable=False)
    os.closerange(5, 256)
    os.chdir(confinement["scratch"])
    os.umask(0o077)
    confine.limit(limits["wall_s"], limits["memory_mb"])
    if confinement["seccomp"] and not confine.filter_calls(confinement["call_filter"]):
        os._exit(1)
    program.serve(3, 4)


def _bury(child: int) -> None:
    try:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    except (ProcessLookupError, ChildProcessError):
        pass


class _Line:
    """The pipe to the program's process."""

    def __init__(self, requests: int, answers: int, child: int) -> None:
        self._requests, self._answers, self._child = requests, answers, child

    def send(self, request: Any) -> None:
        """One request. Raises _Ended."""
        try:
            values.write_frame(self._requests, request)
        except OSError:
            raise self._ended() from None

    def answer(self) -> dict[str, Any]:
        """One answer. Raises _Ended when the process ended or does not speak sense."""
        try:
            message = values.read_frame(self._answers)
        except EOFError:
            raise self._ended() from None
        except values.BadFrameError as error:
            raise _Ended("forbidden", f"wrote into the runner's pipe: {error}"[:200]) from None
        if not isinstance(message, dict):
            raise _Ended("forbidden", "wrote into the runner's pipe")
        return message

    def _ended(self) -> _Ended:
        # A program may close the pipe and live on.
        for _ in range(20):
            pid, status = os.waitpid(self._child, os.WNOHANG)
            if pid:
                break
            time.sleep(0.005)
        else:
            return _Ended("exited", "closed the runner's pipe")
        if os.WIFEXITED(status):
            return _Ended("exited", f"exit code {os.WEXITSTATUS(status)}")
        number = os.WTERMSIG(status)
        verdict = {signal.SIGXCPU: "time", signal.SIGSYS: "forbidden"}.get(signal.Signals(number), "exited")
        return _Ended(verdict, f"ended by {signal.Signals(number).name}")


def _expire(*_: object) -> None:
    raise _DeadlineError


def _run(line: _Line, source: str, checks: str, wall_s: float) -> tuple[str, str]:
    signal.signal(signal.SIGALRM, _expire)
    try:
        signal.setitimer(signal.ITIMER_REAL, wall_s)
        line.send(source)
        _value_of(line.answer(), "done")
        if checks:
            _check(line, checks)
        signal.setitimer(signal.ITIMER_REAL, 0)
        return _PASSED
    except _DeadlineError:
        return "time", f"{wall_s:g} s are over"
    except _Ended as error:
        return error.outcome
    except BaseException as error:  # noqa: BLE001  every way a check can end but the last line
        status, kind, text = getattr(error, "failure", None) or program.failure(error)
        return status, f"{kind}: {text}" if text else kind


def _check(line: _Line, checks: str) -> None:
    """Execute the checks; names they do not define come from the program, built-in names never do."""
    random.seed(0)
    limit = resource.getrlimit(resource.RLIMIT_AS)[1]
    ceiling = 2 << 30
    resource.setrlimit(resource.RLIMIT_AS, (ceiling if limit == resource.RLIM_INFINITY else min(limit, ceiling), limit))
    code = compile(checks, "<checks>", "exec", dont_inherit=True)
    scope: dict[str, Any] = {}
    wanted = sorted(name for name in _names(code) if not hasattr(builtins, name))
    line.send(["names", wanted])
    described = _value_of(line.answer(), "names")
    for name in wanted:
        if name in described:
            scope[name] = _bind(line, name, described[name])
    exec(code, scope)


def _names(code: types.CodeType) -> set[str]:
    """Every name the code may look up outside its functions, and some more (attributes)."""
    inner = (_names(constant) for constant in code.co_consts if isinstance(constant, types.CodeType))
    return set(code.co_names).union(*inner)


def _bind(line: _Line, name: str, description: Any) -> Any:
    match description:
        case ["module", str(module)] if module in _MODULES:
            return importlib.import_module(module)
        case ["callable"]:
            return _remote(line, name)
        case ["value", form]:
            return values.decode(form)
    return values.Opaque(name)


def _remote(line: _Line, name: str) -> Any:
    """A function that calls the program's function of this name."""

    def call(*args: Any, **kwargs: Any) -> Any:
        line.send(["call", name, [values.encode(arg) for arg in args], {key: values.encode(arg) for key, arg in kwargs.items()}])
        answer = line.answer()
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
    elif (isinstance(arg, dict) and isinstance(now, dict)) or (isinstance(arg, set) and isinstance(now, set)):
        arg.clear()
        arg.update(now)


def _value_of(answer: dict[str, Any], key: str) -> Any:
    """The answer's value. Raises the exception it carries instead, as the built-in type of that name where there is one."""
    if "error" in answer:
        match answer["error"]:
            case [str(status), str(kind), str(text)] if status in _FAILED:
                known = getattr(builtins, kind, None)
                is_exception = isinstance(known, type) and issubclass(known, Exception)
                error = known(text) if is_exception and kind not in _PICKY else _ForeignError(text)
                error.failure = [status, kind, text]
                raise error
        raise _Ended("forbidden", "wrote into the runner's pipe")
    if key not in answer or (key == "names" and not isinstance(answer[key], dict)):
        raise _Ended("forbidden", "wrote into the runner's pipe")
    return answer[key]


_FAILED = frozenset(("wrong_answer", "exception", "syntax_error", "memory", "forbidden", "exited", "time"))
_PICKY = frozenset(("UnicodeDecodeError", "UnicodeEncodeError", "UnicodeTranslateError", "ExceptionGroup"))
