"""A server that several tests ask."""

from collections.abc import Iterator

import pytest

from tests.real_engine import PORT, vllm_server


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server, as MODEL and --judge take it."""
    with vllm_server(tmp_path_factory.mktemp("server") / "server.log", PORT) as (url, _):
        yield f"openai:small@{url}"
