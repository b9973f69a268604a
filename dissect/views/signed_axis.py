"""Axes of numbers of either sign that differ by powers of ten: linear around zero, logarithmic away from it.

A number x lies at asinh(x / linear). Plotly draws such an axis as linear, so that binned shapes can be drawn on it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dissect.style.ticks import ticks

FEWEST = 3  # numbers on an axis, where there is room


def linear_part(values: np.ndarray) -> float:
    """The size up to which the axis is about linear: the median size of the numbers that are not 0; 1 without any."""
    sizes = np.abs(values[np.isfinite(values) & (values != 0)])
    return float(np.median(sizes)) if sizes.size else 1.0


def signed_heights(values: np.ndarray, linear: float) -> np.ndarray:
    """Where numbers lie on the axis."""
    return np.arcsinh(values / linear)


def signed_axis(low: float, high: float, linear: float, *, most: int = 6) -> dict[str, Any]:
    """Tick settings for an axis of heights from `low` to `high`, labelled with the numbers.

    They are 0 and at most `most` powers of ten of each sign; where too few numbers fit, some at equal distances.
    """
    least, largest = linear * math.sinh(low), linear * math.sinh(high)
    shown = _powers(least, largest, linear, most) if low < high else [least]
    fewest = min(FEWEST, most)
    if low < high and len(shown) < fewest:
        finer = (ticks(least, largest, most=parts) for parts in (4, 6, 10))
        shown = next((numbers for numbers in finer if len(numbers) >= fewest), ticks(least, largest))
    return {"tickvals": [math.asinh(number / linear) for number in shown], "ticktext": [f"{n:.3g}" for n in shown]}


def _powers(low: float, high: float, linear: float, most: int) -> list[float]:
    """0 and powers of ten of each sign, from `low` to `high`: the largest, since small ones stand close to 0."""
    first, last = (math.floor(math.log10(size)) for size in (linear, max(abs(low), abs(high))))
    step = 1 + max(0, last - first) // (most + 1)
    sizes = [10.0**power for power in range(last, first, -step)]
    return [number for number in (*(-size for size in sizes), 0.0, *sizes[::-1]) if low <= number <= high]
