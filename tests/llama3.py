"""The Llama 3 tokenizer, for tests: a thin wrapper over the file that the package llama-models
ships.
"""

from base64 import b64decode
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

BOS = 128000
SPECIAL = (
    "<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>",
    "<|reserved_special_token_1|>", "<|finetune_right_pad_id|>", "<|reserved_special_token_2|>",
    "<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>", "<|eot_id|>", "<|python_tag|>",
)  # fmt: skip
_NAMED = {
    "<|begin_of_text|>": BOS,
    "<|end_of_text|>": 128001,
    "<|start_header_id|>": 128006,
    "<|end_header_id|>": 128007,
    "<|eot_id|>": 128009,
}
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def tokenizer_file() -> Path | None:
    """The tokenizer file, or None where llama-models is not installed."""
    spec = find_spec("llama_models")
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0]) / "llama3" / "tokenizer.model"


class Llama3Tokenizer:
    """Text to Llama 3 token ids. Special tokens written out in a text are recognised, as
    transformers does.
    """

    bos_token_id = BOS

    def __init__(self, file: Path) -> None:
        import tiktoken

        # Parsed here because tiktoken's own reader keeps a copy under the temporary folder, by path
        # and not by content.
        pairs = (line.split() for line in file.read_bytes().splitlines())
        ranks = {b64decode(token): int(rank) for token, rank in pairs}
        assert len(ranks) == BOS
        self._encoding = tiktoken.Encoding(
            "llama3", pat_str=_SPLIT, mergeable_ranks=ranks, special_tokens=_NAMED
        )

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """The ids of a text; with special tokens one BOS goes in front."""
        ids: list[int] = self._encoding.encode(text, allowed_special="all")
        return [BOS, *ids] if add_special_tokens else ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of some ids."""
        text: str = self._encoding.decode(list(ids))
        return text


@cache
def llama3_tokenizer() -> Llama3Tokenizer | None:
    """The tokenizer, loaded once; None where llama-models is not installed."""
    file = tokenizer_file()
    return Llama3Tokenizer(file) if file else None
