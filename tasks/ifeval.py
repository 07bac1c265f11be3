"""IFEval: does an answer obey instructions that a program can check ("no commas", "at least 300
words")?

Paper: Zhou et al. 2023, Instruction-Following Evaluation for Large Language Models, arXiv
2311.07911.
Data: google-research, instruction_following_eval/data/input_data.jsonl; 541 prompts, 834
instructions (hub: google/IFEval).
Checkers: lm-evaluation-harness 0.4.13, tasks/ifeval/instructions*.py, the authors' own; the drivers
are written here.

Protocol: the prompt alone, unstripped, as raw text (base) or one user turn (chat); greedy, at most
2,048 new tokens, no stop string. An instruction passes strictly when its checker accepts the
answer, loosely when the checker accepts any of eight variants of it (first or last line dropped,
asterisks deleted). A prompt passes when all its instructions do. The card's cell is the share of
prompts that pass loosely.

Differs from the published set-up in:
  - `random` and langdetect are seeded per item from a hash of its key; the original left both
    unseeded, so two prompts (1122 and 1129, see `is_drawn`) and some very short answers had a
    random grade there;
  - sentences and words are split with nltk's `punkt_tab` data, the original used the older `punkt`;
  - an answer that breaks a checker (JSON nested beyond Python's limit) counts as not followed; the
    original aborted.
"""

import hashlib
import random
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from evals import stats
from evals.benchmark import Benchmark
from evals.data.dataset import Dataset, HubTable, Source, Table
from evals.data.files import Row, read_jsonl
from evals.errors import InputError
from evals.records import (
    Completion,
    Findings,
    Generate,
    Grade,
    Item,
    ItemId,
    Json,
    Measure,
    Message,
    Metric,
    Sampling,
)

_MAX_TOKENS = 2048
# `random` and langdetect keep one state for the whole process.
_CHECKING = threading.Lock()


def _drop_padding(row: Row) -> Row:
    """The hub pads every instruction's arguments with None; the public file does not."""
    kwargs = [
        {name: value for name, value in arguments.items() if value is not None}
        for arguments in row["kwargs"]
    ]
    return row | {"kwargs": kwargs}


DATASET = Dataset(
    name="ifeval",
    hub_id="google/IFEval",
    licence="Apache-2.0",
    url=(
        "https://github.com/google-research/google-research/raw/master/"
        "instruction_following_eval/data/input_data.jsonl"
    ),
    tables={
        "prompts": Table(
            path="ifeval/input_data.jsonl",
            fields=("key", "prompt", "instruction_id_list", "kwargs"),
            read=read_jsonl,
            hub=HubTable(split="train", adapt=_drop_padding),
        )
    },
)


@dataclass(frozen=True)
class Instruction:
    """One instruction of a prompt: its registered name and the arguments its checker
    is built with.
    """

    name: str
    arguments: Mapping[str, Json]


@dataclass(frozen=True)
class IFEvalItem(Item):
    """A prompt and its instructions, in the file's order."""

    prompt: str
    instructions: tuple[Instruction, ...]

    @property
    def key(self) -> str:
        """The public file's key."""
        return self.id.rpartition("/")[2]


class IFEval(Benchmark[IFEvalItem]):
    """IFEval; the cell is prompt-level loose accuracy."""

    name = "ifeval"
    parts = "instruction types"
    usual_tokens = 300
    metrics = (
        Measure(
            "ifeval",
            "share of prompts whose every instruction is kept loosely",
            "prompt_level_loose_accuracy",
        ),
        Measure("prompt_strict", "the same strictly"),
        Measure("instruction_loose", "share of instructions kept loosely"),
        Measure("instruction_strict", "the same strictly"),
    )
    dataset = DATASET

    def items(self, source: Source) -> Sequence[IFEvalItem]:
        """The prompts in the file's order. Raises InputError, before anything is asked, when what
        grades the answers is not there.
        """
        _require_sentence_splitter()
        return [
            IFEvalItem(
                id=ItemId(f"ifeval/{row['key']}"),
                group="",
                prompt=row["prompt"],
                instructions=tuple(map(Instruction, row["instruction_id_list"], row["kwargs"])),
            )
            for row in source.rows("prompts")
        ]

    def request(self, item: IFEvalItem) -> Generate:
        """The prompt as it is, outer whitespace included."""
        return Generate((Message("user", item.prompt),), Sampling(max_tokens=_MAX_TOKENS))

    def grade(self, item: IFEvalItem, answer: Completion, findings: Findings) -> Grade:
        """Prompt-level loose and strict verdicts, with those of each instruction in `details`."""
        strict, loose = follow(item, answer.text)
        return Grade(
            id=item.id,
            group=item.group,
            scores={"ifeval": float(all(loose)), "prompt_strict": float(all(strict))},
            details={
                "instructions": [instruction.name for instruction in item.instructions],
                "strict": list(strict),
                "loose": list(loose),
                "random_in_original": is_drawn(item),
            },
        )

    def row_scores(self, row: Mapping[str, Any]) -> Mapping[str, float | None]:
        """Prompt level, both ways; an instruction is no item."""
        strict = float(all(row["strict"])) if "strict" in row else None
        return {"ifeval": row["score"], "prompt_strict": strict}

    def summarize(self, grades: Sequence[Grade]) -> Mapping[str, Metric]:
        """Prompt level by Wilson; instruction level with prompts as clusters."""
        prompts = {name: stats.share(name, grades) for name in ("ifeval", "prompt_strict")}
        return prompts | {
            f"instruction_{mode}": stats.clustered_mean(
                [_verdicts(grade, mode) for grade in grades], len(grades)
            )
            for mode in ("loose", "strict")
        }


def is_drawn(item: IFEvalItem) -> bool:
    """Whether a checker draws what it then asks for: prompts 1122 and 1129 ask for a letter that is
    none ("#", "!"), so their score in the original is random.
    """
    return any(
        instruction.name == "keywords:letter_frequency"
        and not re.fullmatch("[A-Za-z]", str(instruction.arguments.get("letter")))
        for instruction in item.instructions
    )


def follow(
    item: IFEvalItem, response: str, draw: int = 0
) -> tuple[tuple[bool, ...], tuple[bool, ...]]:
    """Per instruction of the item: whether the response follows it strictly, and loosely.

    draw: 0 as every run grades; another number draws otherwise where the original draws.
    Deterministic and independent of every other item. Raises InputError when nltk's sentence data
    is not installed.
    """
    others = [variant for variant in variants(response)[1:] if variant.strip()]
    strict, loose = [], []
    for instruction in item.instructions:
        with _seeded(f"{item.key}#{draw}" if draw else item.key):
            check = _checker(instruction)
            strict.append(bool(response.strip()) and check(response))
            # A checker that is built draws nothing more: what it said of the response stands.
            loose.append(strict[-1] or any(check(other) for other in others))
    return tuple(strict), tuple(loose)


def variants(response: str) -> tuple[str, ...]:
    """The distinct ones among the loose rule's eight readings of a response, the response itself
    first.

    Without its first line, last line, or both (these stripped), and each of the four without
    asterisks.
    """
    lines = response.split("\n")
    shortened = ["\n".join(kept).strip() for kept in (lines[1:], lines[:-1], lines[1:-1])]
    readings = [
        response,
        response.replace("*", ""),
        *shortened,
        *(text.replace("*", "") for text in shortened),
    ]
    return tuple(dict.fromkeys(readings))


def _verdicts(grade: Grade, mode: str) -> list[float]:
    found = grade.details.get(mode)
    return [float(bool(verdict)) for verdict in found] if isinstance(found, list) else []


def _checker(instruction: Instruction) -> Callable[[str], bool]:
    """The instruction's own test of one reading, built as the original driver builds it."""
    built = _instruction_classes()[instruction.name](instruction.name)
    built.build_description(**instruction.arguments)
    shortened = _SHORTENERS.get(instruction.name, str)

    def check(reading: str) -> bool:
        try:
            # Quirk of the checkers: text on which language detection raises counts as followed.
            return bool(built.check_following(shortened(reading)))
        except RecursionError:
            return False

    return check


def _until_last_bracket(text: str) -> str:
    # The checker looks for `\[.*?\]` within a line: none begins behind the last bracket.
    return "\n".join(line[: line.rfind("]") + 1] for line in text.split("\n"))


def _lines_with_a_title(text: str) -> str:
    # The checker looks for `<<[^\n]+>>`: on one line, with at least a character between.
    return "\n".join(
        line for line in text.split("\n") if -1 < line.find("<<") <= line.rfind(">>") - 3
    )


def _with_short_gaps(text: str) -> str:
    # Its markers have room for one white space (`p\.\s?s\.`): two match as little as three.
    return re.sub(r"(\s\s)\s+", r"\1", text)


def _with_one_blank_line(text: str) -> str:
    # Its expressions begin with `^\s*`, which runs through a gap again from each of its lines.
    return re.sub(r"\s{3,}", lambda gap: "\n\n" if gap[0].count("\n") > 1 else gap[0], text)


_SHORTENERS: Mapping[str, Callable[[str], str]] = {
    "detectable_content:number_placeholders": _until_last_bracket,
    "detectable_content:postscript": _with_short_gaps,
    "detectable_format:number_bullet_lists": _with_one_blank_line,
    "detectable_format:title": _lines_with_a_title,
}
"""What cannot change a checker's verdict but has its expressions take the square of the text's
length: minutes for 100 kB.
"""


@contextmanager
def _seeded(key: str) -> Iterator[None]:
    """`random` and langdetect seeded from the item's key, and nltk's expressions without a limit of
    time: no verdict depends on how busy the machine is. All are left as they were found, and other
    threads wait.
    """
    from langdetect import DetectorFactory

    # Before the seeding: the import itself draws from `random`.
    _instruction_classes()
    expressions = _nltk_expressions()
    seed = int.from_bytes(hashlib.sha256(f"ifeval/{key}".encode()).digest()[:8], "big")
    with _CHECKING:
        state, detector_seed = random.getstate(), DetectorFactory.seed
        limit_s = expressions.DEFAULT_TIMEOUT
        random.seed(seed)
        DetectorFactory.seed = seed
        expressions.DEFAULT_TIMEOUT = None
        try:
            yield
        finally:
            random.setstate(state)
            DetectorFactory.seed = detector_seed
            expressions.DEFAULT_TIMEOUT = limit_s


@cache
def _nltk_expressions() -> Any:
    """Where nltk keeps the limit of its expressions; before 3.10 they have none."""
    with suppress(ImportError):
        return import_module("nltk.redos")
    return SimpleNamespace(DEFAULT_TIMEOUT=None)


@cache
def _require_sentence_splitter() -> None:
    """Raise InputError when nltk's `punkt_tab` data, which the checkers count sentences with,
    cannot be read.
    """
    import nltk

    spec = find_spec("llama_index")
    for home in (spec.submodule_search_locations or ()) if spec else ():
        # llama-index-core ships the data where nltk does not look.
        nltk.data.path.insert(0, str(Path(home) / "core" / "_static" / "nltk_cache"))
    try:
        nltk.data.find("tokenizers/punkt_tab")
        # Found is not read: nltk refuses hard-linked data only when it opens it.
        nltk.tokenize.sent_tokenize("One. Two.")
    except (LookupError, OSError) as error:
        reason = (
            "is not installed" if isinstance(error, LookupError) else f"cannot be read ({error})"
        )
        raise InputError(
            f"IFEval's checkers need nltk's punkt_tab data, which {reason}. Install"
            " llama-index-core with --no-deps (it ships the data), or set NLTK_DATA to a folder"
            " that has it."
        ) from error


@cache
def _instruction_classes() -> Mapping[str, Any]:
    """Checker classes by instruction name."""
    import logging

    _require_sentence_splitter()  # without the data lm_eval's import reaches for the network
    from lm_eval.tasks.ifeval import instructions_registry

    # The checkers log whole answers as errors whenever no language can be told from them.
    logging.getLogger("lm_eval.tasks.ifeval.instructions").setLevel(logging.CRITICAL)
    classes: Mapping[str, Any] = instructions_registry.INSTRUCTION_DICT
    return classes
