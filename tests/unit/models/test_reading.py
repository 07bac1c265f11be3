"""Reasoning told from an answer: by marks, by token ids, by vLLM's parsers; and the answer after it
held to the protocol.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken

from evals.generators.reasoning_parsers import reasoning_parser
from evals.models.embedded import embedded_folder
from evals.models.prompts import Renderer, load_tokenizer
from evals.models.reading import Reader
from evals.models.reasoning import ReasoningSettings, split
from evals.plan.judges import finding_of
from evals.records import (
    Choose,
    Completion,
    FinishReason,
    Generate,
    ItemId,
    Message,
    Output,
    Sampling,
)
from evals.runs.again import Again

MARKS = ("<think>", "</think>")
OTHER = ("[THINK]", "[/THINK]")

# --- a text told apart ----------------------------------------------------------------------------

TEXTS = [
    # text, opened by the prompt, strip: reasoning, answer, state
    ("<think>\n2+2\n</think>\n\n4", False, False, "2+2", "4", "closed"),
    (" \n<think>2+2</think> 4 ", False, False, "2+2", "4 ", "closed"),
    ("<think>\n\n</think>\n\n4", False, False, "", "4", "closed"),
    ("<think>a</think>\n<think>b</think>4", False, False, "a\n\nb", "4", "closed"),
    ("<think>a</think>", False, False, "a", "", "closed"),
    ("<think>2+2 is", False, False, "2+2 is", "", "cut"),
    ("2+2 is", True, False, "2+2 is", "", "cut"),
    ("2+2</think>4", True, False, "2+2", "4", "closed"),
    ("<think>2+2</think>4", True, False, "2+2", "4", "closed"),
    ("", True, False, "", "", "cut"),
    # Only quoted.
    ("The tag <think> opens, </think> closes.", False, False, "", None, "none"),
    ("`<think>` is a tag", False, False, "", None, "none"),
    (" 4\n", False, False, "", None, "none"),
    ("2+2</think>4", False, False, "", None, "none"),
    ("<think>a</think>Use <think>x</think>", False, False, "a", "Use <think>x</think>", "closed"),
    # Asked for.
    ("2+2</think>4", False, True, "2+2", "4", "closed"),
    ("Well. <think>2+2</think>4", False, True, "Well. <think>2+2", "4", "closed"),
    ("<think>a</think>Use <think>x</think>", False, True, "a", "Use <think>x</think>", "closed"),
    ("4", False, True, "", None, "none"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "opened", "strip", "reasoning", "answer", "state"), TEXTS)
def test_a_block_at_the_beginning_is_told_from_the_answer(
    text: str, opened: bool, strip: bool, reasoning: str, answer: str | None, state: str
) -> None:
    for marks in (MARKS, OTHER):
        said, thought, wanted = (
            one and one.replace("<think>", marks[0]).replace("</think>", marks[1])
            for one in (text, reasoning, answer)
        )
        found = split(said or "", marks, opened=opened, anywhere=strip)
        expected = said if wanted is None else wanted
        assert (found.reasoning, found.answer, found.state) == (thought, expected, state)


words = st.text("ab< >/\n", max_size=20)


@given(words, words, st.booleans())
def test_what_a_closed_block_holds_and_what_follows_come_back_to_the_letter(
    thought: str, answer: str, opened: bool
) -> None:
    text = ("" if opened else "<think>") + f"{thought}</think>{answer}"
    found = split(text, MARKS, opened=opened)
    assert found == (thought.strip(), answer.lstrip(), "closed", len(text) - len(answer))


@given(st.text(max_size=40).filter(lambda text: not text.lstrip().startswith("<think>")))
def test_a_text_that_opens_no_block_is_its_own_answer(text: str) -> None:
    assert split(text, MARKS, opened=False) == ("", text, "none", 0)


# --- an answer read with a tokenizer --------------------------------------------------------------


def tokenizer(*, special: bool | None) -> Any:
    """The embedded model's, with marks that are tokens, special ones, or (None) plain text."""
    found = load_tokenizer(str(embedded_folder()))
    if special is not None:
        added = [AddedToken(mark, special=special) for mark in MARKS]
        found.add_tokens(added, special_tokens=special)
    return found


@pytest.fixture(scope="module")
def tokenizers() -> Mapping[bool | None, Any]:
    return {special: tokenizer(special=special) for special in (None, False, True)}


def generate(max_tokens: int = 100, stop: tuple[str, ...] = (), **more: Any) -> Generate:
    return Generate((Message("user", "?"),), Sampling(max_tokens=max_tokens, stop=stop), **more)


def said(tokenizer: Any, text: str, end: FinishReason = "stop") -> Completion:
    """What an engine says of this text: without its special tokens, and its ids with them."""
    ids = (*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id)
    return Completion((Output(tokenizer.decode(ids, skip_special_tokens=True), end, tuple(ids)),))


ROOM = ReasoningSettings(reasoning_tokens=64)
THOUGHT = "<think>Say 7.\n\nQuestion: 3?</think>\n\nSo the answer is ten, no more and no less."
READ = [
    # how, limit, stops: answer, end
    (ReasoningSettings(), 100, (), "So the answer is ten, no more and no less.", "stop"),
    (ROOM, 100, (), "So the answer is ten, no more and no less.", "stop"),
    (ROOM, 100, (", no",), "So the answer is ten", "stop"),
    (ROOM, 100, ("\n\n", "Question:"), "So the answer is ten, no more and no less.", "stop"),
    (ROOM, 6, (), "So the answer is", "length"),
    (ROOM, 6, (" is",), "So the answer", "stop"),
    (ROOM, 6, ("more",), "So the answer is", "length"),
]


@pytest.mark.parametrize("special", [None, False, True])
@pytest.mark.parametrize(("how", "limit", "stop", "answer", "end"), READ)
def test_the_answer_after_its_reasoning_obeys_the_protocol(
    how: ReasoningSettings,
    limit: int,
    stop: tuple[str, ...],
    answer: str,
    end: str,
    special: bool | None,
    tokenizers: Mapping[bool | None, Any],
) -> None:
    own = tokenizers[special]
    renderer = Renderer(own, "tokenizer", None, reasoning=how)
    raw = said(own, THOUGHT)
    (read,) = Reader(how, False, renderer).read(generate(limit, stop), raw).outputs
    assert (read.text, read.finish_reason) == (answer, end)
    assert read.reasoning == "Say 7.\n\nQuestion: 3?"
    assert read.token_ids == raw.outputs[0].token_ids
    assert read.n_reasoning is not None
    closed, before = (own.decode(read.token_ids[: read.n_reasoning - n]) for n in (0, 1))
    assert closed.rstrip() == THOUGHT.partition("</think>")[0] + "</think>"
    assert "</think>" not in before


@pytest.mark.parametrize("special", [None, False, True])
def test_a_block_that_is_never_closed_is_no_answer_whatever_its_marks_are(
    special: bool | None, tokenizers: Mapping[bool | None, Any]
) -> None:
    own = tokenizers[special]
    reader = Reader(ROOM, False, Renderer(own, "tokenizer", None, reasoning=ROOM))
    raw = said(own, "<think>Say 7", "length")
    (read,) = reader.read(generate(), raw).outputs
    assert (read.text, read.finish_reason, read.reasoning) == ("", "reasoning", "Say 7")
    assert not read.is_answer
    assert read.n_reasoning == len(read.token_ids)


def test_kept_reasoning_is_graded_with_marks_that_the_engine_left_out(
    tokenizers: Mapping[bool | None, Any],
) -> None:
    how = ReasoningSettings(reasoning="keep")
    raw = said(tokenizers[True], THOUGHT)
    assert "<think>" not in raw.text
    renderer = Renderer(tokenizers[True], "tokenizer", None)
    assert Reader(how, False, renderer).read(generate(), raw).text == THOUGHT


def test_kept_reasoning_ends_at_a_stop_string_that_the_engine_was_not_told_of() -> None:
    reader = Reader(ReasoningSettings(reasoning="keep"), opens=True)
    raw = Completion((Output("a END</think>b", "length"),))
    (read,) = reader.read(generate(9, ("END",)), raw).outputs
    assert (read.text, read.finish_reason) == ("a ", "stop")


def test_an_answer_that_a_server_told_from_its_reasoning_ends_where_the_protocol_has_it_end() -> (
    None
):
    asked = generate(9, ("\n",))
    raw = Completion((Output("\n\nIt is 7.\nOr 8.", "length", (), "7?\n8?"),))
    (read,) = Reader(ROOM).read(asked, raw).outputs
    assert (read.text, read.finish_reason, read.reasoning) == ("It is 7.", "stop", "7?\n8?")
    assert Reader(ROOM).read(asked, replace(raw, outputs=(read,))).outputs == (read,)


@pytest.mark.parametrize("special", [False, True])
def test_a_verdict_told_from_its_reasoning_stays_so_when_the_run_is_scored_without_a_tokenizer(
    special: bool, tokenizers: Mapping[bool | None, Any]
) -> None:
    asked = generate()
    raw = said(tokenizers[special], "<think>following?</think>refusal")
    renderer = Renderer(tokenizers[special], "tokenizer", None)
    then = finding_of(asked, Reader(renderer=renderer).read(asked, raw), "judge")
    assert (then.text, then.reasoning) == ("refusal", "following?")
    assert Again({}).verdict(asked, raw, "?", "judge", then) == then


def test_an_answer_without_reasoning_is_held_to_the_limit_that_it_would_have_had(
    tokenizers: Mapping[bool | None, Any],
) -> None:
    own = tokenizers[None]
    reader = Reader(ROOM, False, Renderer(own, "tokenizer", None, reasoning=ROOM))
    (read,) = reader.read(generate(4), said(own, " So the answer is ten.")).outputs
    assert (read.text, read.finish_reason, read.reasoning) == (" So the answer is", "length", None)


NO_PLACE = [
    generate(raw=True),
    Generate((Message("user", "?"),), Sampling(max_tokens=1, n_logprobs=5)),
    Choose((Message("user", "?"),), (("A", " A"),)),
]


@pytest.mark.parametrize("request_", NO_PLACE)
def test_what_has_no_place_for_reasoning_is_neither_given_room_nor_read(request_: Any) -> None:
    own = tokenizer(special=None)
    plain, roomy = (
        Renderer(own, "tokenizer", None, reasoning=how).render([(ItemId("x"), "", request_)])
        for how in (ReasoningSettings(), ROOM)
    )
    assert plain == roomy
    answer = Completion((Output("<think>a</think>b"),))
    assert Reader().read(request_, answer) == answer


def test_room_is_asked_for_without_what_would_end_the_reasoning_and_ordinary_keys_stay() -> None:
    own = tokenizer(special=None)
    asked = [(ItemId("x"), "", generate(100, ("\n",), cut_token="\n\n"))]
    (plain,), (keep,), (roomy,) = (
        Renderer(own, "none", None, reasoning=how).render(asked)
        for how in (ReasoningSettings(), ReasoningSettings(reasoning="keep"), ROOM)
    )
    assert (plain.sampling.stop, plain.max_new_tokens) == (("\n",), 100)
    assert plain.key("f") == keep.key("f") != roomy.key("f")
    assert (roomy.sampling.stop, roomy.cut_id, roomy.max_new_tokens) == ((), None, 164)
    assert roomy.sampling.max_tokens == 100
    (capped,) = Renderer(own, "none", 120, reasoning=ROOM).render(asked)
    assert capped.is_capped


# --- vLLM's parsers -------------------------------------------------------------------------------


PARSED = [
    ("deepseek_r1", "<think>a</think>b", ("a", "b", "closed")),
    ("deepseek_r1", "a</think>b", ("a", "b", "closed")),
    ("deepseek_r1", "a", ("a", "", "cut")),
    ("qwen3", "<think>\na\n</think>\n\nb", ("a", "b", "closed")),
    ("olmo3", "b", ("", "b", "none")),
]


@pytest.mark.parametrize(("name", "text", "told"), PARSED)
def test_vllms_parsers_tell_them_apart_by_their_own_names(
    name: str, text: str, told: tuple[str, ...], tokenizers: Mapping[bool | None, Any]
) -> None:
    parse = reasoning_parser(name, tokenizers[False], {})
    for _ in range(2):  # none keeps what it has seen
        assert parse(text)[:3] == told


def test_a_parsers_answer_obeys_the_protocol_and_its_blind_spot_is_seen(
    tokenizers: Mapping[bool | None, Any],
) -> None:
    own = tokenizers[False]
    renderer = Renderer(own, "tokenizer", None, reasoning=ROOM)
    reader = Reader(ROOM, False, renderer, reasoning_parser("olmo3", own, {}))
    (read,) = reader.read(generate(6), said(own, THOUGHT)).outputs
    assert (read.text, read.finish_reason) == ("So the answer is", "length")
    (cut,) = reader.read(generate(6), said(own, "<think>Say")).outputs
    assert cut.finish_reason == "reasoning"  # vLLM's olmo3 takes it for an answer
