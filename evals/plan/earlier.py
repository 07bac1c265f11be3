"""What a run folder already holds, held against what is asked of it now."""

import os

from evals.cards.published import card_of_run
from evals.errors import InputError
from evals.models.prompting import prompts_of
from evals.plan.make import Plan
from evals.plan.reasoning import settings_of
from evals.storage.run_folder import RunFolder


def earlier_run(plan: Plan) -> list[str]:
    """What is to be said about an earlier run in the plan's folder. A folder holds one run, with
    whatever tasks and judges.

    Raises InputError where that run is one of another model, suite, limit, seed or chat format, or
    asked a task of lm-evaluation-harness in another version.
    """
    folder = RunFolder(plan.out)
    if not os.path.exists(folder.path / "run.json"):
        return []
    record = folder.read_json("run.json")
    before = record["summary_header"]
    asked = plan.settings
    now = {
        "suite": asked.suite,
        "limit": asked.limit,
        "chat_format": plan.chat_format,
        "seed": asked.engine.seed,
    }
    if (kept := card_of_run(before)).title != plan.card.title:
        raise InputError(
            f"{folder.path} holds a run of the card {kept.title!r}. Choose another --out."
        )
    for name, value in now.items():
        if before.get(name) != value:
            raise InputError(
                f"{folder.path} holds a run with {name} {before.get(name)}, this one has {value}."
                " Choose another --out."
            )
    if prompts_of(record) != asked.prompts:
        raise InputError(
            f"{folder.path} holds a run with other prompts (system prompt, template or stops)."
            " Choose another --out."
        )
    warm = before.get("sampling", {}).get("temperature")
    if warm != asked.temperature:
        raise InputError(
            f"{folder.path} holds a run at temperature {warm or 0:g} where this one has"
            f" {asked.temperature or 0:g}. Choose another --out."
        )
    room, room_now = settings_of(before).reasoning_tokens, asked.reading.reasoning_tokens
    if room != room_now:
        raise InputError(
            f"{folder.path} holds a run with {room} reasoning tokens, this one has {room_now}."
            " Choose another --out."
        )
    model = before.get("model", {})
    if model.get("fingerprint") != plan.fingerprint:
        raise InputError(
            f"{folder.path} holds a run of another model ({model.get('name')}), or in other"
            " precision. Choose another --out."
        )
    for task, about in before.get("data", {}).items():
        tables = plan.tasks[task].source.edition if task in plan.tasks else {}
        for name in tables.keys() & about["tables"].keys():
            own = about["tables"][name], tables[name]
            then, new = (one.get("version") for one in own)
            files = {one.get("asked_by") for one in own} - {None}  # older runs do not say
            if then == new and len(files) > 1:
                raise InputError(
                    f"{folder.path} holds {task} as another file of {name} asked it: its YAML, or"
                    " code of its functions, has changed since. Choose another --out."
                )
            if then != new:
                held = f"version {then}" if then else "a version that it does not say"
                raise InputError(
                    f"{folder.path} holds {task} as {held} of {name} asked it, which is version"
                    f" {new} now. Choose another --out."
                )
    notes = []
    if plan.model.kind == "server" and record.get("model") != plan.model.argument:
        notes.append(
            f"{folder.path} keeps the answers of {record.get('model')}. If this is another model,"
            " choose another --out."
        )
    if left := [
        name for name in record["tasks"] if name not in plan.tasks and name not in record["skipped"]
    ]:
        notes.append(
            f"{folder.path} had results of {', '.join(left)}, which this command leaves out: only"
            " their answers are kept, in its store."
        )
    return notes
