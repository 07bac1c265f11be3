"""`evals replay`: recorded outputs of real models through the same adapters as a live run, against
the figures published for them.
"""

import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from evals.benchmark import Benchmark
from evals.data.files import UNREADABLE
from evals.data.load import load_card_data
from evals.errors import InputError
from evals.fidelity.corpora import Figure, Recording, Released, Scored, Value, recordings, said
from evals.models.fingerprint import file_sha256
from evals.records import Finding, Item, ItemId, Program
from evals.registry import benchmark_class
from evals.runs.grading import grade_task
from evals.runs.programs import Programs
from evals.runs.progress import Progress
from evals.storage.run_folder import RunFolder
from evals.storage.store import Store

State = Literal["agrees", "explained", "differs", "-"]


@dataclass(frozen=True, slots=True)
class Line:
    """One figure, ours against published. ours, published, card: in the published unit; difference:
    ours - published.

    state: `agrees` at the printed precision; `explained`, when the items that the corpus names as
    unsettled account for the difference; `differs`; `-`, when it cannot be had here, for the reason
    in `why`.  rule: the corpus's own rule, where it is not the card's; `card` is then the card
    rule's figure.  source: who published it.
    """

    benchmark: str
    recording: str
    figure: str
    ours: float | None
    published: float
    difference: float | None
    decimals: int
    n: int
    state: State
    rule: str
    card: float | None
    why: str
    source: str


def replay(folder: Path, data: Path | None, progress: Progress | None = None) -> Iterator[Line]:
    """Score one corpus folder, or every corpus folder in `folder`, and compare. Programs run in the
    sandbox.

    Raises InputError when no corpus is there, or a file is not the one its README.json describes.
    """
    corpora = [folder] if os.path.isfile(folder / "README.json") else []
    if not corpora and os.path.isdir(folder):
        corpora = sorted(path.parent for path in folder.glob("*/README.json"))
    if not corpora:
        raise InputError(
            f"{folder} holds no recorded corpus: neither it nor a folder in it has a README.json"
            " that says what was published."
        )
    for corpus in corpora:
        yield from _replay_corpus(corpus, data, progress or Progress(quiet=True))


def _replay_corpus(folder: Path, data: Path | None, progress: Progress) -> Iterator[Line]:
    about = _about(folder)
    name = folder.resolve().name
    benchmarks = {chat: benchmark_class(name)(chat=chat) for chat in (True, False)}
    source = load_card_data([benchmarks[True].dataset], data)[name]
    all_items: Sequence[Item] = ()
    for benchmark in benchmarks.values():  # both: some keep of the data what their summary needs
        all_items = list(benchmark.items(source))
    try:
        for recording in recordings(name, folder, about, all_items):
            scored = replace(
                _score(benchmarks[recording.chat], all_items, recording, progress), data=data
            )
            for figure in recording.figures:
                yield _line(name, recording, figure, scored)
    except UNREADABLE as error:
        raise InputError(
            f"{folder} is not the corpus its README.json describes ({said(error)}). Get its files"
            " again."
        ) from error


def _about(folder: Path) -> dict[str, Any]:
    """The README.json, after every file it lists was found to be the one it describes."""
    path = folder / "README.json"
    try:
        about: dict[str, Any] = json.loads(
            path.read_text("utf-8"), object_hook=lambda found: Released(found, "README.json")
        )
        if not isinstance(about, dict):
            raise ValueError("it is not an object")
        files = [(str(entry["path"]), str(entry["sha256"])) for entry in about.get("files", ())]
    except UNREADABLE as error:
        raise InputError(f"{path} cannot be read ({said(error)}). Get the corpus again.") from error
    for name, sha256 in files:
        # A README.json may be a stranger's: nothing outside its folder is read.
        file = (folder / name).resolve()
        if not file.is_relative_to(folder.resolve()) or not file.is_file():
            raise InputError(
                f"{folder} lacks {name}, which its README.json lists. Get the corpus again."
            )
        if file_sha256(file) != sha256:
            raise InputError(
                f"{file} is damaged: its SHA-256 is not the one in README.json. Get the corpus"
                " again."
            )
    return about


def _score(
    benchmark: Benchmark[Any], all_items: Sequence[Item], recording: Recording, progress: Progress
) -> Scored:
    items = [item for item in all_items if item.id in recording.answers]
    completions = {item_id: recorded.completion for item_id, recorded in recording.answers.items()}
    findings: dict[ItemId, dict[str, Finding]] = {
        item_id: dict(recorded.findings) for item_id, recorded in recording.answers.items()
    }
    _run_programs(benchmark, items, recording, findings, progress)
    return Scored(items, recording.answers, grade_task(benchmark, items, completions, findings))


def _run_programs(
    benchmark: Benchmark[Any],
    items: Sequence[Item],
    recording: Recording,
    findings: Mapping[ItemId, dict[str, Finding]],
    progress: Progress,
) -> None:
    wanted = [
        (item.id, check.name, check.ask)
        for item in items
        for check in benchmark.checks(item, recording.answers[item.id].completion)
        if isinstance(check.ask, Program) and check.name not in findings[item.id]
    ]
    if not wanted:
        return
    with tempfile.TemporaryDirectory() as scratch:
        store = Store(Path(scratch) / "programs.sqlite")
        programs = Programs(store, recording.name, progress, "auto")
        try:
            for item_id, name, program in wanted:
                programs.submit(item_id, name, program)
            programs.collect(
                lambda item_id, name, finding: findings[item_id].__setitem__(name, finding)
            )
        finally:
            programs.close()
            store.close()


def _line(benchmark: str, recording: Recording, figure: Figure, scored: Scored) -> Line:
    ours = figure.ours(scored)
    value = None if ours.value is None else ours.value * figure.unit
    card = figure.card(scored).value if figure.card else None
    return Line(
        benchmark=benchmark,
        recording=recording.name,
        figure=figure.name,
        ours=value,
        published=figure.printed,
        difference=None if value is None else value - figure.printed,
        decimals=figure.decimals,
        n=ours.n,
        state=_state(figure, ours, scored),
        rule=figure.rule,
        card=None if card is None else card * figure.unit,
        why="; ".join(
            [why for why in (figure.why, ours.why) if why]
            + [f"{item_id} {why}" for item_id, why in figure.unsettled(scored).items()]
        ),
        source=figure.source,
    )


def _state(figure: Figure, ours: Value, scored: Scored) -> State:
    if ours.value is None:
        return "-"
    if figure.agrees(ours):
        return "agrees"
    explained = (
        figure.agrees(figure.settled(scored))
        if figure.settled
        else figure.agrees(ours, slack=len(figure.unsettled(scored)))
    )
    return "explained" if explained else "differs"


def as_json(lines: Sequence[Line]) -> dict[str, Any]:
    """The lines as `--json` writes them; schema 1."""
    return {"schema": 1, "figures": [asdict(line) for line in lines]}


def write(file: Path, lines: Sequence[Line]) -> None:
    """Write the lines to a file. Raises EnvironmentFault where it cannot be written."""
    RunFolder(file.parent).write_json(file.name, as_json(lines))


def as_text(line: Line) -> str:
    """One line of `evals replay`; the card rule's figure stands beside, where the figure was
    published under another.
    """
    digits = min(line.decimals, 6)
    ours = "-" if line.ours is None else f"{line.ours:.{digits}f}"
    # + 0.0 turns -0.0 into 0.0.
    difference = (
        "-" if line.difference is None else f"{round(line.difference, digits) + 0.0:+.{digits}f}"
    )
    text = (
        f"{line.state:9} {line.benchmark}  {line.recording}  {line.figure}: ours {ours}, published"
        f" {line.published:.{digits}f}"
    )
    text += f", difference {difference}, n {line.n:,}, source: {line.source}"
    if line.card is not None:
        text += f" [rule: {line.rule}; under the card's rule {line.card:.{max(1, digits)}f}]"
    return text + (f" ({line.why})" if line.why and line.state != "agrees" else "")


def tally(lines: Sequence[Line]) -> str:
    """The last line: how many figures of how many corpora agree."""
    counts = {
        state: sum(line.state == state for line in lines)
        for state in ("agrees", "explained", "differs", "-")
    }
    n_recordings = len({(line.benchmark, line.recording) for line in lines})
    return (
        f"{len(lines)} figures of {n_recordings} recordings: {counts['agrees']} agree at the"
        f" printed precision, {counts['explained']} differ by items that are named and cannot come"
        f" back, {counts['differs']} differ, {counts['-']} cannot be had here."
    )
