"""The values that an option of a run can have, where those are a fixed few."""

from __future__ import annotations

from typing import Literal

Selector = Literal["score", "random", "layer-random"]
Value = Literal["zero", "mean"]
HeadScore = Literal["mean", "median"]
