"""What a prefix cache can hold at best: the yardstick for the order of the queue."""

from collections.abc import Iterable, Iterator, Sequence


def cached_tokens(prompts: Iterable[Sequence[int]], block: int) -> int:
    """Prompt tokens that a cache without end has already seen, see cached_each."""
    return sum(cached_each(prompts, block))


def cached_each(prompts: Iterable[Sequence[int]], block: int) -> Iterator[int]:
    """Of each prompt, the tokens that a cache without end has already seen, prompts taken one after
    another.

    As vLLM counts: whole blocks of `block` tokens that follow the same beginning, and never a
    prompt's last token, which is always computed.
    """
    seen = set[int]()
    for prompt in prompts:
        n_cached = 0
        beginning, is_known = 0, True
        for start in range(0, len(prompt) - block + 1, block):
            beginning = hash((beginning, tuple(prompt[start : start + block])))
            is_known = is_known and beginning in seen and start + block < len(prompt)
            n_cached += block if is_known else 0
            seen.add(beginning)
        yield n_cached
