"""Which items of a benchmark a run asks, and why one is not asked at all."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from evals.benchmark import Benchmark, chat_only, roles_needed, roles_of
from evals.data.dataset import LoadedSource
from evals.errors import InputError, TaskFault
from evals.generators.replay import Recorded
from evals.plan.judges import Judge
from evals.plan.settings import RunSettings
from evals.records import Item, ItemId
from evals.storage.spool import Scratch, Spool

LIMIT_SEED = 42


@dataclass(frozen=True, slots=True)
class TaskPlan:
    """One benchmark's share of a run. skipped: why nothing is asked for it (None: it is run).
    is_broken: because it cannot be asked, though it was to be.
    """

    benchmark: Benchmark[Any]
    items: Sequence[Item]
    source: LoadedSource
    skipped: str | None = None
    is_broken: bool = False


def plan_task(
    benchmark: Benchmark[Any],
    source: LoadedSource,
    settings: RunSettings,
    judges: Mapping[str, Judge],
    recorded: Mapping[ItemId, Recorded],
) -> TaskPlan:
    """The benchmark's items under these settings. Raises InputError where ids are not unique or
    recorded rows match none.
    """
    items: Sequence[Item] = Spool(benchmark.named_items(source))
    _check_ids(benchmark, items, settings.model, recorded)
    if settings.suite == "card":
        items = benchmark.drawn(items)
    if settings.limit is not None:
        items = spread(items, settings.limit)
    why = None if recorded else _no_chat(benchmark)
    if why is None and not settings.tasks and not recorded:
        why = _why_skipped(benchmark, judges)
    # The rows have done their work.
    return TaskPlan(benchmark, items, replace(source, tables={}), why)


def _check_ids(
    benchmark: Benchmark[Any],
    items: Sequence[Item],
    model: str,
    recorded: Mapping[ItemId, Recorded],
) -> None:
    """Raise InputError when two items have one id, or recorded rows of this benchmark match no
    item.
    """
    ids = Scratch("id TEXT PRIMARY KEY")
    n_matched = 0
    for item in items:
        if not ids.ask("INSERT OR IGNORE INTO rows VALUES (?)", item.id).rowcount:
            raise InputError(
                f"{benchmark.name}: two of its items have the id {item.id}. Give each item its own."
            )
        n_matched += item.id in recorded
    own = f"{benchmark.name}/"
    # Counted first: which rows they are is gathered, in memory, only when there are any.
    if sum(item_id.startswith(own) for item_id in recorded) > n_matched:
        strange = {item_id for item_id in recorded if item_id.startswith(own)} - {
            item.id for item in items
        }
        raise InputError(
            f"{model}: {len(strange)} of its rows match no item of {benchmark.name}, e.g."
            f" {min(strange)}."
        )


def _no_chat(benchmark: Benchmark[Any]) -> str | None:
    """A base model has no turns, so that what is made of them would be a prompt of nobody's."""
    needing = "" if benchmark.chat else chat_only(benchmark.settings)
    return f"{needing}: asked in a chat, and the chat format is none" if needing else None


def _why_skipped(benchmark: Benchmark[Any], judges: Mapping[str, Judge]) -> str | None:
    """Nothing is generated for a cell that cannot be had, unless the task is asked for by name."""
    if not benchmark.runs_on_base and not benchmark.chat:
        return "not run on base models, as on the card"
    if any(
        all(role in judges for role in roles_of(benchmark, column.metric))
        for column in benchmark.columns
    ):
        return None
    return no_judge(roles_needed(benchmark, benchmark.columns), benchmark.rules)


def no_judge(roles: Sequence[str], rules: Mapping[str, Any] = {}) -> str:
    """Why a cell has no value when its judge was not named, and what to set."""
    flags = " ".join(f"--judge {role}=MODEL" for role in roles)
    rule = "".join(f" (or --judge {roles[0]}={name}, which needs no model)" for name in rules)
    return f"no judge: set {flags}{rule}"


def said_of_faults(faults: Mapping[str, TaskFault]) -> list[str]:
    """Why tasks cannot be asked, the data that is not here all in one sentence."""
    lacking = {name: fault for name, fault in faults.items() if fault.lacks}
    said = [str(fault) for name, fault in faults.items() if name not in lacking]
    if lacking:
        calls = dict.fromkeys(call for fault in lacking.values() for call in fault.lacks)
        said.append(
            f"{' '.join(map(str, lacking.values()))} Where there is a network, run Python's `from"
            f" datasets import load_dataset` and {'; '.join(calls)}; or give a task file of your"
            " own that reads local files (dataset_path: json) with --include-path."
        )
    return said


def lacking(tasks: Mapping[str, TaskPlan], judges: Mapping[str, Judge], suite: str) -> list[str]:
    """What to say before anything is asked of columns that the data cannot give. The smoke suite's
    few items are not the column anyway.
    """
    if suite == "smoke":
        return []
    said = [one for task in tasks.values() if not task.skipped for one in task.benchmark.lacks()]
    return [one for one in said if one.partition(":")[0] in judges]


def spread(items: Sequence[Item], n: int) -> list[Item]:
    """n items taken evenly over their groups by a fixed seed, in the order they had."""
    rng = random.Random(LIMIT_SEED)
    groups: dict[str, list[int]] = {}
    for index, item in enumerate(items):
        groups.setdefault(item.group, []).append(index)
    # All are shuffled whatever n is, so that a larger limit keeps what a smaller one took.
    for indices in groups.values():
        rng.shuffle(indices)
    order = list(groups)
    rng.shuffle(order)
    rounds = max(map(len, groups.values()), default=0)
    taken = [
        groups[name][turn] for turn in range(rounds) for name in order if turn < len(groups[name])
    ][:n]
    return [items[index] for index in sorted(taken)]
