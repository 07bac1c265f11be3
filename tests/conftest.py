"""Folders the tests read: real data and recorded outputs, as a user's own folders."""

import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from evals.plan.settings import HUB_MODULES, OFFLINE_VARIABLES

# How long an example may take is no property of the code on a machine that others use. Examples
# that nobody has seen yet are for where somebody looks at them: in CI they are the same every
# time (--hypothesis-profile same).
PROFILE = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("house", **PROFILE)
settings.register_profile("same", **PROFILE, derandomize=True)
settings.load_profile("same" if "CI" in os.environ else "house")

# A shell that starts the tests in its background has Ctrl-C ignored, and every process below would
# inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Test processes side by side (pytest -n) keep to cores of their own: an engine's threads wait for
# each other at every step, and one that shares its core holds all of them up.
if (n_processes := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))) > 1:
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(
        0, cores[int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw")) :: n_processes] or cores
    )

# The share of the memory that an engine on a CPU takes without this is 7 GB here, and 16 s of each
# start were the filling of it with zeros.
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")

ROOT = Path(__file__).resolve().parents[1]


_GIVEN = {name: os.environ.get(name) for name in OFFLINE_VARIABLES}


@pytest.fixture(autouse=True)
def _online_again() -> Iterator[None]:
    """What `offline` set in this process, in a test or a fixture that outlives it, is undone after
    each test.
    """
    yield
    for name, value in _GIVEN.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
    for module in filter(None, map(sys.modules.get, HUB_MODULES)):
        vars(module)["HF_HUB_OFFLINE"] = _GIVEN["HF_HUB_OFFLINE"] in ("1", "ON", "YES", "TRUE")


def shared_folder(variable: str, sibling: str) -> Path:
    """The folder that a variable names, or the one of `shared` beside the repository; the test is
    skipped where neither is there.
    """
    folder = Path(os.environ.get(variable) or ROOT.parent / "shared" / sibling)
    if not folder.is_dir():
        pytest.skip(f"{variable} names no folder of {sibling}: real-data tests not run")
    return folder


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder of few characters."""
    with tempfile.TemporaryDirectory(prefix="e", dir="/tmp", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The real data sets in their public formats."""
    return shared_folder("EVALS_DATA", "data")


@pytest.fixture(scope="session")
def replay_dir() -> Path:
    """Recorded outputs of real models."""
    return shared_folder("EVALS_REPLAY", "replay")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The tests that were not run, a line each reason: how many, and the files they are in."""
    files: dict[str, list[str]] = {}
    for report in terminalreporter.stats.get("skipped", ()):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        files.setdefault(reason.removeprefix("Skipped: "), []).append(report.nodeid.split("::")[0])
    for reason, found in sorted(files.items()):
        terminalreporter.write_line(
            f"not run: {len(found):,} tests of {', '.join(sorted(set(found)))} ({reason})"
        )
