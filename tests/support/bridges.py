"""Tiny models as a `TransformerBridge`, of families that HookedTransformer knows and of others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.support import tiny

MIXED = {"num_local_experts": 3, "num_experts_per_tok": 2}
OTHERS: dict[str, Callable[[], Any]] = {
    "olmo2": lambda: tiny._random("Olmo2ForCausalLM", "Olmo2Config", **tiny.GROUPED),
    "granite": lambda: tiny._random("GraniteForCausalLM", "GraniteConfig", **tiny.GROUPED, logits_scaling=3.0),
    "mixtral": lambda: tiny._random("MixtralForCausalLM", "MixtralConfig", **tiny.GROUPED, **MIXED),
    "lfm2": lambda: tiny._random(
        "Lfm2ForCausalLM", "Lfm2Config", **tiny.GROUPED, layer_types=["conv", "full_attention", "conv"]
    ),
    "bert": lambda: tiny._random("BertForMaskedLM", "BertConfig", **tiny.ROTARY),
}


def transformers_model(family: str) -> Any:
    """The tiny transformers model of a family."""
    return (tiny.FAMILIES.get(family) or OTHERS[family])()


def tiny_bridge(family: str, hf_model: Any = None) -> Any:
    """A bridge to the tiny model of a family, or to `hf_model`, which is changed by it; not adopted."""
    from transformer_lens.model_bridge.sources import build_bridge_from_module

    hf_model = transformers_model(family) if hf_model is None else hf_model
    options = {"hf_config": hf_model.config, "tokenizer": None, "model_name": family}
    return build_bridge_from_module(hf_model, type(hf_model).__name__, **options)
