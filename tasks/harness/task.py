"""A task or group of lm-evaluation-harness as one benchmark."""

import contextlib
import os
import re
from abc import ABCMeta
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib import metadata
from typing import Any, ClassVar

from evals.benchmark import ANY_NUMBER, Benchmark, setting
from evals.data.dataset import Dataset, LoadedSource, Source, content_hash
from evals.errors import InputError, TaskFault, first_line
from evals.records import (
    Check,
    Column,
    Completion,
    Findings,
    Grade,
    Measure,
    Metric,
    Program,
    Request,
)
from tasks.harness import metrics as counted
from tasks.harness import programs
from tasks.harness.build import (
    HarnessItem,
    items_of,
    probability_of_right,
    process,
    request_of,
    tasks_of,
)
from tasks.harness.names import (
    INCLUDE,
    NAME,
    PREFIX,
    Weighing,
    config_of,
    content_of,
    group_measures,
    known,
    measure_name,
    measures,
    members,
    runs_programs,
    version_of,
    weighing_of,
    weighings,
)

_RIGHT = ("acc", "acc_norm", "acc_bytes")
"""Metrics that count right choices."""


@dataclass(frozen=True)
class Settings:
    """lm-eval's own, by the names it gives them."""

    num_fewshot: int | None = setting(
        None, "solved examples before each; not set: the task's own", range(10_000)
    )
    fewshot_seed: int = setting(1234, "names the draw of the examples", range(1 << 32))
    fewshot_as_multiturn: bool = setting(
        True, "in a chat each example is a turn of its own", True, False
    )
    apply_chat_template: bool = setting(False, "ask in the run's chat format", True, False)
    system_instruction: str = setting("", "stands before everything", str)
    limit: int | None = setting(None, "only the first so many of each task", ANY_NUMBER)


class HarnessBenchmark(Benchmark[HarnessItem]):
    """What a name of lm-eval's stands for; a subclass for each name.

    task: the name.  rules: of a group, how its metrics are made of its tasks'.
    """

    Settings = Settings
    task: ClassVar[str]
    weighed_by: ClassVar[tuple[Weighing, ...]] = ()

    @classmethod
    def own_columns(cls) -> tuple[Column, ...]:
        """One for each measure; one that says why where the task cannot be read."""
        if not cls.metrics:
            return (Column(_key(cls.task), cls.task, False, cls.name),)
        return tuple(
            Column(_key(f"{cls.task}_{one.name}"), f"{cls.task} {one.name}", one.lower_is_better,
                   cls.name, one.name, {}, *(("percent", 1) if one.is_share else ("own", 3)))
            for one in cls.metrics
        )  # fmt: skip

    def notes(self) -> Sequence[str]:
        """Whose task it is, in which version, and how it is asked."""
        set_ = self.settings
        shots = "its own number of" if set_.num_fewshot is None else set_.num_fewshot
        chat = "in the run's chat format" if set_.apply_chat_template else "without a chat template"
        turns = chat + (
            ", the examples in one turn"
            if set_.apply_chat_template and not set_.fewshot_as_multiturn
            else ""
        )
        few = "" if set_.limit is None else f", the first {set_.limit} of each task only"
        ran = {runs_programs(config) for _, config in members(self.task)}
        where = ", its programs run by its own code and in no sandbox" if "here" in ran else ""
        return [f"{_source(self.task)}: {shots} examples, {turns}{few}{where}"]

    def items(self, source: Source) -> Iterator[HarnessItem]:
        """Every document, task by task; ids as `NAME/number`, in a group `NAME/task/number`."""
        own = type(self).name
        for name, task in tasks_of(self.task).items():
            start = f"{own}/{_word(name)}" if self.weighed_by else own
            yield from items_of(name, task, self.settings, start)

    def request(self, item: HarnessItem) -> Request:
        """What lm-eval asks of the document."""
        return request_of(item)

    def checks(self, item: HarnessItem, answer: Completion) -> Sequence[Check]:
        """The programs that its metric would execute, each once."""
        if not self.runs_programs:
            return ()
        found: dict[Program, None] = {}
        with programs.asked(lambda one: found.setdefault(one) is not None):
            process(self.task, tasks_of(self.task)[item.group], item, answer)
        return [Check(f"sample/{at}", one) for at, one in enumerate(found)]

    def grade(self, item: HarnessItem, answer: Completion, findings: Findings) -> Grade:
        """The task's filters and metrics on one document."""
        ended = {}
        for check in self.checks(item, answer):
            finding = findings.get(check.name)
            if finding is None or finding.outcome is None:
                return Grade(item.id, item.group, {}, missing="its programs were not run")
            ended[check.ask] = finding.outcome.status == "passed"
        with programs.asked(partial(_how_it_ended, ended)):
            by_filter, why = process(self.task, tasks_of(self.task)[item.group], item, answer)
        if why:
            return Grade(item.id, item.group, {}, missing=why)
        found = {
            measure_name(metric, name): counted.plain(value)
            for name, (_, values) in by_filter.items()
            for metric, value in values.items()
        }
        scores = {name: counted.scalar(value, item.kind) for name, value in found.items()}
        return Grade(
            item.id,
            item.group,
            # What is no share stays among the metrics.
            {name: one for name, one in scores.items() if one is not None and 0 <= one <= 1},
            _extracted(item, answer, by_filter),
            details={"metrics": found},
        )

    def finer_scores(
        self, item: HarnessItem, answer: Completion, findings: Findings
    ) -> Mapping[str, float]:
        """Of every measure that counts right choices: the probability of the right one."""
        found = probability_of_right(tasks_of(self.task)[item.group], item, answer)
        return {} if found is None else dict.fromkeys(self.finer, found)

    def summarize(self, grades: Sequence[Grade]) -> Mapping[str, Metric]:
        """Each measure, and in a group each task's own as "measure/task"."""
        found: dict[str, Metric] = {}
        own: dict[str, Metric] = {}
        for name, values in self._values(grades).items():
            if self.weighed_by:
                rule = weighing_of(name, self.weighed_by)
                if rule:
                    found[name] = counted.weighed(rule, values)
                own |= {f"{name}/{_word(task)}": one.metric() for task, one in values.items()}
            else:
                (only,) = values.values()
                found[name] = only.metric()
        n = len(grades)
        lacking = {one.name: Metric(None, 0, n, reason=f"0 of {n} items scored")
                   for one in self.metrics if one.name not in found}  # fmt: skip
        shares = {one.name for one in self.metrics if one.is_share}
        return {
            name: counted.as_share(one) if name.partition("/")[0] in shares else one
            for name, one in (found | lacking | own).items()
        }

    def replicates(self, grades: Sequence[Grade]) -> Mapping[str, Sequence[float]]:
        """Of the measures that are no means."""
        return _Replicates(self, self._values(grades))

    def _values(self, grades: Sequence[Grade]) -> dict[str, dict[str, counted.Values]]:
        """By measure and task."""
        values: dict[str, dict[str, list[Any]]] = {one.name: {} for one in self.metrics}
        n_missing: dict[str, int] = {}
        names = {_word(name): name for name in tasks_of(self.task)}
        for grade in grades:
            middle = grade.id.partition("/")[2].rpartition("/")[0]
            task = names[middle] if self.weighed_by else next(iter(names.values()))
            n_missing[task] = n_missing.get(task, 0) + (grade.missing is not None)
            given = grade.details.get("metrics")
            for name, value in (given if isinstance(given, dict) else {}).items():
                values.setdefault(name, {}).setdefault(task, []).append(value)
        return {
            name: {
                task: counted.Values(one, len(one) + n_missing[task], self._how(task, name))
                for task, one in by_task.items()
            }
            for name, by_task in values.items()
            if by_task
        }

    def _how(self, task: str, measure: str) -> Any:
        """lm-eval's aggregation; None for the mean."""
        from lm_eval.api.metrics import mean

        found = tasks_of(self.task)[task].aggregation().get(measure.partition(",")[0], mean)
        return None if found is mean else found

    def row_scores(self, row: Mapping[str, Any]) -> Mapping[str, float | None]:
        """Of a line of samples: every measure's number of the document."""
        if row.get("missing"):
            return {}
        kind = "loglikelihood_rolling" if "loglikelihoods" in row else ""
        return {name: counted.scalar(value, kind) for name, value in row["metrics"].items()}

    def gold(self, item: HarnessItem) -> str:
        """The task's target; of one whose contexts are chosen from, the right one's number."""
        task = tasks_of(self.task)[item.group]
        told = task.doc_to_text if task.multiple_input else task.doc_to_target
        return str(told(item.doc))


def _how_it_ended(ended: Mapping[Any, bool], program: Program) -> bool:
    if program not in ended:
        raise LookupError("its metric executes programs by code_eval, which its file does not show")
    return ended[program]


class _Replicates(Mapping[str, Sequence[float]]):
    """Drawn when they are asked for: whoever compares a column wants those of one measure."""

    def __init__(self, benchmark: HarnessBenchmark, values: Mapping[str, Any]) -> None:
        self._rules = benchmark.weighed_by
        self._values = {
            name: by_task
            for name, by_task in values.items()
            if any(one.aggregate for one in by_task.values())
            and (not self._rules or weighing_of(name, self._rules))
        }

    def __getitem__(self, name: str) -> Sequence[float]:
        by_task = self._values[name]
        rule = weighing_of(name, self._rules)
        return counted.weighed_draws(rule or Weighing(name, None, True), by_task)

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


def _extracted(item: HarnessItem, answer: Completion, by_filter: Mapping[str, Any]) -> Any:
    """Of texts what the first filter left; of choices which is likeliest, counted from 0."""
    if item.kind == "generate_until":
        return counted.plain(next(iter(by_filter.values()))[0])
    scores = [one.logprob for one in answer.scores or ()]
    if len(scores) < 2:
        return [one.is_greedy for one in answer.scores or ()]
    return scores.index(max(scores))


def _key(text: str) -> str:
    return re.sub(r"\W+", "_", text)


def _word(text: str) -> str:
    """A task's name in ids and file names."""
    return re.sub(r"[^\w.+-]", "_", text)


def _source(name: str) -> str:
    version = version_of(config_of(name))
    said = f", version {version}" if version else ""
    return f"lm-evaluation-harness {metadata.version('lm_eval')}, {name}{said}"


def _data(name: str) -> LoadedSource:
    """Its data's provenance; the rows stay with the tasks."""
    edition, content = {}, content_of(name)
    for task_name, task in tasks_of(name).items():
        rows = getattr(task, "task_docs", None)
        rows = task.eval_docs if rows is None else rows
        as_json = ({"doc": counted.plain(row)} for row in rows)
        version = "" if task.VERSION in (None, "Yaml") else str(task.VERSION)
        own = {"rows": len(rows), "sha256": content_hash(as_json), "version": version,
               "asked_by": content}  # fmt: skip
        edition[_word(task_name)] = own
    return LoadedSource({}, "lm-eval", _source(name), edition)


@cache
def _class(name: str, folders: str) -> type[HarnessBenchmark]:
    kind = known(name).kind
    tasks = members(name)
    rules = weighings(config_of(name)) if kind == "GROUP" else ()
    if kind == "TAG" or (kind == "GROUP" and not rules):
        raise InputError(
            f"lm-eval:{name} stands for several tasks and has no number of its own: name them"
            f" ({', '.join(task for task, _ in tasks[:8])}{' …' if len(tasks) > 8 else ''})."
        )
    if kind == "PY_TASK":
        found = _of_code(name)
    else:
        try:
            found = group_measures(rules, tasks) if rules else measures(tasks[0][1])
        except (LookupError, TypeError, AttributeError, ValueError) as error:
            raise TaskFault(
                f"lm-eval:{name}: its metric_list or filter_list cannot be read"
                f" ({first_line(error)})."
            ) from error
    if not found:
        raise TaskFault(f"lm-eval:{name} names no metric.")
    hub = str(tasks[0][1].get("dataset_path") or "")
    in_sandbox = any(runs_programs(config) == "sandbox" for _, config in tasks)
    made = _made(name, _source(name), partial(_data, name), hub, found, rules, in_sandbox)
    if all(config.get("output_type") == "multiple_choice" for _, config in tasks):
        right = [one.name for one in found if one.hub in _RIGHT]
        made.finer = dict.fromkeys(right, "probability of the right choice")
    return made


def _made(
    name: str,
    source: str,
    own: Callable[[], LoadedSource],
    hub: str = "",
    found: Sequence[Measure] = (),
    rules: Sequence[Weighing] = (),
    with_programs: bool = False,
) -> type[HarnessBenchmark]:
    dataset = Dataset(NAME + _word(name), hub, "", "", {}, own=own)
    about = {"name": dataset.name, "task": name, "metrics": found, "weighed_by": rules,
             "dataset": dataset, "runs_programs": with_programs, "__doc__": source,
             "__module__": __name__}  # fmt: skip
    made: Any = ABCMeta(f"Harness_{_key(name)}", (HarnessBenchmark,), about)
    cls: type[HarnessBenchmark] = made
    return cls


def _of_code(name: str) -> tuple[Measure, ...]:
    """A task that is a Python class says what it measures when it is made, which takes its data."""
    (task,) = tasks_of(name).values()
    better = task.higher_is_better()
    return tuple(
        Measure(metric, f"{metric} as lm-evaluation-harness counts it", metric,
                not better.get(metric, True), is_share=False)
        for metric in task.aggregation()
    )  # fmt: skip


def benchmark_class(name: str) -> type[HarnessBenchmark]:
    """The benchmark behind lm-eval:NAME or lm-eval.NAME; of one that cannot be read a class without
    metrics, whose data's loading says why. Raises InputError where there is no such name.
    """
    bare = name[len(PREFIX) :] if name.startswith((PREFIX, NAME)) else name
    try:
        return _class(bare, os.environ.get(INCLUDE, ""))
    except TaskFault as fault:
        return _made(bare, str(fault), partial(_raise, fault))


def _raise(fault: TaskFault) -> LoadedSource:
    raise fault


def expanded(name: str) -> list[str]:
    """lm-eval:NAME as the benchmarks it stands for: a tag's tasks, the members of a group without a
    metric of its own, else itself.
    """
    bare = name[len(PREFIX) :]
    inner: list[str] = []
    with contextlib.suppress(TaskFault):
        one = known(bare)
        if one.kind == "TAG":
            inner = list(one.tasks)
        elif one.kind == "GROUP" and not weighings(config_of(bare)):
            inner = [task for task, _ in members(bare, deep=False)]
    if not inner:
        return [NAME + bare]
    return list(dict.fromkeys(each for task in inner for each in expanded(PREFIX + task)))
