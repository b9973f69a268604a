"""The small plots in cards, as coordinates of an SVG drawing."""

from __future__ import annotations

import math
from collections.abc import Sequence

from dissect.cards.histograms import Histogram
from dissect.style.ticks import ticks

WIDTH, HEIGHT = 360, 150
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 8, 22


class DensityPlot:
    """Two distributions in one plot: activation on x, fraction of tokens (logarithmic) on y."""

    width, height, left, right, top, bottom = WIDTH, HEIGHT, LEFT, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM

    def __init__(self, forget: Histogram, retain: Histogram):
        width = max(forget.width, retain.width)
        self.histograms = [histogram.coarser(width) for histogram in (forget, retain)]
        self.low = min(histogram.edges[0] for histogram in self.histograms)
        self.high = max(histogram.edges[-1] for histogram in self.histograms)
        most = max(int(histogram.counts.sum()) for histogram in self.histograms)
        self.decades = max(1.0, math.log10(2 * max(most, 1)))

    def x(self, activation: float) -> float:
        """Pixels from the left."""
        return round(self.left + (activation - self.low) / (self.high - self.low) * (self.right - self.left), 1)

    def y(self, fraction: float) -> float:
        """Pixels from the top, for a fraction of all tokens in (0, 1]."""
        return round(self.top - math.log10(fraction) / self.decades * (self.bottom - self.top), 1)

    @property
    def paths(self) -> list[str]:
        """The outline of each distribution, forget then retain, as an SVG path closed along the axis."""
        return [self._path(histogram) for histogram in self.histograms]

    def _path(self, histogram: Histogram) -> str:
        fractions = histogram.counts / max(1, histogram.counts.sum())
        heights = [self.y(fraction) if fraction > 0 else self.bottom for fraction in fractions]
        steps = [
            f"L{self.x(left)} {y}L{self.x(right)} {y}"
            for left, right, y in zip(histogram.edges[:-1], histogram.edges[1:], heights, strict=True)
        ]
        return f"M{self.x(histogram.edges[0])} {self.bottom}{''.join(steps)}V{self.bottom}Z"

    @property
    def x_ticks(self) -> list[tuple[float, str]]:
        """The pixel and the label of each tick."""
        return [(self.x(value), f"{value:g}".replace("-", "−")) for value in ticks(self.low, self.high)]

    @property
    def y_ticks(self) -> list[tuple[float, str]]:
        """The pixel and the label of each tick, in percent."""
        exponents = range(0, -int(self.decades) - 1, -1 if self.decades < 4.5 else -2)
        return [(self.y(10.0**exponent), f"{100 * 10.0**exponent:g}%") for exponent in exponents]


class BarPlot:
    """Two bars for each distance back, forget and retain; their height is the mean attention."""

    width, height, left, right, top, bottom = WIDTH, HEIGHT, LEFT, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM

    def __init__(self, forget: Sequence[float], retain: Sequence[float]):
        self.sides = (forget, retain)
        self.most = nice_ceiling(max(*forget, *retain, 1e-3))

    @property
    def bars(self) -> list[list[tuple[float, float, float, float]]]:
        """x, y, width and height in pixels of each bar, forget then retain."""
        room = (self.right - self.left) / len(self.sides[0])
        return [
            [
                self._bar(self.left + room * (place + 0.1 + 0.4 * which), 0.4 * room, mean)
                for place, mean in enumerate(side)
            ]
            for which, side in enumerate(self.sides)
        ]

    def _bar(self, x: float, width: float, mean: float) -> tuple[float, float, float, float]:
        height = mean / self.most * (self.bottom - self.top)
        return round(x, 1), round(self.bottom - height, 1), round(width, 1), round(height, 1)

    @property
    def x_ticks(self) -> list[tuple[float, str]]:
        """The pixel and the label of each tick, in tokens back."""
        room = (self.right - self.left) / len(self.sides[0])
        return [(round(self.left + room * (place + 0.5), 1), str(place)) for place in range(0, len(self.sides[0]), 3)]

    @property
    def y_ticks(self) -> list[tuple[float, str]]:
        """The pixel and the label of each tick, in percent."""
        return [
            (round(self.bottom - part * (self.bottom - self.top), 1), f"{100 * part * self.most:g}%")
            for part in (0.0, 0.5, 1.0)
        ]


def nice_ceiling(value: float) -> float:
    """The smallest of 1, 2, 4, 10, ... times a power of ten that is at least `value`; its half is round too."""
    unit = 10.0 ** math.floor(math.log10(value))
    return next(unit * step for step in (1, 2, 4, 10) if unit * step >= value * (1 - 1e-9))
