"""The places in a data set where units are most active, found while activations stream by."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from dissect.backend.forward import check_readable
from dissect.base.checks import check_whole
from dissect.base.errors import DissectError
from dissect.data.windows import Windows


@dataclass(frozen=True)
class Context:
    """A stretch of text around a token on which a unit is highly active.

    Attributes:
        tokens: The tokens as text.
        activations: The unit's activation at each of them.
        peak: The place of the highest among them, by absolute value.
        window: The window of the data set.
        position: The peak's position in that window.
    """

    tokens: tuple[str, ...]
    activations: tuple[float, ...]
    peak: int
    window: int
    position: int


@dataclass(frozen=True, eq=False)
class Peak:
    """As `Context`, with token ids; `begin` is the position of the first of them."""

    height: float
    window: int
    position: int
    begin: int
    tokens: Tensor
    activations: Tensor


@dataclass
class PeakFinder:
    """The k windows in which a unit's activation reaches highest, by absolute value, each with its surroundings.

    One place a window, so that they differ; of two that are equal the earlier one comes first.
    """

    k: int
    around: int
    peaks: list[Peak] = field(default_factory=list)

    def update(
        self,
        first: int,
        tokens: Int64[Tensor, "window position"],
        z: Float[Tensor, "window position"],
        keep: Bool[Tensor, "window position"],
    ) -> None:
        """Look at a batch of windows, of which the first has number `first`; only kept positions can be peaks."""
        heights, positions = torch.where(keep, z.abs(), -1.0).max(1)
        for row in torch.sort(heights, descending=True, stable=True).indices[: self.k].tolist():
            if heights[row] >= 0:
                self.peaks.append(self._peak(first + row, int(positions[row]), tokens[row], z[row]))
        self.peaks = sorted(self.peaks, key=lambda peak: (-peak.height, peak.window))[: self.k]

    def _peak(self, window: int, position: int, tokens: Tensor, z: Tensor) -> Peak:
        begin, end = max(0, position - self.around), position + self.around // 2 + 1
        height = abs(z[position].item())
        return Peak(height, window, position, begin, tokens[begin:end].clone(), z[begin:end].clone())


def check_kept(model: Any, windows: Windows) -> None:
    """Raise `DissectError` unless `model` can read `windows`, and some position of them counts."""
    check_readable(model, windows)
    if windows.n_kept == 0:
        raise DissectError("cannot make cards from windows without a kept position")


def check_contexts(contexts: int, around: int) -> None:
    """Raise `DissectError` unless both are whole numbers, 0 or more."""
    check_whole("contexts", contexts, 0)
    check_whole("around", around, 0)
