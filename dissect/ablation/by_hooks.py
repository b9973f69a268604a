"""Ablation by hooks: pruned units are set to zero, or to their mean, wherever their site is read.

`ablated` is for a `with` block, `ablate` for as long as the caller holds the handle. Ablations stack: each masks
what the one before left, and removing one leaves the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, get_args

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from dissect.backend.hooks import Handle, Hook, Zero, attach
from dissect.backend.routing import as_activations
from dissect.backend.sites import SITES, Site, hook_points
from dissect.base.checks import check_kind
from dissect.base.errors import DissectError, unknown
from dissect.base.options import Value
from dissect.base.undo import undoing
from dissect.scoring.masks import Mask
from dissect.scoring.stats import Stats


def ablate(model: Any, mask: Mask, *, value: Value = "zero", stats: Stats | None = None) -> Handle:
    """Prune `mask` in `model` until `remove()` is called on the handle, which survives `reset_hooks()`.

    Args:
        model: A `HookedTransformer` (or another TransformerLens model with the same hook points).
        mask: The units to prune.
        value: What a pruned unit is set to: `zero`, or its `mean` over a data set.
        stats: For `mean`, the statistics that hold the means, usually those of the retain data set.

    Raises:
        DissectError: The mask is of another model's shape, the model lacks a hook point, or `mean` has no
            statistics of a site.
    """
    return attach(_pairs(model, mask, value, stats))


@contextmanager
def ablated(model: Any, mask: Mask, *, value: Value = "zero", stats: Stats | None = None) -> Iterator[None]:
    """Prune `mask` inside a `with` block; on exit, also after an error, the model is as it was."""
    handle = Handle()
    with undoing(handle.remove):
        handle.attach(_pairs(model, mask, value, stats))
        yield


def read_mask(site: Site, pruned: Bool[Tensor, " layer *unit"], cfg: Any) -> Bool[Tensor, " layer *read"]:
    """The mask in the shape of what is read at the hook point: a head is cut as all of its d_head."""
    spread = pruned.reshape(*pruned.shape, *(1,) * (len(site.read) - len(site.unit)))
    return spread.expand(cfg.n_layers, *site.read_shape(cfg)).clone()


def replacement(site: Site, value: str, stats: Stats | None, cfg: Any) -> Float64[Tensor, " layer *read"] | None:
    """What pruned units are set to: their means, or None for zero.

    Raises:
        DissectError: The statistics are missing, of another model, or not finite.
    """
    if value == "zero":
        return None
    if not isinstance(stats, Stats):
        raise DissectError(
            "mean ablation needs stats=, usually the retain data set's: stats=collect(model, retain), "
            f"got {type(stats).__name__}"
        )
    sums, expected = stats[site.name]["sum"], (cfg.n_layers, *site.read_shape(cfg))
    if tuple(sums.shape) != expected:
        raise DissectError(
            f"statistics of another model: site {site.name!r} has shape {tuple(sums.shape)}, the model has {expected}"
        )
    means = sums / stats[site.name].count
    if not means.isfinite().all():
        raise DissectError(
            f"the means of site {site.name!r} are not finite, of {stats[site.name].count} positions; "
            "collect the statistics again"
        )
    return means


def check_cut(model: Any, mask: Any, value: Any) -> None:
    """Raise `DissectError` unless this is a model, a mask of its units, and something to set them to."""
    check_kind("mask", mask, Mask, "a Mask, such as scores['mlp'].top(0.02)")
    mask.check(model)
    if not isinstance(value, str) or value not in get_args(Value):
        raise unknown("value to ablate with", value, get_args(Value))


def _pairs(model: Any, mask: Mask, value: Value, stats: Stats | None) -> list[tuple[Any, Hook]]:
    """What to attach where. Everything is checked before the first hook is."""
    check_cut(model, mask, value)
    return [pair for name in mask.sites for pair in _of_site(model, SITES[name], mask[name], value, stats)]


def _of_site(model: Any, site: Site, pruned: Tensor, value: Value, stats: Stats | None) -> Iterator[tuple[Any, Hook]]:
    read, means = read_mask(site, pruned, model.cfg), replacement(site, value, stats, model.cfg)
    for layer, point in enumerate(hook_points(model, site)):
        if read[layer].any():
            yield point, _overwrite(read[layer], None if means is None else means[layer])


def _overwrite(pruned: Tensor, means: Tensor | None) -> Hook:
    if means is None:
        return Zero(pruned)
    return lambda z: torch.where(as_activations(pruned.to(z.device)), as_activations(means.to(z)), z)
