"""Do units write anything? By the layer's own product, however its weights are stored: in 4 bits too."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from dissect.backend.sites import Site
from dissect.base.errors import DissectError

AT_ONCE = 256  # rows in a product


def count_silent(site: Site, model: Any, layer: int, units: Bool[Tensor, " *unit"]) -> int:
    """How many of `units` add exactly nothing to the layer's output, whatever their activation; of a bridge.

    A value neuron has a row of the output weights at each query head that it serves, a head one for each of its
    dimensions: all of them have to be zero.

    Raises:
        DissectError: The layer's output is no product that can be asked.
    """
    linear = _output(site, model, layer)
    rows = units if site.weights == "feed_forward" else _rows(model.cfg, units)
    silent = torch.ones_like(rows)
    silent[rows] = _silent_rows(linear, rows.flatten(), model.cfg.dtype)
    if rows is not units:
        silent = silent.unflatten(0, (len(units), -1)).all(1)
        silent = silent if units.ndim == 2 else silent.all(1)
    return int(silent[units].sum())


def _output(site: Site, model: Any, layer: int) -> Any:
    part, name = {"feed_forward": ("mlp", "out"), "attention": ("attn", "o")}.get(site.weights or "", ("", ""))
    module = getattr(getattr(model.blocks[layer], part, None), name, None)
    linear = getattr(module, "original_component", None)
    if linear is None:
        raise DissectError(f"the output of site {site.name!r} in layer {layer} of {model.cfg.model_name} is no product")
    return linear


def _rows(cfg: Any, units: Bool[Tensor, " *unit"]) -> Bool[Tensor, "head d_head"]:
    read = units if units.ndim == 2 else units[:, None].expand(-1, cfg.d_head)
    return read.repeat_interleave(cfg.n_heads // len(units), 0)


@torch.no_grad()
def _silent_rows(linear: Any, rows: Bool[Tensor, " row"], dtype: torch.dtype) -> Bool[Tensor, " unit"]:
    """Of the rows that are asked for, those whose product with 1 is the bias, bit for bit."""
    device, found = next(linear.parameters()).device, []
    for part in rows.nonzero().flatten().split(AT_ONCE):
        one_hot = torch.zeros(len(part), len(rows), dtype=dtype, device=device)
        one_hot[torch.arange(len(part)), part.to(device)] = 1
        written = linear(one_hot)
        nothing = torch.zeros_like(written) if linear.bias is None else linear.bias.to(written).expand_as(written)
        found.append((written == nothing).all(1).cpu())
    return torch.cat(found) if found else torch.zeros(0, dtype=torch.bool)
