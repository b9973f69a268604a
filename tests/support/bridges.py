"""Tiny models as a `TransformerBridge`, of families that HookedTransformer knows and of others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.support import tiny
from tests.support.architectures import BRIDGED
from tests.support.mixtures import mixtral

OTHERS: dict[str, Callable[[], Any]] = {
    **{name: BRIDGED[name] for name in ("olmo2", "granite", "lfm2", "bert")},
    # bitsandbytes packs weights for some processors in blocks of 64.
    "llama-in-blocks": lambda: tiny._llama(hidden_size=64, intermediate_size=128),
    "mixtral": lambda: mixtral(num_hidden_layers=3),
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
