"""The pruning curve: the paper's Figure 1, retain drop on x and forget drop on y, one point for each step."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from plotly import graph_objects as go

from dissect.runs.run import Run, as_runs
from dissect.style.theme import DASHES, NEUTRAL, legend_below, plain, styled
from dissect.views.bands import Box, band
from dissect.views.lines import Line, data_of, lines_of, model_of
from dissect.views.notebook import NotebookFigure

RETAIN_AXIS = "retain: drop of top-1 accuracy (%)"
FORGET_AXIS = "forget: drop of top-1 accuracy (%)"


def curves(runs: Iterable[Run], *, theme: str = "light") -> go.Figure:
    """The drop on the forget set against the drop on the retain set, one line for each run, one point for each step.

    Drops are relative: 1 - accuracy / accuracy of the base model, in percent. A diamond marks the step of the
    largest forget drop minus retain drop. Each further corpus of a run is a thin line of its own: its drop against that
    on the retain set. The band around a line shows the 95% intervals of its steps on both axes,
    where there are any (`Run.intervals`). Random runs that differ only in their seed are one line, their mean, and a
    band from the smallest to the largest. A run that forgets what the first run retains is drawn on the axes of the
    first and is called `reversed`.

    Raises:
        DissectError: There is no run, or one has no step yet.
    """
    runs = as_runs(runs)
    lines = lines_of(runs)
    figure = NotebookFigure(curve_traces(lines))
    figure.update_xaxes(title=RETAIN_AXIS)
    figure.update_yaxes(title=FORGET_AXIS)
    drawn = sum(1 + len(line.run.further) for line in lines)
    note = f"{model_of(runs)} · {data_of(runs)} · ◆ largest difference{curves_note(lines)}"
    styled(figure, title="Drop of accuracy on forget and retain", note=note, theme=theme, height=500)
    legend_below(figure, bottom=96 + 18 * ((drawn + 2) // 3))
    return figure


def curve_traces(lines: Sequence[Line]) -> list[go.Scatter]:
    """The diagonal, the bands, one line for each run and thin ones for its further corpora, in percent."""
    bands = [trace for line in lines for trace in band(line, drop_boxes(line))]
    thin = [_thin(line, name, place) for line in lines for place, name in enumerate(line.run.further)]
    return [_diagonal(lines), *bands, *thin, *(_curve(line) for line in lines)]


def drop_boxes(line: Line) -> list[Box]:
    """The range of both drops at every step, retain on x and forget on y, in percent."""
    across, up = ([(100 * low, 100 * high) for low, high in line.spans(side, "drop")] for side in ("retain", "forget"))
    return list(zip(across, up, strict=True))


def bands_note(lines: Sequence[Line]) -> str:
    """What bands show, for the end of a figure's note; empty where there are none."""
    kinds = dict.fromkeys(line.band_is for line in lines if line.has_band)
    return f" · bands: {', '.join(kinds)}" if kinds else ""


def curves_note(lines: Sequence[Line]) -> str:
    """What bands and thin lines show, likewise."""
    return bands_note(lines) + " · thin lines: further corpora" * any(line.run.further for line in lines)


def _diagonal(lines: Sequence[Line]) -> go.Scatter:
    """The line on which both sides lose the same, as long as the runs need."""
    end = max(5.0, *(min(max(line.drops("forget")), max(line.drops("retain"))) for line in lines))
    return go.Scatter(
        x=[0, end],
        y=[0, end],
        mode="lines",
        line={"dash": "dot", "width": 1.5, "color": NEUTRAL},
        name="no selectivity",
        hoverinfo="skip",
    )


def _thin(line: Line, name: str, place: int) -> go.Scatter:
    """The line of a further corpus, the run's colour but lighter; `place` is its number in the run."""
    return go.Scatter(
        x=line.drops("retain"),
        y=line.drops(name),
        customdata=line.details(),
        mode="lines+markers",
        line=line.style | {"width": 1.25, "dash": DASHES[(1 + place) % len(DASHES)]},
        marker={"size": 4},
        opacity=0.6,
        name=f"{line.name}: {plain(name)}",
        legendrank=1_001,  # after the runs
        hovertemplate=(
            f"step %{{customdata[0]}}: {plain(name)} drop %{{y:.1f}}%, retain drop %{{x:.1f}}%<extra></extra>"
        ),
    )


def _curve(line: Line) -> go.Scatter:
    retain, forget = line.drops("retain"), line.drops("forget")
    steps = range(line.last + 1)
    own, other = (forget, retain) if not line.swapped else (retain, forget)
    best = max(steps, key=lambda step: own[step] - other[step])
    return go.Scatter(
        x=retain,
        y=forget,
        customdata=line.details(),
        mode="lines+markers",
        line=line.style,
        marker={
            "size": [12 if step == best else 6 for step in steps],
            "symbol": ["diamond" if step == best else "circle" for step in steps],
            "opacity": 1,
        },
        name=line.name,
        legendgroup=line.name,
        hovertemplate=(
            "step %{customdata[0]}: %{customdata[2]:,} units pruned (%{customdata[1]:.1f}%)<br>"
            "forget top-1 %{customdata[3]:.3f}, drop %{y:.1f}%, perplexity %{customdata[5]:,.4~g}<br>"
            "retain top-1 %{customdata[4]:.3f}, drop %{x:.1f}%, perplexity %{customdata[6]:,.4~g}"
        ),
    )
