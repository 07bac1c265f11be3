"""The best a prefix cache can do, against a cache that is simulated with the prompts themselves."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.plan.prefix import cached_tokens

PROMPTS = st.lists(st.lists(st.integers(0, 2), max_size=40), max_size=12)


def simulated(prompts: list[list[int]], block: int) -> int:
    """Keeps every beginning of whole blocks as it is, and looks for the longest."""
    held = set[tuple[int, ...]]()
    found = 0
    for prompt in prompts:
        ends = [end for end in range(block, len(prompt) + 1, block)]
        found += max(
            (end for end in ends if tuple(prompt[:end]) in held and end < len(prompt)), default=0
        )
        held |= {tuple(prompt[:end]) for end in ends}
    return found


@given(PROMPTS, st.integers(1, 8))
def test_it_counts_what_a_cache_without_end_would_hold(
    prompts: list[list[int]], block: int
) -> None:
    assert cached_tokens(prompts, block) == simulated(prompts, block)


def test_the_last_token_is_always_computed() -> None:
    assert cached_tokens([[1, 2, 3, 4], [1, 2, 3, 4]], 2) == 2
    assert cached_tokens([[1, 2, 3, 4], [1, 2, 3, 4, 5]], 2) == 4


@pytest.mark.parametrize("block", [16, 128])
def test_prompts_without_a_common_beginning_share_nothing(block: int) -> None:
    assert cached_tokens([[index] + [0] * 300 for index in range(5)], block) == 0
