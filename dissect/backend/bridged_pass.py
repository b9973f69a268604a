"""The forward pass of a `TransformerBridge` in two parts: what its logits are made of, and its unembedding."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jaxtyping import Float, Int64
from torch import Tensor

from dissect.backend.anatomy import logit_scale
from dissect.base.checks import is_bridge


def final_rows(
    model: Any, tokens: Int64[Tensor, "window position"], attention_mask: Int64[Tensor, "window position"] | None
) -> Float[Tensor, "window position d_model"]:
    """What the unembedding reads: the residual stream after the last block and the final norm."""
    options: dict[str, Any] = {"use_cache": False} if _takes(model, "use_cache") else {}
    if attention_mask is not None:
        options["attention_mask"] = attention_mask
    with _nothing_unembedded(model) as rows:
        model(tokens, **options)
    return rows[-1]


def logits(model: Any, rows: Float[Tensor, "row d_model"]) -> Float[Tensor, "row vocab"]:
    """The logits of such rows in the model's own dtype, without a soft cap."""
    found, scale = model.unembed(rows[None])[0], logit_scale(model)
    return found if scale == 1 else found * scale


@contextmanager
def _nothing_unembedded(model: Any) -> Iterator[list[Tensor]]:
    """Inside the `with` block the unembedding gets no position, and a list gets what it would have read.

    An exception would save as little, and leave what else is on its way (offloaded weights) in the middle of it.
    """
    rows: list[Tensor] = []

    def keep(module: Any, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        rows.append(args[0])
        return (args[0][:, :0], *args[1:])

    handle = model.unembed.register_forward_pre_hook(keep)
    try:
        yield rows
    finally:
        handle.remove()


@contextmanager
def patterns_computed(model: Any) -> Iterator[None]:
    """Inside the `with` block attention computes its pattern, which a bridge's quicker kinds of attention do not."""
    if not is_bridge(model):
        yield
        return
    config = model.original_model.config
    usual = config._attn_implementation
    config._attn_implementation = "eager"
    try:
        yield
    finally:
        config._attn_implementation = usual


def _takes(model: Any, option: str) -> bool:
    return option in inspect.signature(model.original_model.forward).parameters
