"""The paper's Figure 2: perplexity relative to the base model, retain on x and forget on y, both logarithmic."""

from __future__ import annotations

import math
from collections.abc import Iterable

from plotly import graph_objects as go

from dissect.runs.run import Run, as_runs
from dissect.style.theme import NEUTRAL, legend_below, styled
from dissect.style.ticks import log_ticks
from dissect.views.bands import Box, band
from dissect.views.curves import curves_note
from dissect.views.lines import Line, data_of, lines_of, model_of
from dissect.views.notebook import NotebookFigure

LARGEST = 1e12  # larger ratios are drawn here; they would only squeeze the rest


def perplexity(runs: Iterable[Run], *, theme: str = "light") -> go.Figure:
    """Perplexity as a multiple of the base model's on each side, one line for each run, one point for each step.

    Ratios are exp(loss - base loss) of the mean losses, and are drawn up to 1e12. Bands are as in `curves`.

    Raises:
        DissectError: There is no run, or one has no step yet.
    """
    runs = as_runs(runs)
    lines = lines_of(runs)
    retain, forget = ([value for line in lines for value in ratios(line, side)] for side in ("retain", "forget"))
    bands = [trace for line in lines for trace in _band(line)]
    figure = NotebookFigure([_diagonal(min(max(retain), max(forget))), *bands, *(_trace(line) for line in lines)])
    figure.update_xaxes(title="retain: perplexity / base model's", type="log")
    figure.update_yaxes(title="forget: perplexity / base model's", type="log")
    figure.update_xaxes(_ticks(retain))
    figure.update_yaxes(_ticks(forget))
    note = f"{model_of(runs)} · {data_of(runs)}{curves_note(lines)}"
    styled(figure, title="Perplexity relative to the base model", note=note, theme=theme, height=500)
    legend_below(figure, bottom=96 + 18 * ((len(lines) + 2) // 3))
    return figure


def ratios(line: Line, side: str) -> list[float]:
    """Perplexity on the figure's `side` / the base model's, a number for each step."""
    return [_ratio(rise) for rise in line.loss_rises(side)]


def _ratio(rise: float) -> float:
    return math.exp(min(rise, math.log(LARGEST)))


def _band(line: Line) -> list[go.Scatter]:
    """The band of the rise in loss; its edges are straight on these logarithmic axes."""
    boxes: list[Box] = list(zip(line.spans("retain", "loss_rise"), line.spans("forget", "loss_rise"), strict=True))
    return band(line, boxes, place=_ratio)


def _ticks(values: list[float]) -> dict[str, list]:
    """Tick settings for ratios on a logarithmic axis, labelled such as `10×`."""
    shown = log_ticks(min(values), max(values))
    return {"tickvals": shown, "ticktext": [f"{value:,g}×" if value < 1e6 else f"{value:.0e}×" for value in shown]}


def _trace(line: Line) -> go.Scatter:
    return go.Scatter(
        x=ratios(line, "retain"),
        y=ratios(line, "forget"),
        customdata=line.details(),
        mode="lines+markers",
        line=line.style,
        marker={"size": 6},
        name=line.name,
        legendgroup=line.name,
        hovertemplate=(
            "step %{customdata[0]}: %{customdata[2]:,} units pruned (%{customdata[1]:.1f}%)<br>"
            "forget perplexity %{customdata[5]:,.4~g}, %{y:,.3~g} times the base model's<br>"
            "retain perplexity %{customdata[6]:,.4~g}, %{x:,.3~g} times"
        ),
    )


def _diagonal(end: float) -> go.Scatter:
    return go.Scatter(
        x=[1, max(end, 1.1)],
        y=[1, max(end, 1.1)],
        mode="lines",
        line={"dash": "dot", "width": 1.5, "color": NEUTRAL},
        name="no selectivity",
        hoverinfo="skip",
    )
