"""Grading a stored run again: same answers, same findings, today's scorers.

Needs data, no model.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evals.benchmark import Benchmark
from evals.data.load import load_card_data, load_smoke_data
from evals.errors import InputError, TaskFault, first_line
from evals.generators.replay import NOT_A_ROW, Recorded, recorded_row
from evals.models.prompting import prompts_of
from evals.models.reasoning import ReasoningSettings
from evals.models.resolve import public_name
from evals.plan.items import spread
from evals.plan.judges import judge_of_record
from evals.plan.naming_judges import prompts_of_judges
from evals.records import Completion, Finding, Findings, Item, ItemId, Outcome, Program
from evals.registry import n_draws, of_draw, task_variant
from evals.runs import ends
from evals.runs.again import Again
from evals.runs.grading import Grading
from evals.runs.summary import summarize
from evals.storage.run_folder import RunFolder
from evals.storage.store import Store


def rescore(
    folder: Path, data: Path | None, reading: ReasoningSettings | None = None
) -> dict[str, Any]:
    """Write the run's samples and summary again and return the summary.

    reading: how reasoning is told from the answers now, in place of the run's own way.
    Answers come from the run's store, or from its samples where the store is not at hand.
    Raises InputError when the folder is no run, or its data or what `reading` needs is not here.
    """
    run = RunFolder(folder)
    record = run.read_json("run.json")
    with run.locked():
        results = []
        skipped = {}
        stored = _stored(run, record)
        again = Again(record["summary_header"], reading, prompts_of(record).stop)
        again.require(stored is not None)
        for name in record["tasks"]:
            benchmark, items = run_items(record, name, data)
            if name in record["skipped"]:
                skipped[name] = (benchmark.columns, len(items), record["skipped"][name])
                continue
            completions, findings = _answers(run, record, name, benchmark, items, stored, again)
            capped = int(record["capped"].get(name, 0))
            grading = Grading(benchmark, findings, capped, reading=again.how)
            rows = list(grading.rows((item, completions.get(item.id), None) for item in items))
            run.write_samples(
                name, rows if stored is not None else _with_token_counts(rows, run, name)
            )
            results.append(grading.result())
        summary = summarize(again.header(), results, skipped)
        run.write_json("summary.json", summary)
    return summary


def so_far(folder: Path, data: Path | None) -> dict[str, Any]:
    """The summary of a run that is not finished, over the items answered so far; each cell that has
    a number says of how many. Writes nothing.

    Raises InputError when the folder is no run, or its data is not here.
    """
    run = RunFolder(folder)
    record = run.read_json("run.json")
    stored = _stored(run, record) or {}
    again = Again(record["summary_header"], stop=prompts_of(record).stop)
    judges = _judge_names(record)
    results, marks = [], {}
    skipped = {}
    for name in record["tasks"]:
        if of_draw(name)[1] > 1:
            continue  # the first draw's answers say how far it is
        benchmark, items = run_items(record, name, data)
        answered = [
            (item, again.read(benchmark.request(item), answer, None))
            for item in items
            if isinstance(answer := stored.get((item.id, ""), ("", None, ""))[1], Completion)
        ]
        if not answered:
            why = record["skipped"].get(name, f"0 of {len(items):,} items answered so far")
            skipped[name] = (benchmark.columns, len(items), why)
            continue
        findings = {
            item.id: _findings(benchmark, item, answer, stored, judges, again, {})[0]
            for item, answer in answered
        }
        capped = int(record["capped"].get(name, 0))
        grading = Grading(benchmark, findings, capped, reading=again.how)
        for _ in grading.rows((item, answer, None) for item, answer in answered):
            pass
        results.append(grading.result())
        if len(answered) < len(items):
            marks[name] = (
                f"unfinished: {len(answered):,} of {len(items):,} items answered so far, no fair"
                " draw of them"
            )
        elif (n := n_draws(record["tasks"], name)) > 1:
            marks[name] = f"unfinished: the first of {n} draws alone"
    summary = summarize(record["summary_header"], results, skipped)
    for result in results:
        # Of one that is answered whole the number is the run's own.
        if (mark := marks.get(result.benchmark.name)) is None:
            continue
        for column in result.benchmark.columns:
            cell = summary["cells"][column.key]
            if cell["value"] is None:
                cell["reason"] = f"{mark}; {cell['reason'] or 'no value'}"
            else:
                cell["marks"] = [*cell["marks"], mark]
    return summary


def run_items(
    record: Mapping[str, Any], task: str, data: Path | None
) -> tuple[Benchmark[Any], Sequence[Item]]:
    """A stored run's benchmark and items, read again from the data; no items of a task that could
    not be asked and still cannot.
    """
    head = record["summary_header"]
    benchmark = task_variant(head, task).make(chat=head["chat_format"] != "none")
    judges = {role: judge_of_record(role, entry) for role, entry in head["judges"].items()}
    benchmark.take_prompts(prompts_of_judges(judges, benchmark.judge_roles))
    try:
        if head["suite"] == "smoke":
            source = load_smoke_data(benchmark.dataset)
        else:
            folder = data or (Path(record["data"]) if record.get("data") else None)
            source = load_card_data([benchmark.dataset], folder)[benchmark.dataset.name]
        items: Sequence[Item] = list(benchmark.named_items(source))
    except TaskFault:
        if task not in record["skipped"]:
            raise
        return benchmark, ()
    if head["suite"] == "card":
        items = benchmark.drawn(items)
    if head["limit"] is not None:
        items = spread(items, head["limit"])
    return benchmark, items


Stored = dict[tuple[ItemId, str], tuple[str, Completion | Outcome, str]]
"""By item and check: by whom, what, and of a judge's answer the prompt."""


def _stored(run: RunFolder, record: Mapping[str, Any]) -> Stored | None:
    """The run's answers and findings from its store; None where the store is not at hand or has
    none of them.
    """
    path = run.store_of(record)
    if path is None:
        return None
    store = Store(path, read_only=True)
    try:
        # A store that knows nothing of the run is another one: the samples stay what they are.
        found = list(store.answers(record["run_key"]))
        judged = {item for item, check, _, one in found if check and isinstance(one, Completion)}
        prompts = {item: store.prompts(record["run_key"], item) for item in judged}
        return {
            (item, check): (by, answer, prompts.get(item, {}).get(check, ""))
            for item, check, by, answer in found
        } or None
    finally:
        store.close()


def _answers(
    run: RunFolder,
    record: Mapping[str, Any],
    task: str,
    benchmark: Benchmark[Any],
    items: Sequence[Item],
    stored: Stored | None,
    again: Again,
) -> tuple[Mapping[ItemId, Completion], Mapping[ItemId, Findings]]:
    """Completions and findings by item."""
    rows = _sampled(run, task)
    if stored is None:
        if not run.samples_path(task).exists():
            raise InputError(
                f"{run.path} has no answers of {task}, neither in a store nor in"
                f" samples/{task}.jsonl.gz: nothing to score. A run that was stopped before its"
                " first answer goes on with its own command."
            )
        return {i: r.completion for i, r in rows.items()}, {i: r.findings for i, r in rows.items()}
    nothing = ("", None, "")
    completions = {
        item.id: again.read(benchmark.request(item), answer, rows.get(item.id))
        for item in items
        if isinstance(answer := stored.get((item.id, ""), nothing)[1], Completion)
    }
    findings: dict[ItemId, Findings] = {}
    judges = _judge_names(record)
    is_recording = str(record.get("model")).startswith("replay:")
    for item in items:
        if item.id in completions:
            kept = rows[item.id].findings if item.id in rows else {}
            # A folder may have had other judges before: only what today's judges said decides, and
            # what a recording brought along.
            valid = {
                name: f
                for name, f in kept.items()
                if is_recording or f.outcome or _is_named(f.by, judges.get(name, ()))
            }
            found, stale = _findings(
                benchmark, item, completions[item.id], stored, judges, again, valid
            )
            # Samples hold rounded numbers: they count only where the store, which holds them whole,
            # has none.
            findings[item.id] = found | {
                name: f
                for name, f in valid.items()
                if name not in stale and (name not in found or (item.id, name) not in stored)
            }
    return completions, findings


def _findings(
    benchmark: Benchmark[Any],
    item: Item,
    answer: Completion,
    stored: Stored,
    judges: Mapping[str, tuple[str, str]],
    again: Again,
    kept: Findings,
) -> tuple[dict[str, Finding], set[str]]:
    """What checks found, and the names of those that were about another text than is read now.
    kept: what the run's samples hold of today's judges.
    """
    found: dict[str, Finding] = {}
    stale = set[str]()
    for check in ends.checks(benchmark, item, answer):
        by, what, prompt = stored.get((item.id, check.name), ("", None, ""))
        names = judges.get(check.name, ())
        judge = names[0] if names else ""
        if isinstance(what, Outcome):
            found[check.name] = Finding(by=by, outcome=what)
        elif judge in benchmark.rules:
            found[check.name] = Finding(by=judge, text=benchmark.rules[judge](answer.text))
        elif (
            isinstance(what, Completion)
            and not isinstance(check.ask, Program)
            and _is_named(by, names)
        ):
            if again.is_about(check.ask, answer, prompt):
                then = kept.get(check.name)
                found[check.name] = again.verdict(check.ask, what, prompt, by, then)
            else:
                stale.add(check.name)
    return found, stale


def _judge_names(record: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Who decides each role, and who decided before them."""
    return {
        role: (str(entry["name"]), str(entry.get("after", entry["name"])))
        for role, entry in record["summary_header"]["judges"].items()
    }


def _is_named(by: str, judges: Sequence[str]) -> bool:
    """Whether the summary calls one of its judges so. A folder that was named from where the run
    stood is no folder here: of such a path the last part is its name.
    """
    return bool(set(judges) & {public_name(by), Path(by).name})


def _sampled(run: RunFolder, task: str) -> dict[ItemId, Recorded]:
    """The rows of a task's samples; none when the file is not there."""
    path = run.samples_path(task)
    if not path.exists():
        return {}
    try:
        return {ItemId(row["id"]): recorded_row(row) for row in run.samples(task)}
    except NOT_A_ROW as error:
        raise InputError(
            f"{path} is damaged ({first_line(error)}). Move it away, or run the model's command"
            " again."
        ) from error


def _with_token_counts(
    rows: list[dict[str, Any]], run: RunFolder, task: str
) -> list[dict[str, Any]]:
    """Rows scored from samples alone: token ids are in the store only, so their counts are taken
    over from the old rows.
    """
    counts = {row["id"]: row["n_tokens"] for row in run.samples(task) if "n_tokens" in row}
    return [row | {"n_tokens": counts[row["id"]]} if row["id"] in counts else row for row in rows]
