"""Tiny models for tests."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dissect.models.classes import has_hooked_transformer

SITES = ("mlp", "value", "pre_out", "head")  # of a model that is no mixture of experts
N_LAYERS, D_MLP, N_HEADS, N_VALUE_HEADS, D_HEAD, D_VOCAB = 3, 20, 4, 2, 6, 50
NO_HOOKED_TRANSFORMER = "TransformerLens 4 has no HookedTransformer"

needs_hooked_transformer = pytest.mark.skipif(not has_hooked_transformer(), reason=NO_HOOKED_TRANSFORMER)


def tiny_transformer(seed: int = 0, **changes) -> Any:
    """A random HookedTransformer with grouped queries, in float32 on the CPU."""
    if not has_hooked_transformer():
        pytest.skip(NO_HOOKED_TRANSFORMER)
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    torch.manual_seed(seed)
    fields = {
        "n_layers": N_LAYERS,
        "d_model": 16,
        "d_mlp": D_MLP,
        "n_heads": N_HEADS,
        "n_key_value_heads": N_VALUE_HEADS,
        "d_head": D_HEAD,
        "d_vocab": D_VOCAB,
        "n_ctx": 64,
        "act_fn": "gelu",
        "normalization_type": "LN",
        "model_name": "tiny",
        "original_architecture": "tiny",
        "device": "cpu",
        "initializer_range": 0.3,
    }
    model = HookedTransformer(HookedTransformerConfig(**fields | changes))
    for name, parameter in model.named_parameters():
        if ".b_" in name or name.endswith(".b"):
            torch.nn.init.normal_(parameter, std=0.3)  # so that nothing is accidentally zero
    return model.eval().requires_grad_(False)


def our_hooks(model: Any) -> int:
    """Hooks of any kind on the model's hook points."""
    return sum(len(point.fwd_hooks) + len(point._forward_hooks) for point in model.hook_points())
