"""The templates of five families, searched through for what spoiled other harnesses' prompts: the
system's role, the order of turns, today's date, blocks of reasoning. Each passes, or is refused in
a sentence.
"""

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from evals.errors import InputError
from evals.models.embedded import embedded_folder
from evals.models.probe import check_prompts
from evals.models.prompting import PromptSettings
from evals.models.prompts import Renderer, load_tokenizer
from evals.models.reading import Reader
from evals.models.reasoning import ReasoningSettings
from evals.records import Completion, Generate, Message, Output, Sampling
from tests.families import FAMILIES

BOS, EOS = "<|im_start|>", "<|im_end|>"
"""The embedded model's, whose tokenizer the templates are given."""
NOON = datetime(2026, 1, 2, 12)
SYSTEM, ASK = Message("system", "Be brief."), Message("user", "Why?")
TURNS = (Message("user", "Hi."), Message("assistant", "<think>hm</think>\n\nHello."), ASK)


def renderer(name: str, **how: Any) -> Renderer:
    tokenizer = load_tokenizer(str(embedded_folder()))
    family = FAMILIES[name]
    tokenizer.add_special_tokens({"additional_special_tokens": list(family.tokens)})
    tokenizer.chat_template = family.template
    return Renderer(tokenizer, "tokenizer", None, how=PromptSettings(**how), clock=NOON)


def asked(*messages: Message) -> Generate:
    return Generate(messages, Sampling(max_tokens=8))


def _llama(system: str, *turns: str, date: str = "02 Jan 2026") -> str:
    first = f"Cutting Knowledge Date: December 2023\nToday Date: {date}\n\n{system}"
    spoken = zip(("system", "user", "assistant", "user"), (first, *turns), strict=False)
    whole = "".join(f"<|start_header_id|>{r}<|end_header_id|>\n\n{t}<|eot_id|>" for r, t in spoken)
    return f"{BOS}{whole}<|start_header_id|>assistant<|end_header_id|>\n\n"


def _qwen(*turns: tuple[str, str], then: str = "") -> str:
    whole = "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in turns)
    return f"{whole}<|im_start|>assistant\n{then}"


THOUGHT = "<think>hm</think>\n\nHello."
NO_THINKING = {"chat_template_kwargs": '{"enable_thinking": false}'}
DATED = {"chat_template_kwargs": '{"date_string": "01 Feb 2024"}'}
PROMPTS: list[tuple[str, tuple[Message, ...], dict[str, Any], str]] = [
    ("Llama 3", (ASK,), {}, _llama("", "Why?")),
    ("Llama 3", (SYSTEM, ASK), {}, _llama("Be brief.", "Why?")),
    ("Llama 3", (ASK,), {"system_prompt": "Be brief."}, _llama("Be brief.", "Why?")),
    ("Llama 3", (ASK,), DATED, _llama("", "Why?", date="01 Feb 2024")),
    ("Llama 3", TURNS, {}, _llama("", "Hi.", THOUGHT, "Why?")),
    ("Qwen 3", (ASK,), {}, _qwen(("user", "Why?"))),
    ("Qwen 3", (ASK,), NO_THINKING, _qwen(("user", "Why?"), then="<think>\n\n</think>\n\n")),
    ("Qwen 3", (SYSTEM, ASK), {}, _qwen(("system", "Be brief."), ("user", "Why?"))),
    ("Qwen 3", TURNS, {}, _qwen(("user", "Hi."), ("assistant", "Hello."), ("user", "Why?"))),
    ("Qwen 3 Thinking", (ASK,), {}, _qwen(("user", "Why?"), then="<think>\n")),
    ("Gemma 2", (ASK,), {}, f"{BOS}<start_of_turn>user\nWhy?<end_of_turn>\n<start_of_turn>model\n"),
    ("Gemma 3", (SYSTEM, ASK), {}, f"{BOS}<start_of_turn>user\nBe brief.\n\nWhy?<end_of_turn>\n"
     "<start_of_turn>model\n"),
    ("Gemma 3", TURNS, {}, f"{BOS}<start_of_turn>user\nHi.<end_of_turn>\n<start_of_turn>model\n"
     f"{THOUGHT}<end_of_turn>\n<start_of_turn>user\nWhy?<end_of_turn>\n<start_of_turn>model\n"),
    ("Mistral", (ASK,), {}, f"{BOS}[INST] Why? [/INST]"),
    ("Mistral", TURNS, {}, f"{BOS}[INST] Hi. [/INST] {THOUGHT}{EOS}[INST] Why? [/INST]"),
    ("Mistral 3", (SYSTEM, ASK), {}, f"{BOS}[INST] Be brief.\n\nWhy?[/INST]"),
    ("OLMo 2", (SYSTEM, ASK), {}, f"{BOS}<|system|>\nBe brief.\n<|user|>\nWhy?\n<|assistant|>\n"),
    ("OLMo 2", TURNS, {}, f"{BOS}<|user|>\nHi.\n<|assistant|>\n{THOUGHT}{EOS}\n<|user|>\nWhy?\n"
     "<|assistant|>\n"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "messages", "how", "text"), PROMPTS)
def test_a_prompt_is_the_one_that_the_family_documents(
    name: str, messages: tuple[Message, ...], how: dict[str, Any], text: str
) -> None:
    assert renderer(name, **how).text_of(asked(*messages)) == text


REFUSED = [
    ("Gemma 2", (SYSTEM, ASK), "no system role"),
    ("Mistral", (SYSTEM, ASK), "roles must alternate user/assistant"),
    ("Mistral", (ASK, ASK), "roles must alternate user/assistant"),
]


@pytest.mark.parametrize(("name", "messages", "says"), REFUSED)
def test_a_conversation_that_a_family_does_not_take_is_one_sentence(
    name: str, messages: tuple[Message, ...], says: str
) -> None:
    with pytest.raises(InputError) as refused:
        renderer(name).text_of(asked(*messages))
    said = str(refused.value)
    assert f"chat template cannot render this prompt: {says}. Use --chat-format" in said
    assert "\n" not in said


@pytest.mark.parametrize("name", FAMILIES)
def test_the_probe_lets_every_family_pass_with_and_without_a_system_prompt_it_takes(
    name: str, tmp_path: Path
) -> None:
    for system in (None, "Be brief."):
        made = renderer(name, system_prompt=system)
        end = made.tokenizer.convert_tokens_to_ids(FAMILIES[name].end)
        (tmp_path / "generation_config.json").write_text(f'{{"eos_token_id": {end}}}')
        if system and name in ("Gemma 2", "Mistral"):
            with pytest.raises(InputError, match="cannot render this prompt"):
                check_prompts(made, tmp_path, "it")
        else:
            check_prompts(made, tmp_path, "it")
        assert made.reads_clock == (name == "Llama 3")


SAID = "Well.</think>\n\nSo."
OPENS = [
    # kwargs of the template: whether the prompt opens a block, what the same words then mean
    *((name, {}, False, SAID) for name in FAMILIES if name != "Qwen 3 Thinking"),
    ("Qwen 3 Thinking", {}, True, "So."),
    ("Qwen 3", NO_THINKING, False, SAID),
]


@pytest.mark.parametrize(("name", "how", "opens", "answer"), OPENS)
def test_whether_a_family_opens_a_block_decides_what_its_answer_is(
    name: str, how: dict[str, Any], opens: bool, answer: str
) -> None:
    made = renderer(name, **how)
    assert made.opens_reasoning is opens
    reader = Reader(opens=made.opens_reasoning)
    for said, wanted in ((SAID, answer), (f"<think>\n{SAID}", "So.")):
        assert reader.read(asked(ASK), Completion((Output(said),))).text == wanted


def test_a_question_that_quotes_the_marks_opens_nothing() -> None:
    quoted = Message("user", "What does <think> do?")
    made = renderer("Qwen 3")
    assert made.text_of(asked(quoted)).count("<think>") == 1
    assert not made.opens_reasoning
    own = Renderer(
        made.tokenizer,
        "tokenizer",
        None,
        reasoning=ReasoningSettings(reasoning_marks=("<|im_start|>assistant", "<|im_end|>")),
    )
    assert own.opens_reasoning  # other marks are looked for in the prompt, too
