"""What lm-evaluation-harness knows by name: tasks, groups, tags, with their configurations as they
stand in its YAML files. Nothing here loads data or runs a task's code.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from evals.errors import InputError, TaskFault, first_line, nearest
from evals.records import Measure

PREFIX = "lm-eval:"
"""How its names are written on the command line and in a card."""
NAME = "lm-eval."
"""How they begin in ids and file names, which a colon does not suit."""
INCLUDE = "EVALS_INCLUDE_PATH"
"""Folders of the user's own task files, as PATH lists folders; --include-path adds to it."""
UNSAFE = "EVALS_CONFIRM_RUN_UNSAFE_CODE"
"""Set where tasks may run code that a model wrote; --confirm-run-unsafe-code sets it."""
TRUST = "HF_DATASETS_TRUST_REMOTE_CODE"
"""By which `datasets` may run code that comes with data; --trust-remote-code sets it."""
_OF_DATA = ("dataset_path", "dataset_name", "dataset_kwargs", "include")
"""Keys that say where the data lie; their rows have a hash of their own."""
_EXECUTES = re.compile(r"\bexec\(|\bsubprocess\.|\bPopen\(")

Config = Mapping[str, Any]


@dataclass(frozen=True)
class Known:
    """A name. kind: TASK, PY_TASK, GROUP or TAG.  path: its file.  tasks: of a tag."""

    kind: str
    path: str | None
    tasks: tuple[str, ...] = ()


def find(name: str) -> Known | None:
    """What a name stands for; the user's own folders come before what lm-eval brings."""
    return _own(os.environ.get(INCLUDE, "")).get(name) or _shipped().get(name)


@cache
def _own(folders: str) -> dict[str, Known]:
    found: dict[str, Known] = {}
    for folder in filter(None, folders.split(os.pathsep)):
        if not os.path.isdir(folder):
            raise InputError(f"--include-path {folder} is not a folder.")
        found |= _indexed(Path(folder))
    return found


@cache
def _shipped() -> dict[str, Known]:
    """Those that come with lm-evaluation-harness. To read its 14,000 files takes ten seconds, so
    what stands where is kept, for this version of it.
    """
    root = Path(str(package().__file__)).resolve().parent / "tasks"
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "evals"
    kept = base / f"lm-eval-{metadata.version('lm_eval')}.json"
    stamp = [str(root), root.stat().st_mtime_ns]
    try:
        content = json.loads(kept.read_text("utf-8"))
        if content["of"] == stamp:
            return {name: Known(k, p, tuple(t)) for name, (k, p, t) in content["names"].items()}
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        pass
    found = _indexed(root)
    names = {name: [one.kind, one.path, one.tasks] for name, one in found.items()}
    try:
        base.mkdir(parents=True, exist_ok=True)
        fresh = kept.with_suffix(f".{os.getpid()}")
        fresh.write_text(json.dumps({"of": stamp, "names": names}), "utf-8")
        fresh.replace(kept)
    except OSError:
        pass  # it is read again next time
    return found


def _indexed(folder: Path) -> dict[str, Known]:
    from lm_eval.tasks._index import TaskIndex

    return {
        name: Known(
            one.kind.name, str(one.yaml_path) if one.yaml_path else None, tuple(sorted(one.tags))
        )
        for name, one in TaskIndex.build([folder]).items()
    }


def package() -> Any:
    """lm_eval itself. Raises InputError where it cannot be imported."""
    try:
        import lm_eval
    except Exception as error:
        raise InputError(
            f"lm-evaluation-harness cannot be imported ({first_line(error)}). Install it: pip"
            " install 'lm-eval>=0.4.13'."
        ) from error
    return lm_eval


def known(name: str) -> Known:
    """One name. Raises InputError with the nearest ones and with files that could not be read;
    TaskFault where the name is in one of these.
    """
    if (one := find(name)) is not None:
        return one
    unreadable = _unreadable()
    meant = re.compile(rf"""^(task|group)\s*:\s*['"]?{re.escape(name)}['"]?\s*$""", re.MULTILINE)
    for path, why in unreadable.items():
        if path.stem == name or meant.search(path.read_text("utf-8", "replace")):
            raise TaskFault(f"{PREFIX}{name}: {why}")
    names = {**_shipped(), **_own(os.environ.get(INCLUDE, ""))}
    said = "".join(f" {why}" for why in unreadable.values())
    raise InputError(
        f"lm-evaluation-harness has no task {name[:99]!r}. {nearest(name, names)}{said}"
    )


def _unreadable() -> dict[Path, str]:
    """Files of the user's own that lm-evaluation-harness passed over, and why."""
    said = {}
    for folder in filter(None, os.environ.get(INCLUDE, "").split(os.pathsep)):
        for path in sorted(Path(folder).rglob("*.yaml")):
            try:
                config = _config(str(path), os.stat(path).st_mtime_ns)
            except InputError as error:
                said[path] = str(error)
            else:
                if not {"task", "group", "class"} & set(config):
                    said[path] = f"{path.name} names no task and no group."
    return said


def _plain(path: str) -> dict[str, Any]:
    """A file's content, included ones taken in; functions are names."""
    from lm_eval.tasks._yaml_loader import load_yaml

    found: dict[str, Any] = load_yaml(path, resolve_func=False)
    return found


def members(name: str, *, deep: bool = True) -> list[tuple[str, Config]]:
    """The tasks behind a name, each with its configuration; a group's with what it changes.

    deep: False to have the groups within a group as they are.
    """
    one = known(name)
    if one.kind == "GROUP":
        return list(_of_group(name, config_of(name), {}, deep))
    return list(_members(name, {}))


def _members(name: str, changes: Config) -> Iterator[tuple[str, Config]]:
    one = known(name)
    if one.kind == "TAG":
        for task in one.tasks:
            yield from _members(task, changes)
    elif one.kind == "GROUP":
        yield from _of_group(name, config_of(name), changes)
    else:
        yield name, {**config_of(name), **changes}


def _of_group(
    name: str, config: Config, changes: Config, deep: bool = True
) -> Iterator[tuple[str, Config]]:
    from lm_eval.tasks._factory import GROUP_FIELD_NAMES

    own = {key: value for key, value in config.items() if key not in GROUP_FIELD_NAMES}
    changes = {**own, **changes}
    tasks = config.get("task") or []
    for member in [tasks] if isinstance(tasks, str) else tasks:
        given: dict[str, Any] = {"task": member} if isinstance(member, str) else dict(member)
        inner = str(given.get("group") or given.get("task"))
        if find(inner) and not deep:
            yield inner, {}
        elif find(inner):
            new = {key: value for key, value in given.items() if key not in ("group", "task")}
            yield from _members(inner, {**changes, **new})
        elif "group" in given:
            yield from _of_group(f"{name}::{inner}", given, changes)
        else:
            yield f"{name}::{inner}", {**changes, **given}


@cache
def _config(path: str, stamp: int) -> Config:
    try:
        return _plain(path)
    except Exception as error:
        raise TaskFault(
            f"{Path(path).name} cannot be read as a task of lm-evaluation-harness"
            f" ({first_line(error)})."
        ) from error


def config_of(name: str) -> Config:
    """A task's or group's configuration."""
    path = known(name).path
    return _config(path, os.stat(path).st_mtime_ns) if path else {}


def version_of(config: Config) -> str:
    """Of a task or group, as its author counts; "" where there is none."""
    about = config.get("metadata")
    return str(about.get("version", "")) if isinstance(about, Mapping) else ""


def is_set(variable: str) -> bool:
    """Whether a variable of the environment says yes, as `datasets` reads its own."""
    return os.environ.get(variable, "").upper() in ("1", "ON", "YES", "TRUE")


def content_of(name: str) -> str:
    """Hexadecimal digits that stand for the files of a name's tasks, wherever these and their data
    lie: configurations, and the Python files of their functions (not what those import).
    """
    digest = hashlib.sha256()
    for config in (config_of(name), *(one for _, one in members(name))):
        own = {key: value for key, value in config.items() if key not in _OF_DATA}
        digest.update(json.dumps(_placeless(own), sort_keys=True, default=str).encode())
        for path in _modules(own):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _placeless(part: Any) -> Any:
    if isinstance(part, Mapping):
        return {str(key): _placeless(value) for key, value in part.items()}
    if isinstance(part, list):
        return [_placeless(one) for one in part]
    # A function's name has its file's folder before it; a text may begin with a slash, too.
    return part.rpartition(os.sep)[2] if isinstance(part, str) and any(_modules(part)) else part


def runs_programs(config: Config) -> str:
    """Where a task's programs, which the model writes, are executed: "sandbox", or "here", by its
    own code in this process; "" where none are.
    """
    parts = (config.get(key) for key in ("metric_list", "process_results", "filter_list", "class"))
    code = "".join(path.read_text("utf-8", "replace") for part in parts for path in _modules(part))
    if _EXECUTES.search(code):
        return "here"
    if re.search(r"""load\(\s*["']code_eval""", code):
        return "sandbox"
    return "here" if config.get("unsafe_code") else ""


def _modules(part: Any) -> Iterator[Path]:
    """The files of the functions that stand in a part of a configuration."""
    if isinstance(part, Mapping):
        part = list(part.values())
    if isinstance(part, list):
        for one in part:
            yield from _modules(one)
    elif isinstance(part, str) and part.startswith(os.sep):
        # As lm-eval finds it: below the task's folder, else where Python does.
        folder, _, function = part.rpartition(os.sep)
        module = function.split(".")[:-1]
        places = [Path(folder, *module).with_suffix(".py"), *_importable(module)]
        yield from [path for path in places if path.is_file()][:1]


def _importable(module: Sequence[str]) -> list[Path]:
    """Where a module may lie that Python can import; nothing is imported."""
    top = find_spec(module[0]) if module and module[0].isidentifier() else None
    if top is None:
        return []
    if not module[1:]:
        return [Path(top.origin or "")]
    inside = [Path(one, *module[1:]) for one in top.submodule_search_locations or ()]
    return [path for one in inside for path in (one.with_suffix(".py"), one / "__init__.py")]


# --- what is measured -----------------------------------------------------------------------------


def measure_name(metric: str, filtered: str) -> str:
    """A metric under a filter, as a card names it: acc, or exact_match,strict-match."""
    return metric if filtered == "none" else f"{metric},{filtered}"


def measures(config: Config) -> tuple[Measure, ...]:
    """What a task measures, by its configuration alone."""
    from lm_eval.api import registry

    listed = config.get("metric_list") or [
        {"metric": name}
        for name in registry.DEFAULT_METRIC_REGISTRY.get(config.get("output_type"), ())
    ]
    filters = [one["name"] for one in config.get("filter_list") or [{"name": "none"}]]
    found = []
    for one in listed:
        # A function stands there as the path of its module and its name.
        metric = str(one["metric"]).rpartition("/")[2].rpartition(".")[2]
        better = one.get("higher_is_better")
        if better is None:
            better = registry.is_higher_better(metric)
        # A function of pass@k gives each k, one or a list of them, under a name of its own.
        ks = one.get("k") if "pass" in metric else None
        names = [f"pass@{k}" for k in ([ks] if isinstance(ks, int) else ks)] if ks else [metric]
        found += [_measure(n, kind, better is not False) for n in names for kind in filters]
    return tuple(dict.fromkeys(found))


def _measure(metric: str, filtered: str, higher: bool) -> Measure:
    name = measure_name(metric, filtered)
    words = f"{name} as lm-evaluation-harness counts it"
    return Measure(name, words, metric, not higher, bool(_SHARE.match(metric)))


_SHARE = re.compile(r"acc(_|$)|exact_match$|em$|f1$|pass(@|_at_)")
"""Metrics that are printed in percent; of any other its number, in its own unit, is never wrong."""


@dataclass(frozen=True)
class Weighing:
    """How a group's metric is made of its tasks': each weighing as its items are many, or all the
    same.
    """

    metric: str
    filters: tuple[str, ...] | None
    by_size: bool


def weighings(config: Config) -> tuple[Weighing, ...]:
    """A group's, none where it is only a name for several tasks."""
    from lm_eval.config.group import GroupConfig

    listed = GroupConfig("", aggregate_metric_list=config.get("aggregate_metric_list"))
    return tuple(
        Weighing(one.metric, None if one.filter_list is None else tuple(one.filter_list),
                 one.weight_by_size)
        for one in listed.aggregate_metric_list or ()
    )  # fmt: skip


def group_measures(
    rules: Sequence[Weighing], tasks: Sequence[tuple[str, Config]]
) -> tuple[Measure, ...]:
    """What a group measures: of its tasks' measures those that it weighs."""
    of_tasks = dict.fromkeys(one for _, config in tasks for one in measures(config))
    return tuple(one for one in of_tasks if weighing_of(one.name, rules))


def weighing_of(measure: str, rules: Sequence[Weighing]) -> Weighing | None:
    """The rule for a measure; None where the group has none."""
    metric, _, filtered = measure.partition(",")
    for rule in rules:
        if rule.metric == metric and (rule.filters is None or (filtered or "none") in rule.filters):
            return rule
    return None
