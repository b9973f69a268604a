"""Where a model's numbers stop being finite: looked for only after something was not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from dissect.errors import DissectError
from dissect.forward import run_blocks
from dissect.hooks import Hook, hooked
from dissect.sites import RESIDUAL, SITES


def not_finite(model: Any, batches: Iterable[Int64[Tensor, "window position"]]) -> DissectError:
    """The error for logits that are not finite: it names the first layer and site of which the same is true."""
    where = first_not_finite(model, batches)
    return DissectError(
        "the logits are not finite: "
        + (f"so are activations from {where} on" if where else "all activations are, so look at the unembedding")
        + "; load the model with dtype='float32' and look at its weights and input"
    )


def first_not_finite(model: Any, batches: Iterable[Int64[Tensor, "window position"]]) -> str | None:
    """The first place in a forward pass where an activation is not finite, as layer, site and hook point."""
    found: list[str] = []

    def look(place: str, z: Tensor) -> None:
        if not found and not z.isfinite().all():
            found.append(place)

    with torch.no_grad(), hooked(_hooks(model, look)):
        for tokens in batches:
            run_blocks(model, tokens)
            if found:
                return found[0]
    return None


def _hooks(model: Any, look: Any) -> Iterator[tuple[Any, Hook]]:
    """On what each site reads, and on what each layer leaves, where the model has such a hook point."""
    hooks = {site.hook: f"site {site.name!r}" for site in reversed(SITES.values())} | {RESIDUAL: "the residual stream"}
    for layer in range(model.cfg.n_layers):
        for hook, what in hooks.items():
            name = hook.format(layer=layer)
            if name in model.hook_dict:
                yield model.hook_dict[name], partial(look, f"layer {layer}, {what} ({name})")
