"""Numbers with their intervals, as cells of a table's row."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any


def ends(interval: Sequence[float] | None, low: str = "low", high: str = "high") -> dict[str, float]:
    """The two ends of an interval by these names; not a number where there is no interval."""
    first, last = (math.nan, math.nan) if interval is None else interval
    return {low: first, high: last}


def with_ends(name: str, value: float, interval: Sequence[float] | None) -> dict[str, float]:
    """A number by its name, and the ends of its interval as `name_low` and `name_high`."""
    return {name: value, **ends(interval, f"{name}_low", f"{name}_high")}


def ends_of(row: Any, low: str, high: str) -> tuple[float, float] | tuple[None, None]:
    """What `ends` put into a row; None for both where there was no interval."""
    return (None, None) if math.isnan(row[low]) else (float(row[low]), float(row[high]))
