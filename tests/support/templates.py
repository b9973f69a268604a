"""Five chat templates of different shape, each on a tiny tokenizer that has its special tokens."""

from __future__ import annotations

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

CHATML = """{% if messages[0]['role'] != 'system' %}<|im_start|>system
You are a default.<|im_end|>
{% endif %}{% for m in messages %}<|im_start|>{{ m['role'] }}
{{ m['content'] }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
LLAMA3 = """{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>

{{ m['content'] | trim }}<|eot_id|>{% endfor %}
{%- if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>

{% endif %}"""
GEMMA = """{{ bos_token }}{% if messages[0]['role'] == 'system' %}
{{- raise_exception('System role not supported') }}{% endif %}
{%- for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{- raise_exception('Conversation roles must alternate user/assistant') }}{% endif -%}
<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}
{{ m['content'] | trim }}<end_of_turn>
{% endfor %}{% if add_generation_prompt %}<start_of_turn>model
{% endif %}"""
MISTRAL = """{{ bos_token }}{% set ns = namespace(system='') %}{% for m in messages %}{% if m['role'] == 'system' %}
{%- set ns.system = m['content'] + '\n\n' %}{% elif m['role'] == 'user' %}[INST] {{ ns.system + m['content'] }} [/INST]
{%- set ns.system = '' %}{% else %} {{ m['content'] }}{{ eos_token }}{% endif %}{% endfor %}"""
ZEPHYR = """{% for m in messages %}<|{{ m['role'] }}|>
{{ m['content'] + eos_token }}
{% endfor %}{% if add_generation_prompt %}<|assistant|>
{% endif %}"""
# As the first, but it says itself what an answer is.
GENERATING = """{% for m in messages %}<|im_start|>{{ m['role'] }}
{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] }}<|im_end|>{% endgeneration %}
{% else %}{{ m['content'] }}<|im_end|>
{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
# Leaves out the reasoning of all answers but the last, as some do.
FORGETFUL = """{% for m in messages %}<|im_start|>{{ m['role'] }}
{{ m['content'] if loop.last or m['role'] == 'user' else m['content'].split('</think>')[-1] }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""

SHAPES: dict[str, tuple[str, dict[str, str], list[str]]] = {
    "chatml": (CHATML, {"eos_token": "<|im_end|>"}, ["<|im_start|>"]),
    "llama3": (
        LLAMA3,
        {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"},
        ["<|start_header_id|>", "<|end_header_id|>"],
    ),
    "gemma": (GEMMA, {"bos_token": "<bos>", "eos_token": "<eos>"}, ["<start_of_turn>", "<end_of_turn>"]),
    "mistral": (MISTRAL, {"bos_token": "<s>", "eos_token": "</s>"}, ["[INST]", "[/INST]"]),
    "zephyr": (ZEPHYR, {"bos_token": "<s>", "eos_token": "</s>"}, []),
}
OTHERS = {"generating": (GENERATING, *SHAPES["chatml"][1:]), "forgetful": (FORGETFUL, *SHAPES["chatml"][1:])}


def chat_tokenizer(shape: str) -> PreTrainedTokenizerFast:
    """A token a byte, two line breaks or two spaces a token, and the special tokens of a shape, one id each."""
    template, roles, more = (SHAPES | OTHERS)[shape]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: number for number, piece in enumerate([*alphabet, "ĊĊ", "ĠĠ"])}
    raw = Tokenizer(models.BPE(vocab=vocabulary, merges=[("Ċ", "Ċ"), ("Ġ", "Ġ")]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    raw.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, additional_special_tokens=more, **roles)
    tokenizer.chat_template = template
    return tokenizer
