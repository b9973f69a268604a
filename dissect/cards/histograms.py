"""A histogram whose range need not be known beforehand, and that is the same however the values arrive."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

HALF = 64  # bins on each side of zero


@dataclass(frozen=True, eq=False)
class Histogram:
    """Counts in bins of equal width; zero is an edge.

    Attributes:
        low: The lower edge of the first bin.
        width: The width of a bin, a power of two.
        counts: One a bin.
    """

    low: float
    width: float
    counts: np.ndarray

    @property
    def edges(self) -> np.ndarray:
        """One more than bins."""
        return self.low + self.width * np.arange(len(self.counts) + 1)

    def coarser(self, width: float) -> Histogram:
        """The same counts in bins of a larger `width` (a power of two)."""
        factor = round(width / self.width)
        first = math.floor(self.low / width)
        skipped = round(self.low / self.width) - first * factor
        padded = np.pad(self.counts, (skipped, -(skipped + len(self.counts)) % factor))
        return Histogram(first * width, width, padded.reshape(-1, factor).sum(1))


@dataclass
class HistogramBuilder:
    """Counts values in 128 bins; where one lies outside, bins are merged in pairs until it does not.

    The width is the least power of two that holds all values, so the result does not depend on their order, and
    memory does not grow with their number.
    """

    exponent: int | None = None
    counts: np.ndarray = field(default_factory=lambda: np.zeros(2 * HALF, np.int64))

    def update(self, values: np.ndarray) -> None:
        """Add finite values of any shape."""
        largest = float(np.abs(values).max(initial=0.0))
        if largest > 0:
            self._widen(math.frexp(largest / HALF)[1])
        width = 2.0 ** (self.exponent if self.exponent is not None else 0)
        bins = np.floor(values.astype(np.float64).ravel() / width).astype(np.int64)
        self.counts += np.bincount(np.clip(bins + HALF, 0, 2 * HALF - 1), minlength=2 * HALF)

    def _widen(self, exponent: int) -> None:
        """Bins at least as wide as 2 ** exponent. Before the first value other than zero any width will do."""
        if self.exponent is None:
            self.exponent = exponent
        while self.exponent < exponent:
            pairs = self.counts.reshape(HALF, 2).sum(1)
            self.counts = np.pad(pairs, HALF // 2)
            self.exponent += 1

    def finish(self) -> Histogram:
        """The bins from the first to the last that hold a value; a single empty one where none does."""
        filled = np.flatnonzero(self.counts)
        first, last = (filled[0], filled[-1]) if filled.size else (HALF, HALF)
        width = 2.0 ** (self.exponent if self.exponent is not None else 0)
        return Histogram((first - HALF) * width, width, self.counts[first : last + 1].copy())
