"""A panel of the dashboard: the units of one site by layer, with those pruned up to a step marked.

`traces` are the panel's traces at a step, those that the slider changes last; `at` gives the new values of these at a
step, the same attributes for each; `moving` are their indices in the figure.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from plotly import graph_objects as go

from dissect.runs.run import Run
from dissect.scoring.scores import SiteScores
from dissect.style.ticks import layer_ticks
from dissect.views.outlines import BINS, SPACING, LayerBins, bin_layers, outline_heights, outline_widths
from dissect.views.score_axis import heights, score_axis, spans
from dissect.views.typed_arrays import packed


def count_title(pruned: int, total: int, site: str) -> str:
    """The title of a panel: how many units of a site are pruned."""
    return f"{pruned:,} of {total:,} {site} units pruned"


def outlines(bins: LayerBins, pruned: np.ndarray, colours: tuple[str, str]) -> list[go.Scatter]:
    """The shapes of the scores of all units, and over them those of the pruned ones (`pruned` counts, `layer bin`)."""
    heights = outline_heights(bins)
    shapes = (("all units", colours[0], bins.units), ("pruned units", colours[1], pruned))
    return [
        go.Scatter(
            x=outline_widths(bins, counts),
            y=heights,
            name=name,
            fill="toself",
            fillcolor=colour,
            mode="lines",
            line={"width": 0},
            hoverinfo="skip",
            legend="legend",
        )
        for name, colour, counts in shapes
    ]


def counts_under(bins: LayerBins, pruned: np.ndarray, ranges: list[str]) -> go.Heatmap:
    """An invisible grid whose hover shows the counts at that place; `ranges` are the scores of each bin."""
    units = bins.units.T
    return go.Heatmap(
        x=SPACING * np.arange(len(bins.units)),
        y=bins.centres,
        z=np.where(units > 0, units, np.nan).astype(np.float32),
        customdata=pruned.T,
        text=[[f"layer {layer}, score {span}" for layer in range(units.shape[1])] for span in ranges],
        opacity=0,
        showscale=False,
        hoverongaps=False,
        hovertemplate="%{text}<br>%{z} units, %{customdata} of them pruned<extra></extra>",
    )


def layer_axis(n_layers: int) -> dict[str, Any]:
    """The axis of layers below the shapes."""
    shown = layer_ticks(n_layers)
    return {
        "title": "layer",
        "tickvals": [SPACING * layer for layer in shown],
        "ticktext": [str(layer) for layer in shown],
        "range": [-SPACING, SPACING * n_layers],
        "showgrid": False,
    }


@dataclass
class ScorePanel:
    """The base model's scores of each layer as a shape; the units pruned so far have the run's colour."""

    run: Run
    site: str
    n_bins: int = BINS
    moving: list[int] = field(default_factory=list)
    scores: SiteScores = field(init=False)
    bins: LayerBins = field(init=False)

    def __post_init__(self) -> None:
        pruned_at = self.run.pruned_at[self.site].flatten(1).numpy()
        self.scores = self.run.scores()[self.site]
        self.bins = bin_layers(heights(self.scores), pruned_at, len(self.run.history), self.n_bins)

    def traces(self, step: int, colours: tuple[str, str]) -> list[go.Scatter | go.Heatmap | go.Bar]:
        pruned = self.bins.pruned[step]
        return [
            *outlines(self.bins, pruned, colours),
            counts_under(self.bins, pruned, spans(self.scores, self.bins.edges)),
        ]

    def _layers(self) -> np.ndarray:
        return SPACING * np.arange(len(self.bins.units))

    def at(self, step: int) -> list[dict[str, Any]]:
        counts = self.bins.pruned[step]
        return [
            {"x": packed(outline_widths(self.bins, counts)), "customdata": None},
            {"x": packed(self._layers()), "customdata": packed(counts.T)},
        ]

    def title(self, step: int) -> str:
        return count_title(int(self.bins.pruned[step].sum()), int(self.bins.units.sum()), self.site)

    def axes(self) -> tuple[dict[str, Any], dict[str, Any]]:
        low, high = self.bins.edges[0], self.bins.edges[-1]
        how = "forget / retain importance" if self.scores.combine == "ratio" else self.scores.combine
        score = {"title": f"score ({how})", **score_axis(self.scores, low, high)}
        return layer_axis(len(self.bins.units)), score


@dataclass
class CountPanel:
    """The number of pruned units in each layer, for a run without statistics."""

    run: Run
    site: str
    moving: list[int] = field(default_factory=list)

    def traces(self, step: int, colours: tuple[str, str]) -> list[go.Scatter | go.Heatmap | go.Bar]:
        counts = self.run.mask(step).per_layer(self.site)
        return [
            go.Bar(
                x=list(range(len(counts))),
                y=counts,
                marker={"color": colours[1]},
                name="pruned units",
                hovertemplate="layer %{x}: %{y} units pruned<extra></extra>",
            )
        ]

    def at(self, step: int) -> list[dict[str, Any]]:
        return [{"y": self.run.mask(step).per_layer(self.site)}]

    def title(self, step: int) -> str:
        mask = self.run.mask(step)
        return count_title(int(mask[self.site].sum()), int(mask.there(self.site).sum()), self.site)

    def axes(self) -> tuple[dict[str, Any], dict[str, Any]]:
        pruned = self.run.mask().per_layer(self.site)
        return (
            {"title": "layer", "tickvals": layer_ticks(len(pruned)), "showgrid": False},
            {"title": "units pruned", "range": [0, 1.05 * max(1, *pruned)]},
        )


Panel = ScorePanel | CountPanel


def panel_of(run: Run, site: str, bins: int = BINS) -> Panel:
    """Scores by layer if the run has statistics, else the number of pruned units by layer."""
    return ScorePanel(run, site, bins) if run.has_stats else CountPanel(run, site)
