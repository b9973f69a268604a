"""Importance: how much each unit matters to forget and to retain, with the line that a pruned fraction lies above."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from plotly import graph_objects as go

from dissect.base.checks import check_kind
from dissect.scoring.importance import meaning_of
from dissect.scoring.scores import SiteScores
from dissect.style.theme import FORGET, Theme, get_theme, legend_below, styled
from dissect.views.log_axis import log10_clipped, log_axis
from dissect.views.notebook import NotebookFigure

# At most, in a group of units. WebGL could draw more, but a page has 16 of its contexts, and a figure takes two.
DOTS = 4_000
CELLS = 160


@dataclass(frozen=True, eq=False)
class _Units:
    """Coordinates of the units and which of them are chosen, one entry for each unit.

    Attributes:
        retain: Importance to retain, zeros raised to the lower edge of the axis.
        forget: Likewise to forget.
        chosen: True for the units with the highest scores.
        place: Layer, and the index of the unit in it; shape `unit 2`.
        score: Its score.
    """

    retain: np.ndarray
    forget: np.ndarray
    chosen: np.ndarray
    place: np.ndarray
    score: np.ndarray


def importance(scores: SiteScores, *, fraction: float | None = 0.02, theme: str = "light") -> go.Figure:
    """Importance to forget (y) and to retain (x), one dot for each unit, on logarithmic axes.

    Of more than 4,000 units, those that lie closest together are drawn as a density, the others as dots.

    Args:
        scores: The scores of one site.
        fraction: Marks this fraction of the units, those with the highest scores; None marks none. Where the score is
            the ratio, a line shows the lowest of theirs (approximate for `head`, whose score is an average).
        theme: `light` or `dark`.

    Raises:
        DissectError: The fraction is outside (0, 1], or `theme` is unknown.
    """
    look = get_theme(theme)
    check_kind("scores", scores, SiteScores, "the scores of one site: scores['mlp']")
    units = _units(scores, fraction)
    kept = ~units.chosen
    name = "units" if fraction is None else "kept units"
    figure = NotebookFigure(_cloud(units, kept, name, look))
    note = f"{units.chosen.size:,} units"
    if fraction is not None:
        threshold = float(units.score[units.chosen].min())
        figure.add_traces(_cloud(units, units.chosen, "highest scores", look, FORGET))
        if scores.combine == "ratio":
            figure.add_trace(_cut(units, threshold, scores.eps, look.text))
        note += f" · the {units.chosen.sum():,} highest scores ({100 * fraction:.3g}%) are at least {threshold:.3g}"
    figure.update_xaxes(title=importance_title("retain", scores.importance), **importance_axis(units.retain))
    figure.update_yaxes(title=importance_title("forget", scores.importance), **importance_axis(units.forget))
    styled(figure, title=f"Importance of {scores.site} units to forget and retain", note=note, theme=theme, height=560)
    legend_below(figure, bottom=92, pixels=52)
    figure.update_layout(legend={"itemsizing": "constant"})
    return figure


def _units(scores: SiteScores, fraction: float | None) -> _Units:
    retain, forget = (lifted(side.numpy().flatten()) for side in (scores.retain, scores.forget))
    chosen = np.zeros(retain.size, bool)
    if fraction is not None:
        chosen = scores.top(fraction)[scores.site].numpy().flatten()
    each = scores.values[0].numel()
    place = np.stack(np.divmod(np.arange(retain.size), each), 1).astype(np.int32)
    return _Units(retain, forget, chosen, place, scores.values.numpy().flatten())


def importance_title(side: str, importance: str) -> str:
    """The title of the axis of importance to a side."""
    return f"{side} importance: {meaning_of(importance)}"


def lifted(values: np.ndarray) -> np.ndarray:
    """Importances that a logarithmic axis can show: zeros, and a few values near zero, raised to the lower edge."""
    return 10 ** log10_clipped(values, 1e-4)


def importance_axis(values: np.ndarray) -> dict:
    """A logarithmic axis that covers the (lifted) values, with some room at its ends."""
    low, high = np.log10(values.min()), np.log10(values.max())
    room = 0.03 * max(high - low, 0.3)
    labels = log_axis(low - room, high + room)
    places = [10**place for place in labels["tickvals"]]
    return {"type": "log", "range": [low - room, high + room], **labels, "tickvals": places}


def _cloud(
    units: _Units, which: np.ndarray, name: str, look: Theme, colour: str | None = None
) -> list[go.Heatmap | go.Scatter]:
    """A group of units: all as dots, or a density where they lie close together and at most `DOTS` dots elsewhere."""
    if which.sum() <= DOTS:
        return [_dots(units, which, name, look, colour)]
    retain, forget = units.retain[which], units.forget[which]
    crowd = crowding(retain, forget)
    least = np.sort(crowd)[DOTS]
    heat = density(retain, forget, name, look, least=least, colour=colour)
    heat.update(showlegend=False, legendgroup=name)
    return [heat, _dots(units, np.flatnonzero(which)[crowd < least], name, look, colour)]


def _dots(units: _Units, which: np.ndarray, name: str, look: Theme, colour: str | None = None) -> go.Scatter:
    few = units.retain[which].size < 2_000
    return go.Scatter(
        x=units.retain[which].astype(np.float32),
        y=units.forget[which].astype(np.float32),
        customdata=np.column_stack([units.place[which], units.score[which]]).astype(np.float32),
        mode="markers",
        marker={
            "size": 6 if few else 3,
            "color": colour or look.faint,
            "opacity": 0.8 if few else 0.5,
        },
        name=name,
        legendgroup=name,
        hovertemplate=(
            "layer %{customdata[0]}, unit %{customdata[1]}: score %{customdata[2]:.3g}<br>"
            "forget %{y:.3g}, retain %{x:.3g}"
        ),
    )


def crowding(retain: np.ndarray, forget: np.ndarray) -> np.ndarray:
    """How many units lie in the same cell as each unit, itself included."""
    points = np.log10(retain), np.log10(forget)
    counts, *edges = np.histogram2d(*points, CELLS)
    column, row = (
        np.clip(np.searchsorted(edge, along, side="right") - 1, 0, CELLS - 1)
        for edge, along in zip(edges, points, strict=True)
    )
    return counts[column, row]


def density(
    retain: np.ndarray, forget: np.ndarray, name: str, look: Theme, *, least: float = 1, colour: str | None = None
) -> go.Heatmap:
    """Counts in cells of equal size on the logarithmic axes, coloured by the logarithm of the count.

    Cells of fewer units than `least` are left empty. `colour` replaces the greys of kept units.
    """
    counts, x, y = np.histogram2d(np.log10(retain), np.log10(forget), CELLS)
    shade = np.full(counts.shape, np.nan)
    shade[counts >= least] = np.log10(counts[counts >= least])
    return go.Heatmap(
        x=10 ** ((x[:-1] + x[1:]) / 2),
        y=10 ** ((y[:-1] + y[1:]) / 2),
        z=shade.T.astype(np.float32),
        customdata=counts.T.astype(np.int32),
        colorscale=[[0, look.paper], [0.6, colour or look.faint], [1, colour or look.text]],
        zmin=-0.5,
        showscale=False,
        showlegend=True,
        name=name,
        hoverongaps=False,
        hovertemplate="%{customdata:,} units near forget %{y:.3g}, retain %{x:.3g}<extra></extra>",
    )


def _cut(units: _Units, threshold: float, eps: float, colour: str) -> go.Scatter:
    """The line forget = threshold (retain + eps): on it the score is the threshold."""
    x = np.geomspace(units.retain.min(), units.retain.max(), 100)
    return go.Scatter(
        x=x,
        y=threshold * (x + eps),
        mode="lines",
        line={"color": colour, "width": 1.5, "dash": "dash"},
        name=f"score = {threshold:.3g}",
        hoverinfo="skip",
    )
