"""Tuning: what the trials forget and what that costs, their Pareto front, and the settings that were chosen."""

from __future__ import annotations

import pandas as pd
from plotly import graph_objects as go

from dissect.base.checks import check_kind
from dissect.experiments.tuning import Tuning
from dissect.style.theme import NEUTRAL, RUNS, get_theme, legend_below, plain, styled
from dissect.views.curves import FORGET_AXIS, RETAIN_AXIS
from dissect.views.notebook import NotebookFigure

FURTHEST = 40  # percent of retain drop
CUT = (
    "trial %{customdata[0]}: %{customdata[1]}<br>forget drop %{y:.1f}%, retain drop %{customdata[2]:.1f}%<br>"
    "divergence on retain %{customdata[3]:.3f} nats, %{customdata[4]:,} units cut<extra></extra>"
)


def tuning(result: Tuning, *, theme: str = "light") -> go.Figure:
    """The cuts that `tune` measured on all validation windows, against both costs, and how the trials went.

    Left and middle, the forget drop against the retain drop and against the divergence on retain, a dot for each cut;
    the front (no other cut is better in all three) has rings, and the chosen trial a line. The dotted line is the
    retain budget. Right, the forget drop at the budget, trial by trial; those that were stopped early are hollow, since
    they were judged by fewer predictions.

    Raises:
        DissectError: `result` is no `Tuning`, or the theme is unknown.
    """
    check_kind("result", result, Tuning, "what dissect.tune gives")
    figure = NotebookFigure().set_subplots(cols=3, shared_yaxes=True, horizontal_spacing=0.04)
    points, front = result.points, result.front()
    inside = points["retain_drop"].le(FURTHEST / 100)
    most = float(points.loc[inside, "kl"].max()) if inside.any() else float(points["kl"].max())
    for column, (name, scale) in enumerate((("retain_drop", 100), ("kl", 1)), 1):
        found = [
            _dots(result, points, name, scale),
            _rings(front, name, scale, get_theme(theme).text),
            _chosen(result, name, scale),
        ]
        figure.add_traces([trace.update(showlegend=column == 1) for trace in found], rows=1, cols=column)
    figure.add_traces(_progress(result), rows=1, cols=3)
    budget = 100 * result.retain_drop
    figure.add_vline(x=budget, line={"color": NEUTRAL, "width": 1, "dash": "dot"}, row=1, col=1)
    least = min(0.0, 100 * float(points["retain_drop"].min()))
    figure.update_xaxes(title=RETAIN_AXIS, range=[least - 1, FURTHEST], row=1, col=1)
    figure.update_xaxes(title="divergence on retain (nats)", range=[-0.03 * most, 1.1 * most], row=1, col=2)
    figure.update_xaxes(title="trial", row=1, col=3)
    figure.update_yaxes(title=FORGET_AXIS, row=1, col=1)
    config = result.best
    note = (
        f"{plain(config.model)} · forget {plain(config.forget)}, retain {plain(config.retain)} · validation documents, "
        f"{int(points['n'].max()):,} predictions · budget: {budget:g}% retain drop"
    )
    styled(figure, title="Tuning: what is forgotten, and what it costs", note=note, theme=theme, height=480)
    legend_below(figure, bottom=112)
    return figure


def _dots(result: Tuning, points: pd.DataFrame, name: str, scale: float) -> go.Scatter:
    named = result.trials.set_index("trial").apply(settings_named, axis=1)
    rows = zip(
        points["trial"],
        points["trial"].map(named),
        100 * points["retain_drop"],
        points["kl"],
        points["units"],
        strict=True,
    )
    return go.Scatter(
        x=scale * points[name],
        y=100 * points["forget_drop"],
        customdata=list(rows),
        mode="markers",
        marker={"size": 7, "color": RUNS[3]},
        name="a cut",
        legendgroup="cuts",
        hovertemplate=CUT,
    )


def _rings(front: pd.DataFrame, name: str, scale: float, colour: str) -> go.Scatter:
    return go.Scatter(
        x=scale * front[name],
        y=100 * front["forget_drop"],
        mode="markers",
        marker={"size": 12, "symbol": "circle-open", "color": colour, "line": {"width": 1.5}},
        name="Pareto front",
        legendgroup="front",
        hoverinfo="skip",
    )


def _chosen(result: Tuning, name: str, scale: float) -> go.Scatter:
    points = result.points[result.points["trial"].eq(result.chosen)].sort_values("size")
    return go.Scatter(
        x=scale * points[name],
        y=100 * points["forget_drop"],
        mode="lines",
        line={"color": RUNS[0], "width": 2},
        name=f"chosen: trial {result.chosen}",
        legendgroup="chosen",
        hoverinfo="skip",
    )


def _progress(result: Tuning) -> list[go.Scatter]:
    """The trials in order, and the best so far of those that saw all validation windows."""
    whole = result.trials["state"].eq("COMPLETE")
    traces = []
    for rows, symbol, name in ((whole, "circle", "trial"), (~whole, "circle-open", "trial stopped early")):
        part = result.trials[rows]
        traces.append(
            go.Scatter(
                x=part["trial"],
                y=100 * part["forget_drop"],
                customdata=list(zip(part.apply(settings_named, axis=1), part["predictions"], strict=True)),
                mode="markers",
                marker={"size": 8, "symbol": symbol, "color": RUNS[1]},
                name=name,
                hovertemplate=(
                    "trial %{x}: %{customdata[0]}<br>forget drop %{y:.1f}% at the budget, "
                    "%{customdata[1]:,} predictions<extra></extra>"
                ),
            )
        )
    done = result.trials[whole]
    best = 100 * done["forget_drop"].cummax()
    line = {"color": RUNS[1], "width": 1.5, "shape": "hv"}
    traces.append(go.Scatter(x=done["trial"], y=best, mode="lines", line=line, name="best so far", hoverinfo="skip"))
    return traces


def settings_named(row: pd.Series) -> str:
    """The settings of a trial, in a few words."""
    first = ", first position counted" if row["first_position"] else ""
    return f"{row['sites']}, {row['importance']} {row['combine']}, {row['edit']}{first}"
