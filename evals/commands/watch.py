"""`evals watch`: every checkpoint of a training run measured once, as it is finished.

Each is measured by a process of its own, `evals run`: an engine that ends with its process gives
back all of its memory, and a checkpoint that breaks one breaks no other. vLLM 0.32 can load other
weights into a running engine (`reload_weights`), but on its CPU build a model whose head is tied to
its embeddings keeps the old head, and log-probabilities are off by 0.1 without a word.
"""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

from evals.commands import interrupt
from evals.commands.options import choice
from evals.errors import CheckFailed, EnvironmentFault, EvalsError, Incomplete, InputError

STATE, PAGE = "watch.json", "watch.html"
_SET_HERE = ("--step", "--dry-run", "--adapter")
"""Options of a run that are the watch's to set."""


def watch(
    context: typer.Context,
    folder: Annotated[
        Path, typer.Argument(metavar="CKPT_DIR", help="The folder that checkpoints come into.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Holds a run folder a checkpoint (default: results/<name>-<suite>)."
        ),
    ] = None,
    every: Annotated[
        str, typer.Option(metavar="TIME", help="How often to look: 30s, 10m, 2h.")
    ] = "10m",
    once: Annotated[bool, typer.Option("--once", help="Look once, and stop.")] = False,
    newest_first: Annotated[
        bool, typer.Option("--newest-first", help="Of those that wait, the latest step first.")
    ] = False,
    against: Annotated[
        str, typer.Option(metavar="best|before", help="What the gate holds each against.")
    ] = "before",
    policy: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The gate's, as for `evals check`.")
    ] = None,
    log: Annotated[
        str | None,
        typer.Option(metavar="TRACKER", help="wandb, trackio or mlflow: a point a checkpoint."),
    ] = None,
) -> None:
    """Follow a training run: measure each finished checkpoint once.

    Each is gated against the one before or the best; a page has all steps, watch.html in --out.
    All other options are those of `evals run` and go on to it: --suite --limit --tasks --card
    --data --judge --chat-format --dtype --offline and so on. The same command again goes on.
    """
    from evals.generators.waiting import seconds

    asked = _run_options(context.args, folder)
    pause = seconds(every, "--every", least=1)
    if policy is not None:
        from evals.compare.policy import read_policy

        read_policy(policy, card=asked["card"])
    choice("--against", against, ("best", "before"))
    if log is not None:
        from evals.report.trackers import TRACKERS, require

        require(choice("--log", log, TRACKERS), asked["offline"])
    from evals.storage.run_folder import RunFolder, default_folder

    name = folder.resolve().name
    at = out or Path("results") / default_folder(name, asked["suite"])
    watching = _Watch(folder, at, context.args, asked, against, policy, log, name)
    with RunFolder(at).locked():
        while True:
            worst = watching.look(newest_first)
            if once:
                break
            time.sleep(pause)
    if worst is not None:
        raise worst


def _run_options(words: list[str], folder: Path) -> Mapping[str, Any]:
    """What `evals run` makes of the words; its own errors where they are none of its options."""
    from evals.commands.app import app

    if taken := [word for word in words if word.partition("=")[0] in _SET_HERE]:
        raise typer.BadParameter(f"{taken[0]} is set by the watch itself; leave it out.")
    command: Any = typer.main.get_command(app)
    context = command.commands["run"].make_context("evals run", [str(folder), *words])
    params: Mapping[str, Any] = context.params
    return params


@dataclass
class _Watch:
    """A watch. said: the last word on each checkpoint, which is not repeated.  failed: what those
    looked like that could not be measured, which are tried again when they change.
    """

    folder: Path
    out: Path
    words: list[str]
    asked: Mapping[str, Any]
    against: str
    policy: Path | None
    log: str | None
    name: str
    said: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def look(self, newest_first: bool) -> EvalsError | None:
        """Measure what is finished and not done. The worst that happened, None where all is well
        or waits.
        """
        from evals.runs.checkpoints import checkpoints

        worst: list[EvalsError] = []
        found = checkpoints(self.folder)
        if not found:
            self._say(str(self.folder), "no checkpoint in it yet")
        for one in reversed(found) if newest_first else found:
            try:
                seen, why = one.seen(), one.lacks()
            except OSError as error:
                self._say(one.name, f"gone, or not to be read ({error.strerror or error})")
                continue
            done = self._done().get(one.name)
            if done is not None and done["seen"] != seen:
                self._say(
                    one.name,
                    f"written again since it was measured; move {self.out / one.name} away to"
                    " measure it anew",
                )
            elif done is None and why is not None:
                self._say(one.name, f"waits: {why}")
            elif done is None and self.failed.get(one.name) != seen:
                worst += self._measure(one, seen)
        return max(worst, key=lambda error: error.exit_code, default=None)

    def _measure(self, one: Any, seen: str) -> list[EvalsError]:
        """Run, gate, log, draw; what went wrong."""
        from evals.storage.run_folder import RunFolder

        run = self.out / one.name
        done = self._done()
        if any(other["step"] > one.step for other in done.values()):
            self._say(one.name, f"step {one.step} comes after later ones: taken in its place")
        code = _child([str(one.folder), "--out", str(run), *self.words])
        if code:
            if not one.folder.exists():
                self._say(one.name, "deleted while it was read")
                return []
            self._say(one.name, f"not measured (exit {code}, see above)")
            if code == InputError.exit_code:
                self.failed[one.name] = seen
            return [_ERRORS.get(code, EnvironmentFault)(f"{one.name} was not measured.")]
        verdict, exit_code, other = self._gate(run, one.step, done)
        entry = {"step": one.step, "seen": seen, "verdict": verdict, "against": other}
        state = {"asked": self._asked(), "done": {**done, one.name: entry}}
        RunFolder(self.out).write_json(STATE, state)
        self._say(one.name, f"step {one.step}: {verdict}{f' against {other}' if other else ''}")
        if self.log is not None:
            self._to_tracker(run, one.step)
        self._draw()
        return [CheckFailed(f"{one.name}: {verdict} against {other}.")] if exit_code == 1 else []

    def _gate(self, run: Path, step: int, done: Mapping[str, Any]) -> tuple[str, int, str | None]:
        """The verdict, the gate's exit code and the run it was held against; the first has none."""
        from evals.compare.gate import check
        from evals.compare.policy import Policy, read_policy
        from evals.compare.steps import best_run

        earlier = {name: one["step"] for name, one in done.items() if one["step"] < step}
        if not earlier:
            return "the first", 0, None
        other = max(earlier, key=lambda name: earlier[name])
        if self.against == "best":
            other = best_run([self.out / name for name in earlier]).name
        try:
            rules = read_policy(self.policy, self.out / other) if self.policy else Policy()
            gate = check(self.out / other, run, rules, data=self.asked["data"])
        except EvalsError as error:
            return f"not gated ({error})", error.exit_code, other
        return gate.verdict, gate.exit_code, other

    def _to_tracker(self, run: Path, step: int) -> None:
        from evals.report.trackers import log_run
        from evals.runs.writing import RunResult
        from evals.storage.files import visible
        from evals.storage.run_folder import RunFolder

        assert self.log is not None
        result = RunResult(RunFolder(run), RunFolder(run).read_json("summary.json"), 0)
        if why := log_run(self.log, result, step, self.asked["data"], series=self.name):
            print(visible(f"warning: {why}"), file=sys.stderr)

    def _draw(self) -> None:
        from evals.compare.series_page import watch_page
        from evals.storage.run_folder import RunFolder

        done = sorted(self._done().items(), key=lambda item: item[1]["step"])
        rows = [
            (one["step"], self.out / name, one["verdict"], one["against"]) for name, one in done
        ]
        RunFolder(self.out).write_bytes(PAGE, watch_page(self.name, rows).encode("utf-8"))

    def _done(self) -> dict[str, Any]:
        """What is measured: by name, of those whose run folder is still there."""
        import json

        try:
            state = json.loads((self.out / STATE).read_text("utf-8"))
            kept, before = state["done"], state["asked"]
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise InputError(
                f"{self.out / STATE} cannot be read ({error}). Move it away; runs that are"
                " finished are not asked again."
            ) from error
        if before != self._asked():
            raise InputError(f"{self.out} holds a watch with {before}. Choose another --out.")
        return {
            name: one for name, one in kept.items() if (self.out / name / "summary.json").exists()
        }

    def _asked(self) -> dict[str, Any]:
        return {name: self.asked[name] for name in ("suite", "tasks", "limit", "card")}

    def _say(self, name: str, words: str) -> None:
        from evals.storage.files import one_line

        if self.said.get(name) != words:
            self.said[name] = words
            print(one_line(f"{name}: {words}"), flush=True)


_RUN = [sys.executable, "-m", "evals", "run"]
_ERRORS: Mapping[int, Callable[[str], EvalsError]] = {2: InputError, 3: Incomplete}


def _child(words: list[str]) -> int:
    """`evals run` in a process of its own; its exit code. Stopped, it is waited for: it keeps what
    was answered.
    """
    started: list[subprocess.Popen[bytes]] = []

    def stop(number: int, _: FrameType | None) -> None:
        for child in started:
            child.send_signal(number)
        raise KeyboardInterrupt

    # Ctrl-C comes to both processes; a scheduler's SIGTERM to this one alone, which hands it on.
    before = signal.signal(signal.SIGTERM, stop)
    try:
        # Its row is in the page; its progress, and what it says, stay on the terminal.
        started.append(subprocess.Popen([*_RUN, *words], stdout=subprocess.DEVNULL))
        code = started[0].wait()
    finally:
        for child in started:
            child.wait()
        signal.signal(signal.SIGTERM, before)
    if code in (interrupt.EXIT_CODE, -signal.SIGINT, -signal.SIGTERM):
        raise KeyboardInterrupt
    # Killed otherwise, by whoever needed its memory: the machine's affair.
    return EnvironmentFault.exit_code if code < 0 else code
