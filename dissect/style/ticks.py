"""Round numbers for the ticks of an axis: 1, 2 or 5 times a power of ten."""

from __future__ import annotations

import math

import numpy as np


def round_step(span: float, most: int) -> float:
    """The smallest of 1, 2, 5, 10, ... times a power of ten that divides `span` into at most `most` parts."""
    rough = span / most * (1 - 1e-9)
    unit = 10.0 ** math.floor(math.log10(rough))
    return next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough)


def ticks(low: float, high: float, *, most: int = 4) -> list[float]:
    """Round numbers from `low` to `high` (low < high), at equal distances, at most `most` + 1 of them."""
    step = round_step(high - low, most)
    numbers = np.arange(math.ceil(low / step), math.floor(high / step) + 1)
    return [float(f"{number * step:.10g}") for number in numbers]


def layer_ticks(n_layers: int) -> list[int]:
    """The layers to label, at most eight, from 0."""
    return list(range(0, n_layers, max(1, round(round_step(n_layers, 8)))))


def log_ticks(low: float, high: float) -> list[float]:
    """Ticks of a logarithmic axis from `low` to `high`, both above 0.

    They are powers of ten; in less than 1.5 decades also 2 and 5 times these; where fewer than two of these fit, round
    numbers at equal distances. A number up to a twentieth of a decade outside is kept: axes have room at their ends.
    """
    start, end = math.log10(low), math.log10(high)
    factors = (1, 2, 5) if end - start < 1.5 else (1,)
    numbers = (factor * 10.0**power for power in range(math.floor(start), math.ceil(end) + 1) for factor in factors)
    shown = [number for number in numbers if start - 0.05 <= math.log10(number) <= end + 0.05]
    return shown[:: 1 + len(shown) // 8] if len(shown) > 1 or high < 1.02 * low else ticks(low, high)
