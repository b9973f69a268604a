"""Ablation by hooks: pruned units are set to zero, or to their mean, wherever their site is read.

`ablated` is for a `with` block, `ablate` for as long as the caller holds the handle. Ablations stack: each masks
what the one before left, and removing one leaves the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dissect.ablation.cut import Gain, cuts_of
from dissect.backend.hooks import Handle, Hook, attach
from dissect.backend.sites import SITES, hook_points
from dissect.base.options import Value
from dissect.base.undo import undoing
from dissect.scoring.masks import Mask
from dissect.scoring.stats import Stats


def ablate(model: Any, mask: Mask, *, value: Value = "zero", stats: Stats | None = None, gain: Gain = 0.0) -> Handle:
    """Prune `mask` in `model` until `remove()` is called on the handle, which survives `reset_hooks()`.

    Args:
        model: A `HookedTransformer` (or another TransformerLens model with the same hook points).
        mask: The units to prune.
        value: What a pruned unit is set to: `zero`, or its `mean` over a data set.
        stats: For `mean`, the statistics that hold the means, usually those of the retain data set.
        gain: The fraction of a pruned unit's activation that is left, in [0, 1]: 0 cuts it, 1 leaves it as it is. One
            number, or one for each unit by site, as `damping` gives them.

    Raises:
        DissectError: The mask is of another model's shape, the model lacks a hook point, `mean` has no statistics of a
            site, or a gain is outside [0, 1].
    """
    return attach(_pairs(model, mask, value, stats, gain))


@contextmanager
def ablated(
    model: Any, mask: Mask, *, value: Value = "zero", stats: Stats | None = None, gain: Gain = 0.0
) -> Iterator[None]:
    """Prune `mask` inside a `with` block; on exit, also after an error, the model is as it was."""
    handle = Handle()
    with undoing(handle.remove):
        handle.attach(_pairs(model, mask, value, stats, gain))
        yield


def _pairs(model: Any, mask: Mask, value: Value, stats: Stats | None, gain: Gain) -> list[tuple[Any, Hook]]:
    """What to attach where. Everything is checked before the first hook is."""
    cuts = cuts_of(model, mask, value, stats, gain)
    points = {name: hook_points(model, SITES[name]) for name in mask.sites}
    return [(points[cut.site.name][cut.layer], cut.hook) for cut in cuts]
