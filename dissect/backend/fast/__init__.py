"""A quicker forward pass through a TransformerLens model: the same tensors at the same hook points, sooner.

Each norm, attention and feed-forward layer is replaced by itself, and only where nothing asks for what the
replacement skips: a hook on the attention pattern makes that one attention run as TransformerLens wrote it. What is
not known (another model class, a patched `forward`, gradients) runs as it is. Positions behind the last that
counts are not read. `disabled()`, or the environment variable `DISSECT_FAST=0`, turns all of it off.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional

from dissect.backend.fast.blocks import block_output, normalized
from dissect.backend.fast.positions import looks_back_only, up_to_the_last
from dissect.backend.fast.support import follows_its_class, is_plain_decoder, observed

_enabled: ContextVar[bool] = ContextVar("dissect.backend.fast", default=os.environ.get("DISSECT_FAST", "1") != "0")


@contextmanager
def disabled() -> Iterator[None]:
    """Run TransformerLens' own forward pass inside a `with` block, to compare with."""
    token = _enabled.set(False)
    try:
        yield
    finally:
        _enabled.reset(token)


def is_enabled() -> bool:
    """True where the quick pass may be taken at all."""
    return _enabled.get() and not torch.is_grad_enabled()


def needed_lengths(model: Any, wanted: Bool[Tensor, "window position"]) -> list[int]:
    """How many of its first positions each window has to be read for, to know those that are wanted."""
    if is_enabled() and looks_back_only(model):
        return up_to_the_last(wanted)
    return [wanted.shape[1]] * len(wanted)


def run_blocks(model: Any, tokens: Int64[Tensor, "window position"]) -> Float[Tensor, "window position d_model"] | None:
    """The residual stream after the last block, or None where the model has to run as a whole."""
    if not (is_enabled() and is_plain_decoder(model)):
        return None
    residual, _, shortformer, padding = model.input_to_embed(tokens)
    if shortformer is not None or padding is not None:
        return None
    for block in model.blocks:
        residual = block_output(block, residual)
    return residual


def logits(model: Any, residual: Float[Tensor, "row d_model"]) -> Float[Tensor, "row vocab"]:
    """The unembedding in the model's own dtype, without a soft cap; W_U is not copied as TransformerLens does."""
    rows = residual[None]
    quick = is_enabled()
    if model.cfg.normalization_type is not None:
        rows = normalized(model.ln_final, rows) if quick else model.ln_final(rows)
    unembed = model.unembed
    if quick and follows_its_class(unembed) and not observed(unembed):
        return functional.linear(rows[0], unembed.W_U.T, unembed.b_U)
    return unembed(rows)[0]
