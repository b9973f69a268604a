"""Logarithms on an axis that is linear to Plotly, so that binned shapes and heat maps can lie on it."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from dissect.scoring.scores import SiteScores


def log_scores(scores: SiteScores) -> np.ndarray:
    """log10 of the scores, `layer unit`; a unit that the forget set never moves lies at the lower edge."""
    return log10_clipped(scores.values.flatten(1).numpy())


def log10_clipped(values: np.ndarray, lowest: float = 0.0005) -> np.ndarray:
    """log10, with zeros, and what is below the quantile `lowest`, put at the lower edge, and infinities at the upper.

    A few vanishing values would squeeze all others together. All zeros where nothing is positive.
    """
    usable = values[(values > 0) & np.isfinite(values)]
    if not usable.size:
        return np.zeros(values.shape)
    return np.log10(np.clip(values, np.quantile(usable, lowest, method="lower"), usable.max()))


def ticks(low: float, high: float) -> dict[str, Any]:
    """Tick settings for an axis of log10 values from `low` to `high`, labelled with the values themselves."""
    steps = np.arange(np.floor(low), np.ceil(high) + 1)
    if high - low < 1.5:
        steps = np.sort(np.concatenate([steps, steps + np.log10(2), steps + np.log10(5)]))
    shown = [step for step in steps if low - 0.05 <= step <= high + 0.05]
    shown = shown[:: 1 + len(shown) // 8]
    return {"tickvals": shown, "ticktext": [f"{10**step:.3g}" for step in shown]}


def spans(edges: np.ndarray) -> list[str]:
    """What each bin between edges in log10 holds, as `0.5 to 0.8`."""
    return [f"{10**low:.3g} to {10**high:.3g}" for low, high in pairwise(edges)]
