"""The forward pass in two parts, so that each caller computes what it needs: the blocks, and the unembedding."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

TOKENS_PER_BATCH = 4096


def default_batch_size(context: int) -> int:
    """Windows per batch for windows of `context` tokens: about `TOKENS_PER_BATCH` tokens together."""
    return max(1, TOKENS_PER_BATCH // context)


def run_blocks(model: Any, tokens: Int64[Tensor, "window position"]) -> Float[Tensor, "window position d_model"]:
    """The residual stream after the last block: every hook up to there fires, nothing is unembedded."""
    tokens = tokens.to(model.cfg.device)
    if hasattr(model, "encoder_output"):
        return model.encoder_output(tokens)
    return model(tokens, return_type=None, stop_at_layer=model.cfg.n_layers)


def unembed(model: Any, residual: Float[Tensor, "row d_model"]) -> Float[Tensor, "row vocab"]:
    """float32 logits of some rows of the final residual stream."""
    rows = residual[None]
    if hasattr(model, "mlm_head"):
        return model.unembed(model.mlm_head(rows))[0].float()
    if model.cfg.normalization_type is not None:
        rows = model.ln_final(rows)
    logits = model.unembed(rows)[0].float()
    cap = model.cfg.output_logits_soft_cap
    return cap * torch.tanh(logits / cap) if cap > 0 else logits
