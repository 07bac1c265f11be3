"""Grading a stored run again: same answers, same findings, today's scorers. Needs data, no model."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evals.benchmark import Benchmark
from evals.data import load_card_data, load_smoke_data
from evals.errors import InputError
from evals.generators.replay import recorded_row
from evals.grading import Answers, grade_task, sample_rows
from evals.plan import spread
from evals.records import Completion, Finding, Findings, Item, ItemId, Outcome, Program
from evals.registry import benchmark_class
from evals.run_folder import RunFolder
from evals.store import Store
from evals.summary import summarize


def rescore(folder: Path, data: Path | None) -> dict[str, Any]:
    """Write the run's samples and summary again and return the summary.

    Answers come from the run's store, or from its samples where the store is not at hand.
    Raises InputError when the folder is no run, or its data is not here.
    """
    run = RunFolder(folder)
    record = run.read_json("run.json")
    with run.locked():
        results = []
        skipped = {}
        stored = _stored(run, record)
        for name in record["tasks"]:
            benchmark, items = run_items(record, name, data)
            if name in record["skipped"]:
                skipped[name] = (benchmark.columns, len(items), record["skipped"][name])
                continue
            answers = _answers(run, record, name, benchmark, items, stored)
            result = grade_task(benchmark, items, answers)
            run.write_samples(name, sample_rows(result, answers))
            results.append(result)
        summary = summarize(record["summary_header"], results, skipped)
        run.write_json("summary.json", summary)
    return summary


def run_items(record: Mapping[str, Any], task: str, data: Path | None) -> tuple[Benchmark[Any], Sequence[Item]]:
    """A stored run's benchmark and items, read again from the data."""
    head = record["summary_header"]
    benchmark = benchmark_class(task)(chat=head["chat_format"] != "none")
    if head["suite"] == "smoke":
        source = load_smoke_data(benchmark.dataset)
    else:
        folder = data or (Path(record["data"]) if record.get("data") else None)
        source = load_card_data([benchmark.dataset], folder)[benchmark.dataset.name]
    items: Sequence[Item] = benchmark.items(source)
    if head["suite"] == "card":
        items = benchmark.card_subset(items)
    if head["limit"] is not None:
        items = spread(items, head["limit"])
    return benchmark, items


Stored = dict[tuple[ItemId, str], tuple[str, Completion | Outcome]]


def _stored(run: RunFolder, record: Mapping[str, Any]) -> Stored | None:
    """The run's answers and findings from its store; None where the store is not at hand."""
    path = Path(record["store"]) if record.get("store") else run.store_path
    if not path.exists():
        return None
    store = Store(path)
    try:
        return {(item, check): (by, answer) for item, check, by, answer in store.answers(record["run_key"])}
    finally:
        store.close()


def _answers(
    run: RunFolder, record: Mapping[str, Any], task: str, benchmark: Benchmark[Any], items: Sequence[Item], stored: Stored | None
) -> Answers:
    capped = int(record["capped"].get(task, 0))
    rows = {ItemId(row["id"]): recorded_row(row) for row in run.samples(task)} if run.samples_path(task).exists() else {}
    if stored is None:
        if not rows:
            raise InputError(f"{run.path} has neither its store nor samples/{task}.jsonl.gz: nothing to score.")
        return Answers({i: r.completion for i, r in rows.items()}, {i: r.findings for i, r in rows.items()}, capped)
    completions = {item.id: answer for item in items if isinstance(answer := stored.get((item.id, ""), ("", None))[1], Completion)}
    findings: dict[ItemId, Findings] = {}
    for item in items:
        if item.id in completions:
            kept = rows[item.id].findings if item.id in rows else {}
            findings[item.id] = {**kept, **_findings(benchmark, item, completions[item.id], stored)}
    return Answers(completions, findings, capped)


def _findings(benchmark: Benchmark[Any], item: Item, answer: Completion, stored: Stored) -> dict[str, Finding]:
    from evals.judges import finding_of

    found: dict[str, Finding] = {}
    for check in benchmark.checks(item, answer):
        by, what = stored.get((item.id, check.name), ("", None))
        if isinstance(what, Outcome):
            found[check.name] = Finding(by=by, outcome=what)
        elif isinstance(what, Completion) and not isinstance(check.ask, Program):
            found[check.name] = finding_of(check.ask, what, by)
    return found
