"""The layout of every supported family: TransformerLens' parameter names to transformers' weights.

`torch.nn.Linear` stores `out in`; TransformerLens multiplies from the right, so its matrices are `in out`.
"""

from __future__ import annotations

from typing import Any

from dissect.models.layout import Layout, Slot

QUERY_IN, QUERY_BIAS = "(head d_head) d_model -> head d_model d_head", "(head d_head) -> head d_head"
VALUE_IN, VALUE_BIAS = "(kv d_head) d_model -> kv d_model d_head", "(kv d_head) -> kv d_head"
HEADS_OUT = "d_model (head d_head) -> head d_head d_model"
TRANSPOSED = "out into -> into out"


def _norm(name: str, path: str, plus: float = 0.0) -> dict[str, Slot]:
    return {f"{name}.w": Slot(f"{path}.weight", plus=plus), f"{name}.b": Slot(f"{path}.bias")}


def _linear(weight: str, bias: str, path: str) -> dict[str, Slot]:
    return {weight: Slot(f"{path}.weight", TRANSPOSED), bias: Slot(f"{path}.bias")}


def _attention(query: str, key: str, value: str, out: str) -> dict[str, Slot]:
    """Four separate linear modules, grouped queries or not."""
    return {
        "attn.W_Q": Slot(f"{query}.weight", QUERY_IN),
        "attn.b_Q": Slot(f"{query}.bias", QUERY_BIAS),
        "attn.W_K": Slot(f"{key}.weight", VALUE_IN),
        "attn.b_K": Slot(f"{key}.bias", VALUE_BIAS),
        "attn.W_V": Slot(f"{value}.weight", VALUE_IN),
        "attn.b_V": Slot(f"{value}.bias", VALUE_BIAS),
        **_attention_out(out),
    }


def _attention_out(path: str) -> dict[str, Slot]:
    return {"attn.W_O": Slot(f"{path}.weight", HEADS_OUT), "attn.b_O": Slot(f"{path}.bias")}


SEPARATE_ATTENTION = _attention(*(f"self_attn.{part}_proj" for part in "qkvo"))
GATED_MLP = {
    "mlp.W_in": Slot("mlp.up_proj.weight", TRANSPOSED),
    "mlp.W_gate": Slot("mlp.gate_proj.weight", TRANSPOSED),
    **_linear("mlp.W_out", "mlp.b_out", "mlp.down_proj"),
}
LM_HEAD = _linear("unembed.W_U", "unembed.b_U", "lm_head")

OPT = Layout(
    layers="model.decoder.layers",
    layer={
        **_norm("ln1", "self_attn_layer_norm"),
        **_attention("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj"),
        **_norm("ln2", "final_layer_norm"),
        **_linear("mlp.W_in", "mlp.b_in", "fc1"),
        **_linear("mlp.W_out", "mlp.b_out", "fc2"),
    },
    model={
        "embed.W_E": Slot("model.decoder.embed_tokens.weight"),
        # The first two rows are no positions.
        "pos_embed.W_pos": Slot("model.decoder.embed_positions.weight", rows=lambda cfg: slice(2, None)),
        **_norm("ln_final", "model.decoder.final_layer_norm"),
        **LM_HEAD,
    },
    d_mlp_field="ffn_dim",
)


def _neox_fused() -> dict[str, Slot]:
    """Query, key and value of head 0, then of head 1, and so on."""
    weight, bias = "(head qkv d_head) d_model -> qkv head d_model d_head", "(head qkv d_head) -> qkv head d_head"
    path = "attention.query_key_value"
    weights = {f"attn.W_{part}": Slot(f"{path}.weight", weight, index=i) for i, part in enumerate("QKV")}
    return weights | {f"attn.b_{part}": Slot(f"{path}.bias", bias, index=i) for i, part in enumerate("QKV")}


GPT_NEOX = Layout(
    layers="gpt_neox.layers",
    layer={
        **_norm("ln1", "input_layernorm"),
        **_neox_fused(),
        **_attention_out("attention.dense"),
        **_norm("ln2", "post_attention_layernorm"),
        **_linear("mlp.W_in", "mlp.b_in", "mlp.dense_h_to_4h"),
        **_linear("mlp.W_out", "mlp.b_out", "mlp.dense_4h_to_h"),
    },
    model={
        "embed.W_E": Slot("gpt_neox.embed_in.weight"),
        **_norm("ln_final", "gpt_neox.final_layer_norm"),
        **LM_HEAD,
    },
    d_mlp_field="intermediate_size",
)


def _gpt2_fused() -> dict[str, Slot]:
    """All queries, then all keys, then all values. GPT-2's Conv1D stores `in out`."""
    weight, bias = "d_model (qkv head d_head) -> qkv head d_model d_head", "(qkv head d_head) -> qkv head d_head"
    weights = {f"attn.W_{part}": Slot("attn.c_attn.weight", weight, index=i) for i, part in enumerate("QKV")}
    return weights | {f"attn.b_{part}": Slot("attn.c_attn.bias", bias, index=i) for i, part in enumerate("QKV")}


GPT2 = Layout(
    layers="transformer.h",
    layer={
        **_norm("ln1", "ln_1"),
        **_gpt2_fused(),
        "attn.W_O": Slot("attn.c_proj.weight", "(head d_head) d_model -> head d_head d_model"),
        "attn.b_O": Slot("attn.c_proj.bias"),
        **_norm("ln2", "ln_2"),
        "mlp.W_in": Slot("mlp.c_fc.weight"),
        "mlp.b_in": Slot("mlp.c_fc.bias"),
        "mlp.W_out": Slot("mlp.c_proj.weight"),
        "mlp.b_out": Slot("mlp.c_proj.bias"),
    },
    model={
        "embed.W_E": Slot("transformer.wte.weight"),
        "pos_embed.W_pos": Slot("transformer.wpe.weight"),
        **_norm("ln_final", "transformer.ln_f"),
        **LM_HEAD,
    },
    d_mlp_field="n_inner",
)

LLAMA_MODEL = {
    "embed.W_E": Slot("model.embed_tokens.weight"),
    "ln_final.w": Slot("model.norm.weight"),
    **LM_HEAD,
}
LLAMA_NORMS = {
    "ln1.w": Slot("input_layernorm.weight"),
    "ln2.w": Slot("post_attention_layernorm.weight"),
}
# Llama's names are also those of Mistral, Qwen2 and Qwen3; only Qwen3 has norms on queries and keys.
LLAMA = Layout(
    layers="model.layers",
    layer={**LLAMA_NORMS, **SEPARATE_ATTENTION, **GATED_MLP},
    model=LLAMA_MODEL,
    d_mlp_field="intermediate_size",
)
QWEN3 = Layout(
    layers="model.layers",
    layer={
        **LLAMA.layer,
        "attn.q_norm.w": Slot("self_attn.q_norm.weight"),
        "attn.k_norm.w": Slot("self_attn.k_norm.weight"),
    },
    model=LLAMA_MODEL,
    d_mlp_field="intermediate_size",
)


def _query_rows(cfg: Any) -> slice:
    return slice(0, cfg.n_heads * cfg.d_head)


def _key_rows(cfg: Any) -> slice:
    start, size = cfg.n_heads * cfg.d_head, (cfg.n_key_value_heads or cfg.n_heads) * cfg.d_head
    return slice(start, start + size)


def _value_rows(cfg: Any) -> slice:
    return slice(_key_rows(cfg).stop, None)


GATE_UP = "(two d_mlp) d_model -> two d_model d_mlp"
PHI3 = Layout(
    layers="model.layers",
    layer={
        **LLAMA_NORMS,
        "attn.W_Q": Slot("self_attn.qkv_proj.weight", QUERY_IN, rows=_query_rows),
        "attn.W_K": Slot("self_attn.qkv_proj.weight", VALUE_IN, rows=_key_rows),
        "attn.W_V": Slot("self_attn.qkv_proj.weight", VALUE_IN, rows=_value_rows),
        **_attention_out("self_attn.o_proj"),
        "mlp.W_gate": Slot("mlp.gate_up_proj.weight", GATE_UP, index=0),
        "mlp.W_in": Slot("mlp.gate_up_proj.weight", GATE_UP, index=1),
        **_linear("mlp.W_out", "mlp.b_out", "mlp.down_proj"),
    },
    model=LLAMA_MODEL,
    d_mlp_field="intermediate_size",
)

PHI = Layout(
    layers="model.layers",
    layer={
        # Attention and MLP run in parallel on one norm.
        **_norm("ln1", "input_layernorm"),
        **_norm("ln2", "input_layernorm"),
        **_attention("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.dense"),
        **_linear("mlp.W_in", "mlp.b_in", "mlp.fc1"),
        **_linear("mlp.W_out", "mlp.b_out", "mlp.fc2"),
    },
    model={
        "embed.W_E": Slot("model.embed_tokens.weight"),
        **_norm("ln_final", "model.final_layernorm"),
        **LM_HEAD,
    },
    d_mlp_field="intermediate_size",
)

# Gemma multiplies with one plus the stored norm weight, and scales its embedding by √d_model.
GEMMA_MODEL = {
    "embed.W_E": Slot("model.embed_tokens.weight", times=lambda cfg: cfg.d_model**0.5),
    "ln_final.w": Slot("model.norm.weight", plus=1.0),
    **LM_HEAD,
}
GEMMA = Layout(
    layers="model.layers",
    layer={
        "ln1.w": Slot("input_layernorm.weight", plus=1.0),
        "ln2.w": Slot("post_attention_layernorm.weight", plus=1.0),
        **SEPARATE_ATTENTION,
        **GATED_MLP,
    },
    model=GEMMA_MODEL,
    d_mlp_field="intermediate_size",
)
GEMMA2 = Layout(
    layers="model.layers",
    layer={
        "ln1.w": Slot("input_layernorm.weight", plus=1.0),
        "ln1_post.w": Slot("post_attention_layernorm.weight", plus=1.0),
        "ln2.w": Slot("pre_feedforward_layernorm.weight", plus=1.0),
        "ln2_post.w": Slot("post_feedforward_layernorm.weight", plus=1.0),
        **SEPARATE_ATTENTION,
        **GATED_MLP,
    },
    model=GEMMA_MODEL,
    d_mlp_field="intermediate_size",
)
GEMMA3 = Layout(
    layers="model.layers",
    layer={
        **GEMMA2.layer,
        "attn.q_norm.w": Slot("self_attn.q_norm.weight", plus=1.0),
        "attn.k_norm.w": Slot("self_attn.k_norm.weight", plus=1.0),
    },
    model=GEMMA_MODEL,
    d_mlp_field="intermediate_size",
)

ROBERTA = Layout(
    layers="roberta.encoder.layer",
    layer={
        **_attention("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"),
        **_norm("ln1", "attention.output.LayerNorm"),
        **_linear("mlp.W_in", "mlp.b_in", "intermediate.dense"),
        **_linear("mlp.W_out", "mlp.b_out", "output.dense"),
        **_norm("ln2", "output.LayerNorm"),
    },
    model={
        "embed.embed.W_E": Slot("roberta.embeddings.word_embeddings.weight"),
        # Positions count from the padding token's id plus one.
        "embed.pos_embed.W_pos": Slot(
            "roberta.embeddings.position_embeddings.weight", rows=lambda cfg: slice(-cfg.n_ctx, None)
        ),
        # TransformerLens has two token types; RoBERTa has one, which both then are.
        "embed.token_type_embed.W_token_type": Slot(
            "roberta.embeddings.token_type_embeddings.weight", rows=lambda cfg: [0, -1]
        ),
        **_norm("embed.ln", "roberta.embeddings.LayerNorm"),
        **_linear("mlm_head.W", "mlm_head.b", "lm_head.dense"),
        **_norm("mlm_head.ln", "lm_head.layer_norm"),
        **_linear("unembed.W_U", "unembed.b_U", "lm_head.decoder"),
    },
    d_mlp_field="intermediate_size",
)
