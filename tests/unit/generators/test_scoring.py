"""What an engine is asked to score continuations, and its answers read; their way through the
store.
"""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.generators.manner import Manner
from evals.generators.openai_api import score_by_ids
from evals.generators.scoring import (
    Found,
    in_order,
    of_candidates,
    of_prompt,
    parts_of,
    vllm_rows,
)
from evals.models.rendered import Rendered
from evals.models.scoring import grouped, pairs_of
from evals.records import Completion, ItemId, Sampling, Scored
from evals.storage.store import Store

ids = st.lists(st.integers(0, 5), max_size=4).map(tuple)
pairs = st.lists(st.tuples(st.lists(st.integers(0, 2), min_size=1, max_size=2).map(tuple), ids))


def rendered(*asked: Any) -> Rendered:
    return Rendered(ItemId("x/0"), "", "", asked[0][0], (), Sampling(1), 1, scored=grouped(asked))


def logprob(context: tuple[int, ...], token: int) -> float:
    """A model of a few tokens: whatever came before decides."""
    weights = [math.exp(((sum(context) + 3) * (one + 2)) % 7) for one in range(6)]
    return math.log(weights[token] / sum(weights))


def row(context: tuple[int, ...], token: int) -> dict[int, float]:
    best = max(range(6), key=lambda one: logprob(context, one))
    return {token: logprob(context, token), best: logprob(context, best)}


def scored(request: Rendered) -> Found:
    found: dict[Any, Scored] = {}
    for part in parts_of(request):
        if part.candidates:
            asked = {one: logprob(part.ids, one) for one in part.candidates}
            best = max(range(6), key=lambda one: logprob(part.ids, one))
            found |= of_candidates(part, asked | row(part.ids, best), best)
        else:
            at = range(len(part.ids) - part.n_scored, len(part.ids))
            found |= of_prompt(part, [row(part.ids[:n], part.ids[n]) for n in at])
    return found


@given(pairs.filter(bool))
def test_every_continuation_has_its_own_score(asked: list[Any]) -> None:
    request = rendered(*asked)
    assert pairs_of(request.scored) == asked
    for (context, rest), one in zip(asked, in_order(request, scored(request)), strict=True):
        steps = [(context + rest[:n], token) for n, token in enumerate(rest)]
        assert one.logprob == pytest.approx(sum(logprob(*step) for step in steps))
        assert one.is_greedy == all(
            logprob(*step) == max(logprob(step[0], other) for other in range(6)) for step in steps
        )
        assert one.n_tokens == len(rest)


def test_answers_of_one_token_are_one_prompt_and_longer_ones_one_each() -> None:
    context = (7, 8)
    asked = [(context, one) for one in ((1,), (2,), (1,), (3, 4), (3, 4, 5), ())]
    short, *longer = parts_of(rendered(*asked))
    assert (short.ids, short.candidates, short.n_scored) == (context, (1, 2), 0)
    assert [(one.ids, one.n_scored) for one in longer] == [((7, 8, 3, 4), 2), ((7, 8, 3, 4, 5), 3)]


@pytest.mark.parametrize(("n_cached", "is_whole"), [(0, True), (3, True), (4, False), (6, False)])
def test_what_the_cache_holds_of_a_continuation_has_no_log_probability(
    n_cached: int, is_whole: bool
) -> None:
    # Four tokens of context: the first scored one is read at the last of them.
    (part,) = parts_of(rendered(((1, 2, 3, 4), (5, 6, 7))))
    assert part.is_whole(n_cached) is is_whole


def test_rows_are_read_from_the_end_whatever_a_runner_leaves_before_them() -> None:
    (part,) = parts_of(rendered(((1, 2, 3), (4, 5))))
    entry = SimpleNamespace
    last = [{4: entry(logprob=-1.0)}, {5: entry(logprob=-2.0)}]
    for before in ([None, {99: entry(logprob=7.0)}, {98: entry(logprob=8.0)}], [None], []):
        assert vllm_rows(part, [*before, *last]) == [{4: -1.0}, {5: -2.0}]


def test_scores_come_back_from_the_store_as_they_were(tmp_path: Path) -> None:
    store = Store(tmp_path / "store.sqlite")
    whole = Completion(scores=(Scored(-1.25, True, 3), Scored(-math.inf, False, 1)))
    store.put([("a", whole), ("b", Completion(scores=()))])
    assert store.get("a") == whole
    assert store.get("b") == Completion(scores=())
    store.close()


class Server:
    """Answers as vLLM's /completions does: an echo with log-probabilities, or those of the next
    token.
    """

    def __init__(self, echoes: bool = True) -> None:
        self.completions = self
        self.echoes = echoes

    def create(self, **asked: Any) -> Any:
        prompt = tuple(asked["prompt"])
        if asked["echo"]:
            own = [None, *(logprob(prompt[:n], prompt[n]) for n in range(1, len(prompt)))]
            tops = [None, *({"w": max(row(prompt[:n], prompt[n]).values())} for n in
                            range(1, len(prompt)))]  # fmt: skip
            said = SimpleNamespace(token_logprobs=[*own, -0.5], top_logprobs=[*tops, {"w": -0.5}])
            said = said if self.echoes else None
        else:
            asked_ids = asked["extra_body"]["logprob_token_ids"]
            best = max(range(6), key=lambda one: logprob(prompt, one))
            top = {f"token_id:{one}": logprob(prompt, one) for one in (*asked_ids, best)}
            said = SimpleNamespace(top_logprobs=[top])
        return SimpleNamespace(choices=[SimpleNamespace(index=0, logprobs=said)], usage=None)


@given(pairs.filter(bool))
def test_a_server_scores_as_the_engine_does(asked: list[Any]) -> None:
    request = rendered(*asked)
    found = score_by_ids(Server(), "small", request, Manner())
    assert found.scores == pytest.approx(in_order(request, scored(request)))


def test_a_server_without_prompt_log_probabilities_is_refused_with_a_sentence() -> None:
    from evals.errors import InputError

    with pytest.raises(InputError, match="gives no log-probabilities of a prompt"):
        score_by_ids(Server(echoes=False), "small", rendered(((1,), (2, 3))), Manner())
