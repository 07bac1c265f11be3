"""How many of lm-evaluation-harness's own tasks are accepted here, and why the others are not. No
data is loaded: every task's file is read, its functions are imported, and its requests are built on
invented rows that have whatever field is asked of them.

    python -m scripts.proof.harness_accepts [--every N] [--list REASON]

A task whose own code wants more of a row than an invented one has is counted apart: nothing says
that it would be refused. --every N: only each Nth name.
"""

import argparse
import collections
import contextlib
import io
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any

from evals.errors import EvalsError, first_line

# By name, as the registry does: nothing but it knows what lies among the benchmarks.
build, names, task_module = (
    import_module(f"tasks.harness.{part}") for part in ("build", "names", "task")
)

ACCEPTED, WITH_A_FLAG = "accepted", "accepted with --confirm-run-unsafe-code"
PARSED = "read, but its own code wants more of a row than an invented one has"


class Row(dict[str, Any]):
    """A document with every field."""

    def __missing__(self, name: str) -> Any:
        return ["a b", "c", "d e", "f"] if re.search("choice|option|ending", name) else "1 b"

    def get(self, name: str, default: Any = None) -> Any:
        """A field, there or not."""
        return self[name]


class Value(str):
    """A text that also has fields."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return ["a b", "c", "d e", "f"]


class Rows(list[Any]):
    """As much of a data set as tasks use."""

    def __init__(self, rows: Any = ()) -> None:
        super().__init__(rows)
        self.features: dict[str, Any] = {}

    def map(self, change: Callable[[Any], Any], *_: Any, **__: Any) -> "Rows":
        """Every row changed."""
        return Rows([Row({**row, **(change(row) or {})}) for row in self])

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *_, **__: self


_LISTS = re.compile("choice|option|ending|candidate|distractor")
_TEMPLATES = ("doc_to_text", "doc_to_target", "doc_to_choice", "description", "gen_prefix")


def _with_columns(config: Mapping[str, Any]) -> Rows:
    """Rows whose columns are those that the task's file names."""
    from jinja2 import Environment, meta

    fewshot = config.get("fewshot_config")
    texts = {key: config.get(key) for key in _TEMPLATES}
    texts |= {f"few {k}": v for k, v in (fewshot if isinstance(fewshot, dict) else {}).items()}
    column: dict[str, Any] = {}
    for key, text in texts.items():
        if not isinstance(text, str) or "/" in text.partition("{")[0]:
            continue
        named = {text} if re.fullmatch(r"\w+", text) else set()
        names_in = named or meta.find_undeclared_variables(Environment().parse(text))
        for name in names_in:
            whole = key.endswith("doc_to_choice") and text.strip("{} ") == name
            is_place = key.endswith("doc_to_target") and config.get("doc_to_choice")
            value = ["a b", "c", "d e", "f"] if whole or _LISTS.search(name) else Value("1 b")
            column.setdefault(name, 0 if is_place and not _LISTS.search(name) else value)
        for inner, name in re.findall(r"\[([^]]*)\]\.index\(\s*(\w+)", text):
            column[name] = inner.split(",")[0].strip(" '\"")
    rows = Rows(Row({"at": n, **column}) for n in range(40))
    rows.features = {name: None for name in column}
    return rows


def verdict(name: str) -> str:
    """What becomes of a task."""
    try:
        config = names.config_of(name)
        if any(config.get(key) for key in ("doc_to_image", "doc_to_audio")):
            return "shows pictures or sounds"
        if names.known(name).kind == "PY_TASK":
            return "a Python class: it says what it measures only with its data"
        if not names.measures(config):
            return "names no metric"
        if config.get("output_type", "generate_until") == "generate_until":
            build.sampling_of(name, config.get("generation_kwargs") or {}, 1)
    except EvalsError as error:
        return re.sub(r"\S*" + re.escape(name) + r"\S*:?", "", str(error)).strip()[:90]
    except Exception as error:  # noqa: BLE001 whatever a file may hold
        return f"cannot be read ({type(error).__name__}: {first_line(error)[:60]})"
    return _built(name, config)


def _built(name: str, config: Mapping[str, Any]) -> str:
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.tasks._yaml_loader import load_yaml

    class Invented(ConfigurableTask):  # type: ignore[misc]
        def download(self, *_: Any, **__: Any) -> None:
            rows = _with_columns(config)
            self.dataset: Any = collections.defaultdict(lambda: rows)

    path = names.known(name).path
    try:
        whole = load_yaml(path, resolve_func=True)
    except Exception as error:  # noqa: BLE001 a task's own code
        return f"its code cannot be imported ({type(error).__name__}: {first_line(error)[:60]})"
    try:
        task = Invented(config={k: v for k, v in whole.items() if k not in ("tag", "group")})
        task.shots_of_its_own = task.get_config("num_fewshot")
        for item in build.items_of(name, task, task_module.Settings(limit=2), name):
            build.request_of(item)
    except EvalsError as error:
        if "cannot build its prompts" in str(error):
            return f"{PARSED}: {error}"
        return re.sub(r"\S*" + re.escape(name) + r"\S*", "", str(error)).strip()[:90]
    except Exception as error:  # noqa: BLE001 a task's own code on rows that are none of its own
        return f"{PARSED}: {type(error).__name__}: {first_line(error)[:70]}"
    return WITH_A_FLAG if whole.get("unsafe_code") else ACCEPTED


def verdicts(every: int) -> Iterator[tuple[str, str]]:
    """Each task with what becomes of it."""
    names.package()
    known = names._shipped()
    listed = [name for name, one in known.items() if one.kind in ("TASK", "PY_TASK")]
    for name in listed[::every]:
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            found = verdict(name)
        yield name, found


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--list", default="")
    given = parser.parse_args()
    counts: collections.Counter[str] = collections.Counter()
    for name, found in verdicts(given.every):
        counts[found] += 1
        if given.list and given.list in found:
            print(name, found, file=sys.stderr)
    print(json.dumps({"tasks": sum(counts.values()), "verdicts": counts.most_common()}, indent=1))


if __name__ == "__main__":
    main()
