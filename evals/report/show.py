"""Looking behind the numbers: the prompts of a task, and everything about one item."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from evals.errors import InputError, nearest
from evals.models.prompts import BEGIN_OF_TEXT, Rendered
from evals.models.scoring import pairs_of
from evals.plan.make import make_plan
from evals.plan.settings import RunSettings
from evals.records import ItemId
from evals.registry import benchmark_class, of_draw
from evals.runs.rescore import run_items
from evals.storage.files import json_line, visible
from evals.storage.run_folder import RunFolder, to_json
from evals.storage.store import Store


def prompt_lines(settings: RunSettings) -> Iterator[str]:
    """One JSON line an item. `prompt` is the text handed to the tokenizer, less a literal leading
    <|begin_of_text|>.

    `sampling` is the protocol's, less its stop strings where reasoning has room; `max_new_tokens`
    is what is left of it in the model's context, with that room.
    Loads no weights.
    """
    (task,) = settings.tasks
    if "," in task or not task.strip():  # the plan would take "mmlu,gsm8k", and all of them
        benchmark_class(task)
    plan = make_plan(settings, need_weights=False)
    # Of a benchmark that a card asks under other settings alone, that variant is meant.
    for request in plan.render(task if task in plan.tasks else next(iter(plan.tasks))):
        yield json_line(_prompt_json(request))


def _prompt_json(request: Rendered) -> dict[str, Any]:
    sampling = request.sampling
    line: dict[str, Any] = {
        "id": request.item_id,
        "prompt": request.text.removeprefix(BEGIN_OF_TEXT),
        "prompt_token_ids": list(request.token_ids),
        "sampling": {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "n": sampling.n,
            "max_tokens": sampling.max_tokens,
            "stop": list(sampling.stop),
        },
        "max_new_tokens": request.max_new_tokens,
    }
    if request.candidates:
        line["candidates"] = dict(request.candidates)
    if request.scored:
        line["scored_token_ids"] = [list(map(list, pair)) for pair in pairs_of(request.scored)]
    return line


_SHOWN_APART = ("outputs", "findings", "choice_logprobs", "loglikelihoods", "reasoning")


def _likelihoods(rows: list[list[Any]]) -> str:
    """A line a continuation, in the order of the prompt's."""
    return "\n".join(
        f"{float(logprob):12.4f}  {n} tokens{'  greedy' if is_greedy else ''}"
        for logprob, is_greedy, n in rows
    )


def describe_item(folder: Path, item_id: str, data: Path | None) -> str:
    """Everything behind one item of a run, as text.

    Raises InputError when the run has no such item. What is not on this machine (store, data) is
    said to be missing.
    """
    run = RunFolder(folder)
    record = run.read_json("run.json")
    task, _, own = item_id.partition("/")
    if task not in record["tasks"]:
        raise InputError(f"{folder} has no task {task!r}. {nearest(task, record['tasks'])}")
    if task in record.get("skipped", {}):
        raise InputError(f"{folder} has no answers for {task}: {record['skipped'][task]}.")
    rows = {row["id"]: row for row in run.samples(task)}
    if item_id not in rows:
        raise InputError(f"{folder} has no item {item_id!r}. {nearest(item_id, rows)}")
    row = rows[item_id]
    parts = [item_id, *_prompts(run, record, ItemId(item_id))]
    if "choice_logprobs" in row:
        parts.append("── log-probabilities\n" + to_json(row["choice_logprobs"]))
    if "loglikelihoods" in row:
        parts.append("── log-likelihoods\n" + _likelihoods(row["loglikelihoods"]))
    outputs = row.get("outputs", [])
    ends = row.get("finish_reasons", ["end not recorded"] * len(outputs))
    told, counted = row.get("reasoning", []), row.get("n_reasoning_tokens", [])
    for index, (output, end) in enumerate(zip(outputs, ends, strict=True)):
        if index < len(told) and told[index] is not None:
            n = counted[index] if index < len(counted) else None
            tokens = f" ({n:,} tokens)" if n is not None else ""
            parts.append(f"── reasoning, not graded{tokens}\n{told[index]}")
        parts.append(f"── {'output' if len(outputs) == 1 else f'output {index}'} ({end})\n{output}")
    parts.append(f"── extracted\n{to_json(row.get('extracted'))}")
    parts.append(f"── gold\n{_gold(record, ItemId(item_id), data)}")
    parts.append(
        "── grade\n"
        + to_json({name: value for name, value in row.items() if name not in _SHOWN_APART})
    )
    for name, finding in row.get("findings", {}).items():
        parts.append(f"── finding {name}\n{to_json(finding)}")
    drawn = [one for one in record["tasks"] if one != task and of_draw(one)[0] == of_draw(task)[0]]
    for other in drawn:
        parts.append(f"── another draw: {other}/{own}\n{_drawn(run, other, own)}")
    return visible("\n\n".join(parts))


def _drawn(run: RunFolder, task: str, item: str) -> str:
    """Another answer to the same item, in short: its score, the answer as read, the outputs."""
    row = next((row for row in run.samples(task) if row["id"] == f"{task}/{item}"), None)
    if row is None:
        return "(not answered)"
    scores = {name: row[name] for name in ("score", "scores", "extracted") if name in row}
    return "\n".join([to_json(scores, indent=None), *row.get("outputs", ())])


def _prompts(run: RunFolder, record: dict[str, Any], item_id: ItemId) -> list[str]:
    path = run.store_of(record)
    if path is None:
        return ["── prompt\n(the run's store is not here; `evals prompts` renders it again)"]
    store = Store(path, read_only=True)
    try:
        prompts = store.prompts(record["run_key"], item_id)
    finally:
        store.close()
    return [
        f"── prompt{' of ' + name if name else ''}\n{text}"
        for name, text in sorted(prompts.items())
        if text
    ]


def _gold(record: dict[str, Any], item_id: ItemId, data: Path | None) -> str:
    try:
        benchmark, items = run_items(record, item_id.partition("/")[0], data)
    except InputError as error:
        return f"(the data is not here: {error})"
    found = next((item for item in items if item.id == item_id), None)
    return benchmark.gold(found) if found is not None else "(not in the data)"
