"""From answers and findings to grades, metrics and the lines of samples/<task>.jsonl.gz. Needs no
model.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from types import MappingProxyType
from typing import Any, NamedTuple

from evals.benchmark import Benchmark, roles_of
from evals.errors import InputError
from evals.generators.replay import RECORDED
from evals.models.reasoning import AS_IT_COMES, ReasoningSettings
from evals.plan.judges import Judge
from evals.records import Completion, Finding, Findings, Grade, Item, ItemId, Json, Metric
from evals.runs import ends, reasoned
from evals.runs.reasoned import NOTHING, Reasoned
from evals.storage.spool import Spool
from evals.storage.store import scores_json

MOST_UNREADABLE = 0.05
"""The share of a column's judged items above which its judge decides nothing.

An unreadable verdict counts as neither label, so such a share moves a cell by as much, and always
down: 5 points is about what XSTest's 200 unsafe prompts leave open anyway (95 % interval). The
card's own judges seldom come near: of GPT-4's recorded verdicts 2 of 805 are unreadable
(AlpacaEval), 11 of 450 (XSTest).
"""
_WARN_ABOVE = {"truncated": 0.25, "unparsed": 0.25, "empty": 0.05, "reasoning": 0.05}
_MOST_UNSHOWN = 0.01
"""Share of choices of which a server may show no candidate, and the cell still have a number. Each
may have been right or wrong: a larger share could move the cell by more than the point that the
gate takes for a drop.
"""
_WHY = {
    "truncated": (
        "ended at the token limit, not at a stop string or end of turn: check the chat format and"
        " the stop strings"
    ),
    "unparsed": "hold no answer of the expected form",
    "empty": "are empty: check the chat format and the stop strings",
    "unread": "have a verdict that could not be read: set another --judge",
    "reasoning": (
        "ended inside their reasoning: give it room with --reasoning-tokens N, or grade it with"
        " --reasoning keep"
    ),
}


@dataclass(frozen=True, slots=True)
class TaskResult:
    """One benchmark, scored. shares: truncated / unparsed / empty, as fractions of outputs (items
    for unparsed).

    n_recorded: outcomes of programs that were recorded, and not run here.
    ends: outputs that ended otherwise than models do, by kind; n_outputs: all there are.
    n_unshown: choices of which a server showed no candidate.
    unasked: items answered without a parameter that the server refused, by parameter.
    reasoned: what was told from the outputs.  digest: of all their texts.
    """

    benchmark: Benchmark[Any]
    grades: Sequence[Grade]
    metrics: Mapping[str, Metric]
    shares: Mapping[str, float]
    n_answered: int
    n_scored: int
    capped: int
    n_recorded: int = 0
    ends: Mapping[str, int] = field(default_factory=dict)
    n_outputs: int = 0
    n_unshown: int = 0
    unasked: Mapping[str, int] = field(default_factory=dict)
    reasoned: Reasoned = NOTHING
    digest: str = ""

    @property
    def is_complete(self) -> bool:
        """True when every item was answered."""
        return self.n_answered == len(self.grades)

    @property
    def warnings(self) -> list[str]:
        """One sentence for each share past its threshold."""
        cut = {"reasoning": self.ends.get("reasoning", 0) / max(1, self.n_outputs)}
        # Of what a judge decides nothing is read but its verdict.
        why = _WHY | ({"unparsed": _WHY["unread"]} if self.benchmark.judge_roles else {})
        return [
            f"{self.benchmark.name}: {share:.0%} of its outputs {why[name]}"
            for name, share in {**self.shares, **cut}.items()
            if share > _WARN_ABOVE[name]
        ]


class Graded(NamedTuple):
    """A grade, and the findings that went into it."""

    grade: Grade
    findings: Findings


@dataclass
class Grading:
    """One benchmark's items graded one after another; of an answer nothing stays but its grade and
    counts.

    findings: by item.  capped: how many items were cut to the room left in the model's context.
    grades: where they are kept.  reading: how the answers were told from their reasoning.
    """

    benchmark: Benchmark[Any]
    findings: Mapping[ItemId, Findings]
    capped: int = 0
    grades: list[Grade] | Spool[Grade] = field(default_factory=list)
    reading: ReasoningSettings = AS_IT_COMES
    _n_answered: int = 0
    _n_scored: int = 0
    _n_unparsed: int = 0
    _n_outputs: int = 0
    _n_truncated: int = 0
    _n_empty: int = 0
    _n_recorded: int = 0
    _ends: Counter[str] = field(default_factory=Counter)
    _n_unshown: int = 0
    _unasked: Counter[str] = field(default_factory=Counter)
    _reasoned: Reasoned = NOTHING
    _texts: Any = field(default_factory=hashlib.sha256)

    def rows(
        self, answered: Iterable[tuple[Item, Completion | None, Graded | None]]
    ) -> Iterator[dict[str, Any]]:
        """Grade what is not graded yet, and yield one line an answered item: id, what came back,
        the answer as read, its score, findings.

        No question and no gold text. An item without an answer keeps its place among the grades,
        unscored.
        """
        for item, completion, graded in answered:
            if completion is None:
                self.grades.append(Grade(item.id, item.group, {}, missing="not answered"))
                continue
            grade, findings = graded or ends.grade(
                self.benchmark, item, completion, self.findings.get(item.id, {})
            )
            self.grades.append(grade)
            self._n_answered += 1
            self._n_scored += bool(grade.scores)
            self._n_unparsed += grade.unparsed
            self._n_outputs += len(completion.outputs)
            # Of a choice one token was asked; older stores have it as cut off.
            self._n_truncated += completion.choice_logprobs is None and sum(
                output.finish_reason == "length" for output in completion.outputs
            )
            self._n_empty += sum(
                one.is_answer and not one.text.strip() for one in completion.outputs
            )
            for output in completion.outputs:
                self._texts.update(output.text.encode("utf-8", "surrogatepass") + b"\0")
            self._ends += ends.count(completion)
            self._n_unshown += completion.has_no_choice
            self._unasked.update(completion.unasked)
            if self._n_answered == 1 or completion.outputs:
                self._reasoned += reasoned.of(
                    self.benchmark.request(item), completion, self.reading
                )
            if self.benchmark.runs_programs:
                self._n_recorded += sum(finding.by == RECORDED for finding in findings.values())
            yield _sample_row(self.benchmark, grade, completion, findings)

    def result(self) -> TaskResult:
        """The benchmark, scored, once every row was taken."""
        n_outputs = max(1, self._n_outputs)
        shares = {
            "truncated": self._n_truncated / n_outputs,
            "unparsed": self._n_unparsed / max(1, self._n_answered),
            "empty": self._n_empty / n_outputs,
        }
        grades: Sequence[Grade] = self.grades
        if 0 < self._n_unshown <= _MOST_UNSHOWN * self._n_answered:
            grades = [_in_its_place(self.benchmark, grade) for grade in grades]
        metrics = self.benchmark.summarize(grades)
        _refuse_no_shares(self.benchmark, metrics)
        return TaskResult(
            self.benchmark,
            self.grades,
            metrics,
            shares,
            self._n_answered,
            self._n_scored,
            self.capped,
            self._n_recorded,
            self._ends,
            self._n_outputs,
            self._n_unshown,
            self._unasked,
            self._reasoned,
            self._texts.hexdigest(),
        )


def grade_task(
    benchmark: Benchmark[Any],
    items: Sequence[Item],
    completions: Mapping[ItemId, Completion],
    findings: Mapping[ItemId, Findings] | None = None,
    capped: int = 0,
) -> TaskResult:
    """Grade answers that are all at hand."""
    grading = Grading(benchmark, findings or {}, capped)
    for _ in grading.rows((item, completions.get(item.id), None) for item in items):
        pass
    return grading.result()


def _sample_row(
    benchmark: Benchmark[Any], grade: Grade, completion: Completion, findings: Findings
) -> dict[str, Any]:
    row: dict[str, Any] = dict(grade.details)
    row |= {"id": grade.id, "extracted": grade.extracted, "unparsed": grade.unparsed}
    row["outputs"] = [output.text for output in completion.outputs]
    if completion.outputs:
        row["finish_reasons"] = [output.finish_reason for output in completion.outputs]
        row["n_tokens"] = [len(output.token_ids) for output in completion.outputs]
    row |= reasoned.row(completion)
    if completion.unasked:
        row["unasked"] = list(completion.unasked)
    if completion.choice_logprobs is not None:
        row["choice_logprobs"] = _finite(completion.choice_logprobs)
    if completion.scores is not None:
        row["loglikelihoods"] = scores_json(completion.scores)
    row |= item_score(benchmark, grade)
    if findings:
        row["findings"] = {name: finding_json(finding) for name, finding in findings.items()}
    if grade.missing:
        row["missing"] = grade.missing
    return row


def item_score(benchmark: Benchmark[Any], grade: Grade) -> dict[str, Json]:
    """`score`, the item's score in its column; or `scores` by judge, where several judges fill
    several columns (AlpacaEval).
    """
    if len(benchmark.judge_roles) > 1 and set(grade.scores) <= set(benchmark.judge_roles):
        return {"scores": {role: grade.scores.get(role) for role in benchmark.judge_roles}}
    names = benchmark.headline or (benchmark.metrics[0].name,)
    own = [grade.scores[name] for name in names if name in grade.scores]
    return {"score": own[0] if own else None}


def finding_json(finding: Finding) -> dict[str, Json]:
    """A finding as samples hold it: what is None is left out."""
    top = (
        {"top_logprobs": _finite(finding.top_logprobs)} if finding.top_logprobs is not None else {}
    )
    return {name: value for name, value in (asdict(finding) | top).items() if value is not None}


def _finite(logprobs: Mapping[str, float]) -> dict[str, Json]:
    """Log-probabilities for JSON, which has no infinity; float("-inf") reads the text back."""
    return {
        token: value if math.isfinite(value) else str(value) for token, value in logprobs.items()
    }


def cell_marks(
    result: TaskResult, metric: str, judges: Mapping[str, Judge], header: Mapping[str, Any]
) -> list[str]:
    """Everything that makes this cell differ from the card's protocol, in words."""
    marks = [*header.get("differs", ()), *result.benchmark.notes()]
    for role in roles_of(result.benchmark, metric):
        judge = judges.get(role)
        if judge and judge.mark:
            marks.append(judge.mark)
        elif judge is None and header["prompts_by"] == "recording":
            marks.append(f"{role}: verdicts as recorded; by which judge is not known here")
        marks.extend(header["judges"].get(role, {}).get("notes", []))
    if header.get("limit") is not None:
        marks.append(
            f"a limited run, {header['limit']} items of each benchmark at most: not the full column"
        )
    if result.capped:
        marks.append(
            f"{result.benchmark.name}: {result.capped} of {len(result.grades)} generations capped"
            " by the model's context"
        )
    if result.n_recorded:
        marks.append(
            f"{result.benchmark.name}: outcomes of {result.n_recorded:,} programs as recorded, not"
            " run here"
        )
    if result.n_unshown:
        marks.append(
            f"{result.benchmark.name}: no candidate among the server's likeliest tokens for"
            f" {result.n_unshown:,} of {result.n_answered:,} items, which count as not right"
        )
    if result.unasked:
        marks.append(
            f"{result.benchmark.name}: the server takes no {' or '.join(sorted(result.unasked))};"
            f" its own decided {max(result.unasked.values()):,} of {result.n_answered:,} answers"
        )
    marks += reasoned.marks(result.benchmark.name, result.reasoned, header)
    if result.ends:
        marks.append(f"{result.benchmark.name}: {ends.in_words(result.ends, result.n_outputs)}")
    counts = verdict_counts(result, metric)
    if counts is not None and counts.unreadable:
        marks.append(
            f"{result.benchmark.name}: {counts.unreadable} of {counts.judged} items have a verdict"
            " that could not be read"
        )
    if header["prompts_by"] == "server":
        marks.append(
            "prompts rendered by the chat server's own template, without the text the protocol"
            " starts the answer with"
        )
    return marks


def _in_its_place(benchmark: Benchmark[Any], grade: Grade) -> Grade:
    """An unscored choice as one that is not right: left out, it could raise the cell."""
    if grade.scores or not grade.unparsed:
        return grade
    return replace(grade, scores=dict.fromkeys((one.name for one in benchmark.metrics), 0.0))


class VerdictCounts(NamedTuple):
    """How many items of a column a judge decided, and how many of its verdicts could
    not be read.

    by_role: the unreadable ones by the judge's role; all roles, where a grade does not say which.
    """

    judged: int
    unreadable: int
    by_role: Mapping[str, int] = MappingProxyType({})

    @property
    def decide_nothing(self) -> bool:
        """True when more than MOST_UNREADABLE of the items have a verdict that could not
        be read.
        """
        return self.unreadable > 0 and self.unreadable / self.judged > MOST_UNREADABLE


def verdict_counts(result: TaskResult, metric: str) -> VerdictCounts | None:
    """The counts that stand beside a judged cell; None where no judge decides the metric."""
    roles = roles_of(result.benchmark, metric)
    if not roles:
        return None
    names = {metric, *roles}
    if len(roles) == 1 and metric not in (headline := result.benchmark.headline):
        # One judge decides all: a metric of all items (XSTest's F1) with whatever an item scores.
        names.update(headline)
    judged = unreadable = 0
    by_role = Counter[str]()
    for grade in result.grades:
        if ends.KEY in grade.details:  # decided by nobody
            continue
        unread = _unread(grade)
        judged += bool(names & (set(grade.scores) | unread))
        if names & unread:
            unreadable += 1
            by_role.update([role for role in roles if role in unread] or roles)
    return VerdictCounts(judged, unreadable, by_role)


def _unread(grade: Grade) -> set[str]:
    """What an unreadable verdict left undecided: the roles that the grade lists, else all it
    scores.
    """
    listed = grade.details.get("unparsable")
    if isinstance(listed, list):
        return set(map(str, listed))
    return set(grade.scores) if grade.unparsed else set()


def _refuse_no_shares(benchmark: Benchmark[Any], metrics: Mapping[str, Metric]) -> None:
    """Raises InputError for a column whose metric is not there or no number, or would be printed as
    percent and is no share.
    """
    for column in benchmark.columns:
        metric = metrics.get(column.metric) if isinstance(metrics, Mapping) else None
        if metric is None:
            found = "is missing"
        elif metric.value is None:
            continue
        elif not math.isfinite(metric.value):
            found = f"is {metric.value}, no number,"
        elif column.unit == "percent" and not -1e-9 <= metric.value <= 1 + 1e-9:
            found = f"is {metric.value}, not from 0 to 1,"
        else:
            continue
        raise InputError(
            f"{benchmark.name}: the metric {column.metric} {found} in what summarize gives. The"
            " answers are kept: mend the benchmark (or, of what is no share, write unit ="
            ' "own" in its column), and give the command again.'
        )
