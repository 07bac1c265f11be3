"""What the engine may expect of any benchmark, ours or a stranger's: rules that can be tried on the
smoke items alone. `evals tasks NAME --check` tries them.
"""

import random
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from evals.benchmark import Benchmark
from evals.data.load import load_smoke_data
from evals.errors import EnvironmentFault, InputError, first_line
from evals.generators.replay import finding_from_json
from evals.records import (
    Choose,
    Completion,
    Finding,
    Generate,
    Grade,
    Item,
    Message,
    Metric,
    Output,
    Program,
    Score,
    Scored,
)
from evals.registry import BENCHMARKS, Variant, benchmark_class, read_settings
from evals.runs.grading import grade_task
from evals.storage.spool import put_away

HEAVY = (
    "torch", "vllm", "pandas", "transformers", "datasets", "lm_eval", "alpaca_eval", "nltk",
    "scipy", "sklearn", "openai",
)  # fmt: skip
HOSTILE = ("", "\ud800\x00\u202e", "9" * 5000, "[" * 3000, "the answer is " * 500)
_ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Tried:
    """A benchmark in one style, on its smoke items."""

    variant: Variant
    chat: bool

    def new(self) -> tuple[Benchmark[Any], Sequence[Item]]:
        """It and its items, made anew."""
        benchmark = self.variant.make(chat=self.chat)
        return benchmark, list(benchmark.named_items(load_smoke_data(benchmark.dataset)))

    def grades(self) -> list[Grade]:
        """The items with an answer and verdicts each, graded."""
        benchmark, items = self.new()
        answers = [answer_to(benchmark, item, f"So it is {n}.") for n, item in enumerate(items)]
        return [
            benchmark.grade(item, answer, findings_for(benchmark, item, answer))
            for item, answer in zip(items, answers, strict=True)
        ]


def answer_to(benchmark: Benchmark[Any], item: Item, text: str) -> Completion:
    """An answer of the form that the request asks for."""
    request = benchmark.request(item)
    if isinstance(request, Choose):
        seeded = random.Random(f"{item.id} {text!r}")
        return Completion(choice_logprobs={one: -seeded.random() for one, _ in request.candidates})
    if isinstance(request, Score):
        seeded = random.Random(f"{item.id} {text!r}")
        scores = (Scored(-seeded.random(), False, 1) for _ in request.continuations)
        return Completion(scores=tuple(scores))
    return Completion(tuple(Output(f"{text} {n}") for n in range(request.sampling.n)))


def findings_for(
    benchmark: Benchmark[Any], item: Item, answer: Completion
) -> Mapping[str, Finding]:
    """A verdict for each check, varied by item, in every form that a check may decide by."""
    forms = [1, 1.25, True, False, "refusal", "following"]
    found = {}
    for check in benchmark.checks(item, answer):
        # By its name too: another variant of the benchmark may have fewer checks.
        form = random.Random(f"{item.id} {check.name}").choice(forms)
        found[check.name] = replace(finding_from_json(form), by="judge")
    return found


# --- the rules: each gives a sentence for what breaks it ------------------------------------------

Rule = Callable[[Tried], Iterator[str]]


def says_what_is_read(tried: Tried) -> Iterator[str]:
    """Its class says what the engine reads: its metrics in words, its tables' fields, defaults."""
    cls = tried.variant.cls
    if not (sys.modules[cls.__module__].__doc__ or "").strip():
        yield f"{cls.__module__} does not say at its top what is asked"
    yield from (f"the metric {one.name} has no words" for one in cls.metrics if not one.words)
    yield from (f"table {k} names no field" for k, t in cls.dataset.tables.items() if not t.fields)
    for one in fields(cls.Settings):
        try:
            read_settings(cls, {one.name: one.default})
        except InputError as error:
            yield f"a default is not among what may be set: {error}"


def imports_nothing_heavy(tried: Tried) -> Iterator[str]:
    """Its module imports nothing that takes seconds: every command would wait for it."""
    probe = f"import sys, {tried.variant.cls.__module__}; print(*{set(HEAVY)!r} & set(sys.modules))"
    command = [sys.executable, "-c", f"import sys; sys.path[:] = {sys.path!r}; {probe}"]
    # Once is enough: in either style it is the same module.
    if tried.chat:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        if done.stdout.split():
            yield f"it imports {', '.join(done.stdout.split())}: do so inside a function"


def has_stable_ids(tried: Tried) -> Iterator[str]:
    """Items have ids that begin with its name, each its own, in both styles and for ever."""
    ids = [item.id for item in tried.new()[1]]
    start = f"{tried.variant.name}/"
    if not ids:
        yield "there are no smoke items"
    if twice := {one for one in ids if ids.count(one) > 1}:
        yield f"two items have the id {min(twice)}"
    for one in ids:
        if not (one.startswith(start) and re.fullmatch(r"[\w/.-]+", one)):
            yield f"an item's id is {one!r}; make it of letters, digits, /._-, after {start}"
            return
    others = [item.id for item in replace(tried, chat=not tried.chat).new()[1]]
    if not ids == [item.id for item in tried.new()[1]] == others:
        yield "its items' ids change from one reading to the next, or with the style"


def asks_the_same_whenever(tried: Tried) -> Iterator[str]:
    """A request is of one of two kinds, and equal whenever it is made."""
    benchmark, items = tried.new()
    other, again = tried.new()
    random.seed(7)
    first = [benchmark.request(item) for item in items]
    random.seed(8)
    if first != [other.request(item) for item in reversed(again)][::-1]:
        yield "the same item's request differs from one time to the next"
    for item, request in zip(items, first, strict=True):
        yield from (f"{item.id}: {wrong}" for wrong in _wrong_with(request))


def _wrong_with(request: object) -> Iterator[str]:
    if not isinstance(request, Generate | Choose):
        yield f"its request is a {type(request).__name__}, neither Generate nor Choose"
        return
    if not request.messages or any(
        not isinstance(one, Message) or not one.content or one.role not in _ROLES
        for one in request.messages
    ):
        yield f"messages need a text each, and a role of {', '.join(_ROLES)}"
    if isinstance(request, Choose):
        if len(dict(request.candidates)) != len(request.candidates) or len(request.candidates) < 2:
            yield "a Choose needs two candidates or more, each of its own label"
    elif request.sampling.max_tokens < 1:
        yield "max_tokens must be 1 or more"
    elif request.sampling.n > 1 and request.sampling.temperature == 0:
        yield "several samples at temperature 0 are one and the same"


def checks_what_it_declares(tried: Tried) -> Iterator[str]:
    """Checks are equal whenever they are made, named once an item, of its roles and programs."""
    benchmark, items = tried.new()
    for item in items:
        answer = answer_to(benchmark, item, "Certainly.")
        checks = list(benchmark.checks(item, answer))
        if checks != list(benchmark.checks(item, answer)):
            yield f"{item.id}: its checks differ from one time to the next"
        names = [check.name for check in checks]
        if len(set(names)) != len(names):
            yield f"{item.id}: two checks have one name"
        judged = {check.name for check in checks if not isinstance(check.ask, Program)}
        if not set(tried.variant.roles) <= judged <= set(benchmark.judge_roles):
            yield f"{item.id}: its judges' checks are {sorted(judged)}, not its judge_roles"
        if (len(judged) < len(names)) != benchmark.runs_programs:
            yield f"{item.id}: its checks and runs_programs say two things of programs"


def grades_purely(tried: Tried) -> Iterator[str]:
    """A grade hangs on item, answer and findings alone, is of the item, and lies in 0 to 1."""
    random.seed(1)
    grades = tried.grades()
    random.seed(99)
    if tried.grades() != grades:
        yield "the same answer is graded differently from one time to the next"
    for item, grade in zip(tried.new()[1], grades, strict=True):
        if (grade.id, grade.group) != (item.id, item.group):
            yield f"{item.id}: its grade has the id or group of another"
        if not all(0 <= score <= 1 for score in grade.scores.values()):
            yield f"{item.id}: a score is not in 0 to 1: {dict(grade.scores)}"


def grades_anything(tried: Tried) -> Iterator[str]:
    """An empty or hostile answer is graded like any other."""
    benchmark, items = tried.new()
    for item in items[:2]:
        for text in HOSTILE:
            answer = answer_to(benchmark, item, text)
            if benchmark.grade(item, answer, findings_for(benchmark, item, answer)).id != item.id:
                yield f"{item.id}: the grade of {text[:20]!r} is of another item"


def measures_what_it_says(tried: Tried) -> Iterator[str]:
    """Each of its metrics is in the summary: a share in 0 to 1 within its interval, or a reason."""
    metrics = tried.new()[0].summarize(tried.grades())
    for name in [one.name for one in tried.variant.cls.metrics]:
        metric = metrics.get(name)
        if not isinstance(metric, Metric):
            yield f"summarize gives no metric {name}"
        elif metric.value is None:
            yield from [] if metric.reason else [f"{name} has neither value nor reason"]
        elif not 0 <= metric.value <= 1:
            yield f"{name} is {metric.value}, not in 0 to 1"
        elif metric.ci95 and not metric.ci95[0] <= metric.value <= metric.ci95[1]:
            yield f"{name} lies outside its interval"


def measures_in_any_order(tried: Tried) -> Iterator[str]:
    """Its metrics do not hang on the order of the grades."""
    benchmark, _ = tried.new()
    grades = tried.grades()
    in_order = dict(benchmark.summarize(grades))
    for seed in range(5):
        random.Random(seed).shuffle(grades)
        if dict(benchmark.summarize(grades)) != in_order:
            yield "the grades in another order give other metrics"
            return


def comes_back_from_disk(tried: Tried) -> Iterator[str]:
    """Items and grades can be put away and taken up again."""
    for what, values in (("item", tried.new()[1]), ("grade", tried.grades())):
        if put_away(values) != values:
            yield f"its {what}s come back as others: make them frozen dataclasses"


def withholds_what_is_not_whole(tried: Tried) -> Iterator[str]:
    """An item without an answer keeps its place, and the column of it has no value."""
    benchmark, items = tried.new()
    answers = {item.id: answer_to(benchmark, item, "Certainly.") for item in items}
    findings = {item.id: findings_for(benchmark, item, answers[item.id]) for item in items}
    for lost in (items[0], items[-1]):
        kept = {item_id: answer for item_id, answer in answers.items() if item_id != lost.id}
        found = grade_task(benchmark, items, kept, findings).metrics
        metrics = [found[one.name] for one in benchmark.metrics if one.name in found]
        if all(one.value is not None for one in metrics):
            yield f"without an answer to {lost.id} its metrics have values: give n_items as all"
        # Columns are about every item each, or share them out among themselves, as XSTest's do.
        counted = [found[column.metric].n_items for column in benchmark.columns]
        if set(counted) != {len(items)} and sum(counted) != len(items):
            yield f"its columns count {counted} items of {len(items)}"


RULES: tuple[Rule, ...] = (
    says_what_is_read, imports_nothing_heavy, has_stable_ids, asks_the_same_whenever,
    checks_what_it_declares, grades_purely, grades_anything, measures_what_it_says,
    measures_in_any_order, comes_back_from_disk, withholds_what_is_not_whole,
)  # fmt: skip


def broken(rule: Rule, variant: Variant) -> list[str]:
    """What of a benchmark breaks a rule, in either style; what it raises, too."""
    found: dict[str, None] = {}
    for chat in (True, False):
        try:
            found |= dict.fromkeys(rule(Tried(variant, chat)))
        except Exception as error:  # noqa: BLE001  whatever a stranger's code does
            found[first_line(error)] = None
    return list(found)


def check(name: str) -> Iterator[tuple[str, list[str]]]:
    """Each rule in words, and what of the benchmark breaks it. Raises InputError where there is
    none of that name, or it cannot be used.
    """
    cls = benchmark_class(name)
    variant = Variant(cls.name, cls, cls.Settings(), cls.own_columns())
    for rule in RULES:
        yield (rule.__doc__ or "").rstrip("."), broken(rule, variant)


def write_skeleton(name: str, folder: Path) -> list[Path]:
    """A benchmark of the user's own to begin with: module, card and smoke items in `folder`.
    Returns the files. Raises InputError for a name that is no module's or is taken, or where a file
    is there already.
    """
    if not re.fullmatch(r"[a-z]\w*", name, re.ASCII) or find_spec(name) or name in BENCHMARKS:
        raise InputError(
            f"{name!r} cannot be a benchmark's name here: take letters, digits and _, the first a"
            " small letter, and no name of a module that Python knows."
        )
    files = {
        "benchmark.py.txt": folder / f"{name}.py",
        "card.toml.txt": folder / f"{name}.toml",
        "test.jsonl.txt": folder / "smoke" / name / "test.jsonl",
    }
    for path in files.values():
        if path.exists():
            raise InputError(f"{path} is there already. Name another folder.")
    texts = resources.files("tasks").joinpath("skeleton")
    try:
        for source, path in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            text = texts.joinpath(source).read_text("utf-8")
            path.write_text(text.replace("NAME", name), "utf-8")
    except OSError as error:
        raise EnvironmentFault(f"{folder} cannot be written ({error}).") from error
    return list(files.values())
