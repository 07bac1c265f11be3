"""`evals replay` run as a user runs it, and what it left."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple


class Whole(NamedTuple):
    """What the command did with some corpora: exit code, lines printed, figures in its
    JSON file.
    """

    code: int
    lines: list[str]
    figures: list[dict[str, Any]]

    def of(self, benchmark: str) -> list[dict[str, Any]]:
        """The figures of one corpus."""
        return [figure for figure in self.figures if figure["benchmark"] == benchmark]


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    """`evals replay` in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "evals", "replay", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


def replayed(folder: Path, benchmarks: Sequence[str], replay_dir: Path, data_dir: Path) -> Whole:
    """These corpora replayed in one command; folder: an empty one to work in."""
    for name in benchmarks:
        (folder / name).symlink_to(replay_dir / name)
    done = command(folder, "--data", data_dir, "--json", folder / "figures.json")
    assert done.stderr == ""
    return Whole(
        done.returncode,
        done.stdout.splitlines(),
        json.loads((folder / "figures.json").read_text("utf-8"))["figures"],
    )
