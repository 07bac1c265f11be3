"""Chat templates of the families that people evaluate, written here from what their documentation
says of the format: the roles, the tokens around a turn, what the template reads beside messages.
"""

from typing import NamedTuple


class Family(NamedTuple):
    """A template, the token that ends an assistant's turn, and the tokens it is written with."""

    template: str
    end: str
    tokens: tuple[str, ...]


_IM = ("<|im_start|>", "<|im_end|>")
_QWEN = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}"
    "{% set said = m.content.split('</think>')[-1].lstrip('\n') %}"
    "{% if loop.last %}<think>\n\n</think>\n\n{% endif %}{{ said }}"
    "{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
)
_GEMMA = (
    "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{{ first if loop.first else '' }}{{ m.content | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
_GEMMA_TOKENS = ("<start_of_turn>", "<end_of_turn>")

FAMILIES = {
    # The system turn is always there, with two dates; today's is asked of the clock.
    "Llama 3": Family(
        "{{ bos_token }}{% if date_string is not defined %}{% set date_string ="
        " strftime_now('%d %b %Y') if strftime_now is defined else '26 Jul 2024' %}{% endif %}"
        "{% if messages[0].role == 'system' %}{% set system = messages[0].content | trim %}"
        "{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}"
        "<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n"
        "Today Date: {{ date_string }}\n\n{{ system }}<|eot_id|>"
        "{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
        "{{ m.content | trim }}<|eot_id|>{% endfor %}"
        "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n"
        "{% endif %}",
        "<|eot_id|>",
        ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    ),
    # Thinks unless told not to, which closes an empty block; earlier thoughts are not repeated.
    "Qwen 3": Family(
        _QWEN + "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n"
        "{% endif %}{% endif %}",
        "<|im_end|>",
        _IM,
    ),
    # The variant that only thinks: the template opens the block.
    "Qwen 3 Thinking": Family(_QWEN + "<think>\n{% endif %}", "<|im_end|>", _IM),
    "Gemma 2": Family(
        "{{ bos_token }}{% set first = '' %}{% for m in messages %}{% if m.role == 'system' %}"
        "{{ raise_exception('no system role') }}{% endif %}" + _GEMMA,
        "<end_of_turn>",
        _GEMMA_TOKENS,
    ),
    # What a system would say begins the user's first turn.
    "Gemma 3": Family(
        "{{ bos_token }}{% set first = '' %}{% if messages[0].role == 'system' %}"
        "{% set first = messages[0].content + '\n\n' %}{% set messages = messages[1:] %}{% endif %}"
        "{% for m in messages %}" + _GEMMA,
        "<end_of_turn>",
        _GEMMA_TOKENS,
    ),
    "Mistral": Family(
        "{{ bos_token }}{% for m in messages %}"
        "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('roles must alternate user/assistant') }}{% endif %}"
        "{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
        "{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}",
        "<|im_end|>",
        ("[INST]", "[/INST]"),
    ),
    # What a system would say begins the user's last turn.
    "Mistral 3": Family(
        "{{ bos_token }}{% set head = '' %}{% if messages[0].role == 'system' %}"
        "{% set head = messages[0].content + '\n\n' %}{% set messages = messages[1:] %}{% endif %}"
        "{% for m in messages %}{% if m.role == 'user' %}[INST] {{ head if loop.last else '' }}"
        "{{ m.content }}[/INST]{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}",
        "<|im_end|>",
        ("[INST]", "[/INST]"),
    ),
    "OLMo 2": Family(
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %}<|assistant|>\n"
        "{{ m.content }}{{ eos_token }}{{ '' if loop.last else '\n' }}{% else %}<|{{ m.role"
        " }}|>\n{{ m.content }}\n{% endif %}{% endfor %}{% if add_generation_prompt %}"
        "<|assistant|>\n{% endif %}",
        "<|im_end|>",
        (),
    ),
}
