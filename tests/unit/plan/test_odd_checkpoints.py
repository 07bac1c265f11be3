"""Folders as trainers leave them, before any weight is loaded: one sentence, or a plan with the
engine's own context and ends. The same go through the real engine by scripts/checkpoints.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from evals.models.embedded import embedded_folder
from evals.plan.make import make_plan
from evals.plan.settings import RunSettings
from tests.toydata import failure

Config = dict[str, Any]


class Odd(NamedTuple):
    """file: what is changed, and how.  says: in the refusal; without one, context and ends hold."""

    file: str
    change: Callable[[Any], object]
    says: str = ""
    context: int = 8192
    ends: tuple[int, ...] = (2,)


def adds_eos(tokenizer: Config) -> None:
    text = [{"Sequence": {"id": "A", "type_id": 0}}]
    end = {"SpecialToken": {"id": "<|im_end|>", "type_id": 0}}
    tokenizer["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [*text, end],
        "pair": [*text, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {
            "<|im_end|>": {"id": "<|im_end|>", "ids": [2], "tokens": ["<|im_end|>"]}
        },
    }


def gpt2_names(config: Config) -> None:
    del config["max_position_embeddings"]
    config["n_positions"] = 1024


LINEAR = {"max_position_embeddings": 2048, "rope_scaling": {"type": "linear", "factor": 4.0}}
SAMPLES = {"repetition_penalty": 1.3, "temperature": 0.7, "top_k": 20, "eos_token_id": [2, 0]}
NO_OPENING = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
)
ODD: Mapping[str, Odd] = {
    "its template opens no turn": Odd(
        "chat_template.jinja", lambda _: NO_OPENING, "opens no assistant's turn"
    ),
    "its tokenizer adds the end token": Odd("tokenizer.json", adds_eos, "--leave-out-added"),
    "GPT-2's name for the context": Odd("config.json", gpt2_names, context=1024),
    "linear rope scaling": Odd("config.json", lambda c: c.update(LINEAR)),
    "sampling of its own": Odd("generation_config.json", lambda c: c.update(SAMPLES), ends=(0, 2)),
    "another end in both configs": Odd(
        "generation_config.json", lambda c: c.update(eos_token_id=0), ends=(0, 2)
    ),
    "an architecture of tomorrow": Odd(
        "config.json", lambda c: c.update(architectures=["NewForCausalLM"]), "vLLM cannot take"
    ),
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD.keys())
def test_an_odd_checkpoint_is_refused_or_taken_as_the_engine_takes_it(
    odd: Odd, tmp_path: Path
) -> None:
    for file in embedded_folder().iterdir():
        if file.name != odd.file:
            (tmp_path / file.name).symlink_to(file)
    text = (embedded_folder() / odd.file).read_text("utf-8")
    content = json.loads(text) if odd.file.endswith(".json") else text
    changed = odd.change(content)
    (tmp_path / odd.file).write_text(changed if isinstance(changed, str) else json.dumps(content))
    settings = RunSettings(
        str(tmp_path), suite="smoke", tasks=("ifeval",), limit=1, out=tmp_path / "run"
    )
    if odd.says:
        said = failure(lambda: make_plan(settings))
        assert said.startswith((str(tmp_path), f"vLLM cannot take {tmp_path}"))
        assert odd.says in said
        assert "\n" not in said
        return
    plan = make_plan(settings)
    assert plan.view.checkpoint is not None
    assert (plan.renderer.max_len, plan.view.checkpoint.end_ids) == (odd.context, odd.ends)
    assert plan.render("ifeval")
