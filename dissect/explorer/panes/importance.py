"""Importance to forget against importance to retain."""

from __future__ import annotations

from typing import Any

import numpy as np
from plotly import graph_objects as go

from dissect.explorer.choice import Choice
from dissect.explorer.panes.pane import LOSES, TALL, float32, pane_plot, titled, with_gaps
from dissect.style.theme import get_theme
from dissect.views.importance import density, importance_title
from dissect.views.importance_scale import LOG, lifted

FEW, MANY = 2_000, 60_000  # up to FEW units, dots are large; above MANY, a density is drawn


class ImportancePane:
    """Importance to forget and to retain, one dot for each unit, chosen ones coloured; the threshold is a line."""

    def __init__(self, theme: str):
        self.look = get_theme(theme)
        hover = "layer %{customdata}, unit %{id}<br>forget %{y:.3g}, retain %{x:.3g}"
        dots = {"mode": "markers", "hovertemplate": hover}
        figure = go.Figure(
            [
                density(np.ones(1), np.ones(1), "all units", self.look).update(
                    z=[[0]], customdata=[[0]], visible=False
                ),
                go.Scattergl(name="all units", marker={"color": self.look.faint}, **dots),
                go.Scattergl(name="chosen units", **dots),
                go.Scatter(
                    mode="lines", hoverinfo="skip", line={"width": 1.5, "dash": "dash", "color": self.look.text}
                ),
            ]
        )
        self.plot = pane_plot(figure, "", "", theme, TALL)
        self._drawn: tuple[str, str] | None = None
        self._sides = np.ones(0), np.ones(0)

    def show(self, choice: Choice) -> None:
        """Draw a choice."""
        drawn = (choice.settings.site, choice.settings.importance)
        fresh = drawn != self._drawn
        traces, layout = {}, {}
        if fresh:
            forget, retain = choice.importances()
            self._sides = lifted(forget), lifted(retain)
            traces, layout = self._all(choice)
        traces |= {2: self._chosen(choice), 3: self._cut(choice)}
        near = " (the line is approximate)" * (choice.settings.site == "head")
        note = f"{choice.mask.total:,} units · chosen: score ≥ {choice.threshold:.3g}{near}"
        layout |= titled(f"Importance of {choice.settings.site} units", note)
        self.plot.draw(traces, layout, much=fresh)
        self._drawn = drawn

    def _all(self, choice: Choice) -> tuple[dict[int, dict[str, Any]], dict[str, Any]]:
        forget, retain = self._sides
        if many := forget.size > MANY:
            heat = density(retain, forget, "all units", self.look)
            traces = {0: {name: heat[name] for name in ("x", "y", "customdata")} | {"z": with_gaps(heat)}}
        else:
            layer, unit = _places(choice)
            marker = {"size": 3, "opacity": 0.25} if forget.size > FEW else {"size": 5, "opacity": 0.4}
            traces = {
                1: {"x": float32(retain), "y": float32(forget), "customdata": layer, "ids": unit, "marker": marker}
            }
        for place, shown in ((0, many), (1, not many)):
            traces[place] = traces.get(place, {}) | {"visible": shown}
        importance = choice.settings.importance
        axes = {
            f"{axis}axis": LOG.axis(values) | {"title": {"text": importance_title(side, importance)}}
            for axis, side, values in (("x", "retain", retain), ("y", "forget", forget))
        }
        return traces, axes

    def _chosen(self, choice: Choice) -> dict[str, Any]:
        forget, retain = self._sides
        which = choice.mask[choice.settings.site][choice.scores.there].numpy()
        layer, unit = _places(choice)
        size = {"size": 6, "opacity": 0.8} if which.sum() < FEW else {"size": 3, "opacity": 0.5}
        return {
            "x": float32(retain[which]),
            "y": float32(forget[which]),
            "customdata": layer[which],
            "ids": unit[which],
            "marker": size | {"color": LOSES[choice.settings.direction]},
        }

    def _cut(self, choice: Choice) -> dict[str, Any]:
        """The line of the threshold: importance to the pruned side = threshold (importance to the kept side + eps)."""
        forward = choice.settings.direction == "forget"
        keep = self._sides[1] if forward else self._sides[0]
        along = np.geomspace(keep.min(), keep.max(), 100)
        across = choice.threshold * (along + choice.scores.eps)
        x, y = (along, across) if forward else (across, along)
        return {"x": float32(x), "y": float32(y), "name": f"score = {choice.threshold:.3g}"}


def _places(choice: Choice) -> tuple[np.ndarray, np.ndarray]:
    """The layer of every unit that there is, and its index in the layer."""
    each = np.int32(choice.scores.values[0].numel())
    layer, unit = np.divmod(np.flatnonzero(choice.scores.there).astype(np.int32), each)
    return layer, unit
