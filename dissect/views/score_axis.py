"""Axes of scores: logarithmic where scores are factors, as the ratio is; of both signs where they are differences."""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np

from dissect.scoring.scores import SiteScores
from dissect.views.log_axis import log10_clipped, log_axis
from dissect.views.signed_axis import linear_part, signed_axis, signed_heights

CLIPPED = 0.0005  # a few extreme values would squeeze all others together
DIFFERENCES = ("difference", "distance")  # combiners whose scores differ by powers of ten, as importances do


def heights(scores: SiteScores) -> np.ndarray:
    """Where the scores are on their axis, `layer unit`: log10 of them, or as `signed_axis` has it, or themselves.

    On a logarithmic axis a unit that is never active on the forget set lies at the lower edge. On an axis of the scores
    themselves a few extremes are left out. NaN in layers that lack the site.
    """
    values = scores.values.flatten(1).numpy()
    if scores.logarithmic:
        return log10_clipped(values)
    if scores.combine in DIFFERENCES:
        return signed_heights(values, _linear(scores))
    finite = values[np.isfinite(values)]
    if not finite.size:
        return np.where(np.isnan(values), np.nan, 0.0)
    return np.clip(values, *np.quantile(finite, [CLIPPED, 1 - CLIPPED], method="nearest"))


@lru_cache(maxsize=4)
def _linear(scores: SiteScores) -> float:
    return linear_part(scores.values.numpy())


def score_axis(scores: SiteScores, low: float, high: float) -> dict[str, Any]:
    """Tick settings for an axis of heights from `low` to `high`, labelled with the scores."""
    if scores.combine in DIFFERENCES:
        return signed_axis(low, high, _linear(scores), most=3)
    return log_axis(low, high) if scores.logarithmic else {}


def score_at(scores: SiteScores, height: float) -> str:
    """The score at a height, as text."""
    if scores.combine in DIFFERENCES:
        return f"{_linear(scores) * np.sinh(height):.3g}"
    return f"{10**height if scores.logarithmic else height:.3g}"


def spans(scores: SiteScores, edges: np.ndarray) -> list[str]:
    """The range of each bin between edges in heights, as `0.5 to 0.8`."""
    return [f"{score_at(scores, low)} to {score_at(scores, high)}" for low, high in pairwise(edges)]
