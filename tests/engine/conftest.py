"""A server that several tests ask."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real_engine import own_sampling, vllm_server


@pytest.fixture(scope="module")
def served_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the server serves: the small model with sampling defaults of its own, which no test may
    notice.
    """
    return own_sampling(tmp_path_factory.mktemp("own-sampling"))


@pytest.fixture(scope="module")
def served(served_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server, as MODEL and --judge take it."""
    log = tmp_path_factory.mktemp("server") / "server.log"
    with vllm_server(log, served_folder) as (url, _):
        yield f"openai:small@{url}"
