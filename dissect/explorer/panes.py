"""The explorer's plots. They compute no result, and send only what differs from what is drawn.

Moving the fraction sends the chosen units, not all of them. Arrays are one-dimensional where they are long: those
travel to the browser as they are, others as text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from plotly import graph_objects as go
from plotly.subplots import make_subplots

from dissect.explorer.agreement import Agreement
from dissect.explorer.bench import Point
from dissect.explorer.choice import Choice
from dissect.explorer.plot import Plot
from dissect.style.theme import FORGET, NEUTRAL, RETAIN, RUNS, get_theme, legend_below, plain, styled
from dissect.views.curves import FORGET_AXIS, RETAIN_AXIS
from dissect.views.importance import density, importance_axis, importance_title, lifted
from dissect.views.log_axis import log_scores, ticks
from dissect.views.outlines import SPACING, LayerBins, bin_layers, outline_heights, outline_widths
from dissect.views.panel import counts_under, layer_axis, layer_ticks, outlines

TALL, LOW = 500, 400  # pixels, upper and lower row
LOST = {"forget": FORGET, "retain": RETAIN}  # chosen units have the colour of the side that loses them
BOTH, ONLY_VALUE, ONLY_PRE_OUT = RUNS[0], RUNS[2], RUNS[3]
FEW, MANY = 2_000, 60_000  # dots are large up to the one, and a density above the other


def _plot(figure: go.Figure, title: str, note: str, theme: str, height: int) -> Plot:
    styled(figure, title=title, note=note, theme=theme, height=height)
    legend_below(figure, bottom=92, pixels=52)
    figure.update_layout(margin={"l": 56, "r": 12})
    return Plot(figure)


def _title(text: str, note: str) -> dict[str, Any]:
    return {"title": {"text": text, "subtitle": {"text": note}}}


def _f4(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float32)


def _with_gaps(heat: go.Heatmap) -> np.ndarray:
    """A heat map's z with None where there is none: what travels as text has no NaN."""
    values = np.asarray(heat.z, dtype=object)
    values[np.isnan(np.asarray(heat.z, dtype=float))] = None
    return values


class ImportancePane:
    """Forget against retain importance, a dot a unit, the chosen ones coloured, and the cut."""

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
        self.plot = _plot(figure, "", "", theme, TALL)
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
        near = " (the line is near it)" * (choice.settings.site == "head")
        note = f"{choice.mask.total:,} units, a dot each; chosen: score ≥ {choice.threshold:.3g}{near}"
        layout |= _title(f"What {choice.settings.site} units matter to", note)
        self.plot.draw(traces, layout, much=fresh)
        self._drawn = drawn

    def _all(self, choice: Choice) -> tuple[dict[int, dict[str, Any]], dict[str, Any]]:
        forget, retain = self._sides
        if many := forget.size > MANY:
            heat = density(retain, forget, "all units", self.look)
            traces = {0: {name: heat[name] for name in ("x", "y", "customdata")} | {"z": _with_gaps(heat)}}
        else:
            layer, unit = _places(choice)
            marker = {"size": 3, "opacity": 0.25} if forget.size > FEW else {"size": 5, "opacity": 0.4}
            traces = {1: {"x": _f4(retain), "y": _f4(forget), "customdata": layer, "ids": unit, "marker": marker}}
        for place, shown in ((0, many), (1, not many)):
            traces[place] = traces.get(place, {}) | {"visible": shown}
        importance = choice.settings.importance
        axes = {
            f"{axis}axis": importance_axis(values) | {"title": {"text": importance_title(side, importance)}}
            for axis, side, values in (("x", "retain", retain), ("y", "forget", forget))
        }
        return traces, axes

    def _chosen(self, choice: Choice) -> dict[str, Any]:
        forget, retain = self._sides
        which = choice.mask[choice.settings.site].flatten().numpy()
        layer, unit = _places(choice)
        size = {"size": 6, "opacity": 0.8} if which.sum() < FEW else {"size": 3, "opacity": 0.5}
        return {
            "x": _f4(retain[which]),
            "y": _f4(forget[which]),
            "customdata": layer[which],
            "ids": unit[which],
            "marker": size | {"color": LOST[choice.settings.direction]},
        }

    def _cut(self, choice: Choice) -> dict[str, Any]:
        """Where the score is the threshold: importance to what loses = threshold (importance to what is kept + eps)."""
        forward = choice.settings.direction == "forget"
        keep = self._sides[1] if forward else self._sides[0]
        along = np.geomspace(keep.min(), keep.max(), 100)
        across = choice.threshold * (along + choice.scores.eps)
        x, y = (along, across) if forward else (across, along)
        return {"x": _f4(x), "y": _f4(y), "name": f"score = {choice.threshold:.3g}"}


def _places(choice: Choice) -> tuple[np.ndarray, np.ndarray]:
    """The layer and the number in the layer of every unit."""
    each = np.int32(choice.scores.values[0].numel())
    layer, unit = np.divmod(np.arange(choice.scores.values.numel(), dtype=np.int32), each)
    return layer, unit


class LayersPane:
    """Chosen units of each layer, counted, and below where their scores lie among all."""

    def __init__(self, n_layers: int, theme: str):
        self.colours = (get_theme(theme).units, FORGET)
        figure = make_subplots(rows=2, row_heights=[0.34, 0.66], shared_xaxes=True, vertical_spacing=0.06)
        figure.add_trace(_layer_bars(n_layers), row=1, col=1)
        unknown = LayerBins(np.array([0.0, 1.0]), np.ones((n_layers, 1), int), np.zeros((1, n_layers, 1), int))
        for trace in (*outlines(unknown, unknown.pruned[0], self.colours), counts_under(unknown, unknown.pruned[0])):
            figure.add_trace(trace, row=2, col=1)
        figure.data[2].name = "chosen units"
        across = layer_axis(n_layers)
        figure.update_xaxes(across | {"title": None}, row=1, col=1)
        figure.update_xaxes(across, row=2, col=1)
        figure.update_yaxes(title="units chosen", rangemode="tozero", row=1, col=1)
        figure.update_yaxes(title="score", row=2, col=1)
        self.plot = _plot(figure, "Where the chosen units sit", "", theme, TALL)
        self._drawn: tuple | None = None
        self._heights = np.zeros((n_layers, 0))

    def show(self, choice: Choice) -> None:
        """Draw a choice."""
        settings = choice.settings
        drawn = (settings.site, settings.importance, settings.eps, settings.direction)
        fresh = drawn != self._drawn
        if fresh:
            self._heights = log_scores(choice.scores)
        chosen = choice.mask[settings.site].flatten(1).numpy()
        bins = bin_layers(self._heights, np.where(chosen, 0, -1), 1)
        traces, layout = self._all(bins, choice) if fresh else ({}, {})
        for place, changes in self._chosen(bins, choice, chosen.shape[1]).items():
            traces[place] = traces.get(place, {}) | changes
        reached = sum(count > 0 for count in choice.per_layer)
        note = f"{len(choice.mask):,} of {choice.mask.total:,} units, in {reached} of {len(chosen)} layers"
        whole = {"dtick": 1 if max(choice.per_layer) < 6 else None}  # no half units
        self.plot.draw(traces, layout | _title("Where the chosen units sit", note) | {"yaxis": whole}, much=fresh)
        self._drawn = drawn

    def _all(self, bins: LayerBins, choice: Choice) -> tuple[dict[int, dict[str, Any]], dict[str, Any]]:
        heights, under = _f4(outline_heights(bins)), counts_under(bins, bins.pruned[0])
        traces = {
            1: {"x": outline_widths(bins, bins.units).astype(np.int32), "y": heights},
            2: {"y": heights},
            3: {"y": under.y, "z": _with_gaps(under), "text": under.text},
        }
        lose, keep = ("forget", "retain") if choice.settings.direction == "forget" else ("retain", "forget")
        score = {"title": {"text": f"score ({lose} / {keep})"}, **ticks(bins.edges[0], bins.edges[-1])}
        return traces, {"yaxis2": score}

    def _chosen(self, bins: LayerBins, choice: Choice, each: int) -> dict[int, dict[str, Any]]:
        counts = np.array(choice.per_layer, np.int32)
        colour = LOST[choice.settings.direction]
        return {
            0: {"y": counts, "customdata": _f4(100 * counts / each), "marker": {"color": colour}},
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


class AgreementPane:
    """Pre-out dimensions that the value choice, the pre-out choice or both reach, a bar a layer."""

    def __init__(self, n_layers: int, theme: str):
        layers = np.arange(n_layers, dtype=np.int32)
        hover = "layer %{x}: %{y:,} dimensions"
        shown = (("both", BOTH), ("value only", ONLY_VALUE), ("pre_out only", ONLY_PRE_OUT))
        bars = [go.Bar(x=layers, y=0 * layers, name=name, marker_color=c, hovertemplate=hover) for name, c in shown]
        figure = go.Figure(bars)
        figure.update_xaxes(title="layer", tickvals=layer_ticks(n_layers), showgrid=False, range=[-1, n_layers])
        figure.update_yaxes(title="pre-out dimensions", rangemode="tozero")
        self.plot = _plot(figure, "", "", theme, LOW)
        figure.update_layout(barmode="stack", legend={"traceorder": "normal"})
        self._nothing = 0 * layers

    def show(self, found: Agreement) -> None:
        """Draw how far the two agree."""
        counts = [np.array(part, np.int32) for part in (found.both, found.only_value, found.only_pre_out)]
        note = f"{found.n_both:,} dimensions in both, {found.n_either:,} in either; {unit_of(found)}"
        self._draw(counts, f"value and pre_out agree: Jaccard {found.jaccard:.2f}", note)

    def refuse(self, reason: str) -> None:
        """Draw nothing, and say why."""
        self._draw([self._nothing] * 3, "value and pre_out are not compared", _in_lines(reason))

    def _draw(self, counts: Sequence[np.ndarray], title: str, note: str) -> None:
        self.plot.draw({place: {"y": part} for place, part in enumerate(counts)}, _title(title, note))


def unit_of(found: Agreement) -> str:
    """What a value dimension is compared as."""
    return "1 value dim is 1 pre-out dim" if found.group == 1 else f"1 value dim is {found.group} pre-out dims"


def _in_lines(reason: str, width: int = 64) -> str:
    """Two lines of plain text at most."""
    cut = reason.rfind(" ", 0, width) if len(reason) > width else len(reason)
    rest = reason[cut:].strip()
    rest = rest if len(rest) <= width else f"{rest[: rest.rfind(' ', 0, width)]} …"
    return "<br>".join(plain(line) for line in (reason[:cut], rest) if line)


class CurvePane:
    """Measured points: what the retain side loses across, what the forget side loses up, a line a series.

    Whiskers are their 95% intervals, where there are any.
    """

    def __init__(self, theme: str):
        diagonal = go.Scatter(x=[0, 20], y=[0, 20], mode="lines", name="no selectivity", hoverinfo="skip")
        diagonal.line = {"dash": "dot", "width": 1.5, "color": NEUTRAL}
        figure = go.Figure([diagonal])
        figure.update_xaxes(title=RETAIN_AXIS, range=[-1, 21])
        figure.update_yaxes(title=FORGET_AXIS, range=[-1, 21])
        self.plot = _plot(figure, TITLE, "Measure adds a point", theme, LOW)
        figure.update_layout(showlegend=True)

    def show(self, points: Sequence[Point], whole: Mapping[str, Mapping[str, float]], contents: str) -> None:
        """Draw all points; a new series gets a line of its own, and so does one of a model of other contents."""
        by_series: dict[tuple, list[Point]] = {}
        for point in points:
            by_series.setdefault((*point.settings.series, point.contents), []).append(point)
        traces, labels = {}, []
        for place, (series, mine) in enumerate(by_series.items(), start=1):
            labels.append(mine[0].settings.label + ", model in another state" * (mine[0].contents != contents))
            name = _name(labels, series)
            self.plot.ensure(place, _new_line(place, name))
            traces[place] = _line(mine) | {"name": name}
        x, y = (_range([end for point in points for end in _ends(point, side)]) for side in ("retain", "forget"))
        end = min(x[1], y[1])
        traces[0] = {"x": [0, end], "y": [0, end]}
        accuracy = ", ".join(f"{side} {metrics['top1']:.3f}" for side, metrics in whole.items())
        layout = {"xaxis": {"range": x}, "yaxis": {"range": y}}
        note = f"whole model's top-1 accuracy: {accuracy}"
        if any(point.forget_interval or point.retain_interval for point in points):
            note += " · whiskers: 95% interval"
        self.plot.draw(traces, layout | _title(TITLE, note))


TITLE = "What measured choices cost"


def _name(labels: Sequence[str], series: tuple) -> str:
    """The last label; one that differs from another by eps alone says so."""
    return labels[-1] if labels.count(labels[-1]) == 1 else f"{labels[-1]}, eps {series[2]:g}"


def _new_line(place: int, name: str) -> go.Scatter:
    colour = RUNS[(place - 1) % len(RUNS)]
    hover = "%{text}<br>forget drop %{y:.1f}%, retain drop %{x:.1f}%"
    look = {"line": {"color": colour, "width": 2}, "marker": {"size": 9, "color": colour}}
    return go.Scatter(x=[0], y=[0], mode="lines+markers", name=name, hovertemplate=hover, **look)


def _line(points: Sequence[Point]) -> dict[str, Any]:
    """A series in percent, from the whole model on, by the number of units."""
    points = sorted(points, key=lambda point: point.units)
    return {
        "x": [0.0, *(100 * point.retain_drop for point in points)],
        "y": [0.0, *(100 * point.forget_drop for point in points)],
        "text": ["the whole model", *(f"{p.units:,} of {p.total:,} units ({p.units / p.total:.3g})" for p in points)],
        "error_x": _whiskers(points, "retain"),
        "error_y": _whiskers(points, "forget"),
    }


def _whiskers(points: Sequence[Point], side: str) -> dict[str, Any]:
    """How far the intervals go from the points; the whole model has none."""
    drops = [_ends(point, side) for point in points]
    below, above = [0.0, *(drop - low for drop, low, _ in drops)], [0.0, *(high - drop for drop, _, high in drops)]
    return {"type": "data", "symmetric": False, "arrayminus": below, "array": above, "thickness": 1, "width": 0}


def _ends(point: Point, side: str) -> tuple[float, float, float]:
    """A drop and the ends of its interval in percent; without one, the drop itself."""
    drop = getattr(point, f"{side}_drop")
    low, high = getattr(point, f"{side}_interval") or (drop, drop)
    # The percentile interval may leave the drop itself out.
    return 100 * drop, 100 * min(low, drop), 100 * max(high, drop)


def _range(drops: Sequence[float]) -> list[float]:
    """An axis from the lowest drop, at most 0, to the highest, at least 10, and a little more."""
    low, high = min(0.0, *drops), max(10.0, *drops)
    room = 0.05 * (high - low)
    return [low - room, high + room]
