"""Tiny models of many architectures, of which the table in the docs is made (see `tests.support.architecture_table`).

Sizes differ where a mistake could mix them up, and every norm and bias is random (see `tests.support.tiny`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from tests.support import tiny
from tests.support.mixtures import MIXTURES
from tests.support.tiny import VOCAB, WINDOW

HOOKED = (
    "opt",
    "gpt-neox",
    "gpt2",
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "gemma",
    "gemma2",
    "gemma3",
    "phi",
    "phi3",
    "roberta",
)
ROTARY, GROUPED, WIDE_HEADS = (
    {**sizes, "num_hidden_layers": 2} for sizes in (tiny.ROTARY, tiny.GROUPED, tiny.WIDE_HEADS)
)
SLIDING = {"sliding_window": WINDOW}
SPECIAL = {"vocab_size": VOCAB, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
GPT = {**SPECIAL, "n_embd": 48, "n_layer": 2, "n_head": 4, "n_positions": 128}
LOCAL = {"num_local_experts": 4, "num_experts_per_tok": 2}
ROUTED = {"num_experts_per_tok": 2, "moe_intermediate_size": 24}
CHOSEN = {**ROUTED, "n_routed_experts": 4, "n_group": 1, "topk_group": 1}
HYBRID = {**GROUPED, "num_hidden_layers": 3, "layer_types": ["conv", "full_attention", "conv"]}
LATENT = {
    **ROTARY,
    "num_key_value_heads": 4,
    "kv_lora_rank": 16,
    "q_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 12,
}
XGLM = {"max_position_embeddings": 128, "d_model": 48, "ffn_dim": 80, "num_layers": 2, "attention_heads": 4}
GPT_NEO = {"hidden_size": 48, "num_layers": 2, "num_heads": 4, "intermediate_size": 80, "window_size": WINDOW}
ERNIE = {"moe_num_experts": 4, "moe_k": 2, "moe_intermediate_size": 24, "moe_layer_start_index": 0}
MAMBA_2 = {"mamba_n_heads": 4, "mamba_d_head": 24, "mamba_d_state": 8, "mamba_n_groups": 1, "mamba_chunk_size": 8}
ALTERNATING = {  # attention and experts in every second layer
    **GROUPED,
    "num_hidden_layers": 4,
    "attn_layer_period": 2,
    "attn_layer_offset": 1,
    "expert_layer_period": 2,
    "expert_layer_offset": 1,
    "num_experts": 4,
    "num_experts_per_tok": 2,
}
DELTA = {
    "layer_types": ["linear_attention", "full_attention"],
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}


def _causal(name: str, **sizes: Any) -> Callable[[], Any]:
    """What makes a tiny model of the transformers classes `nameForCausalLM` and `nameConfig`."""
    return partial(tiny._random, f"{name}ForCausalLM", f"{name}Config", **sizes)


BRIDGED: dict[str, Callable[[], Any]] = {
    "apertus": _causal("Apertus", **GROUPED),
    "arcee": _causal("Arcee", **GROUPED),
    "bamba": _causal("Bamba", **{**GROUPED, "num_hidden_layers": 3}, **MAMBA_2, attn_layer_indices=[1]),
    "bert": partial(tiny._random, "BertForMaskedLM", "BertConfig", **ROTARY),
    "bloom": _causal("Bloom", **SPECIAL, hidden_size=48, n_layer=2, n_head=4),
    "codegen": _causal("CodeGen", **GPT, n_inner=80, rotary_dim=8),
    "cohere": _causal("Cohere", **GROUPED),
    "cohere2": _causal("Cohere2", **GROUPED, **SLIDING),
    "deepseek-v2": _causal("DeepseekV2", **LATENT, **CHOSEN),
    "deepseek-v3": _causal("DeepseekV3", **LATENT, **CHOSEN, first_k_dense_replace=1),
    "ernie4.5": _causal("Ernie4_5", **WIDE_HEADS),
    "ernie4.5-moe": _causal("Ernie4_5_Moe", **GROUPED, **ERNIE),
    "exaone4": _causal("Exaone4", **GROUPED, **SLIDING),
    "falcon": _causal("Falcon", **ROTARY, ffn_hidden_size=96, multi_query=True, new_decoder_architecture=False),
    "falcon-h1": _causal("FalconH1", **WIDE_HEADS, **MAMBA_2, mamba_d_ssm=96),
    "flex-olmo": _causal("FlexOlmo", **GROUPED, num_experts=4, num_experts_per_tok=2),
    "glm": _causal("Glm", **WIDE_HEADS),
    "glm4": _causal("Glm4", **WIDE_HEADS),
    "glm4-moe": _causal("Glm4Moe", **WIDE_HEADS, **CHOSEN, first_k_dense_replace=1),
    "gpt-bigcode": _causal("GPTBigCode", **GPT, n_inner=80),
    "gpt-j": _causal("GPTJ", **GPT, n_inner=80, rotary_dim=8),
    "gpt-neo": _causal("GPTNeo", **SPECIAL, **GPT_NEO, attention_types=[[["global", "local"], 1]]),
    "granite": _causal("Granite", **GROUPED, logits_scaling=3.0, residual_multiplier=0.7, embedding_multiplier=2.0),
    "granite-moe": _causal("GraniteMoe", **GROUPED, **LOCAL),
    "hunyuan": _causal("HunYuanDenseV1", **WIDE_HEADS),
    "jais2": _causal("Jais2", **GROUPED),
    "jamba": _causal("Jamba", **ALTERNATING, use_mamba_kernels=False, mamba_d_state=8, mamba_dt_rank=4),
    "lfm2": _causal("Lfm2", **HYBRID),
    "lfm2-moe": _causal("Lfm2Moe", **HYBRID, **ROUTED, num_experts=4, num_dense_layers=1),
    "mamba": _causal("Mamba", **SPECIAL, hidden_size=48, num_hidden_layers=2, state_size=8),
    "minimax-m2": _causal("MiniMaxM2", **WIDE_HEADS, **LOCAL),
    "ministral3": _causal("Ministral3", **WIDE_HEADS),
    "modernbert-decoder": _causal("ModernBertDecoder", **ROTARY, local_attention=WINDOW),
    "mpt": _causal("Mpt", **SPECIAL, d_model=48, n_layers=2, n_heads=4, max_seq_len=128),
    "nemotron": _causal("Nemotron", **GROUPED),
    "olmo": _causal("Olmo", **GROUPED),
    "olmo2": _causal("Olmo2", **GROUPED),
    "olmo3": _causal("Olmo3", **GROUPED, **SLIDING),
    "olmo-hybrid": _causal("OlmoHybrid", **{**WIDE_HEADS, **DELTA}),
    "openai-gpt": partial(tiny._random, "OpenAIGPTLMHeadModel", "OpenAIGPTConfig", **GPT),
    "qwen3-next": _causal(
        "Qwen3Next", **WIDE_HEADS, **ROUTED, **DELTA, num_experts=4, shared_expert_intermediate_size=24
    ),
    "recurrent-gemma": _causal(
        "RecurrentGemma",
        **WIDE_HEADS,
        lru_width=48,
        block_types=["recurrent", "attention"],
        attention_window_size=WINDOW,
    ),
    "seed-oss": _causal("SeedOss", **WIDE_HEADS),
    "smollm3": _causal("SmolLM3", **GROUPED),
    "stablelm": _causal("StableLm", **GROUPED, partial_rotary_factor=0.5),
    "starcoder2": _causal("Starcoder2", **GROUPED, **SLIDING),
    "vaultgemma": _causal("VaultGemma", **WIDE_HEADS, **SLIDING),
    "xglm": _causal("XGLM", **SPECIAL, **XGLM),
}
ARCHITECTURES: dict[str, Callable[[], Any]] = {
    **{name: tiny.FAMILIES[name] for name in HOOKED},
    **MIXTURES,
    **BRIDGED,
}
