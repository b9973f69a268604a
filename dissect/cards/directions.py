"""What a unit writes, seen through the unembedding: the tokens that it promotes and suppresses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dissect.backend.forward import is_masked
from dissect.backend.sites import n_value_heads
from dissect.backend.units import Unit
from dissect.data.token_text import token_text


@dataclass(frozen=True)
class TokenWeight:
    """A token and what the unit adds to its logit.

    Attributes:
        text: The token as text.
        weight: Change of the logit for each 1 of activation, before the final norm divides by its scale.
    """

    text: str
    weight: float


@dataclass(frozen=True)
class Direction:
    """What a unit's output weights do to the logits.

    Attributes:
        promoted: The tokens whose logits they raise most, the highest first.
        suppressed: The tokens whose logits they lower most, the lowest first.
    """

    promoted: tuple[TokenWeight, ...]
    suppressed: tuple[TokenWeight, ...]


def direction(model: Any, unit: Unit, k: int = 10) -> Direction | None:
    """The k tokens that a unit promotes most, and the k that it suppresses most, directly (not through later layers).

    None for whole heads, which write in many directions, and for models whose head is not linear.
    """
    if unit.site == "head" or is_masked(model):
        return None
    with torch.no_grad():
        weights = token_weights(model, output_weights(model, unit), unit.layer, attention=unit.site != "mlp")
    order = torch.sort(weights, descending=True, stable=True).indices
    words = [
        tuple(TokenWeight(token_text(model.tokenizer, token), weights[token].item()) for token in tokens.tolist())
        for tokens in (order[:k], order.flip(0)[:k])
    ]
    return Direction(*words)


def output_weights(model: Any, unit: Unit) -> Float[Tensor, " d_model"]:
    """What one unit of activation adds to the residual stream, in float32.

    `mlp` is its W_out row, `pre_out` its W_O row. A `value` neuron is read by every query head of its group: the
    sum of their W_O rows, which is what it adds where all of them attend to its token alone.
    """
    block = model.blocks[unit.layer]
    if unit.site == "mlp":
        return block.mlp.W_out[unit.index[0]].float()
    head, place = unit.index
    rows = block.attn.W_O[:, place].float()
    if unit.site == "pre_out":
        return rows[head]
    group = len(rows) // n_value_heads(model.cfg)
    return rows[head * group : (head + 1) * group].sum(0)


def token_weights(
    model: Any, written: Float[Tensor, " d_model"], layer: int, *, attention: bool
) -> Float[Tensor, " vocab"]:
    """`written` through the layer's norm behind it (if the model has one), the final norm and the unembedding.

    A norm's division by its scale is left out: it depends on the token and changes no order.
    """
    block = model.blocks[layer]
    for norm in (getattr(block, "ln1_post" if attention else "ln2_post", None), getattr(model, "ln_final", None)):
        written = _normed(written, norm, model.cfg.normalization_type)
    return written @ model.unembed.W_U.float()


def _normed(written: Tensor, norm: Any, kind: str | None) -> Tensor:
    if norm is None or kind is None:
        return written
    if kind.startswith("LN"):
        written = written - written.mean()
    weight = getattr(norm, "w", None)
    return written if weight is None else written * weight.float()
