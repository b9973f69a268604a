"""One transformer block: norms in one pass, and the parts of the block in TransformerLens' order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from dissect.backend.fast.attention import attention_output
from dissect.backend.fast.feed_forward import feed_forward_output
from dissect.backend.fast.support import follows_its_class, observed

Residual = Float[Tensor, "window position d_model"]


def block_output(block: Any, residual: Residual) -> Residual:
    """`block(residual)`; every hook point of the block itself is passed as TransformerLens does."""
    cfg = block.cfg
    # TransformerLens norms three times, for queries, keys and values: a hook on that norm is to fire as often.
    if not follows_its_class(block) or observed(block.ln1) or cfg.use_attn_in or cfg.use_split_qkv_input:
        return block(residual)
    before = block.hook_resid_pre(residual)
    attended = attention_output(block.attn, normalized(block.ln1, before))
    if cfg.use_normalization_before_and_after:
        attended = normalized(block.ln1_post, attended)
    attended = block.hook_attn_out(attended)
    if cfg.attn_only:
        return block.hook_resid_post(before + attended)
    if cfg.parallel_attn_mlp:
        return block.hook_resid_post(before + attended + _feed_forward(block, before))
    middle = block.hook_resid_mid(before + attended)
    return block.hook_resid_post(middle + _feed_forward(block, middle))


def _feed_forward(block: Any, residual: Residual) -> Residual:
    if block.cfg.use_hook_mlp_in:
        residual = block.hook_mlp_in(residual.clone())
    output = feed_forward_output(block.mlp, normalized(block.ln2, residual))
    if block.cfg.use_normalization_before_and_after:
        output = normalized(block.ln2_post, output)
    return block.hook_mlp_out(output)


def normalized(norm: Any, x: Residual) -> Residual:
    """`norm(x)`, rounded to the model's dtype once instead of after every operation."""
    quick = NORMS.get(type(norm).__name__)
    if quick is None or not follows_its_class(norm) or observed(norm) or x.dtype != norm.cfg.dtype:
        return norm(x)
    return quick(norm, x)


def _rms(norm: Any, x: Residual) -> Residual:
    wide = x.float() if x.dtype.itemsize < 4 else x
    size = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
    inverse = size.square_().div_(x.shape[-1]).add_(norm.eps).rsqrt_()
    return (wide * inverse).mul_(norm.w).to(x.dtype)


def _layer(norm: Any, x: Residual) -> Residual:
    return functional.layer_norm(x, x.shape[-1:], norm.w, norm.b, norm.eps)


NORMS: dict[str, Callable[[Any, Residual], Residual]] = {"RMSNorm": _rms, "LayerNorm": _layer}
