"""The paper's Figure 3: the best accuracy-drop difference of each run, grouped by model and site."""

from __future__ import annotations

from collections.abc import Sequence

from plotly import graph_objects as go

from dissect.runs import Run, Summary
from dissect.views.overlay import data_of, lines_of
from dissect.views.theme import RETAIN, legend_below, plain, styled


def compare(runs: Sequence[Run], *, theme: str = "light") -> go.Figure:
    """The largest forget drop minus retain drop of any step, a bar a run; the retain drop at that step below it.

    Runs of a model stand together, in them those of a site and of an importance, random baselines last.

    Raises:
        DissectError: There is no run, or one has no step yet.
    """
    lines = sorted(lines_of(runs), key=lambda line: _place(line.run))
    runs = [line.run for line in lines]
    names = [[plain(run.config.model) for run in runs], [line.name for line in lines]]
    summaries = [run.summary() for run in runs]
    colours = [line.style["color"] for line in lines]
    difference, retain = ([100 * getattr(s, name) for s in summaries] for name in ("difference", "retain_drop"))
    figure = go.Figure(
        [
            _bars(names, summaries, difference, "largest difference", colours),
            _bars(names, summaries, retain, "retain drop at that step", [RETAIN] * len(runs)),
        ]
    )
    most, least = max(0, *difference, *retain), min(0, *difference, *retain)
    room = 0.1 * max(most - least, 1)
    low = least - room if least < 0 else 0  # room for the numbers at the bars' ends
    figure.update_xaxes(title="percentage points of relative top-1 accuracy drop", range=[low, most + room])
    figure.update_yaxes(autorange="reversed")
    styled(
        figure,
        title="How selective each run is at its best step",
        note=f"{data_of(runs)} · difference: forget drop − retain drop",
        theme=theme,
        height=190 + 46 * len(runs),
    )
    figure.update_layout(barmode="group", bargap=0.25, bargroupgap=0.05)
    legend_below(figure, bottom=88, pixels=52)
    return figure


def _bars(
    names: list[list[str]], summaries: list[Summary], values: list[float], name: str, colours: list[str]
) -> go.Bar:
    return go.Bar(
        x=values,
        y=names,
        orientation="h",
        marker={"color": colours},
        text=[f"{value:.1f}" for value in values],
        textposition="outside",
        cliponaxis=False,
        customdata=[(s.step, 100 * s.forget_drop, 100 * s.retain_drop, 100 * s.difference) for s in summaries],
        name=name,
        hovertemplate=(
            "step %{customdata[0]}: difference %{customdata[3]:.1f} points<br>"
            "forget drop %{customdata[1]:.1f}%, retain drop %{customdata[2]:.1f}%<extra></extra>"
        ),
    )


def _place(run: Run) -> tuple[str, str, bool, str]:
    return run.config.model, run.config.site, "random" in run.config.selector, run.label
