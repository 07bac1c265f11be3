"""Whose word a model's context is: the server's, vLLM's, the user's, or nobody's."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from evals.generators import EngineSettings
from evals.models.embedded import embedded_folder
from evals.models.prompts import load_tokenizer
from evals.plan.engine import EngineView, view_of
from evals.plan.make import make_plan
from evals.plan.questions import prepare
from evals.plan.settings import RunSettings
from evals.report.dry_run import describe
from tests.openai_server import OpenAIServer, chat, serving
from tests.toydata import failure

SHIPPED = Path(__file__).resolve().parents[3] / "results" / "smollm2-135m-instruct-card"


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with serving(lambda body, _: chat(body)) as found:
        yield found


def tells(server: OpenAIServer, tokens: int | None) -> None:
    model = {"id": "m"} | ({"max_model_len": tokens} if tokens else {})
    server.about = {"/v1/models": {"data": [model]}}


def asked(argument: str, out: Path, limit: int | None = None, **more: object) -> RunSettings:
    return RunSettings(
        argument,
        suite="smoke",
        tasks=("ifeval",),
        out=out,
        engine=EngineSettings(max_model_len=limit),
        **more,  # type: ignore[arg-type]
    )


def view(argument: str, out: Path, limit: int | None = None) -> EngineView:
    return make_plan(asked(argument, out, limit, tokenizer="smollm2")).view


def test_a_servers_context_is_what_it_says(server: OpenAIServer, tmp_path: Path) -> None:
    tells(server, 1536)
    plan = make_plan(asked(f"openai:m@{server.url}", tmp_path, tokenizer="smollm2"))
    assert (plan.renderer.max_len, plan.view.said_by) == (1536, "as the server says")
    assert "context: 1,536 tokens, as the server says" in describe(plan)
    assert view(f"openai:m@{server.url}", tmp_path, 100).max_len == 100
    said = failure(lambda: view(f"openai:m@{server.url}", tmp_path, 1537))
    assert "--max-model-len 1,537 is more than" in said
    assert "(1,536, as the server says)" in said


def test_a_server_that_is_gone_said_it_in_the_runs_record(tmp_path: Path) -> None:
    model = "openai:m@http://127.0.0.1:9/v1"
    told = {"servers": {model: [{"url": "u", "max_model_len": 1536}]}}
    sessions = [{"phases": {}, "versions": {}} | more for more in (told, {})]
    record = json.loads((SHIPPED / "run.json").read_text()) | {"sessions": sessions}
    (tmp_path / "run.json").write_text(json.dumps(record))
    assert view(model, tmp_path).max_len == 1536


def test_where_it_says_none_vllms_rule_for_the_tokenizers_folder_holds(
    server: OpenAIServer, tmp_path: Path
) -> None:
    tells(server, None)
    found = view(f"openai:m@{server.url}", tmp_path)
    assert found.max_len == 8192
    assert "by vLLM's rule for the tokenizer's folder" in found.line()
    # What it computes in is the server's affair.
    assert found.checkpoint is None


def test_where_vllm_is_not_installed_the_context_is_not_known_and_that_is_said(
    server: OpenAIServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tells(server, None)
    monkeypatch.setitem(sys.modules, "vllm", None)
    for argument in (f"openai:m@{server.url}", "smollm2"):
        plan = make_plan(
            asked(argument, tmp_path, tokenizer="smollm2" if "@" in argument else None)
        )
        assert plan.renderer.max_len is None
        assert "not known (vLLM, which knows, is not here)" in plan.view.line()
    (note,) = view(f"openai:m@{server.url}", tmp_path).notes()
    assert "Say it with --max-model-len" in note
    assert view(f"openai:m@{server.url}", tmp_path, 4096).max_len == 4096


def test_a_judges_engine_gets_no_more_context_than_the_judge_takes(tmp_path: Path) -> None:
    for limit, own in ((None, None), (100, 100), (9000, 8192)):
        settings = asked("openai:m@http://127.0.0.1:9/v1", tmp_path, limit)
        prepared = prepare(settings, "smollm2", [])
        assert prepared.engine_settings(settings).engine.max_model_len == own
        assert prepared.renderer.max_len == (own or 8192)


def test_a_checkpoint_is_recorded_as_it_was_taken(tmp_path: Path) -> None:
    settings = asked("smollm2", tmp_path)
    plan = make_plan(settings)
    tokenizer = load_tokenizer(str(embedded_folder()))
    assert plan.view == view_of(plan.model, settings, tokenizer, tmp_path)
    assert plan.view.line() == (
        "context: 8,192 tokens, by vLLM's own rule; computed in bfloat16; tokens that end an"
        " answer: 2"
    )
