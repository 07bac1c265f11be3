"""Tokenizers that golden prompts are made with: the embedded model's, and the Llama 3 one as
Hugging Face folders.
"""

import json
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest

from evals.models.embedded import embedded_folder
from evals.models.prompts import load_tokenizer
from tests.llama3 import BOS, SPECIAL, tokenizer_file

INSTRUCT_TEMPLATE = (
    "{{ bos_token }}<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December"
    " 2023\nToday Date: 26 Jul 2024\n\n<|eot_id|>{% for m in messages %}<|start_header_id|>{{"
    " m.role }}<|end_header_id|>\n\n{{ m.content | trim }}<|eot_id|>{% endfor %}{% if"
    " add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)


LLAMA_CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "max_position_embeddings": 131_072,
    "dtype": "bfloat16",
}


@pytest.fixture(scope="session")
def llama_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model's folder with the Llama 3 tokenizer: byte-pair vocabulary, special tokens at
    their ids, one BOS put in front.
    """
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
        single="<|begin_of_text|> $A",
        pair="<|begin_of_text|> $A $B",
        special_tokens=[("<|begin_of_text|>", BOS)],
    )
    backend.post_processor = processors.Sequence(
        [processors.ByteLevel(trim_offsets=False), template]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=SPECIAL[0], eos_token=SPECIAL[1]
    )
    folder = tmp_path_factory.mktemp("models") / "llama-3"
    tokenizer.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(LLAMA_CONFIG))
    return folder


@pytest.fixture(scope="session")
def instruct_folder(llama_folder: Path) -> Path:
    """The same with a template as Llama 3.1 Instruct has it."""
    folder = llama_folder.parent / "llama-3-instruct"
    folder.mkdir()
    for file in llama_folder.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "chat_template.jinja").write_text(INSTRUCT_TEMPLATE)
    return folder


@pytest.fixture(scope="session")
def llama(llama_folder: Path) -> Any:
    return load_tokenizer(str(llama_folder))


@pytest.fixture(scope="session")
def instruct(instruct_folder: Path) -> Any:
    return load_tokenizer(str(instruct_folder))


@pytest.fixture(scope="session")
def smol() -> Any:
    return load_tokenizer(str(embedded_folder()))
