"""Axes of log10 values: Plotly draws them as linear, so that binned shapes and heat maps can be drawn on them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dissect.style.ticks import log_ticks


def log10_clipped(values: np.ndarray, lowest: float = 0.0005) -> np.ndarray:
    """log10 of values, clipped from the quantile `lowest` of the positive ones to the largest finite one.

    Without the clip a few values near zero would squeeze all others together. All zeros where no value is positive. NaN
    stays NaN.
    """
    usable = values[(values > 0) & np.isfinite(values)]
    if not usable.size:
        return np.where(np.isnan(values), np.nan, 0.0)
    return np.log10(np.clip(values, np.quantile(usable, lowest, method="lower"), usable.max()))


def log_axis(low: float, high: float) -> dict[str, Any]:
    """Tick settings for an axis of log10 values from `low` to `high`, labelled with the values themselves."""
    shown = log_ticks(10**low, 10**high)
    return {"tickvals": [math.log10(value) for value in shown], "ticktext": [f"{value:.3g}" for value in shown]}
