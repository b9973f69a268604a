"""The SVD variant of the paper: attention neurons along the singular directions of what a head writes.

Each value head's W_V and the W_O of the query heads it serves are rotated to the singular basis of their product,
with the root of the singular values on each side, so that a unit is one direction read and one direction written.
The model computes the same function before anything is pruned.
"""

from __future__ import annotations

from typing import Any

import torch
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor

from dissect.baking import value_parameters


def rotate_to_svd_(model: Any) -> None:
    """Rotate every value head of `model` to its singular basis, in place; the logits stay as they were.

    The value bias adds a constant to the layer's output (each row of the attention pattern sums to one), so it
    moves into b_O exactly. Units come out in the order of their singular values, the largest first.
    """
    with torch.no_grad():
        for block in model.blocks:
            _rotate_layer(block.attn)


def _rotate_layer(attention: Any) -> None:
    weight, bias = value_parameters(attention)
    outputs = rearrange(
        attention.W_O.double(), "(value group) d_head d_model -> value d_head (group d_model)", value=weight.shape[0]
    )
    constant = einsum(bias.double(), outputs, "value d_head, value d_head written -> written")
    attention.b_O += constant.reshape(-1, attention.W_O.shape[-1]).sum(0).to(attention.b_O)
    bias.zero_()
    reading, writing = _balanced_svd(weight.double(), outputs)
    weight.copy_(reading)
    attention.W_O.copy_(
        rearrange(
            writing, "value d_head (group d_model) -> (value group) d_head d_model", d_model=attention.W_O.shape[-1]
        )
    )


def _balanced_svd(
    reading: Float[Tensor, "value d_model d_head"], writing: Float[Tensor, "value d_head written"]
) -> tuple[Float[Tensor, "value d_model d_head"], Float[Tensor, "value d_head written"]]:
    """U√S and √S Vᵀ of the product, through the small core that is left of it behind two QR decompositions."""
    q_read, r_read = torch.linalg.qr(reading)
    q_write, r_write = torch.linalg.qr(writing.mT)
    u, s, vh = torch.linalg.svd(r_read @ r_write.mT)
    root = s.sqrt()
    return q_read @ (u * root[..., None, :]), (root[..., None] * vh) @ q_write.mT
