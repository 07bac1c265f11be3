"""Continuations scored by copies of an engine and by servers: the same as by one engine, whichever
copy is lost on the way.
"""

import random
from pathlib import Path

import pytest

from evals.generators.fake import FakeGenerator
from evals.models.embedded import embedded_folder
from evals.models.prompts import Rendered
from evals.models.scoring import grouped
from evals.plan.settings import RunSettings
from evals.records import ItemId, Sampling
from evals.runs.session import run
from tests.fake_copy import likeliest, scored, weight
from tests.harness_tasks import write_tasks
from tests.openai_server import Body, Reply, serving
from tests.resilience.test_copies import copies

TASKS = ("lm-eval:ends", "lm-eval:letters", "lm-eval:cloze", "lm-eval:pages")
ABOUT = {"/v1/models": {"data": [{"id": "small", "max_model_len": 8192}]}}


def requests(n: int) -> list[Rendered]:
    chance = random.Random(25)
    some = lambda most: tuple(chance.randrange(99) for _ in range(chance.randint(1, most)))  # noqa: E731
    return [
        Rendered(ItemId(f"x/{at}"), "", "", (), (), Sampling(1), 1, scored=grouped(
            [(context, some(4)) for context in [some(12)] * chance.randint(1, 4)]))
        for at in range(n)
    ]  # fmt: skip


@pytest.mark.parametrize("how", [{}, {"dies_at": 20, "step_s": 0.01}])
def test_copies_score_each_continuation_once_whatever_dies(
    tmp_path: Path, how: dict[str, float]
) -> None:
    engine, asked = copies(tmp_path, **how), requests(120)
    try:
        found = {one.item_id: answer for done in engine.stream(asked) for one, answer in done}
    finally:
        engine.close()
    assert found == {one.item_id: scored(one) for one in asked}


def as_vllm(body: Body, before: int) -> Reply:
    """What a server of vLLM's says to /completions where continuations are scored."""
    ids = body["prompt"]
    if body.get("echo"):
        at = range(1, len(ids))
        own = [weight(ids[:n], ids[n]) for n in at]
        tops = [{"w": max(one, likeliest(ids[:n]))} for one, n in zip(own, at, strict=True)]
        said = {"token_logprobs": [None, *own, -0.5], "top_logprobs": [None, *tops, {"w": -0.5}]}
    else:
        top = {f"token_id:{one}": weight(ids, one) for one in body["logprob_token_ids"]}
        # The likeliest stands there too.
        said = {"top_logprobs": [{**top, "token_id:49000": max(likeliest(ids), *top.values())}]}
    choice = {"index": 0, "text": "x", "finish_reason": "length", "logprobs": said}
    return Reply({"choices": [choice]})


def test_servers_score_a_run_as_an_engine_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVALS_INCLUDE_PATH", str(write_tasks(tmp_path / "tasks", n=6)))
    engine = FakeGenerator(scored)
    here = run(
        RunSettings("smollm2", tasks=TASKS, out=tmp_path / "here", offline=True),
        make_generator=lambda _: engine,
    )
    with serving(as_vllm) as first, serving(as_vllm) as second:
        first.about = second.about = ABOUT
        both = f"openai:small@{first.url},{second.url}"
        tokenizer = str(embedded_folder())
        there = run(RunSettings(both, tasks=TASKS, out=tmp_path / "there", tokenizer=tokenizer))
        assert {path for one in (first, second) for path in one.paths} == {"/v1/completions"}
    assert there.is_complete
    values = [
        {key: cell["value"] for key, cell in one.summary["cells"].items()} for one in (here, there)
    ]
    assert values[1] == pytest.approx(values[0])
    for task in ("lm-eval.ends", "lm-eval.letters", "lm-eval.pages"):
        rows = [{row["id"]: row["loglikelihoods"] for row in one.folder.samples(task)}
                for one in (here, there)]  # fmt: skip
        assert rows[0] == rows[1]
