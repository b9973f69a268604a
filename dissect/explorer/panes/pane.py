"""What the explorer's panes have in common: size and style, titles, and arrays in a form that browsers accept."""

from __future__ import annotations

from typing import Any

import numpy as np
from plotly import graph_objects as go

from dissect.explorer.panes.plot import Plot
from dissect.style.theme import FORGET, RETAIN, legend_below, styled

TALL, LOW = 500, 400  # pixels, upper and lower row
LOSES = {"forget": FORGET, "retain": RETAIN}  # chosen units have the colour of the side that loses them


def pane_plot(figure: go.Figure, title: str, note: str, theme: str, height: int) -> Plot:
    styled(figure, title=title, note=note, theme=theme, height=height)
    legend_below(figure, bottom=92, pixels=52)
    figure.update_layout(margin={"l": 56, "r": 12})
    return Plot(figure)


def titled(text: str, note: str) -> dict[str, Any]:
    return {"title": {"text": text, "subtitle": {"text": note}}}


def float32(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float32)


def with_gaps(heat: go.Heatmap) -> np.ndarray:
    """The z of a heat map with None for NaN, which JSON does not have."""
    values = np.asarray(heat.z, dtype=object)
    values[np.isnan(np.asarray(heat.z, dtype=float))] = None
    return values
