"""Every error a user can meet, and the exit code it carries.

EvalsError                2   the base; a message says what happened, where, and what to do
├── InputError            2   wrong usage, unknown name, missing or damaged data or model
│   └── TaskFault         2   a task of another's cannot be asked; beside others: 3, its cells -
├── CheckFailed           1   a comparison that was asked for came out against the candidate
├── Incomplete            3   the run is not finished; the same command goes on
└── EnvironmentFault      4   disk full, folder not writable or locked, the engine died
"""

import difflib
import errno
import os
from collections.abc import Iterable, Sequence


class EvalsError(Exception):
    """An error that is shown to the user as one sentence, without a traceback."""

    exit_code = 2


class InputError(EvalsError):
    """The command cannot be carried out as it was given."""


class TaskFault(InputError):
    """A task of another's cannot be asked; a run goes on with its other tasks.

    lacks: the Python calls that bring its data, where these are what is missing.
    """

    def __init__(self, said: str, lacks: Sequence[str] = ()) -> None:
        super().__init__(said)
        self.lacks = tuple(lacks)


class CheckFailed(EvalsError):
    """A check the user asked for failed."""

    exit_code = 1


class Incomplete(EvalsError):
    """The run stopped before every item was scored; nothing is lost."""

    exit_code = 3


class EnvironmentFault(EvalsError):
    """The machine cannot do what was asked: disk, permissions, lock, engine."""

    exit_code = 4


_MOST_NAMES = 30
"""That a sentence lists: a run has thousands of items."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint naming the known names closest to `name`, or, when none is close, what there is: all
    names, the first of many.
    """
    names = list(dict.fromkeys(known))
    # Whatever its case: MMLU means mmlu.
    folded = {one.casefold(): one for one in names}
    found = difflib.get_close_matches(name.casefold(), folded, n=3, cutoff=0.5)
    close = [folded[one] for one in found]
    if close:
        return "Did you mean " + " or ".join(close) + "?"
    if not names:
        return "There is none."
    more = len(names) - _MOST_NAMES
    return f"Known: {', '.join(names[:_MOST_NAMES])}{f' and {more:,} more' if more > 0 else ''}."


def first_line(error: BaseException) -> str:
    """An exception in one line: its type and the first line of its message."""
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"


def no_files_left() -> EnvironmentFault | None:
    """What to say where this process has as many files open as it may, of which SQLite tells in the
    words of a missing file; None where it may open more.
    """
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        if error.errno == errno.EMFILE:
            return EnvironmentFault(
                "This process has as many files open as it may. Raise the limit (ulimit -n); the"
                " same command then goes on."
            )
    return None
