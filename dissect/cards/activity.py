"""How active units are on a data set: distribution and strongest contexts of many units, in one pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from tqdm.auto import tqdm

from dissect.backend.forward import default_batch_size, run_blocks
from dissect.backend.hooks import Hook, hooked
from dissect.backend.memory import within_memory
from dissect.backend.sites import get_site, hook_points
from dissect.backend.units import Unit
from dissect.base.errors import DissectError
from dissect.base.progress import hidden
from dissect.cards.contexts import Context, Peak, PeakFinder, check_kept
from dissect.cards.histograms import Histogram, HistogramBuilder
from dissect.data.token_text import token_text
from dissect.data.windows import Windows


@dataclass(frozen=True, eq=False)
class Activity:
    """A unit's activations over the kept positions of a data set.

    Attributes:
        n: Number of positions.
        mean: Their mean.
        mean_abs: Their mean absolute value, importance `abs`.
        above_zero: The part of them above zero, importance `freq`.
        lowest: The lowest.
        highest: The highest.
        histogram: Their distribution.
        contexts: Where they are highest by absolute value, the highest first, at most one a window.
    """

    n: int
    mean: float
    mean_abs: float
    above_zero: float
    lowest: float
    highest: float
    histogram: Histogram
    contexts: tuple[Context, ...]


@dataclass
class _Watcher:
    """Takes in one unit's activations batch by batch; its memory does not grow with their number."""

    finder: PeakFinder
    histogram: HistogramBuilder = field(default_factory=HistogramBuilder)
    sums: Tensor = field(default_factory=lambda: torch.zeros(4, dtype=torch.float64))
    lowest: float = float("inf")
    highest: float = -float("inf")

    def update(self, first: int, batch: Windows, z: Float[Tensor, "window position"]) -> None:
        kept = z[batch.keep].double()
        self.finder.update(first, batch.tokens, z, batch.keep)
        if kept.numel():
            self.histogram.update(kept.numpy())
            sums = [torch.ones_like(kept), kept, kept.abs(), (kept > 0).double()]
            self.sums += torch.stack([part.sum() for part in sums])
            self.lowest = min(self.lowest, kept.min().item())
            self.highest = max(self.highest, kept.max().item())

    def finish(self, tokenizer: Any) -> Activity:
        n, total, total_abs, above = self.sums.tolist()
        contexts = tuple(_as_context(peak, tokenizer) for peak in self.finder.peaks)
        parts = (total / n, total_abs / n, above / n, self.lowest, self.highest)
        return Activity(int(n), *parts, self.histogram.finish(), contexts)


def _as_context(peak: Peak, tokenizer: Any) -> Context:
    return Context(
        tuple(token_text(tokenizer, token) for token in peak.tokens.tolist()),
        tuple(peak.activations.tolist()),
        peak.position - peak.begin,
        peak.window,
        peak.position,
    )


def activities(
    model: Any,
    units: Sequence[Unit],
    windows: Windows,
    *,
    contexts: int,
    around: int,
    batch_size: int | None,
    progress: bool,
) -> list[Activity]:
    """The activity of every unit over `windows`, in one pass.

    Args:
        model: A TransformerLens model, ablated or whole.
        units: Single neurons, of any site but `head`.
        windows: The data set.
        contexts: How many of the strongest contexts to keep.
        around: How many tokens of text before a peak; half as many behind.
        batch_size: Windows per forward pass; by default about 2,048 tokens on a CPU, more on a GPU, fewer where memory
            is short.
        progress: Show a progress bar.

    Raises:
        DissectError: Nothing is kept, the model lacks a hook point, or an activation is not finite.
    """
    check_kept(model, windows)

    def measure(size: int) -> list[_Watcher]:
        watchers = [_Watcher(PeakFinder(contexts, around)) for _ in units]
        _watch(model, units, windows, watchers, size, progress)
        return watchers

    shape = windows.tokens.shape
    watchers = within_memory(measure, batch_size, default_batch_size(model, shape[1]), shape)
    return [watcher.finish(model.tokenizer) for watcher in watchers]


def _watch(
    model: Any, units: Sequence[Unit], windows: Windows, watchers: list[_Watcher], size: int, progress: bool
) -> None:
    """One pass over `windows`, `size` at a time, that each unit's watcher sees."""
    seen: dict[Unit, Tensor] = {}
    bar = tqdm(total=windows.n_kept, unit="tok", unit_scale=True, desc="cards", leave=False, disable=hidden(progress))
    with torch.no_grad(), bar, hooked(_hooks(model, units, seen)):
        for number, batch in enumerate(windows.batches(size)):
            run_blocks(model, batch.tokens, batch.attention_mask)
            for unit, watcher in zip(units, watchers, strict=True):
                watcher.update(number * size, batch, _finite(unit, seen[unit], batch.keep))
            bar.update(batch.n_kept)


def _hooks(model: Any, units: Sequence[Unit], seen: dict[Unit, Tensor]) -> Iterator[tuple[Any, Hook]]:
    """Hooks that put each unit's activation of the batch in flight into `seen`, `window position` in float32."""
    by_point: dict[tuple[str, int], list[Unit]] = {}
    for unit in units:
        by_point.setdefault((unit.site, unit.layer), []).append(unit)
    for (site, layer), here in by_point.items():

        def watch(z: Tensor, here: list[Unit] = here) -> None:
            for unit in here:
                seen[unit] = z[(..., *unit.index)].float().cpu()

        yield hook_points(model, get_site(site))[layer], watch


def _finite(
    unit: Unit, z: Float[Tensor, "window position"], keep: Bool[Tensor, "window position"]
) -> Float[Tensor, "window position"]:
    if not z[keep].isfinite().all():
        raise DissectError(f"activations of {unit} are not finite; load the model with dtype='float32'")
    return z
