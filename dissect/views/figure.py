"""A run at one look: its pruning curve beside the specialization of its layers."""

from __future__ import annotations

from plotly import graph_objects as go
from plotly.subplots import make_subplots

from dissect.runs import Run
from dissect.views.curve import best_marker, curve_traces
from dissect.views.specialization import pruned_bars, specialization_traces
from dissect.views.theme import styled


def run_figure(run: Run, *others: Run) -> go.Figure:
    """The paper's Figure 1 for `run` and `others`, beside the base scores of `run` layer by layer.

    The right panel marks the units that are pruned at the step of the largest difference; a run without
    statistics (random) shows its pruned units per layer instead.
    """
    site, step = next(iter(run.pruned_at)), run.summary().step or None
    figure = make_subplots(
        cols=2, column_widths=[0.42, 0.58], horizontal_spacing=0.09, subplot_titles=_titles(run, site)
    )
    for trace in [*curve_traces([run, *others]), best_marker(run)]:
        figure.add_trace(trace, row=1, col=1)
    figure.update_xaxes(title="retain: drop of top-1 accuracy (%)", row=1, col=1)
    figure.update_yaxes(title="forget: drop of top-1 accuracy (%)", row=1, col=1)
    mask = run.mask(step)
    panel = specialization_traces(run.scores()[site], mask) if run.has_stats else [pruned_bars(mask)]
    for trace in panel:
        figure.add_trace(trace, row=1, col=2)
    figure.update_xaxes(title="layer", dtick=5, showgrid=False, row=1, col=2)
    figure.update_yaxes(title="log₂ score" if run.has_stats else "units pruned", row=1, col=2)
    title = f"{run.config.model}: {run.config.forget} forgotten, {run.config.retain} retained"
    return styled(figure, title=title)


def _titles(run: Run, site: str) -> tuple[str, str]:
    at = run.summary().step or len(run.history) - 1
    right = f"{site} units by layer, pruned at step {at}" if run.has_stats else f"{site} units pruned at step {at}"
    return "What is lost, step by step", right
