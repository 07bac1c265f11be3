"""Log-probabilities of a prompt's scored tokens alone.

vLLM's first model runner, that of CPUs, computes those of every token that was not cached: of a
context too, for which nobody asks, and request by request, which reads the output matrix once for
each. Here rows are computed for the tokens that are scored, those of all requests of a step
together. The second runner does all requests at once by itself, and is left alone.

Follows GPUModelRunner._get_prompt_logprobs_dict of vLLM 0.32, which pyproject.toml pins.
"""

from collections.abc import Mapping
from types import MethodType
from typing import Any

N_SCORED = "evals_n_scored"
"""In a request's extra arguments: how many of its prompt's last tokens are scored."""
_CHUNK = 512
"""Rows of logits at once; with a vocabulary of 128,000 they take 250 MB."""
_METHOD, _USES = "_get_prompt_logprobs_dict", ("num_prompt_logprobs", "requests", "query_start_loc")


def score_last_tokens_alone(worker: Any) -> bool:
    """Have a worker's runner do so from now on, of requests that say how many those are; whether it
    is the first runner.
    """
    runner = worker.model_runner
    if not all(hasattr(runner, name) for name in (_METHOD, *_USES)):
        return False
    setattr(runner, _METHOD, MethodType(prompt_logprobs, runner))
    return True


def prompt_logprobs(runner: Any, hidden: Any, n_scheduled: Mapping[str, int]) -> dict[str, Any]:
    """What the runner hands over of the prompts that this step ends: a row for each scored token,
    with its log-probability and the likeliest one's. The first rows of a prompt whose scored tokens
    were cached in part are left as the memory was, as in vLLM.
    """
    import torch
    from vllm.v1.outputs import LogprobsTensors

    places: list[int] = []
    targets: list[int] = []
    spans: list[tuple[Any, int, int]] = []
    ended: dict[str, Any] = {}
    for name in list(runner.num_prompt_logprobs):
        if (n_new := n_scheduled.get(name)) is None:
            continue  # preempted
        request = runner.requests[name]
        ids = request.prompt_token_ids
        n_rows = len(ids) - 1  # nothing stands before the first token
        n_scored = (request.sampling_params.extra_args or {}).get(N_SCORED, n_rows)
        first, start = n_rows - n_scored, request.num_computed_tokens
        low, high = max(start, first), min(start + n_new, n_rows)
        rows = request.in_progress_prompt_logprobs_cpu
        if rows is None:
            rows = LogprobsTensors.empty_cpu(n_scored, 2)
            request.in_progress_prompt_logprobs_cpu = rows
        if low < high:
            at = int(runner.query_start_loc.np[runner.input_batch.req_id_to_index[name]]) - start
            places += range(at + low, at + high)
            targets += ids[low + 1 : high + 1]
            spans.append((rows, low - first, high - low))
        if start + n_new > n_rows:
            ended[name] = rows
            del runner.num_prompt_logprobs[name]
            request.in_progress_prompt_logprobs_cpu = None
    if places:
        there = torch.tensor([places, targets], device=hidden.device)
        parts = [
            _scores(runner, hidden[place], token.unsqueeze(-1))
            for place, token in (part.unbind() for part in there.split(_CHUNK, dim=1))
        ]
        found_ids, found = (torch.cat(kind).cpu() for kind in zip(*parts, strict=True))
        done = 0
        for rows, first, n in spans:
            rows.logprob_token_ids[first : first + n] = found_ids[done : done + n]
            rows.logprobs[first : first + n] = found[done : done + n]
            rows.selected_token_ranks[first : first + n] = 0  # not asked for
            done += n
    return ended


def _scores(runner: Any, hidden: Any, tokens: Any) -> tuple[Any, Any]:
    """Ids and log-probabilities, the token's own and the likeliest one's."""
    import torch

    logprobs = runner.sampler.compute_logprobs(runner.model.compute_logits(hidden))
    best, likeliest = logprobs.max(dim=-1, keepdim=True)
    own = logprobs.gather(-1, tokens)
    return torch.cat((tokens, likeliest), 1), torch.cat((own, best), 1)
