"""What a rendered request is beside its ids: the room left for new tokens, where an output is cut,
its key in the store.
"""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.errors import InputError
from evals.models.prompts import Renderer, check_room
from evals.plan.make import make_plan
from evals.plan.settings import RunSettings
from evals.records import Choose, Completion, Generate, ItemId, Output, Sampling
from tasks.mmlu import CANDIDATES
from tests.golden.test_prompts import ask, one, user

# --- context --------------------------------------------------------------------------------------


@given(st.integers(min_value=1, max_value=60), st.integers(min_value=1, max_value=60))
def test_new_tokens_are_the_protocols_or_the_room_left(
    smol: Any, max_len: int, max_tokens: int
) -> None:
    renderer = Renderer(smol, "none", max_len)
    rendered = one(renderer, Generate(user("one two three four"), Sampling(max_tokens=max_tokens)))
    n_prompt = len(rendered.token_ids)
    if n_prompt < max_len:
        check_room([rendered], max_len)
        assert rendered.max_new_tokens == min(max_tokens, max_len - n_prompt) >= 1
        assert n_prompt + rendered.max_new_tokens <= max_len
    else:
        with pytest.raises(InputError, match=r"x/0: the prompt is \d+ tokens, the model takes"):
            check_room([rendered], max_len)
    assert rendered.is_capped == (rendered.max_new_tokens < max_tokens)
    assert rendered.sampling.max_tokens == max_tokens


def test_an_unknown_context_caps_nothing(smol: Any) -> None:
    rendered = one(Renderer(smol, "none", None), Generate(user("one"), Sampling(max_tokens=10**9)))
    check_room([rendered], None)
    assert rendered.max_new_tokens == 10**9


def test_a_prompt_that_leaves_no_room_is_refused_by_name_before_anything_runs() -> None:
    from evals.generators import EngineSettings

    settings = RunSettings(
        "smollm2", suite="smoke", tasks=("gsm8k",), engine=EngineSettings(max_model_len=300)
    )
    plan = make_plan(settings)
    with pytest.raises(
        InputError, match=r"gsm8k/0: the prompt is \d+ tokens, the model takes 300 \(6 such prompts"
    ):
        plan.render("gsm8k")


def test_a_context_larger_than_the_weights_is_refused() -> None:
    from evals.generators import EngineSettings

    settings = RunSettings(
        "smollm2", suite="smoke", tasks=("gsm8k",), engine=EngineSettings(max_model_len=1_000_000)
    )
    with pytest.raises(
        InputError, match=r"--max-model-len 1,000,000 is more than smollm2 takes \(8,192, by vLLM"
    ):
        make_plan(settings)


# --- cut ------------------------------------------------------------------------------------------


def cut_by(tokenizer: Any, token_ids: list[int], text: str = "as the engine decoded it") -> Output:
    renderer = Renderer(tokenizer, "none", None)
    request = Generate(user("Q: x"), Sampling(max_tokens=50), cut_token="\n\n")
    (output,) = renderer.cut(
        one(renderer, request), Completion((Output(text, "length", tuple(token_ids)),))
    ).outputs
    return output


def test_an_output_is_cut_before_the_first_blank_line_token(llama: Any) -> None:
    ids = llama("A: Yes", add_special_tokens=False)["input_ids"]
    output = cut_by(llama, [*ids, 271, *ids, 271])
    assert output.text == "A: Yes"
    assert output.token_ids == tuple(ids)


def test_a_blank_line_inside_another_token_does_not_cut(llama: Any) -> None:
    ids = llama("A: Yes.\n\nQ: no", add_special_tokens=False)["input_ids"]
    assert 382 in ids
    assert cut_by(llama, ids) == Output("as the engine decoded it", "length", tuple(ids))


def test_smollm2_has_a_blank_line_token_of_its_own(smol: Any) -> None:
    ids = smol("A: Yes", add_special_tokens=False)["input_ids"]
    assert cut_by(smol, [*ids, 1116, *ids]).text == "A: Yes"


def test_without_such_a_token_nothing_is_cut(smol: Any) -> None:
    renderer = Renderer(smol, "none", None)
    rendered = one(renderer, Generate(user("Q: x"), Sampling(max_tokens=50), cut_token="two words"))
    answer = Completion((Output("a two words b", "stop", (5, 6)),))
    assert rendered.cut_id is None
    assert renderer.cut(rendered, answer) == answer


# --- keys and order -------------------------------------------------------------------------------


@given(st.lists(st.text(max_size=20), min_size=1, max_size=6))
def test_rendering_together_or_alone_gives_the_same_ids(smol: Any, contents: list[str]) -> None:
    renderer = Renderer(smol, "tokenizer", None)
    together = renderer.render(
        [(ItemId(f"x/{i}"), "", ask(content)) for i, content in enumerate(contents)]
    )
    assert [r.item_id for r in together] == [f"x/{i}" for i in range(len(contents))]
    assert [r.token_ids for r in together] == [
        one(renderer, ask(content)).token_ids for content in contents
    ]


def test_a_key_follows_what_determines_the_answer_and_not_the_item(smol: Any) -> None:
    sampled = Generate(user("x"), Sampling(max_tokens=9, temperature=0.8, n=2))
    base = one(Renderer(smol, "none", None), sampled)
    (elsewhere,) = Renderer(smol, "none", None).render([(ItemId("y/1"), "truth", sampled)])
    assert elsewhere.key("f") == base.key("f")
    others = [
        one(Renderer(smol, "none", None, seed=1), sampled),
        one(Renderer(smol, "none", 5), sampled),
        one(Renderer(smol, "none", None), Generate(user("y"), sampled.sampling)),
        one(
            Renderer(smol, "none", None),
            Generate(user("x"), Sampling(max_tokens=9, temperature=0.8, n=3)),
        ),
        one(Renderer(smol, "none", None), Generate(user("x"), sampled.sampling, cut_token="\n\n")),
        one(Renderer(smol, "none", None), Choose(user("x"), CANDIDATES)),
    ]
    keys = {rendered.key("f") for rendered in [base, *others]}
    assert len(keys) == len(others) + 1
    assert base.key("g") not in keys


def test_without_a_tokenizer_messages_travel_and_no_ids() -> None:
    rendered = one(Renderer(None, "tokenizer", None), Choose(user("x"), CANDIDATES))
    assert rendered.token_ids == ()
    assert rendered.messages == user("x")
    assert rendered.candidates == ()
    assert rendered.labels == CANDIDATES
