"""Folders the tests read: real data and recorded outputs, as a user's own folders."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# How long an example may take is no property of the code on a machine that others use.
settings.register_profile("house", deadline=None)
settings.load_profile("house")

ROOT = Path(__file__).resolve().parents[1]


def _folder(variable: str, sibling: str) -> Path:
    folder = Path(os.environ.get(variable) or ROOT.parent / "shared" / sibling)
    if not folder.is_dir():
        pytest.skip(f"{variable} names no folder of {sibling}: real-data tests not run")
    return folder


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The real data sets in their public formats."""
    return _folder("EVALS_DATA", "data")


@pytest.fixture(scope="session")
def replay_dir() -> Path:
    """Recorded outputs of real models."""
    return _folder("EVALS_REPLAY", "replay")
