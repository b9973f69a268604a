"""One pass over a data set: activations at the named hook points become sufficient statistics as they flow by."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from tqdm.auto import tqdm

from dissect.backend.forward import check_readable, default_batch_size, passes, run_part
from dissect.backend.hooks import Hook, Read, hooked
from dissect.backend.memory import within_memory
from dissect.backend.sites import Site, get_sites, hook_points
from dissect.base.checks import check_batch_size, check_kind
from dissect.base.errors import DissectError
from dissect.base.progress import hidden
from dissect.base.ranks import sharded
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
    check_batch_size(batch_size)
    names, chosen = known_moments(moments), get_sites(sites)
    counted = _with_first(windows.keep) if first_position else windows.keep

    def measure(size: int) -> dict[str, StatsBuilder]:
        return _run(model, windows, counted, chosen, names, size, progress)

    shape = windows.tokens.shape
    builders = within_memory(measure, batch_size, default_batch_size(model, shape[1]), shape)
    for builder in builders.values():
        builder.add_ranks()
    _check_finite({site.name: builders[site.hook] for site in chosen})
    return Stats({site.name: builders[site.hook].finish() for site in chosen})


@torch.no_grad()
def _run(
    model: Any,
    windows: Windows,
    counted: Bool[Tensor, "window position"],
    sites: tuple[Site, ...],
    names: tuple[str, ...],
    batch_size: int,
    progress: bool,
) -> dict[str, StatsBuilder]:
    """This rank's sums, by hook."""
    by_hook = {site.hook: site for site in reversed(sites)}
    shapes = {hook: (model.cfg.n_layers, *site.read_shape(model.cfg)) for hook, site in by_hook.items()}
    builders = {hook: StatsBuilder(shape, names) for hook, shape in shapes.items()}
    keep = counted  # of the batch in flight; the hooks below read it

    def read(layer: int, builder: StatsBuilder, z: Tensor, units: Tensor | None) -> None:
        builder.update(layer, _kept(z, keep), units)

    def watch() -> Iterator[tuple[Any, Hook]]:
        for site in by_hook.values():
            for layer, point in enumerate(hook_points(model, site)):
                yield point, Read(partial(read, layer, builders[site.hook]))

    parts = list(sharded(passes(model, counted, batch_size)))
    total = sum(int(counted[part].sum()) for part in parts)
    bar = tqdm(total=total, unit="tok", unit_scale=True, desc="statistics", leave=False, disable=hidden(progress))
    with bar, hooked(watch()):
        for part in parts:
            keep = counted[part]
            run_part(model, windows, part)
            n_kept = int(keep.sum())
            for builder in builders.values():
                builder.count += n_kept
            bar.update(n_kept)
    return builders


def _with_first(keep: Bool[Tensor, "window position"]) -> Bool[Tensor, "window position"]:
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
        raise DissectError(
            f"activations of site {sites} are not finite in layer {first}, the first such layer; "
            "load the model with dtype='float32' and look at its weights and input"
        )
