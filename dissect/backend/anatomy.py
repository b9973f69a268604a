"""What `HookedTransformer`, `HookedEncoder` and `TransformerBridge` answer differently, but for passes and weights.

A bridge's own configuration is not asked where its transformers model or its weights know better.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dissect.base.checks import is_bridge

LENGTH_MATTERS = ("dynamic", "longrope")  # kinds of rotary embedding that change with the length of a window


def is_masked(model: Any) -> bool:
    """True for a masked language model (a `HookedEncoder`, or a bridge to one), False for a causal one."""
    return model.cfg.architecture.endswith("ForMaskedLM") if is_bridge(model) else hasattr(model, "mlm_head")


def looks_ahead(model: Any) -> bool:
    """True where a token may see those after it."""
    return is_masked(model) or model.cfg.attention_dir != "causal"


def counts_length(model: Any) -> bool:
    """True where a window's length changes how its first tokens are read."""
    if not is_bridge(model):
        return getattr(model.cfg, "use_dynamic_ntk_rope", False)
    rope = getattr(transformers_config(model), "rope_parameters", None) or {}
    return any(f"'{kind}'" in repr(rope) for kind in LENGTH_MATTERS)


def transformers_config(bridge: Any) -> Any:
    """The configuration of a bridge's transformers model: of its text, where it also reads something else."""
    return bridge.original_model.config.get_text_config()


def why_values_do_not_add_up(model: Any) -> str | None:
    """What makes a constant value no constant output: "clip_qkv" or "sinks"; None where nothing does.

    Values are then clamped after their hook, or rows of the attention pattern sum to less than one.
    """
    cfg = transformers_config(model) if is_bridge(model) else model.cfg
    if getattr(cfg, "clip_qkv", None) is not None:
        return "clip_qkv"
    return "sinks" if getattr(cfg, "use_attention_sinks", False) or _has_sinks(model) else None


def _has_sinks(model: Any) -> bool:
    return is_bridge(model) and any(name.endswith("sinks") for name, _ in model.named_parameters())


def soft_cap(model: Any) -> float:
    """The soft cap of a model's logits, 0 or less for none."""
    return model.cfg.output_logits_soft_cap or 0.0


def logit_scale(model: Any) -> float:
    """What a model multiplies its unembedding's product by: 1 but for some bridges."""
    if not is_bridge(model):
        return 1.0
    cfg = transformers_config(model)
    divisor = getattr(cfg, "logits_scaling", None) or 1.0  # Granite
    return float(getattr(cfg, "logit_scale", None) or 1.0) / float(divisor)  # Cohere


def gain(norm: Any) -> Float[Tensor, " d_model"] | None:
    """What a norm multiplies each dimension by after it has divided by its scale, in float32; None for nothing.

    A bridge's norm may store this less one (Gemma), so it is asked: of ±1 in turn, mean and scale are 0 and 1.
    """
    weight = getattr(norm, "w", None)
    if weight is None:
        return None
    if not hasattr(norm, "original_component"):
        return weight.float()
    large = 1024.0  # beside which no norm's epsilon counts
    probe = torch.ones_like(weight)
    probe[1::2] = -1
    above, below = (norm.original_component(sign * large * probe).float() for sign in (1, -1))
    return (above - below) / 2 * probe.float()


def weights_are_read(model: Any) -> bool:
    """False where weights are quantized or offloaded, so that they cannot be read or changed in place."""
    return not is_quantized(model) and not any(parameter.is_meta for parameter in model.parameters())


def is_quantized(model: Any) -> bool:
    """True for a transformers model, or a TransformerLens model, whose weights are in less than 16 bits."""
    return bool(getattr(getattr(model, "original_model", model), "is_quantized", False))
