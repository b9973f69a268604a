"""Where a model's numbers stop being finite: looked for only after something was not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from dissect.backend.forward import Part, run_part
from dissect.backend.hooks import Hook, hooked
from dissect.backend.sites import RESIDUAL, SITES
from dissect.base.errors import DissectError


def not_finite(model: Any, data: Any, parts: Iterable[Part]) -> DissectError:
    """The error for logits that are not finite: it names the first layer and site of which the same is true."""
    where = first_not_finite(model, data, parts)
    return DissectError(
        "the logits are not finite: "
        + (f"so are activations from {where} on" if where else "all activations are, so look at the unembedding")
        + "; load the model with dtype='float32' and look at its weights and input"
    )


def first_not_finite(model: Any, data: Any, parts: Iterable[Part]) -> str | None:
    """The first place where an activation is not finite in passes over parts of `data`: layer, site and hook point."""
    found: list[str] = []

    def look(place: str, z: Tensor) -> None:
        if not found and not z.isfinite().all():
            found.append(place)

    with torch.no_grad(), hooked(_hooks(model, look)):
        for part in parts:
            run_part(model, data, part)
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
