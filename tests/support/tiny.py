"""Tiny models of every family, built from a config, with every norm and bias drawn at random.

A fresh transformers model has norms of one and biases of zero, which hide a weight put in the wrong place.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

VOCAB = 300
SIZES = {"vocab_size": VOCAB, "max_position_embeddings": 128, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
ROTARY = {
    **SIZES,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
}
GROUPED = {**ROTARY, "num_key_value_heads": 2}
# Not hidden_size / num_attention_heads, so that the two cannot be mixed up.
WIDE_HEADS = {**GROUPED, "head_dim": 16}
WINDOW = 6
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}


def _random(model_class: str, config_class: str, **config: Any) -> Any:
    """A model in evaluation mode whose every weight is random, norms around one, logits that vary."""
    import transformers

    torch.manual_seed(0)
    model = getattr(transformers, model_class)(getattr(transformers, config_class)(**config)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            _randomise(name, parameter)
    model.tie_weights()
    return model


def _randomise(name: str, parameter: torch.nn.Parameter) -> None:
    if parameter.dim() > 1:
        parameter.normal_(std=0.2)
    elif name.endswith("bias"):
        parameter.normal_(std=0.3)
    else:
        parameter.add_(torch.randn_like(parameter) * 0.2)


def _opt(**changes: Any) -> Any:
    sizes = {**SIZES, "hidden_size": 48, "ffn_dim": 80, "num_hidden_layers": 2, "num_attention_heads": 4}
    return _random("OPTForCausalLM", "OPTConfig", **{**sizes, "word_embed_proj_dim": 48, **changes})


def _galactica() -> Any:
    return _opt(enable_bias=False, layer_norm_elementwise_affine=False, activation_function="gelu")


def _neox(**changes: Any) -> Any:
    return _random("GPTNeoXForCausalLM", "GPTNeoXConfig", **{**ROTARY, "rotary_pct": 0.5, **changes})


def _gpt2() -> Any:
    return _random(
        "GPT2LMHeadModel",
        "GPT2Config",
        vocab_size=VOCAB,
        n_positions=128,
        n_embd=48,
        n_layer=2,
        n_head=4,
        n_inner=80,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
    )


def _llama(**changes: Any) -> Any:
    return _random("LlamaForCausalLM", "LlamaConfig", **{**WIDE_HEADS, **changes})


def _mistral() -> Any:
    return _random("MistralForCausalLM", "MistralConfig", **WIDE_HEADS, sliding_window=WINDOW)


def _qwen2(**changes: Any) -> Any:
    return _random("Qwen2ForCausalLM", "Qwen2Config", **GROUPED, **changes)


def _qwen3() -> Any:
    return _random("Qwen3ForCausalLM", "Qwen3Config", **WIDE_HEADS)


def _gemma() -> Any:
    return _random("GemmaForCausalLM", "GemmaConfig", **WIDE_HEADS)


def _gemma2() -> Any:
    return _random("Gemma2ForCausalLM", "Gemma2Config", **WIDE_HEADS, sliding_window=WINDOW, query_pre_attn_scalar=20)


def _gemma3() -> Any:
    kinds = ["sliding_attention", "sliding_attention", "full_attention"]
    return _random(
        "Gemma3ForCausalLM",
        "Gemma3TextConfig",
        **WIDE_HEADS,
        sliding_window=WINDOW,
        query_pre_attn_scalar=20,
        layer_types=kinds,
        rope_scaling={"rope_type": "linear", "factor": 8.0},
    )


def _phi() -> Any:
    return _random("PhiForCausalLM", "PhiConfig", **GROUPED, partial_rotary_factor=0.5)


def _phi3() -> Any:
    return _random("Phi3ForCausalLM", "Phi3Config", **GROUPED, sliding_window=WINDOW)


def _roberta() -> Any:
    return _random("RobertaForMaskedLM", "RobertaConfig", **{**ROTARY, "pad_token_id": 1, "type_vocab_size": 1})


FAMILIES: dict[str, Callable[[], Any]] = {
    "opt": _opt,
    "galactica": _galactica,
    "gpt-neox": _neox,
    "gpt-neox-sequential": lambda: _neox(use_parallel_residual=False, attention_bias=False),
    "gpt2": _gpt2,
    "llama": _llama,
    "llama-biases": lambda: _llama(attention_bias=True, tie_word_embeddings=True),
    "llama-ungrouped": lambda: _llama(num_key_value_heads=4),
    "llama3-rope": lambda: _llama(rope_parameters=LLAMA3_ROPE),
    "mistral": _mistral,
    "qwen2": _qwen2,
    "qwen2-window": lambda: _qwen2(use_sliding_window=True, sliding_window=WINDOW, max_window_layers=1),
    "qwen3": _qwen3,
    "gemma": _gemma,
    "gemma2": _gemma2,
    "gemma3": _gemma3,
    "phi": _phi,
    "phi3": _phi3,
    "roberta": _roberta,
}


def save_tiny(family: str, path: Path, *, tokenizer: bool = True) -> Path:
    """The tiny model of a family, saved as a transformers folder at `path`, with a tokenizer unless told otherwise."""
    FAMILIES[family]().save_pretrained(path)
    if tokenizer:
        tiny_tokenizer(path, masked=family == "roberta")
    return path


TEXTS = [
    "def f(x):\n    return x + 1\n",
    "for i in range(10):\n    print(i)\n",
    "The king of the island was an old man.",
    "In the year of the great flood the river rose above the town.",
]


def tiny_tokenizer(path: Path, *, masked: bool = False) -> Any:
    """A small byte-level BPE tokenizer with BOS and EOS (and mask, cls, sep for masked models), saved at `path`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    # The ids of the configs above: bos 0, eos 1, pad 2; RoBERTa's are bos 0, pad 1, eos 2.
    special = ["<s>", "<pad>", "</s>", "<mask>"] if masked else ["<s>", "</s>", "<pad>"]
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer, raw.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    raw.train_from_iterator(
        TEXTS,
        trainers.BpeTrainer(vocab_size=VOCAB, special_tokens=special, initial_alphabet=alphabet, show_progress=False),
    )
    roles = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    masked_roles = {"mask_token": "<mask>", "cls_token": "<s>", "sep_token": "</s>"} if masked else {}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, **roles, **masked_roles)
    tokenizer.save_pretrained(path)
    return tokenizer
