"""Where a model's numbers stop being finite: looked for only after something was not."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from torch import Tensor

from dissect.backend.forward import Part
from dissect.backend.hooked_pass import Reader, Reporting, hooked_pass
from dissect.backend.sites import RESIDUAL, SITES
from dissect.base.errors import DissectError


def not_finite(what: str) -> DissectError:
    """The error for numbers that are not finite: `what` says which, as "the logits are not finite"."""
    return DissectError(f"{what}; load the model with dtype='float32' and look at its weights and input")


def logits_not_finite(model: Any, data: Any, parts: list[Part]) -> DissectError:
    """The error for logits that are not finite: it names the first layer and site of which the same is true."""
    where = first_not_finite(model, data, parts)
    found = f"so are activations from {where} on" if where else "all activations are, so look at the unembedding"
    return not_finite(f"the logits are not finite: {found}")


def first_not_finite(model: Any, data: Any, parts: list[Part]) -> str | None:
    """The first place where an activation is not finite in passes over parts of `data`: layer, site and hook point."""
    found: list[str] = []

    def look(place: str, z: Tensor, units: Tensor | None, part: Part) -> None:
        if not found and not z.isfinite().all():
            found.append(place)

    readers, counted = _readers(model, look), data.tokens >= 0
    with hooked_pass(model, data, parts, readers, counted=counted, reporting=Reporting()) as batches:
        next((batch for batch in batches if found), None)
    return found[0] if found else None


def _readers(model: Any, look: Any) -> Iterator[tuple[Any, Reader]]:
    """At what each site reads, and at what each layer leaves, where the model has such a hook point."""
    named = model.hook_dict  # a bridge makes it anew at every access
    hooks = {site.hook: f"site {site.name!r}" for site in reversed(SITES.values())} | {RESIDUAL: "the residual stream"}
    for layer in range(model.cfg.n_layers):
        for hook, what in hooks.items():
            name = hook.format(layer=layer)
            if name in named:
                yield named[name], partial(look, f"layer {layer}, {what} ({name})")
