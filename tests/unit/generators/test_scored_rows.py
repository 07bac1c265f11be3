"""Rows of log-probabilities for scored tokens, beside those that vLLM's own runner computes for
every token of a prompt, whatever of it was cached and however it is cut into steps.
"""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evals.generators import scored_rows
from evals.generators.scored_rows import N_SCORED, prompt_logprobs, score_last_tokens_alone

N_IDS, SIZE = 11, 4


@st.composite
def prompts(draw: Any) -> list[tuple[list[int], int, int, list[int]]]:
    """Prompts: tokens, how many are scored, how many were cached, where the steps end."""
    found = []
    for _ in range(draw(st.integers(1, 4))):
        ids = draw(st.lists(st.integers(0, N_IDS - 1), min_size=2, max_size=12))
        n_scored = draw(st.integers(1, len(ids) - 1))
        n_cached = draw(st.integers(0, len(ids) - 1 - n_scored))
        ends = draw(st.sets(st.integers(n_cached + 1, len(ids)), max_size=3)) | {len(ids)}
        found.append((ids, n_scored, n_cached, sorted(ends)))
    return found


class Runner:
    """As much of vLLM's as the computing of these rows takes; its states are drawn by chance."""

    def __init__(self, asked: list[tuple[list[int], int, int, list[int]]]) -> None:
        from vllm.v1.sample.sampler import Sampler

        torch.manual_seed(len(asked))
        self.device = torch.device("cpu")
        weights = torch.randn(SIZE, N_IDS)
        self.model = SimpleNamespace(compute_logits=lambda hidden: hidden @ weights)
        self.sampler = Sampler()
        self.model_config = SimpleNamespace(logprobs_mode="raw_logprobs")
        self.states = {f"{at}": torch.randn(len(one[0]), SIZE) for at, one in enumerate(asked)}
        self.num_prompt_logprobs = dict.fromkeys(self.states, 1)
        self.requests = {
            f"{at}": SimpleNamespace(
                prompt_token_ids=ids,
                num_computed_tokens=n_cached,
                in_progress_prompt_logprobs_cpu=None,
                sampling_params=SimpleNamespace(extra_args={N_SCORED: n_scored}),
            )
            for at, (ids, n_scored, n_cached, _) in enumerate(asked)
        }
        self.ends = {f"{at}": list(one[3]) for at, one in enumerate(asked)}

    def _sync_device(self) -> None:
        pass

    def steps(self, method: Any) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while any(self.ends.values()):
            n_new = {
                name: ends[0] - self.requests[name].num_computed_tokens
                for name, ends in self.ends.items()
                if ends
            }
            starts = np.cumsum([0, *n_new.values()])
            self.query_start_loc = SimpleNamespace(np=starts)
            self.input_batch = SimpleNamespace(req_id_to_index={k: i for i, k in enumerate(n_new)})
            hidden = torch.cat(
                [self.states[k][(s := self.requests[k].num_computed_tokens) : s + n]
                 for k, n in n_new.items()]
            )  # fmt: skip
            found |= method(self, hidden, n_new)
            for name, n in n_new.items():
                self.requests[name].num_computed_tokens += n
                self.ends[name].pop(0)
        assert not self.num_prompt_logprobs
        return found


@settings(deadline=None)
@given(prompts())
def test_rows_are_those_that_vllm_computes_for_the_same_tokens(asked: Any) -> None:
    import torch._dynamo
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner

    with pytest.MonkeyPatch.context() as patch, torch._dynamo.config.patch(disable=True):
        patch.setattr(scored_rows, "_CHUNK", 3)
        ours = Runner(asked).steps(prompt_logprobs)
        theirs = Runner(asked).steps(GPUModelRunner._get_prompt_logprobs_dict)
    assert set(ours) == set(theirs) == {f"{at}" for at in range(len(asked))}
    for at, (ids, n_scored, *_) in enumerate(asked):
        own, other = ours[f"{at}"], theirs[f"{at}"]
        assert own.logprobs.shape == (n_scored, 2)
        torch.testing.assert_close(own.logprobs, other.logprobs[-n_scored:])
        assert own.logprob_token_ids.tolist() == other.logprob_token_ids[-n_scored:].tolist()
        assert own.logprob_token_ids[:, 0].tolist() == ids[-n_scored:]


def test_a_runner_of_another_build_is_left_alone() -> None:
    worker = SimpleNamespace(model_runner=SimpleNamespace(requests={}))
    assert score_last_tokens_alone(worker) is False
    assert vars(worker.model_runner) == {"requests": {}}


def test_the_runner_that_is_changed_is_vllms() -> None:
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner

    runner: Any = object.__new__(GPUModelRunner)
    runner.num_prompt_logprobs, runner.requests = {}, {}
    runner.query_start_loc = None
    assert score_last_tokens_alone(SimpleNamespace(model_runner=runner)) is True
    assert runner._get_prompt_logprobs_dict(torch.zeros(0, SIZE), {}) == {}
