"""How far choices of units agree: the Jaccard index of each pair of masks."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from plotly import graph_objects as go

from dissect.base.checks import check_kind
from dissect.base.errors import DissectError
from dissect.scoring.masks import Mask
from dissect.style.theme import SEQUENTIAL, plain, styled
from dissect.views.notebook import NotebookFigure


def overlap(masks: Mapping[str, Mask], *, theme: str = "light") -> go.Figure:
    """A matrix over named masks: units that both choose / units that either chooses, and the counts.

    Masks of different sites share no unit. Two empty masks agree fully.

    Raises:
        DissectError: There is no mask, or two are of different models.
    """
    check_kind("masks", masks, Mapping, "masks by name: {'abs': scores['mlp'].top(0.02), ...}")
    for name, mask in masks.items():
        check_kind(f"mask {name!r}", mask, Mask, "a Mask")
    if not masks:
        raise DissectError("overlap needs at least one mask: {'abs': scores['mlp'].top(0.02), ...}")
    both, either = _counts(list(masks.values()))
    index = np.where(either > 0, both / np.maximum(either, 1), 1.0)
    names = [f"{plain(name)} ({len(mask):,})" for name, mask in masks.items()]
    words = [[f"{i:.2f}<br>{n:,}" for i, n in zip(*row, strict=True)] for row in zip(index, both, strict=True)]
    heat = go.Heatmap(
        x=names,
        y=names,
        z=index,
        text=words,
        texttemplate="%{text}",
        customdata=np.stack([both, either], -1),
        colorscale=SEQUENTIAL,
        zmin=0,
        zmax=1,
        xgap=2,
        ygap=2,
        colorbar={"title": {"text": "Jaccard index", "side": "right", "font": {"size": 13}}, "thickness": 12},
        hovertemplate=(
            "%{y} and %{x}<br>%{customdata[0]:,} units in both, %{customdata[1]:,} in either: %{z:.3f}<extra></extra>"
        ),
    )
    figure = NotebookFigure(heat)
    figure.update_xaxes(showgrid=False)
    figure.update_yaxes(showgrid=False, autorange="reversed")
    note = "units in both / units in either, and the number in both"
    height = 180 + 66 * len(masks)
    return styled(figure, title="How far the choices agree", note=note, theme=theme, height=height)


def _counts(masks: list[Mask]) -> tuple[np.ndarray, np.ndarray]:
    """Units in both and units in either, of every pair."""
    both = np.array([[len(a & b) for b in masks] for a in masks])
    sizes = np.diagonal(both)
    return both, sizes[:, None] + sizes[None, :] - both
