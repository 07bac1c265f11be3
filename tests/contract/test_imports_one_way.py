"""The house has one direction: tasks know the nouns, the engine runs tasks, the command line runs
the engine.
"""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOR_TASKS = {
    f"evals.{name}"
    for name in ("records", "benchmark", "data.dataset", "data.files", "stats", "extract", "errors")
}
EDGES = ("evals/commands/", "evals/runs/progress.py")
"""Where the process meets its user."""
JAIL = "evals/sandbox/jail/"
IN_A_PROCESS_OF_ITS_OWN = (
    JAIL,
    "evals/generators/keeper.py",
    "evals/generators/copy_process.py",
)
HEAVY = {
    "torch",
    "vllm",
    "pandas",
    "transformers",
    "datasets",
    "lm_eval",
    "alpaca_eval",
    "nltk",
    "scipy",
    "sklearn",
    "openai",
    "numpy",
}


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
    """Every module a file imports, at its top or inside a function, by full name; `from evals
    import stats` gives evals.stats.

    An import from the file's own folder (the sandbox's jail, which runs outside this package) keeps
    its dots.
    """
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level:
            yield "." * node.level + (node.module or "")
        elif isinstance(node, ast.ImportFrom):
            yield from (
                f"{node.module}.{alias.name}"
                if node.module in ("evals", "tasks")
                else str(node.module)
                for alias in node.names
            )


def importers(package: str, *folders: str) -> set[str]:
    """The files that import a package."""
    return {
        name_of(file)
        for file in sources(*folders)
        if any(name.split(".")[0] == package for name in imports(tree(file)))
    }


def test_the_walk_sees_the_files_it_is_about() -> None:
    assert {"evals/data/hub.py", "evals/generators/vllm.py", "tasks/gsm8k.py"} <= {
        name_of(file) for file in sources("evals", "tasks")
    }
    assert set(
        imports(
            ast.parse(
                "import a.b\ndef f():\n    from evals import stats\n    from tasks.x import y"
            )
        )
    ) == {"a.b", "evals.stats", "tasks.x"}


@pytest.mark.parametrize("file", sources("tasks"), ids=name_of)
def test_a_task_imports_nothing_of_the_engine_but_its_nouns(file: Path) -> None:
    of_ours = {name for name in imports(tree(file)) if name.split(".")[0] == "evals"}
    assert of_ours <= FOR_TASKS


def test_the_engine_never_imports_a_task_by_name() -> None:
    assert importers("tasks", "evals", "scripts") == set()


def test_only_the_engine_what_runs_in_it_its_devices_and_its_parsers_import_vllm() -> None:
    assert importers("vllm", "evals", "tasks", "scripts") == {
        "evals/generators/checkpoint.py",
        "evals/generators/engine_args.py",
        "evals/generators/placing.py",
        "evals/generators/reasoning_parsers.py",
        "evals/generators/scored_rows.py",
        "evals/generators/vllm.py",
    }


def test_only_one_module_imports_datasets() -> None:
    assert importers("datasets", "evals", "tasks", "scripts") == {"evals/data/hub.py"}


def prints_or_exits(module: ast.Module) -> bool:
    """Whether a file calls print, exit, sys.exit or os._exit, writes to the standard streams or
    raises SystemExit.
    """
    for node in ast.walk(module):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in ("print", "exit", "quit")
        ):
            return True
        if isinstance(node, ast.Attribute) and ast.unparse(node) in (
            "sys.exit",
            "os._exit",
            "sys.stdout",
        ):
            return True
        if (
            isinstance(node, ast.Name)
            and node.id == "SystemExit"
            and isinstance(node.ctx, ast.Load)
        ):
            return True
    return False


def test_only_the_edges_print_or_exit() -> None:
    found = {name_of(file) for file in sources("evals", "tasks") if prints_or_exits(tree(file))}
    assert {
        name for name in found if not name.startswith((*EDGES, *IN_A_PROCESS_OF_ITS_OWN))
    } == set()
    assert "evals/commands/app.py" in found


def test_imports_from_the_own_folder_stay_in_the_jail() -> None:
    relative = {
        name_of(file)
        for file in sources("evals", "tasks", "scripts")
        if any(n.startswith(".") for n in imports(tree(file)))
    }
    assert all(name.startswith(JAIL) for name in relative)


ROOMS = (
    "errors", "records", "extract", "stats",
    "storage", "sandbox", "cards", "data", "models", "benchmark", "registry", "tasks",
    "generators", "plan", "runs", "report", "compare", "fidelity",
    "evals", "commands", "__main__", "scripts",
)  # fmt: skip
"""The house from the ground up: each room uses only rooms before it. "evals" is the package's own
front, `evals.run`.
"""
MOST = {"rooms": 24, "floors": 12, "arrows": 123}
"""What a stranger can take in. The harnesses beside us have 9 to 15 floors and 39 to 168 arrows, of
which up to 75 run back up.
"""


def room_of(module: str) -> str:
    """The room of a module, by its full name: a folder of evals, a file that lies in evals itself,
    tasks or scripts.
    """
    package, *rest = module.split(".")
    return rest[0] if package == "evals" and rest not in ([], ["__version__"]) else package


def module_of(file: Path) -> str:
    """A file's full name as Python imports it."""
    return name_of(file).removesuffix(".py").replace("/", ".").removesuffix(".__init__")


def house() -> dict[str, set[str]]:
    """Each room with the rooms it uses."""
    files = sources("evals", "tasks", "scripts")
    uses: dict[str, set[str]] = {room_of(module_of(file)): set() for file in files}
    for file in files:
        of_ours = {
            room_of(used)
            for used in imports(tree(file))
            if used.split(".")[0] in ("evals", "tasks", "scripts")
        }
        uses[room_of(module_of(file))] |= of_ours - {room_of(module_of(file))}
    return uses


def test_every_room_has_its_place_in_the_house() -> None:
    assert set(house()) == set(ROOMS)


def test_rooms_use_only_the_rooms_below_them() -> None:
    back_up = {
        (room, used)
        for room, rooms in house().items()
        for used in rooms
        if ROOMS.index(used) >= ROOMS.index(room)
    }
    assert back_up == set()


def test_the_house_can_be_taken_in_at_a_glance() -> None:
    uses = house()
    floor: dict[str, int] = {}
    for room in ROOMS:
        floor[room] = 1 + max((floor[used] for used in uses[room]), default=0)
    counted = {
        "rooms": len(uses),
        "floors": max(floor.values()),
        "arrows": sum(map(len, uses.values())),
    }
    assert all(counted[what] <= most for what, most in MOST.items()), counted


def test_a_room_says_in_a_sentence_what_lives_there() -> None:
    rooms = sorted((ROOT / "evals").glob("*/__init__.py"))
    assert {file.parent.name for file in rooms} <= set(ROOMS)
    assert [name_of(file) for file in rooms if not ast.get_docstring(tree(file))] == []


@pytest.mark.parametrize("file", sources("evals", "tasks"), ids=name_of)
def test_nothing_heavy_is_imported_at_the_top_of_a_module(file: Path) -> None:
    top = ast.Module(
        [node for node in tree(file).body if isinstance(node, ast.Import | ast.ImportFrom)], []
    )
    heavy = {name.split(".")[0] for name in imports(top)} & HEAVY
    assert heavy == set()


COMMANDS = {
    "help": "--help",
    "run help": "run --help",
    "published table": "report --published",
    "tasks": "tasks",
}


@pytest.mark.parametrize("arguments", COMMANDS.values(), ids=COMMANDS)
def test_a_light_command_loads_no_heavy_package(arguments: str) -> None:
    probe = (
        "import atexit, sys\n"
        f"atexit.register(lambda: print('HEAVY', *sorted(set(sys.modules) & {HEAVY!r})))\n"
        f"sys.argv = ['evals', *{arguments.split()!r}]\n"
        "from evals.commands.app import main\nmain()\n"
    )
    environment = {**os.environ, "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, "-c", probe],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) > 5
    assert done.stdout.splitlines()[-1] == "HEAVY"
