"""What a prefix cache can hold at best: the yardstick for the order of the queue."""

from collections.abc import Iterable, Sequence


def cached_tokens(prompts: Iterable[Sequence[int]], block: int) -> int:
    """Prompt tokens that a cache without end has already seen, prompts taken one after another.

    As vLLM counts: whole blocks of `block` tokens that follow the same beginning, and never a
    prompt's last token, which is always computed.
    """
    seen = set[int]()
    n_cached = 0
    for prompt in prompts:
        beginning, is_known = 0, True
        for start in range(0, len(prompt) - block + 1, block):
            beginning = hash((beginning, tuple(prompt[start : start + block])))
            is_known = is_known and beginning in seen and start + block < len(prompt)
            n_cached += block if is_known else 0
            seen.add(beginning)
    return n_cached
