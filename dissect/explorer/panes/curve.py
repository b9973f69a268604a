"""The drops of measured choices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from plotly import graph_objects as go

from dissect.explorer.evaluator import Point
from dissect.explorer.panes.pane import LOW, pane_plot, titled
from dissect.style.theme import NEUTRAL, RUNS
from dissect.views.curves import FORGET_AXIS, RETAIN_AXIS


class CurvePane:
    """Measured points: retain drop on x, forget drop on y, one line for each series.

    Whiskers are 95% intervals, where there are any.
    """

    def __init__(self, theme: str):
        diagonal = go.Scatter(x=[0, 20], y=[0, 20], mode="lines", name="no selectivity", hoverinfo="skip")
        diagonal.line = {"dash": "dot", "width": 1.5, "color": NEUTRAL}
        figure = go.Figure([diagonal])
        figure.update_xaxes(title=RETAIN_AXIS, range=[-1, 21])
        figure.update_yaxes(title=FORGET_AXIS, range=[-1, 21])
        self.plot = pane_plot(figure, TITLE, "The Measure button adds a point", theme, LOW)
        figure.update_layout(showlegend=True)

    def show(self, points: Sequence[Point], unpruned: Mapping[str, Mapping[str, float]], contents: str) -> None:
        """Draw all points, one line for each series and each state of the model."""
        by_series: dict[tuple, list[Point]] = {}
        for point in points:
            by_series.setdefault((*point.settings.series, point.contents), []).append(point)
        traces, labels = {}, []
        for place, (series, mine) in enumerate(by_series.items(), start=1):
            labels.append(mine[0].settings.label + ", another state of the model" * (mine[0].contents != contents))
            name = _name(labels, series)
            self.plot.ensure(place, _new_line(place, name))
            traces[place] = _line(mine) | {"name": name}
        x, y = (_range([end for point in points for end in _ends(point, side)]) for side in ("retain", "forget"))
        end = min(x[1], y[1])
        traces[0] = {"x": [0, end], "y": [0, end]}
        accuracy = ", ".join(f"{side} {metrics['top1']:.3f}" for side, metrics in unpruned.items())
        layout = {"xaxis": {"range": x}, "yaxis": {"range": y}}
        note = f"unpruned top-1 accuracy: {accuracy}"
        if any(point.forget_interval or point.retain_interval for point in points):
            note += " · whiskers: 95% interval"
        self.plot.draw(traces, layout | titled(TITLE, note))


TITLE = "Drop of accuracy, as measured"


def _name(labels: Sequence[str], series: tuple) -> str:
    """The last label, with eps where another series differs only in it."""
    return labels[-1] if labels.count(labels[-1]) == 1 else f"{labels[-1]}, eps {series[2]:g}"


def _new_line(place: int, name: str) -> go.Scatter:
    colour = RUNS[(place - 1) % len(RUNS)]
    hover = "%{text}<br>forget drop %{y:.1f}%, retain drop %{x:.1f}%"
    look = {"line": {"color": colour, "width": 2}, "marker": {"size": 9, "color": colour}}
    return go.Scatter(x=[0], y=[0], mode="lines+markers", name=name, hovertemplate=hover, **look)


def _line(points: Sequence[Point]) -> dict[str, Any]:
    """A series in percent, from the unpruned model on, by the number of units."""
    points = sorted(points, key=lambda point: point.units)
    return {
        "x": [0.0, *(100 * point.retain_drop for point in points)],
        "y": [0.0, *(100 * point.forget_drop for point in points)],
        "text": [
            "unpruned model",
            *(f"{p.units:,} of {p.total:,} units ({100 * p.units / p.total:.3g}%)" for p in points),
        ],
        "error_x": _whiskers(points, "retain"),
        "error_y": _whiskers(points, "forget"),
    }


def _whiskers(points: Sequence[Point], side: str) -> dict[str, Any]:
    """How far the intervals reach from the points; the unpruned model has none."""
    drops = [_ends(point, side) for point in points]
    below, above = [0.0, *(drop - low for drop, low, _ in drops)], [0.0, *(high - drop for drop, _, high in drops)]
    return {"type": "data", "symmetric": False, "arrayminus": below, "array": above, "thickness": 1, "width": 0}


def _ends(point: Point, side: str) -> tuple[float, float, float]:
    """A drop and the two ends of its interval in percent; without an interval, the drop itself."""
    drop = getattr(point, f"{side}_drop")
    low, high = getattr(point, f"{side}_interval") or (drop, drop)
    # A percentile interval may exclude the drop itself.
    return 100 * drop, 100 * min(low, drop), 100 * max(high, drop)


def _range(drops: Sequence[float]) -> list[float]:
    """A range that covers the drops and 0 to 10, with some room at its ends."""
    low, high = min(0.0, *drops), max(10.0, *drops)
    room = 0.05 * (high - low)
    return [low - room, high + room]
