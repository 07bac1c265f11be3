"""Prompts as token ids, against PROTOCOL 2, 8 and 9: the embedded model's own tokenizer, and the
Llama 3 one as a Hugging Face folder.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from evals.commands.app import app
from evals.data.load import load_card_data, load_smoke_data
from evals.errors import InputError
from evals.models.embedded import embedded_folder
from evals.models.prompts import (
    Rendered,
    Renderer,
    glue,
    load_tokenizer,
    resolve_chat_format,
    tulu_text,
)
from evals.records import Choose, Generate, ItemId, Message, Sampling
from evals.registry import BENCHMARKS, benchmark_class
from tasks.mmlu import CANDIDATES, MMLU
from tests.llama3 import BOS, SPECIAL

INSTRUCT_HEAD = (
    "<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\nToday"
    " Date: 26 Jul 2024\n\n<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n"
)
INSTRUCT_TAIL = "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
TULU_TAIL = [27, 91, 78191, 91, 397]
SMOL_BOS = 1


def user(content: str) -> tuple[Message, ...]:
    return (Message("user", content),)


def ask(content: str, opening: str = "", *, raw: bool = False) -> Generate:
    return Generate(user(content), Sampling(max_tokens=16), opening, raw)


def one(renderer: Renderer, request: Generate | Choose) -> Rendered:
    (rendered,) = renderer.render([(ItemId("x/0"), "", request)])
    return rendered


Lines = Callable[..., list[dict[str, Any]]]


@pytest.fixture(scope="module")
def prompts() -> Lines:
    """`evals prompts`, as its parsed lines."""

    def call(*arguments: str | Path) -> list[dict[str, Any]]:
        result = CliRunner().invoke(app, ["prompts", *map(str, arguments)], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return [json.loads(line) for line in result.stdout.splitlines()]

    return call


# --- BOS and the two templates --------------------------------------------------------------------


def test_the_rebuilt_tokenizer_is_the_llama_3_one(llama: Any) -> None:
    assert llama("<|assistant|>\n", add_special_tokens=False)["input_ids"] == TULU_TAIL
    assert llama("\n\n", add_special_tokens=False)["input_ids"] == [271]
    assert llama(".\n\n", add_special_tokens=False)["input_ids"] == [382]
    assert llama.convert_tokens_to_ids(list(SPECIAL)) == list(range(BOS, BOS + len(SPECIAL)))


def test_a_base_llama_prompt_has_one_bos(llama: Any) -> None:
    renderer = Renderer(llama, "none", None)
    rendered = one(renderer, ask("Question: why?"))
    assert rendered.text == "Question: why?"
    assert rendered.token_ids[0] == BOS
    assert renderer.n_bos(rendered.token_ids) == 1


def test_a_tulu_prompt_has_one_bos_and_plain_text_tags(llama: Any) -> None:
    renderer = Renderer(llama, "tulu", None)
    rendered = one(renderer, ask("why?"))
    assert rendered.text == "<|user|>\nwhy?\n<|assistant|>\n"
    assert renderer.n_bos(rendered.token_ids) == 1
    assert list(rendered.token_ids[-5:]) == TULU_TAIL
    assert BOS not in rendered.token_ids[1:]


def test_an_instruct_prompt_has_two_bos_the_system_block_and_trimmed_content(instruct: Any) -> None:
    renderer = Renderer(instruct, "tokenizer", None)
    rendered = one(renderer, ask("  why?\n"))
    assert rendered.text == "<|begin_of_text|>" + INSTRUCT_HEAD + "why?" + INSTRUCT_TAIL
    assert rendered.token_ids[:3] == (BOS, BOS, 128006)
    assert renderer.n_bos(rendered.token_ids) == 2


def test_smollm2_has_no_bos_raw_and_one_from_its_template(smol: Any) -> None:
    assert smol.bos_token_id == SMOL_BOS
    raw, chat = Renderer(smol, "none", None), Renderer(smol, "tokenizer", None)
    assert raw.n_bos(one(raw, ask("why?")).token_ids) == 0
    assert chat.n_bos(one(chat, ask("why?")).token_ids) == 1


@pytest.mark.parametrize("content", ["hello", "hello\n", " x "])
def test_tulu_text_leaves_the_content_as_it_is(content: str) -> None:
    assert tulu_text(user(content)) == f"<|user|>\n{content}\n<|assistant|>\n"


@given(st.text())
def test_tulu_text_holds_any_content_unchanged(content: str) -> None:
    assert (
        tulu_text(user(content)).removeprefix("<|user|>\n").removesuffix("\n<|assistant|>\n")
        == content
    )


@pytest.mark.parametrize(
    ("rendered", "opening", "whole"),
    [
        ("a", "Answer:", "a Answer:"),
        ("a\n", "Answer:", "a\nAnswer:"),
        ("a ", "Answer:", "a Answer:"),
        ("a\t", "Answer:", "a\t Answer:"),
        ("a", "", "a"),
        ("", "", ""),
        ("<|assistant|>\n", "A:", "<|assistant|>\nA:"),
    ],
)
def test_an_opening_is_glued_on_with_one_space_unless_white_space_is_there(
    rendered: str, opening: str, whole: str
) -> None:
    assert glue(rendered, opening) == whole


@pytest.mark.parametrize("chat_format", ["tulu", "tokenizer"])
def test_no_space_comes_between_an_assistant_tag_and_its_opening(
    chat_format: Any, instruct: Any
) -> None:
    rendered = one(Renderer(instruct, chat_format, None), ask("why?", "Answer:"))
    assert rendered.text.endswith(("<|assistant|>\nAnswer:", "<|end_header_id|>\n\nAnswer:"))


@pytest.mark.parametrize("chat_format", ["none", "tulu", "tokenizer"])
def test_a_raw_request_knows_no_chat_format(chat_format: Any, instruct: Any) -> None:
    renderer = Renderer(instruct, chat_format, None)
    rendered = one(renderer, ask("\ndef f():\n", raw=True))
    assert rendered.text == "\ndef f():\n"
    assert renderer.n_bos(rendered.token_ids) == 1


def test_auto_means_the_rows_format_then_the_template_then_none(llama: Any, instruct: Any) -> None:
    assert resolve_chat_format("auto", instruct, "tulu") == "tulu"
    assert resolve_chat_format("auto", instruct, "none") == "none"
    assert resolve_chat_format("auto", instruct, None) == "tokenizer"
    assert resolve_chat_format("auto", llama, None) == "none"
    with pytest.raises(InputError, match="no chat template"):
        resolve_chat_format("tokenizer", llama, None)
    with pytest.raises(InputError, match="Known: auto, tulu, tokenizer, none"):
        resolve_chat_format("chatml", llama, None)


def test_a_template_that_cannot_render_is_the_users_to_mend() -> None:
    tokenizer = load_tokenizer(str(embedded_folder()))
    tokenizer.chat_template = "{{ raise_exception('only two turns') }}"
    with pytest.raises(InputError, match=r"only two turns.*--chat-format"):
        one(Renderer(tokenizer, "tokenizer", None), ask("why?"))


# --- PROTOCOL 8 through the command ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("chat_format", "length", "sha256"),
    [
        ("none", 2531, "ddf5ce04c8500ed7ccacfd139e0188663fdda9930c18c724eca044ad5f137cca"),
        ("tulu", 2554, "9bbe852726629222410b5e1be425ad22ea4b519dabb5064902179dfd9dc78485"),
    ],
)
def test_the_first_gsm8k_prompt_is_the_published_one(
    prompts: Lines, llama_folder: Path, data_dir: Path, chat_format: str, length: int, sha256: str
) -> None:
    lines = prompts(
        "gsm8k", "--model", llama_folder, "--chat-format", chat_format, "--data", data_dir
    )
    assert len(lines) == 200
    assert lines[0]["id"] == "gsm8k/1309"
    assert len(lines[0]["prompt"]) == length
    assert hashlib.sha256(lines[0]["prompt"].encode()).hexdigest() == sha256
    assert {line["prompt_token_ids"].count(BOS) for line in lines} == {1}


def test_the_command_prints_the_prompt_without_a_literal_bos_but_keeps_both_ids(
    prompts: Lines, instruct_folder: Path
) -> None:
    # auto: the folder has a template
    lines = prompts("ifeval", "--model", instruct_folder, "--suite", "smoke")
    assert lines
    for line in lines:
        assert line["prompt"].startswith(INSTRUCT_HEAD)
        assert line["prompt_token_ids"][:3] == [BOS, BOS, 128006]


@pytest.mark.parametrize("task", list(BENCHMARKS))
def test_every_line_has_the_documented_keys(prompts: Lines, task: str) -> None:
    for line in prompts(task, "--model", "smollm2", "--suite", "smoke", "--chat-format", "tulu"):
        assert set(line) - {"candidates"} == {
            "id",
            "prompt",
            "prompt_token_ids",
            "sampling",
            "max_new_tokens",
        }
        assert set(line["sampling"]) == {"temperature", "top_p", "n", "max_tokens", "stop"}
        assert line["id"].startswith(f"{task}/")
        assert ("candidates" in line) == (task == "mmlu")


def test_humaneval_is_raw_whatever_the_chat_format(instruct: Any) -> None:
    by_format = [
        list(rendered_smoke(instruct, "humaneval", name)) for name in ("none", "tulu", "tokenizer")
    ]
    assert by_format[0] == by_format[1] == by_format[2]
    assert all(
        rendered.text.endswith("\n") and rendered.token_ids.count(BOS) == 1
        for rendered in by_format[0]
    )


# --- PROTOCOL 9 -----------------------------------------------------------------------------------

GREEDY = {"temperature": 0.0, "top_p": 1.0, "n": 1}
CODE = {
    "temperature": 0.8,
    "top_p": 0.95,
    "n": 20,
    "max_tokens": 512,
    "stop": ["\nclass", "\ndef", "\n#", "\nif", "\nprint"],
}
SHEET = {
    ("gsm8k", "none"): GREEDY | {"max_tokens": 512, "stop": ["\n"]},
    ("gsm8k", "tulu"): GREEDY | {"max_tokens": 512, "stop": []},
    ("bbh", "none"): GREEDY | {"max_tokens": 512, "stop": ["\n\n"]},
    ("bbh", "tulu"): GREEDY | {"max_tokens": 512, "stop": []},
    ("humaneval", "none"): CODE,
    ("humaneval", "tulu"): CODE,
    ("alpaca_eval", "tulu"): GREEDY | {"max_tokens": 8192, "stop": []},
    ("truthfulqa", "none"): GREEDY | {"max_tokens": 50, "stop": []},
    ("truthfulqa", "tulu"): GREEDY | {"max_tokens": 50, "stop": []},
    ("ifeval", "none"): GREEDY | {"max_tokens": 2048, "stop": []},
    ("ifeval", "tulu"): GREEDY | {"max_tokens": 2048, "stop": []},
    ("xstest", "none"): GREEDY | {"max_tokens": 2048, "stop": []},
    ("xstest", "tulu"): GREEDY | {"max_tokens": 2048, "stop": []},
}
ENDS = {
    ("mmlu", "none"): "\nAnswer:",
    ("mmlu", "tulu"): "\nAnswer:\n<|assistant|>\nThe answer is:",
    ("gsm8k", "none"): "\nAnswer:",
    ("gsm8k", "tulu"): "\n<|assistant|>\nAnswer:",
    ("bbh", "none"): "\nA:",
    ("bbh", "tulu"): "\n<|assistant|>\nA:",
    ("truthfulqa", "tulu"): "?\n<|assistant|>\n",
    ("truthfulqa", "none"): "?",
    ("xstest", "tulu"): "\n<|assistant|>\n",
}


def rendered_smoke(tokenizer: Any, task: str, chat_format: Any) -> Iterator[Rendered]:
    cls = benchmark_class(task)
    benchmark = cls(chat=chat_format != "none")
    items = list(benchmark.items(load_smoke_data(cls.dataset)))
    assert items
    yield from Renderer(tokenizer, chat_format, 131_072).render(
        [(item.id, "", benchmark.request(item)) for item in items]
    )


@pytest.mark.parametrize(("task", "chat_format"), SHEET)
def test_sampling_is_the_settings_sheets(llama: Any, task: str, chat_format: str) -> None:
    for rendered in rendered_smoke(llama, task, chat_format):
        how = rendered.sampling
        found = {
            "temperature": how.temperature,
            "top_p": how.top_p,
            "n": how.n,
            "max_tokens": how.max_tokens,
            "stop": list(how.stop),
        }
        assert found == SHEET[task, chat_format]
        assert rendered.max_new_tokens == how.max_tokens
        assert not rendered.is_capped
        assert (how.seed is None) == (how.temperature == 0.0)


@pytest.mark.parametrize(("task", "chat_format"), ENDS)
def test_prompts_end_as_the_settings_sheet_says(llama: Any, task: str, chat_format: str) -> None:
    for rendered in rendered_smoke(llama, task, chat_format):
        assert rendered.text.endswith(ENDS[task, chat_format])


@pytest.mark.parametrize("chat_format", ["none", "tulu"])
def test_mmlu_candidates_are_the_letters_with_a_space(llama: Any, chat_format: str) -> None:
    for rendered in rendered_smoke(llama, "mmlu", chat_format):
        assert rendered.candidates == (("A", 362), ("B", 426), ("C", 356), ("D", 423))
        assert rendered.max_new_tokens == 1


@pytest.mark.parametrize(("chat_format", "cut_id"), [("none", 271), ("tulu", None)])
def test_only_base_truthfulqa_is_cut_at_the_blank_line_token(
    llama: Any, chat_format: str, cut_id: int | None
) -> None:
    assert {rendered.cut_id for rendered in rendered_smoke(llama, "truthfulqa", chat_format)} == {
        cut_id
    }
    assert {rendered.cut_id for rendered in rendered_smoke(llama, "gsm8k", chat_format)} == {None}


@pytest.mark.parametrize(
    ("chat_format", "n_shortened", "left"),
    [
        ("none", 368, {"european": {3: 162, 2: 3}, "us": {4: 199, 3: 1}, "law": {4: 3}}),
        ("tulu", 372, {"european": {3: 160, 2: 5}, "us": {4: 202, 3: 1}, "law": {4: 4}}),
    ],
)
def test_long_mmlu_prompts_lose_their_last_shots(
    llama: Any, data_dir: Path, chat_format: Any, n_shortened: int, left: dict[str, dict[int, int]]
) -> None:
    benchmark = MMLU(chat=chat_format != "none")
    items = list(benchmark.items(load_card_data([MMLU.dataset], data_dir)["mmlu"]))
    renderer = Renderer(llama, chat_format, None)
    # 2,048 tokens of English are never so few bytes; shorter prompts are not tokenized here.
    long = [
        item for item in items if len(renderer.text_of(benchmark.request(item)).encode()) > 8000
    ]
    rendered = renderer.render([(item.id, "", benchmark.request(item)) for item in long])
    shots: dict[str, Counter[int]] = {name: Counter[int]() for name in left}
    names = {
        "high_school_european_history": "european",
        "high_school_us_history": "us",
        "professional_law": "law",
    }
    for item, one_rendered in zip(long, rendered, strict=True):
        n_shots = one_rendered.text.count("\nAnswer: ")
        assert len(one_rendered.token_ids) - 1 <= 2048
        if n_shots < 5:
            shots[names[item.group]][n_shots] += 1
            assert item.shots[n_shots - 1] in one_rendered.text
            assert item.shots[n_shots] not in one_rendered.text
    assert shots == left
    assert sum(map(sum, (counter.values() for counter in shots.values()))) == n_shortened


def test_a_question_too_long_without_any_shot_stays_whole(llama: Any) -> None:
    request = Choose(
        user("word " * 40),
        CANDIDATES,
        shorter=(user("word " * 30), user("word " * 20)),
        max_prompt_tokens=5,
    )
    assert one(Renderer(llama, "none", None), request).text == "word " * 20


# --- many prompts ---------------------------------------------------------------------------------


@pytest.mark.parametrize("at_once", [1, 5])
def test_how_many_are_rendered_at_once_changes_nothing(
    llama: Any, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    whole = list(rendered_smoke(llama, "mmlu", "tulu"))
    monkeypatch.setattr("evals.models.prompts._RENDERED_AT_ONCE", at_once)
    assert list(rendered_smoke(llama, "mmlu", "tulu")) == whole
    assert len(whole) > 5


def test_requests_are_taken_as_they_are_rendered(
    llama: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the requests of 14,000 MMLU questions, each with its shorter forms, are not all there
    at once.
    """
    monkeypatch.setattr("evals.models.prompts._RENDERED_AT_ONCE", 3)
    renderer = Renderer(llama, "none", None)
    taken: list[int] = []
    at_encoding: list[int] = []
    encode = renderer._encode
    monkeypatch.setattr(
        renderer, "_encode", lambda texts: at_encoding.append(len(taken)) or encode(texts)
    )
    assert (
        len(
            renderer.render(
                (ItemId("x/0"), "", (taken.append(n), ask(f"{n}"))[1]) for n in range(8)
            )
        )
        == 8
    )
    assert at_encoding == [3, 6, 8]


def test_equal_ids_are_one_object(llama: Any) -> None:
    first, second = Renderer(llama, "tulu", None).render(
        (ItemId(f"x/{n}"), "", ask("Same.")) for n in range(2)
    )
    assert first.token_ids == second.token_ids
    assert all(a is b for a, b in zip(first.token_ids, second.token_ids, strict=True))
    assert max(first.token_ids) > 256  # smaller ones are always one
