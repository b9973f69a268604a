"""From a transformers config to TransformerLens' configuration fields, one function a family.

What a config asks for and TransformerLens cannot express is refused by name and value: silently leaving it out
would give a model that is almost right.
"""

from __future__ import annotations

from typing import Any

from dissect.base.errors import DissectError

# transformers' name of an activation function to TransformerLens' name of the same function.
ACTIVATIONS = {
    "relu": "relu",
    "relu2": "relu2",
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_new",
    "gelu_fast": "gelu_fast",
    "gelu_pytorch_tanh": "gelu_pytorch_tanh",
    "silu": "silu",
    "swish": "silu",
}
ATTENTION_TYPES = {"full_attention": "global", "sliding_attention": "local"}


def refused(field: str, value: object, why: str) -> DissectError:
    """The error for a config that TransformerLens cannot express."""
    return DissectError(f"config.json has {field}={value!r}, which TransformerLens cannot express: {why}")


def opt(config: Any) -> dict[str, Any]:
    """OPT and Galactica, which is OPT without biases and norm weights, with GELU."""
    if not config.do_layer_norm_before:
        raise refused("do_layer_norm_before", False, "it puts OPT's norms before attention and MLP")
    if config.word_embed_proj_dim != config.hidden_size:
        raise refused("word_embed_proj_dim", config.word_embed_proj_dim, f"only hidden_size={config.hidden_size}")
    if config._remove_final_layer_norm:
        raise refused("_remove_final_layer_norm", True, "it has a norm before the unembedding")
    return {
        **_common(config, d_mlp=config.ffn_dim, activation=config.activation_function),
        "normalization_type": "LN",
        "eps": 1e-5,
    }


def gpt2(config: Any) -> dict[str, Any]:
    """GPT-2."""
    if config.add_cross_attention:
        raise refused("add_cross_attention", True, "decoder-only models attend to themselves")
    return {
        **_common(config, d_mlp=config.n_inner or 4 * config.n_embd, activation=config.activation_function),
        "normalization_type": "LN",
        "eps": config.layer_norm_epsilon,
        "use_attn_scale": config.scale_attn_weights,
        "scale_attn_by_inverse_layer_idx": config.scale_attn_by_inverse_layer_idx,
    }


def gpt_neox(config: Any) -> dict[str, Any]:
    """GPT-NeoX and Pythia, with attention and MLP in parallel or one after the other."""
    fields = _common(config, d_mlp=config.intermediate_size, activation=config.hidden_act)
    return {
        **fields,
        **_rotary(config.rope_parameters, fields["d_head"]),
        "normalization_type": "LN",
        "eps": config.layer_norm_eps,
        "parallel_attn_mlp": config.use_parallel_residual,
    }


def phi(config: Any) -> dict[str, Any]:
    """Phi-1, 1.5 and 2: attention and MLP in parallel on one norm."""
    if config.qk_layernorm:
        raise refused("qk_layernorm", True, "Phi's norms on queries and keys have biases")
    fields = _common(config, d_mlp=config.intermediate_size, activation=config.hidden_act)
    return {
        **fields,
        **_rotary(config.rope_parameters, fields["d_head"]),
        "normalization_type": "LN",
        "eps": config.layer_norm_eps,
        "parallel_attn_mlp": True,
    }


def llama(config: Any) -> dict[str, Any]:
    """Llama, and what is built like it: Mistral, Qwen2, Phi-3 (RMS norms, gated MLP, rotary positions)."""
    if getattr(config, "mlp_bias", False):
        raise refused("mlp_bias", True, "its gated MLP adds no biases before the product")
    fields = _common(config, d_mlp=config.intermediate_size, activation=config.hidden_act)
    return {
        **fields,
        **_rotary(config.rope_parameters, fields["d_head"]),
        **_sliding_window(config),
        **_rms_and_gate(config),
    }


def qwen3(config: Any) -> dict[str, Any]:
    """Qwen3: Llama with norms on queries and keys."""
    return {**llama(config), "use_qk_norm": True}


def gemma(config: Any) -> dict[str, Any]:
    """Gemma 1: Llama with GELU."""
    if config.use_bidirectional_attention:
        raise refused("use_bidirectional_attention", True, "attention is causal")
    return llama(config)


def gemma2(config: Any) -> dict[str, Any]:
    """Gemma 2: norms before and after, local and global layers in turn, soft caps on scores and logits."""
    fields = _common(config, d_mlp=config.intermediate_size, activation=config.hidden_activation)
    return {
        **fields,
        **_rotary(config.rope_parameters, fields["d_head"]),
        **_sliding_window(config),
        **_gemma_extras(config),
    }


def gemma3(config: Any) -> dict[str, Any]:
    """Gemma 3, text only: Gemma 2 with norms on queries and keys, and other rotary bases in local layers."""
    local, full = (config.rope_parameters[kind] for kind in ("sliding_attention", "full_attention"))
    if local["rope_type"] != "default":
        raise refused("rope_parameters.sliding_attention.rope_type", local["rope_type"], "it scales global layers only")
    if full["rope_type"] not in ("default", "linear"):
        raise refused("rope_parameters.full_attention.rope_type", full["rope_type"], "use default or linear")
    fields = _common(config, d_mlp=config.intermediate_size, activation=config.hidden_activation)
    return {
        **fields,
        **_rotary(full, fields["d_head"]),
        "rotary_base_local": local["rope_theta"],
        **_sliding_window(config),
        **_gemma_extras(config),
        "use_qk_norm": True,
    }


def roberta(config: Any) -> dict[str, Any]:
    """RoBERTa: a bidirectional encoder whose positions start after the padding token's id."""
    if config.is_decoder or config.add_cross_attention:
        raise refused("is_decoder", config.is_decoder, "a HookedEncoder attends in both directions, to itself")
    if config.type_vocab_size > 2:
        raise refused("type_vocab_size", config.type_vocab_size, "it has two token types")
    return {
        **_common(config, d_mlp=config.intermediate_size, activation=config.hidden_act),
        "n_ctx": config.max_position_embeddings - config.pad_token_id - 1,
        "normalization_type": "LN",
        "eps": config.layer_norm_eps,
        "attention_dir": "bidirectional",
    }


def _common(config: Any, d_mlp: int, activation: str) -> dict[str, Any]:
    """Sizes, and the activation function."""
    if activation not in ACTIVATIONS:
        raise refused("activation function", activation, f"it knows {', '.join(ACTIVATIONS)}")
    heads = config.num_attention_heads
    groups = getattr(config, "num_key_value_heads", None)
    return {
        "n_layers": config.num_hidden_layers,
        "d_model": config.hidden_size,
        "n_heads": heads,
        # None, not n_heads, is TransformerLens' way to say that every query head has its own value head.
        "n_key_value_heads": None if groups == heads else groups,
        "d_head": getattr(config, "head_dim", None) or config.hidden_size // heads,
        "d_mlp": d_mlp,
        "n_ctx": config.max_position_embeddings,
        "d_vocab": config.vocab_size,
        "act_fn": ACTIVATIONS[activation],
    }


def _rms_and_gate(config: Any) -> dict[str, Any]:
    return {"normalization_type": "RMS", "final_rms": True, "gated_mlp": True, "eps": config.rms_norm_eps}


def _gemma_extras(config: Any) -> dict[str, Any]:
    if config.use_bidirectional_attention:
        raise refused("use_bidirectional_attention", True, "attention is causal")
    return {
        **_rms_and_gate(config),
        "use_normalization_before_and_after": True,
        "attn_scale": config.query_pre_attn_scalar**0.5,
        # -1 is TransformerLens' way to say that there is no cap.
        "attn_scores_soft_cap": config.attn_logit_softcapping or -1.0,
        "output_logits_soft_cap": config.final_logit_softcapping or -1.0,
    }


def _sliding_window(config: Any) -> dict[str, Any]:
    """Local attention, from a window for all layers (Mistral, Phi-3) or one type for each (Qwen, Gemma)."""
    window = getattr(config, "sliding_window", None)
    if window is None:
        return {}
    kinds = getattr(config, "layer_types", None) or ["sliding_attention"] * config.num_hidden_layers
    if strange := set(kinds) - set(ATTENTION_TYPES):
        raise refused("layer_types", sorted(strange), f"it knows {', '.join(ATTENTION_TYPES)}")
    if "sliding_attention" not in kinds:
        return {}
    if _rope_type(config) == "linear":
        raise refused(
            "sliding_window with linear rope_parameters", window, "it scales no rotary positions in local layers"
        )
    return {
        "use_local_attn": True,
        "window_size": window,
        "attn_types": [ATTENTION_TYPES[kind] for kind in kinds],
    }


def _rope_type(config: Any) -> str | None:
    """The config's one way to scale rotary positions; None where each layer type has its own (Gemma 3)."""
    return config.rope_parameters.get("rope_type")


def _rotary(rope: dict[str, Any], d_head: int) -> dict[str, Any]:
    """Rotary positions: `rope` is transformers' `rope_parameters`."""
    kind = rope["rope_type"]
    if kind not in ROPE_SCALINGS:
        raise refused("rope_parameters.rope_type", kind, f"dissect knows {', '.join(ROPE_SCALINGS)}")
    return {
        "positional_embedding_type": "rotary",
        "rotary_adjacent_pairs": False,
        "rotary_base": rope["rope_theta"],
        "rotary_dim": int(d_head * rope.get("partial_rotary_factor", 1.0)),
        **ROPE_SCALINGS[kind](rope),
    }


def _llama3_rope(rope: dict[str, Any]) -> dict[str, Any]:
    return {
        "use_NTK_by_parts_rope": True,
        "NTK_by_parts_factor": rope["factor"],
        "NTK_by_parts_low_freq_factor": rope["low_freq_factor"],
        "NTK_by_parts_high_freq_factor": rope["high_freq_factor"],
        "NTK_original_ctx_len": rope["original_max_position_embeddings"],
    }


# How rotary positions are scaled: transformers' rope_type to TransformerLens' fields.
ROPE_SCALINGS = {
    "default": lambda rope: {},
    "linear": lambda rope: {"rotary_scaling_factor": rope["factor"]},
    "llama3": _llama3_rope,
}
