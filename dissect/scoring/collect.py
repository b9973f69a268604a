"""One pass over a data set: activations at the named hook points become sufficient statistics as they flow by."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor

from dissect.backend.finite import not_finite
from dissect.backend.forward import Part, check_readable
from dissect.backend.hooked_pass import Reader, Reporting, Units, in_parts, read_all
from dissect.backend.routing import Routing
from dissect.backend.sites import Site, get_sites, hook_points
from dissect.base.checks import check_kind
from dissect.data.windows import Windows
from dissect.scoring.stats import Stats, StatsBuilder, known_moments


def collect(
    model: Any,
    windows: Windows,
    *,
    sites: str | Iterable[str] = ("mlp", "value", "pre_out"),
    moments: Iterable[str] | None = None,
    first_position: bool = False,
    batch_size: int | None = None,
    progress: bool = True,
) -> Stats:
    """Accumulate statistics of every unit of `sites` over the kept positions of `windows`, in one pass.

    Hooks already on the model act before ours: collecting inside `ablated` sees the pruned model.

    Args:
        model: A TransformerLens model.
        windows: The data set; activations count where `windows.keep`.
        sites: Names of `SITES`. `head` and `pre_out` are read at one hook point and share their statistics.
        moments: Names of `stats.MOMENTS`, all by default; an importance needs some of them only.
        first_position: Count also the first position of each window of which anything counts, as the paper's authors
            do. Attention rests there when it looks for nothing, and some neurons are active there alone: without it
            their scores know nothing of what they do.
        batch_size: Windows per forward pass; by default about 2,048 tokens on a CPU, more on a GPU, fewer where memory
            is short.
        progress: Show a progress bar (of the main rank's part, inside `distributed`).

    Returns:
        The statistics by site, on the CPU, of all ranks together inside `distributed`; memory does not grow with the
        number of positions.

    Raises:
        DissectError: An unknown site or moment, a hook point that the model lacks, windows that it cannot read, an
            activation that is not finite (with its layer and site), or too little memory.
    """
    check_readable(model, windows)
    check_kind("first_position", first_position, bool, "True or False")
    names, chosen = known_moments(moments), get_sites(sites)
    by_hook = {site.hook: site for site in reversed(chosen)}  # sites that are read at one hook point share their sums
    counted = with_first(windows.keep) if first_position else windows.keep

    def measure(parts: list[Part]) -> dict[str, StatsBuilder]:
        builders = {hook: StatsBuilder(_shape(model, site), names) for hook, site in by_hook.items()}
        readers = _readers(model, by_hook, builders, counted)
        reporting = Reporting("statistics", progress)
        read_all(model, windows, parts, readers, counted=counted, reporting=reporting)
        return builders

    builders = in_parts(measure, model, counted, batch_size=batch_size)
    for builder in builders.values():
        builder.add_ranks()
    _check_finite({site.name: builders[site.hook] for site in chosen})
    return Stats({site.name: builders[site.hook].finish() for site in chosen})


def _shape(model: Any, site: Site) -> tuple[int, ...]:
    return (model.cfg.n_layers, *site.read_shape(model.cfg))


def _readers(
    model: Any,
    by_hook: Mapping[str, Site],
    builders: Mapping[str, StatsBuilder],
    counted: Bool[Tensor, "window position"],
) -> Iterator[tuple[Any, Reader]]:
    """At every hook point of every layer, what adds the activations that count to their builder."""

    def read(builder: StatsBuilder, layer: int, z: Tensor, units: Units, part: Part) -> None:
        keep = counted[part]
        if isinstance(units, Routing):
            builder.update_rows(layer, *units.kept(z, keep), int(keep.sum()))
        else:
            builder.update(layer, _kept(z, keep), units)

    for hook, site in by_hook.items():
        for layer, point in enumerate(hook_points(model, site)):
            yield point, partial(read, builders[hook], layer)


def with_first(keep: Bool[Tensor, "window position"]) -> Bool[Tensor, "window position"]:
    """The positions that count, and the first of each window of which anything does."""
    keep = keep.clone()
    keep[:, 0] = keep.any(1)
    return keep


def _kept(z: Float[Tensor, "window position *read"], keep: Tensor) -> Float[Tensor, "part kept *read"]:
    """The activations that count, without a copy where those are all from the first or second position on."""
    for start in (0, 1):
        if keep[:, start:].all() and not keep[:, :start].any():
            return z[:, start:]
    return z[keep.to(z.device)][None]


def _check_finite(builders: dict[str, StatsBuilder]) -> None:
    bad = {site: builder.layers_not_finite() for site, builder in builders.items()}
    if any(bad.values()):
        first = min(layer for layers in bad.values() for layer in layers)
        sites = " and ".join(repr(site) for site, layers in bad.items() if first in layers)
        raise not_finite(f"activations of site {sites} are not finite in layer {first}, the first such layer")
