"""How far masks agree: the Jaccard index of each pair."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from plotly import graph_objects as go

from dissect.base.checks import check_kind
from dissect.base.errors import DissectError
from dissect.scoring.masks import Mask, jaccard
from dissect.style.theme import SEQUENTIAL, plain, styled
from dissect.views.notebook import NotebookFigure


def overlap(masks: Mapping[str, Mask], *, theme: str = "light") -> go.Figure:
    """The Jaccard index of each pair of named masks (units in both / units in either), and the number of units in both.

    It is 0 for masks of different sites, and 1 for two empty masks.

    Raises:
        DissectError: There is no mask, or two are of different models.
    """
    check_kind("masks", masks, Mapping, "masks by name: {'abs': scores['mlp'].top(0.02), ...}")
    for name, mask in masks.items():
        check_kind(f"mask {name!r}", mask, Mask, "a Mask")
    if not masks:
        raise DissectError("overlap needs at least one mask: {'abs': scores['mlp'].top(0.02), ...}")
    index = _of_pairs(jaccard, masks)
    both = _of_pairs(lambda a, b: len(a & b), masks)
    either = _of_pairs(lambda a, b: len(a | b), masks)
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
    note = "Jaccard index (units in both / units in either), and the number of units in both"
    height = 180 + 66 * len(masks)
    return styled(figure, title="How far the masks agree", note=note, theme=theme, height=height)


def _of_pairs(number: Callable[[Mask, Mask], float], masks: Mapping[str, Mask]) -> np.ndarray:
    """A number for each pair of masks, `mask mask`."""
    return np.array([[number(a, b) for b in masks.values()] for a in masks.values()])
