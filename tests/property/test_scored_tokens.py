"""Contexts and continuations as token ids, held against lm-evaluation-harness's own vLLM backend:
its methods on the same tokenizer, over text in many scripts.
"""

import importlib.metadata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.errors import InputError
from evals.models.embedded import embedded_folder
from evals.models.prompts import load_tokenizer
from evals.models.scoring import Pair, Scorer

MAX_LEN = 24
ALPHABETS = (
    "abc XYZ,.\n'", "äöß éñ", "жди мир", "αβγ ω", "שלום ", "سلام ", "हिन्दी ", "你好，世界 ",
    "日本語ひらカナ ", "한국어 ", "ไทยภาษา ", "🦊👩\u200d👧\ufe0f ", "0123 45,6.7",
    "\t\u00a0\u2028 \u3000", "<|im_start|><|endoftext|> a",
)  # fmt: skip
words = st.sampled_from(ALPHABETS).flatmap(lambda letters: st.text(letters, max_size=12))
texts = st.lists(words, max_size=4).map("".join)


@pytest.fixture(scope="module", params=["none", "before", "both"])
def both(request: pytest.FixtureRequest) -> tuple[Scorer, Any]:
    """Our scorer and lm-eval's model, on a tokenizer that puts nothing, one token before a text, or
    one before and one behind it.
    """
    tokenizer = load_tokenizer(str(embedded_folder()))
    if request.param != "none":
        from tokenizers.processors import TemplateProcessing

        end = " <|im_end|>" if request.param == "both" else ""
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single=f"<|im_start|> $A{end}",
            special_tokens=[("<|im_start|>", 1), ("<|im_end|>", 2)],
        )
    with pytest.MonkeyPatch.context() as patch:
        version = importlib.metadata.version
        patch.setattr(
            importlib.metadata,
            "version",
            # As vLLM names itself on a CPU: by this it finds, once a process, what it runs on.
            lambda name: "0.32.0+cpu" if name == "vllm" else version(name),
        )
        from lm_eval.models.vllm_causallms import VLLM
    theirs = object.__new__(VLLM)
    theirs.tokenizer = tokenizer
    theirs.add_bos_token = theirs.custom_prefix_token_id = None
    theirs.enable_thinking = None
    theirs._max_length = MAX_LEN
    theirs._rank, theirs.batch_size = 0, "auto"
    theirs.cache_hook = type("Hook", (), {"add_partial": lambda *_: None})()
    return Scorer(tokenizer, MAX_LEN), theirs


class Asked:
    """A request as lm-eval has one."""

    task_name = ""

    def __init__(self, *args: str) -> None:
        self.args = args


def handed_over(theirs: Any, method: str, *args: str) -> list[Pair]:
    """The pairs that lm-eval would have scored."""
    found: list[Pair] = []

    def scored(requests: Any, **_: Any) -> list[tuple[float, bool]]:
        found.extend((tuple(context), tuple(rest)) for _, context, rest in requests)
        return [(0.0, True)] * len(requests)

    theirs._loglikelihood_tokens = scored
    getattr(theirs, method)([Asked(*args)], disable_tqdm=True)
    return found


@given(context=texts, continuation=texts)
def test_a_continuation_begins_where_it_begins_for_lm_eval(
    both: tuple[Scorer, Any], context: str, continuation: str
) -> None:
    ours, theirs = both
    try:
        (found,) = ours.pairs([(context, continuation)])
    except InputError:
        # Nothing before the first token to be scored: lm-eval ends with an error there, or scores
        # what has no prediction.
        assert not context.strip()
        return
    assert [found] == handed_over(theirs, "loglikelihood", context, continuation)


@given(text=st.lists(texts, max_size=8).map("".join))
def test_a_text_is_walked_through_in_lm_evals_windows(both: tuple[Scorer, Any], text: str) -> None:
    ours, theirs = both
    expected = handed_over(theirs, "loglikelihood_rolling", text)
    # An empty text has no window there, here one of nothing.
    assert [pair for pair in ours.windows(text) if pair[1]] == expected
    assert sum(len(rest) for _, rest in expected) == len(ours.encode([text])[0])


@given(context=st.lists(texts, min_size=4, max_size=9).map("".join), continuation=texts)
def test_what_is_too_long_loses_its_beginning(
    both: tuple[Scorer, Any], context: str, continuation: str
) -> None:
    ours, _ = both
    try:
        (pair,) = ours.pairs([(context, continuation)])
        kept = ours.fitted(pair)
    except InputError:
        return
    whole = pair[0] + pair[1]
    assert kept[0] + kept[1] == whole[-(MAX_LEN - 1) :]
    assert kept[1] == pair[1]


@given(text=texts, max_new=st.integers(1, MAX_LEN - 1))
def test_a_prompt_is_cut_as_lm_eval_cuts_it(
    both: tuple[Scorer, Any], text: str, max_new: int
) -> None:
    from lm_eval.models.utils import maybe_truncate

    ours, theirs = both
    (ids,) = ours.encode([text])
    assert list(ids) == theirs.tok_encode(text)
    assert (
        list(ours.cut(ids, max_new))
        == maybe_truncate(list(ids), max_new, MAX_LEN, verbose=False)[0]
    )
