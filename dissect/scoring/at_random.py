"""Units at random, for the baselines: from a generator of their own, so that a continued run draws the same."""

from __future__ import annotations

import numpy as np
import torch

from dissect.scoring.masks import Mask


def random_units(pruned: Mask, site: str, count: int, seed: tuple[int, ...]) -> Mask:
    """`count` units of a site that are not pruned yet."""
    free = (pruned.there(site) & ~pruned[site]).flatten().nonzero().flatten().numpy()
    chosen = torch.zeros(pruned[site].numel(), dtype=torch.bool)
    chosen[torch.from_numpy(np.random.default_rng(seed).choice(free, count, replace=False))] = True
    return Mask({site: chosen.reshape(pruned[site].shape)}, pruned.layers)


def layer_random_units(pruned: Mask, site: str, counts: list[int], seed: tuple[int, ...]) -> Mask:
    """At random too, but so many in each layer."""
    layers = [
        random_units(Mask({site: pruned[site][layer : layer + 1]}), site, count, (*seed, layer))[site]
        for layer, count in enumerate(counts)
    ]
    return Mask({site: torch.cat(layers)}, pruned.layers)


def as_many_at_random(mask: Mask, seed: int) -> Mask:
    """As many units of each site, drawn at random over all layers."""
    found = {}
    for place, (site, pruned) in enumerate(mask.by_site.items()):
        none = Mask({site: torch.zeros_like(pruned)}, mask.layers)
        found[site] = random_units(none, site, int(pruned.sum()), (seed, place))[site]
    return Mask(found, mask.layers)
