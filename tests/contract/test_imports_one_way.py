"""The house has one direction: tasks know the nouns, the engine runs tasks, the command line runs the engine."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOR_TASKS = {f"evals.{name}" for name in ("records", "benchmark", "data", "files", "stats", "extract", "errors")}
COMMANDS = {"evals/cli.py", "evals/commands/compare.py", "evals/commands/report.py"}
EDGES = COMMANDS | {"evals/commands/interrupt.py", "evals/progress.py", "evals/fidelity/reproduce.py"}
"""Where the process meets its user; interrupt is the command line's Ctrl-C, reproduce the command behind scripts/reproduce."""
IN_A_PROCESS_OF_ITS_OWN = "evals/sandbox/jail/"
HEAVY = {"torch", "vllm", "pandas", "transformers", "datasets", "lm_eval", "alpaca_eval", "nltk", "scipy", "sklearn", "openai", "numpy"}


def sources(*folders: str) -> list[Path]:
    """The Python files of some folders."""
    return sorted(file for folder in folders for file in (ROOT / folder).rglob("*.py"))


def name_of(file: Path) -> str:
    """A file's path below the root, as people write it."""
    return file.relative_to(ROOT).as_posix()


def tree(file: Path) -> ast.Module:
    """A file's syntax tree."""
    return ast.parse(file.read_text("utf-8"))


def imports(module: ast.Module) -> Iterator[str]:
    """Every module a file imports, at its top or inside a function, by full name; `from evals import stats` gives evals.stats.

    An import from the file's own folder (the sandbox's jail, which runs outside this package) keeps its dots.
    """
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level:
            yield "." * node.level + (node.module or "")
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" if node.module in ("evals", "tasks") else str(node.module) for alias in node.names)


def importers(package: str, *folders: str) -> set[str]:
    """The files that import a package."""
    return {name_of(file) for file in sources(*folders) if any(name.split(".")[0] == package for name in imports(tree(file)))}


def test_the_walk_sees_the_files_it_is_about() -> None:
    assert {"evals/data.py", "evals/generators/vllm.py", "tasks/gsm8k.py"} <= {name_of(file) for file in sources("evals", "tasks")}
    assert set(imports(ast.parse("import a.b\ndef f():\n    from evals import stats\n    from tasks.x import y"))) == {
        "a.b",
        "evals.stats",
        "tasks.x",
    }


@pytest.mark.parametrize("file", sources("tasks"), ids=name_of)
def test_a_task_imports_nothing_of_the_engine_but_its_nouns(file: Path) -> None:
    of_ours = {name for name in imports(tree(file)) if name.split(".")[0] == "evals"}
    assert of_ours <= FOR_TASKS


def test_the_engine_never_imports_a_task_by_name() -> None:
    assert importers("tasks", "evals", "scripts") == set()


def test_only_one_module_imports_vllm() -> None:
    assert importers("vllm", "evals", "tasks", "scripts") == {"evals/generators/vllm.py"}


def test_only_one_module_imports_datasets() -> None:
    assert importers("datasets", "evals", "tasks", "scripts") == {"evals/data.py"}


def prints_or_exits(module: ast.Module) -> bool:
    """Whether a file calls print, exit, sys.exit or os._exit, writes to the standard streams or raises SystemExit."""
    for node in ast.walk(module):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("print", "exit", "quit"):
            return True
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("sys.exit", "os._exit", "sys.stdout"):
            return True
        if isinstance(node, ast.Name) and node.id == "SystemExit" and isinstance(node.ctx, ast.Load):
            return True
    return False


def test_only_the_edges_print_or_exit() -> None:
    found = {name_of(file) for file in sources("evals", "tasks") if prints_or_exits(tree(file))}
    assert {name for name in found if not name.startswith(IN_A_PROCESS_OF_ITS_OWN)} <= EDGES
    assert "evals/cli.py" in found


def test_imports_from_the_own_folder_stay_in_the_jail() -> None:
    relative = {name_of(file) for file in sources("evals", "tasks", "scripts") if any(n.startswith(".") for n in imports(tree(file)))}
    assert all(name.startswith(IN_A_PROCESS_OF_ITS_OWN) for name in relative)


def test_no_engine_module_imports_the_command_line() -> None:
    allowed = {"evals/__main__.py", "evals/cli.py", "evals/fidelity/reproduce.py"}
    users = {name_of(file) for file in sources("evals", "tasks") if "evals.cli" in set(imports(tree(file)))}
    assert users <= allowed


ROOMS = {"engine": 0, "report": 1, "compare": 2, "fidelity": 3, "commands": 4}
"""Each room may use those before it. The engine is what lies in evals/ itself, the generators and the sandbox."""
LOOKING_AHEAD = {
    ("evals/summary.py", "report"),  # the Average's rule, which the table owns
    ("evals/runner.py", "report"),  # a result's own table
    ("evals/runner.py", "compare"),  # what drop a limited run could show, said before it is paid for
    ("evals/dry_run.py", "compare"),
}


def room_of(dotted: str) -> str:
    """The room a module of evals lies in."""
    part = dotted.split(".")[1] if "." in dotted else ""
    return part if part in ROOMS else "commands" if part == "cli" else "engine"


def test_rooms_use_only_the_rooms_before_them() -> None:
    ahead = {
        (name_of(file), room_of(used))
        for file in sources("evals")
        for used in imports(tree(file))
        if used.startswith("evals.") and ROOMS[room_of(used)] > ROOMS[room_of(name_of(file).removesuffix(".py").replace("/", "."))]
    }
    assert {entry for entry in ahead if entry[0] != "evals/__main__.py"} == LOOKING_AHEAD


@pytest.mark.parametrize("file", sources("evals", "tasks"), ids=name_of)
def test_nothing_heavy_is_imported_at_the_top_of_a_module(file: Path) -> None:
    top = ast.Module([node for node in tree(file).body if isinstance(node, ast.Import | ast.ImportFrom)], [])
    heavy = {name.split(".")[0] for name in imports(top)} & HEAVY
    assert heavy == set()


COMMANDS = {"help": "--help", "run help": "run --help", "published table": "report --published", "tasks": "tasks"}


@pytest.mark.parametrize("arguments", COMMANDS.values(), ids=COMMANDS)
def test_a_light_command_loads_no_heavy_package(arguments: str) -> None:
    probe = (
        "import atexit, sys\n"
        f"atexit.register(lambda: print('HEAVY', *sorted(set(sys.modules) & {HEAVY!r})))\n"
        f"sys.argv = ['evals', *{arguments.split()!r}]\n"
        "from evals.cli import main\nmain()\n"
    )
    environment = {**os.environ, "COLUMNS": "200"}
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) > 5
    assert done.stdout.splitlines()[-1] == "HEAVY"
