"""Where importances lie on their axis: logarithmic, or of both signs where one of them is below zero."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dissect.views.log_axis import log10_clipped, log_axis
from dissect.views.signed_axis import linear_part, signed_axis, signed_heights


@dataclass(frozen=True)
class Scale:
    """The axis of an importance, the same for forget and retain.

    Three numbers stand for a unit: its importance; where Plotly draws it (the importance itself on a logarithmic axis,
    which is Plotly's own); and its height, in which equal distances are equally far apart on the axis.

    Attributes:
        linear: The size up to which an axis of both signs is about linear; None for a logarithmic axis.
    """

    linear: float | None = None

    def drawn(self, importances: np.ndarray) -> np.ndarray:
        """Where Plotly draws importances."""
        return importances if self.linear is None else signed_heights(importances, self.linear)

    def importances(self, drawn: np.ndarray) -> np.ndarray:
        """The importances that are drawn there."""
        return drawn if self.linear is None else self.linear * np.sinh(drawn)

    def heights(self, drawn: np.ndarray) -> np.ndarray:
        """The heights of what is drawn there."""
        return np.log10(drawn) if self.linear is None else drawn

    def at(self, heights: np.ndarray) -> np.ndarray:
        """Where Plotly draws what has these heights."""
        return 10**heights if self.linear is None else heights

    def axis(self, drawn: np.ndarray) -> dict[str, Any]:
        """Plotly's settings of an axis that covers what is drawn, with some room at its ends."""
        heights = self.heights(drawn)
        low, high = float(heights.min()), float(heights.max())
        room = 0.03 * max(high - low, 0.3)
        low, high = low - room, high + room
        if self.linear is not None:
            return {"range": [low, high]} | signed_axis(low, high, self.linear)
        labels = log_axis(low, high)
        return {"type": "log", "range": [low, high]} | labels | {"tickvals": [10**at for at in labels["tickvals"]]}


LOG = Scale()


def drawn_sides(retain: np.ndarray, forget: np.ndarray) -> tuple[Scale, np.ndarray, np.ndarray]:
    """The axis that suits the importances of both sides, and where Plotly draws each."""
    if min(retain.min(), forget.min()) >= 0:
        return LOG, lifted(retain), lifted(forget)
    scale = Scale(linear_part(np.concatenate([retain, forget])))
    return scale, scale.drawn(retain), scale.drawn(forget)


def lifted(values: np.ndarray) -> np.ndarray:
    """Importances that a logarithmic axis can show: zeros, and a few values near zero, raised to the lower edge."""
    return 10 ** log10_clipped(values, 1e-4)
