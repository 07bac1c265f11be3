"""Prompts as token ids, against PROTOCOL 2, 8 and 9: the embedded model's own tokenizer, and the Llama 3 one as a Hugging Face folder."""

import hashlib
import json
from base64 import b64decode
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from evals.cli import app
from evals.data import load_card_data, load_smoke_data
from evals.errors import InputError
from evals.models import embedded_folder
from evals.plan import RunSettings, make_plan
from evals.prompts import Rendered, Renderer, check_room, glue, load_tokenizer, resolve_chat_format, tulu_text
from evals.records import Choose, Completion, Generate, ItemId, Message, Output, Sampling
from evals.registry import BENCHMARKS, benchmark_class
from tasks.mmlu import CANDIDATES, MMLU
from tests.llama3 import BOS, tokenizer_file

SPECIAL = (
    "<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>", "<|reserved_special_token_1|>", "<|finetune_right_pad_id|>",
    "<|reserved_special_token_2|>", "<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>", "<|eot_id|>", "<|python_tag|>",
)  # fmt: skip
INSTRUCT_TEMPLATE = (
    "{{ bos_token }}<|start_header_id|>system<|end_header_id|>\n\n"
    "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n<|eot_id|>"
    "{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
INSTRUCT_HEAD = (
    "<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\n"
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


@pytest.fixture(scope="module")
def llama_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model's folder with the Llama 3 tokenizer: byte-pair vocabulary, special tokens at their ids, one BOS put in front."""
    file = tokenizer_file()
    if file is None:
        pytest.skip("llama-models, which ships the Llama 3 tokenizer, is not installed")
    from tokenizers import processors
    from transformers import PreTrainedTokenizerFast
    from transformers.convert_slow_tokenizer import TikTokenConverter

    class Converter(TikTokenConverter):  # type: ignore[misc]
        @staticmethod
        def load_tiktoken_bpe(path: str) -> dict[bytes, int]:
            pairs = (line.split() for line in Path(path).read_bytes().splitlines())
            return {b64decode(token): int(rank) for token, rank in pairs}

    backend = Converter(str(file), extra_special_tokens=SPECIAL).converted()
    template = processors.TemplateProcessing(
        single="<|begin_of_text|> $A", pair="<|begin_of_text|> $A $B", special_tokens=[("<|begin_of_text|>", BOS)]
    )
    backend.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=SPECIAL[0], eos_token=SPECIAL[1])
    folder = tmp_path_factory.mktemp("models") / "llama-3"
    tokenizer.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "max_position_embeddings": 131_072}))
    return folder


@pytest.fixture(scope="module")
def instruct_folder(llama_folder: Path) -> Path:
    """The same with a template as Llama 3.1 Instruct has it."""
    folder = llama_folder.parent / "llama-3-instruct"
    folder.mkdir()
    for file in llama_folder.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "chat_template.jinja").write_text(INSTRUCT_TEMPLATE)
    return folder


@pytest.fixture(scope="module")
def llama(llama_folder: Path) -> Any:
    return load_tokenizer(str(llama_folder))


@pytest.fixture(scope="module")
def instruct(instruct_folder: Path) -> Any:
    return load_tokenizer(str(instruct_folder))


@pytest.fixture(scope="module")
def smol() -> Any:
    return load_tokenizer(str(embedded_folder()))


Lines = Callable[..., list[dict[str, Any]]]


@pytest.fixture(scope="module")
def prompts() -> Lines:
    """`evals prompts`, as its parsed lines."""

    def call(*arguments: str | Path) -> list[dict[str, Any]]:
        result = CliRunner().invoke(app, ["prompts", *map(str, arguments)], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return [json.loads(line) for line in result.stdout.splitlines()]

    return call


# --- BOS and the two templates --------------------------------------------------------------------------------------------


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
    assert tulu_text(user(content)).removeprefix("<|user|>\n").removesuffix("\n<|assistant|>\n") == content


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
def test_an_opening_is_glued_on_with_one_space_unless_white_space_is_there(rendered: str, opening: str, whole: str) -> None:
    assert glue(rendered, opening) == whole


@pytest.mark.parametrize("chat_format", ["tulu", "tokenizer"])
def test_no_space_comes_between_an_assistant_tag_and_its_opening(chat_format: Any, instruct: Any) -> None:
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


# --- PROTOCOL 8 through the command ---------------------------------------------------------------------------------------


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
    lines = prompts("gsm8k", "--model", llama_folder, "--chat-format", chat_format, "--data", data_dir)
    assert len(lines) == 200
    assert lines[0]["id"] == "gsm8k/1309"
    assert len(lines[0]["prompt"]) == length
    assert hashlib.sha256(lines[0]["prompt"].encode()).hexdigest() == sha256
    assert {line["prompt_token_ids"].count(BOS) for line in lines} == {1}


def test_the_command_prints_the_prompt_without_a_literal_bos_but_keeps_both_ids(prompts: Lines, instruct_folder: Path) -> None:
    lines = prompts("ifeval", "--model", instruct_folder, "--suite", "smoke")  # auto: the folder has a template
    assert lines
    for line in lines:
        assert line["prompt"].startswith(INSTRUCT_HEAD)
        assert line["prompt_token_ids"][:3] == [BOS, BOS, 128006]


@pytest.mark.parametrize("task", list(BENCHMARKS))
def test_every_line_has_the_documented_keys(prompts: Lines, task: str) -> None:
    for line in prompts(task, "--model", "smollm2", "--suite", "smoke", "--chat-format", "tulu"):
        assert set(line) - {"candidates"} == {"id", "prompt", "prompt_token_ids", "sampling", "max_new_tokens"}
        assert set(line["sampling"]) == {"temperature", "top_p", "n", "max_tokens", "stop"}
        assert line["id"].startswith(f"{task}/")
        assert ("candidates" in line) == (task == "mmlu")


def test_humaneval_is_raw_whatever_the_chat_format(instruct: Any) -> None:
    by_format = [list(rendered_smoke(instruct, "humaneval", name)) for name in ("none", "tulu", "tokenizer")]
    assert by_format[0] == by_format[1] == by_format[2]
    assert all(rendered.text.endswith("\n") and rendered.token_ids.count(BOS) == 1 for rendered in by_format[0])


# --- PROTOCOL 9 -----------------------------------------------------------------------------------------------------------

GREEDY = {"temperature": 0.0, "top_p": 1.0, "n": 1}
CODE = {"temperature": 0.8, "top_p": 0.95, "n": 20, "max_tokens": 512, "stop": ["\nclass", "\ndef", "\n#", "\nif", "\nprint"]}
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
    items = benchmark.items(load_smoke_data(cls.dataset))
    assert items
    yield from Renderer(tokenizer, chat_format, 131_072).render([(item.id, "", benchmark.request(item)) for item in items])


@pytest.mark.parametrize(("task", "chat_format"), SHEET)
def test_sampling_is_the_settings_sheets(llama: Any, task: str, chat_format: str) -> None:
    for rendered in rendered_smoke(llama, task, chat_format):
        how = rendered.sampling
        found = {"temperature": how.temperature, "top_p": how.top_p, "n": how.n, "max_tokens": how.max_tokens, "stop": list(how.stop)}
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
def test_only_base_truthfulqa_is_cut_at_the_blank_line_token(llama: Any, chat_format: str, cut_id: int | None) -> None:
    assert {rendered.cut_id for rendered in rendered_smoke(llama, "truthfulqa", chat_format)} == {cut_id}
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
    items = benchmark.items(load_card_data([MMLU.dataset], data_dir)["mmlu"])
    renderer = Renderer(llama, chat_format, None)
    # 2,048 tokens of English are never so few bytes; shorter prompts are not tokenized here.
    long = [item for item in items if len(renderer.text_of(benchmark.request(item)).encode()) > 8000]
    rendered = renderer.render([(item.id, "", benchmark.request(item)) for item in long])
    shots: dict[str, Counter[int]] = {name: Counter[int]() for name in left}
    names = {"high_school_european_history": "european", "high_school_us_history": "us", "professional_law": "law"}
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
    request = Choose(user("word " * 40), CANDIDATES, shorter=(user("word " * 30), user("word " * 20)), max_prompt_tokens=5)
    assert one(Renderer(llama, "none", None), request).text == "word " * 20


# --- context --------------------------------------------------------------------------------------------------------------


@given(st.integers(min_value=1, max_value=60), st.integers(min_value=1, max_value=60))
def test_new_tokens_are_the_protocols_or_the_room_left(smol: Any, max_len: int, max_tokens: int) -> None:
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

    settings = RunSettings("smollm2", suite="smoke", tasks=("gsm8k",), engine=EngineSettings(max_model_len=300))
    plan = make_plan(settings)
    with pytest.raises(InputError, match=r"gsm8k/0: the prompt is \d+ tokens, the model takes 300 \(6 such prompts"):
        plan.render("gsm8k")


def test_a_context_larger_than_the_weights_is_refused() -> None:
    from evals.generators import EngineSettings

    settings = RunSettings("smollm2", suite="smoke", tasks=("gsm8k",), engine=EngineSettings(max_model_len=1_000_000))
    with pytest.raises(InputError, match=r"--max-model-len 1,000,000 is more than smollm2 takes \(8,192\)"):
        make_plan(settings)


# --- cut ------------------------------------------------------------------------------------------------------------------


def cut_by(tokenizer: Any, token_ids: list[int], text: str = "as the engine decoded it") -> Output:
    renderer = Renderer(tokenizer, "none", None)
    request = Generate(user("Q: x"), Sampling(max_tokens=50), cut_token="\n\n")
    (output,) = renderer.cut(one(renderer, request), Completion((Output(text, "length", tuple(token_ids)),))).outputs
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


# --- keys and order -------------------------------------------------------------------------------------------------------


@given(st.lists(st.text(max_size=20), min_size=1, max_size=6))
def test_rendering_together_or_alone_gives_the_same_ids(smol: Any, contents: list[str]) -> None:
    renderer = Renderer(smol, "tokenizer", None)
    together = renderer.render([(ItemId(f"x/{i}"), "", ask(content)) for i, content in enumerate(contents)])
    assert [r.item_id for r in together] == [f"x/{i}" for i in range(len(contents))]
    assert [r.token_ids for r in together] == [one(renderer, ask(content)).token_ids for content in contents]


def test_a_key_follows_what_determines_the_answer_and_not_the_item(smol: Any) -> None:
    sampled = Generate(user("x"), Sampling(max_tokens=9, temperature=0.8, n=2))
    base = one(Renderer(smol, "none", None), sampled)
    (elsewhere,) = Renderer(smol, "none", None).render([(ItemId("y/1"), "truth", sampled)])
    assert elsewhere.key("f") == base.key("f")
    others = [
        one(Renderer(smol, "none", None, seed=1), sampled),
        one(Renderer(smol, "none", 5), sampled),
        one(Renderer(smol, "none", None), Generate(user("y"), sampled.sampling)),
        one(Renderer(smol, "none", None), Generate(user("x"), Sampling(max_tokens=9, temperature=0.8, n=3))),
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
