"""Chosen units by layer."""

from __future__ import annotations

from typing import Any

import numpy as np
from plotly import graph_objects as go
from plotly.subplots import make_subplots

from dissect.explorer.choice import Choice
from dissect.explorer.panes.pane import LOSES, TALL, float32, pane_plot, titled, with_gaps
from dissect.style.theme import FORGET, get_theme
from dissect.views.outlines import SPACING, LayerBins, bin_layers, outline_heights, outline_widths
from dissect.views.panel import counts_under, layer_axis, outlines
from dissect.views.score_axis import heights, score_axis, spans


class LayersPane:
    """The number of chosen units in each layer, and below it their scores among those of all units."""

    def __init__(self, n_layers: int, theme: str):
        self.colours = (get_theme(theme).units, FORGET)
        figure = make_subplots(rows=2, row_heights=[0.34, 0.66], shared_xaxes=True, vertical_spacing=0.06)
        figure.add_trace(_layer_bars(n_layers), row=1, col=1)
        unknown = LayerBins(np.array([0.0, 1.0]), np.ones((n_layers, 1), int), np.zeros((1, n_layers, 1), int))
        for trace in (
            *outlines(unknown, unknown.pruned[0], self.colours),
            counts_under(unknown, unknown.pruned[0], [""]),
        ):
            figure.add_trace(trace, row=2, col=1)
        figure.data[2].name = "chosen units"
        across = layer_axis(n_layers)
        figure.update_xaxes(across | {"title": None}, row=1, col=1)
        figure.update_xaxes(across, row=2, col=1)
        figure.update_yaxes(title="units chosen", rangemode="tozero", row=1, col=1)
        figure.update_yaxes(title="score", row=2, col=1)
        self.plot = pane_plot(figure, "Chosen units by layer", "", theme, TALL)
        self._drawn: tuple | None = None
        self._heights = np.zeros((n_layers, 0))

    def show(self, choice: Choice) -> None:
        """Draw a choice."""
        settings = choice.settings
        drawn = (settings.site, settings.importance, settings.eps, settings.direction)
        fresh = drawn != self._drawn
        if fresh:
            self._heights = heights(choice.scores)
        chosen = choice.mask[settings.site].flatten(1).numpy()
        bins = bin_layers(self._heights, np.where(chosen, 0, -1), 1)
        traces, layout = self._all(bins, choice) if fresh else ({}, {})
        for place, changes in self._chosen(bins, choice, chosen.shape[1]).items():
            traces[place] = traces.get(place, {}) | changes
        reached = sum(count > 0 for count in choice.per_layer)
        note = f"{len(choice.mask):,} of {choice.mask.total:,} units, in {reached} of {choice.n_layers} layers"
        integers = {"dtick": 1 if max(choice.per_layer) < 6 else None}  # no ticks at half units
        self.plot.draw(traces, layout | titled("Chosen units by layer", note) | {"yaxis": integers}, much=fresh)
        self._drawn = drawn

    def _all(self, bins: LayerBins, choice: Choice) -> tuple[dict[int, dict[str, Any]], dict[str, Any]]:
        shape, under = (
            float32(outline_heights(bins)),
            counts_under(bins, bins.pruned[0], spans(choice.scores, bins.edges)),
        )
        traces = {
            1: {"x": outline_widths(bins, bins.units).astype(np.int32), "y": shape},
            2: {"y": shape},
            3: {"y": under.y, "z": with_gaps(under), "text": under.text},
        }
        prune, keep = ("forget", "retain") if choice.settings.direction == "forget" else ("retain", "forget")
        score = {
            "title": {"text": f"score ({prune} / {keep})"},
            **score_axis(choice.scores, bins.edges[0], bins.edges[-1]),
        }
        return traces, {"yaxis2": score}

    def _chosen(self, bins: LayerBins, choice: Choice, each: int) -> dict[int, dict[str, Any]]:
        counts = np.array(choice.per_layer, np.int32)
        colour = LOSES[choice.settings.direction]
        return {
            0: {"y": counts, "customdata": float32(100 * counts / each), "marker": {"color": colour}},
            2: {"x": outline_widths(bins, bins.pruned[0]).astype(np.int32), "fillcolor": colour},
            3: {"customdata": bins.pruned[0].T},
        }


def _layer_bars(n_layers: int) -> go.Bar:
    return go.Bar(
        x=np.arange(n_layers, dtype=np.int32) * SPACING,
        y=np.zeros(n_layers, np.int32),
        text=[str(layer) for layer in range(n_layers)],
        textposition="none",
        width=0.7 * SPACING,
        showlegend=False,
        name="chosen units",
        hovertemplate="layer %{text}: %{y:,} units chosen (%{customdata:.1f}% of the layer)<extra></extra>",
    )
