"""The queue of the engine in this process: texts, choices and scores side by side, each answered
once; a score whose continuation lay in the prefix cache is asked again without it.
"""

from types import SimpleNamespace
from typing import Any

import pytest

from evals.generators import Moved, Text, vllm
from evals.generators.scored_rows import score_last_tokens_alone
from evals.generators.vllm import VllmGenerator
from evals.models.rendered import Rendered
from evals.plan.work import prompts_of, work_of
from evals.records import Completion, ItemId, Sampling, Scored


class Engine:
    """As vLLM's: every request is finished a step later. Prompts in `cached` are wholly in the
    cache, where the cache may be read.
    """

    def __init__(self, cached: tuple[int, ...]) -> None:
        self.cached = cached
        self.waiting: list[tuple[str, list[int], Any]] = []
        self.sent: list[tuple[list[int], Any]] = []
        self.told: list[Any] = []
        self.engine_core = object()
        self.output_processor = SimpleNamespace(request_states={})

    def collective_rpc(self, function: Any) -> list[bool]:
        self.told.append(function)
        return [True]

    def add_request(self, name: str, prompt: Any, params: Any, lora_request: Any = None) -> None:
        self.waiting.append((name, prompt["prompt_token_ids"], params))
        self.sent.append((prompt["prompt_token_ids"], params))

    def step(self) -> list[Any]:
        done, self.waiting = self.waiting, []
        return [self.answer(*one) for one in done]

    def answer(self, name: str, ids: list[int], params: Any) -> Any:
        one: Any = {"index": 0, "text": "yes", "finish_reason": "stop", "token_ids": [9]}
        ids_asked = params.logprob_token_ids or ()
        one["logprobs"] = [{i: SimpleNamespace(logprob=-float(i)) for i in (*ids_asked, 9)}]
        read = tuple(ids) == self.cached and not params.skip_reading_prefix_cache
        rows = [None, *({i: SimpleNamespace(logprob=-float(i)), 0: SimpleNamespace(logprob=0.0)}
                        for i in ids[1:])]  # fmt: skip
        return SimpleNamespace(
            request_id=name,
            finished=True,
            outputs=[SimpleNamespace(**one)],
            num_cached_tokens=len(ids) - 1 if read else 0,
            prompt_logprobs=rows if params.prompt_logprobs is not None else None,
        )


def request(name: str, **fields: Any) -> Rendered:
    given = {"sampling": Sampling(5), "max_new_tokens": 5, "token_ids": (1, 2)} | fields
    return Rendered(ItemId(name), "", "", messages=(), **given)


def test_every_kind_of_request_is_answered_once() -> None:
    generator = object.__new__(VllmGenerator)
    engine = Engine(cached=(1, 2, 4, 5))
    generator._engine, generator._adapter, generator.batch = engine, None, 2
    generator._scores = False
    requests = [
        request("text"),
        request("choice", candidates=(("A", 3), ("B", 4))),
        request("score", scored=(((1, 2), ((3,), (4, 5), (9,), ())), ((7,), ((8, 8),)))),
        request("nothing", scored=(((1,), ((),)),)),
        *(request(f"text {n}", keeps_special=True) for n in range(9)),
    ]
    answers = {one.item_id: found for done in generator.stream(requests) for one, found in done}
    assert list(map(str, answers)).count("score") == 1
    # Once, however many are scored.
    assert engine.told == [score_last_tokens_alone]
    assert set(answers) == {one.item_id for one in requests}
    text, choice, score, nothing = (
        answers[ItemId(name)] for name in ("text", "choice", "score", "nothing")
    )
    assert isinstance(text, Completion)
    assert text.text == "yes"
    assert isinstance(choice, Completion)
    assert choice.choice_logprobs == {"A": -3.0, "B": -4.0}
    assert isinstance(score, Completion)
    # Token 9 is what the engine would have said: the likeliest.
    assert score.scores == (
        Scored(-3.0, True, 1), Scored(-9.0, False, 2), Scored(-9.0, True, 1), Scored(0.0, True, 0),
        Scored(-16.0, False, 2),
    )  # fmt: skip
    assert nothing == Completion(scores=(Scored(0.0, True, 0),))
    # A dry run counts what the engine then does.
    work = work_of([one for one in requests if one.scored])
    assert work.prompt == score.n_prompt_tokens + nothing.n_prompt_tokens == 2 + 4 + 3
    assert len(prompts_of(requests[2])) == 3
    cached = [params.skip_reading_prefix_cache for ids, params in engine.sent if ids[2:] == [4, 5]]
    assert cached == [False, True]
    assert [params.skip_special_tokens for _, params in engine.sent].count(False) == 9


def test_meanwhile_it_tells_how_many_tokens_unfinished_answers_have(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(vllm, "_MOVED_S", -1.0)
    generator = object.__new__(VllmGenerator)
    engine = Engine(cached=())
    generator._engine, generator._adapter, generator.batch = engine, None, 2

    over = [None, SimpleNamespace(token_ids=(7,) * 4), None]

    def state(of: str, n: int, parent: str = "") -> Any:
        said = SimpleNamespace(num_output_tokens=lambda: n)
        above = SimpleNamespace(external_req_id=parent, output_aggregator=over) if parent else None
        return SimpleNamespace(external_req_id=of, parent_req=above, detokenizer=said)

    states = [state("0", 3), state("s_1", 5, "1"), state("s_2", 0, "1"), state("another's", 9)]
    engine.output_processor.request_states = dict(enumerate(states))
    steps: list[list[Any]] = [[], []]
    finish = engine.step
    monkeypatch.setattr(engine, "step", lambda: steps.pop() if steps else finish())
    asked = [request("gsm8k/1"), request("bbh/1")]
    done = list(generator.stream(asked))
    assert next(one.texts for one in done if isinstance(one, Moved)) == {
        Text("gsm8k", 3): 1,
        Text("bbh", 5): 1,
        Text("bbh", 4, is_over=True): 1,
    }
    assert [str(one.item_id) for told in done for one, _ in told] == ["gsm8k/1", "bbh/1"]
