"""Per-layer specialization: how the scores of each layer's units spread, and which of them are pruned."""

from __future__ import annotations

import numpy as np
from plotly import graph_objects as go

from dissect.masks import Mask
from dissect.scores import SiteScores
from dissect.views.theme import UNITS_KEPT, UNITS_PRUNED

BINS = 60
WIDTH = 0.46  # half the room of a layer


def specialization_traces(scores: SiteScores, mask: Mask) -> list[go.Scatter | go.Heatmap]:
    """One shape a layer, as wide as units have that score; the part that `mask` prunes is drawn over it."""
    height = _log2(scores)
    edges = np.histogram_bin_edges(height, BINS)
    pruned = mask[scores.site].flatten(1).numpy()
    layers = list(zip(height, pruned, strict=True))
    all_counts = np.stack([np.histogram(row, edges)[0] for row, _ in layers])
    pruned_counts = np.stack([np.histogram(row[cut], edges)[0] for row, cut in layers])
    scale = WIDTH / max(1, all_counts.max()) ** 0.5
    return [
        _shapes(all_counts, edges, scale, "all units", UNITS_KEPT),
        _shapes(pruned_counts, edges, scale, "pruned units", UNITS_PRUNED),
        _hover(all_counts, pruned_counts, edges),
    ]


def _log2(scores: SiteScores) -> np.ndarray:
    """log2 of the scores, `layer unit`; units that are silent on the forget side lie on the lower edge."""
    values = scores.values.flatten(1).numpy()
    heights = np.log2(np.maximum(values, np.finfo(float).tiny))
    lowest = np.quantile(heights[values > 0], 0.001) if (values > 0).any() else 0.0
    return np.clip(heights, lowest, heights[np.isfinite(heights)].max(initial=lowest))


def _shapes(counts: np.ndarray, edges: np.ndarray, scale: float, name: str, colour: str) -> go.Scatter:
    """Mirrored outlines around each layer's number; widths go with the root of the count, so that few show too."""
    x: list[float | None] = []
    y: list[float | None] = []
    centres = (edges[:-1] + edges[1:]) / 2
    for layer, row in enumerate(counts):
        used = np.flatnonzero(row)
        if len(used):
            span = slice(used[0], used[-1] + 1)
            half = scale * np.sqrt(row[span])
            x += [*(layer - half), *(layer + half)[::-1], layer - half[0], None]
            y += [*centres[span], *centres[span][::-1], centres[span][0], None]
    return go.Scatter(
        x=x, y=y, name=name, fill="toself", mode="lines", line={"width": 1, "color": colour}, hoverinfo="skip"
    )


def _hover(all_counts: np.ndarray, pruned_counts: np.ndarray, edges: np.ndarray) -> go.Heatmap:
    """An invisible grid that answers the pointer with the counts beneath it."""
    return go.Heatmap(
        z=all_counts.T,
        customdata=pruned_counts.T,
        y=(edges[:-1] + edges[1:]) / 2,
        opacity=0,
        showscale=False,
        hovertemplate="layer %{x}, log₂ score %{y:.1f}<br>%{z} units, %{customdata} of them pruned<extra></extra>",
    )


def pruned_bars(mask: Mask) -> go.Bar:
    """Pruned units per layer, for a run that kept no statistics."""
    counts = mask.per_layer()
    return go.Bar(x=list(range(len(counts))), y=counts, marker={"color": UNITS_PRUNED}, name="pruned units")
