"""The pruning curve: the paper's Figure 1, retain drop across and forget drop up, a point a step."""

from __future__ import annotations

from plotly import graph_objects as go

from dissect.runs import Run
from dissect.views.theme import NEUTRAL, RUNS


def curve_traces(runs: list[Run]) -> list[go.Scatter]:
    """The diagonal and one line a run, in percent."""
    return [_diagonal(), *(_curve(run, colour) for run, colour in zip(runs, _colours(runs), strict=True))]


def _colours(runs: list[Run]) -> list[str]:
    """Random baselines are grey; the others take the palette in order."""
    bright = iter([colour for colour in RUNS if colour != NEUTRAL] * (1 + len(runs)))
    return [next(bright) if run.config.selector == "score" else NEUTRAL for run in runs]


def _diagonal() -> go.Scatter:
    return go.Scatter(
        x=[0, 100],
        y=[0, 100],
        mode="lines",
        line={"dash": "dot", "width": 1.5, "color": NEUTRAL},
        name="no selectivity",
        hoverinfo="skip",
    )


def _curve(run: Run, colour: str) -> go.Scatter:
    forget, retain = ([100 * drop for drop in run.drops(side)] for side in ("forget", "retain"))
    details = [
        (
            line["step"],
            100 * line["pruned"],
            line["metrics"]["forget"]["top1"],
            line["metrics"]["retain"]["top1"],
        )
        for line in run.history
    ]
    return go.Scatter(
        x=retain,
        y=forget,
        customdata=details,
        mode="lines+markers",
        line={"color": colour, "width": 2.5},
        marker={"size": 8},
        name=run.label,
        hovertemplate=(
            "step %{customdata[0]}: %{customdata[1]:.1f}% pruned<br>"
            "forget drop %{y:.1f}%, top-1 %{customdata[2]:.3f}<br>"
            "retain drop %{x:.1f}%, top-1 %{customdata[3]:.3f}"
        ),
    )


def best_marker(run: Run) -> go.Scatter:
    """A ring around the step of the paper's Table 2 figure, with that figure beside it."""
    summary = run.summary()
    return go.Scatter(
        x=[100 * summary.retain_drop],
        y=[100 * summary.forget_drop],
        mode="markers+text",
        marker={"size": 16, "color": "rgba(0,0,0,0)", "line": {"width": 2, "color": "#222"}},
        text=[f"  {100 * summary.difference:.0f} points at step {summary.step}"],
        textposition="bottom right",
        name="largest difference",
        showlegend=False,
        hoverinfo="skip",
    )
