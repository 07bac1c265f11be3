"""What a server says of itself is asked once, recorded, and never trusted."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from evals.generators.about import about
from evals.plan.settings import RunSettings
from evals.runs.progress import Progress
from evals.runs.session import run
from tests.openai_requests import KEY
from tests.openai_server import chat, serving

MODEL = {"id": "m", "object": "model", "root": "org/m", "max_model_len": 8192, "owned_by": "vllm"}
VLLM: Mapping[str, Any] = {
    "/v1/models": {"object": "list", "data": [{"id": "other"}, MODEL]},
    "/version": {"version": "0.32.0"},
}
TOLD = {"models": ["other", "m"], "root": "org/m", "max_model_len": 8192, "version": "0.32.0"}
SAYS: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
    "vLLM": (VLLM, TOLD),
    "nothing": ({}, {}),
    "another model": ({"/v1/models": {"data": [{"id": "x", "root": "/x"}]}}, {"models": ["x"]}),
    "a list": ({"/v1/models": [1], "/version": "1"}, {}),
    "null": ({"/v1/models": {"data": None}, "/version": {"version": None}}, {}),
    "rows that are none": ({"/v1/models": {"data": [1, None, {"id": 5}]}}, {}),
    "of other kinds": (
        {"/v1/models": {"data": [{"id": "m", "root": [], "max_model_len": True}]}},
        {"models": ["m"]},
    ),
    "the key": ({"/version": {"version": f"1 {KEY}"}}, {"version": "1 ***"}),
}


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


class Told(Progress):
    """Keeps its notes."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        """See Progress."""
        self.notes.append(text)


@pytest.mark.parametrize(("says", "expected"), SAYS.values(), ids=SAYS.keys())
def test_what_it_says_is_taken_as_far_as_it_can_be_read(
    says: Mapping[str, Any], expected: Mapping[str, Any]
) -> None:
    with serving(lambda body, _: chat(body)) as server:
        server.about = says
        assert about("m", server.url) == {"url": server.url, **expected}


def test_a_server_that_is_not_there_says_nothing() -> None:
    assert about("m", "http://127.0.0.1:9/v1") == {"url": "http://127.0.0.1:9/v1"}


@pytest.mark.parametrize("tells_root", [True, False])
def test_a_run_records_it_and_names_the_tokenizer_at_its_start(
    tmp_path: Path, tells_root: bool
) -> None:
    progress = Told()
    with serving(lambda body, _: chat(body, "refusal")) as server:
        server.about = VLLM if tells_root else {}
        result = run(
            RunSettings(
                f"openai:m@{server.url}",
                suite="smoke",
                tasks=("xstest",),
                out=tmp_path / "run",
                judges=(f"xstest=openai:judge@{server.url}",),
            ),
            progress,
        )
    (session,) = json.loads((tmp_path / "run" / "run.json").read_text())["sessions"]
    told = {"url": server.url, **(TOLD if tells_root else {})}
    assert session["servers"][f"openai:m@{server.url}"] == [told]
    assert f"openai:judge@{server.url}" in session["servers"]
    assert sum("--tokenizer org/m" in note for note in progress.notes) == tells_root
    assert "org/m" not in json.dumps(result.summary)
