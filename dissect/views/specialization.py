"""Specialization: the scores of all units, layer by layer, and how they are distributed."""

from __future__ import annotations

import numpy as np
from plotly import graph_objects as go

from dissect.base.checks import check_kind
from dissect.scoring.masks import Mask
from dissect.scoring.scores import Scores, SiteScores, check_same_shape, sites_of
from dissect.style.theme import DIVERGING, RUNS, get_theme, legend_below, styled
from dissect.style.ticks import layer_ticks
from dissect.views.notebook import NotebookFigure
from dissect.views.score_axis import heights, score_at, score_axis, spans

COLUMNS = 480  # cells in a row; more would be narrower than a pixel
BINS = 60
BELOW = 112  # pixels for the colour bar and the legend


def specialization(
    scores: Scores | SiteScores, mask: Mask | None = None, *, sort: bool = True, theme: str = "light"
) -> go.Figure:
    """The score of every unit, a row for each layer, and beside it the distribution of scores; sites below each other.

    In a layer of more than 480 units, a cell is the mean of neighbouring units (of log10, for ratios). Differences have
    an axis and colours of both signs, about linear around zero. A row is empty where the layer lacks the site.

    Args:
        scores: Scores of one site or several.
        mask: Units that the distribution shows as pruned.
        sort: Order the units of a layer by score; otherwise by index, which keeps the units of a head together.
        theme: `light` or `dark`.

    Raises:
        DissectError: The mask is of another model or site, `sort` is neither True nor False, or `theme` is unknown.
    """
    sites = sites_of(scores)
    check_kind("sort", sort, bool, "True or False")
    if mask is not None:
        check_kind("mask", mask, Mask, "a Mask")
        for site in sites:
            check_same_shape(mask, site)
    figure = NotebookFigure().set_subplots(
        rows=len(sites), cols=2, column_widths=[0.66, 0.34], horizontal_spacing=0.15, vertical_spacing=0.3 / len(sites)
    )
    limit = max(float(np.abs(np.nanquantile(heights(site), [0.002, 0.998])).max()) for site in sites) or 1.0
    for row, site in enumerate(sites, 1):
        _add_map(figure, site, row, sort)
        _add_distribution(figure, site, mask, row, get_theme(theme).units)
    area = 330 * len(sites)
    height = 80 + BELOW + area
    names = " and ".join(site.site for site in sites)
    note = "orange: matters more to forget · blue: matters more to retain"
    styled(figure, title=f"Specialization of {names} units by layer", note=note, theme=theme, height=height)
    figure.update_layout(barmode="overlay", bargap=0, coloraxis=_colours(sites[0], limit, area))
    legend_below(figure, bottom=BELOW, pixels=56)
    figure.update_layout(legend={"x": 1, "xanchor": "right"})
    return figure


def _colours(scores: SiteScores, limit: float, area: int) -> dict:
    """The colour scale of scores, grey where a unit matters as much to both: at ratio 1, or difference 0."""
    place = {"len": 0.55, "x": 0, "xanchor": "left", "y": -44 / area, "yanchor": "top", "ypad": 0}
    bar = {"orientation": "h", "thickness": 10, **place}
    title = {"text": "score", "side": "right", "font": {"size": 13}}
    scale = [list(stop) for stop in DIVERGING]
    return {
        "cmin": -limit,
        "cmax": limit,
        "colorscale": scale,
        "colorbar": bar | {"title": title, **score_axis(scores, -limit, limit)},
    }


def _add_map(figure: go.Figure, scores: SiteScores, row: int, sort: bool) -> None:
    cells, first = _thinned(*_ordered(heights(scores), sort))
    across = f"{scores.site} units of a layer, " + ("highest score first (%)" if sort else "by index (%)")
    heat = go.Heatmap(
        x=(np.arange(cells.shape[1]) + 0.5) * (100 / cells.shape[1]),
        z=cells.astype(np.float32),
        customdata=first,
        text=[[score_at(scores, height) for height in line] for line in cells],
        coloraxis="coloraxis",
        hoverongaps=False,
        name=scores.site,
        hovertemplate="layer %{y}, unit %{customdata}: score %{text}<extra></extra>",
    )
    figure.add_trace(heat, row=row, col=1)
    figure.update_xaxes(title=across, showgrid=False, row=row, col=1)
    figure.update_yaxes(title="layer", tickvals=layer_ticks(len(cells)), showgrid=False, row=row, col=1)


def _ordered(heights: np.ndarray, sort: bool) -> tuple[np.ndarray, np.ndarray]:
    """The heights of the scores and the index of each unit, both `layer unit`, in the order in which they are drawn."""
    order = (
        np.argsort(-heights, axis=1, kind="stable") if sort else np.tile(np.arange(heights.shape[1]), (len(heights), 1))
    )
    return np.take_along_axis(heights, order, axis=1), order


def _thinned(heights: np.ndarray, units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most `COLUMNS` cells for each layer: means over neighbours, and the index of the first unit of each cell."""
    starts = np.unique(np.linspace(0, heights.shape[1], min(COLUMNS, heights.shape[1]), endpoint=False).astype(int))
    sizes = np.diff([*starts, heights.shape[1]])
    return np.add.reduceat(heights, starts, axis=1) / sizes, units[:, starts]


def _add_distribution(figure: go.Figure, scores: SiteScores, mask: Mask | None, row: int, grey: str) -> None:
    """Histograms over all layers; counts are on a logarithmic axis, so that a few extreme units can be seen."""
    found = heights(scores)
    every = found[~np.isnan(found)]
    edges = np.histogram_bin_edges(every, BINS)
    groups = [("all units", grey, every)]
    if mask is not None and scores.site in mask.sites:
        groups.append(("pruned units", RUNS[0], found[mask[scores.site].flatten(1).numpy()]))
    for name, colour, values in groups:
        figure.add_trace(
            _histogram(values, edges, spans(scores, edges), name, colour, show=row == 1 and len(groups) > 1),
            row=row,
            col=2,
        )
    figure.update_xaxes(title="score", **score_axis(scores, edges[0], edges[-1]), row=row, col=2)
    figure.update_yaxes(title="units", type="log", dtick=1, row=row, col=2)


def _histogram(
    values: np.ndarray, edges: np.ndarray, ranges: list[str], name: str, colour: str, *, show: bool
) -> go.Bar:
    return go.Bar(
        x=(edges[:-1] + edges[1:]) / 2,
        y=np.histogram(values, edges)[0],
        text=ranges,
        textposition="none",
        width=np.diff(edges),
        marker={"color": colour, "line": {"width": 0}},
        name=name,
        showlegend=show,
        hovertemplate="score %{text}: %{y:,} " + name + "<extra></extra>",
    )
