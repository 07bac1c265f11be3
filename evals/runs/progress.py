"""Progress on stderr: a bar on a terminal, a line now and then elsewhere; tokens per second and
about how long it will take.
"""

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from evals.generators import Text
from evals.generators.waiting import said_of
from evals.runs.ahead import Ahead
from evals.storage.files import visible


class Progress:
    """Reports long work by phase and keeps each phase's wall time and token counts for run.json.

    clock: seconds, monotonic.  quiet: report nothing, keep the figures.
    hears: whether a note goes anywhere.
    """

    def __init__(
        self,
        *,
        quiet: bool = False,
        clock: Callable[[], float] = time.monotonic,
        every_s: float = 30.0,
    ) -> None:
        self.phases: dict[str, dict[str, float]] = {}
        self._quiet = quiet
        self.hears = not quiet
        self._clock = clock
        self._every_s = every_s
        self._bar: Any = None
        self._bar_task: Any = None
        self._phase = ""
        self._total = 0
        self._done = 0
        self.ahead: Ahead | None = None
        self._before: dict[str, float] = {}
        self._started = self._said = 0.0

    def start(self, phase: str, total: int = 0, ahead: Ahead | None = None) -> None:
        """Begin a phase of `total` steps. ahead: what they cost, which whoever counts them tells
        it; None: all the same.
        """
        self.stop()
        self._phase, self._total, self._done, self.ahead = phase, total, 0, ahead
        self._started = self._said = self._clock()
        # A phase may begin again (generate does, once the engine is there): its rate is this
        # time's.
        self._before = dict(self.phases.setdefault(phase, {"wall_s": 0.0}))
        if self._quiet or not total:
            return
        if sys.stderr.isatty():
            self._bar = _bar()
            self._bar.start()
            self._bar_task = self._bar.add_task(phase, total=1.0, rate="", count="")
        else:
            self.note(f"{phase}: {total:,} to do")

    def advance(self, n: int = 1, **counts: float) -> None:
        """`n` steps are done; counts (prompt_tokens, output_tokens, …) are added to the phase's."""
        self._done += n
        figures = self.phases[self._phase]
        for name, value in counts.items():
            figures[name] = figures.get(name, 0) + value
        self._show(self._clock())

    def moved(self, texts: Mapping[Text, int]) -> None:
        """So many there are of texts of answers that are not finished."""
        now = self._clock()
        if self.ahead is not None:
            self.ahead.moved(texts, now - self._started)
        self._show(now)

    def _show(self, now: float) -> None:
        if self._bar is not None:
            self._bar.update(
                self._bar_task,
                completed=self._share(now),
                rate=f"{self._rate(now)}{self._left(now)}",
                count=f"{self._done:,}/{self._total:,}",
            )
        elif not self._quiet and now - self._said >= self._every_s:
            self._said = now
            self.note(
                f"{self._phase}: {self._done:,} of {self._total:,},"
                f" {self._rate(now)}{self._left(now)}"
            )

    def spare(self, n: int) -> None:
        """`n` of the phase's steps need not be done."""
        self._total -= n

    def credit(self, phase: str, **counts: float) -> None:
        """What another phase than the one under way did beside it: requests, wall_s, tokens."""
        figures = self.phases.setdefault(phase, {"wall_s": 0.0})
        for name, value in counts.items():
            figures[name] = figures.get(name, 0) + value

    def stop(self) -> None:
        """End the phase under way."""
        if not self._phase:
            return
        figures = self.phases[self._phase]
        figures["wall_s"] += self._clock() - self._started
        figures["requests"] = figures.get("requests", 0) + self._done
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        elif self._done >= self._total > 0:
            self.note(
                f"{self._phase}: {self._done:,} of {self._total:,} in"
                f" {said_of(self._clock() - self._started)}"
            )
        self._phase = ""

    def note(self, text: str) -> None:
        """One line on stderr."""
        if not self._quiet:
            text = visible(text)
            (
                self._bar.console.print(text, highlight=False, markup=False)
                if self._bar is not None
                else print(text, file=sys.stderr, flush=True)
            )

    def _rate(self, now: float) -> str:
        figures = self.phases[self._phase]
        elapsed = max(now - self._started, 1e-9)
        prompt, output = (
            (figures.get(name, 0) - self._before.get(name, 0)) / elapsed
            for name in ("prompt_tokens", "output_tokens")
        )
        output += (self.ahead.n_moved if self.ahead else 0) / elapsed
        return (
            f"{prompt:,.0f} tok/s in, {output:,.0f} tok/s out"
            if prompt or output
            else f"{self._done / elapsed:,.1f}/s"
        )

    def _left(self, now: float) -> str:
        """What is left at the speed so far; nothing while too little is known."""
        share = self._share(now)
        if not 0.1 <= share < 1:
            return ""
        return f", about {said_of((now - self._started) * (1 - share) / share)} left"

    def _share(self, now: float) -> float:
        """Of the phase's time, what is over."""
        if self.ahead is not None:
            return self.ahead.share(now - self._started)
        return self._done / max(self._total, 1)


class Reports(Progress):
    """Reports to a program: on_progress(phase, done, total) after every answer, on_note(line) for
    what a terminal would be told. What either raises ends the run in order.
    """

    def __init__(
        self,
        on_progress: Callable[[str, int, int], object] | None,
        on_note: Callable[[str], object] | None,
    ) -> None:
        super().__init__(quiet=True)
        self._on_progress, self._on_note = on_progress, on_note
        self.hears = on_note is not None

    def advance(self, n: int = 1, **counts: float) -> None:
        """As above, and said."""
        super().advance(n, **counts)
        if self._on_progress is not None:
            self._on_progress(self._phase, self._done, self._total)

    def note(self, text: str) -> None:
        """One line for the program."""
        if self._on_note is not None:
            self._on_note(text)


@contextlib.contextmanager
def heard(progress: Progress) -> Iterator[None]:
    """Note meanwhile what engines and servers say of themselves (their modules' loggers), above the
    bar; what is quiet leaves it to whoever set up logging.
    """
    if not progress.hears:
        yield
        return
    logger, handler = logging.getLogger("evals"), _Noting(progress)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


class _Noting(logging.Handler):
    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self._progress = progress

    def emit(self, record: logging.LogRecord) -> None:
        """One line."""
        self._progress.note(record.getMessage())


def _bar() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as RichProgress

    return RichProgress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[count]}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[rate]}"),
        console=Console(stderr=True),
    )
