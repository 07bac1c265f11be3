"""A spool is a list but for where its values lie."""

import gc
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.errors import EnvironmentFault, InputError
from evals.storage.spool import Spool

N = 100
PLACES = st.integers(-N - 2, N + 1)
CHANGES = st.one_of(
    st.tuples(st.just("append"), st.integers()),
    st.tuples(st.just("extend"), st.lists(st.text(), max_size=40)),
    st.tuples(st.just("set"), PLACES, st.integers()),
    st.tuples(st.just("get"), PLACES),
    st.tuples(st.just("slice"), st.slices(N)),
    st.tuples(st.just("all")),
)


def done(values: Any, change: tuple[Any, ...]) -> Any:
    """What comes of one change or question to a list or a spool."""
    what, *given_with = change
    try:
        if what in ("append", "extend"):
            return getattr(values, what)(*given_with)
        if what == "set":
            values[given_with[0]] = given_with[1]
            return None
        return list(values) if what == "all" else values[given_with[0]]
    except IndexError:
        return IndexError


@given(st.lists(st.integers(), max_size=N), st.lists(CHANGES, max_size=30))
def test_it_behaves_as_a_list(start: list[Any], changes: list[tuple[Any, ...]]) -> None:
    spool, plain = Spool(start), list(start)
    for change in changes:
        assert done(spool, change) == done(plain, change)
    assert list(spool) == plain
    assert len(spool) == len(plain)


def test_it_is_changed_while_others_go_through_it() -> None:
    spool = Spool(range(N))
    for one, other in zip(spool, reversed(spool), strict=True):
        spool[one] = other
    assert list(spool) == [N - 1 - n if n < N / 2 else n for n in range(N)]


def test_values_that_cannot_be_made_leave_those_before_them() -> None:
    def broken() -> Iterator[int]:
        yield from range(40)
        raise KeyError("no more")

    spool = Spool[int]()
    with pytest.raises(KeyError):
        spool.extend(broken())
    spool.append(40)
    assert list(spool) == list(range(41))


def test_memory_holds_a_block_of_it() -> None:
    """SQLite's own memory, a quarter of a megabyte at most, is not traced."""
    tracemalloc.start()
    try:
        spool = Spool(str(n) * 1000 for n in range(3_000))
        assert sum(map(len, spool)) > 10_000_000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 500_000


def temporary_files() -> list[str]:
    """What SQLite has open under a name of its own making, as the system names it."""
    links = [Path("/proc/self/fd") / number for number in os.listdir("/proc/self/fd")]
    return [
        path
        for path in (os.readlink(link) for link in links if link.is_symlink())
        if "etilqs_" in path
    ]


@pytest.mark.skipif(
    not os.path.isdir("/proc/self/fd"), reason="the open files are not listed on this system"
)
def test_nobody_else_can_open_its_file_and_none_is_left() -> None:
    """Its values are unpickled: they must be what this process put there."""
    before = temporary_files()
    spool = Spool("x" * 10_000 for _ in range(500))
    opened = [path for path in temporary_files() if path not in before]
    assert opened
    assert all(path.endswith(" (deleted)") for path in opened)
    del spool
    gc.collect()
    assert not set(opened) & set(temporary_files())


@pytest.mark.parametrize(
    "use",
    [
        lambda spool: spool[0],
        list,
        lambda spool: spool.extend(range(N)),
        lambda spool: spool.__setitem__(0, 1),
    ],
)
def test_a_file_that_is_lost_is_named(use: Any) -> None:
    spool = Spool(range(N))
    spool._blocks.ask("DROP TABLE rows")
    with pytest.raises(
        EnvironmentFault,
        match=r"temporary file cannot be written or read \(no such table: rows\)\. Set TMPDIR",
    ):
        use(spool)


def test_what_cannot_be_kept_is_said() -> None:
    class Local:
        pass

    for value in (Local(), [lambda: None]):
        with pytest.raises(
            InputError,
            match=r"plain values and dataclasses of its module's top level: AttributeError",
        ):
            Spool([value] * N)


@pytest.mark.parametrize("used", ['Spool("x" * 100_000 for _ in range(500))', "Sandbox()"])
def test_a_process_without_file_descriptors_is_told_so_and_not_of_the_temporary_folder(
    used: str,
) -> None:
    script = f"""
import os, resource
from evals.errors import EnvironmentFault
from evals.sandbox.pool import Sandbox
from evals.storage.spool import Spool
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
try:
    while True:
        os.open(os.devnull, os.O_RDONLY)
except OSError:
    pass
try:
    {used}
except EnvironmentFault as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert "as many files open as it may" in done.stdout
    assert "TMPDIR" not in done.stdout
