"""Checkpoints as people have them, each put through the smoke suite on the real engine: right
numbers, or one sentence before any weight is loaded.

    scripts/checkpoints FOLDER [--reference MODEL] [--work DIR] [-- OPTIONS]

FOLDER holds a folder a checkpoint, all of them the reference (default: the embedded model) with one
thing changed. OPTIONS go to `evals run`, after `--suite smoke --offline` (default: `--dtype
float32 --judge xstest=strmatch`). Prints a table: what became of each, the cells that are not the
reference's, and the marks that are not. Ends with 1 where one is neither right nor refused in time.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
DEFAULTS = ("--dtype", "float32", "--judge", "xstest=strmatch")
_LOADS = "load "
"""How the line begins that a run writes when it starts an engine."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run's end. said: its last words, where it was refused.  has_loaded: an engine was
    started.  cells: key -> the value printed, and the marks beside it.
    """

    status: int
    said: str
    has_loaded: bool
    cells: dict[str, tuple[float | None, tuple[str, ...]]] = field(default_factory=dict)

    @property
    def is_in_order(self) -> bool:
        """A row, or a refusal of one sentence before the engine was started."""
        return self.status == 0 or (
            self.status == 2 and not self.has_loaded and "\n" not in self.said
        )


def outcome(model: str, out: Path, options: Sequence[str]) -> Outcome:
    """Run the smoke suite of a model."""
    command = [sys.executable, "-m", "evals", "run", model, "--suite", "smoke", "--offline"]
    done = subprocess.run(
        [*command, *options, "--out", str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    lines = done.stderr.strip().splitlines()
    has_loaded = any(line.startswith(_LOADS) for line in lines)
    said = "\n".join(lines).rpartition("evals: ")[2] if done.returncode else ""
    cells = _cells(json.loads((out / "summary.json").read_text())) if not done.returncode else {}
    return Outcome(done.returncode, said, has_loaded, cells)


def _cells(summary: dict[str, Any]) -> dict[str, tuple[float | None, tuple[str, ...]]]:
    return {key: (one["value"], tuple(one["marks"])) for key, one in summary["cells"].items()}


def row(name: str, found: Outcome, reference: Outcome) -> str:
    """A line of the table."""
    if found.status:
        when = "after load" if found.has_loaded else "before load"
        return f"| {name} | refused {when} ({found.status}) | {found.said or 'without a word'} | |"
    others = {key: one for key, one in found.cells.items() if one != reference.cells.get(key)}
    numbers = [
        f"{key} {_percent(value)} for {_percent(reference.cells[key][0])}"
        for key, (value, _) in others.items()
        if value != reference.cells[key][0]
    ]
    known = {mark for _, marks in reference.cells.values() for mark in marks}
    marks = {mark for _, own in others.values() for mark in own} - known
    what = "the reference's numbers" if not numbers else "other numbers"
    return f"| {name} | {what} | {'; '.join(numbers)} | {'; '.join(sorted(marks))} |"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--reference", default="smollm2")
    parser.add_argument("--work", type=Path, help="keep the runs here")
    argv = sys.argv[1:]
    n_own = argv.index("--") if "--" in argv else len(argv)
    asked, options = parser.parse_args(argv[:n_own]), argv[n_own + 1 :] or DEFAULTS
    with tempfile.TemporaryDirectory() as temporary:
        work: Path = asked.work or Path(temporary)
        reference = outcome(asked.reference, work / "reference", options)
        if reference.status:
            print(f"{asked.reference}: {reference.said}", file=sys.stderr)
            return reference.status
        print(
            "| Checkpoint | What happened | In words, or cells | Marks |\n| --- | --- | --- | --- |"
        )
        is_in_order = True
        for folder in sorted(path for path in asked.folder.iterdir() if path.is_dir()):
            found = outcome(str(folder), work / folder.name, options)
            print(row(folder.name, found, reference), flush=True)
            is_in_order &= found.is_in_order
    return 0 if is_in_order else 1


if __name__ == "__main__":
    sys.exit(main())
