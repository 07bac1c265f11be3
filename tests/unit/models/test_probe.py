"""What would spoil every answer is seen before any weight is loaded: the templates of five families
pass, each fault is named with what mends it.
"""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from evals.errors import InputError
from evals.models.embedded import embedded_folder
from evals.models.probe import check_prompts, check_question, end_ids
from evals.models.prompting import PromptSettings, n_added_after
from evals.models.prompts import Renderer, load_tokenizer
from evals.records import Generate, Message, Sampling
from tests.families import FAMILIES


@pytest.fixture(scope="module")
def folder() -> Path:
    return embedded_folder()


def tokenizer_of(folder: Path, template: str, tokens: tuple[str, ...] = ()) -> Any:
    tokenizer = load_tokenizer(str(folder))
    tokenizer.add_special_tokens({"additional_special_tokens": list(tokens)})
    tokenizer.chat_template = template
    return tokenizer


def generation_config(folder: Path, *ids: int) -> Path:
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": list(ids)}))
    return folder


def user(text: str) -> Generate:
    return Generate((Message("user", text),), Sampling(max_tokens=1))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_familys_template_passes_and_its_lost_end_is_named(
    name: str, folder: Path, tmp_path: Path
) -> None:
    family = FAMILIES[name]
    tokenizer = tokenizer_of(folder, family.template, family.tokens)
    end = tokenizer.convert_tokens_to_ids(family.end)
    whole = generation_config(tmp_path, end)
    check_prompts(Renderer(tokenizer, "tokenizer", None), whole, "it")
    if end == tokenizer.eos_token_id:
        return  # the tokenizer's own end token always ends an answer
    lost = generation_config(tmp_path, 0)
    with pytest.raises(InputError, match=rf"Give --stop-token-ids {end}, or mend eos_token_id"):
        check_prompts(Renderer(tokenizer, "tokenizer", None), lost, "it")
    for how in (PromptSettings(stop_token_ids=(end,)), PromptSettings(stop=(family.end,))):
        check_prompts(Renderer(tokenizer, "tokenizer", None, how=how), lost, "it")


PLAIN = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
OPENS = PLAIN + "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
FAULTS = {
    PLAIN: r"opens no assistant's turn .* it writes '<\|im_start\|>assistant\\n'\. Add that",
    OPENS.replace(
        "{{ m.content }}", "{{ m.content[:9] }}"
    ): "does not carry a message's text whole",
    OPENS.replace("{{ m.content }}", "{{ [m.content] | random }}"): r"draws at random .* `random`",
    "{{ raise_exception('no user here') }}": "cannot render this prompt: no user here",
}


@pytest.mark.parametrize("template", FAULTS)
def test_a_template_that_would_spoil_every_answer_is_named(template: str, folder: Path) -> None:
    renderer = Renderer(tokenizer_of(folder, template), "tokenizer", None)
    with pytest.raises(InputError, match=FAULTS[template]):
        check_prompts(renderer, folder, "it")


@pytest.mark.parametrize("chat_format", ["tulu", "none"])
def test_the_template_does_not_matter_where_it_is_not_used(chat_format: Any, folder: Path) -> None:
    check_prompts(Renderer(tokenizer_of(folder, PLAIN), chat_format, None), folder, "it")


def test_a_template_of_the_users_stands_in_for_the_tokenizers(folder: Path) -> None:
    tokenizer = tokenizer_of(folder, PLAIN)
    how = PromptSettings(chat_template=OPENS)
    renderer = Renderer(tokenizer, "tokenizer", None, how=how)
    check_prompts(renderer, folder, "it")
    assert renderer.text_of(user("hi")).endswith("hi<|im_end|>\n<|im_start|>assistant\n")


@pytest.mark.parametrize("chat_format", ["tokenizer", "tulu", "none"])
def test_an_end_token_after_every_prompt_is_named_and_left_out_on_request(
    chat_format: Any, folder: Path, tmp_path: Path
) -> None:
    for file in folder.glob("*.json"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    whole = json.loads((tmp_path / "tokenizer.json").read_text("utf-8"))
    sequence, end = {"Sequence": {"id": "A", "type_id": 0}}, "<|im_end|>"
    special = {"SpecialToken": {"id": end, "type_id": 0}}
    whole["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [sequence, special],
        "pair": [sequence, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {end: {"id": end, "ids": [2], "tokens": [end]}},
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(whole))
    tokenizer = load_tokenizer(str(tmp_path))
    tokenizer.chat_template = OPENS
    assert n_added_after(tokenizer) == 1
    with pytest.raises(
        InputError, match=r"puts <\|im_end\|> after every prompt.*--leave-out-added"
    ):
        check_prompts(Renderer(tokenizer, chat_format, None), tmp_path, "it")
    renderer = Renderer(tokenizer, chat_format, None, how=PromptSettings(leave_out_added=True))
    check_prompts(renderer, tmp_path, "it")
    sound = Renderer(tokenizer_of(folder, OPENS), chat_format, None)
    ours, theirs = (one.render([(None, "", user("hi"))])[0].token_ids for one in (renderer, sound))  # type: ignore[list-item]
    assert ours == theirs
    with pytest.raises(InputError, match=r"^Judge of x: the tokenizer puts <\|im_end\|>"):
        check_question(Renderer(tokenizer, chat_format, None), user("hi"), "Judge of x")


def test_a_begin_of_sequence_token_is_no_fault(folder: Path) -> None:
    assert n_added_after(load_tokenizer(str(folder))) == 0


def test_a_judge_that_takes_no_system_message_is_named_with_advice_that_helps(folder: Path) -> None:
    family = FAMILIES["Gemma 2"]
    tokenizer = tokenizer_of(folder, family.template, family.tokens)
    renderer = Renderer(tokenizer, "tokenizer", None, advice="Name another model to judge.")
    question = Generate((Message("system", "Judge."), Message("user", "x")), Sampling(max_tokens=1))
    with pytest.raises(InputError) as refused:
        check_question(renderer, question, "Judge of xstest, gemma")
    assert str(refused.value).startswith("Judge of xstest, gemma: ")
    assert str(refused.value).endswith("no system role. Name another model to judge.")
    check_question(renderer, user("x"), "Judge of xstest, gemma")


def test_the_engines_end_ids_are_the_tokenizers_and_the_generation_configs(
    folder: Path, tmp_path: Path
) -> None:
    tokenizer = load_tokenizer(str(folder))
    assert end_ids(tokenizer, generation_config(tmp_path, 7, 8)) == {2, 7, 8}
    (tmp_path / "generation_config.json").unlink()
    (tmp_path / "config.json").write_text('{"eos_token_id": 5}')
    assert end_ids(tokenizer, tmp_path) == {2, 5}
    assert end_ids(tokenizer, None) == {2}


# --- what a prompt is made with -------------------------------------------------------------------


def test_a_clock_that_is_read_stands_still_and_no_other_template_is_told_of_it(
    folder: Path,
) -> None:
    tells = "{{ strftime_now('%d %b %Y') }}" + OPENS
    now = datetime(2020, 2, 3)
    renderer = Renderer(tokenizer_of(folder, tells), "tokenizer", None, clock=now)
    assert renderer.reads_clock
    assert renderer.text_of(user("hi")).startswith("03 Feb 2020")
    assert not Renderer(tokenizer_of(folder, OPENS), "tokenizer", None, clock=now).reads_clock
    assert not Renderer(tokenizer_of(folder, tells), "tulu", None, clock=now).reads_clock


def test_a_system_prompt_goes_before_and_takes_the_place_of_one_that_is_there(folder: Path) -> None:
    tokenizer = tokenizer_of(folder, OPENS)
    renderer = Renderer(tokenizer, "tokenizer", None, how=PromptSettings(system_prompt="Be brief."))
    head = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n"
    assert renderer.text_of(user("hi")).startswith(head)
    both = Generate((Message("system", "Talk."), Message("user", "hi")), Sampling(max_tokens=1))
    assert renderer.text_of(both) == renderer.text_of(user("hi"))
    raw = Generate((Message("user", "def f"),), Sampling(max_tokens=1), raw=True)
    assert renderer.text_of(raw) == "def f"


def test_what_a_template_is_given_reaches_it(folder: Path) -> None:
    family = FAMILIES["Qwen 3"]
    tokenizer = tokenizer_of(folder, family.template, family.tokens)
    how = PromptSettings(chat_template_kwargs='{"enable_thinking": false}')
    plain, told = (
        Renderer(tokenizer, "tokenizer", None, how=one).text_of(user("hi"))
        for one in (PromptSettings(), how)
    )
    assert told == plain + "<think>\n\n</think>\n\n"


def test_further_ends_are_in_the_request_and_its_key_and_an_ordinary_key_stays(
    folder: Path,
) -> None:
    tokenizer = tokenizer_of(folder, OPENS)
    asked = [(None, "", user("hi"))]
    keys = []
    for how in (
        PromptSettings(),
        PromptSettings(stop=("\n\n",)),
        PromptSettings(stop_token_ids=(7,)),
    ):
        (rendered,) = Renderer(tokenizer, "tokenizer", None, how=how).render(asked)  # type: ignore[arg-type]
        assert (rendered.sampling.stop, rendered.stop_token_ids) == (how.stop, how.stop_token_ids)
        keys.append(rendered.key("f"))
    assert len(set(keys)) == 3


@pytest.mark.parametrize("given", ["{", "[1]", "null", "enable_thinking=false"])
def test_what_is_no_object_is_refused_by_its_option(given: str, folder: Path) -> None:
    with pytest.raises(InputError, match="--chat-template-kwargs"):
        Renderer(
            tokenizer_of(folder, OPENS),
            "tokenizer",
            None,
            how=PromptSettings(chat_template_kwargs=given),
        )
