"""Is a unit that is cut by hooks the unit that is cut in the weights? Asked of every model when it is loaded.

One unit at a time is set to zero at its hook point, and in the weights. Both have to give the same logits, and others
than before: else the hook point is of other activations than the weights are, or of none.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from dissect.ablation.by_hooks import ablated
from dissect.ablation.in_weights import bake
from dissect.backend import fast
from dissect.backend.forward import run_blocks, unembed
from dissect.backend.hooks import hooked
from dissect.backend.routing import current_routing
from dissect.backend.sites import Site, hook_points
from dissect.backend.weights import weights_of
from dissect.base.errors import DissectError
from dissect.scoring.masks import Mask

TOLERANCE = 0.001  # of the effect; the same kernels add the same zeros both ways, so that the difference is mostly 0
TOKENS = 8

Place = tuple[int, ...]  # of a unit: `(layer, *index)`


def check_cuts_agree(model: Any, site: Site, *, in_weights: bool = True) -> None:
    """Cut the strongest unit of the first, the middle and the last layer both ways, and compare the logits.

    Layers in which no unit writes anything are passed over. Each unit is cut alone by hooks, to see that it does
    something, and all of them together both ways. Without `in_weights`, for weights that cannot be read, and for a site
    that names none, hooks alone are tried.

    Raises:
        DissectError: The model has no such site, its weights cannot be read, or the cuts do not agree.
    """
    tokens, in_weights = short_window(model), in_weights and site.weights is not None
    with torch.no_grad(), fast.disabled():  # it would leave out pruned units, and add up the others in another order
        before, activations = _read(model, site, tokens)
        strongest = {layer: _strongest(model, site, layer, z, in_weights) for layer, z in activations.items()}
        places = [(layer, *index) for layer, index in strongest.items() if index is not None]
        if not places:
            return
        for place, effect in zip(places, _effects(model, site, places, tokens, before), strict=True):
            if not effect > 0:  # written so that NaN fails too
                raise DissectError(
                    f"its unit {place[1:]} in layer {place[0]} changes no logits when it is cut by hooks"
                )
        if not in_weights or _agree(*_changes(model, site, places, tokens, before)):
            return
        for place in places:
            effect, difference = _changes(model, site, [place], tokens, before)
            if not _agree(effect, difference):
                raise DissectError(
                    f"its unit {place[1:]} in layer {place[0]}, cut by hooks, changes the logits by {effect:.2g}; cut "
                    f"in the weights it gives logits that differ from those by {difference:.2g}"
                )
    raise DissectError(f"its units {places} cut together give other logits by hooks than in the weights")


def short_window(model: Any) -> Int64[Tensor, "window position"]:
    """A window of a few random tokens."""
    return torch.randint(model.cfg.d_vocab, (1, TOKENS), generator=torch.Generator().manual_seed(0))


def logits_of(model: Any, tokens: Int64[Tensor, "window position"]) -> Float[Tensor, "row vocab"]:
    """The float32 logits at all positions, as evaluating computes them."""
    return torch.cat(list(unembed(model, run_blocks(model, tokens).flatten(0, 1))))


def _read(
    model: Any, site: Site, tokens: Int64[Tensor, "window position"]
) -> tuple[Float[Tensor, "row vocab"], dict[int, Float[Tensor, "window position *read"]]]:
    """The logits, and what the site reads in the first, the middle and the last layer."""
    points, found = hook_points(model, site), {}
    layers = sorted({0, len(points) // 2, len(points) - 1})
    with hooked([(points[layer], partial(_keep, found, layer)) for layer in layers]):
        logits = logits_of(model, tokens)
    shape = site.read_shape(model.cfg)
    for layer in layers:
        if layer not in found:
            raise DissectError(f"hook point {site.hook_name(layer)!r} is not reached by a forward pass")
        if found[layer].shape[2:] != shape:
            raise DissectError(f"its activations in layer {layer} are {tuple(found[layer].shape[2:])}, not {shape}")
    return logits, found


def _keep(found: dict[int, Tensor], layer: int, z: Tensor) -> None:
    routing = current_routing()
    found[layer] = z if routing is None else routing.dense(z)


def _strongest(
    model: Any, site: Site, layer: int, z: Float[Tensor, "window position *read"], in_weights: bool
) -> tuple[int, ...] | None:
    """The unit that writes most, so that its effect is more than a rounding; without weights the most active.

    None where no unit writes anything, as in a layer that was pruned before.
    """
    written = z.float().abs().mean((0, 1))
    if in_weights:
        rows = weights_of(site, model, layer).output.float().norm(dim=-1)
        written = written * rows.unflatten(0, (len(written), -1)).sum(1)
    if not site.is_neuron:
        written = written.flatten(len(site.unit)).sum(-1)
    if not written.any():
        return None
    return tuple(int(i) for i in torch.unravel_index(written.argmax(), written.shape))


def _effects(
    model: Any, site: Site, places: list[Place], tokens: Int64[Tensor, "window position"], before: Tensor
) -> list[float]:
    """How much cutting each unit alone by hooks changes the logits: in one pass, each in a window of its own."""
    points = hook_points(model, site)

    def zero(window: int, place: Place, z: Tensor) -> Tensor:
        z, routing = z.clone(), current_routing()
        if routing is None:
            z[(window, slice(None), *place[1:])] = 0
        else:
            z[routing.rows_of(window, place[1]), place[2]] = 0
        return z

    with hooked([(points[place[0]], partial(zero, window, place)) for window, place in enumerate(places)]):
        logits = logits_of(model, tokens.repeat(len(places), 1))
    return [_size(of_one - before) for of_one in logits.split(len(before))]


def _changes(
    model: Any, site: Site, places: list[Place], tokens: Int64[Tensor, "window position"], before: Tensor
) -> tuple[float, float]:
    """How much cutting by hooks changes the logits, and how much cutting in the weights differs from that."""
    mask = Mask.of(model, site.name, places)
    with ablated(model, mask):
        by_hooks = logits_of(model, tokens)
    edit = bake(model, mask)
    try:
        in_weights = logits_of(model, tokens)
    finally:
        edit.restore()
    return _size(by_hooks - before), _size(by_hooks - in_weights)


def _agree(effect: float, difference: float) -> bool:
    """Written so that it is False of NaN."""
    return effect > 0 and difference <= TOLERANCE * effect


def _size(difference: Tensor) -> float:
    """The root mean square."""
    return difference.square().mean().sqrt().item()
