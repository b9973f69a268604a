"""Where a run prunes: the fraction of each layer's units that is pruned, step by step."""

from __future__ import annotations

import numpy as np
from plotly import graph_objects as go

from dissect.runs.run import Run, as_runs
from dissect.style.theme import SEQUENTIAL, get_theme, plain, styled
from dissect.style.ticks import layer_ticks
from dissect.views.lines import data_of
from dissect.views.notebook import NotebookFigure


def pruned_by_layer(run: Run, *, theme: str = "light") -> go.Figure:
    """The percentage of each layer's units pruned up to each step, one row for each layer; one panel for each site.

    A row is empty where the layer lacks the site.

    Raises:
        DissectError: The run has no step yet.
    """
    get_theme(theme)
    as_runs([run])
    sites = list(run.pruned_at)
    figure = NotebookFigure().set_subplots(
        cols=len(sites), horizontal_spacing=0.08, subplot_titles=sites if len(sites) > 1 else None
    )
    for column, site in enumerate(sites, 1):
        figure.add_trace(_heat(run, site), row=1, col=column)
        figure.update_xaxes(title="step", showgrid=False, row=1, col=column)
        layers = layer_ticks(len(run.pruned_at[site]))
        figure.update_yaxes(title="layer" if column == 1 else None, tickvals=layers, showgrid=False, row=1, col=column)
    title = f"Pruned units by layer and step: {plain(run.label)}"
    styled(figure, title=title, note=data_of([run]), theme=theme, height=460)
    bar = {"title": {"text": "pruned (%)", "side": "right", "font": {"size": 13}}, "thickness": 12}
    figure.update_layout(coloraxis={"colorscale": SEQUENTIAL, "cmin": 0, "colorbar": bar})
    return figure


def _heat(run: Run, site: str) -> go.Heatmap:
    counts = _counts(run.pruned_at[site].flatten(1).numpy(), len(run.history))
    units, there = run.pruned_at[site][0].numel(), run.mask().there(site).flatten(1).any(1, keepdim=True).numpy()
    return go.Heatmap(
        z=np.where(there, 100 * counts / units, np.nan).astype(np.float32),
        customdata=counts,
        coloraxis="coloraxis",
        hoverongaps=False,
        name=site,
        hovertemplate=(
            f"step %{{x}}, layer %{{y}}<br>%{{customdata:,}} of {units:,} units pruned (%{{z:.1f}}%)<extra></extra>"
        ),
    )


def _counts(pruned_at: np.ndarray, steps: int) -> np.ndarray:
    """Units pruned up to each step, `layer step`, from the step that pruned each (`layer unit`, negative if kept)."""
    layer, unit = np.nonzero(pruned_at >= 0)
    counts = np.zeros((len(pruned_at), steps), np.int64)
    np.add.at(counts, (layer, pruned_at[layer, unit]), 1)
    return counts.cumsum(1)
