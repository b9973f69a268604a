"""Scores of a site's units as one shape for each layer; its width shows how many units have that score."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BINS = 44
SPACING = 100  # between layers, in units of the axis; coordinates are integers, so that a point takes two bytes
WIDTH = 46  # half the width of the widest shape


@dataclass(frozen=True, eq=False)
class LayerBins:
    """How many units of each layer have a score in each bin, and how many of them are pruned up to each step.

    Attributes:
        edges: Edges of the bins, in heights of the score (log10 where its axis is logarithmic).
        units: Counts, `layer bin`.
        pruned: Counts of those pruned up to a step, `step layer bin`.
    """

    edges: np.ndarray
    units: np.ndarray
    pruned: np.ndarray

    @property
    def centres(self) -> np.ndarray:
        """The middle of each bin."""
        return (self.edges[:-1] + self.edges[1:]) / 2


def bin_layers(heights: np.ndarray, pruned_at: np.ndarray, steps: int, bins: int = BINS) -> LayerBins:
    """Count units by layer, bin and step.

    Args:
        heights: Of the scores, `layer unit` (`score_axis.heights`); NaN where there is no unit.
        pruned_at: The step at which each unit is pruned, negative if kept, `layer unit`.
        steps: Number of steps, step 0 included.
        bins: Number of bins.
    """
    there = ~np.isnan(heights)
    edges = np.histogram_bin_edges(heights[there], bins)
    where = np.clip(np.searchsorted(edges, heights, side="right") - 1, 0, bins - 1)
    layer = np.broadcast_to(np.arange(len(heights))[:, None], heights.shape)
    units = np.zeros((len(heights), bins), np.int64)
    np.add.at(units, (layer[there], where[there]), 1)
    pruned = np.zeros((steps, len(heights), bins), np.int64)
    cut = (pruned_at >= 0) & (pruned_at < steps)
    np.add.at(pruned, (pruned_at[cut], layer[cut], where[cut]), 1)
    return LayerBins(edges, units, pruned.cumsum(0))


def outline_heights(bins: LayerBins) -> np.ndarray:
    """The y coordinates of all outlines: up one side and down the other of each layer, NaN between layers."""
    parts = [[*_span(bins, layer), *_span(bins, layer)[::-1], np.nan] for layer in range(len(bins.units))]
    return np.array([y for part in parts for y in part])


def outline_widths(bins: LayerBins, counts: np.ndarray) -> np.ndarray:
    """The x coordinates of all outlines for `counts` (`layer bin`).

    Widths grow with the square root of the count, so that single units can be seen.
    """
    half = np.rint(WIDTH * np.sqrt(counts / max(1, bins.units.max()))).astype(np.int64)
    parts = []
    for layer, widths in enumerate(half):
        inside = np.concatenate([[0], widths[_used(bins, layer)], [0]])
        parts += [SPACING * layer - inside, SPACING * layer + inside[::-1], [0]]
    return np.concatenate(parts)


def _used(bins: LayerBins, layer: int) -> slice:
    """The bins of a layer from the first to the last that holds units; none of a layer that lacks the site."""
    filled = np.flatnonzero(bins.units[layer])
    return slice(filled[0], filled[-1] + 1) if filled.size else slice(0, 0)


def _span(bins: LayerBins, layer: int) -> np.ndarray:
    used = _used(bins, layer)
    return np.concatenate([[bins.edges[used.start]], bins.centres[used], [bins.edges[used.stop]]])
