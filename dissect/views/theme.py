"""One look for every figure: forget and retain have the same colours everywhere, safe for colour-blind readers."""

from __future__ import annotations

from plotly import graph_objects as go

# Okabe and Ito's palette.
FORGET, RETAIN, NEUTRAL = "#D55E00", "#0072B2", "#8C8C8C"
RUNS = ("#D55E00", "#8C8C8C", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
UNITS_KEPT, UNITS_PRUNED = "#C9CDD2", FORGET

_FONT = {"family": "Inter, Helvetica, Arial, sans-serif", "size": 14}


def styled(figure: go.Figure, *, title: str, height: int = 460) -> go.Figure:
    """Give a figure the common template, title and margins."""
    figure.update_layout(
        template="plotly_white",
        font=_FONT,
        title={"text": title, "x": 0.01, "xanchor": "left", "font": {"size": 17}},
        height=height,
        margin={"l": 70, "r": 30, "t": 90, "b": 110},
        legend={"orientation": "h", "yanchor": "top", "y": -0.2, "x": 0, "font": {"size": 13}},
        hoverlabel={"font": {"size": 13}},
    )
    return figure
