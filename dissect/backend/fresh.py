"""A forward pass that does not depend on those before it: what TransformerLens grows or guesses is set first."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def fresh(model: Any, positions: int) -> Iterator[None]:
    """Inside the `with` block a decoder reads windows of `positions` tokens as a newly loaded one does.

    Tables of positions are made to fit before the pass, which otherwise takes another way until they are. And all
    tokens are read: with a tokenizer that pads on the left TransformerLens takes leading pad tokens, which BOS may be,
    for padding, while windows say themselves what is.
    """
    for block in model.blocks:
        _fit_tables(block.attn, positions)
    tokenizer: Any = getattr(model, "tokenizer", None)
    side = getattr(tokenizer, "padding_side", "right")
    if side == "right":
        yield
        return
    tokenizer.padding_side = "right"
    try:
        yield
    finally:
        tokenizer.padding_side = side


def _fit_tables(attention: Any, positions: int) -> None:
    if getattr(attention, "rotary_cos", None) is not None and not attention.cfg.use_dynamic_ntk_rope:
        _lengthen_rotary(attention, positions)
    # Of a longer table TransformerLens takes other rows, which differ by a constant: equal but for rounding.
    if getattr(attention, "alibi", None) is not None and attention.alibi.shape[-1] != positions:
        attention.alibi = None  # made anew by the pass


def _lengthen_rotary(attention: Any, positions: int) -> None:
    """Rows that are there stay: in a model that was re-typed they are rounded otherwise than new ones."""
    cos, sin = attention.rotary_cos, attention.rotary_sin
    if positions > len(cos):
        attention._extend_rotary_embeddings(min(attention.cfg.n_ctx, max(positions, 2 * len(cos))))
        attention.rotary_cos[: len(cos)], attention.rotary_sin[: len(sin)] = cos, sin
