"""Options that several parts share."""

from __future__ import annotations

from typing import Literal

Selector = Literal["score", "random", "layer-random"]
Value = Literal["zero", "mean"]
HeadScore = Literal["mean", "median"]
